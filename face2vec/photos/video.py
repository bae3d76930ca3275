"""Reads videos: a frame a second, and the first after each change of scene; needs PyAV.

A video is read as a stream, one frame at a time, whatever its length. What it says of itself is not
trusted: its duration is never used, and a time that does not rise is replaced by a count of frames.
A video that breaks off is read up to there.
"""

from __future__ import annotations

import io
import math
import os
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import PhotoError
from face2vec.photos.dates import taken
from face2vec.photos.decode import MAX_PIXELS
from face2vec.photos.discover import PHOTO_SUFFIXES
from face2vec.photos.extras import VIDEO, kind_by_suffix, require
from face2vec.photos.formats import (
    CHANGED,
    DAMAGED,
    EMPTY_FILE,
    HEAD_BYTES,
    NO_VIDEO_STREAM,
    NOT_A_VIDEO,
    TOO_MANY_PIXELS,
    TOO_SLOW,
    TRUNCATED,
    open_file,
    photo_format,
    video_container,
)
from face2vec.photos.storage import head_of, status_of_open
from face2vec.types import SAME_TIME, clock

FRAME_SECONDS = 1.0
"""Seconds after a frame that was taken until the next one is, unless the scene changes."""
CUT_DIFFERENCE = 0.1
"""Mean difference of two successive frames from which on the scene has changed, 0…1.

Each frame is averaged to 32 × 18 fields of grey. A moving camera or person changes the fields by a
few hundredths, a cut by 0.15 or more. A change that is missed costs at most ``FRAME_SECONDS``, and
one that is none costs one more frame, so the exact value matters little."""
CUT_SECONDS = 0.25
"""Fewest seconds between two frames that are taken, so that a flicker does not take all of them."""
FIELDS = 32, 18
SAMPLES = 4
"""Rows and columns of a frame that are looked at for each field."""
STALL_SECONDS = 60.0
"""Longest time without a new frame. A decoder gives dozens of frames a second."""
USUAL_RATE = 25.0
"""Frames a second where a video does not say it, or says nonsense."""
MOST_THREADS = 4
"""Threads of the decoder, each of which holds a frame."""
ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_MADE_TAGS = ("com.apple.quicktime.creationdate", "creation_time", "date")
_PLANES_OF_GREY = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "nv12", "gray")


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame of a video, turned upright.

    Attributes:
        time: seconds from the start of the video, 0 or more, in whole milliseconds.
        image: RGB uint8 (height, width, 3), with square pixels.
        is_cut: whether the scene has changed since the frame that was taken before.
    """

    time: float
    image: NDArray[np.uint8] = field(repr=False)
    is_cut: bool = False


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is to be read as a video.

    It is not if it has the suffix of a photo; that is not opened. Of any other the first bytes
    decide, and the suffix if they are of no known format.
    """
    suffix = Path(path).suffix[1:].lower()
    usual = kind_by_suffix(suffix)
    if suffix in PHOTO_SUFFIXES or (usual is not None and usual != VIDEO):
        return False
    try:
        kind = photo_format(head_of(path, HEAD_BYTES))
    except (OSError, ValueError):
        kind = None
    return kind == VIDEO if kind is not None else usual == VIDEO


def video_taken(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> str:
    """When a video was made, see ``face2vec.photos.dates``; empty if it does not say so.

    Apple's tag has the local time; the usual one has UTC.

    Args:
        path: the file.
        max_pixels: see `Video`.
    """
    try:
        with _Reader(os.fspath(path), max_pixels) as reader:
            tags = reader.tags
    except PhotoError:
        return ""
    found = (taken(str(tags[tag])) for tag in _MADE_TAGS if tag in tags)
    return next(filter(None, found), "")


class Video:
    """A video file. Iterating gives a frame a second and the first after each change of scene.

    Args:
        path: the file.
        times: rising times of frames as an earlier reading gave them; iterating then gives these
            frames. None for those of the rule.
        max_pixels: videos with more pixels in a frame are refused.

    Attributes:
        name: the path, for messages.
        damage: after an iteration, what of the video is missing, such as ``"breaks off after
            0:07.5"``; empty if it is whole.

    Raises:
        PhotoError: PyAV is not installed. Iterating raises it if no frame can be read, or the file
            changes meanwhile.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        times: Iterable[float] | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.name = os.fspath(path)
        require(VIDEO, self.name)
        self._times = None if times is None else sorted(times)
        self._max_pixels = max_pixels
        self.damage = ""

    def __iter__(self) -> Iterator[VideoFrame]:
        with _Reader(self.name, self._max_pixels) as reader:
            if self._times is None:
                yield from _sampled(reader)
            else:
                yield from _at_times(reader, self._times)
            self.damage = reader.damage()

    def frame_at(self, time: float) -> VideoFrame:
        """One frame by its time, without reading all frames before it.

        Args:
            time: time of the frame as an earlier reading gave it.

        Raises:
            PhotoError: the video cannot be read, or has no such frame.
        """
        with _Reader(self.name, self._max_pixels) as reader:
            found = reader.seek(time)
            if found is not None:
                return VideoFrame(time, reader.image(found))
        (frame,) = Video(self.name, [time], max_pixels=self._max_pixels)
        return frame


def _sampled(reader: _Reader) -> Iterator[VideoFrame]:
    """A frame a second and the first after each change of scene."""
    taken: float | None = None
    before: NDArray[np.float32] | None = None
    has_changed = False
    for at, frame in reader.frames():
        fields = _fields(frame)
        if before is not None and float(np.abs(fields - before).mean()) >= CUT_DIFFERENCE:
            has_changed = True
        before = fields
        since = math.inf if taken is None else at - taken + SAME_TIME
        if since >= FRAME_SECONDS or (has_changed and since >= CUT_SECONDS):
            yield VideoFrame(at, reader.image(frame), has_changed)
            taken, has_changed = at, False


def _at_times(reader: _Reader, times: list[float]) -> Iterator[VideoFrame]:
    waiting = iter(times)
    wanted = next(waiting, None)
    for at, frame in reader.frames():
        if wanted is None or at > wanted + SAME_TIME:
            break
        if abs(at - wanted) <= SAME_TIME:
            yield VideoFrame(at, reader.image(frame))
            wanted = next(waiting, None)
    if wanted is not None:
        raise PhotoError(reader.name, CHANGED, f"it has no frame at {clock(wanted)}")


def _fields(frame: Any) -> NDArray[np.float32]:
    """A frame as 32 × 18 fields of grey, float32 (18, 32), 0…1."""
    across, down = FIELDS[0] * SAMPLES, FIELDS[1] * SAMPLES
    if frame.format.name in _PLANES_OF_GREY and frame.width >= across and frame.height >= down:
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        grey = rows[np.arange(down) * frame.height // down]
        grey = grey[:, np.arange(across) * frame.width // across]
    else:
        grey = frame.reformat(width=across, height=down, format="gray").to_ndarray()
    whole = grey.reshape(FIELDS[1], SAMPLES, FIELDS[0], SAMPLES).mean(axis=(1, 3))
    return np.asarray(whole / 255, np.float32)


class _File(io.RawIOBase):
    """A file for FFmpeg's reader, which may read on and on without giving a frame."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.name = name
        self.progress()

    def progress(self) -> None:
        """A frame has come: there is new time for the next one."""
        self._end = time.monotonic() + STALL_SECONDS

    def check(self) -> None:
        """Raise `PhotoError` if there was no frame for too long."""
        if time.monotonic() > self._end:
            raise PhotoError(self._name, TOO_SLOW, f"no frame in {STALL_SECONDS:.0f} s")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self.check()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Reader:
    """The open video stream of a file, for one pass.

    Args:
        name: path of the file.
        max_pixels: most pixels of a frame.

    Raises:
        PhotoError: on entering: the file has no video stream that can be read.
    """

    def __init__(self, name: str, max_pixels: int) -> None:
        self.name = name
        self._max_pixels = max_pixels
        self._last = -1.0
        self._errors = 0
        self._stopped = ""
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> _Reader:
        import av

        self._ffmpeg_error = av.error.FFmpegError
        self._file = open_file(self.name, self.name)
        self._status = status_of_open(self._file)
        self._container: Any = None
        try:
            if not self._status.size:
                raise PhotoError(self.name, EMPTY_FILE)
            self._source = _File(self._file, self.name)
            self._container, self._stream = self._opened(av)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.close()
        self._file.close()

    def _opened(self, av: Any) -> tuple[Any, Any]:
        # FFmpeg is told the format; left to itself it also takes lists of files and addresses.
        container_format = video_container(self._file.read(HEAD_BYTES))
        if container_format is None:
            raise PhotoError(self.name, NOT_A_VIDEO)
        self._file.seek(0)
        try:
            container = av.open(self._source, format=container_format, metadata_errors="ignore")
        except (self._ffmpeg_error, ValueError) as error:
            raise self._unreadable(_words(error)) from error
        self._container = container  # so that it is closed whatever happens
        self.tags = dict(container.metadata)
        streams = [one for one in container.streams.video if not _is_cover(one)]
        if not streams:
            raise PhotoError(self.name, NO_VIDEO_STREAM)
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise PhotoError(self.name, DAMAGED, "no decoder for its video stream")
        self._check_pixels(context.width, context.height)
        context.options = {"max_pixels": str(self._max_pixels)}
        context.thread_type = "AUTO"
        context.thread_count = min(MOST_THREADS, os.cpu_count() or 1)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self._step = 1 / (rate if 1 <= rate <= 1000 else USUAL_RATE)
        self._start: float | None = None
        return container, stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise PhotoError(
                self.name,
                TOO_MANY_PIXELS,
                f"{width}×{height} is more than {self._max_pixels:,}; raise max_pixels for it",
            )

    def frames(self) -> Iterator[tuple[float, Any]]:
        """(time in seconds, frame as decoded) of each frame; times rise.

        Raises:
            PhotoError: there is none, or the file has changed meanwhile.
        """
        for frame in self._decoded():
            at = self._time(frame)
            if at is None or at <= self._last:
                at = round(max(self._last, -self._step) + self._step, 3)
            self._last = at
            yield at, frame
            self._source.progress()  # the caller's time is not the decoder's
        try:
            status = status_of_open(self._file, now=True)
        except OSError as error:
            raise PhotoError(self.name, CHANGED, "it is gone") from error
        if status[:2] != self._status[:2]:
            raise PhotoError(self.name, CHANGED, "it is being written")
        if self._last < 0:
            raise self._unreadable("no frame can be decoded")

    def _decoded(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                self._source.check()
                yield from self._frames_of(packet)
        except (self._ffmpeg_error, ValueError) as error:
            self._stopped = _words(error)
            yield from self._frames_of(None)  # those that the decoder still holds
        except PhotoError as error:  # no frame for too long
            if self._last < 0:
                raise
            self._stopped = error.reason

    def _frames_of(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode() if packet else self._stream.codec_context.decode(None)
        except (self._ffmpeg_error, ValueError):
            self._errors += 1
            return
        for frame in frames:
            if frame.is_corrupt:  # at a break, or before the first keyframe of a recording
                self._errors += self._last >= 0
                continue
            if self._size is None:
                self._size = max(1, round(frame.width * self._aspect())), frame.height
                self._check_pixels(*self._size)
            yield frame

    def _time(self, frame: Any) -> float | None:
        """Seconds from the start of the video, or None if the frame does not say it."""
        if frame.pts is None or not frame.time_base:
            return None
        at = float(frame.pts * frame.time_base)
        if self._start is None:
            whole = self._container.start_time  # where players begin: sound may come first
            begin = at if whole is None else whole / 1e6
            self._start = begin if at - 10 < begin <= at else at
        return round(at - self._start, 3)

    def seek(self, wanted: float) -> Any:
        """The frame at a time, found by its keyframe; None if it is not found in this way."""
        tolerance = SAME_TIME + 1e-9
        first = next(iter(self._decoded()), None)
        at = None if first is None else self._time(first)
        if at is None:
            return None
        if abs(max(at, 0.0) - wanted) <= tolerance:
            return first
        assert self._start is not None
        try:
            place = int((wanted + self._start) / self._stream.time_base)
            self._container.seek(place, stream=self._stream, backward=True)
        except (self._ffmpeg_error, ValueError, OverflowError):
            return None
        for frame in self._decoded():
            self._source.progress()
            at = self._time(frame)
            if at is None or at > wanted + tolerance:
                return None
            if at >= wanted - tolerance:
                return frame
        return None

    def image(self, frame: Any) -> NDArray[np.uint8]:
        """A frame as RGB uint8 (height, width, 3), upright, with square pixels."""
        assert self._size is not None
        width, height = self._size  # a frame of another size is stretched to that of the first
        rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        return _upright(rgb, frame)

    def _aspect(self) -> float:
        """Width of a pixel by its height."""
        aspect = float(self._stream.sample_aspect_ratio or 1)
        return aspect if 0.25 <= aspect <= 4 else 1.0

    def damage(self) -> str:
        """What of the video is missing, or empty."""
        if self._stopped or _goes_on(self._file, self._status.size):
            return f"breaks off after {clock(max(self._last, 0.0))}"
        return "some of its frames cannot be decoded" if self._errors else ""

    def _unreadable(self, detail: str) -> PhotoError:
        """The error for a file without a frame."""
        is_part = _goes_on(self._file, self._status.size)
        return PhotoError(self.name, TRUNCATED if is_part else DAMAGED, detail)


def _is_cover(stream: Any) -> bool:
    """Whether a stream is one picture, such as the cover of a piece of music."""
    disposition = stream.disposition  # a flag or, in some versions, an integer
    return bool(int(getattr(disposition, "value", disposition)) & ATTACHED_PICTURE)


def _words(error: Exception) -> str:
    """The message of an error of FFmpeg without its number and the name of the file."""
    return str(getattr(error, "strerror", None) or error)


def _upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror an image as the display matrix of its frame says.

    The matrix maps a pixel (x, y) to (a·x + c·y, b·x + d·y). Phones write quarter turns; any other
    turn is replaced by the nearest of them.
    """
    matrix = next((one for one in frame.side_data if one.type.name == "DISPLAYMATRIX"), None)
    if matrix is None or len(data := bytes(matrix)) != 36:
        return image
    a, b, _, c, d = struct.unpack("<9i", data)[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


_BOXES = 10_000


def _goes_on(file: BinaryIO, size: int) -> bool:
    """Whether the outermost parts of a file extend past its end, by their own account.

    Args:
        file: the file.
        size: its size in bytes.
    """
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"RIFF":
        stated = int.from_bytes(head[4:8], "little")
        return stated not in (0, 0xFFFFFFFF) and stated + 8 > size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_end(head) > size
    at = 0
    for _ in range(_BOXES if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") else 0):
        file.seek(at)
        box = file.read(16)
        length = int.from_bytes(box[:4], "big")
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if len(box) < 8 or length < 8:
            return False
        at += length
        if at > size:
            return box[4:8] in (b"ftyp", b"moov", b"mdat", b"moof")
    return False


def _matroska_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends by its own account; 0 if it does not say it."""

    def number(at: int) -> tuple[int, int, bool]:
        """(value, place behind it, whether it is known) of a size (RFC 8794, 4)."""
        width = 9 - head[at].bit_length()
        if width > 8:
            return 0, at, False
        value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        return value, at + width, value != (1 << 7 * width) - 1

    try:
        length, at, is_known = number(4)
        at += length
        if not is_known or head[at : at + 4] != b"\x18S\x80g":
            return 0
        length, at, is_known = number(at + 4)
    except IndexError:
        return 0
    return at + length if is_known else 0
