"""Lists of paths as people and other programs write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import posix_only

from face2vec.errors import SettingsError
from face2vec.files import decoded, text_of
from face2vec.photos.discover import find_photos
from face2vec.photos.lists import lines_of

NAMES = ["a b.jpg", "été/#1.jpg", "照片/图 1.jpg", "c.jpg"]
"""Paths of photos, relative to the folder of the list."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    return tmp_path.resolve()


def found(folder: Path, content: bytes) -> list[str]:
    (folder / "list").write_bytes(content)
    return [photo.full.relative_to(folder).as_posix() for photo in find_photos(f"@{folder}/list")]


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "be with a mark"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CR LF", "CR"])
def test_list_is_read_in_every_encoding_with_every_end_of_line(
    folder: Path, encoding: str, end: str, absolute: bool
) -> None:
    lines = [str(folder / name) if absolute else name for name in NAMES]
    text = end.join([*lines, ""])
    if encoding == "be with a mark":
        content = b"\xfe\xff" + text.encode("utf-16-be")
    else:
        content = text.encode(encoding)
    assert found(folder, content) == NAMES


@pytest.mark.parametrize("last", [b"\0", b"", b"\0\n"])
def test_list_with_nul_after_each_path_is_read(folder: Path, last: bytes) -> None:
    assert found(folder, b"\0".join(os.fsencode(name) for name in NAMES) + last) == NAMES


@posix_only
def test_paths_that_end_with_nul_are_taken_as_they_are(tmp_path: Path) -> None:
    names = ["#not a comment.jpg", "line\nbreak.jpg", " space ", "caf\udce9.jpg", "tail\r"]
    for name in names:
        (tmp_path / name).touch()
    content = b"\0".join(os.fsencode(name) for name in names) + b"\0"
    assert lines_of(content) == names
    assert sorted(found(tmp_path, content)) == sorted(names)


@pytest.mark.parametrize(
    "content", [b".\0./a\0./b\0", b"./a\0./b\0", b"a\0b\0", b"x/\0x/y.jpg\0", b"./\0"]
)
def test_short_paths_that_end_with_nul_are_not_taken_for_utf_16(content: bytes) -> None:
    assert lines_of(content) == content.decode().rstrip("\0").split("\0")


@pytest.mark.parametrize("quote", ['"', "'"])
def test_paths_in_quotes_are_read(folder: Path, quote: str) -> None:
    text = "".join(f"{quote}{folder / name}{quote}\r\n" for name in NAMES)
    assert found(folder, text.encode()) == NAMES


def test_file_urls_are_read(folder: Path) -> None:
    urls = [(folder / name).as_uri() for name in NAMES]
    urls[1] = urls[1].replace("file:///", "FILE://localhost/")
    urls[2] = urls[2].replace("file:///", "file:/")
    assert any("%20" in url for url in urls)
    assert found(folder, "\n".join(urls).encode()) == NAMES


def test_name_that_looks_like_another_form_is_taken_as_it_stands(tmp_path: Path) -> None:
    names = ["'quoted'", "~", "file:x%41"] if os.name == "posix" else ["'quoted'", "~"]
    for name in names:
        (tmp_path / name).touch()
    assert found(tmp_path, "\n".join(names).encode()) == names


def test_path_in_the_other_normal_form_is_found(tmp_path: Path) -> None:
    (tmp_path / "Jose\u0301.jpg").touch()
    (tmp_path / "Zo\xeb.jpg").touch()
    assert found(tmp_path, "Jos\xe9.jpg\nZoe\u0308.jpg\n".encode()) == [
        "Jose\u0301.jpg",
        "Zo\xeb.jpg",
    ]


def test_missing_path_is_named_without_its_quotes(folder: Path) -> None:
    assert found(folder, b'"c.jpg"\n"gone.jpg"\n') == ["c.jpg", "gone.jpg"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"no.jpg\nneither.jpg\n",
            "names no file or folder that exists; its first line is 'no.jpg'",
        ),
        (b"photo,person\nx.jpg,Ada\n", "its first line is 'photo,person'"),
        (b"PK\3\4\x14\x1b[31m" + bytes(range(1, 200)) * 9, r"its first line is 'PK\\x03\\x04"),
        (
            b"\xff\xd8\xff\xe0" + bytes(300),
            r"is a photo \(JPEG\) and not a text file; give it with",
        ),
    ],
    ids=["all missing", "a table", "an archive", "a photo"],
)
def test_list_that_is_none_is_one_clear_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        found(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + 2 * len(str(tmp_path))


def test_empty_list_has_no_photos(tmp_path: Path) -> None:
    assert found(tmp_path, b"\n# nothing yet\n") == []


def test_text_that_is_neither_utf_8_nor_utf_16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"list\.txt is not UTF-8 .*; save it as UTF-8"):
        text_of(tmp_path / "list.txt")
    assert decoded("é".encode("latin-1")) == "\udce9"
