"""Waits until files that are being written are complete: their size and times stay the same."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass


@dataclass
class _Waiting:
    state: tuple[int, int] | None
    since: float


class Settling:
    """Files that have changed, until they have been the same for some time.

    The caller gives the time, in seconds of any clock that never goes back.

    Args:
        seconds: how long size and modification time must stay the same.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._files: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._files)

    def note(self, path: str, now: float) -> None:
        """A file has changed; its time begins again."""
        self._files[path] = _Waiting(state_of(path), now)

    def ready(self, now: float) -> list[str]:
        """The files that are complete, in order of path; they are no longer waited for.

        A file that is gone, or is empty, is dropped: it is noted again when it is written.
        """
        done = []
        for path, waiting in sorted(self._files.items()):
            state = state_of(path)
            if state is None or state[0] == 0:
                del self._files[path]
            elif state != waiting.state:
                self._files[path] = _Waiting(state, now)
            elif now - waiting.since >= self.seconds:
                del self._files[path]
                done.append(path)
        return done


def state_of(path: str) -> tuple[int, int] | None:
    """(size in bytes, mtime_ns) of a regular file, or None."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
