"""The index file: FAISS indexes one after another, then a JSON header with checksums.

The header, which is at the end of the file, is read without loading FAISS.
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
from typing import Any, BinaryIO

from face2vec import stored
from face2vec.errors import GalleryError, GalleryNotFoundError
from face2vec.files import written_whole
from face2vec.gallery.reader import State
from face2vec.index.policy import FORMER_KINDS, FORMER_NAMES, KIND_NAMES, Measured
from face2vec.stored import StoredValueError

_FORMAT = 5
_FORMER_FORMAT = 4  # whose "pq" had no long codes
_FOOTER = struct.Struct("<II8s")  # length and CRC-32 of the JSON before it, magic
_MAGIC = b"F2VINDEX"
_END_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
# Linux keeps the bytes of one write together in the page cache and maps aligned pieces of 2 MB as
# one page, of which fewer have to be looked up than of unaligned blocks of 1 MB, as FAISS writes
# them.
_WRITTEN_BYTES = 4 << 20


class IndexDamagedError(GalleryError):
    """The index file is incomplete, damaged or not an index; rebuild it from the gallery."""


class FormerIndexError(IndexDamagedError):
    """The index file is of a kind that this version no longer has; it is built again."""


@dataclass(frozen=True)
class Header:
    """The header of an index file.

    Attributes:
        kind: one of ``KIND_NAMES``.
        dimension: length of an embedding.
        count: number of faces.
        state: state of the gallery whose faces these are.
        ends: where each FAISS index ends, in bytes.
        measured: what was measured when the index was built; None if its search is exact.
    """

    kind: str
    dimension: int
    count: int
    state: State
    ends: tuple[int, ...] = ()
    measured: Measured | None = None

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(start, end) of each FAISS index in bytes."""
        return list(pairwise((0, *self.ends)))


Put = Callable[[Callable[[bytes], int]], object]
"""Passes the bytes of a FAISS index to a function, in pieces."""


def write(path: Path, parts: Iterable[Put], header: Header) -> None:
    """Write an index file, completely or not at all.

    Args:
        path: the file; an existing one is replaced.
        parts: write the bytes of the FAISS indexes.
        header: what they are; its ``ends`` are filled in.

    Raises:
        GalleryNotFoundError: its folder was deleted.
        GalleryError: it cannot be written; an older file is kept.
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
                "state": header.state._asdict(),
                "kind": header.kind,
                "dimension": header.dimension,
                "count": header.count,
                "ends": ends,
                "crc32": _crc32(stream, 0, size),
                "ends_crc32": _ends_crc32(stream, ends),
                "measured": None if header.measured is None else header.measured._asdict(),
            }
            words = json.dumps(trailer, sort_keys=True).encode("ascii")
            stream.seek(size)
            stream.write(words + _FOOTER.pack(len(words), zlib.crc32(words), _MAGIC))
    except (OSError, RuntimeError) as error:  # RuntimeError: FAISS could not write
        if not path.parent.exists():
            raise GalleryNotFoundError(
                f"the gallery {path.parent} was deleted meanwhile"
            ) from error
        raise GalleryError(
            f"cannot write the index {path}: {error}; the gallery itself is safe; free some space "
            "or get write permission, and rebuild the index"
        ) from error


def read_header(stream: BinaryIO, path: Path, *, whole: bool) -> Header:
    """Read and verify the header of an index file.

    Args:
        stream: the file.
        path: its name, for messages.
        whole: verify all bytes, not only the size and both ends of each FAISS index.

    Raises:
        IndexDamagedError: it is incomplete, or not an index of face2vec.
        FormerIndexError: it is of a former kind.
    """
    size = stream.seek(0, os.SEEK_END)
    if size < _FOOTER.size:
        raise damaged(path, f"it has only {size} bytes")
    stream.seek(size - _FOOTER.size)
    length, crc, mark = _FOOTER.unpack(stream.read(_FOOTER.size))
    end = size - _FOOTER.size - length
    if mark != _MAGIC or end < 0:
        raise damaged(path, "it is not a complete index of face2vec")
    stream.seek(end)
    words = stream.read(length)
    if zlib.crc32(words) != crc:
        raise damaged(path, "its checksum is wrong")
    try:
        header, is_former, checksum, ends_checksum = _trailer(words.decode("utf-8"), end)
    except (StoredValueError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error
    if is_former:
        raise FormerIndexError(
            f"the index {path} is of the former kind {header.kind!r}; each command builds it again "
            f"as {FORMER_NAMES.get(header.kind, header.kind)!r}, until rebuild writes it"
        )
    sound = (
        _crc32(stream, 0, end) == checksum
        if whole
        else _ends_crc32(stream, header.ends) == ends_checksum
    )
    if not sound:
        raise damaged(path, "its checksum is wrong")
    return header


def _trailer(words: str, end: int) -> tuple[Header, bool, int, int]:
    """What the JSON in the file says.

    Returns:
        The header, whether the index must be built again because it is of a former kind, and the
        checksums of all bytes and of the ends.

    Raises:
        StoredValueError: a value is missing, has the wrong type or is out of range.
    """
    what = "its header"
    values = stored.mapping(stored.parsed(words, what), what)

    def number(name: str, source: dict[str, Any] = values, least: int = 0) -> int:
        return stored.integer(stored.field(source, name, what), f"{name!r} of {what}", least)

    former = number("format") == _FORMER_FORMAT
    if not former and number("format") != _FORMAT:
        raise StoredValueError(f"it has format {values['format']}")
    kind = stored.text(stored.field(values, "kind", what), "its kind")
    if kind not in FORMER_KINDS:
        kind = FORMER_NAMES.get(kind, kind)
    if kind not in (*KIND_NAMES, *FORMER_KINDS):
        raise StoredValueError(f"it is of the unknown kind {kind!r}")
    is_former = kind in FORMER_KINDS or (former and kind == "pq")
    state = stored.mapping(stored.field(values, "state", what), "its state")
    uuid = stored.text(stored.field(state, "gallery_uuid", what), "its gallery")
    ends = stored.array(stored.field(values, "ends", what), "'ends' of its header")
    bounds = [0, *(stored.integer(place, "an end of a part") for place in ends)]
    if bounds != sorted(set(bounds)) or bounds[-1] != end:
        raise StoredValueError("its parts are not one after another")
    header = Header(
        kind,
        number("dimension", least=1),
        number("count"),
        State(uuid, number("position", state), number("history", state)),
        tuple(bounds[1:]),
        None if is_former else _measured(values.get("measured")),
    )
    return header, is_former, number("crc32"), number("ends_crc32")


def _measured(values: object) -> Measured | None:
    """What was measured of an index, from the JSON in its file.

    Raises:
        StoredValueError: a value is missing, has the wrong type or is out of range.
    """
    if values is None:
        return None
    what = "what was measured of it"
    found = stored.mapping(values, what)
    recall = stored.number(stored.field(found, "recall", what), "its recall")
    if not 0 <= recall <= 1:
        raise StoredValueError(f"its recall is {recall}")
    counts = (
        stored.integer(stored.field(found, name, what), f"{name!r} of {what}", least)
        for name, least in (("queries", 0), ("proposals", 1), ("candidates", 1), ("faces", 1))
    )
    return Measured(recall, *counts)


class _Blocks:
    """Writes in blocks that start at multiples of their size."""

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
    """CRC-32 of a part of a file, continued from ``crc``."""
    stream.seek(start)
    while start < end:
        block = stream.read(min(end - start, _BLOCK_BYTES))
        crc = zlib.crc32(block, crc)
        start += len(block) or end
    return crc


def _ends_crc32(stream: BinaryIO, ends: Sequence[int]) -> int:
    """CRC-32 of both ends of each FAISS index, where its sizes and types are."""
    crc = 0
    for start, end in pairwise((0, *ends)):
        crc = _crc32(stream, start, min(start + _END_BYTES, end), crc)
        crc = _crc32(stream, max(start, end - _END_BYTES), end, crc)
    return crc


def damaged(path: Path, what: str) -> IndexDamagedError:
    """The error for a damaged index file."""
    return IndexDamagedError(
        f"the index {path} is damaged: {what}; nothing is lost, rebuild it from the gallery"
    )
