"""Changes of files in folders, as the operating system tells them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from face2vec.errors import MissingExtraError
from face2vec.watch.settling import state_of

STEP_MS, DEBOUNCE_MS = 50, 400
POLL_SECONDS = 5.0
"""Seconds between two looks through all files, where the system does not tell of changes."""

_Identity = tuple[int, int]


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
    before: dict[str, _Identity] | None = None
    while not stop.is_set():
        there = _identities(folders)
        if before is not None and there != before:
            missed += _told(before, there, say)
        before = there
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
                if _identities(folders) != there:
                    break
        except RuntimeError as error:
            # Such as for a name that is not valid Unicode, again for each file in such a folder.
            say(
                f"the system's notifications have failed ({error}); the folders are looked through "
                f"every {POLL_SECONDS:g} s instead"
            )
            yield from _polled(folders, there, stop, say)
            return
        except FileNotFoundError:  # a folder that has gone just now
            continue


def _polled(
    folders: Sequence[str],
    known: dict[str, _Identity],
    stop: threading.Event,
    say: Callable[[str], object],
) -> Iterator[Look]:
    """Look through all folders again and again; all of it counts as changed at first."""
    before: dict[str, tuple[int, int]] = {}
    yield Look(again=list(known))
    while not stop.is_set():
        there = _identities(folders)
        _told(known, there, say)
        known, inside = there, tuple(os.path.join(one, "") for one in there)  # noqa: PTH118
        now = {path: state for folder in there for path, state in _files(folder)}
        gone = [path for path in before.keys() - now.keys() if path.startswith(inside)]
        changed = [path for path, state in now.items() if before.get(path, state) != state]
        new = [path for path in now.keys() - before.keys() if before]
        yield Look([*((True, path) for path in gone), *((False, path) for path in changed + new)])
        # Of a folder that is missing nothing is known.
        before = {p: s for p, s in before.items() if not p.startswith(inside)} | now
        stop.wait(POLL_SECONDS)


def _files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path, and size and modification time, of each file in a folder and below."""
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)  # noqa: PTH118
            if (state := state_of(path)) is not None:
                yield path, state


def _identities(folders: Sequence[str]) -> dict[str, _Identity]:
    """What each folder is that is not missing, whatever its path."""
    found = {}
    for folder in folders:
        with suppress(OSError):
            status = os.stat(folder)  # noqa: PTH116
            found[folder] = status.st_dev, status.st_ino
    return found


def _told(
    before: dict[str, _Identity],
    now: dict[str, _Identity],
    say: Callable[[str], object],
) -> list[str]:
    """Say which folders have gone or are back; returns the latter."""
    for folder in before.keys() - now.keys():
        say(f"the folder {folder} is missing; it is followed again when it is back")
    back = [folder for folder, known in now.items() if before.get(folder) != known]
    for folder in back:
        say(f"the folder {folder} is back, and is followed again")
    return back
