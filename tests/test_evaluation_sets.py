"""Photos of known people: folders, lists, LFW's pairs, and the face of the named person."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec
from face2vec.errors import GalleryMismatchError, SettingsError
from face2vec.evaluation.sets import (
    NamedPhotos,
    lfw_pairs,
    named_faces,
    photos_in,
    photos_listed,
)


def photo(path: Path, image: Image.Image | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (20, 20))).save(path)
    return path


def test_folder_of_people_names_each_photo_by_its_folder(tmp_path: Path) -> None:
    one = photo(tmp_path / "Ann" / "1.jpg")
    deep = photo(tmp_path / "Ann" / "old" / "2.png")
    other = photo(tmp_path / "Bo B" / "1.jpg")
    photo(tmp_path / "nobody's.jpg")
    (tmp_path / "Ann" / "video.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    found = photos_in(tmp_path)
    assert found == NamedPhotos({one: "Ann", deep: "Ann", other: "Bo B"})


def test_folder_of_people_may_be_in_images(tmp_path: Path) -> None:
    one, other = (photo(tmp_path / "images" / name / "1.jpg") for name in "AB")
    (tmp_path / "notes").mkdir()
    assert photos_in(tmp_path) == NamedPhotos({one: "A", other: "B"})


def test_folder_of_one_person_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "Ann" / "1.jpg")
    with pytest.raises(SettingsError, match="photos of 1 people; it needs a folder"):
        photos_in(tmp_path)


def test_list_of_photos_names_each_by_its_line(tmp_path: Path) -> None:
    one, other = photo(tmp_path / "images" / "a b.jpg"), photo(tmp_path / "images" / "2.jpg")
    (tmp_path / "identity.txt").write_text("a b.jpg 2880\n\n2.jpg 17\n", encoding="utf-8")
    listed = photos_listed(tmp_path / "identity.txt")
    assert listed == NamedPhotos({one: "2880", other: "17"})


def test_list_in_utf_16_is_read(tmp_path: Path) -> None:
    one, other = photo(tmp_path / "1.jpg"), photo(tmp_path / "2.jpg")
    (tmp_path / "list.txt").write_text("1.jpg Jürgen\r\n2.jpg Bo\r\n", encoding="utf-16")
    listed = photos_listed(tmp_path / "list.txt")
    assert listed == NamedPhotos({one: "Jürgen", other: "Bo"})


def test_names_in_two_normal_forms_are_one_person(tmp_path: Path) -> None:
    jose = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    one, two, bo = (photo(tmp_path / f"{n}.jpg") for n in range(3))
    lines = [f"0.jpg {jose[0]}", f"1.jpg {jose[1]}", "2.jpg Bo"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    listed = photos_listed(tmp_path / "list.txt")
    assert listed == NamedPhotos({one: jose[0], two: jose[0], bo: "Bo"})


@pytest.mark.parametrize("line", ["gone.jpg 7", "1.jpg"])
def test_list_with_an_invalid_line_names_the_line(line: str, tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg")
    (tmp_path / "list.txt").write_text(f"1.jpg 2880\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"list\.txt, line 2: there is no photo"):
        photos_listed(tmp_path / "list.txt")


@pytest.mark.parametrize("lines", ["", "1.jpg 7\n", "1.jpg 7\n2.jpg 7\n"])
def test_list_of_fewer_than_two_people_is_refused(lines: str, tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg")
    photo(tmp_path / "2.jpg")
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"list\.txt lists photos of [01] people; it needs"):
        photos_listed(tmp_path / "list.txt")


def test_list_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg")
    (tmp_path / "list.txt").write_bytes("1.jpg Jörg\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"list\.txt is not UTF-8"):
        photos_listed(tmp_path / "list.txt")


def test_listed_photos_may_be_anywhere_and_only_they_are_read(
    tiny_model: Path, tmp_path: Path, astronaut: Image.Image, hopper: Image.Image
) -> None:
    photos = [photo(tmp_path / "elsewhere" / f"{n}.png", astronaut) for n in range(2)]
    photo(tmp_path / "lists" / "here.png", hopper)
    photo(tmp_path / "lists" / "not asked for.png", hopper)
    (tmp_path / "lists" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lists" / "list.txt").write_text(
        f"{photos[0]} Collins\n../elsewhere/1.png Collins\nlink/0.png Collins\nhere.png Hopper\n",
        encoding="utf-8",
    )
    listed = photos_listed(tmp_path / "lists" / "list.txt")
    faces = named_faces(listed, tmp_path / "gallery", model=tiny_model)
    assert (len(faces.photos), faces.without_face) == (4, 0)
    with Face2Vec(tmp_path / "gallery") as engine:
        assert engine.info()["photos"] == 3


PAIRS = """2\t2
Ann\t1\t2
Bo_B\t1\t3
Ann\t1\tBo_B\t12
Bo_B\t3\tAnn\t2
Ann\t1\t4
Ann\t2\t4
Ann\t4\tBo_B\t1
Bo_B\t2\tAnn\t4
"""


def test_lfw_pairs_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(PAIRS, encoding="utf-8")
    pairs = lfw_pairs(tmp_path)
    assert [pair.same for pair in pairs] == [True, True, False, False] * 2
    assert [pair.fold for pair in pairs] == [0] * 4 + [1] * 4
    assert pairs[1].second == tmp_path / "Bo_B" / "Bo_B_0003.jpg"
    assert pairs[2][:2] == (tmp_path / "Ann" / "Ann_0001.jpg", tmp_path / "Bo_B" / "Bo_B_0012.jpg")


@pytest.mark.parametrize(
    "text", ["", "2\n", "2\t2\nAnn\t1\t2\n", PAIRS.replace("Ann\t1\t4", "Ann\t1"), "a b\n"]
)
def test_invalid_pairs_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="not a list of pairs in LFW's form"):
        lfw_pairs(tmp_path)


def test_missing_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no pairs\.txt"):
        lfw_pairs(tmp_path)


@pytest.fixture
def named(tmp_path: Path, astronaut: Image.Image, hopper: Image.Image) -> NamedPhotos:
    """Two photos of each person, one with the other person at its edge, and one without a face."""
    wide = Image.new("RGB", (900, 512), "gray")
    wide.paste(astronaut, (194, 0))
    wide.paste(hopper.resize((150, 176)), (0, 336))
    photo(tmp_path / "Collins" / "1.png", astronaut)
    photo(tmp_path / "Collins" / "2.png", wide)
    photo(tmp_path / "Hopper" / "1.png", hopper)
    photo(tmp_path / "Hopper" / "2.png", hopper.resize((400, 469)))
    photo(tmp_path / "Hopper" / "3.png", Image.linear_gradient("L"))
    return photos_in(tmp_path)


def test_named_faces_are_those_nearest_the_centre(
    named: NamedPhotos, tiny_model: Path, tmp_path: Path
) -> None:
    faces = named_faces(named, tmp_path / "gallery", model=tiny_model)
    assert [path.relative_to(tmp_path).as_posix() for path in faces.photos] == [
        *("Collins/1.png", "Collins/2.png", "Hopper/1.png", "Hopper/2.png"),
    ]
    assert faces.names == ("Collins", "Hopper")
    assert faces.people.tolist() == [0, 0, 1, 1]
    assert faces.counts.tolist() == [2, 3]
    assert faces.without_face == 1
    assert faces.model == "tiny"
    engine = Face2Vec(model=tiny_model)
    in_wide = engine.encode(faces.photos[1])
    assert len(in_wide) == 2
    for number, path in enumerate(faces.photos):
        (one,) = [face for face in engine.encode(path) if face.box == faces.boxes[number]]
        np.testing.assert_allclose(faces.embeddings[number], one.embedding, atol=1e-5)
    left, _, right, _ = faces.boxes[1]
    assert abs((left + right) / 2 - 450) < 100
    assert faces.embeddings[0] @ faces.embeddings[1] > 0.95


def test_faces_in_the_gallery_are_not_encoded_again(
    named: NamedPhotos, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = tmp_path / "gallery"
    first = named_faces(named, gallery, model=tiny_model)
    monkeypatch.setattr(
        "face2vec.encoding.encoder.Encoder.stream", lambda *_: pytest.fail("encoded")
    )
    again = named_faces(named, gallery)
    assert again.photos == first.photos
    assert np.array_equal(again.embeddings, first.embeddings)


def test_gallery_of_another_model_is_refused(
    named: NamedPhotos, tiny_model: Path, tmp_path: Path
) -> None:
    named_faces(named, tmp_path / "gallery", model=tiny_model)
    with pytest.raises(GalleryMismatchError):
        named_faces(named, tmp_path / "gallery", model="mini")
