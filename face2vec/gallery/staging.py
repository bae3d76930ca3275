"""Embeddings by another model: stored beside the gallery, and switched to in one transaction.

``upgrade.sqlite`` in the gallery's folder holds the new embeddings while they are computed. The
gallery is unchanged until `switch` replaces all old embeddings. Faces keep their ids, so people
keep their faces.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.errors import GalleryError, SettingsError
from face2vec.files import IrregularFileError, refuse_irregular
from face2vec.fingerprint import Fingerprint
from face2vec.gallery import ignored
from face2vec.gallery.connection import Connection, defend, gallery_error, irregular
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import integers, matrix
from face2vec.gallery.schema import LAST_HISTORY, MAPPED, MAPPED_SCHEMA, has_table
from face2vec.types import Face

UPGRADE_FILE = "upgrade.sqlite"
UPGRADED_INDEX = "index.faiss.upgraded"  # index of the new embeddings, before the switch
MAPPED_PER_BATCH = 4096

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
"""An embedding map: float32 (n, old dimension) to float32 (n, new dimension)."""


class Target(NamedTuple):
    """What a gallery is being upgraded to.

    Attributes:
        gallery: `Gallery.uuid` of the gallery.
        new_gallery: its `Gallery.uuid` after the switch.
        fingerprint: what makes the new embeddings.
    """

    gallery: str
    new_gallery: str
    fingerprint: Fingerprint

    @property
    def dimension(self) -> int:
        """Length of a new embedding."""
        return self.fingerprint.model.dimension

    @classmethod
    def from_json(cls, text: object) -> Target:
        """Read what `to_json` wrote.

        Raises:
            StoredValueError: it is something else.
        """
        what = "the target of the upgrade"
        values = stored.mapping(stored.parsed(text, what), what)
        gallery, new_gallery = (
            stored.text(stored.field(values, name, what), name)
            for name in ("gallery", "new_gallery")
        )
        fingerprint = Fingerprint.from_dict(stored.field(values, "fingerprint", what))
        return cls(gallery, new_gallery, fingerprint)

    def to_json(self) -> str:
        """JSON for `from_json`."""
        values = self._asdict() | {
            "fingerprint": self.fingerprint.to_dict(),
            "dimension": self.dimension,
        }
        return json.dumps(values)


class Remade(NamedTuple):
    """A face with its new embedding.

    Attributes:
        face: the face with id, new quality and new embedding float32 (d,).
        old_crc32: CRC-32 of the embedding that it replaces.
    """

    face: Face
    old_crc32: int


class NewEmbeddings:
    """The new embeddings that have been computed so far, in a file beside the gallery.

    Args:
        folder: folder of the gallery.
        gallery: `Gallery.uuid` of the gallery.
        fingerprint: what makes the new embeddings.

    Raises:
        SettingsError: an upgrade to another model has begun.
        GalleryError: the file cannot be written.
    """

    def __init__(self, folder: Path, gallery: str, fingerprint: Fingerprint) -> None:
        self.path = folder / UPGRADE_FILE
        with _open_upgrade(self.path) as open_:
            begun = None if open_ is None else open_[1]
        if begun is not None and begun.gallery != gallery:
            abandon(folder)  # a leftover of an earlier state of the gallery
            begun = None
        if begun is None:
            self.target = Target(gallery, str(uuid.uuid4()), fingerprint)
        elif begun.fingerprint.is_comparable_to(fingerprint):
            self.target = begun._replace(fingerprint=fingerprint)  # its file may have moved
        else:
            raise SettingsError(
                f"an upgrade of {folder} to the model {begun.fingerprint.model.key!r} is in "
                f"progress; continue with that model, or abandon it: "
                f"face2vec upgrade {folder} --abandon"
            )
        with self._own_errors():
            self._connection = _connected(self.path)
            if begun is None:
                self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                self._connection.execute("INSERT INTO target VALUES (?)", (self.target.to_json(),))
                self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file and keep it."""
        self._connection.close()

    def __enter__(self) -> NewEmbeddings:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def known(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Faces with a new embedding, rising, and the CRC-32 of the embedding that it replaces.

        Both are int64 (n,).
        """
        with self._own_errors():
            rows = self._connection.execute(
                "SELECT face_id, was_crc32 FROM embeddings ORDER BY face_id"
            ).fetchall()
            ids, crc32s = integers(rows, 2, "the numbers of new embeddings")
        return ids, crc32s

    def store(self, faces: Iterable[Remade], gallery: Callable[[], Snapshot]) -> None:
        """Store new embeddings of faces that the gallery still has; on the disk on return.

        Args:
            faces: faces with new embeddings.
            gallery: reads its current state. Faces that are removed later are removed here by the
                writer that removes them, see `drop_removed`.
        """
        faces = list(faces)
        with self._own_errors(), self._transaction():
            with gallery() as now:
                there = now.crc32s([one.face.id for one in faces if one.face.id is not None])
            self._connection.executemany(
                "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)",
                [
                    (one.face.id, one.old_crc32, one.face.quality, _blob(one.face))
                    for one in faces
                    if there.get(one.face.id or 0) == one.old_crc32
                ],
            )

    def embeddings(self, ids: Iterable[int]) -> NDArray[np.float32]:
        """New embeddings float32 (n, d) of faces that have one, in the order of ``ids``."""
        with self._own_errors():
            blobs = [
                self._connection.execute(
                    "SELECT embedding FROM embeddings WHERE face_id = ?", (int(i),)
                ).fetchone()[0]
                for i in ids
            ]
            return matrix(blobs, self.target.dimension)

    def rows(self) -> Iterator[tuple[int, int, float | None, bytes]]:
        """(face, CRC-32 of the replaced embedding, quality, new embedding), in order of face."""
        with self._own_errors():
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
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, stored.StoredValueError) as error:
            raise gallery_error(error, self.path) from error


class Switched(NamedTuple):
    """What a switch did besides replacing embeddings.

    Attributes:
        mapped: faces that got a mapped embedding.
        dropped: faces whose photos were removed.
    """

    mapped: int
    dropped: int


def switch(
    connection: Connection, new: NewEmbeddings, mapped_by: Map | None, drop: bool
) -> Switched:
    """Replace the old embeddings by the new ones, inside a transaction.

    Args:
        connection: the writer's connection, in a transaction.
        new: the new embeddings.
        mapped_by: the embedding map for faces without a new embedding.
        drop: remove the photos of such faces instead.

    Raises:
        GalleryError: faces have no new embedding, and neither is given.
    """
    crc32s = dict(connection.execute("SELECT id, embedding_crc32 FROM faces"))
    if not has_table(connection, MAPPED):
        connection.execute(MAPPED_SCHEMA)
    for face, was, quality, blob in new.rows():
        if crc32s.get(face) == was:
            del crc32s[face]
            _put(connection, face, quality, blob)
    rest = sorted(crc32s)
    mapped = dropped = 0
    if rest and mapped_by is not None:
        mapped = len(rest)
        _map(connection, rest, mapped_by)
    elif rest and drop:
        dropped = _drop(connection, rest)
    elif rest:
        raise GalleryError(f"{len(rest)} faces have no new embedding")
    if not mapped:
        connection.execute(f"DROP TABLE {MAPPED}")
    facts = {
        "uuid": new.target.new_gallery,
        "dimension": str(new.target.dimension),
        "fingerprint": new.target.fingerprint.to_json(),
    }
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", sorted(facts.items()))
    ignored.reduce(connection)  # embeddings by the old model
    # A calibration holds for one model only.
    connection.execute("DELETE FROM meta WHERE key = 'calibration'")
    return Switched(mapped, dropped)


class Uncommitted:
    """The embeddings of a gallery inside a transaction, in batches; see `Snapshot`.

    Attributes:
        batch_size: how many embeddings an iteration yields at a time.
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
    """Replace mapped embeddings by those of the model, inside a transaction."""
    for one in faces:
        found = connection.execute(
            f"SELECT embedding_crc32 FROM faces JOIN {MAPPED} ON face_id = id WHERE id = ?",
            (one.face.id,),
        ).fetchone()
        if found is None or found[0] != one.old_crc32:
            continue
        blob, number = _blob(one.face), one.face.id
        assert number is not None
        connection.execute(_REPLACED, ("-", number, 2 * number + 1 + one.old_crc32))
        _put(connection, number, one.face.quality, blob)
        connection.execute(_REPLACED, ("+", number, 2 * number + zlib.crc32(blob)))
    (left,) = connection.execute(f"SELECT count(*) FROM {MAPPED}").fetchone()
    if not left:
        connection.execute(f"DROP TABLE {MAPPED}")


def drop_removed(folder: Path, gallery: Connection) -> None:
    """Remove faces that the gallery no longer has from an upgrade in progress."""
    with _open_upgrade(folder / UPGRADE_FILE) as open_:
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


def is_leftover(folder: Path, gallery: str) -> bool:
    """Whether an upgrade has ended, or belongs to another gallery, and its file is still there.

    Args:
        folder: folder of the gallery.
        gallery: `Gallery.uuid` of the gallery.
    """
    with _open_upgrade(folder / UPGRADE_FILE) as open_:
        return open_ is not None and open_[1].gallery != gallery


def drop_leftover(folder: Path, gallery: str) -> None:
    """Delete the file of an upgrade that has ended, as after a kill just behind the switch."""
    if is_leftover(folder, gallery):
        abandon(folder)


def upgrade_in_progress(folder: Path) -> dict[str, Any] | None:
    """The model of an upgrade in progress and how many faces are done, or None."""
    with _open_upgrade(folder / UPGRADE_FILE) as open_:
        if open_ is None:
            return None
        connection, target = open_
        (faces,) = connection.execute("SELECT count(*) FROM embeddings").fetchone()
        return {"model": target.fingerprint.model.key, "faces": faces}


def abandon(folder: Path) -> bool:
    """Delete the new embeddings of an upgrade in progress; returns whether there was one."""
    path = folder / UPGRADE_FILE
    there = path.exists()
    for file in (path, path.with_name(path.name + "-journal"), folder / UPGRADED_INDEX):
        file.unlink(missing_ok=True)
    return there


@contextmanager
def _open_upgrade(path: Path) -> Iterator[tuple[sqlite3.Connection, Target] | None]:
    """The open file of an upgrade in progress and its target, or None."""
    try:
        refuse_irregular(path)
    except IrregularFileError as error:
        raise irregular(error) from error
    if not path.exists():
        yield None
        return
    connection = None
    try:
        connection = _connected(path)
        found = (
            connection.execute("SELECT what FROM target").fetchone()
            if has_table(connection, "target")
            else None
        )
        yield None if found is None else (connection, Target.from_json(found[0]))
    except (sqlite3.Error, stored.StoredValueError) as error:
        raise gallery_error(error, path) from error
    finally:
        if connection is not None:
            connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
    defend(connection)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _blob(face: Face) -> bytes:
    return np.asarray(face.embedding, "<f4").tobytes()


def _put(connection: Connection, face: int, quality: float | None, blob: bytes) -> None:
    """Store the new embedding of a face, which is then not mapped."""
    _replace(connection, face, blob)
    connection.execute("UPDATE faces SET quality = ? WHERE id = ?", (quality, face))
    connection.execute(f"DELETE FROM {MAPPED} WHERE face_id = ?", (face,))


def _replace(connection: Connection, face: int, blob: bytes) -> None:
    connection.execute("UPDATE embeddings SET embedding = ? WHERE face_id = ?", (blob, face))
    connection.execute(
        "UPDATE faces SET embedding_crc32 = ? WHERE id = ?", (zlib.crc32(blob), face)
    )


def _map(connection: Connection, faces: list[int], mapped_by: Map) -> None:
    for start in range(0, len(faces), MAPPED_PER_BATCH):
        some = faces[start : start + MAPPED_PER_BATCH]
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
    """Remove the photos of these faces; returns how many faces were removed."""
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
