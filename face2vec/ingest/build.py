"""Filling a gallery: which photos are new, what became of each, whole batches at a time.

Rows are stored in the order in which the photos are found, whatever the order
in which workers finish, so that a build that was killed and run again ends as
one that was not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from face2vec.encoding.encoder import Encoded, Encoder
from face2vec.errors import PhotoError
from face2vec.gallery.gallery import INDEXED, NO_FACE, UNREADABLE, Entry, Gallery
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.formats import TOO_MANY_PIXELS, read_photo_bytes
from face2vec.types import Unopened

log = logging.getLogger("face2vec")

BATCH_PHOTOS = 64  # photos in one transaction
BATCH_SECONDS = 5.0  # or as many as come in this time


@dataclass(frozen=True)
class BuildSummary:
    """What `Face2Vec.add` did.

    Attributes:
        photos: photos looked at.
        added: photos that were read and recorded.
        unchanged: photos that the gallery had, by path, size and time of change.
        copies: photos whose very bytes the gallery had under another name.
        faces: faces added.
        no_face: photos read in which no face was found.
        forgotten: photos passed over, for all whom they show were forgotten.
        unreadable: (path, reason) of photos that could not be read.
        seconds: how long it took.
        interrupted: whether Ctrl-C ended it early; what is counted here is kept.
    """

    photos: int = 0
    added: int = 0
    unchanged: int = 0
    copies: int = 0
    faces: int = 0
    no_face: int = 0
    forgotten: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self.photos / self.seconds if self.seconds else 0.0


@dataclass(eq=False)
class _Task:
    """A file on its way into the gallery.

    ``known`` says that the gallery has these very bytes; it is set by the worker that reads them.
    """

    found: FoundPhoto
    size: int
    mtime_ns: int
    sha256: bytes = b""
    known: bool = False
    forgotten: bool = False


@dataclass
class Build:
    """One run over photos, with its counts so far.

    Attributes:
        gallery: open for writing.
        encoder: gives the networks; called only when a photo has to be read.
        report: called with each photo that cannot be read.
        bar: moved on by each photo.
        counts: the numbers of a `BuildSummary` so far, by name; ``"unseen"`` are photos whose
            bytes could not be read.
        unreadable: (path, reason) so far.
    """

    gallery: Gallery
    encoder: Callable[[], Encoder]
    report: Callable[[PhotoError], None] | None
    bar: Any
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    _batch: list[Entry] = field(default_factory=list)

    def run(self, found: Iterable[FoundPhoto]) -> None:
        """Bring the gallery up to these photos; what is done is stored even when this raises."""
        last = time.monotonic()
        try:
            for encoded in self._encoded(found):
                with _finished_first():
                    self._enter(encoded)
                self.bar.update()
                late = time.monotonic() - last > BATCH_SECONDS
                if len(self._batch) >= BATCH_PHOTOS or (self._batch and late):
                    with _finished_first():
                        self._store()
                    last = time.monotonic()
        finally:
            with _finished_first():
                self._store()

    def summary(self, seconds: float, interrupted: bool) -> BuildSummary:
        """The counts, frozen."""
        counts = dict(self.counts)
        # Each photo is counted under one name, so that the sum is never between two of them.
        photos = sum(counts.get(name, 0) for name in ("added", "unchanged", "copies", "forgotten"))
        return BuildSummary(
            photos=photos + counts.pop("unseen", 0),
            **counts,
            unreadable=tuple(self.unreadable),
            seconds=seconds,
            interrupted=interrupted,
        )

    def _encoded(self, found: Iterable[FoundPhoto]) -> Iterator[Encoded[_Task]]:
        changed = self._changed(found)
        for first in changed:
            yield from self.encoder().stream(chain([first], changed), self._read)

    def _changed(self, found: Iterable[FoundPhoto]) -> Iterator[_Task]:
        """The photos that are not in the gallery as they are on disk."""
        for photo in found:
            try:
                # Text and no Path, which would be most of what an unchanged photo costs.
                stat = os.stat(os.path.join(photo.folder, photo.name))  # noqa: PTH116, PTH118
            except OSError:
                yield _Task(photo, -1, -1)  # reading it says what is wrong
                continue
            here = (stat.st_size, stat.st_mtime_ns)
            if self.gallery.stat_of(photo.folder, photo.name) == here:
                self.counts["unchanged"] += 1
                self.bar.update()
            else:
                yield _Task(photo, *here)

    def _read(self, task: _Task) -> Unopened | None:
        data = read_photo_bytes(task.found.full)
        task.sha256 = hashlib.sha256(data).digest()
        task.known = self.gallery.content_of(task.sha256) is not None
        task.forgotten = self.gallery.is_forgotten(task.sha256)
        return None if task.known or task.forgotten else Unopened(data, str(task.found.full))

    def _enter(self, encoded: Encoded[_Task]) -> None:
        """Turn what became of a photo into a row of the batch."""
        task, error = encoded.item, encoded.error
        if task.forgotten:
            self.counts["forgotten"] += 1
            self._leave_out(task)
            return
        if error is not None:
            log.info("%s", error)
            self.unreadable.append((str(task.found.full), error.reason))
            if self.report is not None:
                self.report(error)
            if not task.sha256 or error.reason == TOO_MANY_PIXELS:
                # Tried again next time, which may see its bytes, or allow for more pixels.
                self.counts["unseen"] += 1
                if task.sha256:
                    self._leave_out(task)
                return
        place = (task.found.folder, task.found.name, task.size, task.mtime_ns, task.sha256)
        if task.known or self._came_meanwhile(task.sha256):
            self.counts["copies"] += 1
            self._batch.append(Entry.link(*place))
            return
        self.counts.update(added=1, faces=len(encoded.faces))
        if error is not None:
            self._batch.append(Entry(*place, 0, 0, UNREADABLE, error.reason))
            return
        status = INDEXED if encoded.faces else NO_FACE
        self.counts["no_face"] += status == NO_FACE
        self._batch.append(
            Entry(*place, encoded.width, encoded.height, status, faces=encoded.faces)
        )

    def _leave_out(self, task: _Task) -> None:
        """Take what the gallery knows of a photo away, for the file holds something else now."""
        if self.gallery.stat_of(task.found.folder, task.found.name) is not None:
            self.gallery.remove(task.found.full)

    def _came_meanwhile(self, sha256: bytes) -> bool:
        """Whether a copy that was on its way at the same time was first."""
        return (
            any(entry.sha256 == sha256 for entry in self._batch)
            or self.gallery.content_of(sha256) is not None
        )

    def _store(self) -> None:
        lost = self.gallery.record(self._batch) if self._batch else []
        self._batch = []
        if lost:
            # The bytes that these link to left the gallery while they were on their way.
            self.counts["copies"] -= len(lost)
            again = (FoundPhoto(entry.root, entry.path) for entry in lost)
            for encoded in self._encoded(again):
                self._enter(encoded)
            self.gallery.record(self._batch)
            self._batch = []


@contextmanager
def _finished_first() -> Iterator[None]:
    """Let a Ctrl-C wait until the block is done, so that what is counted is what is kept."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield  # it cannot be interrupted anyway
        return
    came: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(*came[0])
