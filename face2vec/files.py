"""Paths and text files as users write them, and atomic writing: old or new content, no mixture."""

from __future__ import annotations

import codecs
import json
import os
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from face2vec.errors import SettingsError

ON_WINDOWS = os.name == "nt"
_MOSTLY = 0.75  # of the characters of UTF-16 text without a byte order mark are ASCII
REPLACE_SECONDS = 5.0


def expanded(path: str | os.PathLike[str]) -> str:
    """A path as text, with ``~`` or ``~user`` at its start replaced by the home folder.

    A shell does this only at the start of a word, not in ``--gallery=~/photos``, and not at all
    for Python code or for a path between quotes. ``./~`` is a folder with that name.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - it does not raise without a home


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), in which names of people and files are compared.

    The same name typed on macOS and on Linux can differ: é is one character, or e and an accent.
    """
    return unicodedata.normalize("NFC", text)


def paths_to(path: str | os.PathLike[str]) -> Iterator[str]:
    """Absolute paths under which a file may have been recorded, the most literal first.

    They are: the path as it stands; with the links of its folder followed; with all links
    followed; and as its folders spell it, which matters where ``A.jpg`` and ``a.jpg``, or é in its
    two forms, are one file.
    """
    given = Path(expanded(path)).absolute()
    tried = {""}
    for way in (_literal, _with_real_folder, _real, _spelled):
        found = way(given)
        if found not in tried:  # one by one, because the last ways are slow
            tried.add(found)
            yield found


def _literal(path: Path) -> str:
    """The path as it stands; empty if ".." in it can lead elsewhere, after a link to a folder."""
    return "" if ".." in path.parts else str(path)


def _with_real_folder(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _spelled(path: Path) -> str:
    """The path with the names that its folders list; names that are not there stay as they are."""
    path = path.resolve()
    spelled = path.anchor
    for name in path.parts[1:]:
        below = os.path.join(spelled, name)  # noqa: PTH118
        try:
            names = os.listdir(spelled)  # noqa: PTH208
        except OSError:
            names = []
        if name not in names:
            alike = [one for one in names if _alike(one) == _alike(name)]
            same = [one for one in alike if _is_same(os.path.join(spelled, one), below)]  # noqa: PTH118
            by_form = [one for one in alike if composed(one) == composed(name)]
            below = os.path.join(spelled, (same or by_form or [name])[0])  # noqa: PTH118
        spelled = below
    return spelled


def _alike(name: str) -> str:
    return composed(name).casefold()


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:
        return False


def decoded(content: bytes, errors: str = "surrogateescape") -> str:
    """Text of a file that is UTF-8, or UTF-16 with or without a byte order mark.

    Args:
        content: the bytes of the file.
        errors: what to do with bytes that are not valid UTF-8, see `bytes.decode`.

    Raises:
        UnicodeDecodeError: the text is not valid, and ``errors`` is "strict".
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if content.startswith(mark):
            return content.removeprefix(mark).decode(encoding, errors)
    for encoding in ("utf-16-le", "utf-16-be") if b"\0" in content else ():
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        # A list of paths that end with NUL can be valid UTF-16, too, but of unusual characters.
        is_ascii = sum(c < "\x80" for c in text) > _MOSTLY * len(text)
        if "\0" not in text and ("\n" in text or (is_ascii and not {*text}.isdisjoint(".{"))):
            return text
    return content.decode("utf-8", errors)


def text_of(file: Path) -> str:
    """Read a text file that is UTF-8 or UTF-16.

    Raises:
        SettingsError: the file is neither.
    """
    try:
        return decoded(file.read_bytes(), errors="strict")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 ({error}); save it as UTF-8") from error


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
