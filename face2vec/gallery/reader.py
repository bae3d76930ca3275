"""Reading a gallery: `Snapshot`, one state of it."""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.calibration import Calibration
from face2vec.errors import GalleryError, GalleryUpgradedError
from face2vec.files import composed, look_of
from face2vec.fingerprint import Fingerprint
from face2vec.gallery import marks as gallery_marks
from face2vec.gallery import people as gallery_people
from face2vec.gallery import removals
from face2vec.gallery.connection import Connection, GalleryFile
from face2vec.gallery.people import Memberships
from face2vec.gallery.rows import (
    NAME_ONLY,
    NO_FACE,
    PARTS,
    UNREADABLE,
    KnownPhoto,
    StoredFace,
    StoredFaces,
    decoded,
    full_path,
    integers,
    many_integers,
    matrix,
    named_faces,
    owner_of,
)
from face2vec.gallery.schema import MAPPED, has_column, has_people, has_table, missing_columns
from face2vec.photos.dates import ALWAYS, Period
from face2vec.types import SURE_CONFIDENCE, SURE_OPINION, Edit, Mark, Person

STAT = "SELECT size, mtime_ns FROM photos WHERE root_id = ? AND path = ?"
TIMES = "SELECT size, mtime_ns, ctime_ns FROM photos WHERE root_id = ? AND path = ?"
NOT_INDEXED = (
    "SELECT root_id, path, status, reason FROM contents JOIN photos ON content_id = contents.id"
    " WHERE status <> 'indexed' OR reason <> ''"
)
RECORDED = (
    "SELECT size, mtime_ns, ctime_ns, sha256, status, reason FROM photos"
    " JOIN contents ON id = content_id WHERE root_id = ? AND path = ?"
)
_SIZE = (
    "SELECT width, height FROM contents JOIN photos ON content_id = id"
    " WHERE root_id = ? AND path = ?"
)
_OUTCOME = (
    "SELECT status, reason FROM contents JOIN photos ON content_id = id"
    " WHERE root_id = ? AND path = ?"
)
_CONTENT_AT = "SELECT content_id FROM photos WHERE root_id = ? AND path = ?"
CONTENT = "SELECT id FROM contents WHERE sha256 = ?"
OUTCOME = "SELECT status, reason FROM contents WHERE sha256 = ?"
SPARSELY = 4
"""Faces are drawn without reading all ids if there are more than this times as many."""
CALIBRATION = "calibration"  # its key in the table meta
UUID = "SELECT value FROM meta WHERE key = 'uuid'"
_EMBEDDINGS = "SELECT face_id, embedding FROM embeddings"
_WITH_CHECKSUMS = (
    "SELECT face_id, embedding, embedding_crc32 FROM embeddings JOIN faces ON faces.id = face_id"
)

_IDS_PER_QUERY = 512  # SQLite before 3.32 takes 999 parameters
_IDS_PER_ROW, _IDS_STEP = 60, 4  # few statements to compile, none of them long
_IDS_UNPADDED = 20  # the ten of a usual search are looked up without padding
_PHOTOS_PER_PAGE = 1000
_FACES_PER_PART = 65536


@dataclass
class Meta:
    """What a gallery says about itself; shared by its readers and its writer.

    Attributes:
        uuid: unique identifier of the gallery.
        dimension: length of an embedding.
        fingerprint: what made the embeddings.
    """

    uuid: str
    dimension: int
    fingerprint: Fingerprint


class State(NamedTuple):
    """Identifies the faces and embeddings of a gallery at one time.

    Attributes:
        gallery_uuid: unique identifier of the gallery.
        position: position of the last change in its journal; 0 if there is none.
        history: checksum of all changes up to there.
    """

    gallery_uuid: str = ""
    position: int = 0
    history: int = 0


class Counts(NamedTuple):
    """Sizes of a gallery.

    Attributes:
        photos: number of photos.
        contents: number of photos with different bytes.
        faces: number of faces.
        no_face: number of photos without a face.
        unreadable: number of photos that could not be read.
    """

    photos: int
    contents: int
    faces: int
    no_face: int
    unreadable: int


class Changes(NamedTuple):
    """Faces that were added and removed since an earlier state.

    A face that was added and removed in between is in neither; one whose embedding was replaced is
    in both.

    Attributes:
        added: int64 (n,), rising.
        removed: int64 (m,), rising.
    """

    added: NDArray[np.int64]
    removed: NDArray[np.int64]


class _Known(NamedTuple):
    """What a connection keeps while the file's ``data_version`` is the same."""

    version: int
    state: State
    roots: dict[str, int]
    root_paths: dict[int, str]
    named_faces: str


class Snapshot:
    """One state of the gallery, for one thread; made by `Gallery.read`.

    Iterating yields all (ids int64 (n,), embeddings float32 (n, d)) in batches, in order of id, as
    often as needed.

    Attributes:
        batch_size: how many embeddings an iteration yields at a time; may be changed.
        verifying: whether an iteration compares embeddings with their checksums; may be changed.
        state: identifies the state.
        roots: number of each folder that photos were added from, oldest first, by path without a
            trailing separator.
        connection: the connection that reads it.
    """

    def __init__(
        self,
        file: GalleryFile,
        meta: Meta,
        batch_size: int = 1024,
        mmap: bool = False,
    ) -> None:
        self._file = file
        self._meta = meta
        self.batch_size = batch_size
        self.verifying = False
        self._mmap = mmap

    # Two methods and not a generator, because this is part of each search.

    def __enter__(self) -> Snapshot:
        try:
            connection = self.connection = self._file.borrow(self._mmap)
            try:
                connection.execute("BEGIN")
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                known: _Known | None = connection.known
                if known is None or known.version != version:
                    known = connection.known = self._reread(version)
            except BaseException:
                self._file.give_back(connection)
                raise
        except (sqlite3.Error, stored.StoredValueError) as error:
            raise self._file.error_for(error) from error
        self.state = known.state
        self.roots = known.roots
        self._root_paths = known.root_paths
        self._named_faces = known.named_faces
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._file.give_back(self.connection)
        except sqlite3.Error as late:
            error = error or late
        if isinstance(error, sqlite3.Error | stored.StoredValueError):
            raise self._file.error_for(error) from error

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        select = _WITH_CHECKSUMS if self.verifying else _EMBEDDINGS
        rows = self.connection.execute(f"{select} ORDER BY face_id")
        while batch := rows.fetchmany(self.batch_size):
            (ids,) = integers([row[:1] for row in batch], 1, "the numbers of faces")
            if self.verifying:
                self._refuse_changed(batch)
            yield ids, self._matrix([row[1] for row in batch])

    @property
    def count(self) -> int:
        """Number of faces."""
        (count,) = self.connection.execute("SELECT count(*) FROM faces").fetchone()
        return int(count)

    @property
    def bytes_of_embeddings(self) -> int:
        """Size of all embeddings in memory."""
        return 4 * self._meta.dimension * self.count

    def faces(self, ids: Sequence[int]) -> StoredFaces:
        """Faces by id, without embeddings; unknown ids are skipped."""
        return self._stored(self.rows_of(ids, f"{self._named_faces} WHERE faces.id"))

    def faces_there(self, ids: Sequence[int]) -> StoredFaces:
        """Faces by id, each once, all of which have an embedding in this state of the gallery.

        Raises:
            GalleryDamagedError: the row of one, or of its photo, is missing.
        """
        found = self.faces(ids)
        if len(found) < len(ids):
            lost = [i for i in ids if not len(found.of([i]))]
            raise self._file.damaged(f"the row of face {lost[0]}, or of its photo, is missing")
        return found

    def faces_of(self, photo: str) -> StoredFaces:
        """Faces of one photo by its full path, in order of id; none if it is unknown."""
        owner = owner_of(self.roots, photo)
        if owner is None:
            return self._stored([])
        return self._stored(
            self.connection.execute(
                f"{self._named_faces} WHERE faces.content_id ="
                " (SELECT content_id FROM photos WHERE root_id = ? AND path = ?) ORDER BY faces.id",
                owner,
            ).fetchall()
        )

    def stored_faces(self, ids: Iterable[int], *, with_embeddings: bool = True) -> list[StoredFace]:
        """Faces in the order of ``ids``; unknown ids are skipped.

        Args:
            ids: numbers of faces.
            with_embeddings: False leaves ``face.embedding`` None, which is faster.
        """
        wanted = [int(i) for i in ids]
        found = self.faces(wanted)
        records = self.embedded(found) if with_embeddings else found.records()
        by_id = {one.face.id: one for one in records}
        return [by_id[i] for i in wanted if i in by_id]

    def embedded(self, found: StoredFaces) -> list[StoredFace]:
        """Faces with their embeddings."""
        records = found.records()
        embeddings = self.embeddings([one.face.id for one in records if one.face.id is not None])
        model = self._meta.fingerprint.model.digest
        return [
            replace(one, face=one.face.with_embedding(embedding, model))
            for one, embedding in zip(records, embeddings, strict=True)
        ]

    @contextmanager
    def several(self, count: int) -> Iterator[list[Snapshot]]:
        """``count`` snapshots of this state, including this one, for as many threads.

        There are fewer if the gallery has changed in the meantime.
        """
        with ExitStack() as ends:
            same = [self]
            for _ in range(count - 1):
                another = Snapshot(self._file, self._meta, self.batch_size, self._mmap)
                try:
                    ends.enter_context(another)
                except GalleryUpgradedError:
                    break
                if another.state != self.state:
                    break
                same.append(another)
            yield same

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) of ids (n,), in their order; NaN for unknown ids."""
        wanted: list[int] = np.asarray(ids, dtype=np.int64).tolist()
        blobs: list[bytes | None] = []
        for start in range(0, len(wanted), _IDS_PER_ROW):
            some = wanted[start : start + _IDS_PER_ROW]
            padded = some + some[-1:] * (-len(some) % _IDS_STEP)
            row = self.connection.execute(_embeddings_in_a_row(len(padded)), padded).fetchone()
            blobs += row[: len(some)]
        there = [blob for blob in blobs if blob is not None]
        embeddings = self._matrix(there)
        if len(there) == len(wanted):
            return embeddings
        result = np.full((len(wanted), self._meta.dimension), np.nan, dtype=np.float32)
        result[[blob is not None for blob in blobs]] = embeddings
        return result

    def some_ids(self, count: int) -> NDArray[np.int64]:
        """Ids int64 (n,) of up to ``count`` faces, drawn at random; the same in each call."""
        rng = np.random.default_rng(0)
        total = self.count
        if total > SPARSELY * count:  # too many to read all ids
            (last,) = self.connection.execute("SELECT max(id) FROM faces").fetchone()
            drawn = np.unique(rng.integers(1, last + 1, SPARSELY * count)).tolist()
            rows = self.rows_of(drawn, "SELECT id FROM faces WHERE id")
        if total <= SPARSELY * count or len(rows) < count:
            rows = self.connection.execute("SELECT id FROM faces ORDER BY id").fetchall()
        (ids,) = integers(rows, 1, "the numbers of faces")
        return np.asarray(rng.permutation(np.unique(ids))[:count])

    def verify(self, ids: Sequence[int]) -> None:
        """Compare the embeddings of faces with their checksums.

        Raises:
            GalleryDamagedError: one has changed since it was stored.
        """
        self._refuse_changed(self.rows_of(ids, f"{_WITH_CHECKSUMS} WHERE face_id"))

    def _refuse_changed(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Compare embeddings with their checksums; rows of ``_WITH_CHECKSUMS``."""
        for face, blob, crc32 in rows:
            if zlib.crc32(stored.blob(blob, "an embedding")) != crc32:
                raise self._file.damaged(f"the embedding of face {face} has changed on the disk")

    def stat_of(self, photo: str) -> tuple[int, int] | None:
        """(size in bytes, mtime_ns) recorded for a photo by its full path; None if unknown."""
        return self._sizes(self._row_for(photo, STAT))

    def size_of(self, photo: str) -> tuple[int, int] | None:
        """(width, height) in pixels of an upright photo by its full path; None if unknown."""
        return self._sizes(self._row_for(photo, _SIZE))

    def outcome_of(self, photo: str) -> tuple[str, str] | None:
        """(status, reason) of a photo by its full path; None if it is unknown."""
        found = self._row_for(photo, _OUTCOME)
        if found is None:
            return None
        status, reason = (stored.text(value, "the status of a photo") for value in found)
        return status, reason

    @staticmethod
    def _sizes(found: tuple[Any, ...] | None) -> tuple[int, int] | None:
        if found is None:
            return None
        one, other = (stored.integer(value, "a size of a photo", -(2**63)) for value in found)
        return one, other

    def content_of(self, sha256: bytes) -> int | None:
        """Number of the content with this hash, or None."""
        found = self.connection.execute(CONTENT, (sha256,)).fetchone()
        return found[0] if found else None

    def content_at(self, photo: str) -> int | None:
        """Number of the content of a photo by its full path; None if it is unknown."""
        found = self._row_for(photo, _CONTENT_AT)
        return None if found is None else stored.integer(found[0], "the number of a content")

    def newest_content(self) -> int:
        """Number of the content that was added last, 0 if there is none; they rise."""
        (found,) = self.connection.execute("SELECT max(id) FROM contents").fetchone()
        return 0 if found is None else stored.integer(found, "the number of a content")

    def count_under(self, path: str) -> tuple[int, int]:
        """How many photos and faces a photo has, or all photos in a folder, by full path."""
        joined = "JOIN faces ON faces.content_id = photos.content_id"
        ((photos,),) = self._under(path, "count(*)")
        ((faces,),) = self._under(path, "count(*)", joined)
        return photos, faces

    def contents_under(self, path: str) -> list[tuple[str, int]]:
        """Full path and number of the content of a photo, or of all photos in a folder.

        Raises:
            StoredValueError: a path has changed since it was stored.
        """
        crc32 = "path_crc32" if has_column(self.connection, "photos", "path_crc32") else "NULL"
        rows = self._under(path, f"root_id, path, content_id, {crc32}")
        return [
            (self.full_path(root, name, crc), stored.integer(content, "the number of a content"))
            for root, name, content, crc in sorted(rows, key=lambda row: row[1])
        ]

    def _under(self, path: str, columns: str, joined: str = "") -> list[tuple[Any, ...]]:
        """Columns of a photo, or of all photos in a folder, by full path."""
        root, name = owner_of(self.roots, path) or (None, b"")
        return self.connection.execute(
            f"SELECT {columns} FROM photos {joined}"
            " WHERE root_id = ? AND (path = ? OR path >= ? AND path < ?)",
            (root, name, name + os.sep.encode(), name + bytes([ord(os.sep) + 1])),
        ).fetchall()

    def photo_of(self, faces: Sequence[int]) -> dict[int, tuple[bytes, int, int]]:
        """(SHA-256, width, height) of the photo of each face; unknown ids are skipped."""
        select = (
            "SELECT faces.id, sha256, width, height FROM faces"
            " JOIN contents ON contents.id = content_id WHERE faces.id"
        )
        return {row[0]: (row[1], row[2], row[3]) for row in self.rows_of(faces, select)}

    def photos(
        self, root: int, after: bytes, most: int, wanted: Period = ALWAYS
    ) -> list[tuple[bytes, int, str, str, str]]:
        """(path in the root, size, status, reason, date) of up to ``most`` photos after a path.

        The date is that of the camera, such as ``"2024-05-01T12:30:59"``, or empty.

        Args:
            root: number of the folder that they were added from.
            after: path in the root.
            most: how many.
            wanted: when they were taken.

        Raises:
            StoredValueError: a path has changed since it was stored.
        """
        where, values = taken_within(self.connection, wanted)
        crc32 = "path_crc32" if has_column(self.connection, "photos", "path_crc32") else "NULL"
        taken = "taken" if has_column(self.connection, "contents", "taken") else "NULL"
        rows = self.connection.execute(
            f"SELECT path, size, status, reason, {taken}, {crc32} FROM photos JOIN contents ON id ="
            f" content_id WHERE root_id = ? AND path > ? AND {where} ORDER BY path LIMIT ?",
            (root, after, *values, most),
        )
        found = []
        for path, size, status, reason, date, crc in rows:
            self.full_path(root, path, crc)
            found.append(
                (
                    stored.blob(path, "a path"),
                    stored.integer(size, "a size of a file", -(2**63)),
                    stored.text(status, "the status of a photo"),
                    stored.text(reason, "the reason of an unreadable photo"),
                    stored.text_or_none(date, "the date of a photo") or "",
                )
            )
        return found

    def full_path(self, root: int, path: object, crc32: object) -> str:
        """The full path of a photo, from its stored form.

        Raises:
            StoredValueError: it has changed since it was stored, or its folder is missing.
        """
        if root not in self._root_paths:
            raise stored.StoredValueError(f"the folder {root} is missing")
        return full_path(self._root_paths, crc32, root, path)

    def people(self) -> list[Person]:
        """All people, those with most faces first."""
        return gallery_people.everyone(self.connection) if has_people(self.connection) else []

    def count_people(self) -> int:
        """Number of people."""
        if not has_people(self.connection):
            return 0
        (count,) = self.connection.execute("SELECT count(*) FROM people").fetchone()
        return int(count)

    def person(self, who: int | str) -> Person:
        """A person by number or name.

        Raises:
            GalleryError: there is none, or two are meant: one by name and one by number.
        """
        return self.people_called([who])[0]

    def people_called(self, wanted: Iterable[int | str]) -> list[Person]:
        """People by number or name, each once.

        Raises:
            GalleryError: there is none, or two are meant: one by name and one by number.
        """
        people = self.people()
        found = (self._one_of(people, who) for who in wanted)
        return list({person.id: person for person in found}.values())

    def _one_of(self, people: Sequence[Person], who: int | str) -> Person:
        found = [p for p in people if who in (p.id, p.name, str(p.id))]
        if not found and isinstance(who, str):
            found = [p for p in people if p.name and composed(p.name) == composed(who)]
        if len(found) == 1:
            return found[0]
        if found:
            raise GalleryError(
                f"{who!r} is the name of one person in the gallery {self._file.folder} and the "
                "number of another; rename the first: engine.name(number, name)"
            )
        look = look_of(str(who)).casefold()
        alike = [p.name for p in people if p.name and look_of(p.name).casefold() == look]
        meant = f"did you mean {alike[0]!r}? " if alike else ""
        raise GalleryError(
            f"there is no person {who!r} in the gallery {self._file.folder}; {meant}"
            f"list all people: face2vec people {self._file.folder}"
        )

    def forgetting(self, who: int | str) -> removals.Removal | None:
        """The unfinished deletion of a person who is no longer in the gallery, or None.

        Args:
            who: the number or name that the deletion was asked for with.
        """
        if any(who in (p.id, p.name, str(p.id)) for p in self.people()):
            return None
        return removals.find(self.connection, removals.FORGET, [str(who)])

    def purge_is_due(self) -> bool:
        """Whether traces of removed rows may be left in the file."""
        return removals.is_due(self.connection)

    def has_removed_since(self, state: State) -> bool:
        """Whether faces, or embeddings of faces, were removed after a state of the journal."""
        return bool(
            self.connection.execute(
                "SELECT 1 FROM journal WHERE position > ? AND change = '-' LIMIT 1",
                (state.position,),
            ).fetchone()
        )

    def marks(self, content: int) -> list[Mark]:
        """The faces of a content that were marked by hand and have no landmarks, in order."""
        return gallery_marks.in_content(self.connection, content)

    def marks_of(self, person: int) -> list[Mark]:
        """The marks that belong to a person, in order."""
        return gallery_marks.of_person(self.connection, person)

    def all_marks(self) -> list[Mark]:
        """All marks, in order."""
        return gallery_marks.everywhere(self.connection)

    def mark(self, number: int) -> Mark | None:
        """A mark, or None."""
        return gallery_marks.one(self.connection, number)

    def memberships(self) -> Memberships:
        """The person of each face that has one, in order of face."""
        if has_people(self.connection):
            return gallery_people.memberships(self.connection)
        return Memberships(*np.empty((3, 0), np.int64))

    def refusals(self) -> set[tuple[int, int]]:
        """(face, person) pairs that a user has ruled out."""
        return gallery_people.refusals(self.connection) if has_people(self.connection) else set()

    def apart(self) -> set[tuple[int, int]]:
        """(face, face) pairs that show different people, as a user has said; lower id first."""
        return gallery_people.apart(self.connection)

    def edits(self, most: int) -> list[Edit]:
        """The last edits that can be undone, the newest first."""
        return gallery_people.edits(self.connection, most) if has_people(self.connection) else []

    def is_forgotten(self, sha256: bytes) -> bool:
        """Whether a photo with this hash showed only people who were forgotten."""
        return has_people(self.connection) and bool(
            self.connection.execute(gallery_people.FORGOTTEN, (sha256,)).fetchone()
        )

    def contents(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All faces and the content of each, two int64 (n,) in order of face."""
        rows = self.connection.execute("SELECT id, content_id FROM faces ORDER BY id")
        faces, contents = many_integers(rows, 2, "the numbers of faces")
        return faces, contents

    def images(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All faces and a number of the image each is in, two int64 (n,) in order of face.

        The image of a face is its photo or its frame of a video.
        """
        time = "NULL" if "time" in missing_columns(self.connection, "faces") else "time"
        rows = self.connection.execute(f"SELECT id, content_id, {time} FROM faces ORDER BY id")
        frames: dict[tuple[int, float], int] = {}
        numbered = (
            (face, content if at is None else frames.setdefault((content, at), -1 - len(frames)))
            for face, content, at in rows
        )
        faces, images = many_integers(numbered, 2, "the numbers of faces")
        return faces, images

    def mapped(self) -> NDArray[np.int64]:
        """Ids int64 (n,) of the faces with mapped embeddings, rising."""
        if not has_table(self.connection, MAPPED):
            return np.empty(0, np.int64)
        rows = self.connection.execute(f"SELECT face_id FROM {MAPPED} ORDER BY face_id")
        faces: NDArray[np.int64] = integers(rows, 1, "the numbers of mapped faces")[0]
        return faces

    def crc32s(self, ids: Sequence[int]) -> dict[int, int]:
        """CRC-32 of the embeddings by face id; unknown ids are skipped."""
        rows = self.rows_of(ids, "SELECT id, embedding_crc32 FROM faces WHERE id")
        faces, crc32s = integers(rows, 2, "the checksums of embeddings")
        return dict(zip(faces.tolist(), crc32s.tolist(), strict=True))

    def all_crc32s(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All faces and the CRC-32 of the embedding of each, two int64 (n,) in order of face."""
        rows = self.connection.execute("SELECT id, embedding_crc32 FROM faces ORDER BY id")
        ids, crc32s = integers(rows, 2, "the checksums of embeddings")
        return ids, crc32s

    def known_photos(self, contents: Sequence[int]) -> list[KnownPhoto]:
        """Contents with their faces by number; unknown ones are skipped."""
        rows = self.rows_of(contents, "SELECT content_id, id FROM faces WHERE content_id")
        numbers = sorted({face for _, face in rows})
        records = {one.face.id: one for one in self.faces(numbers).records()}
        crc32s = self.crc32s(numbers)
        hashes = dict(self.rows_of(contents, "SELECT id, sha256 FROM contents WHERE id"))
        inside: dict[int, list[int]] = {content: [] for content in contents}
        for content, face in sorted(set(rows)):
            inside[content].append(face)
        return [
            KnownPhoto(
                content,
                hashes[content],
                (records[faces[0]].photo, *records[faces[0]].copies),
                tuple(records[i].face for i in faces),
                tuple(crc32s[i] for i in faces),
            )
            for content, faces in inside.items()
            if faces
        ]

    def sure(self) -> NDArray[np.bool_]:
        """Which faces are sure, see `Face.is_sure`, bool (n,), in order of face.

        Raises:
            GalleryDamagedError: the parts of a quality have the wrong size.
        """
        parts = "NULL" if "parts" in missing_columns(self.connection, "faces") else "parts"
        rows = self.connection.execute(f"SELECT confidence, {parts} FROM faces ORDER BY id")
        try:
            return np.fromiter((is_sure(*row) for row in rows), bool)
        except (TypeError, struct.error) as error:
            raise self._file.damaged(f"the quality of a face is invalid ({error})") from error

    def qualities(self) -> dict[int, float]:
        """Quality of each face that has one, 0…1, by id."""
        rows = self.connection.execute(
            "SELECT id, quality FROM faces WHERE typeof(quality) = 'real'"
        )
        return dict(rows)

    def landmarks(
        self, ids: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Ids, landmarks and sizes of the photos of faces, in order of face.

        Args:
            ids: the faces; None for all.

        Returns:
            Ids int64 (n,); landmarks float64 (n, 5, 2) in pixels; width and height of the
            photos in pixels, int64 (n, 2).

        Raises:
            GalleryDamagedError: landmarks have the wrong size.
        """
        select = (
            "SELECT faces.id, landmarks, width, height FROM faces"
            " JOIN contents ON contents.id = content_id"
        )
        rows: Iterator[tuple[Any, ...]]
        if ids is None:
            rows = iter(self.connection.execute(f"{select} ORDER BY faces.id"))
        else:
            rows = iter(sorted(self.rows_of(ids, f"{select} WHERE faces.id")))
        parts = [self._landmarks_in([])]
        while some := list(islice(rows, _FACES_PER_PART)):
            parts.append(self._landmarks_in(some))
        faces, points, sizes = map(np.concatenate, zip(*parts, strict=True))
        return faces, points, sizes

    def _landmarks_in(
        self, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """What `landmarks` returns of some rows."""
        faces = np.array([row[0] for row in rows], np.int64)
        try:
            points = np.frombuffer(b"".join(row[1] for row in rows), "<f8").reshape(-1, 5, 2)
        except (TypeError, ValueError) as error:
            raise self._file.damaged(f"landmarks are invalid ({error})") from error
        sizes = integers([row[2:] for row in rows], 2, "the sizes of photos").T
        if len(points) != len(faces):
            raise self._file.damaged("landmarks have the wrong size")
        return faces, points, sizes

    def calibration(self) -> Calibration | None:
        """The gallery's own calibration, or None.

        Raises:
            CalibrationError: it is damaged.
        """
        found = self.connection.execute(
            "SELECT value FROM meta WHERE key = ?", (CALIBRATION,)
        ).fetchone()
        return None if found is None else Calibration.from_json(found[0])

    def counts(self) -> Counts:
        """How many photos and faces there are."""
        (contents,) = self.connection.execute("SELECT count(*) FROM contents").fetchone()
        photos = dict(
            self.connection.execute(
                "SELECT status, count(*) FROM photos JOIN contents ON id = content_id"
                " GROUP BY status"
            )
        )
        return Counts(
            photos=sum(photos.values()),
            contents=contents,
            faces=self.count,
            no_face=photos.get(NO_FACE, 0),
            unreadable=photos.get(UNREADABLE, 0),
        )

    def has_been(self, state: State) -> bool:
        """Whether the gallery is, or has been, in this state."""
        if state.gallery_uuid != self.state.gallery_uuid:
            return False
        return state.history == _history_at(self.connection, state.position)

    def changes_since(self, state: State) -> Changes:
        """Which faces were added and removed after a state.

        Raises:
            GalleryError: the gallery has never been in that state.
        """
        if not self.has_been(state):
            raise GalleryError(
                f"the gallery {self._file.folder} has never been in the state at position "
                f"{state.position} of its journal, which ends at {self.state.position}; the index "
                "was made from another gallery, or before a backup was restored; rebuild it"
            )
        rows = self.connection.execute(
            "SELECT face_id, sum(CASE change WHEN '+' THEN 1 ELSE -1 END) AS net,"
            " max(CASE change WHEN '-' THEN position END)"
            " < max(CASE change WHEN '+' THEN position END) AS back FROM journal"
            " WHERE position > ? GROUP BY face_id HAVING net <> 0 OR back ORDER BY face_id",
            (state.position,),
        ).fetchall()
        what = "the faces of the journal"
        return Changes(
            added=integers([row[:1] for row in rows if row[1] >= 0], 1, what)[0],
            removed=integers([row[:1] for row in rows if row[1] <= 0], 1, what)[0],
        )

    def _reread(self, version: int) -> _Known:
        refuse_upgraded(self.connection, self._file, self._meta.uuid)
        roots = roots_of(self.connection)
        state = State(self._meta.uuid, *last_change(self.connection))
        paths = {number: path for path, number in roots.items()}
        missing = missing_columns(self.connection, "faces")
        missing |= {f"photos.{one}" for one in missing_columns(self.connection, "photos")}
        named = named_faces(missing)
        return _Known(version, state, roots, paths, named)

    def _row_for(self, photo: str, select: str) -> tuple[Any, ...] | None:
        """The row of a SELECT for a photo by its full path, or None."""
        owner = owner_of(self.roots, photo)
        if owner is None:
            return None
        found: tuple[Any, ...] | None = self.connection.execute(select, owner).fetchone()
        return found

    def rows_of(self, ids: Sequence[int], select: str) -> list[tuple[Any, ...]]:
        """Rows of a SELECT that ends with the column of the ids."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), _IDS_PER_QUERY):
            some = list(ids[start : start + _IDS_PER_QUERY])
            # Each number of ids needs a statement; large ones are padded to powers of 2.
            if len(some) > _IDS_UNPADDED:
                some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
            rows += self.connection.execute(_for_ids(select, len(some)), some).fetchall()
        return rows

    def _stored(self, rows: Sequence[tuple[Any, ...]]) -> StoredFaces:
        return StoredFaces.read(rows, self._root_paths, self._file.damaged)

    def _matrix(self, blobs: Sequence[bytes]) -> NDArray[np.float32]:
        try:
            return matrix(blobs, self._meta.dimension)
        except ValueError as error:
            raise self._file.damaged(str(error)) from error


def is_sure(confidence: float, parts: bytes | None) -> bool:
    """Whether a face is sure, see `Face.is_sure`, by what is stored of it.

    Raises:
        TypeError: the confidence is no number, or the parts are no bytes.
        struct.error: the parts of its quality have the wrong size.
    """
    if parts is None:
        return confidence >= SURE_CONFIDENCE
    return bool(PARTS.unpack(parts)[0] >= SURE_OPINION)


def refuse_upgraded(connection: Connection, file: GalleryFile, uuid: str) -> None:
    """Check that the gallery still has the model that it was opened with.

    Raises:
        GalleryUpgradedError: it was upgraded to another model.
    """
    (now,) = connection.execute(UUID).fetchone()
    if now != uuid:
        raise GalleryUpgradedError(
            f"the gallery {file.folder} was upgraded to another model while it was open; open it "
            "again, and encode queries again"
        )


@cache
def _embeddings_in_a_row(count: int) -> str:
    """SQL to read ``count`` embeddings in one step of SQLite, during which other threads run."""
    one = "(SELECT embedding FROM embeddings WHERE face_id = ?)"
    return f"SELECT {','.join([one] * count)}"


@cache
def _for_ids(select: str, marks: int) -> str:
    return f"{select} IN ({','.join('?' * marks)})"


def roots_of(connection: Connection) -> dict[str, int]:
    """Number of each folder that photos were added from, oldest first, by path."""
    rows = connection.execute("SELECT path, id FROM roots ORDER BY id")
    return {decoded(path): stored.integer(root, "the number of a folder") for path, root in rows}


def last_change(connection: Connection) -> tuple[int, int]:
    """(position, history) at the end of the journal."""
    last = connection.execute(
        "SELECT position, history FROM journal ORDER BY position DESC LIMIT 1"
    ).fetchone()
    if last is None:
        return 0, 0
    position, history = last
    return position, stored.integer(history, "the checksum of the journal")


def _history_at(connection: Connection, position: int) -> int | None:
    if position == 0:
        return 0
    found = connection.execute(
        "SELECT history FROM journal WHERE position = ?", (position,)
    ).fetchone()
    return found[0] if found else None


def taken_within(connection: Connection, wanted: Period) -> tuple[str, list[str]]:
    """SQL that holds for contents that were taken in a period, and its values."""
    parts, values = ["1 = 1"], list[str]()
    if wanted != ALWAYS and not has_column(connection, "contents", "taken"):
        return "1 = 0", []
    if wanted.first is not None:
        parts.append("taken >= ?")
        values.append(wanted.first)
    if wanted.last is not None:  # all that begins with it comes before it with a tilde
        parts.append("taken > '' AND taken < ?")
        values.append(f"{wanted.last}~")
    return " AND ".join(parts), values


def all_photos(
    read: Callable[[], Snapshot], *, only_files: bool = False, wanted: Period = ALWAYS
) -> Iterator[tuple[str, str, str]]:
    """(full path, status, reason) of every photo, in pages of one snapshot each.

    Args:
        read: begins a snapshot.
        only_files: leave out imported names that stand for no file.
        wanted: when they were taken.
    """
    for path, status, reason, _ in dated_photos(read, only_files=only_files, wanted=wanted):
        yield path, status, reason


def dated_photos(
    read: Callable[[], Snapshot], *, only_files: bool = False, wanted: Period = ALWAYS
) -> Iterator[tuple[str, str, str, str]]:
    """As `all_photos`, and also when each was taken, or an empty text."""
    with read() as now:
        roots = now.roots
    for root, root_id in roots.items():
        last = b""
        while True:
            with read() as now:
                page = now.photos(root_id, last, _PHOTOS_PER_PAGE, wanted)
            for path, size, status, reason, date in page:
                if not only_files or size != NAME_ONLY:
                    yield f"{root}{os.sep}{decoded(path)}", status, reason, date
            if not page:
                break
            last = page[-1][0]
