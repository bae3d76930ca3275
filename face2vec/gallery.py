"""The gallery on disk: photos, faces and embeddings in one SQLite file, the truth.

It knows nothing of photo formats, networks or the index. In the folder of a gallery:

    gallery.sqlite   everything (with ``-wal`` and ``-shm`` beside it while in use)
    writer.lock      held by the one process that writes
    writer.json      who that is; left behind by a kill it is harmless, the lock is the truth

Each call of ``record``, ``remove`` or ``prune`` is one transaction: a reader, or
a process that is started after a kill, sees all of it or nothing. No row holds
the time at which it was written, so a build that was interrupted and run again
equals, row for row, one that was not.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import struct
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryVersionError,
)
from face2vec.gallery_file import (
    FILE,
    FORMAT,
    Connection,
    GalleryFile,
    refuse_orphaned_wal,
    write_empty,
    writer_lock,
)
from face2vec.records import Face

INDEXED, NO_FACE, UNREADABLE = "indexed", "no face", "unreadable"
_KNOWN = "known"

_PHOTOS_A_PAGE = 1000
_FACES_A_QUERY = 500  # SQLite before 3.32 takes 999 parameters
_UNIT_TOLERANCE = 1e-3
_LANDMARKS = struct.Struct("<10d")

# Paths are stored as bytes, for a path may be no valid UTF-8; the handler is the
# one with which Python itself turns such names into str.
_PATH_ERRORS = sys.getfilesystemencodeerrors()

_INSERT_FACE = (
    'INSERT INTO faces (content_id, "left", "top", "right", "bottom", landmarks, confidence,'
    " quality, embedding) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_FACE_COLUMNS = (
    'faces.id, "left", "top", "right", "bottom", landmarks, confidence, quality,'
    " roots.path, photos.path"
)
_NAMED_FACES = (
    " FROM faces JOIN photos ON photos.content_id = faces.content_id"
    " JOIN roots ON roots.id = photos.root_id WHERE "
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Entry:
    """What a build has to say about one photo.

    Attributes:
        root: absolute path of the folder that the photo was added from.
        path: the photo's path relative to ``root``.
        size: bytes of the file.
        mtime_ns: its time of last change in nanoseconds.
        sha256: the 32 bytes of the hash of its content.
        width: width in pixels of the upright photo, 0 where it could not be read.
        height: height in pixels of the upright photo, 0 where it could not be read.
        status: ``INDEXED``, ``NO_FACE`` or ``UNREADABLE``.
        reason: why it could not be read.
        faces: its faces with their embeddings, none unless ``INDEXED``.
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

    @classmethod
    def link(cls, root: str, path: str, size: int, mtime_ns: int, sha256: bytes) -> Entry:
        """Another name for bytes that the gallery knows: a renamed or copied photo."""
        return cls(root, path, size, mtime_ns, sha256, 0, 0, _KNOWN)

    @property
    def content_known(self) -> bool:
        """Whether this only gives a name to bytes that the gallery knows."""
        return self.status == _KNOWN


@dataclass(frozen=True, eq=False)
class StoredFace:
    """A face in the gallery.

    Attributes:
        face: the face with its ``id``, and its embedding where that was asked for.
        photo: full path of the photo, the first in order of path if there are copies.
        copies: full paths of the others that hold the very same bytes, in order.
    """

    face: Face
    photo: str
    copies: tuple[str, ...] = ()


class Removed(NamedTuple):
    """How many photos left the gallery, and how many faces with them."""

    photos: int
    faces: int


class Counts(NamedTuple):
    """Sizes of a gallery.

    ``contents`` counts what differs in bytes; ``no_face`` and ``unreadable`` count photos.
    """

    photos: int
    contents: int
    faces: int
    no_face: int
    unreadable: int


class Changes(NamedTuple):
    """Faces that came and went since an earlier position of the journal, int64 ids in order.

    A face that came and went in between is in neither.
    """

    position: int
    added: NDArray[np.int64]
    removed: NDArray[np.int64]


class Snapshot:
    """All embeddings in one state of the gallery, in batches; may be read more than once.

    Iterating gives (ids int64 (n,), embeddings float32 (n, d)) in order of id.

    Attributes:
        position: position of the journal at this state.
        count: number of faces.
    """

    def __init__(self, gallery: Gallery, connection: Connection, batch_size: int) -> None:
        self._gallery = gallery
        self._connection = connection
        self._batch_size = batch_size
        self.position = _journal_position(connection)
        self.count: int = connection.execute("SELECT count(*) FROM faces").fetchone()[0]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        rows = self._connection.execute("SELECT id, embedding FROM faces ORDER BY id")
        while batch := rows.fetchmany(self._batch_size):
            ids = np.fromiter((row[0] for row in batch), np.int64, len(batch))
            yield ids, self._gallery._matrix([row[1] for row in batch])


class _Session:
    """What a gallery has open while it is being written to.

    Looking up photos by name goes through a second connection that stays inside
    one read transaction between two batches: that halves the cost of a look-up,
    which is all that an unchanged photo costs.
    """

    def __init__(self, writer: Connection, reader: Connection) -> None:
        self.writer = writer
        self.reader = reader
        self.lock = threading.Lock()
        self.roots = _roots(writer)

    def look_up(self, statement: str, *values: Any) -> Any:
        """The first row of a SELECT, or None."""
        with self.lock:
            if not self.reader.in_transaction:
                self.reader.execute("BEGIN")
            return self.reader.execute(statement, values).fetchone()


class Gallery:
    """Enrolled photos and faces in one folder; one process writes, any number read.

    Made with ``create`` or ``open``. One object may be used by several threads
    at once; close it when none of them uses it any more.

    Every method raises ``GalleryDamagedError`` where the file turns out to be
    damaged and ``GalleryError`` for a disk that is full, read-only or failing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = GalleryFile(folder)
        self._turn = threading.Lock()
        self._session: _Session | None = None
        try:
            meta = self._read_meta()
            self._fingerprint: dict[str, Any] = json.loads(meta["fingerprint"])
            self._dimension = int(meta["dimension"])
            self._uuid = meta["uuid"]
        except (KeyError, ValueError) as error:
            self.close()
            raise self._file.damaged("it does not say what it holds") from error
        except GalleryError:
            self.close()
            raise

    @classmethod
    def create(cls, folder: str | Path, fingerprint: Mapping[str, Any], dimension: int) -> Gallery:
        """A new, empty gallery; the folder is made where it is missing.

        Args:
            folder: where it goes.
            fingerprint: JSON-able description of what makes the embeddings.
            dimension: length of an embedding.

        Raises:
            GalleryError: there is a gallery already, or the folder cannot be written.
            GalleryLockedError: another process is making one there.
        """
        folder = Path(folder).absolute()
        meta = {
            "format": str(FORMAT),
            "uuid": str(uuid.uuid4()),
            "dimension": str(dimension),
            "fingerprint": json.dumps(dict(fingerprint), sort_keys=True),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GalleryError(f"Cannot make the folder {folder}: {error}.") from error
        with writer_lock(folder):
            if (folder / FILE).exists():
                raise GalleryError(
                    f"There is a gallery in {folder} already. Open it, or choose another folder."
                )
            refuse_orphaned_wal(folder / FILE)
            write_empty(folder / FILE, meta)
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """The gallery in that folder, which is not changed by opening it.

        Raises:
            GalleryNotFoundError: there is none.
            GalleryVersionError: a newer face2vec has written it.
            GalleryDamagedError: the file is truncated, or is no gallery.
        """
        return cls(Path(folder))

    @property
    def folder(self) -> Path:
        """Absolute path of the gallery's folder."""
        return self._file.folder

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What made the embeddings, as given to ``create``."""
        return dict(self._fingerprint)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._dimension

    @property
    def uuid(self) -> str:
        """A name for this gallery that no other has."""
        return self._uuid

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._file.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, dimension={self._dimension})"

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write, as one process at a time can; it is not waited for.

        After photos were removed, the file is rewritten when this ends, so that
        nothing of them stays in it; that takes a second or two for each 100,000 faces.

        Raises:
            GalleryLockedError: someone else is writing; says who.
            GalleryError: the folder cannot be written.
        """
        if not self._turn.acquire(blocking=False):
            raise GalleryLockedError(
                f"The gallery {self.folder} is being written by this very process "
                f"({os.getpid()}). Wait until that is done."
            )
        try:
            with writer_lock(self.folder):
                session = self._open_session()
                self._session = session
                try:
                    yield
                finally:
                    self._session = None
                    self._finish(session)
        finally:
            self._turn.release()

    def record(self, entries: Iterable[Entry]) -> list[Entry]:
        """Store photos in the order given, in one transaction.

        Bytes that the gallery knows already get one more name and nothing else.
        A photo recorded before with other bytes is replaced: its old faces go,
        unless the old bytes have another name. A photo under two roots belongs
        to the one that the gallery knew first.

        Returns:
            Links that were *not* recorded, because the bytes they name have left
            the gallery since they were looked up (their last name was given to
            another photo). Read these photos, and record them again.

        Raises:
            GalleryError: an entry contradicts itself or an embedding does not
                belong here (nothing of the call is stored), or the disk is full.
        """
        refused: list[Entry] = []
        rows = [(entry, self._rows_of(entry)) for entry in entries]
        # Bytes that lose their name wait for the end if the batch gives them another later.
        # All others go at once, so that it makes no difference where one batch ends and
        # the next begins.
        last_named = {entry.sha256: place for place, (entry, _) in enumerate(rows)}
        with self._transaction() as connection:
            roots = _roots(connection)
            waiting: set[int] = set()
            for place, (entry, faces) in enumerate(rows):
                found = connection.execute(
                    "SELECT id FROM contents WHERE sha256 = ?", (entry.sha256,)
                ).fetchone()
                if found is None and entry.content_known:
                    refused.append(entry)
                    continue
                content = found[0] if found else _insert_content(connection, entry, faces)
                root, path = _place(connection, roots, entry)
                before = connection.execute(
                    "SELECT content_id, sha256 FROM photos JOIN contents ON id = content_id"
                    " WHERE root_id = ? AND path = ?",
                    (root, path),
                ).fetchone()
                connection.execute(
                    "INSERT OR REPLACE INTO photos (root_id, path, content_id, size, mtime_ns)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (root, path, content, entry.size, _fitting(entry.mtime_ns)),
                )
                if before and last_named.get(before[1], -1) >= place:
                    waiting.add(before[0])
                elif before:
                    _drop_nameless(connection, [before[0]])
            _drop_nameless(connection, waiting)
        return refused

    def remove(self, photos: Iterable[str | os.PathLike[str]]) -> Removed:
        """Drop photos and, where no copy is left, their faces, in one transaction.

        Args:
            photos: full paths; a folder stands for all photos under it. What is
                not in the gallery is passed over.
        """
        if isinstance(photos, str | os.PathLike):
            photos = [photos]
        with self._transaction() as connection:
            roots = _roots(connection)
            names: dict[tuple[int, bytes], int] = {}
            for photo in photos:
                names.update(_names_under(connection, roots, _absolute(photo)))
            connection.executemany("DELETE FROM photos WHERE root_id = ? AND path = ?", names)
            faces = _drop_nameless(connection, set(names.values()))
            connection.execute(
                "DELETE FROM roots WHERE NOT EXISTS (SELECT 1 FROM photos WHERE root_id = roots.id)"
            )
            if names:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('unpurged', '1')")
        return Removed(len(names), faces)

    def gone(self) -> Iterator[str]:
        """Full paths of photos in the gallery whose files no longer exist."""
        for path, _, _ in self.photos():
            try:
                Path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                yield path

    def prune(self, force: bool = False) -> Removed:
        """Drop the photos whose files no longer exist.

        Args:
            force: also where a whole folder that photos were added from is
                missing or empty, which is what a disk looks like that is not connected.

        Raises:
            GalleryError: such a folder is missing or empty and ``force`` is not set.
        """
        self._writer_session()
        if not force:
            with self._file.reading() as connection:
                roots = _roots(connection)
            for root in roots:
                if _is_missing_or_empty(root + os.sep):
                    raise GalleryError(
                        f"The folder {root or os.sep}, which photos in this gallery were added "
                        "from, is missing or empty. If it is on a disk that is not connected, "
                        "connect it; if the photos are really gone, prune with force."
                    )
        return self.remove(list(self.gone()))

    # Reading

    def stat_of(self, root: str, path: str) -> tuple[int, int] | None:
        """(size, mtime_ns) that a photo was recorded with, or None if it was not."""
        statement = "SELECT size, mtime_ns FROM photos WHERE root_id = ? AND path = ?"
        photo = f"{root.rstrip(os.sep)}{os.sep}{path}"
        session = self._session
        try:
            if session is not None:
                owner = _owner(session.roots, photo)
                found = owner and session.look_up(statement, *owner)
            else:
                with self._file.reading() as connection:
                    owner = _owner(_roots(connection), photo)
                    found = owner and connection.execute(statement, owner).fetchone()
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error
        return found or None

    def content_of(self, sha256: bytes) -> int | None:
        """Number of the content with that hash, or None if the gallery does not know it."""
        statement = "SELECT id FROM contents WHERE sha256 = ?"
        session = self._session
        try:
            if session is not None:
                found = session.look_up(statement, sha256)
            else:
                with self._file.reading() as connection:
                    found = connection.execute(statement, (sha256,)).fetchone()
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error
        return found[0] if found else None

    def faces(self, ids: Iterable[int], *, with_embeddings: bool = True) -> list[StoredFace]:
        """Faces in the order asked for; ids that are not in the gallery are skipped.

        Args:
            ids: numbers of faces.
            with_embeddings: False leaves ``face.embedding`` None and is faster.
        """
        wanted = [int(i) for i in ids]
        columns = _FACE_COLUMNS + (", embedding" if with_embeddings else "")
        rows: list[tuple[Any, ...]] = []
        with self._file.reading() as connection:
            for start in range(0, len(wanted), _FACES_A_QUERY):
                some = wanted[start : start + _FACES_A_QUERY]
                marks = ",".join("?" * len(some))
                rows += connection.execute(
                    f"SELECT {columns}{_NAMED_FACES}faces.id IN ({marks})", some
                )
        found = self._stored(rows)
        return [found[i] for i in wanted if i in found]

    def faces_of(self, photo: str | os.PathLike[str]) -> list[StoredFace]:
        """Faces in one photo by its full path, in order of id; none if it is not in the gallery."""
        with self._file.reading() as connection:
            owner = _owner(_roots(connection), _absolute(photo))
            if owner is None:
                return []
            rows = connection.execute(
                f"SELECT {_FACE_COLUMNS}, embedding{_NAMED_FACES}faces.content_id ="
                " (SELECT content_id FROM photos WHERE root_id = ? AND path = ?) ORDER BY faces.id",
                owner,
            ).fetchall()
        return list(self._stored(rows).values())

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) in the order asked for; NaN for an id that is not there."""
        result = np.full((len(ids), self._dimension), np.nan, dtype=np.float32)
        wanted = [int(i) for i in ids]
        blobs: dict[int, bytes] = {}
        with self._file.reading() as connection:
            for start in range(0, len(wanted), _FACES_A_QUERY):
                some = wanted[start : start + _FACES_A_QUERY]
                marks = ",".join("?" * len(some))
                blobs.update(
                    connection.execute(
                        f"SELECT id, embedding FROM faces WHERE id IN ({marks})", some
                    )
                )
        present = [row for row, i in enumerate(wanted) if i in blobs]
        result[present] = self._matrix([blobs[wanted[row]] for row in present])
        return result

    @contextmanager
    def snapshot(self, batch_size: int = 1024) -> Iterator[Snapshot]:
        """One state of the gallery, held for as long as the ``with`` lasts."""
        with self._file.reading() as connection:
            yield Snapshot(self, connection, batch_size)

    def iter_embeddings(
        self, batch_size: int = 1024
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All embeddings in one state of the gallery, in order of id.

        Yields:
            ids int64 (n,) and embeddings float32 (n, d), n ≤ ``batch_size``.
        """
        with self.snapshot(batch_size) as snapshot:
            yield from snapshot

    def photos(self) -> Iterator[tuple[str, str, str]]:
        """(full path, status, reason) of every photo; the gallery may change meanwhile."""
        with self._file.reading() as connection:
            roots = _roots(connection)
        for root, root_id in roots.items():
            last = b""
            while True:
                with self._file.reading() as connection:
                    rows = connection.execute(
                        "SELECT path, status, reason FROM photos JOIN contents ON id = content_id"
                        " WHERE root_id = ? AND path > ? ORDER BY path LIMIT ?",
                        (root_id, last, _PHOTOS_A_PAGE),
                    ).fetchall()
                if not rows:
                    break
                for path, status, reason in rows:
                    yield f"{root}{os.sep}{_decoded(path)}", status, reason
                last = rows[-1][0]

    def counts(self) -> Counts:
        """How many photos and faces there are."""
        with self._file.reading() as connection:
            contents, faces = connection.execute(
                "SELECT (SELECT count(*) FROM contents), (SELECT count(*) FROM faces)"
            ).fetchone()
            photos = dict(
                connection.execute(
                    "SELECT status, count(*) FROM photos JOIN contents ON id = content_id"
                    " GROUP BY status"
                )
            )
        return Counts(
            photos=sum(photos.values()),
            contents=contents,
            faces=faces,
            no_face=photos.get(NO_FACE, 0),
            unreadable=photos.get(UNREADABLE, 0),
        )

    def journal_position(self) -> int:
        """Position of the last change to any face; 0 when there was none."""
        with self._file.reading() as connection:
            return _journal_position(connection)

    def changes_since(self, position: int) -> Changes:
        """What happened to faces after a position of the journal.

        Raises:
            GalleryError: the gallery has not come that far, so the position is
                from another or a later state of it.
        """
        with self._file.reading() as connection:
            now = _journal_position(connection)
            if not 0 <= position <= now:
                raise GalleryError(
                    f"The journal of the gallery {self.folder} ends at {now}; there is no "
                    f"position {position}. What asks for it was made from another state of the "
                    "gallery, such as one before a backup was put back: make it anew."
                )
            rows = connection.execute(
                "SELECT face_id, sum(CASE change WHEN '+' THEN 1 ELSE -1 END) AS net FROM journal"
                " WHERE position > ? GROUP BY face_id HAVING net <> 0 ORDER BY face_id",
                (position,),
            ).fetchall()
        return Changes(
            position=now,
            added=np.array([face for face, net in rows if net > 0], dtype=np.int64),
            removed=np.array([face for face, net in rows if net < 0], dtype=np.int64),
        )

    def check(self) -> list[str]:
        """Read the whole file and say in words what is wrong with it; empty when it is sound."""
        problems: list[str] = []
        try:
            with self._file.reading() as connection:
                problems += [
                    f"{FILE}: {line}"
                    for (line,) in connection.execute("PRAGMA integrity_check")
                    if line != "ok"
                ]
                problems += self._contradictions(connection)
                for ids, embeddings in Snapshot(self, connection, batch_size=4096):
                    with np.errstate(all="ignore"):  # damaged numbers may be anything
                        lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
                    for i in ids[~(np.abs(lengths - 1) < _UNIT_TOLERANCE)]:
                        problems.append(f"face {i}: its embedding is not of unit length")
        except GalleryError as error:
            problems.append(str(error))
        return problems

    # Inside

    def _contradictions(self, connection: Connection) -> Iterator[str]:
        for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
            yield f"{table}, row {row}: what it refers to in {parent} is not there"
        questions = {
            "contents without a photo": "SELECT count(*) FROM contents"
            " WHERE NOT EXISTS (SELECT 1 FROM photos WHERE content_id = contents.id)",
            "contents whose status does not agree with their faces": "SELECT count(*) FROM contents"
            " WHERE (status = 'indexed') <>"
            " EXISTS (SELECT 1 FROM faces WHERE content_id = contents.id)",
            "faces whose embedding or landmarks have the wrong size": "SELECT count(*) FROM faces"
            f" WHERE length(embedding) <> {4 * self._dimension}"
            f" OR length(landmarks) <> {_LANDMARKS.size}",
            "faces that the journal does not know, or calls removed": "SELECT count(*) FROM faces"
            " LEFT JOIN (SELECT face_id, sum(change = '+') AS added, sum(change = '-') AS removed"
            " FROM journal GROUP BY face_id) ON face_id = id"
            " WHERE added IS NOT 1 OR removed IS NOT 0",
            "faces that the journal knows and the gallery does not": "SELECT count(*) FROM"
            " (SELECT face_id, sum(change = '+') AS added, sum(change = '-') AS removed"
            " FROM journal GROUP BY face_id) LEFT JOIN faces ON id = face_id"
            " WHERE id IS NULL AND (added IS NOT 1 OR removed IS NOT 1)",
        }
        for what, statement in questions.items():
            (count,) = connection.execute(statement).fetchone()
            if count:
                yield f"{what}: {count}"
        if connection.execute("SELECT 1 FROM meta WHERE key = 'unpurged'").fetchone():
            yield (
                "traces of removed photos may still be in the file, for it could not be "
                "rewritten after the removal; the next change of the gallery tries again"
            )

    def _rows_of(self, entry: Entry) -> list[tuple[Any, ...]]:
        """The columns of an entry's faces after ``content_id``; refuses what cannot be right."""
        photo = f"{entry.root}{os.sep}{entry.path}"
        if not Path(entry.root).is_absolute() or not entry.path or Path(entry.path).is_absolute():
            raise GalleryError(f"{photo}: needs an absolute root and a path relative to it.")
        if entry.status not in (INDEXED, NO_FACE, UNREADABLE, _KNOWN) or len(entry.sha256) != 32:
            raise GalleryError(f"{photo}: {entry.status!r} with {len(entry.sha256)} bytes of hash.")
        if bool(entry.faces) != (entry.status == INDEXED):
            raise GalleryError(f"{photo}: {entry.status!r} with {len(entry.faces)} faces.")
        rows: list[tuple[Any, ...]] = []
        for face in entry.faces:
            embedding = np.asarray(face.embedding, dtype="<f4")
            if embedding.shape != (self._dimension,):
                raise GalleryError(
                    f"{photo}: an embedding has the shape {embedding.shape}; "
                    f"this gallery holds ({self._dimension},)."
                )
            length = math.hypot(*embedding.tolist())
            if not abs(length - 1) < _UNIT_TOLERANCE:
                raise GalleryError(f"{photo}: an embedding has the length {length}, not 1.")
            landmarks = _LANDMARKS.pack(*(v for point in face.landmarks for v in point))
            box = tuple(float(v) for v in face.box)
            quality = None if face.quality is None else float(face.quality)
            rows.append((*box, landmarks, float(face.confidence), quality, embedding.tobytes()))
        return rows

    def _stored(self, rows: Iterable[tuple[Any, ...]]) -> dict[int, StoredFace]:
        """Rows of ``_FACE_COLUMNS``, one for each name of a face, as one face each."""
        stored: dict[int, StoredFace] = {}
        more_names: dict[int, list[str]] = {}
        for i, left, top, right, bottom, points, confidence, quality, root, path, *blob in rows:
            name = f"{_decoded(root)}{os.sep}{_decoded(path)}"
            if i in stored:
                more_names.setdefault(i, []).append(name)
                continue
            if len(points) != _LANDMARKS.size:
                raise self._file.damaged(f"face {i} has landmarks of {len(points)} bytes")
            x1, y1, x2, y2, x3, y3, x4, y4, x5, y5 = _LANDMARKS.unpack(points)
            face = Face(
                (left, top, right, bottom),
                ((x1, y1), (x2, y2), (x3, y3), (x4, y4), (x5, y5)),
                confidence,
                self._matrix(blob)[0] if blob else None,
                i,
                quality,
            )
            stored[i] = StoredFace(face, name)
        for i, names in more_names.items():
            first, *others = sorted([stored[i].photo, *names])
            stored[i] = StoredFace(stored[i].face, first, tuple(others))
        return stored

    def _matrix(self, blobs: Sequence[bytes]) -> NDArray[np.float32]:
        size = 4 * self._dimension
        if any(len(blob) != size for blob in blobs):
            raise self._file.damaged(f"an embedding does not have {size} bytes")
        return (
            np.frombuffer(b"".join(blobs), dtype="<f4")
            .reshape(-1, self._dimension)
            .astype(np.float32)
        )

    def _read_meta(self) -> dict[str, str]:
        """The table ``meta``, after looking for what says that the file is no gallery."""
        with self._file.reading() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if ("meta",) not in tables.fetchall():
                raise GalleryDamagedError(
                    f"{self._file.path} is an SQLite file, but not a gallery of face2vec. "
                    "It was left as it is; choose another folder."
                )
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if int(meta["format"]) > FORMAT:
                raise GalleryVersionError(
                    f"The gallery {self.folder} has format {meta['format']}; this face2vec knows "
                    f"format {FORMAT}. Install a newer face2vec to use it."
                )
            self._file.refuse_truncated(connection)
        return meta

    def _open_session(self) -> _Session:
        try:
            return _Session(self._file.connect_writer(), self._file.borrow())
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error

    def _writer_session(self) -> _Session:
        if self._session is None:
            raise GalleryError(
                f"The gallery {self.folder} is open for reading. "
                "Change it inside 'with gallery.writing():'."
            )
        return self._session

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        session = self._writer_session()
        writer = session.writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                roots = _roots(writer)
                with session.lock:
                    session.reader.rollback()
                    writer.execute("COMMIT")
                    session.roots = roots
            except BaseException:
                writer.rollback()
                raise
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error

    def _finish(self, session: _Session) -> None:
        """End a session: nothing of what was removed stays, all there is goes into the one file.

        Every batch is on the disk by now, so what goes wrong here is only logged.
        """
        writer = session.writer
        try:
            self._file.give_back(session.reader)
            unpurged = writer.execute("SELECT 1 FROM meta WHERE key = 'unpurged'").fetchone()
            if unpurged:
                # Zeroing what is deleted is not enough: when SQLite moves rows between
                # pages it leaves copies behind. Only rewriting the file removes those.
                writer.execute("VACUUM")
                if _empty_wal(writer):
                    writer.execute("DELETE FROM meta WHERE key = 'unpurged'")
                else:
                    _log.warning(
                        "Someone is reading the gallery %s, so what was removed stays in its -wal "
                        "until the gallery is next changed.",
                        self.folder,
                    )
            writer.execute("PRAGMA busy_timeout = 0")  # no reader is waited for
            _empty_wal(writer)
        except sqlite3.Error as error:
            _log.warning("After writing: %s", self._file.in_words(error))
        finally:
            self._file.disconnect(writer)


def _roots(connection: Connection) -> dict[str, int]:
    """Folders that photos were added from, oldest first, without the separator at the end."""
    rows = connection.execute("SELECT path, id FROM roots ORDER BY id")
    return {_decoded(path): root_id for path, root_id in rows}


def _owner(roots: Mapping[str, int], photo: str) -> tuple[int, bytes] | None:
    """(root, path relative to it) by the oldest root that the full path of a photo is under."""
    owner = None
    end = photo.rfind(os.sep)
    while end >= 0:
        root = roots.get(photo[:end])
        if root is not None and (owner is None or root < owner[0]):
            owner = root, end
        end = photo.rfind(os.sep, 0, end)
    return owner and (owner[0], _encoded(photo[owner[1] + 1 :]))


def _place(connection: Connection, roots: dict[str, int], entry: Entry) -> tuple[int, bytes]:
    """Where a photo is stored; its root is added unless an older one holds the photo."""
    folder = entry.root.rstrip(os.sep)
    owner = _owner(roots, f"{folder}{os.sep}{entry.path}")
    if owner is not None:
        return owner
    added = connection.execute("INSERT INTO roots (path) VALUES (?)", (_encoded(folder),))
    root = added.lastrowid
    assert root is not None
    roots[folder] = root
    return root, _encoded(entry.path)


def _insert_content(connection: Connection, entry: Entry, faces: Iterable[tuple[Any, ...]]) -> int:
    content = connection.execute(
        "INSERT INTO contents (sha256, width, height, status, reason) VALUES (?, ?, ?, ?, ?)",
        (
            entry.sha256,
            entry.width,
            entry.height,
            entry.status,
            entry.reason.encode("utf-8", "backslashreplace").decode(),
        ),
    ).lastrowid
    assert content is not None
    connection.executemany(_INSERT_FACE, ((content, *face) for face in faces))
    return content


def _fitting(number: int) -> int:
    """The nearest number that SQLite can hold; a file may claim to be from the year 3000."""
    return max(-(2**63), min(number, 2**63 - 1))


def _drop_nameless(connection: Connection, contents: Iterable[int]) -> int:
    """Drop those of the contents that no photo names any more; returns how many faces went."""
    faces = 0
    for content in sorted(contents):
        nameless = "NOT EXISTS (SELECT 1 FROM photos WHERE content_id = ?1)"
        (count,) = connection.execute(
            f"SELECT count(*) FROM faces WHERE content_id = ?1 AND {nameless}", (content,)
        ).fetchone()
        connection.execute(f"DELETE FROM contents WHERE id = ?1 AND {nameless}", (content,))
        faces += count
    return faces


def _names_under(
    connection: Connection, roots: Mapping[str, int], photo: str
) -> Iterator[tuple[tuple[int, bytes], int]]:
    """((root, path), content) of the photo of that full path, or of all under that folder."""
    select = "SELECT path, content_id FROM photos WHERE root_id = ?"
    owner = _owner(roots, photo)
    if owner is not None:
        root, path = owner
        below = path + os.sep.encode()
        beyond = path + bytes([ord(os.sep) + 1])
        rows = connection.execute(
            f"{select} AND (path = ? OR path >= ? AND path < ?)", (root, path, below, beyond)
        )
        yield from (((root, path), content) for path, content in rows)
    folder = photo.rstrip(os.sep)
    for name, root in roots.items():
        if name == folder or name.startswith(folder + os.sep):
            rows = connection.execute(select, (root,))
            yield from (((root, path), content) for path, content in rows)


def _journal_position(connection: Connection) -> int:
    (position,) = connection.execute("SELECT coalesce(max(position), 0) FROM journal").fetchone()
    return int(position)


def _empty_wal(connection: Connection) -> bool:
    """Bring everything into the main file and cut the ``-wal`` to nothing, unless it is read."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _is_missing_or_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _absolute(photo: str | os.PathLike[str]) -> str:
    return os.path.normpath(Path(photo).absolute())


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", _PATH_ERRORS)


def _decoded(path: bytes) -> str:
    return path.decode("utf-8", _PATH_ERRORS)
