"""Encodes photos with actors of Ray: an encoder on each processor of several machines."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from face2vec.detection.select import AnyDetector
from face2vec.encoding.encoder import CHUNK, Encoded, Encoder, Item
from face2vec.errors import (
    MissingExtraError,
    PhotoError,
    RuntimeUnavailableError,
    SettingsError,
)
from face2vec.models import LoadedModel
from face2vec.photos.formats import read_photo_bytes
from face2vec.photos.sources import PhotoLike
from face2vec.runtime.select import Runtime
from face2vec.types import Face, Photo, Unopened

log = logging.getLogger("face2vec")

IN_FLIGHT = 2  # batches of an actor: one that it works on, and one that waits for it
WINDOW = 4  # batches per actor that are read and not yet returned
WINDOW_BYTES = 32 << 20  # of photos per actor, above which no further batch is read
READERS = 8  # threads that read files
SLOW_SECONDS = 10.0
"""From this age on, and four times the usual, a batch is also given to an actor without work."""
LOOK_SECONDS = 10.0  # between two looks at the processors that the cluster has
PATIENCE_SECONDS = 20.0  # after which a wait for processors is told
CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 1.0


class RayWorkers:
    """Encodes photos on a Ray cluster; see `Workers`. For one thread.

    An actor whose process or machine is lost is started again by Ray, and its batches are computed
    again. Results have the order of the items.

    Args:
        address: ``"auto"``, or ``"HOST:PORT"`` of a cluster that this machine is a node of.
        model: the embedding network; its files are sent to the actors.
        detector: a detector, or settings of MTCNN.
        runtime: the runtime of the embedding network.
        max_pixels: photos with more pixels are refused.

    Raises:
        MissingExtraError: Ray is not installed.
        RuntimeUnavailableError: the cluster does not answer, has no processor, or has another
            version of face2vec.
    """

    def __init__(
        self,
        address: str,
        model: LoadedModel,
        detector: AnyDetector,
        runtime: Runtime,
        max_pixels: int,
    ) -> None:
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            import ray
        except ImportError as error:
            raise MissingExtraError("encoding on several machines", "ray", "cluster") from error
        _refuse_silent(address)
        self._ray = ray
        self.model = model
        self.max_pixels = max_pixels
        # Photos of videos and of queries are opened on this machine.
        self._here = Encoder(model, detector, replace(runtime, threads=1), max_pixels)
        self._owns = not ray.is_initialized()
        if self._owns:
            try:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                self._here.close()
                raise _no_cluster(address, error) from error
        files = {file.name: file.read_bytes() for file in model.files()}
        self._arguments = ray.put((model, files, detector, replace(runtime, threads=1), max_pixels))
        self._actor = ray.remote(_Worker).options(num_cpus=1, max_restarts=-1, max_task_retries=-1)
        self._actors: list[Any] = []
        self._looked = 0.0
        self._add_actors()
        if not self._actors:
            self.close()
            raise RuntimeUnavailableError(
                f"the Ray cluster at {address!r} has no processor; start its nodes with --num-cpus"
            )
        # The first to be ready is enough; the others may wait for their machines.
        asked = [actor.version.remote() for actor in self._actors]
        ready: list[Any] = []
        while not ready:
            ready, _ = ray.wait(asked, timeout=PATIENCE_SECONDS)
            if not ready:
                log.warning("waiting for a processor of the Ray cluster; others use all of them")
        version = ray.get(ready[0])
        if version != _version():
            self.close()
            raise RuntimeUnavailableError(
                f"the nodes of the Ray cluster have face2vec {version}, and this machine has "
                f"{_version()}; install the same version on all"
            )

    @property
    def count(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    def close(self) -> None:
        """End the actors, and leave the cluster if this object has joined it."""
        self._here.close()
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._owns and self._ray.is_initialized():
            self._ray.shutdown()

    def read(self, photo: PhotoLike, name: str | None = None) -> Photo:
        """Decode a photo at the scale that the detector needs.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return self._here.read(photo, name)

    def stream(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Photo | Unopened | None],
        known: Callable[[Item], Sequence[Face]] | None = None,
        held: Callable[[Item], int] | None = None,
    ) -> Iterator[Encoded[Item]]:
        """Encode many photos, with one `Encoded` per item, in order; see `Encoder.stream`.

        Args:
            items: any objects; read ahead up to 32 per actor.
            read: returns the photo of an item; called in threads of this process. Files are read
                here and their bytes sent, so the actors need not see them.
            known: returns the known faces of an item instead of detecting them.
            held: how many bytes an item holds; more than those of photos do not count here.
        """
        left = iter(items)
        window: deque[_Batch[Item]] = deque()
        running: dict[Any, tuple[_Batch[Item], int]] = {}
        is_over = False
        usual = 0.0
        with ThreadPoolExecutor(READERS, thread_name_prefix="face2vec read") as readers:

            def read_all(some: list[Item]) -> _Batch[Item]:
                return _Batch(some, list(readers.map(lambda one: _load(one, read, known), some)))

            while True:
                self._add_actors()
                while not is_over and self._has_room(window):
                    some = list(islice(left, CHUNK))
                    is_over = not some
                    if some:
                        window.append(read_all(some))
                if window and window[0].done is not None:
                    yield from window.popleft().results()
                    continue
                if not window:
                    return
                self._assign(window, running, usual)
                ready, _ = self._ray.wait(list(running), timeout=_WAIT_SECONDS)
                for reference in ready:
                    batch, _ = running.pop(reference)
                    batch.holders -= 1
                    try:
                        done = self._ray.get(reference)
                    except self._ray.exceptions.RayTaskError as error:
                        raise error.as_instanceof_cause() from error
                    except self._ray.exceptions.RayError as error:
                        log.warning("a batch is computed again: %s", str(error).split("\n")[0])
                        continue
                    if batch.done is None:
                        batch.done = done
                        usual = usual or batch.age
                        usual += (batch.age - usual) / 8

    def _has_room(self, window: deque[_Batch[Any]]) -> bool:
        if not window:
            return True
        actors = len(self._actors)
        is_small = sum(batch.bytes for batch in window) < WINDOW_BYTES * actors
        return is_small and len(window) < WINDOW * actors

    def _assign(
        self,
        window: deque[_Batch[Item]],
        running: dict[Any, tuple[_Batch[Item], int]],
        usual: float,
    ) -> None:
        """Give actors their next batches; those without work also help with what is late."""
        loads = [0] * len(self._actors)
        for _, place in running.values():
            loads[place] += 1
        waiting = [batch for batch in window if batch.done is None and not batch.holders]
        for _ in range(IN_FLIGHT):
            for place in sorted(range(len(loads)), key=loads.__getitem__):
                if waiting and loads[place] < IN_FLIGHT:
                    self._give(waiting.pop(0), place, running)
                    loads[place] += 1
        late = [
            batch
            for batch in window
            if batch.done is None and batch.age > max(SLOW_SECONDS, 4 * usual)
        ]
        for batch in late:
            mine = {place for other, place in running.values() if other is batch}
            idle = [place for place, load in enumerate(loads) if not load and place not in mine]
            if idle and batch.holders < 2:
                log.info("a batch is late and is given to another actor, too")
                self._give(batch, idle[0], running)
                loads[idle[0]] += 1

    def _give(
        self, batch: _Batch[Item], place: int, running: dict[Any, tuple[_Batch[Item], int]]
    ) -> None:
        batch.given = batch.given or time.monotonic()
        batch.holders += 1
        reference = self._actors[place].encode.remote([self._arguments], batch.photos)
        running[reference] = batch, place

    def _add_actors(self) -> None:
        """Start an actor for each processor that the cluster has gained."""
        now = time.monotonic()
        if self._actors and now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        wanted = int(self._ray.cluster_resources().get("CPU", 0))
        while len(self._actors) < wanted:
            self._actors.append(self._actor.remote())


def _version() -> str:
    """The version of face2vec in this process."""
    return str(sys.modules["face2vec"].__version__)


def _no_cluster(address: str, error: Exception) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(
        f"there is no Ray cluster at {address!r} that this machine belongs to "
        f"({' '.join(str(error).split())}); start one with 'ray start --head', and give auto or "
        "the HOST:PORT that it prints"
    )


def _refuse_silent(address: str) -> None:
    """Check that something listens at an address; Ray itself would try for minutes.

    Raises:
        RuntimeUnavailableError: nothing does.
        SettingsError: it is not an address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise SettingsError(
            f"{address!r} is not the address of a Ray cluster; give auto or HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


@dataclass(eq=False)
class _Wanted:
    """What an actor gets of an item.

    Attributes:
        photo: the photo, whose files were read; None if there is nothing to encode.
        known: its known faces, or None to detect them.
        error: why it could not be read.
    """

    photo: Photo | Unopened | None
    known: Sequence[Face] | None = None
    error: PhotoError | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the photo."""
        if isinstance(self.photo, Photo):
            return int(self.photo.image.nbytes)
        return 0 if self.photo is None else len(self.photo.source)


_Done = list[tuple[tuple[Face, ...], int, int, PhotoError | None, str]]


@dataclass(eq=False)
class _Batch(Generic[Item]):
    """Some items, and what became of them.

    Attributes:
        items: the items.
        wanted: what is to be encoded of each.
        photos: those with something to encode.
        bytes: of their photos.
        done: the results of ``photos``; None until an actor has returned them.
        holders: how many actors have the batch.
        given: when the first got it.
    """

    items: list[Item]
    wanted: list[_Wanted]
    photos: list[_Wanted] = field(init=False)
    bytes: int = field(init=False)
    done: _Done | None = None
    holders: int = 0
    given: float = 0.0

    def __post_init__(self) -> None:
        self.photos = [one for one in self.wanted if one.photo is not None]
        self.bytes = sum(one.bytes for one in self.photos)
        if not self.photos:
            self.done = []

    @property
    def age(self) -> float:
        """Seconds since the first actor got it."""
        return time.monotonic() - self.given if self.given else 0.0

    def results(self) -> Iterator[Encoded[Item]]:
        """One result per item."""
        assert self.done is not None
        done = iter(self.done)
        for item, wanted in zip(self.items, self.wanted, strict=True):
            if wanted.photo is None:
                yield Encoded(item, error=wanted.error)
            else:
                yield Encoded(item, *next(done))


def _load(
    item: Item,
    read: Callable[[Item], Photo | Unopened | None],
    known: Callable[[Item], Sequence[Face]] | None,
) -> _Wanted:
    """Read the photo of an item."""
    try:
        photo = read(item)
        if isinstance(photo, Unopened) and isinstance(photo.source, str):
            data = read_photo_bytes(photo.source)
            photo = Unopened(data, photo.name or photo.source)
    except PhotoError as error:
        return _Wanted(None, error=error)
    faces = None if known is None or photo is None else known(item)
    return _Wanted(photo, faces)


class _Worker:
    """An actor: one encoder with one thread, made for the first batch, also after a restart."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def version(self) -> str:
        """The version of face2vec here."""
        return _version()

    def encode(self, kept: list[Any], wanted: list[_Wanted]) -> _Done:
        """The faces of some photos.

        Args:
            kept: one reference to what Ray keeps: model, its files, detector, runtime and largest
                number of pixels.
            wanted: the photos.
        """
        encoder = self._encoder = self._encoder or self._made(kept)
        known = None if wanted[0].known is None else lambda one: one.known or ()
        done = encoder.stream(wanted, lambda one: one.photo, known)
        return [(one.faces, one.width, one.height, one.error, one.damage) for one in done]

    def _made(self, kept: list[Any]) -> Encoder:
        import ray

        model, files, detector, runtime, max_pixels = ray.get(kept[0])
        # Removed when the encoder has read it: Ray ends an actor without a chance to do so later.
        with tempfile.TemporaryDirectory(
            prefix="face2vec-model-", ignore_cleanup_errors=True
        ) as folder:
            for name, data in files.items():
                Path(folder, name).write_bytes(data)
            model = replace(model, path=Path(folder, model.path.name))
            return Encoder(model, detector, runtime, max_pixels)
