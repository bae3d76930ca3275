"""Orientation of a stored image: in EXIF, in PNG's raw profiles, and in XMP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ORIENTATION_TAG = 0x0112

_NO_XMP = frozenset({"TIFF", "HEIF", "HEIC", "AVIF"})
"""Formats with an orientation of their own, which XMP only repeats; their decoders apply it."""

_XMP_ORIENTATION = re.compile(
    rb"""<[\w-]*:?Orientation[^<>]*>\s*([1-8])\s*</|tiff:Orientation\s*=\s*["']\s*([1-8])\s*["']"""
)


def orientation_of(info: Mapping[Any, Any], kind: str | None) -> int:
    """Orientation 1…8 of an image (EXIF 2.32, 4.6.4); 1 if there is none, or it is invalid.

    EXIF is asked first, in its block or in a raw profile of a PNG, then XMP (``tiff:Orientation``).

    Args:
        info: ``Image.info`` of Pillow, after the image was loaded.
        kind: ``Image.format`` of Pillow.
    """
    for exif in exif_blocks(info):
        orientation = _in_exif(exif)
        if orientation is not None:
            return orientation
    for xmp in () if kind in _NO_XMP else _xmp_packets(info):
        found = _XMP_ORIENTATION.search(xmp)
        if found:
            return int(found[1] or found[2])
    return 1


def exif_blocks(info: Mapping[Any, Any]) -> Iterator[bytes]:
    """The EXIF blocks of an image, that of its own first.

    Args:
        info: ``Image.info`` of Pillow.
    """
    yield from (info[name] for name in ("exif",) if isinstance(info.get(name), bytes))
    for name in ("Raw profile type exif", "Raw profile type APP1"):
        yield raw_profile(info.get(name))


def _xmp_packets(info: Mapping[Any, Any]) -> Iterator[bytes]:
    for name in ("xmp", "XML:com.adobe.xmp"):
        packet = info.get(name)
        if isinstance(packet, str):
            yield packet.encode("utf-8", "replace")
        elif isinstance(packet, bytes):
            yield packet
    for name in ("Raw profile type xmp", "Raw profile type APP1"):
        yield raw_profile(info.get(name))


def raw_profile(text: object) -> bytes:
    """The content of a raw profile: its name, its length, and hexadecimal digits on many lines."""
    lines = text.strip().split("\n", 2) if isinstance(text, str) else []
    try:
        return bytes.fromhex(lines[2]) if len(lines) == 3 else b""
    except ValueError:
        return b""


def _in_exif(exif: bytes) -> int | None:
    """Orientation in an EXIF block; None if it is missing or invalid.

    Pillow's ``getexif`` is not used, because it warns about damage anywhere in the block.
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return None
    order: Any = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    for n in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        if int.from_bytes(exif[n : n + 2], order) == ORIENTATION_TAG:
            width = {3: 2, 4: 4}.get(int.from_bytes(exif[n + 2 : n + 4], order), 0)
            value = int.from_bytes(exif[n + 8 : n + 8 + width], order)
            return value if 1 <= value <= 8 else None
    return None
