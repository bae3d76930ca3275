"""Paths and text files as users write them; files that are written whole, and read safely.

After an interruption, a file has its old or its new content. A folder may come from somebody else:
no name in it is written through, and whatever is not a regular file is refused.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import secrets
import stat
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from face2vec.errors import SettingsError, not_written

ON_WINDOWS = os.name == "nt"
_MOSTLY = 0.75  # of the characters of UTF-16 text without a byte order mark are ASCII
REPLACE_SECONDS = 5.0
LEFTOVER_SECONDS = 86_400.0
"""Age from which on an unfinished file that `written_whole` finds is one of a killed process."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_OTHER_SCHEMES = frozenset(("file", "local", "http", "https", "milvus"))
_SIGNED = re.compile(r"(?i)[?&](x-amz-(signature|credential|security-token)|sig|signature|token)=")

_TOKEN_BYTES = 16
_UNFINISHED = re.compile(rf"(.+)\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}\.new(-journal|-wal|-shm)?")
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class IrregularFileError(OSError):
    """A link, a pipe, a device or a folder is where a regular file should be."""

    filename: str


def is_object(path: object) -> bool:
    """Whether a path is the address of an object or of a folder of objects: ``s3://bucket/a.jpg``.

    ``file://``, ``http://`` and ``https://`` are none, nor is the address of a gallery in Milvus.
    """
    found = _SCHEME.match(path) if isinstance(path, str) else None
    return found is not None and found[1].lower() not in _OTHER_SCHEMES


def object_address(text: str) -> str:
    """The address of an object in the form in which galleries store it.

    The scheme is in lower case, and there is no ``/`` at the end.

    Args:
        text: an address, see `is_object`.

    Raises:
        SettingsError: it has a password or a signature, which the message does not show, or names
            nothing.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    authority, _, _ = rest.partition("/")
    port = authority.rpartition("@")[2].partition(":")[2]
    has_password = re.match("[^/@]*:[^@]*@", rest) is not None and "@" in authority
    if not authority.startswith("arn:"):
        has_password |= bool(port) and not port.isdecimal()
    if has_password or _SIGNED.search(rest):
        raise SettingsError(
            f"an address of {scheme}:// has a password or a signature in it, which would be "
            "stored in the gallery; leave it out, and give it as the programs of that store take "
            "it, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials"
        )
    if not rest.strip("/"):
        raise SettingsError(f"{scheme}:// names no bucket; give {scheme}://BUCKET/FOLDER")
    return f"{scheme}://{rest.rstrip('/')}"


def expanded(path: str | os.PathLike[str]) -> str:
    """A path as text, with ``~`` or ``~user`` at its start replaced by the home folder.

    A shell does this only at the start of a word, not in ``--gallery=~/photos``, and not at all
    for Python code or for a path between quotes. ``./~`` is a folder with that name. Of an object
    it is the `object_address`.

    Raises:
        SettingsError: it is an address with a password.
    """
    text = os.fspath(path)
    if is_object(text):
        return object_address(text)
    return os.path.expanduser(text)  # noqa: PTH111 - it does not raise without a home


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), in which names of people and files are compared.

    The same name typed on macOS and on Linux can differ: é is one character, or e and an accent.
    """
    return unicodedata.normalize("NFC", text)


_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800"
"""Characters that show nothing although they count as letters or marks."""


def is_unseen(character: str) -> bool:
    """Whether a character shows nothing by itself, such as a zero-width space."""
    return (
        unicodedata.category(character) == "Cf"
        or character in _BLANKS
        or "\ufe00" <= character <= "\ufe0f"
    )


_DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def trimmed(name: str) -> str:
    """A name without spaces around it, and without characters there that show nothing.

    Those that change the direction of text stay, for they belong to names in some scripts.
    """

    def is_blank(character: str) -> bool:
        unseen = is_unseen(character) and character not in _DIRECTIONS
        return unseen or character.isspace()

    start, end = 0, len(name)
    while start < end and is_blank(name[start]):
        start += 1
    while end > start and is_blank(name[end - 1]):
        end -= 1
    return name[start:end]


def look_of(name: str) -> str:
    """A name in a form that is the same for names that look the same.

    Composed and decomposed characters, kinds and numbers of spaces, and characters that show
    nothing make no difference. Use ``casefold`` on it where upper and lower case do not either.
    """
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if not is_unseen(c))
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def paths_to(path: str | os.PathLike[str]) -> Iterator[str]:
    """Absolute paths under which a file may have been recorded, the most literal first.

    They are: the path as it stands; with the links of its folder followed; with all links
    followed; and as its folders spell it, which matters where ``A.jpg`` and ``a.jpg``, or é in its
    two forms, are one file. An object has one address.
    """
    if is_object(os.fspath(path)):
        yield expanded(path)
        return
    given = Path(expanded(path)).absolute()
    if "\0" in str(given):  # no file has such a name
        return
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


def new_beside(path: Path) -> Path:
    """Create an empty file for the next content of a file, under a name that nobody can guess.

    A link or file that was put there before is never opened. The caller renames or deletes it;
    otherwise `delete_leftovers` does.

    Args:
        path: the file that it will replace.

    Returns:
        Path of the new file, in the same folder.

    Raises:
        OSError: it cannot be created.
    """
    new = path.with_name(f"{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS
    os.close(os.open(new, flags, 0o666))
    return new


def delete_leftovers(folder: Path, name: str | None = None, seconds: float = 0.0) -> None:
    """Delete the unfinished files of processes that were killed.

    Args:
        folder: where they are; nobody writes there, unless ``seconds`` is given.
        name: only those that were to become the file of this name; None for all.
        seconds: only those that have not been written to for so long.

    Raises:
        OSError: the folder cannot be read, or a file cannot be deleted.
    """
    latest = time.time() - seconds
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if _UNFINISHED.fullmatch(entry.name)]
    for entry in found:
        match = _UNFINISHED.fullmatch(entry.name)
        if match is None or name not in (None, match[1]):
            continue
        with suppress(FileNotFoundError):
            if not seconds or entry.stat(follow_symlinks=False).st_mtime < latest:
                Path(entry.path).unlink()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that may be anything: neither waits nor follows a link.

    Raises:
        FileNotFoundError: there is no such file.
        IrregularFileError: it is a link, a pipe, a device or a folder.
        OSError: it cannot be read.
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: Path, *, writable: bool = False) -> int:
    """What `open_regular` does, as a descriptor.

    Args:
        path: the file.
        writable: open it for writing, too.

    Raises:
        FileNotFoundError: there is no such file.
        IrregularFileError: it is a link, a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    refuse_irregular(path)
    how = os.O_RDWR if writable else os.O_RDONLY
    descriptor = os.open(path, how | _NO_LINKS | _BINARY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IrregularFileError(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_root(path: str) -> bool:
    """Whether a path is the root of a file system, as ``/`` is."""
    absolute = Path(os.path.normpath(Path(expanded(path)).absolute()))
    return absolute == absolute.parent


def refuse_irregular(path: Path) -> None:
    """Check that a path is a regular file, and not a link to one, or does not exist.

    Raises:
        IrregularFileError: it is a link, a pipe, a device or a folder.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            what = "a link, not a regular file" if stat.S_ISLNK(mode) else "not a regular file"
            raise IrregularFileError(errno.EINVAL, what, str(path))


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose content replaces a file if the block ends without an error.

    The content is first written to a file beside it, see `new_beside`. What killed processes have
    left there is deleted after a day.

    Args:
        path: the file to write. A link is replaced, not followed.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    new = new_beside(path)
    try:
        with new.open("r+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        delete_leftovers(path.parent, path.name, LEFTOVER_SECONDS)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a file to be written in a block, with words for what goes wrong.

    Args:
        path: the file; ``~`` at its start is replaced by the home folder.

    Raises:
        NotWrittenError: an error of the system in the block.
        SettingsError: it is no path of a file.
    """
    given = expanded(path)
    if "\0" in given:
        raise SettingsError(f"{given!r} is no path: it has a NUL character")
    try:
        yield Path(given)
    except OSError as error:
        raise not_written(error, given) from error


def write_json(path: Path, values: Any) -> None:
    """Write values to an indented JSON file, atomically; NaN becomes null.

    Args:
        path: the file to write.
        values: JSON-able values.

    Raises:
        NotWrittenError: the file cannot be written; an existing file is unchanged.
    """
    with writing(path), written_whole(path) as stream:
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
