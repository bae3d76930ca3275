"""Files that are written whole or not at all, whatever ends the process in between."""

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


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file, and replace the file that has that name now.

    Windows refuses this while any process has the old file open. Readers of a gallery open its
    files for moments, so there it is tried again for some seconds.

    Raises:
        OSError: it cannot be renamed; both files stay as they were.
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
    """A stream whose content takes the place of a file when the block ends without an error.

    It is written beside the file, to a name that ends in ``.new``; one process at a time.

    Raises:
        OSError: it cannot be written; the file stays as it was.
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
    """Write values for people and programs to read, whole or not at all; null for NaN.

    Raises:
        OSError: it cannot be written; the file stays as it was.
    """
    with written_whole(path) as stream:
        stream.write(json.dumps(_known(values), indent=2).encode() + b"\n")


def json_line(values: Any) -> str:
    """Values for programs, on one line; null where a number is not known, for JSON has no NaN."""
    return json.dumps(_known(values))


def _known(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _known(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_known(value) for value in values]
    return None if values != values else values
