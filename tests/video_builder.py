"""Makes videos of drawn people for tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from face2vec import samples

SIZE = 320, 352
RATE = 10
Shot = tuple[Image.Image, float]
"""A picture, and for how many seconds it is shown."""


@cache
def drawn(person: int, photo: int = 0) -> Image.Image:
    """A drawn person, ``SIZE`` pixels; person and photo by number."""
    whole = samples.people(person + 1, seed=3)[person].photo(photo).jpeg()
    return Image.open(io.BytesIO(whole)).convert("RGB").resize(SIZE)


def grey(level: int) -> Image.Image:
    """A picture without a face."""
    return Image.new("RGB", SIZE, (level,) * 3)


def write_video(
    path: Path,
    shots: Iterable[Shot],
    *,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    rate: int = RATE,
    options: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Write a video.

    Args:
        path: the file; its suffix names the format.
        shots: its pictures.
        codec: how they are coded.
        pixels: pixel format of the coder.
        rate: frames a second.
        options: options of the format.
        times: time of each frame in seconds; None for a steady rate.
        aspect: width of a pixel by its height.
    """
    import av

    frames = [image for image, seconds in shots for _ in range(round(seconds * rate))]
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = pixels
        stream.bit_rate = 2_000_000
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a second of silence without a video stream."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(video: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """An .mp4 file whose pixels (x, y) are to be shown at (a·x + c·y, b·x + d·y)."""
    at = video.index(b"tkhd") + 4
    at += 4 + (32 if video[at] else 20) + 16  # version 1 has times of 64 bits
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return video[:at] + matrix + video[at + len(matrix) :]
