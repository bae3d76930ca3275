"""Paths as users write them, and atomic writing: a file has its old or its new content."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

ON_WINDOWS = os.name == "nt"
REPLACE_SECONDS = 5.0


def expanded(path: str | os.PathLike[str]) -> str:
    """A path as text, with ``~`` or ``~user`` at its start replaced by the home folder.

    A shell does this only at the start of a word, not in ``--gallery=~/photos``, and not at all
    for Python code or for a path between quotes. ``./~`` is a folder with that name.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - it does not raise without a home


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file, replacing an existing file of that name.

    Windows refuses this while any process has the old file open. Readers of a gallery open its
    files only briefly, so on Windows the renaming is tried again for some seconds.

    Args:
        new: the file to rename.
        path: its new name.

    Raises:
        OSError: the file cannot be renamed; both files are unchanged.
    """
    end = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            new.replace(path)
        except PermissionError:
            if not ON_WINDOWS or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content replaces a file if the block ends without an error.

    The content is first written to a file of the same name with the suffix ``.new``. Only one
    process at a time may write a file.

    Args:
        path: the file to write.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    new = path.with_name(path.name + ".new")
    try:
        with new.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write values to an indented JSON file, atomically; NaN becomes null.

    Args:
        path: the file to write.
        values: JSON-able values.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    with written_whole(path) as stream:
        stream.write(json.dumps(_without_nan(values), indent=2).encode() + b"\n")


def json_line(values: Any) -> str:
    """Encode values as JSON on one line; NaN becomes null, because JSON has no NaN."""
    return json.dumps(_without_nan(values))


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if values != values else values
