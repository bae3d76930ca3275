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

from face2vec.files import open_descriptor, refuse_irregular
from face2vec.forks import run_after_fork

_Key = tuple[int, int]
"""Device and inode of a file."""

_lock = threading.Lock()
_uses: Counter[_Key] = Counter()
_idle: dict[_Key, list[tuple[bool, int]]] = {}
"""Descriptors that nobody reads now, and whether they may be written to."""


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
    """A descriptor of a file, for one caller, at any place of the file.

    Args:
        path: the file.
        writable: open it for reading and writing, not for reading alone.

    Raises:
        FileNotFoundError: there is no such file.
        IrregularFileError: it is a link, a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    refuse_irregular(path)
    found = _taken(_key(path.stat()), writable)
    if found is None:
        found = open_descriptor(path, writable=writable)
    try:
        yield found
    finally:
        _give_back(found, writable)


def _taken(key: _Key, writable: bool) -> int | None:
    with _lock:
        kept = _idle.get(key, [])
        for place, (may_write, found) in enumerate(kept):
            if may_write or not writable:
                del kept[place]
                return found
    return None


def _give_back(found: int, writable: bool) -> None:
    key = _key(os.fstat(found))
    with _lock:
        if _uses[key]:
            _idle.setdefault(key, []).append((writable, found))
        else:
            os.close(found)


def _leave(key: _Key) -> None:
    with _lock:
        _uses[key] -= 1
        if not _uses[key]:
            del _uses[key]
            for _, found in _idle.pop(key, []):
                os.close(found)


def _key(status: os.stat_result) -> _Key:
    return status.st_dev, status.st_ino


@run_after_fork
def _renew() -> None:
    """Forget the connections of the parent process, whose locks this one does not have."""
    global _lock
    _lock = threading.Lock()
    _uses.clear()
    for kept in _idle.values():
        for _, found in kept:
            os.close(found)
    _idle.clear()
