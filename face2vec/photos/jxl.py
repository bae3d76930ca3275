"""Reads JPEG XL photos by libjxl; needs ``face2vec[jxl]``."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as a JPEG XL file states them; None if it cannot be parsed.

    The package decodes a file when it opens it, so this is looked at before (ISO/IEC 18181-1,
    SizeHeader).
    """
    stream = data if data[:2] == b"\xff\x0a" else _jxl_codestream(data)
    bits = int.from_bytes(stream[2:18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(is_small: int) -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    if stream[:2] != b"\xff\x0a":
        return None
    is_small = take(1)
    height = side(is_small)
    ratio = take(3)
    if not ratio:
        return side(is_small), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


def _jxl_codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a container (ISO/IEC 18181-2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, start = data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if kind in (b"jxlc", b"jxlp"):
            start += 4 * (kind == b"jxlp")
            return data[start : start + 64]
        if size < 8:
            break
        at += size
    return b""


def jxl_image(data: bytes) -> Image.Image:
    """Decode a JPEG XL file.

    Its pixels are upright, whatever its EXIF block says, unless they are those of a JPEG file.

    Raises:
        RuntimeError: libjxl cannot read it.
    """
    from pillow_jxl.JpegXLImagePlugin import JXLImageFile

    image: Any = JXLImageFile(io.BytesIO(data))
    if not image.jpeg:
        image.info.pop("exif", None)
    return image  # type: ignore[no-any-return]
