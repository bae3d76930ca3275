"""When a photo was taken, as its camera has written it; and periods of time to choose photos by.

A time is text such as ``"2024-05-01T12:30:00"``: what the clock of the camera has shown, without a
time zone, which EXIF seldom has. Texts of this form are in order of time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from face2vec.errors import SettingsError
from face2vec.photos.formats import HEAD_BYTES, photo_format
from face2vec.photos.packets import exif_of

EARLIEST_YEAR = 1800
_EXIF_DIRECTORY, _ORIGINAL, _DIGITIZED = 0x8769, 0x9003, 0x9004
_MOST_ENTRIES = 512
_TIME = re.compile(r"(\d{4})[:\-/](\d\d)[:\-/](\d\d)[ T](\d\d):(\d\d):(\d\d)", re.ASCII)
_PERIOD = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
_UNSET = ("1904-01-01", "1970-01-01")
"""What a clock that was never set says."""


class Period(NamedTuple):
    """The first and the last day, month or year of a period, both included.

    Attributes:
        first: such as ``"2024"``, ``"2024-05"`` or ``"2024-05-01"``; None for no limit.
        last: likewise.
    """

    first: str | None = None
    last: str | None = None


ALWAYS = Period()


def period(first: str | None, last: str | None) -> Period:
    """A period of time.

    Raises:
        SettingsError: a limit is no date, or the first is after the last.
    """
    for name, value in (("from", first), ("to", last)):
        if value is not None and not _is_date(value):
            raise SettingsError(
                f"{name} must be a year, month or day, such as 2024, 2024-05 or 2024-05-01, "
                f"not {value[:40]!r}"
            )
    if first is not None and last is not None and first[: len(last)] > last:
        raise SettingsError(f"the period from {first} to {last} is empty; change the two")
    return Period(first, last)


def _is_date(text: str) -> bool:
    found = _PERIOD.fullmatch(text)
    if found is None:
        return False
    try:
        datetime(*(int(part or 1) for part in found.groups()))  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def taken(text: str) -> str:
    """A time as EXIF, or a video, has it, in the form of this module; empty if it is none."""
    found = _TIME.match(text.strip())
    try:
        time = datetime(*map(int, found.groups())) if found else None  # type: ignore[arg-type]
    except ValueError:
        return ""
    if time is None or time.year < EARLIEST_YEAR:
        return ""
    words = time.isoformat()
    return "" if words.startswith(_UNSET) else words


def photo_taken(data: bytes) -> str:
    """When a photo was taken, by its EXIF; empty if it does not say so, or not as it should.

    Args:
        data: the bytes of the file.
    """
    try:
        kind = photo_format(data[:HEAD_BYTES])
        blocks = [data] if kind in ("TIFF", "RAW") else [exif_of(data, kind), *_jxl(data, kind)]
        for exif in blocks:
            if exif and (found := _in_exif(exif)):
                return found
        # Raw files that do not begin as TIFF files do hold a JPEG, or a block like one.
        start = data.find(b"Exif\0\0", 0, 1 << 20) if kind == "RAW" else -1
        return _in_exif(data[start : start + (1 << 16)]) if start >= 0 else ""
    except Exception:  # a date is never a reason not to index a photo
        return ""


def _jxl(data: bytes, kind: str | None) -> Iterator[bytes]:
    """The box Exif of a JPEG XL container, which begins with the offset of the block."""
    at = 0
    while kind == "JXL" and at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if name == b"Exif":
            yield data[at + 8 : at + size]  # some writers leave the offset out
            yield data[at + 12 + int.from_bytes(data[at + 8 : at + 12]) : at + size]
        if size < 8:
            return
        at += size


def _in_exif(exif: bytes) -> str:
    """When a photo was taken, in an EXIF block or a TIFF file."""
    while exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    if exif[:2] not in (b"II", b"MM"):
        return ""
    order: Any = "little" if exif[:2] == b"II" else "big"
    tags = _directory(exif, int.from_bytes(exif[4:8], order), order)
    pointer = tags.get(_EXIF_DIRECTORY)
    if pointer is not None:
        tags = _directory(exif, int.from_bytes(pointer[8:12], order), order)
    for tag in (_ORIGINAL, _DIGITIZED):
        entry = tags.get(tag)
        if entry is not None:
            at = int.from_bytes(entry[8:12], order)
            found = taken(exif[at : at + 19].decode("ascii", "replace"))
            if found:
                return found
    return ""


def _directory(exif: bytes, start: int, order: Any) -> dict[int, bytes]:
    """The entries of a directory by tag."""
    stream = io.BytesIO(exif)
    stream.seek(start)
    count = int.from_bytes(stream.read(2), order)
    entries = (stream.read(12) for _ in range(min(count, _MOST_ENTRIES)))
    return {int.from_bytes(entry[:2], order): entry for entry in entries if len(entry) == 12}
