"""Writes small camera raw files (DNG 1.4), of which LibRaw reads both image and preview."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

_FORMS = {1: "B", 3: "H", 4: "I", 5: "2I", 10: "2i"}
_Entry = tuple[int, int, Sequence[Any]]  # tag, type, values


def dng(mosaic: np.ndarray, *, orientation: int = 1, preview: bytes | None = None) -> bytes:
    """A DNG file.

    Args:
        mosaic: uint16 (height, width), the values of a sensor with an RGGB filter.
        orientation: orientation as in EXIF.
        preview: a JPEG file to be embedded.
    """
    height, width = mosaic.shape
    pixels = mosaic.astype("<u2").tobytes()
    identity = [(int(n % 4 == 0), 1) for n in range(9)]
    first: list[_Entry] = [
        (254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1]),
        (262, 3, [32803]), (271, 2, b"Drawn\0"), (272, 2, b"Camera\0"), (274, 3, [orientation]),
        (277, 3, [1]), (278, 4, [height]), (279, 4, [len(pixels)]), (33421, 3, [2, 2]),
        (33422, 1, [0, 1, 1, 2]), (50706, 1, [1, 4, 0, 0]), (50707, 1, [1, 1, 0, 0]),
        (50708, 2, b"Drawn Camera\0"), (50714, 3, [0]), (50717, 4, [65535]), (50721, 10, identity),
        (50728, 5, [(1, 1)] * 3), (50778, 3, [21]),
    ]  # fmt: skip
    second: list[_Entry] = []
    if preview is not None:
        across, down = Image.open(io.BytesIO(preview)).size
        second = [
            (254, 4, [1]), (256, 4, [across]), (257, 4, [down]), (258, 3, [8, 8, 8]), (259, 3, [7]),
            (262, 3, [6]), (277, 3, [3]), (278, 4, [down]), (279, 4, [len(preview)]),
        ]  # fmt: skip
    start = 8 + len(_directory([*first, (273, 4, [0])], 8, 0))
    inner = start + (len(_directory([*second, (273, 4, [0])], start, 0)) if second else 0)
    embedded = preview or b""
    embedded += bytes(len(embedded) % 2)
    whole = _directory([*first, (273, 4, [inner + len(embedded)])], 8, start if second else 0)
    if second:
        whole += _directory([*second, (273, 4, [inner])], start, 0)
    return b"II*\0" + struct.pack("<I", 8) + whole + embedded + pixels


def _directory(entries: list[_Entry], at: int, following: int) -> bytes:
    """A directory of a TIFF file that stands at a place, and the values that it refers to."""
    body = outside = b""
    end = at + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        if isinstance(values, bytes):
            content = values
        else:
            flat = [v for one in values for v in (one if isinstance(one, tuple) else (one,))]
            form = _FORMS[kind][-1]
            content = struct.pack(f"<{len(flat)}{form}", *flat)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack("<I", end + len(outside))
            outside += content + bytes(len(content) % 2)
        body += struct.pack("<HHI", tag, kind, len(values)) + place
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following) + outside
