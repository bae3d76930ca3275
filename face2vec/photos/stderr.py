"""What libraries in C write to standard error by themselves becomes lines of the log."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("face2vec")

_lock = threading.Lock()
_inside = 0
_kept = _captured = -1


@contextmanager
def captured(words: re.Pattern[bytes], library: str) -> Iterator[None]:
    """Send lines that a library writes to standard error to the log, level INFO.

    The file descriptor belongs to the whole process, so other lines, of other threads, are
    captured too; they are written when the last block ends. Where the descriptor cannot be
    redirected, nothing is changed.

    Args:
        words: matches the beginning of the library's lines.
        library: its name, for the log.
    """
    _begin()
    try:
        yield
    finally:
        _end(words, library)


def _begin() -> None:
    global _inside, _kept, _captured
    with _lock:
        _inside += 1
        if _inside == 1:
            try:
                _kept = os.dup(2)
                with tempfile.TemporaryFile() as file:
                    _captured = os.dup(file.fileno())
                os.dup2(_captured, 2)
            except OSError:
                _kept = -1


def _end(words: re.Pattern[bytes], library: str) -> None:
    global _inside, _kept, _captured
    with _lock:
        _inside -= 1
        if _inside or _kept < 0:
            return
        os.dup2(_kept, 2)
        os.lseek(_captured, 0, os.SEEK_SET)
        with open(_captured, "rb") as file:
            lines = file.read().splitlines(keepends=True)
        others = [line for line in lines if not words.match(line)]
        for line in lines:
            if words.match(line):
                log.info("%s: %s", library, line.strip().decode("utf-8", "backslashreplace"))
        if others:
            os.write(_kept, b"".join(others))
        os.close(_kept)
        _kept = _captured = -1
