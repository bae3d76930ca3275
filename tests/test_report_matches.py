from __future__ import annotations

import base64
import copy
import io
import json
import os
import pickle
import re
import sys
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import names_of_any_bytes
from PIL import Image, ImageDraw

from face2vec.errors import MissingExtraError, PhotoError, SettingsError
from face2vec.report.matches import COLUMNS, Matches, QueryResult, save_grid, save_html
from face2vec.report.thumbnails import GREY, placeholder, thumbnail
from face2vec.types import Box, Face, Landmarks, Match

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 160, 30)


def face_at(box: Box, face_id: int | None = None, confidence: float = 0.99) -> Face:
    left, top, right, bottom = box

    def point(x: float, y: float) -> tuple[float, float]:
        return left + x * (right - left), top + y * (bottom - top)

    landmarks: Landmarks = (
        point(0.25, 0.25),
        point(0.75, 0.25),
        point(0.5, 0.5),
        point(0.25, 0.75),
        point(0.75, 0.75),
    )
    return Face(box, landmarks, confidence, id=face_id)


def draw_photo(
    path: Path, box: Box, colour: tuple[int, int, int], size: tuple[int, int] = (300, 200)
) -> Path:
    """A blue photo with a rectangle of ``colour`` at ``box``."""
    image = Image.new("RGB", size, BLUE)
    left, top, right, bottom = box
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=colour)
    image.save(path)
    return path


def is_colour(pixel: object, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool(np.all(np.abs(np.asarray(pixel, int) - np.asarray(colour)) <= tolerance))


RED_BOX: Box = (40.0, 60.0, 100.0, 120.0)
GREEN_BOX: Box = (200.0, 20.0, 240.0, 80.0)


@pytest.fixture
def red_photo(tmp_path: Path) -> Path:
    return draw_photo(tmp_path / "red.png", RED_BOX, RED)


@pytest.fixture
def matches(tmp_path: Path, red_photo: Path) -> Matches:
    green = draw_photo(tmp_path / "green.png", GREEN_BOX, GREEN)
    return Matches(
        [
            Match(1, 0.875, face_at(RED_BOX, 7), str(red_photo), (str(tmp_path / "copy.png"),)),
            Match(2, 0.5, face_at(GREEN_BOX, 3, 0.75), str(green)),
            Match(3, -0.25, face_at((0, 0, 9, 9), 4), str(tmp_path / "gone.png")),
        ]
    )


@pytest.fixture
def found(red_photo: Path, matches: Matches) -> QueryResult:
    return QueryResult(str(red_photo), face_at(RED_BOX), matches)


# --- Matches as a sequence ------------------------------------------------------------------


def test_matches_items_are_the_given_ones_in_order(matches: Matches) -> None:
    assert len(matches) == 3
    assert [m.rank for m in matches] == [1, 2, 3]
    assert matches[-1].similarity == -0.25
    assert matches[1] in matches


def test_matches_slice_gives_matches(matches: Matches) -> None:
    first = matches[:2]
    assert isinstance(first, Matches)
    assert [m.rank for m in first] == [1, 2]


def test_matches_cannot_be_changed(matches: Matches) -> None:
    with pytest.raises(TypeError):
        matches[0] = matches[1]  # type: ignore[index]
    with pytest.raises(AttributeError):
        matches.extra = 1  # type: ignore[attr-defined]


def test_matches_made_later_are_made_once_when_looked_at(matches: Matches) -> None:
    made = []

    def make() -> list[Match]:
        made.append(1)
        return list(matches)

    later = Matches.later(3, make)
    assert len(later) == 3
    assert bool(later)
    assert made == []
    assert later[1] is matches[1]
    assert list(later) == list(matches)
    assert later.to_json() == matches.to_json()
    assert made == [1]
    assert not Matches.later(0, list)
    with pytest.raises(AttributeError):
        later.extra = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_matches_made_later_can_be_copied_and_pickled(copied: Any, matches: Matches) -> None:
    again = copied(Matches.later(3, lambda: list(matches)))
    assert again.to_json() == matches.to_json()


def test_matches_repr_is_a_table() -> None:
    face = face_at((0, 0, 1, 1))
    rows = Matches([Match(1, 0.98765, face, "/a/b.jpg"), Match(10, -0.5, face, "c.jpg")])
    assert repr(rows) == (
        "Matches(2)\nrank  similarity  photo\n   1      0.9877  /a/b.jpg\n  10     -0.5000  c.jpg"
    )


def test_matches_repr_without_matches() -> None:
    assert repr(Matches()) == "Matches(0)\nno match"


def test_matches_repr_of_many_is_cut() -> None:
    face = face_at((0, 0, 1, 1))
    lines = repr(Matches(Match(n, 0.5, face, f"{n}.jpg") for n in range(1, 51))).splitlines()
    assert lines[-2].endswith("20.jpg")
    assert lines[-1] == "… 30 more"
    assert len(Matches(Match(n, 0.5, face, "x") for n in range(50)).to_text().splitlines()) == 51


@names_of_any_bytes
def test_matches_text_escapes_control_characters_and_undecodable_bytes() -> None:
    name = "a\x1b[31m\n" + os.fsdecode(b"\xff") + "猫.jpg"
    text = Matches([Match(1, 1.0, face_at((0, 0, 1, 1)), name)]).to_text()
    assert text.splitlines()[1:] == [r"   1      1.0000  a\x1b[31m\n\udcff猫.jpg"]


# --- data -----------------------------------------------------------------------------------


def test_matches_to_dataframe_columns_and_values(matches: Matches) -> None:
    frame = matches.to_dataframe()
    assert list(frame.columns) == [
        *("rank", "similarity", "probability", "false_matches", "photo"),
        *("left", "top", "right", "bottom", "confidence"),
        *("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y", "nose_x", "nose_y"),
        *("left_mouth_x", "left_mouth_y", "right_mouth_x", "right_mouth_y"),
        *("copies", "face_id", "time"),
    ]
    assert frame["similarity"].tolist() == [0.875, 0.5, -0.25]
    assert frame["face_id"].tolist() == [7, 3, 4]
    first = frame.iloc[0]
    assert first["photo"] == matches[0].photo
    assert tuple(first[["left", "top", "right", "bottom"]]) == RED_BOX
    assert (first["left_eye_x"], first["left_eye_y"]) == (55.0, 75.0)
    assert (first["right_mouth_x"], first["right_mouth_y"]) == (85.0, 105.0)
    assert first["copies"] == matches[0].copies
    assert frame["confidence"].tolist() == [0.99, 0.75, 0.99]


def test_matches_to_dataframe_of_none_keeps_the_columns() -> None:
    frame = Matches().to_dataframe()
    assert frame.shape == (0, len(COLUMNS))


def test_matches_to_json_round_trip(matches: Matches) -> None:
    rows = json.loads(matches.to_json())
    assert rows == matches.to_dicts()
    assert rows[1] == {
        "rank": 2,
        "similarity": 0.5,
        "probability": None,
        "false_matches": None,
        "outside": [],
        "photo": matches[1].photo,
        "box": [200.0, 20.0, 240.0, 80.0],
        "landmarks": {
            "left_eye": [210.0, 35.0],
            "right_eye": [230.0, 35.0],
            "nose": [220.0, 50.0],
            "left_mouth": [210.0, 65.0],
            "right_mouth": [230.0, 65.0],
        },
        "confidence": 0.75,
        "quality": None,
        "parts": None,
        "time": None,
        "track": None,
        "copies": [],
        "face_id": 3,
    }


@names_of_any_bytes
def test_matches_to_json_takes_numpy_numbers_and_odd_names() -> None:
    box = tuple(np.float32(v) for v in (1, 2, 3, 4))
    name = os.fsdecode("猫 ".encode() + b"\xff.jpg")
    match = Match(1, np.float32(0.5), face_at(box), name)  # type: ignore[arg-type]
    text = Matches([match]).to_json()
    assert text.isascii()
    assert json.loads(text)[0]["photo"] == name
    assert json.loads(text)[0]["box"] == [1.0, 2.0, 3.0, 4.0]


def test_found_to_json_holds_query_and_matches(found: QueryResult) -> None:
    record = json.loads(found.to_json())
    assert record["query"]["photo"] == found.photo
    assert record["query"]["box"] == list(RED_BOX)
    assert record["query"]["landmarks"]["nose"] == [70.0, 90.0]
    assert record["matches"] == found.matches.to_dicts()


def test_found_by_embedding_has_no_face(matches: Matches) -> None:
    found = QueryResult("<embedding>", None, matches)
    assert found.to_dict()["query"] == {"photo": "<embedding>"}
    assert found.thumbnail() is None
    assert repr(found).splitlines()[0] == "QueryResult: <embedding>"


def test_found_is_frozen_and_readable(found: QueryResult) -> None:
    with pytest.raises(FrozenInstanceError):
        found.photo = "other"  # type: ignore[misc]
    first, head, *_ = repr(found).splitlines()
    assert first == f"QueryResult: {found.photo}, face at (40, 60, 100, 120)"
    assert head == "rank  similarity  photo"


def test_found_to_dataframe_is_that_of_its_matches(found: QueryResult) -> None:
    assert found.to_dataframe().equals(found.matches.to_dataframe())


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("pandas", lambda m: m.to_dataframe()),
        ("matplotlib", lambda m: m.plot()),
        ("matplotlib", lambda m: save_grid([QueryResult("q", None, m)], "x.png")),
    ],
    ids=["to_dataframe", "plot", "save_grid"],
)
def test_missing_extra_gives_the_pip_line(
    package: str, call: object, matches: Matches, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=re.escape("pip install 'face2vec[plot]'")
    ) as caught:
        call(matches)  # type: ignore[operator]
    assert repr(package) in str(caught.value)


# --- thumbnails -----------------------------------------------------------------------------


def test_thumbnail_is_the_box_with_a_margin(red_photo: Path) -> None:
    cut = thumbnail(str(red_photo), RED_BOX, 96)
    assert cut.mode == "RGB"
    assert cut.size == (96, 96)
    # The box takes 1 / 1.6 of the side: 18 pixels of margin on each side.
    for inside in [(21, 21), (48, 48), (75, 75)]:
        assert is_colour(cut.getpixel(inside), RED), inside
    for margin in [(14, 48), (82, 48), (48, 14), (48, 82)]:
        assert is_colour(cut.getpixel(margin), BLUE), margin


def test_thumbnail_outside_the_photo_is_grey(tmp_path: Path) -> None:
    corner: Box = (0.0, 0.0, 40.0, 20.0)
    cut = thumbnail(draw_photo(tmp_path / "corner.png", corner, RED), corner, 100)
    # The square around the box reaches from −12 to 52 and from −22 to 42; the photo's part
    # of it is 52 wide and 42 high, so it fills the width and has grey above and below.
    assert is_colour(cut.getpixel((50, 2)), GREY)
    assert is_colour(cut.getpixel((50, 97)), GREY)
    assert is_colour(cut.getpixel((10, 20)), RED)
    assert is_colour(cut.getpixel((95, 80)), BLUE)


def test_thumbnail_of_a_small_face_in_a_large_photo_is_cut_at_full_size(tmp_path: Path) -> None:
    box: Box = (3000.0, 100.0, 3020.0, 120.0)
    image = Image.new("RGB", (4000, 300), BLUE)
    for x in range(3000, 3020, 2):  # stripes one pixel wide, which a reduced photo would blend
        image.paste(RED, (x, 100, x + 1, 120))
    image.save(tmp_path / "large.png")
    cut = np.asarray(thumbnail(tmp_path / "large.png", box, 320), int)
    row = cut[160, 70:250]  # ten pixels of the thumbnail for one of the photo
    assert row[:, 0].max() > 180
    assert row[:, 0].min() < 50


def test_thumbnail_is_upright(tmp_path: Path) -> None:
    box: Box = (40.0, 60.0, 100.0, 120.0)
    upright = Image.open(draw_photo(tmp_path / "upright.png", box, RED))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; a viewer turns it clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert is_colour(thumbnail(tmp_path / "turned.png", box).getpixel((72, 72)), RED)


def placeholder_pixels() -> np.ndarray:
    return np.asarray(placeholder("photo not found", 96))


def test_placeholder_has_words_on_grey() -> None:
    image = placeholder_pixels()
    assert tuple(image[0, 0]) == GREY
    assert 0.02 < (image.max(axis=2) < 130).mean() < 0.5


@pytest.mark.parametrize("kind", ["missing", "not a photo", "smaller than the box"])
def test_thumbnail_of_a_photo_that_is_gone_or_changed_is_the_placeholder(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "photo.png"
    if kind == "not a photo":
        path.write_text("a text")
    elif kind == "smaller than the box":
        Image.new("RGB", (30, 30)).save(path)
    assert np.array_equal(np.asarray(thumbnail(path, RED_BOX, 96)), placeholder_pixels())


def test_found_without_a_photo_has_no_thumbnail(found: QueryResult, tmp_path: Path) -> None:
    face = QueryResult("<face>", found.face, found.matches)
    assert face.thumbnail() is None
    assert len(shown(face.plot())) == 3
    save_html([face], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert [(img["alt"] or "")[:7] for img in page.of("img")] == ["Match 1", "Match 2", "Match 3"]


def test_found_thumbnail_comes_from_the_source(red_photo: Path) -> None:
    found = QueryResult("<bytes>", face_at(RED_BOX), Matches(), red_photo.read_bytes())
    image = found.thumbnail()
    assert image is not None
    assert is_colour(image.getpixel((72, 72)), RED)


# --- pages ----------------------------------------------------------------------------------


class PageReader(HTMLParser):
    """Collects tags with their attributes and the text; fails on a tag left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pictures(page: PageReader) -> list[Image.Image]:
    uris = [img["src"] or "" for img in page.of("img")]
    return [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


def test_save_html_shows_queries_matches_and_boxes(found: QueryResult, tmp_path: Path) -> None:
    save_html([found, QueryResult("<embedding>", None, Matches())], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert [tag for tag, _ in page.tags if tag in {"h1", "h2"}] == ["h1", "h2", "h2"]
    assert "2 query faces" in page.words
    assert "face at (40, 60, 100, 120)" in page.words
    assert "0.8750" in page.words
    assert "-0.2500" in page.words
    assert "(200, 20, 240, 80)" in page.words
    assert "the same file: " + found.matches[0].copies[0] in page.words
    assert "No match." in page.words
    centres = [image.getpixel((72, 72)) for image in pictures(page)[:3]]
    assert is_colour(centres[0], RED)
    assert is_colour(centres[1], RED)
    assert is_colour(centres[2], GREEN)
    assert len(pictures(page)) == 4


def test_save_html_shows_a_photo_once_with_numbered_boxes(red_photo: Path, tmp_path: Path) -> None:
    boxes = (RED_BOX, (10.0, 10.0, 30.0, 30.0))
    results = [
        QueryResult(str(red_photo), face_at(box), Matches(), None, number, 2)
        for number, box in enumerate(boxes, 1)
    ]
    save_html([*results, QueryResult("<embedding>", None, Matches())], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert len(page.of("svg")) == len(page.of("image")) == 1
    drawn = [
        tuple(float(rect[name] or 0) for name in ("x", "y", "width", "height"))
        for rect in page.of("rect")
    ]
    assert drawn == [(x, y, right - x, bottom - y) for x, y, right, bottom in boxes]
    links = [a["href"] for a in page.of("a") if (a["href"] or "").startswith("#")]
    assert links == ["#query-1", "#query-2"] == [f"#{h2['id']}" for h2 in page.of("h2")[:2]]
    assert "face 2 of 2 at (10, 10, 30, 30)" in page.words
    assert results[1].title == f"{red_photo}, face 2 of 2 at (10, 10, 30, 30)"
    assert results[1].to_dict()["query"]["number"] == 2


def test_save_html_folds_the_matches_of_later_faces(red_photo: Path, tmp_path: Path) -> None:
    results = [
        QueryResult(str(red_photo), face_at(RED_BOX), Matches(), None, n, 9) for n in range(1, 10)
    ]
    save_html(results, tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert ["open" in one for one in page.of("details")] == [True] * 8 + [False]


def test_save_html_is_readable_without_seeing_it(found: QueryResult, tmp_path: Path) -> None:
    save_html([found], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert page.of("html")[0]["lang"] == "en"
    assert [img["alt"] for img in page.of("img")] == [
        "Query face in red.png",
        "Match 1, face in red.png",
        "Match 2, face in green.png",
        "Match 3, face in gone.png",
    ]
    assert [th["scope"] for th in page.of("th")] == ["col"] * 4
    assert page.of("section")[0]["aria-labelledby"] == page.of("h2")[0]["id"]
    assert len(page.of("caption")) == 1


def test_save_html_stands_alone(found: QueryResult, tmp_path: Path) -> None:
    save_html([found], tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text("utf-8")
    page = PageReader(text)
    assert all((img["src"] or "").startswith("data:image/jpeg;base64,") for img in page.of("img"))
    assert page.of("script") == page.of("link") == page.of("iframe") == []
    assert not re.search(r"https?:|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    # Links go to the photos that are there, and nowhere else.
    red, green = (Path(m.photo).as_uri() for m in found.matches[:2])
    assert [a["href"] for a in page.of("a")] == [red, red, green]


def test_save_html_of_a_query_of_many_photos(tmp_path: Path) -> None:
    photos = ", ".join(f"IMG_{number:04}.jpg" for number in range(40))  # too long for one file
    save_html([QueryResult(photos, face_at(RED_BOX), Matches())], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert "IMG_0039.jpg" in page.words
    assert page.of("a") == []


def test_save_html_escapes_names(tmp_path: Path) -> None:
    path = draw_photo(tmp_path / '<b>&".png', RED_BOX, RED)
    match = Match(1, 0.5, face_at(RED_BOX), str(path), ("<script>alert(1)</script>",))
    save_html([QueryResult(str(path), face_at(RED_BOX), Matches([match]))], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert page.of("b") == page.of("script") == []
    assert '<b>&".png' in page.words
    assert "<script>alert(1)</script>" in page.words
    assert [img["alt"] for img in page.of("img")] == [
        'Query face in <b>&".png',
        'Match 1, face in <b>&".png',
    ]
    assert {a["href"] for a in page.of("a")} == {path.as_uri()}


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has file names that are not valid Unicode"
)
@names_of_any_bytes
def test_save_html_of_names_in_any_script(tmp_path: Path) -> None:
    names = ["猫 ネコ.png", "قطة.png", "🐈.png", os.fsdecode(b"\xff\xfe.png")]
    paths = [draw_photo(tmp_path / name, RED_BOX, RED) for name in names]
    rows = Matches(Match(n, 0.5, face_at(RED_BOX), str(p)) for n, p in enumerate(paths, 1))
    save_html([QueryResult(str(paths[0]), face_at(RED_BOX), rows)], tmp_path / "out.html")
    page = PageReader((tmp_path / "out.html").read_text("utf-8"))
    assert all(name in page.words for name in names[:3])
    assert r"\udcff\udcfe.png" in page.words
    assert page.of("a")[-1]["href"] == paths[-1].as_uri()
    assert all(is_colour(image.getpixel((72, 72)), RED) for image in pictures(page))


def test_found_save_html_writes_the_page_of_one(found: QueryResult, tmp_path: Path) -> None:
    found.save_html(tmp_path / "one.html")
    save_html([found], tmp_path / "same.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "same.html").read_bytes()


def test_notebook_table_has_thumbnails(found: QueryResult) -> None:
    page = PageReader(found.matches._repr_html_())
    assert len(page.of("tr")) == 4
    assert is_colour(pictures(page)[1].getpixel((72, 72)), GREEN)
    whole = PageReader(found._repr_html_())
    assert len(pictures(whole)) == 4
    assert "face at (40, 60, 100, 120)" in whole.words
    assert PageReader(Matches()._repr_html_()).words == "No match."


def test_notebook_table_of_many_is_cut(red_photo: Path) -> None:
    face = face_at(RED_BOX)
    page = PageReader(Matches(Match(n, 0.5, face, "x") for n in range(50))._repr_html_())
    assert len(page.of("tr")) == 21
    assert "30 more are not shown" in page.words


# --- pictures -------------------------------------------------------------------------------


def shown(figure: object) -> list[tuple[str, tuple[int, ...]]]:
    """The title and the colour in the middle of each picture of a figure."""
    cells = []
    for cell in figure.axes:  # type: ignore[attr-defined]
        for image in cell.images:
            pixels = np.asarray(image.get_array())
            middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
            cells.append((cell.get_title(), tuple(int(v) for v in middle)))
    return cells


def test_plot_shows_each_match_with_rank_similarity_and_name(matches: Matches) -> None:
    cells = shown(matches.plot(columns=2))
    assert [title for title, _ in cells] == [
        "1: 0.875\nred.png",
        "2: 0.500\ngreen.png",
        "3: -0.250\ngone.png",
    ]
    assert cells[0][1] == RED
    assert cells[1][1] == GREEN


def test_plot_columns_make_rows(matches: Matches) -> None:
    assert matches.plot(columns=2).axes[0].get_gridspec().get_geometry() == (2, 2)
    assert matches.plot().axes[0].get_gridspec().get_geometry() == (1, 3)


def test_plot_shows_the_query_first(found: QueryResult, tmp_path: Path) -> None:
    title, colour = shown(found.plot())[0]
    assert title == "query\nred.png"
    assert colour == RED
    whole = draw_photo(tmp_path / "whole.png", (100, 50, 200, 150), GREEN)
    assert shown(found.matches.plot(query=whole))[0] == ("query", GREEN)
    with pytest.raises(PhotoError):
        found.matches.plot(query=tmp_path / "gone.png")


def test_plot_saves_a_picture_and_leaves_no_state(found: QueryResult, tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    figure = found.plot(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (640, 210)  # four cells of 1.6 by 2.1 inches at 100 dots an inch
        assert any(is_colour(colour, RED) for _, colour in picture.convert("RGB").getcolors(99999))
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[operator]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_save_grid_has_a_row_for_each_query(
    found: QueryResult, tmp_path: Path, suffix: str
) -> None:
    nothing = QueryResult(found.photo, found.face, Matches())
    save_grid([found, nothing], tmp_path / f"grid{suffix}", columns=3)
    with Image.open(tmp_path / f"grid{suffix}") as picture:
        assert picture.size == (640, 420)
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels[:210].std() > 10
    assert pixels[210:].std() > 10


def test_plot_of_names_in_any_script_gives_no_warning(tmp_path: Path) -> None:
    names = ["猫 ネコ.jpg", "$x_{a$.jpg", "🐈.jpg", "قطة.jpg", "é" * 50 + ".jpg"]
    rows = Matches(Match(n, 0.5, face_at(RED_BOX), name) for n, name in enumerate(names, 1))
    titles = [title for title, _ in shown(rows.plot(tmp_path / "out.png"))]
    assert titles[1] == "2: 0.500\n$x_{a$.jpg"
    assert titles[4] == "5: 0.500\n" + "é" * 13 + "…" + "éééé.jpg"


def test_plot_refuses_what_cannot_be_drawn(found: QueryResult, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="columns must be at least 1, not 0"):
        found.plot(columns=0)
    with pytest.raises(SettingsError, match=r"out\.txt.*suffix \.png"):
        found.plot(tmp_path / "out.txt")
    with pytest.raises(SettingsError, match="no results to draw"):
        save_grid([], tmp_path / "out.png")
    with pytest.raises(SettingsError, match="301 rows"):
        save_grid([found] * 301, tmp_path / "out.png")
    assert not list(tmp_path.glob("out.*"))
