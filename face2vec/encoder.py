"""Photos to faces with embeddings: decode, detect, align and embed, overlapped, in order.

Worker threads each take a few photos the whole way; inside a worker every
network runs on that one thread. Photos come out in the order in which they
went in, and no more of them are in memory than the workers have in hand.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.alignment import cut_faces, cut_known
from face2vec.cascade import Detector, DetectorSettings
from face2vec.detector_processes import Detect, DetectorProcesses
from face2vec.embedder import BATCH, Embedder
from face2vec.errors import PhotoError
from face2vec.models import LoadedModel
from face2vec.photos import MAX_PIXELS, PhotoLike, open_photo
from face2vec.records import Face, Photo, model_digest
from face2vec.runtime import Runtime, detector_runtime

log = logging.getLogger("face2vec")

Item = TypeVar("Item")

CHUNK = 8  # photos that one worker takes at a time
CHUNK_PIXELS = 4_000_000  # decoded pixels whose faces are searched together


@dataclass(frozen=True)
class Encoded(Generic[Item]):
    """What became of one photo.

    Attributes:
        item: what was given.
        faces: the faces with their embeddings, most confident first.
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels of the upright photo, 0 if it could not be read.
        error: why it could not be read, or None.
    """

    item: Item
    faces: tuple[Face, ...] = ()
    width: int = 0
    height: int = 0
    error: PhotoError | None = None


@dataclass(eq=False)
class _Cut(Generic[Item]):
    """A photo whose faces are cut out and not yet embedded."""

    item: Item
    width: int = 0
    height: int = 0
    faces: list[Face] = field(default_factory=list)
    crops: NDArray[np.uint8] | None = None
    error: PhotoError | None = None


class Encoder:
    """Finds and embeds faces. Safe to use from several threads at once.

    Args:
        model: the embedding network and how it wants its crops.
        settings: what counts as a face.
        runtime: where the embedding network runs.
        max_pixels: photos with more pixels are not decoded.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: DetectorSettings,
        runtime: Runtime,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.model = model
        self.settings = settings
        self.runtime = runtime
        self.max_pixels = max_pixels
        self._detector = Detector(settings, detector_runtime(runtime))
        self._embedder = Embedder(model, runtime)
        self._digest = model_digest(model.as_fingerprint())
        self._pool = ThreadPoolExecutor(runtime.threads, thread_name_prefix="face2vec")

    def close(self) -> None:
        """Let the worker threads end."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, photo: PhotoLike, name: str | None = None) -> Photo:
        """Decode a photo at the size at which its faces are searched.

        Raises:
            PhotoError: it cannot be read.
        """
        return open_photo(
            photo, name=name, max_side=self.settings.searched_side(), max_pixels=self.max_pixels
        )

    def encode(self, photo: Photo) -> list[Face]:
        """Faces of one photo with their embeddings, most confident first.

        Raises:
            PhotoError: it has to be read again in full for a small face, and cannot be.
        """
        cut = self._cut([_Cut(photo)], [photo], self._detector.detect)[0]
        if cut.error is not None:
            raise cut.error
        assert cut.crops is not None
        return self._embedded(cut.faces, self.embed(cut.crops))

    def stream(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Photo | None],
        known: Callable[[Item], Sequence[Face]] | None = None,
    ) -> Iterator[Encoded[Item]]:
        """Encode many photos, one `Encoded` an item, in order.

        Args:
            items: anything; taken as workers become free.
            read: opens an item; called in a worker. None stands for one that
                is not to be encoded and comes out without faces. A `PhotoError`
                becomes that item's error, any other exception is raised here.
            known: gives the faces of an item, in pixels of the full photo, where they are
                not to be searched for; they come out in that order.
        """
        items = iter(items)
        waiting: deque[Future[list[Encoded[Item]]]] = deque()
        threads = self.runtime.threads
        with DetectorProcesses(self.settings, threads, self._detector.detect) as detector:
            encode = partial(self._encode_chunk, read=read, known=known, detect=detector.detect)
            try:
                while True:
                    # One chunk a worker in hand, and one each behind it.
                    while len(waiting) < 2 * threads and (chunk := list(islice(items, CHUNK))):
                        waiting.append(self._pool.submit(encode, chunk))
                    if not waiting:
                        return
                    yield from waiting.popleft().result()
            finally:
                # Whoever stops early may close next what `read` and `known` look into.
                wait([future for future in waiting if not future.cancel()])

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of crops, spread over the worker threads.

        Args:
            crops: RGB uint8 (n, side, side, 3), cut as the model wants them.

        Returns:
            float32 (n, d), each of unit length.

        Raises:
            ModelError: the network does not give what its description says.
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
        read: Callable[[Item], Photo | None],
        known: Callable[[Item], Sequence[Face]] | None,
        detect: Detect,
    ) -> list[Encoded[Item]]:
        cuts: list[_Cut[Item]] = []
        together: list[tuple[_Cut[Item], Photo]] = []
        for item in items:
            cut = _Cut(item)
            cuts.append(cut)
            try:
                if (photo := read(item)) is None:
                    continue
                if known is None:
                    together.append((cut, photo))
                else:
                    cut.width, cut.height = photo.width, photo.height
                    model = self.model.description
                    cut.faces, cut.crops = cut_known(photo, known(item), model)
            except PhotoError as error:
                cut.error = error
            if sum(photo.image.size for _, photo in together) >= 3 * CHUNK_PIXELS:
                self._cut_all(together, detect)
                together = []
        self._cut_all(together, detect)
        crops = [cut.crops for cut in cuts if cut.crops is not None]
        embeddings = iter(self._embedder(np.concatenate(crops)) if crops else ())
        return [
            Encoded(
                cut.item,
                tuple(self._embedded(cut.faces, embeddings)),
                cut.width,
                cut.height,
                cut.error,
            )
            for cut in cuts
        ]

    def _cut_all(self, together: list[tuple[_Cut[Any], Photo]], detect: Detect) -> None:
        if together:
            self._cut([cut for cut, _ in together], [photo for _, photo in together], detect)

    def _cut(self, cuts: list[_Cut[Any]], photos: list[Photo], detect: Detect) -> list[_Cut[Any]]:
        """Fill in size, faces and crops of photos that are searched together."""
        model = self.model.description
        found = detect([photo.image for photo in photos])
        for cut, photo, faces in zip(cuts, photos, found, strict=True):
            cut.width, cut.height = photo.width, photo.height
            try:
                cut.faces, cut.crops = cut_faces(photo, faces, model)
            except PhotoError as error:  # it was read once, but not a second time at full size
                cut.faces, cut.crops, cut.error = [], None, error
        return cuts

    def _embedded(self, faces: list[Face], embeddings: Iterable[NDArray[np.float32]]) -> list[Face]:
        """Faces with the next embeddings; takes as many as there are faces."""
        return [
            face.with_embedding(embedding, self._digest)
            for face, embedding in zip(faces, islice(embeddings, len(faces)), strict=True)
        ]
