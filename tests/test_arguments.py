"""Checks of arguments: what each message says, and that every method of `Face2Vec` checks."""

# Each message is on one line, as it is printed.
# ruff: noqa: E501

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec, Face2VecError, SettingsError, arguments, save_html
from face2vec.types import Face

POINTS = ((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0))
FACE = Face((0.0, 0.0, 10.0, 10.0), POINTS, 0.99)
EMBEDDING = np.ones(64, np.float32)
IMAGE = np.zeros((9, 9, 3), np.uint8)
PHOTO = "a path, bytes, an open file, a PIL image or an RGB array uint8 (height, width, 3)"
A_LIST = "for one photo give a list: [photo]"
BY_PATH = "photos are found by path (folder, file or pattern), not by"
TO_ADD = "an image in memory can be encoded and searched for; save it to a file to add it"


def png_as_text() -> str:
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


BASE64 = png_as_text()
NOT_BASE64 = f"a photo must be {PHOTO}, not the text '{BASE64[:60]}…' of {len(BASE64):,} characters; decode the Base64: base64.b64decode(text)"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (2.5, "2.5"),
        ("a.jpg", "the text 'a.jpg'"),
        ("x" * 1234, f"the text '{'x' * 60}…' of 1,234 characters"),
        (b"12345", "5 bytes"),
        (memoryview(b"12345"), "5 bytes"),
        (Path("a") / "b", f"the path {str(Path('a/b'))!r}"),
        (np.ones((2, 3), np.float32), "an array float32 (2, 3)"),
        (np.ones(4, np.int64), "an array int64 (4,)"),
        ([1, 2], "a list of 2"),
        (FACE, "an object of type Face"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_described_says_what_a_value_is_in_a_few_words(value: object, words: str) -> None:
    assert arguments.described(value) == words


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_takes_every_whole_number(value: Any) -> None:
    assert arguments.whole("k", value, 1) == 3
    assert type(arguments.whole("k", value, 1)) is int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "k must be at least 1, not 0"),
        (2.5, "k must be a whole number of at least 1, not 2.5"),
        (True, "k must be a whole number of at least 1, not True"),
        (None, "k must be a whole number of at least 1, not None"),
        ("3", "k must be a whole number of at least 1, not the text '3'"),
    ],
    ids=str,
)
def test_whole_refuses_everything_else(value: object, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        arguments.whole("k", value, 1)
    assert str(caught.value) == words


@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), 1.5, -0.1, [0.5]], ids=str)
def test_within_refuses_what_is_not_a_number_of_the_range(value: object) -> None:
    with pytest.raises(SettingsError, match=r"far must be a number from 0 to 1, not "):
        arguments.within("far", value, 0, 1)
    assert arguments.within("far", np.float32(0.5), 0, 1) == 0.5


@pytest.fixture(scope="module")
def engine(
    tiny_model: Path, faces_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face2Vec]:
    folder = tmp_path_factory.mktemp("arguments") / "gallery"
    with Face2Vec(folder, model=tiny_model, runtime="onnxruntime", threads=1) as made:
        made.add(faces_folder / "hopper.jpg")
        yield made


STATUSES_IN_WORDS = "'indexed', 'no-face', 'unreadable', 'damaged'"
WRONG: list[tuple[str, Callable[[Any], object], str]] = [
    ("bulk_encode", lambda e: e.bulk_encode("x.jpg"), f"photos must be several photos, not the text 'x.jpg'; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(b"123"), f"photos must be several photos, not 3 bytes; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(Path("x.jpg")), f"photos must be several photos, not the path 'x.jpg'; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(IMAGE), f"photos must be several photos, not an array uint8 (9, 9, 3); {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(Image.new("L", (9, 9))), f"photos must be several photos, not an object of type Image; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(io.BytesIO()), f"photos must be several photos, not an object of type BytesIO; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode(7), f"photos must be several photos, not 7; {A_LIST}"),
    ("bulk_encode", lambda e: e.bulk_encode([], on_error="skip"), "on_error must be a function or None, not the text 'skip'"),
    ("encode", lambda e: e.encode(3), f"a photo must be {PHOTO}, not 3"),
    ("encode", lambda e: e.encode(["x.jpg"]), f"a photo must be {PHOTO}, not a list of 1; give photos one by one, or use bulk_encode for several"),
    ("encode", lambda e: e.encode(FACE), f"a photo must be {PHOTO}, not an object of type Face; a Face is searched for, verified and identified, and needs no encoding"),
    ("encode", lambda e: e.encode(BASE64), NOT_BASE64),
    ("encode", lambda e: e.encode("data:image/jpeg;base64,/9j/4AAQ"), f"a photo must be {PHOTO}, not the text 'data:image/jpeg;base64,/9j/4AAQ'; decode the data URL: base64.b64decode(part)"),
    ("encode", lambda e: e.encode("https://example.org/a.jpg"), f"a photo must be {PHOTO}, not the text 'https://example.org/a.jpg'; download it first"),
    ("encode", lambda e: e.encode("é " * 2500), f"a photo must be {PHOTO}, not the text '{'é ' * 30}…' of 5,000 characters"),
    ("search", lambda e: e.search(BASE64), NOT_BASE64),
    ("search", lambda e: e.search(FACE, k=2.5), "k must be a whole number of at least 1, not 2.5"),
    ("search", lambda e: e.search(FACE, k=None), "k must be a whole number of at least 1, not None"),
    ("search", lambda e: e.search(10, "x.jpg"), "k must be a whole number of at least 1, not the text 'x.jpg'"),
    ("search", lambda e: e.search(FACE, min_similarity="0.5"), "min_similarity must be a number from -1 to 1, not the text '0.5'"),
    ("search", lambda e: e.search(FACE, far=float("nan")), "far must be a number from 0 to 1, not nan"),
    ("search_pose", lambda e: e.search_pose(EMBEDDING), "query must be a photo or a Face, not an array float32 (64,); search takes embeddings"),
    ("search_pose", lambda e: e.search_pose("x.jpg", "pose"), "k must be a whole number of at least 1, not the text 'pose'"),
    ("search_pose", lambda e: e.search_pose("x.jpg", person=2.5), "who must be a number, a name or a Person, not 2.5"),
    ("identify", lambda e: e.identify(EMBEDDING), "query must be a photo or a Face, not an array float32 (64,); search takes embeddings"),
    ("identify", lambda e: e.identify(["x.jpg"]), "query must be one photo or a Face, not a list of 1"),
    ("identify", lambda e: e.identify("x.jpg", at_least=50), "at_least must be a number from 0 to 1, not 50"),
    ("remove", lambda e: e.remove("", "x.jpg"), "a photo must be a path, not the text ''; nothing was removed"),
    ("identify", lambda e: e.identify("x.jpg", candidates=None), "candidates must be a whole number of at least 0, not None"),
    ("verify", lambda e: e.verify("x.jpg", "y.jpg", far="low"), "far must be a number from 0 to 1, not the text 'low'"),
    ("suggest", lambda e: e.suggest("all"), "most must be a whole number of at least 1, not the text 'all'"),
    ("copy_to", lambda e: e.copy_to(3), "gallery must be a path, not 3"),
    ("undo", lambda e: e.undo("a name"), "expected must be an Edit, as edits() gives it, not the text 'a name'"),
    ("marked_faces", lambda e: e.marked_faces(7), f"{BY_PATH} 7; {TO_ADD}"),
    ("edits", lambda e: e.edits(0), "most must be at least 1, not 0"),
    ("answer", lambda e: e.answer("yes", True), "suggestion must be a Suggestion, not the text 'yes'"),
    ("hide", lambda e: e.hide(2.5), "who must be a number, a name or a Person, not 2.5"),
    ("hide_people", lambda e: e.hide_people("Ada"), "people must be a list of numbers, names or Person objects, not the text 'Ada'"),
    ("hide_people", lambda e: e.hide_people(7), "people must be a list of numbers, names or Person objects, not 7"),
    ("hide_people", lambda e: e.hide_people([2.5]), "who must be a number, a name or a Person, not 2.5"),
    ("hide_people", lambda e: e.hide_people([]), "people is empty; give one or more numbers, names or Person objects"),
    ("this_person", lambda e: e.this_person(None, 1, name=3), "name must be text, not 3"),
    ("different", lambda e: e.different(FACE, 2), "faces must be a whole number of at least 1, not an object of type Face"),
    ("choose_cover", lambda e: e.choose_cover(1, "a"), "face must be a whole number of at least 1, not the text 'a'"),
    ("calibrate", lambda e: e.calibrate("people"), "calibration must be a Calibration, not the text 'people'"),
    ("reliability", lambda e: e.reliability(far=2), "far must be a number from 0 to 1, not 2"),
    ("add", lambda e: e.add(5), f"{BY_PATH} 5; {TO_ADD}"),
    ("add", lambda e: e.add(IMAGE), f"{BY_PATH} an array uint8 (9, 9, 3); {TO_ADD}"),
    ("add", lambda e: e.add("x.jpg", report=True), "report must be a function or None, not True"),
    ("add", lambda e: e.add("x.jpg", again="unreadable"), f"again must be some of {STATUSES_IN_WORDS} in a list, not 'unreadable'"),
    ("add", lambda e: e.add("x.jpg", only="x.jpg"), "only must be a list of paths as text, or None, not the text 'x.jpg'"),
    ("add", lambda e: e.add("x.jpg", only=[3]), "only must be a list of paths as text, or None, not a list of 1"),
    ("photos", lambda e: e.photos("gone"), f"statuses must be some of {STATUSES_IN_WORDS} in a list, not ('gone',)"),
    ("encode_photos", lambda e: e.encode_photos(IMAGE), f"{BY_PATH} an array uint8 (9, 9, 3); {TO_ADD}"),
    ("enroll", lambda e: e.enroll(3), "people must be a path, not 3"),
    ("enroll", lambda e: e.enroll({1: "x.jpg"}), "a name must be text, not 1"),
    ("name_face", lambda e: e.name_face("Ada", "Ada"), "face must be a whole number of at least 1, not the text 'Ada'"),
    ("name_face", lambda e: e.name_face(1, 2), "name must be text, not 2"),
    ("export", lambda e: e.export(None), "path must be a path, not None"),
    ("import_faces", lambda e: e.import_faces(EMBEDDING), "path must be a path, not an array float32 (64,)"),
    ("import_faces", lambda e: e.import_faces("x.csv", model=3), "model must be a path, not 3"),
    ("import_xmp", lambda e: e.import_xmp(3), f"{BY_PATH} 3; {TO_ADD}"),
    ("export_xmp", lambda e: e.export_xmp(3), "to must be a path, not 3"),
    ("export_people", lambda e: e.export_people(None), "to must be a path, not None"),
    ("remove", lambda e: e.remove(b"x.jpg"), f"{BY_PATH} 5 bytes; {TO_ADD}"),
    ("upgrade", lambda e: e.upgrade(None), "model must be a path, not None"),
    ("upgrade", lambda e: e.upgrade("mini", sample=0.5), "sample must be a whole number of at least 1, not 0.5"),
    ("person", lambda e: e.person(None), "who must be a number, a name or a Person, not None"),
    ("person", lambda e: e.person(True), "who must be a number, a name or a Person, not True"),
    ("faces_of", lambda e: e.faces_of(FACE), "who must be a number, a name or a Person, not an object of type Face"),
    ("name", lambda e: e.name("Ada", 3), "name must be text, not 3"),
    ("merge", lambda e: e.merge(1, [2, 3]), "who must be a number, a name or a Person, not a list of 2"),
    ("split", lambda e: e.split(1, [2, 3]), "faces must be numbers of faces, not a list of 2; give them one by one: 1, 2, 3"),
    ("this_person", lambda e: e.this_person("Ada", "hopper.jpg"), "faces must be a whole number of at least 1, not the text 'hopper.jpg'"),
    ("not_this_person", lambda e: e.not_this_person("Ada", 2.0), "faces must be a whole number of at least 1, not 2.0"),
    ("add", lambda e: e.add("x.jpg", pairs="raw"), "pairs must be 'jpeg' or 'both', not the text 'raw'"),
    ("mark_face", lambda e: e.mark_face("a.jpg", "abcd"), "box must be four numbers: left, top, right and bottom in pixels, not the text 'abcd'"),
    ("mark_face", lambda e: e.mark_face(7, (0, 0, 9, 9)), "photo must be a path, not 7"),
    ("name_mark", lambda e: e.name_mark("one", "Ada"), "mark must be a whole number of at least 1, not the text 'one'"),
    ("name_mark", lambda e: e.name_mark(1, 7), "name must be text, not 7"),
    ("unmark", lambda e: e.unmark(1.5), "mark must be a whole number of at least 1, not 1.5"),
    ("marks", lambda e: e.marks(7), "photo must be a path, not 7"),
    ("ignore", lambda e: e.ignore([1]), "faces must be numbers of faces, not a list of 1; give them one by one: 1, 2, 3"),
    ("readmit", lambda e: e.readmit(3), f"{BY_PATH} 3; {TO_ADD}"),
    ("is_half_forgotten", lambda e: e.is_half_forgotten(2.5), "who must be a number, a name or a Person, not 2.5"),
    ("forget", lambda e: e.forget(EMBEDDING), "who must be a number, a name or a Person, not an array float32 (64,)"),
]  # fmt: skip
"""A method, a wrong call of it, and the whole message."""


@pytest.mark.parametrize(("method", "call", "words"), WRONG, ids=[one[0] for one in WRONG])
def test_wrong_call_is_one_line_that_names_the_argument(
    engine: Face2Vec, method: str, call: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        call(engine)
    assert str(caught.value) == words


def test_every_method_with_an_argument_is_called_wrongly() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(Face2Vec, inspect.isfunction)
        if not name.startswith("_") and len(inspect.signature(method).parameters) > 1
    }
    only_switches = {"find_people", "prune"}  # anything is true or false
    deprecated = {"search_layout"}
    assert methods - only_switches - deprecated == {one[0] for one in WRONG}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gallery": 3}, "gallery must be a path, not 3"),
        ({"model": ["mini"]}, "model must be a path, not a list of 1"),
        ({"detector": 7}, "detector must be a name, DetectorSettings, YunetSettings, or an object that implements Detector, not 7"),
        ({"detector": "dlib"}, "unknown detector 'dlib'; choose one of mtcnn, yunet"),
        ({"runtime": None}, "runtime must be text, not None"),
        ({"threads": 2.5}, "threads must be a whole number of at least 1, not 2.5"),
        ({"index": 1}, "index must be text, not 1"),
        ({"max_pixels": 0}, "max_pixels must be at least 1, not 0"),
    ],
    ids=["gallery", "model", "detector", "detector's name", "runtime", "threads", "index", "max_pixels"],
)  # fmt: skip
def test_wrong_setting_is_one_line_that_names_it(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Face2Vec(**options)
    assert str(caught.value) == words


def test_several_photos_may_be_an_array_of_images_or_any_iterable(engine: Face2Vec) -> None:
    images = np.zeros((2, 60, 60, 3), np.uint8)
    assert list(engine.bulk_encode(images)) == [[], []]
    assert list(engine.bulk_encode(iter(images))) == [[], []]
    assert list(engine.bulk_encode({"a": images[0]}.values())) == [[]]


NUL = "a\0b.jpg"
WITH_NUL: dict[str, Callable[[Any], object]] = {
    "search": lambda e: e.search(NUL),
    "verify": lambda e: e.verify(NUL, NUL),
    "identify": lambda e: e.identify(NUL),
    "encode": lambda e: e.encode(Path(NUL)),
    "encode_photos": lambda e: list(e.encode_photos(NUL)),
    "bulk_encode": lambda e: list(e.bulk_encode([NUL])),
    "add": lambda e: e.add(NUL),
    "remove": lambda e: e.remove(NUL),
    "readmit": lambda e: e.readmit(NUL),
    "mark_face": lambda e: e.mark_face(NUL, (0, 0, 20, 20)),
    "marks": lambda e: e.marks(NUL),
    "marked_faces": lambda e: e.marked_faces(NUL),
    "export": lambda e: e.export("a\0.csv"),
    "export_people": lambda e: e.export_people("a\0"),
    "export_xmp": lambda e: e.export_xmp("a\0"),
    "import_faces": lambda e: e.import_faces("a\0.csv"),
    "import_xmp": lambda e: e.import_xmp(NUL),
    "enroll": lambda e: e.enroll("a\0"),
    "enroll_photo": lambda e: e.enroll({"Ada": NUL}),
    "copy_to": lambda e: e.copy_to("a\0"),
    "gallery": lambda e: Face2Vec("a\0"),
    "model": lambda e: Face2Vec(model="a\0.onnx"),
    "page": lambda e: save_html([], "a\0.html"),
}


@pytest.mark.parametrize("call", WITH_NUL.values(), ids=list(WITH_NUL))
def test_path_with_a_nul_character_is_refused_in_words(
    call: Callable[[Any], object], engine: Face2Vec
) -> None:
    with pytest.raises(Face2VecError):
        call(engine)


def test_row_of_a_table_with_a_nul_character_is_named(engine: Face2Vec, tmp_path: Path) -> None:
    engine.export(tmp_path / "faces.jsonl")
    text = (tmp_path / "faces.jsonl").read_text("utf-8").replace("hopper.jpg", "a\\u0000b.jpg")
    (tmp_path / "faces.jsonl").write_text(text, "utf-8")
    with Face2Vec(tmp_path / "other") as other, pytest.raises(SettingsError, match="of row 1 is "):
        other.import_faces(tmp_path / "faces.jsonl")
