"""Reads and writes the file of an SQLite database beside the connections to it.

On POSIX systems, closing any descriptor of a file gives up all locks that the process has on the
file, also those of SQLite (sqlite.org/howtocorrupt.html, 2.2). Another process then takes the
``-wal`` and the ``-shm`` for unused, and this process reads nonsense. So while this process is
connected to a database, descriptors of its file are kept, and used again.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from face2vec.files import open_descriptor
from face2vec.forks import run_after_fork

_Key = tuple[int, int]
"""Device and inode of a file."""

_lock = threading.RLock()  # a `Use` may end while this thread collects garbage inside of it
_uses: Counter[_Key] = Counter()
_idle: dict[tuple[_Key, bool], list[int]] = {}
"""Descriptors that nobody uses now, by their file and whether it may be written to."""


class Use:
    """That this process is connected to a database; it begins before the connection.

    Args:
        path: the file of the database.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        key = _key(path.stat())
        with _lock:
            _uses[key] += 1
        self._end = weakref.finalize(self, _leave, key)
        self._end.atexit = False

    def end(self) -> None:
        """Call it after the connection is closed; calling it again does nothing."""
        self._end()


@contextmanager
def descriptor(path: Path, *, writable: bool = False) -> Iterator[int]:
    """A descriptor of a file, for one caller, at the start of the file.

    Args:
        path: the file.
        writable: open it for reading and writing, not for reading alone.

    Raises:
        FileNotFoundError: there is no such file.
        IrregularFileError: it is a link, a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    key = _key(path.lstat())
    with _lock:
        kept = _idle.get((key, writable))
        found = kept.pop() if kept else None
    if found is None:
        found = open_descriptor(path, writable=writable)
    try:
        os.lseek(found, 0, os.SEEK_SET)
        yield found
    finally:
        _give_back(found, writable)


def _give_back(found: int, writable: bool) -> None:
    key = _key(os.fstat(found))
    with _lock:
        if _uses[key]:
            _idle.setdefault((key, writable), []).append(found)
        else:
            os.close(found)


def _leave(key: _Key) -> None:
    with _lock:
        _uses[key] -= 1
        if not _uses[key]:
            del _uses[key]
            for writable in (False, True):
                for found in _idle.pop((key, writable), []):
                    os.close(found)


def _key(status: os.stat_result) -> _Key:
    return status.st_dev, status.st_ino


@run_after_fork
def _renew() -> None:
    """Forget the connections of the parent process, whose locks this one does not have."""
    global _lock
    _lock = threading.RLock()
    _uses.clear()
    for kept in _idle.values():
        for found in kept:
            os.close(found)
    _idle.clear()
