"""One state of a gallery, and all that can be read of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import GalleryError, GalleryUpgradedError
from face2vec.gallery import people as gallery_people
from face2vec.gallery.audit import problems
from face2vec.gallery.connection import MAPPED, Connection, GalleryFile, has_people, has_table
from face2vec.gallery.people import Memberships
from face2vec.gallery.rows import (
    NAMED_FACES,
    NO_FACE,
    UNREADABLE,
    KnownPhoto,
    StoredFaces,
    decoded,
    matrix,
    owner_of,
)
from face2vec.types import Person

STAT = "SELECT size, mtime_ns FROM photos WHERE root_id = ? AND path = ?"
_SIZE = (
    "SELECT width, height FROM contents JOIN photos ON content_id = id"
    " WHERE root_id = ? AND path = ?"
)
CONTENT = "SELECT id FROM contents WHERE sha256 = ?"
UUID = "SELECT value FROM meta WHERE key = 'uuid'"
_FACES = f"{NAMED_FACES} WHERE faces.id"
_EMBEDDINGS = "SELECT face_id, embedding FROM embeddings"

_IDS_A_QUERY = 512  # SQLite before 3.32 takes 999 parameters
_IDS_A_ROW, _IDS_IN_STEPS = 60, 10  # few statements to compile, none of them long
_IDS_AS_MANY = 20  # so that the ten of a usual search are looked up without more


class State(NamedTuple):
    """The faces and embeddings that a gallery holds at one time, by three numbers.

    Attributes:
        gallery_uuid: the gallery's own name.
        position: position of the last change in its journal; 0 when there was none.
        history: check sum of all changes up to there.
    """

    gallery_uuid: str = ""
    position: int = 0
    history: int = 0


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
    """Faces that came and went since an earlier state, int64 ids in order.

    A face that came and went in between is in neither; one whose embedding was replaced is
    in both.
    """

    added: NDArray[np.int64]
    removed: NDArray[np.int64]


class _Known(NamedTuple):
    """What a connection need not read again while the file's ``data_version`` is the same."""

    version: int
    state: State
    roots: dict[str, int]
    root_paths: dict[int, str]


class Snapshot:
    """One state of the gallery, for one thread; ``with Gallery.snapshot()`` gives it.

    Iterating gives all (ids int64 (n,), embeddings float32 (n, d)) in batches, in
    order of id, and may be done more than once.

    Attributes:
        batch_size: how many embeddings an iteration gives at a time; may be changed.
        state: which state it is.
        roots: numbers of the folders that photos were added from, oldest first, by path
            without the separator at the end.
    """

    def __init__(
        self,
        file: GalleryFile,
        gallery_uuid: str,
        dimension: int,
        batch_size: int,
        mapped: bool,
    ) -> None:
        self._file = file
        self._gallery_uuid = gallery_uuid
        self._dimension = dimension
        self.batch_size = batch_size
        self._mapped = mapped

    # Two methods and no generator, for this is a part of each search.

    def __enter__(self) -> Snapshot:
        try:
            connection = self._connection = self._file.borrow(self._mapped)
            try:
                connection.execute("BEGIN")
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                known: _Known | None = connection.known
                if known is None or known.version != version:
                    known = connection.known = self._read_anew(version)
            except BaseException:
                self._file.give_back(connection)
                raise
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error
        self.state = known.state
        self.roots = known.roots
        self._root_paths = known.root_paths
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._file.give_back(self._connection)
        except sqlite3.Error as late:
            error = error or late
        if isinstance(error, sqlite3.Error):
            raise self._file.in_words(error) from error

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        rows = self._connection.execute(f"{_EMBEDDINGS} ORDER BY face_id")
        while batch := rows.fetchmany(self.batch_size):
            ids = np.fromiter((row[0] for row in batch), np.int64, len(batch))
            yield ids, self._matrix([row[1] for row in batch])

    @property
    def count(self) -> int:
        """Number of faces."""
        (count,) = self._connection.execute("SELECT count(*) FROM faces").fetchone()
        return int(count)

    def faces(self, ids: Sequence[int]) -> StoredFaces:
        """Faces by their numbers, without embeddings; what is not there is left out."""
        return self._stored(self._rows_of(ids, _FACES))

    def faces_of(self, photo: str) -> StoredFaces:
        """Faces in one photo by its full path, in order of id; none if it is not there."""
        owner = owner_of(self.roots, photo)
        if owner is None:
            return self._stored([])
        return self._stored(
            self._connection.execute(
                f"{NAMED_FACES} WHERE faces.content_id ="
                " (SELECT content_id FROM photos WHERE root_id = ? AND path = ?) ORDER BY faces.id",
                owner,
            ).fetchall()
        )

    @contextmanager
    def several(self, count: int) -> Iterator[list[Snapshot]]:
        """So many snapshots of this state, itself among them, for as many threads.

        They are fewer where the gallery has changed since.
        """
        with ExitStack() as ends:
            same = [self]
            for _ in range(count - 1):
                another = Snapshot(
                    self._file, self._gallery_uuid, self._dimension, self.batch_size, self._mapped
                )
                try:
                    ends.enter_context(another)
                except GalleryUpgradedError:
                    break
                if another.state != self.state:
                    break
                same.append(another)
            yield same

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) in the order asked for; NaN for an id that is not there."""
        wanted: list[int] = np.asarray(ids, dtype=np.int64).tolist()
        blobs: list[bytes | None] = []
        for start in range(0, len(wanted), _IDS_A_ROW):
            some = wanted[start : start + _IDS_A_ROW]
            padded = some + some[-1:] * (-len(some) % _IDS_IN_STEPS)
            row = self._connection.execute(_embeddings_in_a_row(len(padded)), padded).fetchone()
            blobs += row[: len(some)]
        there = [blob for blob in blobs if blob is not None]
        embeddings = self._matrix(there)
        if len(there) == len(wanted):
            return embeddings
        result = np.full((len(wanted), self._dimension), np.nan, dtype=np.float32)
        result[[blob is not None for blob in blobs]] = embeddings
        return result

    def stat_of(self, photo: str) -> tuple[int, int] | None:
        """(size, mtime_ns) that a photo was recorded with, by its full path; None if it was not."""
        return self._two_of(photo, STAT)

    def size_of(self, photo: str) -> tuple[int, int] | None:
        """(width, height) of an upright photo by its full path; None if it is not there."""
        return self._two_of(photo, _SIZE)

    def content_of(self, sha256: bytes) -> int | None:
        """Number of the content with that hash, or None if the gallery does not know it."""
        found = self._connection.execute(CONTENT, (sha256,)).fetchone()
        return found[0] if found else None

    def photos(self, root: int, after: bytes, most: int) -> list[tuple[bytes, str, str]]:
        """(path in the root, status, reason) of so many photos of a root, from a path on."""
        return self._connection.execute(
            "SELECT path, status, reason FROM photos JOIN contents ON id = content_id"
            " WHERE root_id = ? AND path > ? ORDER BY path LIMIT ?",
            (root, after, most),
        ).fetchall()

    def people(self) -> list[Person]:
        """All people, those with most faces first."""
        return gallery_people.everyone(self._connection) if has_people(self._connection) else []

    def memberships(self) -> Memberships:
        """Who each face is that is anybody, in order of face."""
        if has_people(self._connection):
            return gallery_people.memberships(self._connection)
        return Memberships(*np.empty((3, 0), np.int64))

    def refusals(self) -> set[tuple[int, int]]:
        """(face, person) of which somebody said that it is not so."""
        return gallery_people.refusals(self._connection) if has_people(self._connection) else set()

    def is_forgotten(self, sha256: bytes) -> bool:
        """Whether a photo of these bytes showed nobody but people who were forgotten."""
        return has_people(self._connection) and bool(
            self._connection.execute(gallery_people.FORGOTTEN, (sha256,)).fetchone()
        )

    def contents(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All faces and the photo, as bytes, that each is in: two int64 (n,) in order of face."""
        rows = self._connection.execute("SELECT id, content_id FROM faces ORDER BY id").fetchall()
        faces, contents = np.array(rows, np.int64).reshape(-1, 2).T
        return faces, contents

    def mapped(self) -> NDArray[np.int64]:
        """Numbers of the faces whose embeddings were mapped from an older model's, rising."""
        if not has_table(self._connection, MAPPED):
            return np.empty(0, np.int64)
        rows = self._connection.execute(f"SELECT face_id FROM {MAPPED} ORDER BY face_id")
        return np.array([row[0] for row in rows], np.int64)

    def checks(self, ids: Sequence[int]) -> dict[int, int]:
        """CRC-32 of the embeddings of faces by their numbers; what is not there is left out."""
        return dict(self._rows_of(ids, "SELECT id, embedding_crc32 FROM faces WHERE id"))

    def all_checks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All faces, and the CRC-32 of the embedding of each: int64 (n,) in order of face."""
        rows = self._connection.execute("SELECT id, embedding_crc32 FROM faces ORDER BY id")
        ids, checks = np.array(rows.fetchall(), np.int64).reshape(-1, 2).T
        return ids, checks

    def known_photos(self, contents: Sequence[int]) -> list[KnownPhoto]:
        """Photos with their faces by the numbers of their bytes; what is not there is left out."""
        rows = self._rows_of(contents, "SELECT content_id, id FROM faces WHERE content_id")
        numbers = sorted({face for _, face in rows})
        stored = {one.face.id: one for one in self.faces(numbers).records()}
        checks = self.checks(numbers)
        hashes = dict(self._rows_of(contents, "SELECT id, sha256 FROM contents WHERE id"))
        inside: dict[int, list[int]] = {content: [] for content in contents}
        for content, face in sorted(set(rows)):
            inside[content].append(face)
        return [
            KnownPhoto(
                content,
                hashes[content],
                (stored[faces[0]].photo, *stored[faces[0]].copies),
                tuple(stored[i].face for i in faces),
                tuple(checks[i] for i in faces),
            )
            for content, faces in inside.items()
            if faces
        ]

    def confidences(self) -> NDArray[np.float64]:
        """How sure the detector was of each face, 0…1, in order of face."""
        rows = self._connection.execute("SELECT confidence FROM faces ORDER BY id").fetchall()
        return np.array([row[0] for row in rows], np.float64)

    def landmarks(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Of all faces, in order: ids (n,), landmarks (n, 5, 2), photos' width and height (n, 2).

        Raises:
            GalleryDamagedError: landmarks do not have the size that they should.
        """
        rows = self._connection.execute(
            "SELECT faces.id, landmarks, width, height FROM faces"
            " JOIN contents ON contents.id = content_id ORDER BY faces.id"
        ).fetchall()
        ids = np.array([row[0] for row in rows], np.int64)
        try:
            points = np.frombuffer(b"".join(row[1] for row in rows), "<f8").reshape(-1, 5, 2)
        except (TypeError, ValueError) as error:
            raise self._file.damaged(f"landmarks cannot be right ({error})") from error
        sizes = np.array([row[2:] for row in rows], np.int64).reshape(-1, 2)
        if len(points) != len(ids):
            raise self._file.damaged("landmarks do not have the size that they should")
        return ids, points, sizes

    def counts(self) -> Counts:
        """How many photos and faces there are."""
        (contents,) = self._connection.execute("SELECT count(*) FROM contents").fetchone()
        photos = dict(
            self._connection.execute(
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
        """Whether the gallery is or was once in that state."""
        if state.gallery_uuid != self.state.gallery_uuid:
            return False
        return state.history == _history_at(self._connection, state.position)

    def changes_since(self, state: State) -> Changes:
        """What happened to faces after a state that the gallery has been in.

        Raises:
            GalleryError: it has never been in that state.
        """
        if not self.has_been(state):
            raise GalleryError(
                f"The gallery {self._file.folder} has never been in the state at position "
                f"{state.position} of its journal, which now ends at {self.state.position}. What "
                "asks for it was made from another gallery, or before a backup was put back: make "
                "it anew."
            )
        rows = self._connection.execute(
            "SELECT face_id, sum(CASE change WHEN '+' THEN 1 ELSE -1 END) AS net,"
            " max(CASE change WHEN '-' THEN position END)"
            " < max(CASE change WHEN '+' THEN position END) AS back FROM journal"
            " WHERE position > ? GROUP BY face_id HAVING net <> 0 OR back ORDER BY face_id",
            (state.position,),
        ).fetchall()
        return Changes(
            added=np.array([face for face, net, _ in rows if net >= 0], dtype=np.int64),
            removed=np.array([face for face, net, _ in rows if net <= 0], dtype=np.int64),
        )

    def problems(self) -> Iterator[str]:
        """Reads the whole file and says in words what is wrong with it."""
        return problems(self._connection, self._dimension)

    def _read_anew(self, version: int) -> _Known:
        refuse_upgraded(self._connection, self._file, self._gallery_uuid)
        roots = roots_of(self._connection)
        state = State(self._gallery_uuid, *last_change(self._connection))
        return _Known(version, state, roots, {number: path for path, number in roots.items()})

    def _two_of(self, photo: str, select: str) -> tuple[int, int] | None:
        owner = owner_of(self.roots, photo)
        if owner is None:
            return None
        found: tuple[int, int] | None = self._connection.execute(select, owner).fetchone()
        return found

    def _rows_of(self, ids: Sequence[int], select: str) -> list[tuple[Any, ...]]:
        """Rows of a SELECT for many ids, whose column stands at its end."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), _IDS_A_QUERY):
            some = list(ids[start : start + _IDS_A_QUERY])
            # A statement is compiled for each number of ids; of large ones there are few.
            if len(some) > _IDS_AS_MANY:
                some += some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
            rows += self._connection.execute(_for_ids(select, len(some)), some).fetchall()
        return rows

    def _stored(self, rows: Sequence[tuple[Any, ...]]) -> StoredFaces:
        return StoredFaces.read(rows, self._root_paths, self._file.damaged)

    def _matrix(self, blobs: Sequence[bytes]) -> NDArray[np.float32]:
        try:
            return matrix(blobs, self._dimension)
        except ValueError as error:
            raise self._file.damaged(str(error)) from error


def refuse_upgraded(connection: Connection, file: GalleryFile, uuid: str) -> None:
    """Refuse where the gallery is not the one that was opened, for it has another model now."""
    (now,) = connection.execute(UUID).fetchone()
    if now != uuid:
        raise GalleryUpgradedError(
            f"The gallery {file.folder} was upgraded to another model while it was open. Open it "
            "again, and encode again what was encoded with the older model."
        )


@cache
def _embeddings_in_a_row(count: int) -> str:
    """Reads so many embeddings in one step of SQLite, during which other threads go on."""
    one = "(SELECT embedding FROM embeddings WHERE face_id = ?)"
    return f"SELECT {','.join([one] * count)}"


@cache
def _for_ids(select: str, marks: int) -> str:
    return f"{select} IN ({','.join('?' * marks)})"


def roots_of(connection: Connection) -> dict[str, int]:
    """Folders that photos were added from, oldest first, without the separator at the end."""
    rows = connection.execute("SELECT path, id FROM roots ORDER BY id")
    return {decoded(path): root_id for path, root_id in rows}


def last_change(connection: Connection) -> tuple[int, int]:
    """(position, history) at the end of the journal."""
    last = connection.execute(
        "SELECT position, history FROM journal ORDER BY position DESC LIMIT 1"
    ).fetchone()
    return last or (0, 0)


def _history_at(connection: Connection, position: int) -> int | None:
    if position == 0:
        return 0
    found = connection.execute(
        "SELECT history FROM journal WHERE position = ?", (position,)
    ).fetchone()
    return found[0] if found else None
