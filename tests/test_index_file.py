from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from face2vec import index_file
from face2vec.gallery import State
from face2vec.index_file import About, IndexDamagedError

CONTENT = bytes(range(256)) * 1024  # longer than its two ends
ABOUT = About("hnsw", 32, 7, State("the gallery", 9, 5))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    index_file.write(path, lambda write: write(CONTENT), ABOUT)
    return path


def checked(path: Path, whole: bool) -> About:
    with path.open("rb") as stream:
        return index_file.checked(stream, path, whole=whole)


@pytest.mark.parametrize("whole", [False, True])
def test_a_file_says_what_it_was_written_with(path: Path, whole: bool) -> None:
    assert checked(path, whole) == ABOUT
    assert path.read_bytes().startswith(CONTENT)


def test_the_middle_is_checked_only_when_all_is(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(CONTENT) // 2] ^= 1
    path.write_bytes(damaged)
    assert checked(path, whole=False) == ABOUT
    with pytest.raises(IndexDamagedError, match="its check sum is wrong"):
        checked(path, whole=True)


def test_another_format_is_refused_by_its_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_FORMAT", index_file._FORMAT + 1)
    with pytest.raises(IndexDamagedError, match=f"it has format {index_file._FORMAT - 1}"):
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
