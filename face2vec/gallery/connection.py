"""The SQLite file of a gallery: creating, locking and opening it; its errors as our own."""

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
from face2vec.forks import abandon, renew_after_fork
from face2vec.gallery.schema import FILE, IGNORED_SCHEMA, PEOPLE_SCHEMA, SCHEMA, migrate

# An embedding of dimension 512 takes about 2.1 kB: SQLite's default page of 4 kB holds one and
# wastes the rest, 16 kB hold seven. Embeddings have their own table, because a search reads only
# faces, of which a page holds a hundred.
_PAGE_BYTES = 16384
_BUSY_SECONDS = 5.0
_MMAP_BYTES = 1 << 40  # SQLite maps as much as it can, usually 2 GB


_NO_SHM = (
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
)
"""Errors of SQLite when it cannot create or enlarge the ``-shm``."""


class Connection(sqlite3.Connection):
    """One connection.

    Attributes:
        immutable: whether it was opened as a file that does not change.
        mmap: whether it maps the file to memory instead of copying pages.
        known: what `Snapshot` has read through it and does not need to read again.
    """

    immutable = False
    mmap = False
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
        renew_after_fork(self._renew)
        _refuse_other_files(self.path)

    def _renew(self) -> None:
        """Leave the connections to the parent process; SQLite allows nothing else."""
        abandon(*self._open)
        self._open = []
        self._idle = {False: [], True: []}

    def close(self) -> None:
        """Close all connections; calling it again does nothing."""
        self._closed = True
        for idle in self._idle.values():
            idle.clear()
        while self._open:
            self._open.pop().close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only connection inside one read transaction, for one caller.

        Errors of SQLite become errors of face2vec.
        """
        try:
            connection = self.borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self.give_back(connection)
        except sqlite3.Error as error:
            raise self.error_for(error) from error

    def borrow(self, mmap: bool = False) -> Connection:
        """A read-only connection; the caller gives it back.

        Args:
            mmap: map the file to memory, which is faster for scattered rows. The pages that are
                read count as memory of this process.

        Raises:
            GalleryError: the gallery is closed, or cannot be opened.
        """
        if self._closed:
            raise GalleryError(f"the gallery {self.folder} is closed; open it again")
        try:
            return self._idle[mmap].pop()
        except IndexError:
            connection = self._connect_reader()
        if mmap:
            connection.mmap = True
            connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
        return connection

    def give_back(self, connection: Connection) -> None:
        """End a reader's transaction and keep the connection for the next reader."""
        if connection not in self._open:  # it belongs to the parent process
            return
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if connection.immutable:
            self.disconnect(connection)
        else:
            self._idle[connection.mmap].append(connection)

    def connect_writer(self) -> Connection:
        """A connection that may change the file; the caller holds ``writer_lock``.

        A gallery of an older format is migrated.
        """
        connection = self._connect("mode=rw")
        connection.execute("PRAGMA foreign_keys = ON")
        # Overwrite deleted rows with zeros.
        connection.execute("PRAGMA secure_delete = ON")
        # NORMAL also protects from damage, but a power cut could lose the last batches, and an
        # index.faiss that was saved after them would be ahead of the gallery. One fsync per batch
        # costs little beside the networks.
        connection.execute("PRAGMA synchronous = FULL")
        # On macOS fsync leaves data in the disk's cache; on other systems these have no effect.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        migrate(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        """Close one connection, unless it belongs to the parent process."""
        if connection in self._open:
            self._open.remove(connection)
            connection.close()

    def refuse_truncated(self, connection: Connection) -> None:
        """Detect a missing end of the file while pages are in the ``-wal``; SQLite does not.

        Raises:
            GalleryDamagedError: pages are missing.
        """
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        whole = self.path.stat().st_size // page_bytes
        if whole < pages:
            missing = set(range(whole + 1, pages + 1))
            missing -= _pages_in_wal(_beside(self.path, "-wal"), page_bytes)
            if missing:
                raise self.damaged(f"its end is missing, {len(missing)} of {pages} pages")

    def damaged(self, what: str) -> GalleryDamagedError:
        """The error for a damaged file."""
        return _damaged(self.path, what)

    def error_for(self, error: sqlite3.Error) -> GalleryError:
        """The error of face2vec for an error of SQLite."""
        return gallery_error(error, self.path)

    def _connect_reader(self) -> Connection:
        """Connect read-only.

        In a read-only folder, and on a full disk, SQLite cannot create the ``-shm`` that it shares
        with a writer. With an empty ``-wal`` the file alone is the whole gallery, and is opened as
        immutable. Another user may still change it, so such a connection is used once.
        """
        try:
            return self._connect("mode=ro")
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode & 0xFF
                not in (
                    sqlite3.SQLITE_READONLY,
                    sqlite3.SQLITE_CANTOPEN,
                    sqlite3.SQLITE_FULL,
                )
                and error.sqlite_errorcode not in _NO_SHM
            ):
                raise
            if size_of(_beside(self.path, "-wal")):
                raise GalleryError(
                    f"the gallery {self.folder} has unfinished changes, and its folder is "
                    "read-only or its disk full; open it once with write permission and free "
                    "space, or copy the folder and open the copy"
                ) from error
        connection = self._connect("mode=ro&immutable=1")
        connection.immutable = True
        return connection

    def _connect(self, how: str) -> Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{how}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,  # transactions begin and end explicitly
            check_same_thread=False,  # used by one thread at a time
            factory=Connection,
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._open.append(connection)
        return connection


def write_empty(file: Path, meta: Mapping[str, str]) -> None:
    """Create the file under another name and rename it, so that it is complete or missing.

    Raises:
        GalleryError: the file cannot be written.
    """
    new = _beside(file, ".new")
    leftovers = [new, *(_beside(new, end) for end in ("-journal", "-wal", "-shm"))]
    try:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        connection = sqlite3.connect(new.as_uri(), uri=True, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN; {SCHEMA} {PEOPLE_SCHEMA} {IGNORED_SCHEMA} COMMIT;")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
        finally:
            connection.close()
        put_in_place(new, file)
        _sync_folder(file.parent)
    except sqlite3.Error as error:
        raise gallery_error(error, file) from error
    except OSError as error:
        raise GalleryError(f"cannot write the gallery {file.parent}: {error}") from error


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """The right to write to the gallery in a folder, without waiting for it.

    Raises:
        GalleryLockedError: another process has it.
        GalleryError: the folder cannot be written.
    """
    card = folder / "writer.json"
    lock = FileLock(folder / "writer.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise GalleryLockedError(
            f"the gallery {folder} is being written by {_writer(card)}; "
            "wait until it has finished, or stop it, and run this again"
        ) from error
    except OSError as error:
        raise GalleryError(
            f"the gallery {folder} cannot be written: {error}; it can still be read; to change it, "
            "get write permission or copy the folder"
        ) from error
    try:
        try:
            new = _beside(card, ".new")
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            writer = {"pid": os.getpid(), "host": platform.node(), "started": started}
            new.write_text(json.dumps(writer), encoding="utf-8")
            put_in_place(new, card)
        except OSError as error:
            raise GalleryError(f"the gallery {folder} cannot be written: {error}") from error
        yield
    finally:
        # Windows does not delete a file that is being read; the next writer replaces it.
        with suppress(OSError):
            card.unlink()
        lock.release()


def _writer(card: Path) -> str:
    try:
        who = json.loads(card.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has just started or ended


def _refuse_other_files(file: Path) -> None:
    """Check the first bytes before SQLite does, which accepts an empty file as a new database."""
    try:
        with file.open("rb") as stream:
            header = stream.read(100)
    except NotADirectoryError as error:
        raise GalleryNotFoundError(
            f"{file.parent} is not a folder, so it is not a gallery; give the folder of a gallery"
        ) from error
    except FileNotFoundError as error:
        refuse_orphaned_wal(file)
        raise GalleryNotFoundError(
            f"there is no gallery in {file.parent}: it has no {FILE}; "
            f"make one: face2vec index PHOTOS --gallery {file.parent}"
        ) from error
    except OSError as error:
        raise GalleryError(f"the gallery {file.parent} cannot be read: {error}") from error
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise _damaged(file, "it is not an SQLite file")


def refuse_orphaned_wal(file: Path) -> None:
    """Check that no ``-wal``, which may hold a part of the file, exists without the file.

    Raises:
        GalleryDamagedError: the file is missing and its ``-wal`` is not.
    """
    wal = _beside(file, "-wal")
    if size_of(wal):
        raise GalleryDamagedError(
            f"{file} is missing, but {wal.name} exists and may hold a part of it; nothing was "
            "changed; restore the file, or delete the folder and index the photos again"
        )


def _damaged(file: Path, what: str) -> GalleryDamagedError:
    return GalleryDamagedError(
        f"the gallery file {file} is damaged: {what}; nothing was overwritten; restore a copy of "
        "the folder, or move it away and index the photos again"
    )


def gallery_error(error: sqlite3.Error, file: Path) -> GalleryError:
    """The error of face2vec for an error of SQLite at a file in a gallery's folder."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
        code == sqlite3.SQLITE_IOERR_SHORT_READ
    ):
        return _damaged(file, str(error))
    folder = file.parent
    kept = "everything up to the last batch is kept"
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return GalleryError(
                f"the disk of the gallery {folder} is full; {kept}; "
                "free some space and run the same command again"
            )
        case sqlite3.SQLITE_IOERR:
            return GalleryError(
                f"the disk of the gallery {folder} cannot be read or written ({error}); it may be "
                f"full or failing; {kept}; check the disk and run the same command again"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return GalleryError(
                f"the gallery {folder} cannot be opened or written ({error}); "
                "get the permission, or copy the folder"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return GalleryLockedError(
                f"another program has locked {file} ({error}); close it and try again"
            )
    return GalleryError(f"the gallery {folder} reports: {error}")


def _pages_in_wal(wal: Path, page_bytes: int) -> set[int]:
    """Numbers of the pages in the ``-wal`` (sqlite.org/walformat.html)."""
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
    """Size of a file in bytes, 0 if it does not exist."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
