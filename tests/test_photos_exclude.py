"""What is left out when a folder is searched."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from helpers import posix_only

from face2vec.errors import SettingsError
from face2vec.photos.discover import find_photos
from face2vec.photos.exclude import USUAL, Rules


def tree(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff\xe0")


def found(source: Path | str, **options: list[str]) -> list[str]:
    return [photo.path.as_posix() for photo in find_photos(source, **options)]


LEFT = [
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/b.jpg",
    "2019/@eaDir/c.jpg",
    "$RECYCLE.BIN/S-1-5-21/d.jpg",
    "$Recycle.Bin/e.jpg",
    ".Trashes/501/f.jpg",
    "__MACOSX/._g.jpg",
    "Catalog Previews.lrdata/0/h.jpg",
    "CaptureOne/Cache/Thumbnails/i.jpg",
    "Mac/Library.photoslibrary/resources/derivatives/j.jpg",
    "Mac/Library.photoslibrary/k.jpg",
    "Old.aplibrary/Thumbnails/l.jpg",
    "2019/a.jpg_original",
]
TAKEN = [
    "2019/a.jpg",
    "CaptureOne/b.jpg",
    "Mac/Library.photoslibrary/originals/0/c.jpg",
    "Mac/My photoslibrary/d.jpg",
    "Old.aplibrary/Masters/e.jpg",
    "recycle/f.jpg",
]


def test_what_other_programs_keep_beside_photos_is_left_out(tmp_path: Path) -> None:
    tree(tmp_path, *LEFT, *TAKEN)
    left_out: Counter[str] = Counter()
    photos = find_photos(tmp_path, left_out=left_out)
    assert sorted(photo.path.as_posix() for photo in photos) == TAKEN
    assert left_out == {
        "@eaDir/": 2,
        "#recycle/": 1,
        "$RECYCLE.BIN/": 2,
        "__MACOSX/": 1,
        "*.lrdata/": 1,
        "CaptureOne/Cache/": 1,
        "*.photoslibrary/*": 2,
        "*.aplibrary/*": 1,
        "*.*_original": 1,
    }


def test_folder_that_is_given_is_searched(tmp_path: Path) -> None:
    tree(tmp_path, "@eaDir/a.jpg", "@eaDir/@eaDir/b.jpg", ".c/d.jpg")
    assert found(tmp_path / "@eaDir") == ["a.jpg"]
    assert found(f"{tmp_path}/@eaDir/*.jpg") == ["a.jpg"]
    assert found(f"{tmp_path}/*/*.jpg", include=["@eaDir/"]) == ["@eaDir/a.jpg"]
    assert found(f"{tmp_path}/.c/*.jpg") == ["d.jpg"]
    assert found(tmp_path / "@eaDir" / "@eaDir" / "b.jpg") == ["b.jpg"]
    with pytest.raises(SettingsError, match="no file matches the pattern"):
        find_photos(f"{tmp_path}/**/*.jpg")


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (["b.jpg"], ["a.jpg", "x/a.jpg", "x/y/a.jpg"]),
        (["*.jpg", "!a.jpg"], ["a.jpg", "x/a.jpg", "x/y/a.jpg"]),
        (["/a.jpg"], ["b.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg"]),
        (["x/a.jpg"], ["a.jpg", "b.jpg", "x/b.jpg", "x/y/a.jpg"]),
        (["x/"], ["a.jpg", "b.jpg"]),
        (["a.jpg/"], ["a.jpg", "b.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg"]),
        (["x/**"], ["a.jpg", "b.jpg"]),
        (["**/y"], ["a.jpg", "b.jpg", "x/a.jpg", "x/b.jpg"]),
        (["x/**/a.jpg"], ["a.jpg", "b.jpg", "x/b.jpg"]),
        (["x/*"], ["a.jpg", "b.jpg"]),
        (["?.jpg"], []),
        (["[!a].jpg"], ["a.jpg", "x/a.jpg", "x/y/a.jpg"]),
        (["[a-b].jpg", "!x/[b].jpg"], ["x/b.jpg"]),
        (["\\a.jpg", "# b.jpg", "", "  "], ["b.jpg", "x/b.jpg"]),
        (["B.jpg"], ["a.jpg", "b.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg"]),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("how", ["option", "file"])
def test_patterns_are_those_of_gitignore(
    tmp_path: Path, how: str, patterns: list[str], taken: list[str]
) -> None:
    tree(tmp_path, "a.jpg", "b.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg")
    if how == "option":
        exclude = [one for one in patterns if not one.startswith("#")]
        assert sorted(found(tmp_path, exclude=exclude)) == taken
        return
    (tmp_path / ".face2vecignore").write_text("\n".join(patterns), encoding="utf-8")
    assert sorted(found(tmp_path)) == taken


def test_ignore_file_applies_to_its_folder_and_below(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg", "x/y/c.jpg", "z/b.jpg")
    (tmp_path / "x" / ".face2vecignore").write_text("a.jpg\n/b.jpg\n", encoding="utf-8")
    (tmp_path / "x" / "y" / ".face2vecignore").write_text("!a.jpg\nc.*\n", encoding="utf-8")
    assert found(tmp_path) == ["a.jpg", "x/y/a.jpg", "z/b.jpg"]


def test_include_has_the_last_word(tmp_path: Path) -> None:
    tree(tmp_path, "@eaDir/a.jpg", "b.jpg", "x/b.jpg", ".hidden/c.jpg", "d.jpg")
    (tmp_path / ".face2vecignore").write_text("*.jpg\n", encoding="utf-8")
    left_out: Counter[str] = Counter()
    photos = find_photos(
        tmp_path,
        exclude=["x/"],
        include=["@eaDir/", "@eaDir/a.jpg", "/b.jpg", ".hidden/", "c.jpg"],
        left_out=left_out,
    )
    names = [photo.path.as_posix() for photo in photos]
    assert names == [".hidden/c.jpg", "@eaDir/a.jpg", "b.jpg"]
    assert left_out == {"x/": 1, "*.jpg": 1}


@posix_only
def test_link_to_what_is_left_out_is_followed(tmp_path: Path) -> None:
    tree(tmp_path, "store.lrdata/a.jpg", "b.jpg")
    (tmp_path / "a.jpg").symlink_to("store.lrdata/a.jpg")
    (tmp_path / "c.jpg").symlink_to("b.jpg")
    assert found(tmp_path) == ["a.jpg", "b.jpg"]


def test_ignore_file_that_cannot_be_read_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path, "a.jpg")
    (tmp_path / ".face2vecignore").mkdir()
    with caplog.at_level(logging.WARNING, "face2vec"):
        assert found(tmp_path) == ["a.jpg"]
    assert "cannot read" in caplog.text


def test_patterns_that_are_one_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"exclude must be a list of patterns, not the text"):
        find_photos(tmp_path, exclude="*.jpg")


def test_usual_patterns_leave_out_no_folder_of_a_usual_name() -> None:
    rules = Rules.of()
    for name in ("2019", "Photos", "DCIM", "100CANON", "Library", "cache", "thumbs", "original"):
        assert not rules.leave_out(name, True)
        assert not rules.leave_out(f"a/{name}/b.jpg", False)
    assert len(USUAL) == len(set(USUAL))
