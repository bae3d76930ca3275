"""Changing a gallery: one session of the one writer, and what it does in a transaction."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from face2vec.errors import GalleryError
from face2vec.gallery.connection import Connection, GalleryFile
from face2vec.gallery.people import boxes_forgotten, has_whole, remembered
from face2vec.gallery.reader import refuse_upgraded, roots_of
from face2vec.gallery.rows import INDEXED, NO_FACE, Entry, encoded, face_rows, owner_of
from face2vec.gallery.staging import UPGRADED_INDEX, drop_gone

_INSERT_FACE = (
    'INSERT INTO faces (content_id, "left", "top", "right", "bottom", landmarks, confidence,'
    " quality, embedding_crc32) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Changed = TypeVar("Changed")

_log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """How many photos left the gallery, and how many faces with them."""

    photos: int
    faces: int


class Session:
    """What a gallery has open while it is being written to.

    Looking up photos by name goes through a second connection that stays inside
    one read transaction between two batches: that halves the cost of a look-up,
    which is all that an unchanged photo costs.

    Args:
        file: the gallery's; the caller holds the right to write.
        uuid: the gallery's own name.
        dimension: length of an embedding.

    Attributes:
        roots: folders that photos were added from, as ``Snapshot.roots``.
    """

    def __init__(self, file: GalleryFile, uuid: str, dimension: int) -> None:
        self._file = file
        self._dimension = dimension
        try:
            self._writer = file.connect_writer()
            self._reader = file.borrow()
            refuse_upgraded(self._writer, file, uuid)
            self.roots = roots_of(self._writer)
        except sqlite3.Error as error:
            raise file.in_words(error) from error
        self._lock = threading.Lock()

    def look_up(self, statement: str, *values: Any) -> Any:
        """The first row of a SELECT, or None."""
        try:
            with self._lock:
                if not self._reader.in_transaction:
                    self._reader.execute("BEGIN")
                return self._reader.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error

    def record(self, entries: Iterable[Entry]) -> list[Entry]:
        """See ``Gallery.record``."""
        refused: list[Entry] = []
        kept = [self._without_forgotten(entry) for entry in entries]
        rows = [(entry, face_rows(entry, self._dimension)) for entry in kept if entry is not None]
        # Bytes that lose their name wait for the end if the batch gives them another later.
        # All others go at once, so that it makes no difference where one batch ends and
        # the next begins.
        last_named = {entry.sha256: place for place, (entry, _) in enumerate(rows)}
        with self._transaction() as connection:
            roots = roots_of(connection)
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

    def remove(self, photos: Iterable[str]) -> Removed:
        """See ``Gallery.remove``; takes full paths."""
        with self._transaction() as connection:
            roots = roots_of(connection)
            names: dict[tuple[int, bytes], int] = {}
            for photo in photos:
                names.update(_names_under(connection, roots, photo))
            connection.executemany("DELETE FROM photos WHERE root_id = ? AND path = ?", names)
            faces = _drop_nameless(connection, set(names.values()))
            connection.execute(
                "DELETE FROM roots WHERE NOT EXISTS (SELECT 1 FROM photos WHERE root_id = roots.id)"
            )
            if names:
                _purge_later(connection)
        return Removed(len(names), faces)

    def change(self, how: Callable[[Connection], Changed], purge: bool = False) -> Changed:
        """Do something in one transaction.

        Args:
            how: is given the connection.
            purge: whether the file is to be rewritten when the session ends.
        """
        with self._transaction() as connection:
            changed = how(connection)
            if purge:
                _purge_later(connection)
        return changed

    def note(self, key: str, value: str) -> None:
        """Write a value down beside what the gallery says of itself."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def end(self) -> None:
        """Nothing of what was removed stays, and all there is goes into the one file.

        Every batch is on the disk by now, so what goes wrong here is only logged.
        """
        writer = self._writer
        try:
            self._file.give_back(self._reader)
            # Left by an upgrade that was killed at the switch: nobody is at one now.
            (self._file.folder / UPGRADED_INDEX).unlink(missing_ok=True)
            unpurged = writer.execute("SELECT 1 FROM meta WHERE key = 'unpurged'").fetchone()
            if unpurged:
                drop_gone(self._file.folder, writer)
                # Zeroing what is deleted is not enough: when SQLite moves rows between
                # pages it leaves copies behind. Only rewriting the file removes those.
                writer.execute("VACUUM")
                if _empty_wal(writer):
                    writer.execute("DELETE FROM meta WHERE key = 'unpurged'")
                else:
                    _log.warning(
                        "Someone is reading the gallery %s, so what was removed stays in its -wal "
                        "until the gallery is next changed.",
                        self._file.folder,
                    )
            writer.execute("PRAGMA busy_timeout = 0")  # no reader is waited for
            _empty_wal(writer)
        except sqlite3.Error as error:
            _log.warning("After writing: %s", self._file.in_words(error))
        except (GalleryError, OSError) as error:
            _log.warning("After writing: %s", error)
        finally:
            self._file.disconnect(writer)

    def _without_forgotten(self, entry: Entry) -> Entry | None:
        """The entry without faces that are to stay forgotten; None if that is the whole photo."""
        boxes = boxes_forgotten(self._writer, entry.sha256)
        if not boxes or entry.content_known:
            return entry
        if has_whole(boxes):
            return None
        faces = remembered(entry.faces, boxes)
        return replace(entry, faces=faces, status=INDEXED if faces else NO_FACE)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                roots = roots_of(writer)
                with self._lock:
                    self._reader.rollback()
                    writer.execute("COMMIT")
                    self.roots = roots
            except BaseException:
                writer.rollback()
                raise
        except sqlite3.Error as error:
            raise self._file.in_words(error) from error


def _purge_later(connection: Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('unpurged', '1')")


def _place(connection: Connection, roots: dict[str, int], entry: Entry) -> tuple[int, bytes]:
    """Where a photo is stored; its root is added unless an older one holds the photo."""
    folder = entry.root.rstrip(os.sep)
    owner = owner_of(roots, f"{folder}{os.sep}{entry.path}")
    if owner is not None:
        return owner
    added = connection.execute("INSERT INTO roots (path) VALUES (?)", (encoded(folder),))
    root = added.lastrowid
    assert root is not None
    roots[folder] = root
    return root, encoded(entry.path)


def _insert_content(connection: Connection, entry: Entry, faces: Sequence[tuple[Any, ...]]) -> int:
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
    for *face, embedding in faces:
        added = connection.execute(_INSERT_FACE, (content, *face))
        connection.execute("INSERT INTO embeddings VALUES (?, ?)", (added.lastrowid, embedding))
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
    owner = owner_of(roots, photo)
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


def _empty_wal(connection: Connection) -> bool:
    """Bring everything into the main file and cut the ``-wal`` to nothing, unless it is read."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
