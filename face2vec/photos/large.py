"""Large photos are decoded a few at a time, by all threads and processes of a user together.

One can take a gigabyte while it is decoded. As many may be decoded at once as fit into a quarter of
the memory; the others wait. Each holds the lock of one of as many files in the folder for temporary
files. The system releases a lock when its process ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

LARGE = 64_000_000
"""Pixels from which a photo is large."""
EACH = 1 << 30
"""Bytes that decoding a large photo may take."""
SHARE = 4  # the part of the memory that all of them together may take is 1 / SHARE
_SECONDS = 0.05  # between two looks for a free place


class _Here(threading.local):
    """Whether this thread is decoding, and the place that it holds."""

    depth = 0
    lock: BaseFileLock | None = None


_here = _Here()


@contextmanager
def taking_turns() -> Iterator[None]:
    """A block in which one photo is decoded; a place that it has waited for is freed at its end."""
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1
        if _here.depth == 0 and _here.lock is not None:
            _here.lock.release()
            _here.lock = None


def wait_if_large(pixels: int) -> None:
    """Wait until a photo of so many pixels may be decoded, inside of `taking_turns`."""
    if pixels < LARGE or not _here.depth or _here.lock is not None:
        return
    while True:
        for place in range(places()):
            try:
                lock = FileLock(_file(place), timeout=0, thread_local=False)
                lock.acquire()
            except Timeout:
                continue
            except OSError:  # no folder for temporary files, so nobody waits
                return
            _here.lock = lock
            return
        time.sleep(_SECONDS)


@cache
def places() -> int:
    """How many large photos may be decoded at once, at least 1."""
    memory = 0
    with suppress(AttributeError, OSError, ValueError):  # Windows cannot tell
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(memory // SHARE // EACH, 1)


def _file(place: int) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"face2vec-large-photo-{user}-{place}.lock"
