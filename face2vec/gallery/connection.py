"""How a gallery's SQLite file is made, locked, opened and refused; SQLite's errors in words.

What is in the file is the business of ``face2vec.gallery.gallery``.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryNotFoundError,
)
from face2vec.files import put_in_place

FORMAT = 3
OLDEST_FORMAT = 2
"""What can still be read; the next one who writes brings it up to date, see `upgrade`."""
FILE = "gallery.sqlite"

# An embedding of 512 numbers takes about 2.1 kB: SQLite's usual page of 4 kB holds one
# of them and wastes the rest, 16 kB hold seven. They are kept apart from the faces, of
# which a page holds a hundred, because a search reads faces and no embeddings.
_PAGE_BYTES = 16384
_BUSY_SECONDS = 5.0
_MAPPED_BYTES = 1 << 40  # SQLite takes what it can of it, 2 GB as a rule

LAST_HISTORY = (
    "1103515245 * coalesce((SELECT history FROM journal ORDER BY position DESC LIMIT 1), 0)"
)
"""What the check sum of a journal begins its next line with, in SQL."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE);
CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('indexed', 'no face', 'unreadable')),
    reason TEXT NOT NULL
);
CREATE TABLE photos (
    root_id INTEGER NOT NULL REFERENCES roots,
    path BLOB NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (root_id, path)
) WITHOUT ROWID;
CREATE INDEX photos_by_content ON photos (content_id);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    "left" REAL NOT NULL,
    "top" REAL NOT NULL,
    "right" REAL NOT NULL,
    "bottom" REAL NOT NULL,
    landmarks BLOB NOT NULL,
    confidence REAL NOT NULL,
    quality REAL,
    embedding_crc32 INTEGER NOT NULL
);
CREATE INDEX faces_by_content ON faces (content_id);
CREATE TABLE embeddings (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    embedding BLOB NOT NULL
);
CREATE TABLE journal (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    change TEXT NOT NULL CHECK (change IN ('+', '-')),
    face_id INTEGER NOT NULL,
    history INTEGER NOT NULL
);
CREATE TRIGGER face_added AFTER INSERT ON faces BEGIN
    INSERT INTO journal (change, face_id, history)
    VALUES ('+', NEW.id, (@before + 2 * NEW.id + NEW.embedding_crc32) % 2147483647);
END;
CREATE TRIGGER face_removed AFTER DELETE ON faces BEGIN
    INSERT INTO journal (change, face_id, history)
    VALUES ('-', OLD.id, (@before + 2 * OLD.id + 1 + OLD.embedding_crc32) % 2147483647);
END;
""".replace(
    # "history" is a check sum of all that came and went up to a position, embeddings included,
    # so it differs where two galleries went different ways after one backup. The prime keeps
    # all products below 2^63.
    "@before",
    LAST_HISTORY,
)

# Who is in the photos: format 3 has this beside what format 2 has.
PEOPLE_SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
CREATE TABLE memberships (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    said INTEGER NOT NULL CHECK (said IN (0, 1))
);
CREATE INDEX memberships_by_person ON memberships (person_id);
CREATE TABLE refusals (
    face_id INTEGER NOT NULL REFERENCES faces ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    PRIMARY KEY (face_id, person_id)
) WITHOUT ROWID;
CREATE INDEX refusals_by_person ON refusals (person_id);
CREATE TABLE sayings (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL,
    before TEXT NOT NULL
);
CREATE TABLE forgotten (
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    "left" REAL, "top" REAL, "right" REAL, "bottom" REAL
);
CREATE INDEX forgotten_by_content ON forgotten (sha256);
"""


# Of faces whose embeddings were mapped from an older model's, and only while there are some.
MAPPED = "mapped"
MAPPED_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {MAPPED} (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE
)
"""


class Connection(sqlite3.Connection):
    """One connection.

    Attributes:
        immutable: whether it takes the file for one that does not change.
        mapped: whether it sees the file in memory instead of copying pages from it.
        known: what ``gallery_reading`` has read through it and need not read again.
    """

    immutable = False
    mapped = False
    known: Any = None


class GalleryFile:
    """The SQLite file in a gallery's folder, and the connections to it.

    Raises:
        GalleryNotFoundError: it is not there.
        GalleryDamagedError: it does not begin as an SQLite file does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.path = self.folder / FILE
        self._open: list[Connection] = []
        self._idle: dict[bool, list[Connection]] = {False: [], True: []}
        self._closed = False
        _refuse_what_is_no_database(self.path)

    def close(self) -> None:
        """Close every connection; calling it again does nothing."""
        self._closed = True
        for idle in self._idle.values():
            idle.clear()
        while self._open:
            self._open.pop().close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only connection for one caller at a time, inside one read transaction.

        Errors of SQLite inside the ``with`` come out in words.
        """
        try:
            connection = self.borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self.give_back(connection)
        except sqlite3.Error as error:
            raise self.in_words(error) from error

    def borrow(self, mapped: bool = False) -> Connection:
        """A read-only connection, to be given back.

        Args:
            mapped: see the file in memory, which is quicker for rows here and there. What
                is read of it then counts as memory of this process.
        """
        if self._closed:
            raise GalleryError(f"The gallery {self.folder} is closed.")
        try:
            return self._idle[mapped].pop()
        except IndexError:
            connection = self._connect_reader()
        if mapped:
            connection.mapped = True
            connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        return connection

    def give_back(self, connection: Connection) -> None:
        """End a reader's transaction and keep the connection for the next one."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if connection.immutable:
            self.disconnect(connection)
        else:
            self._idle[connection.mapped].append(connection)

    def connect_writer(self) -> Connection:
        """A connection that may change the file; the caller holds ``writer_lock``."""
        connection = self._connect("mode=rw")
        connection.execute("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten with zeros.
        connection.execute("PRAGMA secure_delete = ON")
        # NORMAL would be safe from damage too, but a power cut could take back the
        # last batches, and an index.faiss saved after them would be ahead of the
        # truth. One fsync a batch is nothing beside the networks that filled it.
        connection.execute("PRAGMA synchronous = FULL")
        # On macOS fsync leaves the bytes in the disk's own cache; elsewhere these change nothing.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        _upgrade(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        """Close one connection."""
        self._open.remove(connection)
        connection.close()

    def refuse_truncated(self, connection: Connection) -> None:
        """Find a missing end where SQLite does not: while pages wait in the ``-wal``."""
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        whole = self.path.stat().st_size // page_bytes
        if whole < pages:
            missing = set(range(whole + 1, pages + 1))
            missing -= _pages_in_wal(_beside(self.path, "-wal"), page_bytes)
            if missing:
                raise self.damaged(f"its end is missing, {len(missing)} of {pages} pages")

    def damaged(self, what: str) -> GalleryDamagedError:
        """The error that says so."""
        return _damaged(self.path, what)

    def in_words(self, error: sqlite3.Error) -> GalleryError:
        """What an error of SQLite means for the one who uses the gallery."""
        return in_words(error, self.path)

    def _connect_reader(self) -> Connection:
        """Connect without the right to change anything.

        In a folder that cannot be written SQLite cannot make the ``-shm`` that it
        shares with a writer. With nothing waiting in the ``-wal`` the file alone
        is the whole gallery, and is read as one that does not change; as someone
        else may change it all the same, such a connection serves once.
        """
        try:
            return self._connect("mode=ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (
                sqlite3.SQLITE_READONLY,
                sqlite3.SQLITE_CANTOPEN,
            ):
                raise
            if size_of(_beside(self.path, "-wal")):
                raise GalleryError(
                    f"The gallery {self.folder} was left in the middle of a write, and its folder "
                    "cannot be written, so it cannot be put in order. Open it once with the right "
                    "to write there, or copy the folder and open the copy."
                ) from error
        connection = self._connect("mode=ro&immutable=1")
        connection.immutable = True
        return connection

    def _connect(self, how: str) -> Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{how}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,  # transactions are begun and ended by name
            check_same_thread=False,  # handed from thread to thread, never shared at one time
            factory=Connection,
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._open.append(connection)
        return connection


def has_people(connection: sqlite3.Connection) -> bool:
    """Whether the gallery has room for people, as one of an older format does not."""
    return has_table(connection, "people")


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table of that name."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return bool(found)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Add what a gallery of an older format does not have, all of it or nothing."""
    if not has_people(connection):
        connection.executescript(
            f"BEGIN IMMEDIATE; {PEOPLE_SCHEMA}"
            f"UPDATE meta SET value = '{FORMAT}' WHERE key = 'format'; COMMIT;"
        )


def write_empty(file: Path, meta: Mapping[str, str]) -> None:
    """Make the file under another name and rename it, so that it is whole or not there."""
    new = _beside(file, ".new")
    leftovers = [new, *(_beside(new, end) for end in ("-journal", "-wal", "-shm"))]
    try:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        connection = sqlite3.connect(new.as_uri(), uri=True, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {_SCHEMA} {PEOPLE_SCHEMA} COMMIT;")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
        finally:
            connection.close()
        put_in_place(new, file)
        _sync_folder(file.parent)
    except sqlite3.Error as error:
        raise in_words(error, file) from error
    except OSError as error:
        raise GalleryError(f"Cannot write the gallery {file.parent}: {error}.") from error


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the right to write to the gallery in a folder, without waiting for it."""
    card = folder / "writer.json"
    lock = FileLock(folder / "writer.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise GalleryLockedError(
            f"The gallery {folder} is being written by {_writer(card)}. "
            "Wait until that is done, or end it, and run this again."
        ) from error
    except OSError as error:
        raise GalleryError(
            f"The gallery {folder} cannot be written: {error}. It can still be read; to change "
            "it, get the right to write there or copy the folder to where you have it."
        ) from error
    try:
        try:
            new = _beside(card, ".new")
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            writer = {"pid": os.getpid(), "host": platform.node(), "started": started}
            new.write_text(json.dumps(writer), encoding="utf-8")
            put_in_place(new, card)
        except OSError as error:
            raise GalleryError(f"The gallery {folder} cannot be written: {error}.") from error
        yield
    finally:
        # Windows does not delete the card while someone reads it; the next writer replaces it.
        with suppress(OSError):
            card.unlink()
        lock.release()


def _writer(card: Path) -> str:
    try:
        who = json.loads(card.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # one that has this moment begun or ended


def _refuse_what_is_no_database(file: Path) -> None:
    """Look at the first bytes before SQLite does, which would take an empty file for a new one."""
    try:
        with file.open("rb") as stream:
            header = stream.read(100)
    except (FileNotFoundError, NotADirectoryError) as error:
        refuse_orphaned_wal(file)
        raise GalleryNotFoundError(
            f"There is no gallery in {file.parent}: it holds no {FILE}. "
            f"Make one with: face2vec index PHOTOS --gallery {file.parent}"
        ) from error
    except OSError as error:
        raise GalleryError(f"The gallery {file.parent} cannot be read: {error}.") from error
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise _damaged(file, "it does not begin as an SQLite file does")


def refuse_orphaned_wal(file: Path) -> None:
    """Refuse where the file is missing and its ``-wal`` is not, which may hold a part of it."""
    wal = _beside(file, "-wal")
    if size_of(wal):
        raise GalleryDamagedError(
            f"{file} is missing, but {wal.name} is there and may hold a part of it. Nothing was "
            "changed. Put the file back, or delete the folder and index the photos again."
        )


def _damaged(file: Path, what: str) -> GalleryDamagedError:
    return GalleryDamagedError(
        f"The gallery file {file} is damaged: {what}. Nothing was overwritten. Put back a copy of "
        "the folder, or move it away and index the photos again."
    )


def in_words(error: sqlite3.Error, file: Path) -> GalleryError:
    """What an error of SQLite at a file in a gallery's folder means."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
        code == sqlite3.SQLITE_IOERR_SHORT_READ
    ):
        return _damaged(file, str(error))
    folder = file.parent
    kept = "Everything up to the last batch is kept"
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return GalleryError(
                f"No room is left on the disk of the gallery {folder}. {kept}: "
                "free some space and run the same command again."
            )
        case sqlite3.SQLITE_IOERR:
            return GalleryError(
                f"The disk of the gallery {folder} does not take or give what it should "
                f"({error}); it may be full or failing. {kept}: see to the disk and run the same "
                "command again."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return GalleryError(
                f"The gallery {folder} cannot be opened or written ({error}). "
                "Get the right to do so, or copy the folder to where you have it."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return GalleryLockedError(
                f"Another program keeps {file} locked ({error}). Close it and try again."
            )
    return GalleryError(f"The gallery {folder} cannot do that: {error}.")


def _pages_in_wal(wal: Path, page_bytes: int) -> set[int]:
    """Numbers of the pages that wait to be brought into the file (sqlite.org/walformat.html)."""
    pages = set()
    if size_of(wal):
        with wal.open("rb") as stream:
            salts = stream.read(32)[16:24]
            while len(frame := stream.read(24)) == 24 and frame[8:16] == salts:
                pages.add(int.from_bytes(frame[:4], "big"))
                stream.seek(page_bytes, os.SEEK_CUR)
    return pages


def _beside(file: Path, end: str) -> Path:
    return file.with_name(file.name + end)


def size_of(file: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
