"""A gallery whose embeddings are in Milvus and whose rows are in PostgreSQL.

The rows are those of a gallery on one machine, read and changed by the same statements. A photo is
recorded at least once, and recording it again changes nothing: its content gets a number, its faces
go to Milvus under numbers that follow from it, and the row of the content comes last. What was
removed leaves the rows first, then Milvus; table ``leaving`` has what is between.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.cluster.address import MilvusAddress
from face2vec.cluster.milvus import BOUNDED, STRONG, Row, Vectors
from face2vec.cluster.postgres import (
    PostgresConnection,
    create_tables,
    has_gallery,
    schema_of,
)
from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryNotFoundError,
    SettingsError,
)
from face2vec.fingerprint import LARGEST_SIDE, Fingerprint
from face2vec.gallery import removals
from face2vec.gallery.connection import Connection
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.people import PeopleWriter, places_forgotten, without_forgotten
from face2vec.gallery.reader import CONTENT, Meta, Snapshot, State, all_photos, roots_of
from face2vec.gallery.rows import (
    INDEXED,
    NAMED_FACES,
    Entry,
    StoredFaces,
    face_row,
    face_rows,
    owner_of,
)
from face2vec.gallery.schema import FORMAT
from face2vec.gallery.writer import (
    Writer,
    drop_unused,
    fitting,
    link_photo,
    note_taken,
    outcome_columns,
    places_in,
)
from face2vec.photos.storage import missing_photos
from face2vec.types import Face

log = logging.getLogger("face2vec")

FACE_BITS = 16
"""Bits of a face's number that count the faces of a photo; those above are its content's."""
PAGE = 4096  # faces read at a time
_TIMES = (
    "SELECT size, mtime_ns, ctime_ns, status, reason FROM photos"
    " JOIN contents ON id = content_id WHERE root_id = ? AND path = ?"
)
_INSERT_FACE = (
    'INSERT INTO faces (id, content_id, "left", "top", "right", "bottom", landmarks, confidence,'
    " quality, embedding_crc32, parts, time, track_begin, track_end)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def unsupported(what: str, instead: str) -> SettingsError:
    """The error for what galleries in Milvus cannot do.

    Args:
        what: the operation, such as ``"an upgrade to another model"``.
        instead: what to do instead.
    """
    return SettingsError(f"{what} does not work on a gallery in Milvus; {instead}")


class _Connections:
    """The connections of one gallery, in the place of an SQLite file."""

    def __init__(self, address: MilvusAddress) -> None:
        self.folder = address
        self.path = address
        self._idle: list[PostgresConnection] = []
        self._lock = threading.Lock()
        self._closed = False

    def connect(self) -> PostgresConnection:
        return PostgresConnection(self.folder)

    def borrow(self) -> PostgresConnection:
        if self._closed:
            raise GalleryError(f"the gallery {self.folder} is closed; open it again")
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.connect()

    def give_back(self, connection: PostgresConnection) -> None:
        try:
            connection.rollback()
        except GalleryError:  # the connection is lost
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def damaged(self, what: str) -> GalleryDamagedError:
        return GalleryDamagedError(
            f"the gallery {self.folder} is damaged: {what}; index the photos again into another "
            "archive, or restore backups of PostgreSQL and Milvus of one time"
        )

    def error_for(self, error: Exception) -> GalleryError:
        return self.damaged(str(error))


class ClusterReader(Snapshot):
    """One state of the rows, and the embeddings of its faces.

    Args:
        connections: gives the connection.
        vectors: the embeddings.
        meta: what the gallery says about itself.
        batch_size: how many embeddings an iteration yields at a time.
    """

    def __init__(
        self, connections: _Connections, vectors: Vectors, meta: Meta, batch_size: int = 1024
    ) -> None:
        super().__init__(connections, meta, batch_size)  # type: ignore[arg-type]
        self._connections = connections
        self._vectors = vectors

    def __enter__(self) -> ClusterReader:
        borrowed = self._borrowed = self._connections.borrow()
        try:
            borrowed.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self.connection = borrowed.as_sqlite
            self.roots = roots_of(self.connection)
        except BaseException:
            self._connections.give_back(borrowed)
            raise
        self.state = State(self._meta.uuid, 0, 0)
        self._root_paths = {number: path for path, number in self.roots.items()}
        self._named_faces = NAMED_FACES
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._connections.give_back(self._borrowed)
        if isinstance(error, stored.StoredValueError):
            raise self._file.error_for(error) from error

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        after = -1
        while True:
            rows = self.connection.execute(
                "SELECT id, embedding_crc32 FROM faces WHERE id > ? ORDER BY id LIMIT ?",
                (after, self.batch_size),
            ).fetchall()
            if not rows:
                return
            ids = [face for face, _ in rows]
            embeddings = self.embeddings(ids)
            if self.verifying:
                self._refuse_others(rows, embeddings)
            yield np.array(ids, np.int64), embeddings
            after = ids[-1]

    def faces_there(self, ids: Sequence[int]) -> StoredFaces:
        """Faces by id; one that was removed while Milvus searched is left out."""
        return self.faces(ids)

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) of ids (n,), in their order; NaN for unknown ids."""
        wanted: list[int] = np.asarray(ids, np.int64).tolist()
        found = self._vectors.embeddings(wanted, BOUNDED)
        late = [face for face in wanted if face not in found]
        if late:  # written a moment ago
            found |= self._vectors.embeddings(late, STRONG)
        nothing = np.full(self._meta.dimension, np.nan, np.float32)
        if not wanted:
            return np.empty((0, self._meta.dimension), np.float32)
        return np.stack([found.get(face, nothing) for face in wanted])

    def verify(self, ids: Sequence[int]) -> None:
        """Compare the embeddings of faces with their checksums.

        Raises:
            GalleryDamagedError: one has changed since it was stored.
        """
        rows = list(self.crc32s(ids).items())
        self._refuse_others(rows, self.embeddings([face for face, _ in rows]))

    def qualities(self) -> dict[int, float]:
        """Quality of each face that has one, 0…1, by id."""
        rows = self.connection.execute("SELECT id, quality FROM faces WHERE quality IS NOT NULL")
        return dict(rows.fetchall())

    def _refuse_others(
        self, rows: Iterable[tuple[int, int]], embeddings: NDArray[np.float32]
    ) -> None:
        for (face, crc32), embedding in zip(rows, embeddings, strict=True):
            if zlib.crc32(embedding.astype("<f4").tobytes()) != crc32:
                raise self._file.damaged(f"the embedding of face {face} is missing or another")


class ClusterPeople(PeopleWriter):
    """Changes people; the embeddings of ignored faces come from Milvus.

    Args:
        writer: the gallery's writer.
    """

    def __init__(self, writer: ClusterWriter) -> None:
        super().__init__(writer.transaction)
        self._of = writer

    def ignore(self, faces: Sequence[int]) -> None:
        """State that faces are no faces; they leave the gallery and never come back.

        Raises:
            GalleryError: a face is not in the gallery.
        """
        self._of.fetch_embeddings(faces)
        super().ignore(faces)


class ClusterWriter(Writer):
    """The one writer of a gallery in Milvus. Each method is one transaction of PostgreSQL.

    Args:
        connections: gives connections.
        vectors: the embeddings.
        meta: what the gallery says about itself.

    Raises:
        GalleryLockedError: another process is writing; the message names it.
    """

    def __init__(self, connections: _Connections, vectors: Vectors, meta: Meta) -> None:
        self._file = connections  # type: ignore[assignment]
        self._connections = connections
        self._vectors = vectors
        self._meta = meta
        self._ended = False
        self._removals: set[str] = set()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._changing = connections.connect()
        try:
            _lock_gallery(self._changing, connections.folder)
            self._looking = connections.connect()
            self._writer = self._changing.as_sqlite
            self._roots = roots_of(self._writer)
            self.unfinished = removals.unfinished(self._writer)
            self.people = ClusterPeople(self)
            vectors.load()
            self._settle()
            self._drop_begun()
        except BaseException:
            self._changing.close()
            raise

    @property
    def transaction(self) -> Any:
        """Begins a transaction."""
        return self._transaction

    def outcome_if_unchanged(
        self, root: str, path: str, size: int, mtime_ns: int, ctime_ns: int
    ) -> tuple[str, str] | None:
        """(status, reason) of a photo whose file is as it was recorded; None for any other."""
        owner = owner_of(self._roots, f"{root.rstrip(os.sep)}{os.sep}{path}")
        found = owner and self._look_up(_TIMES, *owner)
        if not found or found[:2] != (size, fitting(mtime_ns)):
            return None
        return found[3:] if found[2] in (None, fitting(ctime_ns)) else None

    def _look_up(self, statement: str, *values: Any) -> Any:
        self._check_open()
        with self._lock:
            return self._looking.execute(statement, values).fetchone()

    def record(self, entries: Iterable[Entry]) -> list[Entry]:
        """Store photos: their faces in Milvus first, the rows of their contents last.

        Recording a photo again, after a kill at any point, stores the same faces under the same
        numbers.

        Returns:
            Links that were *not* recorded, see `Writer.record`.

        Raises:
            GalleryError: an entry is inconsistent or an embedding has another shape; nothing of
                the call is recorded.
        """
        self._check_open()
        kept = [self._without_forgotten(entry) for entry in entries]
        rows = [
            (entry, face_rows(entry, self._meta.dimension)) for entry in kept if entry is not None
        ]
        numbers = self._store_faces(rows)
        refused: list[Entry] = []
        last_named = {entry.sha256: place for place, (entry, _) in enumerate(rows)}
        with self._transaction() as connection:
            roots = roots_of(connection)
            known = _contents_of(connection, list(last_named))
            new = {
                entry.sha256: (entry, faces)
                for entry, faces in reversed(rows)
                if not entry.content_known and entry.sha256 not in known
            }
            self._insert_contents(connection, numbers, list(new.values()))
            waiting: set[int] = set()
            for place, (entry, faces) in enumerate(rows):
                if (content := known.get(entry.sha256)) is not None:
                    if entry.again:
                        self._replace_content(connection, content, entry, faces)
                    note_taken(connection, content, entry)
                elif entry.sha256 in new:
                    content = numbers[entry.sha256]
                    if entry is not new[entry.sha256][0]:
                        note_taken(connection, content, entry)
                else:
                    refused.append(entry)
                    continue
                before = link_photo(connection, roots, entry, content)
                if before and before[0] != content:
                    if last_named.get(before[1], -1) >= place:
                        waiting.add(before[0])
                    else:
                        drop_unused(connection, [before[0]])
            drop_unused(connection, waiting)
        return refused

    def _store_faces(
        self, rows: Sequence[tuple[Entry, Sequence[tuple[Any, ...]]]]
    ) -> Mapping[bytes, int]:
        """Give new contents numbers and bring their faces to Milvus; returns the numbers."""
        asked = list(dict.fromkeys(entry.sha256 for entry, _ in rows if not entry.content_known))
        with self._lock:
            numbers = _contents_of(self._looking, asked)
        begun = [sha256 for sha256 in asked if sha256 not in numbers]
        if begun:
            self._changing.execute(
                "INSERT INTO begun (sha256) SELECT unnest(?::bytea[]) ON CONFLICT DO NOTHING",
                (begun,),
            )
            numbers |= dict(
                self._changing.execute(
                    "SELECT sha256, id FROM begun WHERE sha256 = ANY(?)", (begun,)
                ).fetchall()
            )
        sent: dict[bytes, list[Row]] = {}
        fresh = set(begun)
        for entry, faces in rows:
            wanted = entry.sha256 in fresh or entry.again
            if wanted and not entry.content_known and entry.sha256 not in sent:
                sent[entry.sha256] = _rows_of(numbers[entry.sha256], faces)
        self._vectors.upsert([row for rows in sent.values() for row in rows])
        return numbers

    def add_missing(self, sha256: bytes, faces: Iterable[Face]) -> int:
        """Add the faces of a photo that the gallery does not have; returns how many."""
        added: list[tuple[Any, ...]] = []
        with self._transaction() as connection:
            (content,) = connection.execute(CONTENT, (sha256,)).fetchone()
            taken = [
                number
                for table in ("faces", "ignored")
                for (number,) in connection.execute(
                    f"SELECT {'id' if table == 'faces' else 'face_id'} FROM {table}"
                    f" WHERE {'content_id' if table == 'faces' else 'sha256'} = ?",
                    (content if table == "faces" else sha256,),
                ).fetchall()
            ]
            known = places_in(connection, content)
            blocked = places_forgotten(connection, sha256)
            first = max((number & ((1 << FACE_BITS) - 1) for number in taken), default=-1) + 1
            for face in without_forgotten(faces, [*known, *blocked]):
                row = face_row(face, self._meta.dimension, "photo")
                number = _number(content, first + len(added))
                connection.execute(_INSERT_FACE, (number, content, *row[:-1]))
                connection.execute("INSERT INTO embeddings VALUES (?, ?)", (number, row[-1]))
                added.append(row)
            if added:
                connection.execute(
                    "UPDATE contents SET status = ? WHERE id = ?", (INDEXED, content)
                )
        return len(added)

    def fetch_embeddings(self, faces: Sequence[int]) -> None:
        """Copy embeddings of faces from Milvus to the rows, for what follows."""
        there = self._vectors.embeddings(faces, STRONG)
        for face, embedding in there.items():
            self._changing.execute(
                "INSERT OR IGNORE INTO embeddings SELECT id, ?2 FROM faces WHERE id = ?1",
                (face, embedding.astype("<f4").tobytes()),
            )

    def switch(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible here.

        Raises:
            SettingsError: always.
        """
        raise unsupported(
            "an upgrade to another model", "index the photos into another archive with that model"
        )

    def end(self) -> None:
        """Have Milvus rewrite its files if something was removed, and give up the right to write.

        All changes are stored by now, so errors are only logged.
        """
        self._ended = True
        if os.getpid() != self._process:
            return
        try:
            self._settle()
            if removals.is_due(self._writer) and self._vectors.compact():
                removals.finish(self._writer)
                for earlier in self.unfinished:
                    log.warning(
                        "an earlier removal of %d photos and %d faces from the gallery %s was "
                        "interrupted; it is finished now",
                        earlier.photos,
                        earlier.faces,
                        self._connections.folder,
                    )
        except GalleryError as error:
            log.warning("after writing: %s", error)
        finally:
            self._looking.close()
            self._changing.close()

    def _missing_photos(self) -> Iterator[str]:
        def now() -> Snapshot:
            return ClusterReader(self._connections, self._vectors, self._meta)

        photos = (path for path, _, _ in all_photos(now, only_files=True))
        return missing_photos(photos, self._roots)

    @contextmanager
    def _transaction(self, *, purge: bool = False) -> Iterator[Connection]:
        self._check_open()
        try:
            self._changing.execute("BEGIN")
            try:
                yield self._writer
                if purge:
                    removals.request_purge(self._writer)
                roots = roots_of(self._writer)
                self._changing.execute("COMMIT")
                self._roots = roots
            except BaseException:
                with suppress(GalleryError):
                    self._changing.rollback()
                raise
        except stored.StoredValueError as error:
            raise self._connections.error_for(error) from error
        self._settle()

    def _settle(self) -> None:
        """Bring Milvus to the rows: faces that are to leave it, and those that come back."""
        arriving = self._changing.execute(
            "SELECT faces.id, content_id, quality, confidence, embedding FROM embeddings"
            " JOIN faces ON faces.id = face_id"
        ).fetchall()
        if arriving:
            self._vectors.upsert(
                [
                    Row(face, content, -1.0 if quality is None else quality, confidence, blob)
                    for face, content, quality, confidence, blob in arriving
                ]
            )
            self._changing.executemany(
                "DELETE FROM embeddings WHERE face_id = ?", [row[:1] for row in arriving]
            )
        leaving = self._changing.execute(
            "SELECT face_id, EXISTS (SELECT 1 FROM faces WHERE id = face_id) FROM leaving"
        ).fetchall()
        if leaving:
            self._vectors.delete([face for face, is_back in leaving if not is_back])
            self._changing.executemany(
                "DELETE FROM leaving WHERE face_id = ?", [row[:1] for row in leaving]
            )

    def _drop_begun(self) -> None:
        """Remove from Milvus the faces of contents that a killed writer has not recorded.

        Their numbers stay theirs: recorded again, the same faces get them again.
        """
        for (content,) in self._changing.execute("SELECT id FROM begun").fetchall():
            self._vectors.delete(self._vectors.of_content(content))

    def _insert_contents(
        self,
        connection: Connection,
        numbers: Mapping[bytes, int],
        rows: Sequence[tuple[Entry, Sequence[tuple[Any, ...]]]],
    ) -> None:
        connection.executemany(
            "INSERT INTO contents (id, sha256, width, height, status, reason, taken)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (numbers[entry.sha256], entry.sha256, *outcome_columns(entry), entry.taken)
                for entry, _ in rows
            ],
        )
        connection.executemany(
            _INSERT_FACE,
            [
                columns
                for entry, faces in rows
                for columns in _face_columns(numbers[entry.sha256], faces)
            ],
        )
        hashes = [entry.sha256 for entry, _ in rows]
        connection.execute("DELETE FROM begun WHERE sha256 = ANY(?)", (hashes,))

    def _replace_content(
        self,
        connection: Connection,
        content: int,
        entry: Entry,
        faces: Sequence[tuple[Any, ...]],
    ) -> None:
        changed = connection.execute(
            "UPDATE contents SET width = ?, height = ?, status = ?, reason = ?"
            " WHERE id = ? AND status <> ?",
            (*outcome_columns(entry), content, INDEXED),
        ).rowcount
        if changed:
            connection.executemany(_INSERT_FACE, _face_columns(content, faces))


class ClusterGallery(Gallery):
    """A gallery in Milvus and PostgreSQL; made with ``create`` or ``open``.

    Args:
        address: where it is.

    Raises:
        GalleryNotFoundError: there is none.
        GalleryDamagedError: its two halves do not belong together.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address
        self._connections = _Connections(address)
        self._writing = threading.Lock()
        try:
            self.vectors = Vectors(address)
            self._meta = self._read_stored_meta()
            self._join_vectors()
            self.vectors.load()  # after a restart Milvus may still be loading it
        except BaseException:
            self._connections.close()
            raise

    @classmethod
    def create(cls, place: Any, fingerprint: Fingerprint) -> ClusterGallery:
        """Create a new, empty gallery.

        Args:
            place: its `MilvusAddress`.
            fingerprint: what makes its embeddings.

        Raises:
            GalleryError: there is a gallery already, or a server does not answer.
        """
        address: MilvusAddress = place
        vectors = Vectors(address)
        connection = PostgresConnection(address)
        try:
            if vectors.gallery() is not None or has_gallery(connection):
                raise GalleryError(
                    f"there is already a gallery at {address}; open it, or choose another archive"
                )
            meta = {
                "format": str(FORMAT),
                "uuid": str(uuid.uuid4()),
                "dimension": str(fingerprint.model.dimension),
                "fingerprint": fingerprint.to_json(),
            }
            create_tables(connection, schema_of(address), meta)
            vectors.create(meta["uuid"], fingerprint.model.dimension)
        finally:
            connection.close()
            vectors.close()
        return cls(address)

    @classmethod
    def open(cls, place: Any) -> ClusterGallery:
        """Open the gallery at an address, without changing it.

        Args:
            place: its `MilvusAddress`.

        Raises:
            GalleryNotFoundError: there is none.
        """
        return cls(place)

    @property
    def folder(self) -> NoReturn:
        """Not there.

        Raises:
            SettingsError: always.
        """
        raise unsupported(
            "what needs the files of a gallery",
            f"copy it to a folder first: face2vec copy {self.address} indexes/copy",
        )

    @property
    def place(self) -> str:
        """The address, without user and password."""
        return str(self.address)

    def close(self) -> None:
        """Close the connections; calling it again does nothing."""
        self._connections.close()
        self.vectors.close()

    def __repr__(self) -> str:
        return f"ClusterGallery({self.place!r}, dimension={self.dimension})"

    def read(self, batch_size: int = 1024, mmap: bool = False) -> ClusterReader:
        """One state of the rows, for a ``with`` block and one thread.

        Args:
            batch_size: how many embeddings an iteration yields at a time.
            mmap: has no effect here.
        """
        return ClusterReader(self._connections, self.vectors, self._meta, batch_size)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """The right to write, for a ``with`` block. It does not wait for another writer.

        Raises:
            GalleryLockedError: another process, or this one, is writing; the message names it.
            GalleryError: a server does not answer.
        """
        with self._only_writer_here():
            writer = ClusterWriter(self._connections, self.vectors, self._meta)
            try:
                yield writer
            finally:
                writer.end()

    def problems(self) -> list[str]:
        """What is wrong with the gallery, one sentence each; empty if it is sound."""
        from face2vec.cluster.audit import problems

        with self.read() as now:
            return problems(now, self.vectors)

    def bytes(self) -> int:
        """Size of the tables in PostgreSQL; Milvus does not tell that of its files."""
        connection = self._connections.borrow()
        try:
            (size,) = connection.execute(
                "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
                " WHERE relnamespace = ?::regnamespace AND relkind = 'r'",
                (schema_of(self.address),),
            ).fetchone()
        finally:
            self._connections.give_back(connection)
        return int(size)

    def upgrade_begun(self) -> None:
        """None: a gallery in Milvus is not upgraded."""

    def _read_stored_meta(self) -> Meta:
        connection = self._connections.borrow()
        try:
            if not has_gallery(connection):
                raise GalleryNotFoundError(f"there is no gallery at {self.address}")
            found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        finally:
            self._connections.give_back(connection)
        try:
            fingerprint = Fingerprint.from_json(found["fingerprint"])
            dimension = stored.integer(int(found["dimension"]), "the dimension", 1, LARGEST_SIDE)
            return Meta(found["uuid"], dimension, fingerprint)
        except (KeyError, ValueError) as error:
            raise self._connections.damaged(
                f"its description is missing or wrong ({error})"
            ) from error

    def _join_vectors(self) -> None:
        """Check that the collection is this gallery's; make it if it is missing and was empty."""
        owner = self.vectors.gallery()
        if owner is None:
            with self.read() as now:
                if now.count:
                    raise self._connections.damaged("its collection in Milvus is missing")
            self.vectors.create(self._meta.uuid, self._meta.dimension)
        elif owner != self._meta.uuid or self.vectors.dimension != self._meta.dimension:
            raise self._connections.damaged(
                "its rows in PostgreSQL and its collection in Milvus are of two galleries"
            )


def _lock_gallery(connection: PostgresConnection, address: MilvusAddress) -> None:
    """Take the right to write, which PostgreSQL ends with the connection."""
    connection.execute(
        "SELECT set_config('application_name', ?, false)",
        (f"face2vec, process {os.getpid()} on {socket.gethostname()}"[:63],),
    )
    (key,) = connection.execute(
        "SELECT hashtext(?)::bigint & 2147483647", (schema_of(address),)
    ).fetchone()
    (taken,) = connection.execute("SELECT pg_try_advisory_lock(17, ?::integer)", (key,)).fetchone()
    if not taken:
        holder = connection.execute(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND classid = 17 AND objid = ?::oid AND granted",
            (key,),
        ).fetchone()
        raise GalleryLockedError(
            f"the gallery {address} is already being written by "
            f"{holder[0] if holder else 'another process'}; wait until that has finished"
        ).coded("written-elsewhere", writer=holder[0] if holder else "another process")


def _number(content: int, place: int) -> int:
    """Number of the face at a place in a content."""
    if place >= 1 << FACE_BITS:
        raise GalleryError(f"a photo has more than {1 << FACE_BITS} faces; leave it out")
    return content << FACE_BITS | place


def _contents_of(
    connection: Connection | PostgresConnection, hashes: Sequence[bytes]
) -> dict[bytes, int]:
    """Numbers of the contents that are recorded, by their hashes."""
    return dict(
        connection.execute(
            "SELECT sha256, id FROM contents WHERE sha256 = ANY(?)", (hashes,)
        ).fetchall()
    )


def _rows_of(content: int, faces: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Faces as Milvus stores them, from the columns of `face_row`."""
    return [
        Row(_number(content, place), content, -1.0 if row[6] is None else row[6], row[5], row[-1])
        for place, row in enumerate(faces)
    ]


def _face_columns(content: int, faces: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(_number(content, place), content, *row[:-1]) for place, row in enumerate(faces)]
