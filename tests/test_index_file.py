from __future__ import annotations

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from face2vec.gallery.reader import State
from face2vec.index import file as index_file
from face2vec.index.file import FormerIndexError, Header, IndexDamagedError

PARTS = [bytes(range(256)) * 1024, bytes(range(255, -1, -1)) * 2048]  # longer than their two ends
CONTENT = b"".join(PARTS)
HEADER = Header("pq", 32, 7, State("the gallery", 9, 5))
WRITTEN = replace(HEADER, ends=(len(PARTS[0]), len(CONTENT)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    index_file.write(path, [lambda write, part=part: write(part) for part in PARTS], HEADER)
    return path


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def checked(path: Path, whole: bool) -> Header:
    with path.open("rb") as stream:
        return index_file.read_header(stream, path, whole=whole)


@pytest.mark.parametrize("whole", [False, True])
def test_header_equals_what_was_written(path: Path, whole: bool) -> None:
    assert checked(path, whole) == WRITTEN
    assert WRITTEN.parts == [(0, len(PARTS[0])), (len(PARTS[0]), len(CONTENT))]
    assert path.read_bytes().startswith(CONTENT)


@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_index_of_the_former_format_is_built_again_if_it_has_no_long_codes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_FORMAT", index_file._FORMER_FORMAT)
    path = tmp_path / "index"
    header = replace(HEADER, kind=kind)
    index_file.write(path, [lambda write: write(CONTENT)], header)
    monkeypatch.undo()
    if kind == "flat":
        assert checked(path, whole=True) == replace(header, ends=(len(CONTENT),))
        return
    with pytest.raises(
        FormerIndexError, match="of the former kind 'pq'; each command builds it again as 'pq'"
    ):
        checked(path, whole=True)


@pytest.mark.parametrize("part", WRITTEN.parts)
def test_the_middle_of_a_part_is_checked_only_when_all_is(
    path: Path, part: tuple[int, int]
) -> None:
    damage(path, sum(part) // 2)
    assert checked(path, whole=False) == WRITTEN
    with pytest.raises(IndexDamagedError, match="its checksum is wrong"):
        checked(path, whole=True)


@pytest.mark.parametrize("end", [0, *WRITTEN.ends])
@pytest.mark.parametrize("side", [-1, 0])
def test_both_ends_of_each_part_are_always_checked(path: Path, end: int, side: int) -> None:
    damage(path, min(max(end + side, 0), len(CONTENT) - 1))
    for whole in (False, True):
        with pytest.raises(IndexDamagedError, match="its checksum is wrong"):
            checked(path, whole)


def test_another_format_is_refused_by_its_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_FORMAT", index_file._FORMAT + 1)
    with pytest.raises(IndexDamagedError, match=f"it has format {index_file._FORMAT - 1}"):
        checked(path, whole=False)


def with_header(path: Path, change: Any) -> None:
    """Write the header again after a change of its values, with a right checksum."""
    content = path.read_bytes()
    length, _, magic = index_file._FOOTER.unpack(content[-index_file._FOOTER.size :])
    start = len(content) - index_file._FOOTER.size - length
    words = change(json.loads(content[start : start + length]))
    words = words if isinstance(words, bytes) else json.dumps(words).encode()
    footer = index_file._FOOTER.pack(len(words), zlib.crc32(words), magic)
    path.write_bytes(content[:start] + words + footer)


def test_header_that_is_written_again_is_read(path: Path) -> None:
    with_header(path, lambda values: values)
    assert checked(path, whole=True) == WRITTEN


@pytest.mark.parametrize("name", ["format", "kind", "dimension", "count", "state", "ends", "crc32"])
def test_header_without_a_value_is_damage(path: Path, name: str) -> None:
    with_header(path, lambda values: {key: v for key, v in values.items() if key != name})
    with pytest.raises(IndexDamagedError, match=f"has no '{name}'"):
        checked(path, whole=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": 7}, {"kind": "tree"}, {"kind": "auto"}, {"dimension": 0}, {"dimension": "32"},
        {"dimension": 2**63}, {"count": -1}, {"count": 1.5}, {"count": True}, {"state": []},
        {"state": {}}, {"state": {"gallery_uuid": 1, "position": 0, "history": 0}},
        {"state": {"gallery_uuid": "", "position": -1, "history": 0}},
        {"state": {"gallery_uuid": "", "position": 2**63, "history": 0}},
        {"ends": []}, {"ends": 5}, {"ends": [5]}, {"ends": [-5, WRITTEN.ends[1]]},
        {"ends": [9, 9, WRITTEN.ends[1]]}, {"ends": [WRITTEN.ends[1], WRITTEN.ends[0]]},
        {"ends": ["a", WRITTEN.ends[1]]}, {"format": None}, {"crc32": None},
    ],
)  # fmt: skip
def test_header_with_an_invalid_value_is_damage(path: Path, changed: dict[str, Any]) -> None:
    with_header(path, lambda values: values | changed)
    for whole in (False, True):
        with pytest.raises(IndexDamagedError, match="rebuild it from the gallery"):
            checked(path, whole)


@pytest.mark.parametrize("words", [b"", b"7", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_header_that_is_no_json_object_is_damage(path: Path, words: bytes) -> None:
    with_header(path, lambda _: words)
    with pytest.raises(IndexDamagedError, match=r"its header|codec"):
        checked(path, whole=False)


@pytest.mark.parametrize("pieces", [[5, 90, 3], [20, 20], [1] * 45, [45], []])
def test_a_file_is_written_in_whole_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[int]
) -> None:
    monkeypatch.setattr(index_file, "_WRITTEN_BYTES", 10)
    content = bytes(range(sum(pieces)))
    written = []

    class Stream(io.BytesIO):
        def write(self, data: Any) -> int:
            written.append((self.tell(), len(data)))
            return super().write(data)

    stream = Stream()
    blocks, start = index_file._Blocks(stream), 0
    for size in pieces:
        assert blocks.write(content[start : start + size]) == size
        start += size
    blocks.end()
    assert stream.getvalue() == content
    whole = [(10 * n, 10) for n in range(len(content) // 10)]
    assert written == [*whole, (10 * len(whole), len(content) % 10)]
