"""A gallery's faces by another model: kept beside the gallery, and put into it at once.

``upgrade.sqlite`` in the gallery's folder holds the new embeddings while they are being made.
The gallery knows nothing of it until `switch`, one transaction, puts them in the place of the
old ones. The numbers of faces stay, and with them all that is known of people.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import GalleryError, SettingsError
from face2vec.gallery.connection import (
    LAST_HISTORY,
    MAPPED,
    MAPPED_SCHEMA,
    Connection,
    has_table,
    in_words,
)
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import matrix
from face2vec.types import Face, model_digest

UPGRADE_FILE = "upgrade.sqlite"
UPGRADED_INDEX = "index.faiss.upgraded"  # of what the gallery is about to hold
MAPPED_AT_ONCE = 4096

_SCHEMA = """
CREATE TABLE target (what TEXT NOT NULL);
CREATE TABLE embeddings (
    face_id INTEGER PRIMARY KEY,
    was_crc32 INTEGER NOT NULL,
    quality REAL,
    embedding BLOB NOT NULL
);
"""
_REPLACED = (
    "INSERT INTO journal (change, face_id, history)"
    f" VALUES (?1, ?2, ({LAST_HISTORY} + ?3) % 2147483647)"
)

Map = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Target(NamedTuple):
    """What a gallery is being upgraded to.

    Attributes:
        gallery: name of the gallery, as `Gallery.uuid`.
        new_gallery: its name from the switch on.
        fingerprint: what makes the new embeddings.
        dimension: length of one.
    """

    gallery: str
    new_gallery: str
    fingerprint: dict[str, Any]
    dimension: int


class Remade(NamedTuple):
    """A face with its new embedding.

    Attributes:
        face: with id, new quality and new embedding.
        was: CRC-32 of the embedding that it is to replace.
    """

    face: Face
    was: int


class NewEmbeddings:
    """New embeddings of a gallery's faces, as far as they are made.

    Args:
        folder: of the gallery.
        gallery: name of the gallery, as `Gallery.uuid`.
        fingerprint: of what makes the new ones.
        dimension: length of one.

    Raises:
        SettingsError: an upgrade to something else has begun.
        GalleryError: the file cannot be written.
    """

    def __init__(
        self, folder: Path, gallery: str, fingerprint: Mapping[str, Any], dimension: int
    ) -> None:
        self.path = folder / UPGRADE_FILE
        with begun_in(self.path) as open_:
            begun = None if open_ is None else open_[1]
        if begun is not None and begun.gallery != gallery:
            abandon(folder)  # of a gallery that is no more, such as before an upgrade was done
            begun = None
        if begun is None:
            self.target = Target(gallery, str(uuid.uuid4()), dict(fingerprint), dimension)
        elif _alike(begun.fingerprint, fingerprint):  # though the model's file may be elsewhere
            self.target = begun._replace(fingerprint=dict(fingerprint))
        else:
            raise SettingsError(
                f"An upgrade of {folder} to the model {begun.fingerprint['model']['key']!r} has "
                "begun. Go on with that model, or give that upgrade up: "
                f"face2vec upgrade {folder} --abandon"
            )
        with self._in_words():
            self._connection = _connected(self.path)
            if begun is None:
                self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                self._connection.execute(
                    "INSERT INTO target VALUES (?)", (json.dumps(self.target._asdict()),)
                )
                self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._connection.close()

    def __enter__(self) -> NewEmbeddings:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def known(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Faces that have a new embedding, rising, and the CRC-32 of what it replaces."""
        with self._in_words():
            rows = self._connection.execute(
                "SELECT face_id, was_crc32 FROM embeddings ORDER BY face_id"
            ).fetchall()
        ids, checks = np.array(rows, np.int64).reshape(-1, 2).T
        return ids, checks

    def store(self, faces: Iterable[Remade], gallery: Callable[[], Snapshot]) -> None:
        """Keep new embeddings, on the disk when this returns, of faces that are still there.

        Args:
            faces: some.
            gallery: a snapshot of it as it is now. What leaves the gallery after that is taken
                out here by whoever removes it, see `drop_gone`.
        """
        faces = list(faces)
        with self._in_words(), self._transaction():
            with gallery() as now:
                there = now.checks([one.face.id for one in faces if one.face.id is not None])
            self._connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)",
                [
                    (one.face.id, one.was, one.face.quality, _blob(one.face))
                    for one in faces
                    if there.get(one.face.id or 0) == one.was
                ],
            )

    def embeddings(self, ids: Iterable[int]) -> NDArray[np.float32]:
        """New embeddings float32 (n, d) of faces that have one, in the order asked for."""
        with self._in_words():
            blobs = [
                self._connection.execute(
                    "SELECT embedding FROM embeddings WHERE face_id = ?", (int(i),)
                ).fetchone()[0]
                for i in ids
            ]
        return matrix(blobs, self.target.dimension)

    def rows(self) -> Iterator[tuple[int, int, float | None, bytes]]:
        """(face, CRC-32 of what it replaces, quality, new embedding), in order of face."""
        with self._in_words():
            yield from self._connection.execute("SELECT * FROM embeddings ORDER BY face_id")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise in_words(error, self.path) from error


class Switched(NamedTuple):
    """What a switch did, but to put new embeddings in: numbers of faces."""

    mapped: int
    dropped: int


def switch(
    connection: Connection, new: NewEmbeddings, mapped_by: Map | None, drop: bool
) -> Switched:
    """Put the new embeddings in the place of the old ones, inside a transaction.

    Args:
        connection: of the gallery's writer, in a transaction.
        new: what is made.
        mapped_by: from old embeddings to new ones, for faces that have no new one.
        drop: drop the photos of such faces instead.

    Raises:
        GalleryError: some faces have no new embedding, and neither is given.
    """
    checks = dict(connection.execute("SELECT id, embedding_crc32 FROM faces"))
    if not has_table(connection, MAPPED):
        connection.execute(MAPPED_SCHEMA)
    for face, was, quality, blob in new.rows():
        if checks.get(face) == was:
            del checks[face]
            _put(connection, face, quality, blob)
    rest = sorted(checks)
    mapped = dropped = 0
    if rest and mapped_by is not None:
        mapped = len(rest)
        _map(connection, rest, mapped_by)
    elif rest and drop:
        dropped = _drop(connection, rest)
    elif rest:
        raise GalleryError(f"{len(rest)} faces have no new embedding.")
    if not mapped:
        connection.execute(f"DROP TABLE {MAPPED}")
    facts = {
        "uuid": new.target.new_gallery,
        "dimension": str(new.target.dimension),
        "fingerprint": json.dumps(new.target.fingerprint, sort_keys=True),
    }
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", sorted(facts.items()))
    # What similarities of the old model mean says nothing of the new one's.
    connection.execute("DELETE FROM meta WHERE key = 'calibration'")
    return Switched(mapped, dropped)


class Inside:
    """A gallery's embeddings as they are inside a transaction, in batches, again and again.

    Attributes:
        batch_size: how many embeddings an iteration gives at a time.
    """

    def __init__(self, connection: Connection, dimension: int, batch_size: int = 1024) -> None:
        self._connection, self._dimension = connection, dimension
        self.batch_size = batch_size

    @property
    def count(self) -> int:
        """Number of faces."""
        (count,) = self._connection.execute("SELECT count(*) FROM embeddings").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        rows = self._connection.execute(
            "SELECT face_id, embedding FROM embeddings ORDER BY face_id"
        )
        while batch := rows.fetchmany(self.batch_size):
            ids = np.array([row[0] for row in batch], np.int64)
            yield ids, matrix([row[1] for row in batch], self._dimension)


def replace_mapped(connection: Connection, faces: Iterable[Remade]) -> None:
    """Put true embeddings in the place of mapped ones, inside a transaction."""
    for one in faces:
        found = connection.execute(
            f"SELECT embedding_crc32 FROM faces JOIN {MAPPED} ON face_id = id WHERE id = ?",
            (one.face.id,),
        ).fetchone()
        if found is None or found[0] != one.was:
            continue
        blob, number = _blob(one.face), one.face.id
        assert number is not None
        connection.execute(_REPLACED, ("-", number, 2 * number + 1 + one.was))
        _put(connection, number, one.face.quality, blob)
        connection.execute(_REPLACED, ("+", number, 2 * number + zlib.crc32(blob)))
    (left,) = connection.execute(f"SELECT count(*) FROM {MAPPED}").fetchone()
    if not left:
        connection.execute(f"DROP TABLE {MAPPED}")


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of the same embeddings, wherever the model's file is."""
    first, second = ({**made, "model": model_digest(made["model"])} for made in (one, other))
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def drop_gone(folder: Path, gallery: Connection) -> None:
    """Take faces that have left the gallery out of an upgrade that has begun, without a trace."""
    with begun_in(folder / UPGRADE_FILE) as open_:
        if open_ is None:
            return
        connection, _ = open_
        connection.execute("BEGIN IMMEDIATE")
        there = {row[0] for row in gallery.execute("SELECT id FROM faces")}
        made = [row[0] for row in connection.execute("SELECT face_id FROM embeddings")]
        gone = [(face,) for face in made if face not in there]
        connection.executemany("DELETE FROM embeddings WHERE face_id = ?", gone)
        connection.execute("COMMIT")
        if gone:
            connection.execute("VACUUM")


def begun(folder: Path) -> dict[str, Any] | None:
    """To which model an upgrade has begun and how many faces are done; None where none has."""
    with begun_in(folder / UPGRADE_FILE) as open_:
        if open_ is None:
            return None
        connection, target = open_
        (faces,) = connection.execute("SELECT count(*) FROM embeddings").fetchone()
        return {"model": target.fingerprint["model"]["key"], "faces": faces}


def abandon(folder: Path) -> bool:
    """Delete what an upgrade has made so far; returns whether one had begun."""
    path = folder / UPGRADE_FILE
    there = path.exists()
    for file in (path, path.with_name(path.name + "-journal"), folder / UPGRADED_INDEX):
        file.unlink(missing_ok=True)
    return there


@contextmanager
def begun_in(path: Path) -> Iterator[tuple[sqlite3.Connection, Target] | None]:
    """An upgrade that has begun in a file, open, and what it is to; None where none has."""
    if not path.exists():
        yield None
        return
    connection = _connected(path)
    try:
        found = (
            connection.execute("SELECT what FROM target").fetchone()
            if has_table(connection, "target")
            else None
        )
        yield None if found is None else (connection, Target(**json.loads(found[0])))
    except sqlite3.Error as error:
        raise in_words(error, path) from error
    finally:
        connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _blob(face: Face) -> bytes:
    return np.asarray(face.embedding, "<f4").tobytes()


def _put(connection: Connection, face: int, quality: float | None, blob: bytes) -> None:
    """Make an embedding of the new model a face's own, mapped no longer."""
    _replace(connection, face, blob)
    connection.execute("UPDATE faces SET quality = ? WHERE id = ?", (quality, face))
    connection.execute(f"DELETE FROM {MAPPED} WHERE face_id = ?", (face,))


def _replace(connection: Connection, face: int, blob: bytes) -> None:
    connection.execute("UPDATE embeddings SET embedding = ? WHERE face_id = ?", (blob, face))
    connection.execute(
        "UPDATE faces SET embedding_crc32 = ? WHERE id = ?", (zlib.crc32(blob), face)
    )


def _map(connection: Connection, faces: list[int], mapped_by: Map) -> None:
    for start in range(0, len(faces), MAPPED_AT_ONCE):
        some = faces[start : start + MAPPED_AT_ONCE]
        blobs = [
            connection.execute(
                "SELECT embedding FROM embeddings WHERE face_id = ?", (face,)
            ).fetchone()[0]
            for face in some
        ]
        mapped = mapped_by(matrix(blobs, len(blobs[0]) // 4))
        for face, embedding in zip(some, mapped, strict=True):
            _replace(connection, face, embedding.astype("<f4").tobytes())
        connection.executemany(f"INSERT OR IGNORE INTO {MAPPED} VALUES (?)", [(f,) for f in some])


def _drop(connection: Connection, faces: list[int]) -> int:
    """Drop photos that these faces are in; returns how many faces went."""
    dropped = 0
    contents = {
        connection.execute("SELECT content_id FROM faces WHERE id = ?", (face,)).fetchone()[0]
        for face in faces
    }
    for content in sorted(contents):
        dropped += connection.execute("DELETE FROM faces WHERE content_id = ?", (content,)).rowcount
        connection.execute("DELETE FROM photos WHERE content_id = ?", (content,))
        connection.execute("DELETE FROM contents WHERE id = ?", (content,))
    return dropped
