"""Adds photos and videos to a gallery: finds the new ones, encodes them, stores them in batches.

Rows are stored in the order in which photos are found, not in which workers finish. Therefore a
build that was killed and run again gives the same gallery as an uninterrupted build. A video is
stored when all of it was read; if a build is killed meanwhile, the next one reads it again.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

from face2vec.encoding.encoder import Encoded
from face2vec.encoding.files import stream_files
from face2vec.encoding.seam import Workers
from face2vec.encoding.tracks import Tracks
from face2vec.errors import PhotoError
from face2vec.gallery.rows import INDEXED, NO_FACE, UNREADABLE, Entry, Recorded, called
from face2vec.gallery.writer import Writer
from face2vec.ingest.progress import Bar
from face2vec.photos.dates import photo_taken
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.extras import VIDEO, kind_by_name
from face2vec.photos.formats import (
    CHANGED,
    EMPTY_FILE,
    HEAD_BYTES,
    IS_VIDEO,
    NEEDS_JXL,
    NEEDS_RAW,
    NEEDS_VIDEO,
    TOO_MANY_BYTES,
    TOO_MANY_PIXELS,
    file_sha256,
    photo_format,
    read_photo_bytes,
)
from face2vec.photos.storage import status_of
from face2vec.photos.video import Video, is_video, video_taken
from face2vec.types import Unopened, clock

log = logging.getLogger("face2vec")

BATCH_PHOTOS = 64  # photos per transaction
NOT_FOR_EVER = (TOO_MANY_PIXELS, NEEDS_RAW, NEEDS_JXL, NEEDS_VIDEO, IS_VIDEO, CHANGED)
"""Reasons that depend on settings, on what is installed, on a name or on the moment, and not on the
bytes of a file."""
BATCH_SECONDS = 5.0  # after this time, a smaller batch is stored
SHOWN_SECONDS = 0.2  # between two updates of the place in a video


@dataclass(frozen=True)
class BuildSummary:
    """What `Face2Vec.add` did.

    Attributes:
        photos: number of all photos, videos included.
        videos: how many of them are videos, by their names.
        added: photos that were read and added.
        unchanged: photos that the gallery has under the same path with the same size and times, or
            with the same bytes.
        copies: photos whose content the gallery has under another path.
        faces: faces that were added.
        no_face: added photos without a face.
        forgotten: skipped photos that show only forgotten people.
        unreadable: (path, reason) of photos that could not be read, now or, if they are unchanged,
            earlier. ``photos`` is the sum of added, unchanged, copies, forgotten and unreadable
            photos.
        damaged: (path, what is missing) of photos that were read in part, now or, if they are
            unchanged, earlier; they are counted under another name.
        left_out: files and folders that were left out, by pattern, such as ``{"@eaDir/": 12}``; not
            counted in ``photos``.
        unread: files that no installed package reads, by kind (``"RAW"``, ``"JXL"``, ``"VIDEO"``);
            not counted in ``photos``.
        paired: camera raw files that were left out because the JPEG of the same name is beside
            them; not counted in ``photos``.
        seconds: duration.
        interrupted: whether Ctrl-C ended the build early; counted photos are stored.
    """

    photos: int = 0
    videos: int = 0
    added: int = 0
    unchanged: int = 0
    copies: int = 0
    faces: int = 0
    no_face: int = 0
    forgotten: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    paired: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        unreadable, damaged = (
            [{"photo": photo, "reason": reason} for photo, reason in photos]
            for photos in (self.unreadable, self.damaged)
        )
        return {**asdict(self), "unreadable": unreadable, "damaged": damaged, "rate": self.rate}

    @property
    def rate(self) -> float:
        """Photos per second."""
        return self.photos / self.seconds if self.seconds else 0.0


@dataclass(eq=False)
class _Task:
    """A file that is being added.

    What reads it, a worker or for a video the calling thread, sets ``sha256``, ``outcome`` (status
    and reason, if the gallery has this content), ``known`` (it has it, so that it is not encoded),
    ``again`` (it has it, and it is encoded again) and ``forgotten``.
    """

    found: FoundPhoto
    size: int = -1
    mtime_ns: int = -1
    ctime_ns: int = -1
    recorded: Recorded | None = None
    sha256: bytes = b""
    outcome: tuple[str, str] | None = None
    known: bool = False
    again: bool = False
    forgotten: bool = False
    is_video: bool = False
    taken: str | None = None


@dataclass
class Build:
    """One run over photos, with its counts so far.

    Attributes:
        writer: writes to the gallery.
        encoder: returns the encoder; called only if a photo must be encoded.
        report: called with the error of each unreadable photo.
        bar: progress bar, advanced by each photo.
        again: some of ``STATUSES``; photos with them are read although they are unchanged.
        counts: counts of a `BuildSummary` so far, by name.
        unreadable: (path, reason) of unreadable photos so far.
        damaged: (path, what is missing) of photos that were read in part so far.
    """

    writer: Writer
    encoder: Callable[[], Workers]
    report: Callable[[PhotoError], None] | None
    bar: Bar
    again: Collection[str] = ()
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    _batch: list[Entry] = field(default_factory=list)
    _read_again: set[bytes] = field(default_factory=set)
    _stored: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def run(self, found: Iterable[FoundPhoto]) -> None:
        """Add the new and changed photos; finished photos are stored even if this raises."""
        try:
            for encoded in self._encoded(found):
                with _interrupt_delayed():
                    self._enter(encoded)
                self._advance(encoded.item.found)
                self._store_if_due()
        finally:
            with _interrupt_delayed():
                self._store()

    def summary(
        self,
        seconds: float,
        interrupted: bool,
        left_out: Mapping[str, int],
        unread: Mapping[str, int],
    ) -> BuildSummary:
        """The counts so far as a `BuildSummary`."""
        counts = dict(self.counts)
        # Each photo is counted under exactly one of these names.
        photos = sum(counts.get(name, 0) for name in ("added", "unchanged", "copies", "forgotten"))
        return BuildSummary(
            photos=photos + len(self.unreadable),
            **counts,
            unreadable=tuple(self.unreadable),
            damaged=tuple(self.damaged),
            left_out=dict(left_out),
            unread={kind: count for kind, count in unread.items() if count},
            seconds=seconds,
            interrupted=interrupted,
        )

    def _encoded(self, found: Iterable[FoundPhoto]) -> Iterator[Encoded[_Task]]:
        changed = self._changed(found)
        for first in changed:
            yield from stream_files(
                self.encoder(),
                chain([first], changed),
                self._read,
                self._video,
                gatherer=self._tracks,
                on_frame=self._on_frame,
            )

    def _changed(self, found: Iterable[FoundPhoto]) -> Iterator[_Task]:
        """The photos whose size or a time differs from the gallery's, and those asked for."""
        for photo in found:
            try:
                now = photo.status or status_of(photo.place)
            except OSError:
                yield _Task(photo)  # reading it reports the error
                continue
            outcome = self.writer.outcome_if_unchanged(photo.folder, photo.name, *now)
            if outcome is None or self._is_asked(*outcome):
                yield _Task(photo, *now, self.writer.recorded(photo.folder, photo.name))
                continue
            status, reason = outcome
            if status == UNREADABLE:
                self._fail(PhotoError(photo.place, reason))
            else:
                self.counts["unchanged"] += 1
                self._note_damage(photo, reason)
            self._advance(photo)

    def _advance(self, found: FoundPhoto) -> None:
        """A photo or video is done."""
        if kind_by_name(found.name) == VIDEO:
            self.counts["videos"] += 1
            self.bar.set_postfix_str("", refresh=False)
        self.bar.update()

    def _read(self, task: _Task) -> Unopened | None:
        if task.is_video:  # one that the gallery has
            return None
        path = task.found.place
        with self._emptied(task):
            data = read_photo_bytes(path)
        if photo_format(data[:HEAD_BYTES]) == VIDEO:
            raise PhotoError(path, IS_VIDEO, "give it a name that ends as those of videos do")
        self._look_up(task, hashlib.sha256(data).digest())
        if not task.forgotten:
            task.taken = photo_taken(data)
        return None if task.known or task.forgotten else Unopened(data, path)

    def _video(self, task: _Task) -> Video | None:
        """The video of a file, if it is one and is not known."""
        path = task.found.place
        if not is_video(path):
            return None
        task.is_video = True
        video = Video(path, max_pixels=self.encoder().max_pixels)
        with self._emptied(task):
            sha256 = file_sha256(path)
        self._look_up(task, sha256)
        if not task.forgotten:
            task.taken = video_taken(path, max_pixels=self.encoder().max_pixels)
        return None if task.known or task.forgotten else video

    def _tracks(self, task: _Task) -> Tracks:
        places = self.writer.blocked(task.sha256)
        return Tracks([place for place in places if place is not None])

    def _on_frame(self, _task: _Task, seconds: float) -> None:
        now = time.monotonic()
        if now - self._shown > SHOWN_SECONDS:
            self.bar.set_postfix_str(f"in a video at {clock(seconds)}")
            self._shown = now
        self._store_if_due()  # a long video must not keep the photos before it from the gallery

    @contextmanager
    def _emptied(self, task: _Task) -> Iterator[None]:
        """Around the reading of a file.

        An empty file may still be filled, and is tried again; one that was emptied is recorded as
        unreadable, so that its old faces go.
        """
        try:
            yield
        except PhotoError as error:
            if error.reason == EMPTY_FILE and self._is_recorded(task):
                task.sha256 = hashlib.sha256(b"").digest()
            raise

    def _look_up(self, task: _Task, sha256: bytes) -> None:
        """Set what the gallery has of the bytes of a file."""
        task.sha256 = sha256
        task.outcome = self.writer.outcome_of(task.sha256)
        task.again = task.outcome is not None and self._may_read_again(*task.outcome)
        task.known = task.outcome is not None and not task.again
        task.forgotten = self.writer.is_forgotten(task.sha256)

    def _is_asked(self, status: str, reason: str) -> bool:
        """Whether photos with this outcome are to be read although they are unchanged."""
        return bool(self.again) and called(status, reason) in self.again

    def _may_read_again(self, status: str, reason: str) -> bool:
        """Whether bytes with this outcome are to be read again; those with faces keep them."""
        return status in (NO_FACE, UNREADABLE) and self._is_asked(status, reason)

    def _enter(self, encoded: Encoded[_Task]) -> None:
        """Add the result of one photo to the batch."""
        task, error = encoded.item, encoded.error
        if task.forgotten:
            self.counts["forgotten"] += 1
            self._remove_stale(task)
            return
        if error is not None:
            self._fail(error)
            if not task.sha256 or error.reason in NOT_FOR_EVER:
                # Not recorded, so that the next build tries it again.
                if error.reason in (*NOT_FOR_EVER, TOO_MANY_BYTES):
                    self._remove_stale(task)
                return
        place = (task.found.folder, task.found.name, task.size, task.mtime_ns, task.sha256)
        is_first = task.again and task.sha256 not in self._read_again
        if not is_first and (task.known or self._added_meanwhile(task.sha256)):
            if error is None:
                self._count_known(task)
            self._batch.append(Entry.link(*place, task.ctime_ns, task.taken))
            return
        if is_first:
            self._read_again.add(task.sha256)
        if error is not None:
            entry = Entry(*place, 0, 0, UNREADABLE, error.reason)
        else:
            self.counts.update(added=1, faces=len(encoded.faces))
            status = INDEXED if encoded.faces else NO_FACE
            self.counts["no_face"] += status == NO_FACE
            size = encoded.width, encoded.height
            entry = Entry(*place, *size, status, encoded.damage, encoded.faces)
            self._note_damage(task.found, encoded.damage)
        entry = replace(entry, ctime_ns=task.ctime_ns, taken=task.taken)
        self._batch.append(replace(entry, again=is_first))

    def _count_known(self, task: _Task) -> None:
        """Count a photo whose bytes the gallery has, and report it if they cannot be read."""
        status, reason = task.outcome or ("", "")
        if status == UNREADABLE and not task.again:
            self._fail(PhotoError(task.found.place, reason))
            return
        self._note_damage(task.found, reason)
        if task.recorded is not None and task.recorded.sha256 == task.sha256 and not task.again:
            self.counts["unchanged"] += 1
        else:
            self.counts["copies"] += 1

    def _note_damage(self, found: FoundPhoto, damage: str) -> None:
        if damage:
            self.damaged.append((found.place, damage))

    def _fail(self, error: PhotoError) -> None:
        """Count and report an unreadable photo."""
        log.info("%s", error)
        self.unreadable.append((error.photo, error.reason))
        if self.report is not None:
            self.report(error)

    def _remove_stale(self, task: _Task) -> None:
        """Remove a photo from the gallery if its file has been replaced."""
        if self._is_recorded(task):
            self.writer.remove(task.found.place)

    def _is_recorded(self, task: _Task) -> bool:
        return self.writer.stat_of(task.found.folder, task.found.name) is not None

    def _added_meanwhile(self, sha256: bytes) -> bool:
        """Whether a copy was recorded while this photo was being encoded."""
        return (
            any(entry.sha256 == sha256 for entry in self._batch)
            or self.writer.content_of(sha256) is not None
        )

    def _store_if_due(self) -> None:
        late = time.monotonic() - self._stored > BATCH_SECONDS
        if len(self._batch) >= BATCH_PHOTOS or (self._batch and late):
            with _interrupt_delayed():
                self._store()
            self._stored = time.monotonic()

    def _store(self) -> None:
        lost = self.writer.record(self._batch) if self._batch else []
        self._batch = []
        if lost:
            # The content that these links refer to was removed from the gallery meanwhile.
            self.counts["copies"] -= len(lost)
            again = (FoundPhoto(entry.root, entry.path) for entry in lost)
            for encoded in self._encoded(again):
                self._enter(encoded)
            self.writer.record(self._batch)
            self._batch = []


@contextmanager
def _interrupt_delayed() -> Iterator[None]:
    """Delay Ctrl-C until the block ends, so that the counts match the stored photos."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield  # Ctrl-C cannot interrupt the block
        return
    delayed: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *args: delayed.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if delayed:
            usual(*delayed[0])
