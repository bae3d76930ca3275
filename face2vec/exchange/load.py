"""Turns a table of faces that were made elsewhere into entries of a gallery.

A photo that exists is recorded as if it had been indexed, so that indexing its folder leaves it
unchanged. Anything else is recorded under its name alone, with a size of -1: it is no file, and
neither missing nor changed.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import (
    AddressNotAllowedError,
    GalleryMismatchError,
    PhotoError,
    SettingsError,
)
from face2vec.exchange.formats import batches
from face2vec.exchange.table import BOX, LANDMARKS, PARTS, TRACK, Table
from face2vec.files import composed, expanded, is_object
from face2vec.fingerprint import Fingerprint, ModelFingerprint
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import INDEXED, NAME_ONLY, Entry
from face2vec.gallery.writer import Writer
from face2vec.models.store import fingerprint_of
from face2vec.photos.allowed import warn_once
from face2vec.photos.discover import FoundPhoto, Source
from face2vec.photos.formats import file_sha256
from face2vec.photos.storage import status_of
from face2vec.types import NO_PLACE, NO_POINTS, Face, Landmarks, QualityParts


@dataclass(frozen=True)
class Imported:
    """What `Face2Vec.import_faces` did.

    Attributes:
        faces: number of faces that were added.
        photos: number of photos and names that were added.
        known: number of photos and names that the gallery had already; their rows were skipped.
        named: number of faces that got a name.
        marks: number of rows that were left out: faces that were marked by hand have no embedding.
    """

    faces: int = 0
    photos: int = 0
    known: int = 0
    named: int = 0
    marks: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def checked_embeddings(embeddings: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Embeddings of unit length.

    Args:
        embeddings: float32 (n, d) of any length but 0.
        dimension: d.

    Returns:
        float32 (n, d).

    Raises:
        SettingsError: the dimension is another, or an embedding has length 0 or is not finite.
    """
    if embeddings.ndim != 2 or (len(embeddings) and embeddings.shape[1] != dimension):
        raise SettingsError(
            f"the embeddings have shape {embeddings.shape}; those of the model have "
            f"(n, {dimension}); give the description of the model that made them"
        )
    lengths = np.sqrt(np.vecdot(embeddings, embeddings, dtype=np.float64))
    wrong = np.flatnonzero(~((lengths > 0) & (lengths < np.inf)))
    if len(wrong):
        raise SettingsError(
            f"the embedding of row {wrong[0] + 1} has length 0 or is not finite; leave out rows "
            "without an embedding"
        )
    return np.asarray(embeddings / lengths[:, None], np.float32)


def model_of(path: Source, made_with: Fingerprint | None, model: Source | None) -> ModelFingerprint:
    """What made the embeddings of a table.

    Args:
        path: the table's file, for messages.
        made_with: what the table says itself.
        model: what the caller says.

    Raises:
        SettingsError: neither says it.
        ModelError: the model that the caller names cannot be read.
        GalleryMismatchError: the two differ.
    """
    if model is None:
        if made_with is None:
            raise SettingsError(
                f"nothing says which model made the embeddings in {os.fspath(path)}; name it: "
                "--model KEY, or --model FILE.json for its description"
            )
        return made_with.model
    given = fingerprint_of(model)
    if made_with is not None and made_with.model.digest != given.digest:
        raise GalleryMismatchError(
            f"the embeddings in {os.fspath(path)} are by model "
            f"{made_with.model.described_against(given)}, not by "
            f"{given.described_against(made_with.model)}; leave the model out"
        )
    return given


def add_table(
    table: Table, model: ModelFingerprint, root: Path, writer: Writer, gallery: Gallery
) -> Imported:
    """Add the faces of a table to a gallery.

    Args:
        table: the faces.
        model: what made their embeddings.
        root: absolute folder that relative photos are in.
        writer: writes to the gallery.
        gallery: reads from it.

    Raises:
        SettingsError: an embedding has another dimension, length 0 or is not finite.
    """
    rows, table = len(table), table.without_marks()
    marks = rows - len(table)
    embeddings = checked_embeddings(table.embeddings, model.dimension)
    everything = list(entries_of(table, embeddings, model.digest, root))
    known = {
        one.entry.sha256 for one in everything if writer.content_of(one.entry.sha256) is not None
    }
    new = [one for one in everything if one.entry.sha256 not in known]
    for some in batches(len(new)):
        writer.record(row for one in new[some] for row in (one.entry, *one.links))
    ids: set[int] = set()
    named: dict[str, list[int]] = {}
    with gallery.read() as now:
        for one in new:
            stored = now.faces_of(f"{one.entry.root}{os.sep}{one.entry.path}").records()
            faces = [found.face.id for found in stored if found.face.id not in ids]
            ids.update(face for face in faces if face is not None)
            if len(faces) == len(one.names):  # forgotten faces stay away
                for face, name in zip(faces, one.names, strict=True):
                    if name is not None and face is not None:
                        named.setdefault(composed(name), []).append(face)
    writer.people.enroll(named)
    known_photos = len(everything) - len(new)
    return Imported(len(ids), len(new), known_photos, sum(map(len, named.values())), marks)


@dataclass(frozen=True, eq=False)
class NamedEntry:
    """A photo to be recorded.

    Attributes:
        entry: the photo with its faces.
        names: the name of the person of each face, or None.
        links: its copies.
    """

    entry: Entry
    names: tuple[str | None, ...]
    links: tuple[Entry, ...]


def entries_of(
    table: Table, embeddings: NDArray[np.float32], model: str, root: Path
) -> Iterator[NamedEntry]:
    """One entry for each photo or name, in the order of their first rows.

    Args:
        table: the faces. Rows with the same ``photo`` are faces of one photo. A row without one
            stands for its own photo, called by its number.
        embeddings: float32 (n, d) of unit length.
        model: `ModelFingerprint.digest` of the model that made them.
        root: folder that relative photos are in.

    Raises:
        SettingsError: the rows of one photo have different sizes, or a box is no box.
    """
    rows_of: dict[str, list[int]] = {}
    for number, photo in enumerate(table.values("photo")):
        rows_of.setdefault(photo or f"row {number + 1}", []).append(number)
    faces = _faces(table, embeddings, model)
    names = [name or None for name in table.values("name")]
    sizes = table.rows(("width", "height"))
    hashes, copies = table.values("sha256"), table.values("copies")
    for photo, rows in rows_of.items():
        if "\0" in photo:
            raise SettingsError(
                f"the photo of row {rows[0] + 1} is {photo!r}; a path has no NUL character"
            )
        width, height = sizes[rows[0]] or (0, 0)
        folder, name = _place(root, photo)
        places = tuple(faces[row] for row in rows)
        is_placed = all(face.is_placed for face in places)
        size, mtime_ns, sha256 = _file(FoundPhoto(folder, name).place, is_placed, hashes[rows[0]])
        entry = Entry(folder, name, size, mtime_ns, sha256, width, height, INDEXED, "", places)
        links = []
        for copy in copies[rows[0]] or ():
            place = _place(root, copy)
            stat = _file(FoundPhoto(*place).place, is_placed, sha256.hex())[:2]
            links.append(Entry.link(*place, *stat, sha256))
        yield NamedEntry(entry, tuple(names[row] for row in rows), tuple(links))


def _faces(table: Table, embeddings: NDArray[np.float32], model: str) -> list[Face]:
    boxes, landmarks = table.rows(BOX), table.rows(LANDMARKS)
    times, tracks = table.values("time"), table.rows(TRACK)
    parts = table.rows(PARTS)
    faces = []
    for row, (confidence, quality) in enumerate(
        zip(table.values("confidence"), table.values("quality"), strict=True)
    ):
        box, points, made_of = boxes[row], landmarks[row], parts[row]
        is_placed = box is not None and points is not None
        if box is not None and not (box[0] < box[2] and box[1] < box[3]) and any(box):
            raise SettingsError(
                f"the box of row {row + 1} is {box}; a box is left, top, right, bottom in pixels"
            )
        faces.append(
            Face(
                (box[0], box[1], box[2], box[3]) if is_placed and box else NO_PLACE,
                _points(points) if is_placed and points else NO_POINTS,
                1.0 if confidence is None else float(confidence),
                embeddings[row],
                quality=quality,
                parts=None if made_of is None else QualityParts(*made_of),
                model=model,
                **_in_video(times[row], tracks[row]),
            )
        )
    return faces


def _in_video(time: float | None, track: Sequence[float] | None) -> dict[str, Any]:
    """The attributes of a face in a video."""
    if time is None:
        return {}
    begin, end = track or (time, time)
    if not 0 <= begin <= time <= end < math.inf:
        raise SettingsError(
            f"a face has the time {time} in a track from {begin} to {end}; times are seconds from "
            "the start of a video, and a face is in its track"
        )
    return {"time": float(time), "track": (float(begin), float(end))}


def _points(values: Sequence[float]) -> Landmarks:
    x1, y1, x2, y2, x3, y3, x4, y4, x5, y5 = values
    return ((x1, y1), (x2, y2), (x3, y3), (x4, y4), (x5, y5))


def _place(root: Path, photo: str) -> tuple[str, str]:
    """(root, path in it) of a photo or a name."""
    if is_object(photo):
        address = expanded(photo)
        bucket = "/".join(address.split("/", 3)[:3])
        return bucket, address[len(bucket) + 1 :]
    path = os.path.normpath(root / photo)
    if root in Path(path).parents:
        return str(root), os.path.relpath(path, root)
    return os.path.dirname(path), os.path.basename(path)  # noqa: PTH119, PTH120


def _file(path: str, is_placed: bool, known: str | None) -> tuple[int, int, bytes]:
    """(size, mtime_ns, SHA-256) of a photo; of a name if the file is gone, or is another now.

    Args:
        path: the file.
        is_placed: whether the places of all faces are known. Without them, a file must not count as
            indexed.
        known: SHA-256 in hexadecimal of the photo that the faces are from, or None.
    """
    if is_placed:
        try:
            status = status_of(path)
            found = file_sha256(path)
            if known in (None, "", found.hex()):
                return status.size, status.mtime_ns, found
        except AddressNotAllowedError as error:
            warn_once(error)
        except (OSError, PhotoError):
            pass
    if known:
        return NAME_ONLY, 0, bytes.fromhex(known)
    return NAME_ONLY, 0, hashlib.sha256(b"a name without a file\0" + os.fsencode(path)).digest()
