"""Diagnosis of files that fail to decode: truncation and broken metadata."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any


def without_metadata(kind: str, data: bytes) -> bytes | None:
    """Copy a file without the metadata on which its decoder may have failed.

    Args:
        kind: the format, as `photo_format` returns it.
        data: the content of the file.

    Returns:
        The copy, or None if the format needs none or the file cannot be parsed.
    """
    if kind == "JPEG":
        return _bare_jpeg(data)
    if kind == "PNG":
        return _bare_png(data)
    if kind == "AVIF":  # the decoder skips an EXIF item of another type
        return re.sub(rb"(infe.{8})Exif", rb"\1free", data, flags=re.DOTALL)
    return None


def _bare_jpeg(data: bytes) -> bytes | None:
    """Copy a JPEG file without application segments other than JFIF, EXIF and Adobe."""
    kept = [data[:2]]
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan: the pixels follow
            kept.append(data[at:])
            return b"".join(kept)
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at:end]
        is_metadata = 0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)
        if not is_metadata or segment[4:10] == b"Exif\0\0":
            kept.append(segment)
        at = end
    return None


def _bare_png(data: bytes) -> bytes:
    """Copy the chunks of a PNG file that hold pixels, and EXIF if its checksum is right."""
    kept = [data[:8]]
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") or (
            kind == b"eXIf" and zlib.crc32(data[at + 4 : end - 4]) == checksum
        ):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


JPEG_END = b"\xff\xd9"
JPEG_FILLER = b"\x55\xaa\x33\xc5" * 64
"""Bytes without a marker, which a decoder takes for pixels only where pixels are missing."""


def broken_off(data: bytes) -> bytes | None:
    """A JPEG file that has no end marker, up to where it breaks off.

    Zeros at its end are left out: a copy that was interrupted often has them for the rest.

    Returns:
        The bytes up to there; None if the end marker is there, or no header of a scan is.
    """
    start = _first_scan(data)
    if start is None or data.find(JPEG_END, start) >= 0:
        return None
    kept = data.rstrip(b"\0")
    if kept.endswith(b"\xff"):  # the zero after it belonged to the pixels
        kept += b"\0"
    return kept


def _first_scan(data: bytes) -> int | None:
    """Where the pixels of a JPEG file begin, after the header of the first scan."""
    for marker, _, end in _segments(data):
        if marker == _START_OF_SCAN:
            return end
    return None


_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # neither a restart nor a zero that is data


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, content, end) of each whole segment of a JPEG file (ITU-T T.81, annex B)."""
    at = 2
    while found := _MARKER.search(data, at):
        start = found.end()
        size = int.from_bytes(data[start : start + 2], "big")
        at = start + max(size, 2)
        if at > len(data):
            return
        yield found[1][0], data[start + 2 : at], at


def scans_of(data: bytes) -> tuple[int, bool]:
    """The number of scans that a JPEG file begins, and whether they hold every coefficient.

    A progressive file holds a coefficient once a scan has its last bit (ITU-T T.81, annex G).
    """
    components = 1
    scans = 0
    held: dict[int, set[int]] = {}
    for marker, content, _ in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2) and len(content) > 5:
            components = content[5]
        if marker == _START_OF_SCAN and content:
            scans += 1
            first, last, bits = content[1 + 2 * content[0] :][:3] or (0, 63, 0)
            if not bits & 15:
                for place in range(content[0]):
                    held.setdefault(content[1 + 2 * place], set()).update(range(first, last + 1))
    return scans, len(held) == components and all(len(one) == 64 for one in held.values())


def says_truncated(failure: Exception) -> bool:
    """Whether a decoder's error message reports a truncated file."""
    message = str(failure).lower()
    return "truncated" in message or "end of file" in message


def is_truncated(kind: str, data: bytes, failure: Exception) -> bool:
    """Whether a file that failed to decode is shorter than its container declares."""
    if says_truncated(failure):
        return True
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "PNG":
        return b"IEND" not in data
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if kind == "TIFF":
        return _tiff_goes_on(data)
    if kind in ("JXL", "RAW"):
        return boxes_go_on(data) if data[4:8] in (b"ftyp", b"JXL ") else False
    return b"meta" not in data or b"mdat" not in data  # see also boxes_go_on


def boxes_go_on(data: bytes) -> bool:
    """Whether a box of a HEIC or AVIF file extends past the end of the file (ISO 14496-12, 4.2).

    Only the boxes that hold the photo count, because some phones append data that is not a box.
    """
    at = 0
    for _ in range(_BOXES):
        if at + 8 > len(data):
            break
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0 is a last box without a length; other values are invalid
            return False
        if at + size > len(data):
            return data[at + 4 : at + 8] in (b"ftyp", b"meta", b"moov", b"mdat")
        at += size
    return False


def _tiff_goes_on(data: bytes) -> bool:
    """Whether a TIFF file's first directory, or data that it refers to, extends past the end."""
    order: Any = "little" if data[:2] == b"II" else "big"

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], order)

    # A directory is the number of entries, then entries of tag, type, count, and value or offset.
    big = number(2, 2) == 43
    pointer, entries = (8, 8) if big else (4, 2)
    start = number(pointer, pointer)
    first, step = start + entries, 4 + 2 * pointer
    listed = number(start, entries)
    if listed > _TIFF_ENTRIES:
        return False  # no photo has so many
    end = first + step * listed
    if end + pointer > len(data):
        return True
    values: dict[int, list[int]] = {}
    for entry in range(first, end, step):
        tag, count = number(entry, 2), number(entry + 4, pointer)
        width = _TIFF_WIDTHS.get(number(entry + 2, 2), 1)
        at = entry + 4 + pointer
        if width * count > pointer:
            at = number(at, pointer)
        if at + width * count > len(data):
            return True
        if (
            tag in (273, 279, 324, 325) and count <= _TIFF_STRIPS
        ):  # offsets and sizes of strips and of tiles
            values[tag] = [number(n, width) for n in range(at, at + width * count, width)]
    return any(
        offset + size > len(data)
        for offsets, sizes in ((273, 279), (324, 325))
        for offset, size in zip(values.get(offsets, []), values.get(sizes, []), strict=False)
    )


_BOXES = 10_000
_TIFF_ENTRIES, _TIFF_STRIPS = 1 << 16, 1 << 20
_TIFF_WIDTHS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
