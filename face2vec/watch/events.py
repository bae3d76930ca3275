"""Changes of files in folders, as the operating system tells them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from face2vec.errors import MissingExtraError

STEP_MS, DEBOUNCE_MS = 50, 400


@dataclass(frozen=True)
class Look:
    """What has happened since the look before.

    Attributes:
        changes: (whether it was deleted, path) of each change.
        again: folders of which some changes may have been missed, so that all of it counts as
            changed.
    """

    changes: list[tuple[bool, str]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def looks(
    folders: Sequence[str],
    every: float,
    stop: threading.Event,
    say: Callable[[str], object],
) -> Iterator[Look]:
    """Look for changes below folders until ``stop`` is set.

    A folder that goes away, such as that of a disk which is disconnected, is followed again when it
    is back. Subfolders that must not be read are left out.

    Args:
        folders: absolute paths, links resolved.
        every: seconds between two looks, if nothing changes.
        stop: ends it.
        say: is told what a person should know.

    Raises:
        MissingExtraError: watchfiles is not installed.
    """
    try:
        import watchfiles
    except ImportError as error:
        raise MissingExtraError("watching folders", "watchfiles", "watch") from error
    return _looks(watchfiles, folders, every, stop, say)


def _looks(
    watchfiles: Any,
    folders: Sequence[str],
    every: float,
    stop: threading.Event,
    say: Callable[[str], object],
) -> Iterator[Look]:
    missed: list[str] = []
    while not stop.is_set():
        there = {folder: known for folder in folders if (known := _identity(folder))}
        if not there:
            stop.wait(every)
            yield Look()
            continue
        found = watchfiles.watch(
            *there,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            rust_timeout=max(STEP_MS, int(every * 1000)),
            yield_on_timeout=True,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        try:
            for changes in found:
                deleted = watchfiles.Change.deleted
                yield Look([(kind == deleted, path) for kind, path in changes], missed)
                missed = []
                if (now := {f: k for f in folders if (k := _identity(f))}) != there:
                    missed = _told(there, now, say)
                    break
        except RuntimeError as error:
            # The name of a file is not valid Unicode: the library stops and loses what it knew.
            say(f"{error}; all files of the folders are looked at again")
            missed = list(there)
        except FileNotFoundError:  # a folder that has gone just now
            continue


def _identity(folder: str) -> tuple[int, int] | None:
    """What a folder is, whatever its path; None if it is missing."""
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _told(
    before: dict[str, tuple[int, int]],
    now: dict[str, tuple[int, int]],
    say: Callable[[str], object],
) -> list[str]:
    """Say which folders have gone or are back; returns the latter."""
    for folder in before.keys() - now.keys():
        say(f"the folder {folder} is missing; it is followed again when it is back")
    back = [folder for folder, known in now.items() if before.get(folder) != known]
    for folder in back:
        say(f"the folder {folder} is back, and is followed again")
    return back
