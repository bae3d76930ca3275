"""The file of an index: FAISS's indexes one after the other, then what they are, with check sums.

What it says of itself is read without loading FAISS.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from face2vec.errors import GalleryError
from face2vec.files import written_whole
from face2vec.gallery.gallery import State
from face2vec.index.policy import KINDS

_FORMAT = 4
_FOOTER = struct.Struct("<II8s")  # length and CRC-32 of the JSON before it, mark
_MARK = b"F2VINDEX"
_END_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
# Linux keeps what is written at once in one piece of memory, where it can, and maps a piece of
# 2 MB that begins at a multiple of that as one page: one query of a graph of a million faces then
# takes 7.0 ms in its mapped file, and 9.3 when FAISS's blocks of 1 MB begin anywhere.
_WRITTEN_BYTES = 4 << 20


class IndexDamagedError(GalleryError):
    """The index file is cut off, damaged or something else; build it from the gallery."""


@dataclass(frozen=True)
class About:
    """What an index file says of itself.

    Attributes:
        kind: one of ``KINDS``.
        dimension: length of an embedding.
        count: how many faces are in it.
        state: of the gallery whose faces these are.
        ends: where each of FAISS's indexes ends, in bytes.
    """

    kind: str
    dimension: int
    count: int
    state: State
    ends: tuple[int, ...] = ()

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(start, end) of each of FAISS's indexes."""
        return list(pairwise((0, *self.ends)))


Put = Callable[[Callable[[bytes], int]], object]
"""Gives the bytes of an index of FAISS to a function, in pieces."""


def write(path: Path, parts: Iterable[Put], about: About) -> None:
    """Write an index file, whole or not at all.

    Args:
        path: the file, replaced where it is there.
        parts: give the bytes of FAISS's indexes.
        about: what they are; where they end is found here.

    Raises:
        GalleryError: it cannot be written; an older file stays as it was.
    """
    try:
        with written_whole(path) as stream:
            blocks = _Blocks(stream)
            ends = []
            for put in parts:
                put(blocks.write)
                ends.append(blocks.written)
            blocks.end()
            size = stream.tell()
            trailer = {
                "format": _FORMAT,
                "state": about.state._asdict(),
                "kind": about.kind,
                "dimension": about.dimension,
                "count": about.count,
                "ends": ends,
                "crc32": _crc32(stream, 0, size),
                "ends_crc32": _ends_crc32(stream, ends),
            }
            words = json.dumps(trailer, sort_keys=True).encode("ascii")
            stream.seek(size)
            stream.write(words + _FOOTER.pack(len(words), zlib.crc32(words), _MARK))
    except (OSError, RuntimeError) as error:  # RuntimeError: FAISS could not write
        raise GalleryError(
            f"Cannot write the index {path}: {error}. The gallery itself is kept; free some "
            "space or get the right to write there, and build the index again."
        ) from error


def checked(stream: BinaryIO, path: Path, *, whole: bool) -> About:
    """What an index file says of itself, when it is sound.

    Args:
        stream: the file.
        path: its name, for messages.
        whole: check all of it, and not only its size and both ends of each of FAISS's indexes.

    Raises:
        IndexDamagedError: it is not whole, or not an index of face2vec.
    """
    size = stream.seek(0, os.SEEK_END)
    if size < _FOOTER.size:
        raise damaged(path, f"it has only {size} bytes")
    stream.seek(size - _FOOTER.size)
    length, crc, mark = _FOOTER.unpack(stream.read(_FOOTER.size))
    end = size - _FOOTER.size - length
    if mark != _MARK or end < 0:
        raise damaged(path, "it does not end as an index of face2vec does")
    stream.seek(end)
    words = stream.read(length)
    if zlib.crc32(words) != crc:
        raise damaged(path, "its check sum is wrong")
    about = json.loads(words)
    if about["format"] != _FORMAT or about["kind"] not in KINDS or about["ends"][-1:] != [end]:
        raise damaged(path, f"it has format {about['format']}, {about['kind']}, {end} bytes")
    sound = (
        _crc32(stream, 0, end) == about["crc32"]
        if whole
        else _ends_crc32(stream, about["ends"]) == about["ends_crc32"]
    )
    if not sound:
        raise damaged(path, "its check sum is wrong")
    state, ends = State(**about["state"]), tuple(about["ends"])
    return About(about["kind"], about["dimension"], about["count"], state, ends)


class _Blocks:
    """Writes to a new file in blocks that begin at multiples of their size."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self.written = 0

    def write(self, piece: bytes) -> int:
        self.written += len(piece)
        self._waiting += piece
        while len(self._waiting) >= _WRITTEN_BYTES:
            self._stream.write(self._waiting[:_WRITTEN_BYTES])
            del self._waiting[:_WRITTEN_BYTES]
        return len(piece)

    def end(self) -> None:
        self._stream.write(self._waiting)


def _crc32(stream: BinaryIO, start: int, end: int, crc: int = 0) -> int:
    """Check sum of a part of a file, going on from one before it."""
    stream.seek(start)
    while start < end:
        block = stream.read(min(end - start, _BLOCK_BYTES))
        crc = zlib.crc32(block, crc)
        start += len(block) or end
    return crc


def _ends_crc32(stream: BinaryIO, ends: Sequence[int]) -> int:
    """Check sum of both ends of each of FAISS's indexes, where it keeps what it relies on."""
    crc = 0
    for start, end in pairwise((0, *ends)):
        crc = _crc32(stream, start, min(start + _END_BYTES, end), crc)
        crc = _crc32(stream, max(start, end - _END_BYTES), end, crc)
    return crc


def damaged(path: Path, what: str) -> IndexDamagedError:
    """The error for an index file that is not sound."""
    return IndexDamagedError(
        f"The index {path} is damaged: {what}. Nothing is lost: build it again from the gallery."
    )
