"""Reads camera raw files by LibRaw; needs ``face2vec[raw]``.

They often begin as TIFF files do, and are told apart by what only the image of a sensor has: a
colour filter array, or the version of DNG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image

from face2vec.photos.stderr import captured

_DNG_VERSION, _SUB_DIRECTORIES, _PHOTOMETRIC = 50706, 330, 262
_CFA, _LINEAR_RAW = 32803, 34892
_WIDTHS = {1: 1, 3: 2, 4: 4, 13: 4}
_MOST_DIRECTORIES = 16
_WORDS = re.compile(rb"[^\n]*(unexpected end of file|data corrupted|corrupt data)", re.IGNORECASE)
"""What LibRaw writes to standard error about a damaged file."""
LARGE_PREVIEW = 2000  # pixels of the longer side that are enough for faces


def is_raw(data: bytes) -> bool:
    """Whether a file that begins as TIFF files do holds the image of a sensor."""
    return any(
        _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in ([_CFA], [_LINEAR_RAW])
        for tags in _directories(data)
    )


def _directories(data: bytes) -> Iterator[dict[int, list[int]]]:
    """The whole numbers in each directory of a TIFF file and in those that it refers to."""
    order: Any = "little" if data[:2] == b"II" else "big"

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], order)

    waiting, seen = [number(4, 4)], set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        start = waiting.pop(0)
        if not 8 <= start < len(data) or start in seen:
            continue
        seen.add(start)
        tags: dict[int, list[int]] = {}
        end = start + 2 + 12 * number(start, 2)
        for entry in range(start + 2, min(end, len(data) - 11), 12):
            width, count = _WIDTHS.get(number(entry + 2, 2), 0), number(entry + 4, 4)
            at = entry + 8 if width * count <= 4 else number(entry + 8, 4)
            values = range(at, at + width * min(count, _MOST_DIRECTORIES), width or 1)
            tags[number(entry, 2)] = [number(place, width) for place in values]
        waiting += [*tags.get(_SUB_DIRECTORIES, []), number(end, 4)]
        yield tags


def raw_image(data: bytes) -> bytes | Image.Image:
    """The embedded JPEG preview of a camera raw file, or its image, upright at half of its size.

    The preview is taken if it is large enough to find faces in, whatever the caller needs, so that
    a photo always has the same size.

    Raises:
        RuntimeError: LibRaw cannot read it.
    """
    import rawpy

    with captured(_WORDS, "LibRaw"), rawpy.imread(io.BytesIO(data)) as raw:
        full = max(raw.sizes.width, raw.sizes.height)
        try:
            preview = raw.extract_thumb()
        except rawpy.LibRawError:
            preview = None
        if preview is not None and preview.format == rawpy.ThumbFormat.JPEG:
            jpeg = bytes(preview.data)  # LibRaw adds the orientation
            with Image.open(io.BytesIO(jpeg)) as image:
                if max(image.size) >= min(LARGE_PREVIEW, full / 2):
                    return jpeg
        return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=True))
