"""Photos are decoded in processes of their own, with limits on memory and time.

What a client uploads may be made to harm a decoder. Nothing but a small array comes back.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import PhotoError
from face2vec.types import Box

Result = TypeVar("Result")

STOPPING = "the service is being stopped"
"""Why a photo is not decoded."""
SIDE = 2400
"""Longest side in pixels to which an uploaded photo is reduced before faces are searched."""
PREVIEW_SIDE = 1280
"""Longest side in pixels of the picture that a page shows of an upload."""
TASKS = 500  # after so many photos a process is replaced


class Upload(NamedTuple):
    """An uploaded photo.

    Attributes:
        image: RGB uint8 (height, width, 3), longest side at most ``SIDE``.
        width: width in pixels of the upright photo.
        height: height in pixels of the upright photo.
        damage: what of it is missing, or empty.
        preview: the photo as WebP, or empty.
    """

    image: NDArray[np.uint8]
    width: int
    height: int
    damage: str
    preview: bytes


class Decoders:
    """Runs functions in processes with limits.

    Args:
        processes: how many.
        memory: bytes of memory of each, beyond what it has at its start.
        seconds: time after which a task is given up and the processes are started again.
    """

    def __init__(self, processes: int, memory: int, seconds: float) -> None:
        self._processes, self._memory, self._seconds = processes, memory, seconds
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            if self._pool is not None:
                _kill(self._pool)
                self._pool = None

    def run(self, function: Callable[..., Result], photo: str, *values: Any) -> Result:
        """The result of a function of a module, computed in one of the processes.

        Args:
            function: the function.
            photo: name of the photo, for messages.
            values: arguments of the function.

        Raises:
            PhotoError: the function raised it, took too long, or its process died, or the service
                is being stopped.
        """
        pool = self._started()
        try:
            return pool.submit(function, *values).result(self._seconds)
        except CancelledError:
            raise PhotoError(photo, STOPPING) from None
        except TimeoutError:
            self._restart(pool)
            raise PhotoError(photo, f"it took more than {self._seconds:.0f} seconds") from None
        except (BrokenExecutor, MemoryError) as error:
            self._restart(pool)
            raise PhotoError(photo, "it needs too much memory") from error

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._processes,
                    get_context("spawn"),
                    _limit,
                    (self._memory,),
                    max_tasks_per_child=TASKS,
                )
            return self._pool

    def _restart(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        _kill(pool)


def decode_upload(data: bytes, name: str, max_pixels: int, preview: bool) -> Upload:
    """Decode an uploaded photo and reduce it.

    Raises:
        PhotoError: it cannot be read.
    """
    from face2vec.photos.decode import open_photo

    photo = open_photo(data, name=name, max_side=SIDE, max_pixels=max_pixels)
    shown = _webp(photo.image, PREVIEW_SIDE) if preview else b""
    return Upload(photo.image, photo.width, photo.height, photo.damage, shown)


def face_thumbnail(photo: str, box: Box, side: int, time: float | None) -> bytes:
    """The face at a box of a photo, or of a video at a time in seconds, as WebP."""
    from face2vec.report.thumbnails import thumbnail

    return _webp(np.asarray(thumbnail(photo, box, side, time)), side)


def photo_view(photo: str, side: int, max_pixels: int, time: float | None) -> bytes:
    """A whole photo, or a frame of a video, its longest side at most ``side`` pixels, as WebP.

    Raises:
        PhotoError: it cannot be read.
    """
    from face2vec.photos.decode import open_photo
    from face2vec.report.thumbnails import frame_of

    source = photo if time is None else frame_of(photo, time)
    return _webp(open_photo(source, max_side=side, max_pixels=max_pixels).image, side)


def _webp(image: NDArray[np.uint8], side: int) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=80)
    return stream.getvalue()


def _limit(memory: int) -> None:
    """Limit the memory of this process, after the packages that it needs are loaded."""
    import face2vec.photos.decode  # noqa: F401

    try:
        import resource

        with open("/proc/self/statm") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):  # no such limit on this system
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
