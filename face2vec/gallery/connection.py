"""The SQLite file of a gallery: creating, locking and opening it; its errors as our own."""

from __future__ import annotations

import io
import json
import os
import platform
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from face2vec.errors import (
    NOT_WRITABLE,
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryNotFoundError,
)
from face2vec.files import (
    IrregularFileError,
    delete_leftovers,
    new_beside,
    open_regular,
    put_in_place,
    refuse_irregular,
    written_whole,
)
from face2vec.forks import abandon, renew_after_fork
from face2vec.gallery.descriptors import Use, descriptor
from face2vec.gallery.schema import FILE, WHOLE_SCHEMA, migrate
from face2vec.gallery.scrub import LARGEST_PAGE, pages_in_wal, scrub
from face2vec.stored import StoredValueError

# An embedding of dimension 512 takes about 2.1 kB: SQLite's default page of 4 kB holds one and
# wastes the rest, 16 kB hold seven. Embeddings have their own table, because a search reads only
# faces, of which a page holds a hundred.
_PAGE_BYTES = 16384
_BUSY_SECONDS = 5.0
OPENING_SECONDS = 30.0
_STEPS_PER_LOOK = 10_000  # of SQLite's virtual machine, some hundred microseconds
CARD, LOCK = "writer.json", "writer.lock"
_CARD_BYTES = 1 << 16
# Unfinished files of older versions.
_FORMER_LEFTOVERS = (
    *(f"{name}.new" for name in ("index.faiss", "index.faiss.upgraded", CARD)),
    *(f"{FILE}.new{end}" for end in ("", "-journal", "-wal", "-shm")),
)
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
        use: keeps descriptors of the file open, see `descriptors`.
    """

    immutable = False
    mmap = False
    known: Any = None
    use: Use | None = None

    def close(self) -> None:
        """Close it; calling it again does nothing."""
        super().close()
        if self.use is not None:
            self.use.end()


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
        except (sqlite3.Error, StoredValueError) as error:
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
        # The pages that the -wal lists are scrubbed before it is emptied, see `checkpoint`.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.checkpoint(connection, wait=False)  # what a killed writer has left
        migrate(connection)
        return connection

    def checkpoint(self, connection: Connection, *, wait: bool) -> bool:
        """Move all pages of the ``-wal`` to the file, scrub them there, and empty the ``-wal``.

        Args:
            connection: the writer's, outside of a transaction.
            wait: wait some seconds for readers of older states.

        Returns:
            Whether no reader prevented it. Otherwise the ``-wal`` keeps all its pages.

        Raises:
            GalleryError: the file cannot be read or written.
        """
        wal = _beside(self.path, "-wal")
        if not size_of(wal):
            return True
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        if not wait:
            connection.execute("PRAGMA busy_timeout = 0")
        try:
            pages = pages_in_wal(wal, page_bytes)
            how = "FULL" if wait else "PASSIVE"
            busy, count, moved = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
            if busy or count != moved:
                return False
            (last,) = connection.execute("PRAGMA page_count").fetchone()
            if last < LARGEST_PAGE:
                with descriptor(self.path, writable=True) as raw:
                    file = io.FileIO(raw, "r+", closefd=False)
                    scrub(file, page_bytes, (page for page in pages if page <= last))
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        except OSError as error:
            raise GalleryError(f"cannot write the gallery {self.folder}: {error}") from error
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * _BUSY_SECONDS)}")

    def wal_bytes(self) -> int:
        """Size of the ``-wal``."""
        return size_of(_beside(self.path, "-wal"))

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
            missing -= pages_in_wal(_beside(self.path, "-wal"), page_bytes)
            if missing:
                raise self.damaged(f"its end is missing, {len(missing)} of {pages} pages")

    def damaged(self, what: str) -> GalleryDamagedError:
        """The error for a damaged file."""
        return _damaged(self.path, what)

    def error_for(self, error: sqlite3.Error | StoredValueError) -> GalleryError:
        """The error of face2vec for an error of SQLite, or for a value of the wrong type."""
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
        try:
            use = Use(self.path)
        except OSError as error:
            raise GalleryError(f"the gallery {self.folder} cannot be read: {error}") from error
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{how}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,  # transactions begin and end explicitly
            check_same_thread=False,  # used by one thread at a time
            factory=Connection,
        )
        connection.use = use
        try:
            defend(connection)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._open.append(connection)
        return connection


def defend(connection: sqlite3.Connection) -> None:
    """Settings for a database that may come from somebody else (sqlite.org/security.html)."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    configure = getattr(connection, "setconfig", None)  # from Python 3.12 on
    if configure is not None:
        configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)  # type: ignore[attr-defined,unused-ignore]


@contextmanager
def limited_time(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Interrupt statements after some seconds, for what is quick in any sound file.

    Raises:
        sqlite3.OperationalError: a statement took longer.
    """
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_PER_LOOK)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def write_empty(file: Path, meta: Mapping[str, str]) -> None:
    """Create the file under another name and rename it, so that it is complete or missing.

    The caller holds ``writer_lock``.

    Raises:
        GalleryError: the file cannot be written.
    """
    try:
        new = new_beside(file)
        try:
            _fill(new, meta)
            put_in_place(new, file)
        finally:
            for end in ("", "-journal", "-wal", "-shm"):
                _beside(new, end).unlink(missing_ok=True)
        _sync_folder(file.parent)
    except sqlite3.Error as error:
        raise gallery_error(error, file) from error
    except OSError as error:
        raise GalleryError(f"cannot write the gallery {file.parent}: {error}") from error


def _fill(new: Path, meta: Mapping[str, str]) -> None:
    """Write the tables of an empty gallery to an empty file.

    It is in WAL mode at the end only: closing a connection does not report that a checkpoint has
    failed, as on a full disk, and the tables would be in the ``-wal`` alone.
    """
    connection = sqlite3.connect(new.as_uri(), uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN; {WHOLE_SCHEMA} COMMIT;")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


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
    card = folder / CARD
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        refuse_irregular(folder / LOCK)  # older filelock follows a link, and empties its target
        lock.acquire()
    except Timeout as error:
        raise GalleryLockedError(
            f"the gallery {folder} is being written by {_writer(card)}; "
            "wait until it has finished, or stop it, and run this again"
        ).coded("written-elsewhere", writer=_writer(card)) from error
    except IrregularFileError as error:
        raise irregular(error) from error
    except OSError as error:
        raise GalleryError(
            f"the gallery {folder} cannot be written: {error}; it can still be read; to change it, "
            "get write permission or copy the folder"
        ).coded(NOT_WRITABLE) from error
    try:
        try:
            with suppress(PermissionError):  # Windows does not delete a file that is being read
                delete_leftovers(folder)
                for leftover in _FORMER_LEFTOVERS:
                    (folder / leftover).unlink(missing_ok=True)
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            writer = {"pid": os.getpid(), "host": platform.node(), "started": started}
            with written_whole(card) as stream:
                stream.write(json.dumps(writer).encode())
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
        with open_regular(card) as stream:
            who = json.loads(stream.read(_CARD_BYTES))
        return f"process {who['pid']} on {who['host']} since {who['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it has just started or ended


def _refuse_other_files(file: Path) -> None:
    """Check the first bytes before SQLite does, which accepts an empty file as a new database."""
    try:
        with descriptor(file) as raw:
            header = os.read(raw, 100)
        for end in ("-wal", "-shm", "-journal"):
            refuse_irregular(_beside(file, end))
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
    except IrregularFileError as error:
        raise irregular(error) from error
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


def irregular(error: IrregularFileError) -> GalleryError:
    """The error for something in a gallery's folder that is not a regular file."""
    return GalleryError(
        f"{error.filename} is {error.strerror}; a gallery from somebody else can use it to reach "
        "other files; nothing was changed; delete it, or copy a gallery with its files and no links"
    )


def _damaged(file: Path, what: str) -> GalleryDamagedError:
    return GalleryDamagedError(
        f"the gallery file {file} is damaged: {what}; nothing was overwritten; restore a copy of "
        "the folder, or move it away and index the photos again"
    )


def gallery_error(error: sqlite3.Error | StoredValueError, file: Path) -> GalleryError:
    """The error of face2vec for an error of SQLite at a file in a gallery's folder."""
    if isinstance(error, StoredValueError):
        return _damaged(file, str(error))
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
            ).coded("disk-full", folder=str(folder))
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
            ).coded("locked", file=str(file))
    return GalleryError(f"the gallery {folder} reports: {error}")


def _beside(file: Path, end: str) -> Path:
    return file.with_name(file.name + end)


def size_of(file: Path) -> int:
    """Size of a file in bytes, 0 if it does not exist."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
