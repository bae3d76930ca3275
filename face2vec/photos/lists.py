r"""Lists of paths as people and other programs write them.

Programs differ in the encoding (PowerShell writes UTF-16), in the ends of lines (``find -print0``
ends each with a NUL, old Mac programs with CR), and in the form of a path (in quotes, or as a
``file://`` URL).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes
from urllib.request import url2pathname

from face2vec.files import ON_WINDOWS, decoded, expanded


def lines_of(content: bytes) -> list[str]:
    r"""The lines of a list that name something.

    Lines end with LF, CR LF, CR or NUL. Blank lines and lines that begin with ``#`` are left out,
    unless lines end with NUL: then every line is a path, whatever it contains.

    Args:
        content: UTF-8, or UTF-16 with or without a byte order mark. Bytes that are not valid UTF-8
            are kept as Python keeps them in file names.
    """
    text = decoded(content)
    if "\0" in text:
        return [line for line in text.split("\0") if line.strip("\r\n")]
    # Not str.splitlines, because a name may contain U+2028. CR alone ends lines only in a list
    # without LF, because a name may contain it.
    lines = text.split("\n") if "\n" in text else text.split("\r")
    lines = [line.removesuffix("\r") for line in lines]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def other_readings(line: str) -> Iterator[str]:
    """Further paths that a line can mean if it is not one as it stands, the likeliest first."""
    path = line.strip()
    if path[:1] in ('"', "'") and path[-1:] == path[:1] and len(path) > 2:
        path = path[1:-1]
    if path[:5].lower() == "file:":
        path = _of_url(path)
    path = expanded(path)
    yield path
    for form in ("NFC", "NFD"):
        yield unicodedata.normalize(form, path)


def _of_url(url: str) -> str:
    """The path of a ``file:`` URL (RFC 8089); a URL of another host is returned unchanged."""
    host, path = "", url[5:]
    if path.startswith("//"):
        host, _, path = path[2:].partition("/")
        path = f"/{path}"
    if host.lower() not in ("", "localhost"):
        return f"//{host}{url2pathname(path)}" if ON_WINDOWS else url
    if ON_WINDOWS:
        return url2pathname(path)
    return os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
