"""Follows folders, and adds, changes and removes their photos in a gallery as files change."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from face2vec.engine import Face2Vec
from face2vec.errors import Face2VecError, GalleryMismatchError, SettingsError
from face2vec.files import is_object
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.photos.discover import OTHER_SUFFIXES, Source, find_photos, paths_of
from face2vec.types import NAMED_AT_LEAST, Face
from face2vec.watch.events import Look, looks
from face2vec.watch.settling import Settling
from face2vec.watch.webhook import Webhook

log = logging.getLogger("face2vec")

SETTLED = 2.0
"""Seconds for which a file must stay the same to count as complete."""
RETRY = 5.0
"""Seconds until photos are tried again whose gallery could not be written."""

Kind = Literal["added", "changed", "moved", "copied", "unreadable", "deleted", "removed"]


@dataclass(frozen=True)
class Change:
    """What became of a photo.

    Attributes:
        kind: ``"added"``; ``"changed"`` (other bytes); ``"moved"`` (from ``before``); ``"copied"``
            (the gallery has its bytes under another path); ``"unreadable"``; ``"deleted"`` (the
            gallery keeps it); or ``"removed"`` (from the gallery).
        photo: full path of the photo, or of a folder that was deleted.
        faces: number of its faces; of those that were removed.
        before: the path that a moved photo had; otherwise empty.
        reason: why it is unreadable, or what is missing of it; otherwise empty.
    """

    kind: Kind
    photo: str
    faces: int = 0
    before: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def watch(
    engine: Face2Vec,
    *folders: Source | Iterable[Source],
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    prune: bool = False,
    settled: float = SETTLED,
    webhook: Webhook | None = None,
    at_least: float = NAMED_AT_LEAST,
    stop: threading.Event | None = None,
    say: Callable[[str], object] = log.info,
    progress: bool = False,
) -> Iterator[Change]:
    """Index folders, then yield each change of their photos as it is made in the gallery.

    It ends when ``stop`` is set, and with KeyboardInterrupt. Errors of single photos are changes of
    kind ``"unreadable"``; a gallery that cannot be written now, because another process writes, is
    tried again.

    Args:
        engine: what the photos are added to.
        folders: folders that exist; their subfolders are followed as well, links are not.
        exclude: as for `Face2Vec.add`.
        include: as for `Face2Vec.add`.
        prune: remove photos from the gallery whose files were deleted or moved away.
        settled: seconds for which a file must stay the same to count as complete.
        webhook: is sent each face of a new or changed photo that shows a named person. Photos that
            are indexed at the start are not sent.
        at_least: lowest probability to send, 0…1; see `Face2Vec.identify`.
        stop: ends it.
        say: is told what a person should know.
        progress: show a progress bar for the first build.

    Raises:
        SettingsError: a folder does not exist.
        CalibrationError: there is a webhook, and no calibration.
        GalleryMismatchError: the gallery has another model, or got one.
        MissingExtraError: watchfiles is not installed.
    """
    paths = paths_of(folders)
    for path in filter(is_object, paths):
        raise SettingsError(
            f"{path} is in object storage, which does not tell of its changes; run 'face2vec "
            f"index {path}' from time to time, which reads only what is new"
        )
    roots = [os.path.realpath(path) for path in paths]
    for root in roots:
        if not os.path.isdir(root):  # noqa: PTH112
            raise SettingsError(f"{root!r} is not a folder; only folders can be watched")
    watcher = _Watcher(
        engine, roots, (exclude, include), prune, Settling(settled), webhook, at_least, say
    )
    return _changes(watcher, looks(roots, settled / 2, stop or threading.Event(), say), progress)


def _changes(watcher: _Watcher, seen: Iterator[Look], progress: bool) -> Iterator[Change]:
    try:
        started = False
        for look in seen:  # they are collected from the first on, so that none is missed
            if not started:
                started = True
                yield from watcher.start(progress)
            yield from watcher.tick(look)
    finally:
        watcher.close()


class _Watcher:
    """What `watch` knows between two looks at the changes."""

    def __init__(
        self,
        engine: Face2Vec,
        roots: list[str],
        patterns: tuple[Sequence[str], Sequence[str]],
        prune: bool,
        settling: Settling,
        webhook: Webhook | None,
        at_least: float,
        say: Callable[[str], object],
    ) -> None:
        self._engine, self._roots, self._prune = engine, roots, prune
        self._exclude, self._include = patterns
        self._settling, self._webhook, self._at_least = settling, webhook, at_least
        self._say = say
        self._gone: dict[str, float] = {}  # deleted paths, and when
        self._again: set[str] = set()  # complete files that could not be added
        # What the gallery had before the try that failed: its newest content, and theirs.
        self._at_error: tuple[int, dict[str, int]] | None = None
        self._not_before = 0.0
        self._last_error = ""

    def start(self, progress: bool) -> Iterator[Change]:
        """Index the folders as they are now."""
        summary = self._engine.add(
            *self._roots, exclude=self._exclude, include=self._include, progress=progress
        )
        if summary.interrupted:
            raise KeyboardInterrupt
        folder = Path(self._engine.info()["gallery"])
        self._gallery = Gallery.open(folder)
        self._folder = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118
        if self._webhook is not None:
            _ = self._engine.calibration  # an error now, and not at the first face
        photos = "1 photo" if summary.photos == 1 else f"{summary.photos:,} photos"
        self._say(f"watching {', '.join(self._roots)}: {photos}, {summary.added:,} added")
        for photo, reason in summary.unreadable:
            yield Change("unreadable", photo, reason=reason)

    def close(self) -> None:
        """Close the gallery."""
        if self._gallery is not None:
            self._gallery.close()

    _gallery: Gallery | None = None

    def _read(self) -> Snapshot:
        assert self._gallery is not None
        return self._gallery.read()

    def tick(self, look: Look) -> Iterator[Change]:
        """Take what has changed, and put into the gallery what is complete.

        Args:
            look: what has changed.

        Raises:
            GalleryMismatchError: the gallery got another model.
        """
        now = time.monotonic()
        for deleted, path in look.changes:
            if self._concerns(path):
                self._note(deleted, path, now)
        for folder in look.again:
            self._note(False, folder, now)
        if now < self._not_before:
            return
        ready = sorted({*self._settling.ready(now), *self._again})
        # A file that moves is gone at once, and its new name has to settle first.
        late = now - 2 * self._settling.seconds
        gone = [path for path, when in self._gone.items() if when <= late]
        try:
            yield from self._put(ready, gone)
        except GalleryMismatchError:
            raise
        except (Face2VecError, OSError) as error:
            if str(error) != self._last_error:
                self._say(f"{error}; tried again every {RETRY:g} s")
            self._last_error = str(error)
            self._again, self._not_before = set(ready), now + RETRY
        else:
            self._again, self._last_error = set(), ""

    def _concerns(self, path: str) -> bool:
        """Whether a path can be that of a photo: not hidden, no other file, not the gallery."""
        root = next((one for one in self._roots if path.startswith(os.path.join(one, ""))), None)  # noqa: PTH118
        if root is None or path.startswith(self._folder):
            return False
        suffix = os.path.splitext(path)[1][1:].lower()  # noqa: PTH122
        is_hidden = f"{os.sep}." in path[len(root.rstrip(os.sep)) :]
        return suffix not in OTHER_SUFFIXES and not is_hidden

    def _note(self, deleted: bool, path: str, now: float) -> None:
        if os.path.isdir(path):  # noqa: PTH112
            # A folder that was moved here tells nothing of its files.
            with suppress(SettingsError):
                for photo in find_photos(path):
                    self._settling.note(str(photo.full), now)
        elif deleted and not os.path.lexists(path):
            self._gone.setdefault(path, now)
        else:
            self._gone.pop(path, None)
            self._settling.note(path, now)

    def _put(self, ready: Sequence[str], gone: Sequence[str]) -> Iterator[Change]:
        """Add the files that are complete, and remove those that are gone."""
        if not ready and not gone:
            return
        with self._read() as now:
            newest, before = now.newest_content(), _contents(now, ready)
            gone_places = [
                one for path in (self._gone if ready else ()) for one in now.contents_under(path)
            ]
        if self._at_error is not None:  # a part of these photos was stored before the error
            newest, known = self._at_error
            before = {path: before[path] for path in before.keys() - self._again} | known
        self._at_error = newest, before
        failed: dict[str, str] = {}
        if ready:
            done = self._engine.add(
                *filter(os.path.isdir, self._roots),
                exclude=self._exclude,
                include=self._include,
                only=ready,
                report=lambda error: failed.update({error.photo: error.reason}),
            )
            if done.interrupted:
                raise KeyboardInterrupt
        with self._read() as now:
            after = _contents(now, ready)
        old_places: dict[int, list[str]] = {}
        for path, its_content in gone_places:
            if not os.path.lexists(path):
                old_places.setdefault(its_content, []).append(path)
        moved: list[str] = []
        for path in ready:
            content = after.get(path)
            if path in failed:
                yield Change("unreadable", path, reason=failed[path])
            elif content is not None and content != before.get(path):
                old = old_places[content].pop() if old_places.get(content) else ""
                moved += [old] if old else []
                yield self._added(path, path in before, content > newest, old)
        self._at_error = None
        if moved and self._lost() is None:
            self._engine.remove(moved)  # their faces stay, at the new paths
        yield from self._dropped(gone)

    def _lost(self) -> str | None:
        """A folder that is missing or empty, as when its disk is disconnected."""
        return next((root for root in self._roots if _is_missing_or_empty(root)), None)

    def _added(self, path: str, known: bool, new: bool, old: str) -> Change:
        with self._read() as now:
            faces = now.embedded(now.faces_of(path))
            _, damage = now.outcome_of(path) or ("", "")
        if old:
            return Change("moved", path, len(faces), before=old)
        if not new:
            return Change("copied", path, len(faces))
        if self._webhook is not None:
            for one in faces:
                self._notify(self._webhook, path, one.face)
        return Change("changed" if known else "added", path, len(faces), reason=damage)

    def _notify(self, webhook: Webhook, path: str, face: Face) -> None:
        (found,) = self._engine.identify(face, at_least=self._at_least, candidates=0)
        if found.person is not None:
            webhook.send(
                {
                    "event": "person",
                    "person": found.person.name,
                    "photo": path,
                    "face": face.id,
                    "box": [float(value) for value in face.box],
                    "probability": float(found.probability),
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            )

    def _dropped(self, gone: Sequence[str]) -> Iterator[Change]:
        """Remove photos whose files were deleted, if that was asked for."""
        with self._read() as now:
            counts = {path: now.count_under(path) for path in gone if not os.path.lexists(path)}
        there = {path: faces for path, (photos, faces) in counts.items() if photos}
        # A folder that was deleted is told with all that was in it.
        there = {
            path: faces
            for path, faces in there.items()
            if not any(str(folder) in there for folder in Path(path).parents)
        }
        prune = self._prune and bool(there)
        lost = self._lost()
        if prune and lost is not None:
            self._say(
                f"the folder {lost} is missing or empty, so nothing was removed; connect its disk, "
                "or, if the photos are really gone, run face2vec prune with --force"
            )
            prune = False
        if prune:
            self._engine.remove(list(there))
        for path, faces in there.items():
            yield Change("removed" if prune else "deleted", path, faces)
        for path in gone:
            self._gone.pop(path, None)


def _contents(now: Snapshot, paths: Iterable[str]) -> dict[str, int]:
    """Number of the content of each photo that the gallery has."""
    found = {path: now.content_at(path) for path in paths}
    return {path: content for path, content in found.items() if content is not None}


def _is_missing_or_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True
