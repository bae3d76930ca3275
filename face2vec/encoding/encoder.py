"""Encodes photos to faces with embeddings: decodes, detects, aligns and embeds in parallel.

Each worker thread takes a few photos through all steps, and runs every network on that thread.
Results have the order of the input. Only the photos that workers currently process are in memory.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.detection.select import AnyDetector
from face2vec.encoding.embed import BATCH, Embedder
from face2vec.encoding.extract import Extract, Extracted, Extractor, Wanted
from face2vec.encoding.workers import ExtractorProcesses
from face2vec.errors import PhotoError, RuntimeUnavailableError
from face2vec.forks import abandon, renew_after_fork
from face2vec.models import LoadedModel
from face2vec.photos.decode import MAX_PIXELS
from face2vec.photos.sources import PhotoLike
from face2vec.runtime.select import Runtime, detector_runtime
from face2vec.types import Face, Photo, Unopened

log = logging.getLogger("face2vec")

Item = TypeVar("Item")

CHUNK = 8  # photos per task of a worker thread, at most
SLOW_SOURCE = 4.0  # times as long to get an item as to encode one
HELD_BYTES = 64 << 20
"""Bytes per thread from which on no further item is consumed: items that hold decoded images."""


@dataclass(frozen=True)
class Encoded(Generic[Item]):
    """The result of encoding one photo.

    Attributes:
        item: the item of the input.
        faces: the faces with their embeddings, most confident first.
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels of the upright photo, 0 if it could not be read.
        error: why the photo could not be read, or None.
        damage: what of the photo is missing, or empty.
    """

    item: Item
    faces: tuple[Face, ...] = ()
    width: int = 0
    height: int = 0
    error: PhotoError | None = None
    damage: str = ""


class Encoder:
    """Finds and embeds faces. Safe to use from several threads at once.

    Args:
        model: the embedding network with its description.
        detector: a detector, or settings of MTCNN.
        runtime: the runtime of the embedding network.
        max_pixels: photos with more pixels are refused.
    """

    def __init__(
        self,
        model: LoadedModel,
        detector: AnyDetector,
        runtime: Runtime,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.model = model
        self.runtime = runtime
        self.max_pixels = max_pixels
        self._extractor = Extractor(
            detector, model.description, detector_runtime(runtime), max_pixels
        )
        self._embedder = Embedder(model, runtime)
        self._digest = model.fingerprint.digest
        self._pool = self._new_pool()
        renew_after_fork(self._renew)

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.runtime.threads, thread_name_prefix="face2vec")

    def _renew(self) -> None:
        abandon(self._pool)
        self._pool = self._new_pool()

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, photo: PhotoLike, name: str | None = None) -> Photo:
        """Decode a photo at the scale that the detector needs.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return self._extractor.open(photo, name)

    def unopened(self, photo: PhotoLike | Photo) -> Photo | Unopened:
        """A photo in the form that `stream` processes fastest: files and bytes stay unopened.

        Raises:
            PhotoError: the photo is neither a file nor bytes, and cannot be read.
        """
        if isinstance(photo, str | bytes):
            return Unopened(photo)
        if isinstance(photo, os.PathLike):
            return Unopened(os.fsdecode(photo))
        return photo if isinstance(photo, Photo) else self.read(photo)

    def encode(self, photo: Photo) -> list[Face]:
        """Faces of one photo with their embeddings, most confident first.

        Raises:
            PhotoError: a small face requires the photo at full resolution, and it cannot be
                read again.
        """
        (done,) = self._extractor.extract([Wanted(photo)])
        if done.error is not None:
            raise done.error
        assert done.crops is not None
        return self._embedded(done.faces, self.embed(done.crops))

    def encode_known(self, photo: Photo, faces: Sequence[Face]) -> list[Face]:
        """Known faces of a photo, with quality and embeddings, in their order.

        Args:
            photo: the photo.
            faces: faces with boxes and landmarks in pixels of the full photo.

        Raises:
            PhotoError: a small face requires the photo at full resolution, and it cannot be
                read again.
        """
        (done,) = self._extractor.extract([Wanted(photo, faces)])
        if done.error is not None:
            raise done.error
        assert done.crops is not None
        return self._embedded(done.faces, self.embed(done.crops))

    def batch(self, photos: Sequence[Photo]) -> list[Encoded[Photo]]:
        """Encode some photos in the calling thread, with all their crops in shared batches.

        Returns:
            One result per photo, in order; an error of a photo is in its result.
        """
        found, _ = self._encode_chunk(
            list(photos), lambda photo: photo, None, self._extractor.extract
        )
        return found

    def stream(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Photo | Unopened | None],
        known: Callable[[Item], Sequence[Face]] | None = None,
        held: Callable[[Item], int] | None = None,
    ) -> Iterator[Encoded[Item]]:
        """Encode many photos, with one `Encoded` per item, in order.

        The first result comes before a second item is consumed. Then the number of items in
        progress grows with the number of results, up to 16 per thread. From a source that is much
        slower than encoding, no item is consumed while a result is outstanding.

        Args:
            items: any objects; consumed by the calling thread as workers become free.
            read: returns the photo of an item; called in a worker thread. An unopened photo is
                opened by the process that extracts its faces, which is faster. None skips the
                item, whose result then has no faces. A `PhotoError` becomes the error of the
                item; any other exception is raised here.
            known: returns the known faces of an item, in pixels of the full photo, instead of
                detecting them; the result keeps their order.
            held: returns how many bytes an item holds in memory; None if that is little. No item is
                consumed while the items in progress hold ``HELD_BYTES`` per thread.

        Raises:
            RuntimeUnavailableError: the results are asked for in a child process after a fork.
        """
        items = iter(items)
        waiting: deque[Future[tuple[list[Encoded[Item]], float]]] = deque()
        threads = self.runtime.threads
        process = os.getpid()
        # Each worker has one chunk in progress and one waiting.
        chunks = 2 * threads
        consumed = returned = 0
        to_get = to_encode = 0.0  # seconds per item
        in_memory, most = 0, HELD_BYTES * threads
        with ExtractorProcesses(self._extractor, threads) as extractor:
            encode = partial(self._encode_chunk, read=read, known=known, extract=extractor.extract)
            try:
                while True:
                    while (free := min(returned + 1, chunks * CHUNK) - consumed + returned) > 0:
                        is_slow = to_get > SLOW_SOURCE * to_encode
                        size = 1 if is_slow else min(max(returned // chunks, 1), CHUNK)
                        # The small chunks of the beginning must not be followed by as small ones.
                        is_small = free < size and len(waiting) >= chunks
                        if waiting and (is_slow or is_small or in_memory >= most):
                            break
                        size = min(size, free)
                        started = time.monotonic()
                        chunk = []
                        for item in islice(items, size):
                            chunk.append(item)
                            if held is not None:
                                in_memory += held(item)
                                if in_memory >= most:
                                    break
                        if not chunk:
                            break
                        to_get = (time.monotonic() - started) / len(chunk)
                        consumed += len(chunk)
                        waiting.append(self._pool.submit(encode, chunk))
                    if os.getpid() != process:
                        raise RuntimeUnavailableError(
                            f"these results are computed by process {process}, from which this "
                            "one was forked; begin again in the child"
                        )
                    if not waiting:
                        return
                    done, seconds = waiting.popleft().result()
                    to_encode = seconds / len(done)
                    if held is not None:
                        in_memory -= sum(held(one.item) for one in done)
                    for one in done:
                        returned += 1
                        yield one
            finally:
                # After an early stop the caller may close what `read` and `known` use.
                if os.getpid() == process:
                    wait([future for future in waiting if not future.cancel()])

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the embeddings of crops with all worker threads.

        Args:
            crops: RGB uint8 (n, side, side, 3), aligned for the model.

        Returns:
            float32 (n, d), each of unit length.

        Raises:
            ModelError: the output of the network does not match its description.
        """
        step = BATCH
        if not self._embedder.whole_batches:
            step = min(BATCH, max(1, -(-len(crops) // self.runtime.threads)))
        parts = [crops[start : start + step] for start in range(0, len(crops), step)]
        if len(parts) < 2:
            return self._embedder(crops)
        return np.concatenate(list(self._pool.map(self._embedder, parts)))

    def _encode_chunk(
        self,
        items: list[Item],
        read: Callable[[Item], Photo | Unopened | None],
        known: Callable[[Item], Sequence[Face]] | None,
        extract: Extract,
    ) -> tuple[list[Encoded[Item]], float]:
        """The results of a chunk, and how many seconds it took."""
        started = time.monotonic()
        extracted = [Extracted()] * len(items)
        wanted: dict[int, Wanted] = {}
        for place, item in enumerate(items):
            try:
                photo = read(item)
            except PhotoError as error:
                extracted[place] = Extracted(error=error)
                continue
            if photo is not None:
                wanted[place] = Wanted(photo, None if known is None else known(item))
        if wanted:
            for place, done in zip(wanted, extract(list(wanted.values())), strict=True):
                extracted[place] = done
        crops = [done.crops for done in extracted if done.crops is not None]
        embeddings = iter(self._embedder(np.concatenate(crops)) if crops else ())
        encoded = [
            Encoded(
                item,
                tuple(self._embedded(done.faces, embeddings)),
                done.width,
                done.height,
                done.error,
                done.damage,
            )
            for item, done in zip(items, extracted, strict=True)
        ]
        return encoded, time.monotonic() - started

    def _embedded(self, faces: list[Face], embeddings: Iterable[NDArray[np.float32]]) -> list[Face]:
        """Add to each face the next of the embeddings."""
        return [
            face.with_embedding(embedding, self._digest)
            for face, embedding in zip(faces, islice(embeddings, len(faces)), strict=True)
        ]
