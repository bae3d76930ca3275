"""Rows of a gallery: entries to be recorded, and faces that were read."""

from __future__ import annotations

import math
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import GalleryDamagedError, GalleryError
from face2vec.files import is_object
from face2vec.stored import StoredValueError, blob, number
from face2vec.types import STATUSES, Face, QualityParts

INDEXED, NO_FACE, UNREADABLE = "indexed", "no face", "unreadable"
_KNOWN = "known"
NAME_ONLY = -1
"""Size of what is no file: the name of an imported photo."""

_UNIT_TOLERANCE = 1e-3
_ROWS = 65536  # that are taken together
LANDMARKS = struct.Struct("<10d")
PARTS = struct.Struct("<8f")

# One row for each face and each path of its photo.
NAMED_FACES = (
    'SELECT faces.id, "left", "top", "right", "bottom", landmarks, confidence, quality, parts,'
    " time, track_begin, track_end, photos.path_crc32, photos.root_id, photos.path"
    " FROM faces JOIN photos ON photos.content_id = faces.content_id"
)


def named_faces(missing: Iterable[str]) -> str:
    """``NAMED_FACES`` for an older gallery.

    Args:
        missing: columns that its table of faces does not have, and ``"photos."`` with those of
            photos; NULL is read instead.
    """
    return reduce(lambda sql, name: sql.replace(f" {name},", " NULL,"), missing, NAMED_FACES)


# Paths are stored as bytes, because a path may be invalid UTF-8. The error handler is the one with
# which Python turns such names into str.
_PATH_ERRORS = sys.getfilesystemencodeerrors()


def called(status: str, reason: str) -> str:
    """What users call the status of a photo: one of ``STATUSES``.

    Args:
        status: ``INDEXED``, ``NO_FACE`` or ``UNREADABLE``.
        reason: why it could not be read; of a photo that was read, what of it is missing.
    """
    if reason and status != UNREADABLE:
        return STATUSES[3]
    return STATUSES[1] if status == NO_FACE else status


class Recorded(NamedTuple):
    """What a gallery has of a photo.

    Attributes:
        size: bytes of the file.
        mtime_ns: time of its last change in nanoseconds.
        ctime_ns: see `Entry.ctime_ns`.
        sha256: the 32 bytes of the hash of its bytes.
        status: ``INDEXED``, ``NO_FACE`` or ``UNREADABLE``.
        reason: see `called`.
    """

    size: int
    mtime_ns: int
    ctime_ns: int | None
    sha256: bytes
    status: str
    reason: str


class Removed(NamedTuple):
    """What was removed from a gallery.

    Attributes:
        photos: how many photos.
        faces: how many faces.
    """

    photos: int
    faces: int


class Readmitted(NamedTuple):
    """What became of photos whose blocks were lifted.

    Attributes:
        photos: how many photos had a block.
        faces: how many faces were added to photos of the gallery.
    """

    photos: int
    faces: int


class Rewritten(NamedTuple):
    """A photo whose file got other bytes with the same pixels.

    Attributes:
        path: full path.
        size: bytes of the file.
        mtime_ns: time of its last change in nanoseconds.
        ctime_ns: see `Entry.ctime_ns`.
        sha256: the 32 bytes of the hash of its bytes.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: bytes


@dataclass(frozen=True, eq=False)
class Entry:
    """One photo to be recorded.

    Attributes:
        root: absolute path, or address, of the folder that the photo was added from.
        path: the photo's path relative to ``root``.
        size: bytes of the file, or ``NAME_ONLY``.
        mtime_ns: time of its last change in nanoseconds.
        sha256: the 32 bytes of the hash of its bytes.
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels of the upright photo, 0 if it could not be read.
        status: ``INDEXED``, ``NO_FACE`` or ``UNREADABLE``.
        reason: why it could not be read; of a photo that was read, what of it is missing, or empty.
        faces: its faces with embeddings float32 (d,); empty unless ``INDEXED``.
        ctime_ns: time of the last change of the file or of what the disk says of it, in
            nanoseconds; None if it is not known.
        again: whether this replaces what is recorded of the same bytes, if no face is.
        taken: when it was taken, see ``face2vec.photos.dates``; empty if it does not say so, and
            None if that is not known.
    """

    root: str
    path: str
    size: int
    mtime_ns: int
    sha256: bytes
    width: int
    height: int
    status: str
    reason: str = ""
    faces: tuple[Face, ...] = ()
    ctime_ns: int | None = None
    again: bool = False
    taken: str | None = None

    @classmethod
    def link(
        cls,
        root: str,
        path: str,
        size: int,
        mtime_ns: int,
        sha256: bytes,
        ctime_ns: int | None = None,
        taken: str | None = None,
    ) -> Entry:
        """Another path for bytes that the gallery has: a renamed or copied photo."""
        known = cls(root, path, size, mtime_ns, sha256, 0, 0, _KNOWN)
        return replace(known, ctime_ns=ctime_ns, taken=taken)

    @property
    def content_known(self) -> bool:
        """Whether this only adds a path to bytes that the gallery has."""
        return self.status == _KNOWN


@dataclass(frozen=True, eq=False)
class StoredFace:
    """A face in the gallery.

    Attributes:
        face: the face with its ``id``, and with its embedding if that was requested.
        photo: full path of the photo or video, or its address in object storage; with copies, the
            first in order of path that still exists. An object counts as one that does.
        copies: full paths of the other files with the same bytes, in order.
    """

    face: Face
    photo: str
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class KnownPhoto:
    """One content, which is a distinct sequence of bytes of photos, and its faces.

    Attributes:
        content: number of the content.
        sha256: the 32 bytes of its hash.
        photos: full paths of the files with these bytes, in order.
        faces: its faces with ids, without embeddings.
        crc32s: CRC-32 of the embedding of each face.
    """

    content: int
    sha256: bytes
    photos: tuple[str, ...]
    faces: tuple[Face, ...]
    crc32s: tuple[int, ...]


class StoredFaces:
    """Rows of faces, converted to records on demand; the gallery may be closed by then.

    Making a record takes as long as reading its row, and most results of a search are never
    accessed.

    Args:
        rows: row of ``NAMED_FACES`` by face id.
        names: (checksum, root, path) of all paths of a photo that has several, by face id.
        roots: folders that photos were added from, by number.
        damaged: makes the error for an invalid row.
    """

    __slots__ = ("_damaged", "_names", "_roots", "_rows")

    def __init__(
        self,
        rows: dict[int, tuple[Any, ...]],
        names: dict[int, list[tuple[int | None, int, bytes]]],
        roots: Mapping[int, str],
        damaged: Callable[[str], GalleryDamagedError],
    ) -> None:
        self._rows = rows
        self._names = names
        self._roots = roots
        self._damaged = damaged

    @classmethod
    def read(
        cls,
        rows: Sequence[tuple[Any, ...]],
        roots: Mapping[int, str],
        damaged: Callable[[str], GalleryDamagedError],
    ) -> StoredFaces:
        """From rows of ``NAMED_FACES``."""
        by_id = {row[0]: row for row in rows}
        names: dict[int, list[tuple[int | None, int, bytes]]] = {}
        if len(by_id) < len(rows):  # some photos have copies
            for row in rows:
                names.setdefault(row[0], []).append(row[-3:])
        return cls(by_id, names, roots, damaged)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, ids: Iterable[int]) -> StoredFaces:
        """The faces with these ids, in this order; unknown ids are skipped."""
        rows = self._rows
        some = {i: rows[i] for i in ids if i in rows}
        names = {i: self._names[i] for i in some} if self._names else self._names
        return StoredFaces(some, names, self._roots, self._damaged)

    def __iter__(self) -> Iterator[tuple[Face, str, tuple[str, ...]]]:
        """(face without embedding, photo, copies) of each face, as in `StoredFace`.

        Raises:
            GalleryDamagedError: a row is invalid.
        """
        roots, more_names = self._roots, self._names
        try:
            for row in self._rows.values():
                i, left, top, right, bottom, points, confidence, quality, made = row[:9]
                time, begin, end, *name = row[9:]
                x1, y1, x2, y2, x3, y3, x4, y4, x5, y5 = LANDMARKS.unpack(points)
                landmarks = ((x1, y1), (x2, y2), (x3, y3), (x4, y4), (x5, y5))
                parts = None if made is None else QualityParts(*PARTS.unpack(made))
                # A sum is not finite, or not a number, if one of its terms is not.
                if not math.isfinite(
                    left + top + right + bottom + confidence + sum(map(sum, landmarks))
                ):
                    raise StoredValueError("a number is not finite")
                box = (left, top, right, bottom)
                face = Face(box, landmarks, confidence, None, i, quality, parts=parts)
                if time is not None:
                    face = replace(face, **_in_video(time, begin, end))
                if i in more_names:
                    copies = sorted(full_path(roots, *one) for one in more_names[i])
                    photo = next(filter(_exists, copies), copies[0])
                    copies.remove(photo)
                    yield face, photo, tuple(copies)
                else:
                    yield face, full_path(roots, *name), ()
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise self._damaged(f"the row of a face is invalid ({error})") from error

    def records(self) -> list[StoredFace]:
        """The faces, without their embeddings.

        Raises:
            GalleryDamagedError: a row is invalid.
        """
        return [StoredFace(*one) for one in self]


def path_crc32(photo: str) -> int:
    """The checksum of the full path of a photo."""
    return zlib.crc32(encoded(photo))


def full_path(roots: Mapping[int, str], crc32: object, root: int, path: object) -> str:
    """The full path of a photo.

    Raises:
        StoredValueError: it has changed since it was stored.
        KeyError: there is no such root.
    """
    full = f"{roots[root]}{os.sep}{decoded(path)}"
    if crc32 is not None and path_crc32(full) != crc32:
        raise StoredValueError(f"the path {full!r} has changed on the disk")
    return full


def _in_video(time: object, begin: object, end: object) -> dict[str, Any]:
    """The attributes of a face in a video, from what is stored.

    Raises:
        StoredValueError: one is no number, or negative.
    """
    what = "the time of a face"
    track = number(begin, what, 0), number(end, what, 0)
    return {"time": number(time, what, 0), "track": track}


def _exists(path: str) -> bool:
    # For each copy of each match; asking for an object would take a request.
    return is_object(path) or os.path.exists(path)  # noqa: PTH110


def face_rows(entry: Entry, dimension: int) -> list[tuple[Any, ...]]:
    """The columns of ``faces`` after ``content_id``, and the embedding, of each face of an entry.

    Raises:
        GalleryError: the entry is inconsistent, or an embedding has the wrong shape or length.
    """
    photo = f"{entry.root}{os.sep}{entry.path}"
    is_placed = is_object(entry.root) or (
        Path(entry.root).is_absolute() and not Path(entry.path).is_absolute()
    )
    if not is_placed or not entry.path:
        raise GalleryError(f"{photo}: the root must be absolute and the path relative to it")
    if entry.status not in (INDEXED, NO_FACE, UNREADABLE, _KNOWN) or len(entry.sha256) != 32:
        raise GalleryError(
            f"{photo}: status {entry.status!r} with a hash of {len(entry.sha256)} bytes"
        )
    if bool(entry.faces) != (entry.status == INDEXED):
        raise GalleryError(f"{photo}: status {entry.status!r} with {len(entry.faces)} faces")
    return [face_row(face, dimension, photo) for face in entry.faces]


def face_row(face: Face, dimension: int, photo: str) -> tuple[Any, ...]:
    """The columns of ``faces`` after ``content_id``, and the embedding, of a face.

    Raises:
        GalleryError: the embedding has the wrong shape or length.
    """
    embedding = np.asarray(face.embedding, dtype="<f4")
    if embedding.shape != (dimension,):
        raise GalleryError(
            f"{photo}: an embedding has shape {embedding.shape}; this gallery takes ({dimension},)"
        )
    length = math.hypot(*embedding.tolist())
    if not abs(length - 1) < _UNIT_TOLERANCE:
        raise GalleryError(f"{photo}: an embedding has length {length}, not 1")
    box = tuple(float(v) for v in face.box)
    landmarks = LANDMARKS.pack(*(v for point in face.landmarks for v in point))
    quality = None if face.quality is None else float(face.quality)
    parts = None if face.parts is None else PARTS.pack(*astuple(face.parts))
    time = None if face.time is None else float(face.time)
    track = (time, time) if face.track is None else tuple(map(float, face.track))
    blob = embedding.tobytes()
    rest = (quality, zlib.crc32(blob), parts, time, *track, blob)
    return (*box, landmarks, float(face.confidence), *rest)


def matrix(blobs: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Embeddings float32 (n, d) from their stored bytes.

    Raises:
        StoredValueError: the bytes of one have the wrong size.
    """
    size = 4 * dimension
    try:
        sound = set(map(len, blobs)) <= {size}
        whole = bytearray().join(blobs)
    except TypeError:  # a damaged row can hold any type
        sound = False
    if not sound:
        raise StoredValueError(f"an embedding does not have {size} bytes")
    stored = np.frombuffer(whole, dtype="<f4").reshape(-1, dimension)
    return stored.astype(np.float32, copy=False)


def owner_of(roots: Mapping[str, int], photo: str) -> tuple[int, bytes] | None:
    """(root, path relative to it) of a photo by its full path; the oldest of several roots."""
    owner = None
    end = photo.rfind(os.sep)
    while end >= 0:
        root = roots.get(photo[:end])
        if root is not None and (owner is None or root < owner[0]):
            owner = root, end
        end = photo.rfind(os.sep, 0, end)
    return owner and (owner[0], encoded(photo[owner[1] + 1 :]))


def encoded(path: str) -> bytes:
    """The stored form of a path."""
    return path.encode("utf-8", _PATH_ERRORS)


def decoded(path: object) -> str:
    """The path of its stored form.

    Raises:
        StoredValueError: it is not bytes.
    """
    return blob(path, "a path").decode("utf-8", _PATH_ERRORS)


def integers(rows: Iterable[Sequence[Any]], columns: int, what: str) -> NDArray[np.int64]:
    """Rows of integers as int64 (columns, n).

    Args:
        rows: n rows.
        columns: number of columns.
        what: what they are, for messages.

    Raises:
        StoredValueError: a value is no integer.
    """
    values = [value for row in rows for value in row]
    if not set(map(type, values)) <= {int}:
        raise StoredValueError(f"{what} are not all integers")
    return np.array(values, np.int64).reshape(-1, columns).T


def many_integers(rows: Iterable[Sequence[object]], columns: int, what: str) -> NDArray[np.int64]:
    """As `integers`, int64 (columns, n), of so many rows that they are taken in parts."""
    left = iter(rows)
    parts = [np.empty((columns, 0), np.int64)]
    while some := list(islice(left, _ROWS)):
        parts.append(integers(some, columns, what))
    return np.concatenate(parts, axis=1)
