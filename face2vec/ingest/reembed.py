"""Upgrades a gallery to another model: embeds its faces again while it still answers searches.

The stored boxes and landmarks are used, so no face is detected again. A photo is read from the
first of its files whose content is unchanged; of a video, the frames that its faces are in.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.encoding.encoder import Encoder
from face2vec.encoding.files import stream_files
from face2vec.errors import PhotoError
from face2vec.fingerprint import Fingerprint
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import KnownPhoto
from face2vec.gallery.staging import NewEmbeddings, Remade, abandon
from face2vec.index.sync import GalleryIndex, writing
from face2vec.ingest.build import BATCH_PHOTOS, BATCH_SECONDS
from face2vec.ingest.embedding_map import EmbeddingMap, MapFigures, learn_map
from face2vec.ingest.progress import Bar
from face2vec.photos.formats import file_sha256, read_photo_bytes
from face2vec.photos.video import Video
from face2vec.types import Face, Unopened

log = logging.getLogger("face2vec")

Read = TypeVar("Read")

PAGE = 512  # photos per query of the gallery
SAMPLE = 2000  # faces from which a map is learned
CHANGED = "changed since it was indexed"


@dataclass(frozen=True)
class UpgradeSummary:
    """What `Face2Vec.upgrade` did.

    Attributes:
        switched: whether the gallery now has the new model; new embeddings are kept either way.
        faces: number of faces that were embedded again.
        mapped: number of faces with mapped embeddings, temporarily or because their photos are
            missing.
        dropped: number of faces that were removed because their photos are missing.
        missing: (photo, reason) of photos that are missing or changed.
        learned: quality of the map, if one was learned.
        seconds: duration.
        interrupted: whether Ctrl-C ended the upgrade early.
    """

    switched: bool
    faces: int = 0
    mapped: int = 0
    dropped: int = 0
    missing: tuple[tuple[str, str], ...] = ()
    learned: MapFigures | None = None
    seconds: float = 0.0
    interrupted: bool = False

    def then(self, finished: UpgradeSummary) -> UpgradeSummary:
        """Combine with the summary of a following step.

        Args:
            finished: the summary of the step that ended the upgrade.
        """
        return replace(
            finished,
            faces=self.faces + finished.faces,
            dropped=self.dropped + finished.dropped,
            learned=self.learned,
            seconds=self.seconds + finished.seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        missing = [{"photo": photo, "reason": reason} for photo, reason in self.missing]
        learned = None if self.learned is None else self.learned._asdict()
        return {**asdict(self), "missing": missing, "learned": learned, "rate": self.rate}

    @property
    def rate(self) -> float:
        """Faces per second."""
        return self.faces / self.seconds if self.seconds else 0.0


@dataclass
class Remaking:
    """Embeds faces of a gallery again, in batches.

    Attributes:
        gallery: the gallery.
        encoder: encoder of the new model.
        keep: stores a batch; called with each.
        bar: progress bar, advanced by each face.
        faces: number of faces embedded so far.
        missing: (photo, reason) of missing or changed photos, by id of the photo's content.
    """

    gallery: Gallery
    encoder: Encoder
    keep: Callable[[list[Remade]], None]
    bar: Bar
    faces: int = 0
    missing: dict[int, tuple[str, str]] = field(default_factory=dict)

    def run(self, contents: NDArray[np.int64]) -> bool:
        """Embed the faces of photos; photos whose files are missing are skipped.

        Args:
            contents: int64 (n,), ids of the photos' contents.

        Returns:
            Whether there were any photos to process.
        """
        waiting = [i for i in contents.tolist() if i not in self.missing]
        batch: list[Remade] = []
        last, photos = time.monotonic(), 0
        try:
            for done in stream_files(
                self.encoder,
                self._photos(waiting),
                self._read,
                self._video,
                gatherer=lambda _: _Again(),
                known=_faces_in,
            ):
                photo = done.item
                if done.error is not None:
                    self._miss(photo, done.error.reason)
                    continue
                remade = zip(done.faces, photo.crc32s, strict=True)
                batch += [Remade(face, check) for face, check in remade]
                photos += 1
                if photos >= BATCH_PHOTOS or time.monotonic() - last > BATCH_SECONDS:
                    self._keep(batch)
                    batch, photos, last = [], 0, time.monotonic()
        finally:
            self._keep(batch)
        return bool(waiting)

    def summary(
        self, switched: bool, started: float, *, interrupted: bool = False
    ) -> UpgradeSummary:
        """Summarise the work so far.

        Args:
            switched: whether the gallery now has the new model.
            started: start of the work in seconds of the monotonic clock.
            interrupted: whether Ctrl-C ended the work early.
        """
        return UpgradeSummary(
            switched,
            self.faces,
            missing=tuple(self.missing.values()),
            seconds=time.monotonic() - started,
            interrupted=interrupted,
        )

    def _keep(self, batch: list[Remade]) -> None:
        if batch:
            self.keep(batch)
            self.faces += len(batch)
            self.bar.update(len(batch))

    def _photos(self, contents: Sequence[int]) -> Iterator[KnownPhoto]:
        for start in range(0, len(contents), PAGE):
            with self.gallery.read() as now:
                known = now.known_photos(contents[start : start + PAGE])
            yield from known

    def _read(self, photo: KnownPhoto) -> Unopened:
        def read(name: str) -> tuple[bytes, Unopened]:
            data = read_photo_bytes(name)
            return hashlib.sha256(data).digest(), Unopened(data, name)

        return _first_unchanged(photo, read)

    def _video(self, photo: KnownPhoto) -> Video | None:
        times = sorted({face.time for face in photo.faces if face.time is not None})
        if not times:
            return None

        def read(name: str) -> tuple[bytes, Video]:
            video = Video(name, times, max_pixels=self.encoder.max_pixels)
            return file_sha256(name), video

        return _first_unchanged(photo, read)

    def _miss(self, photo: KnownPhoto, reason: str) -> None:
        log.info("%s: %s", photo.photos[0], reason)
        self.missing[photo.content] = (photo.photos[0], reason)


def waiting(gallery: Gallery, new: NewEmbeddings) -> NDArray[np.int64]:
    """Photos with a face that has no new embedding yet.

    Args:
        gallery: the gallery.
        new: the new embeddings so far.

    Returns:
        int64 (n,), ids of the photos' contents, increasing.
    """
    embedded, old_checks = new.known()
    with gallery.read() as now:
        faces, contents = now.contents()
        _, checks = now.all_crc32s()
    place = np.searchsorted(embedded, faces)
    done = np.zeros(len(faces), bool)
    inside = place < len(embedded)
    at = place[inside]
    done[inside] = (embedded[at] == faces[inside]) & (old_checks[at] == checks[inside])
    return np.unique(contents[~done])


def sample_of(contents: NDArray[np.int64], gallery: Gallery, faces: int) -> NDArray[np.int64]:
    """Draw a random sample of photos, with a fixed seed.

    Args:
        contents: int64 (n,), ids of the photos' contents.
        gallery: the gallery.
        faces: least number of faces in the sample, if the photos have as many.

    Returns:
        int64 (m,), some of ``contents``.
    """
    drawn = np.random.default_rng(0).permutation(contents)
    with gallery.read() as now:
        _, content_of_face = now.contents()
    ours = content_of_face[np.isin(content_of_face, contents)]
    counts = np.bincount(np.searchsorted(contents, ours), minlength=len(contents))
    sizes = counts[np.searchsorted(contents, drawn)]
    enough = int(np.searchsorted(np.cumsum(sizes), faces)) + 1
    return drawn[:enough]


def learned_from(gallery: Gallery, new: NewEmbeddings) -> tuple[EmbeddingMap, MapFigures]:
    """Learn a map from a gallery's embeddings to the new embeddings so far.

    Args:
        gallery: the gallery with the old embeddings.
        new: the new embeddings so far.

    Raises:
        SettingsError: there are too few new embeddings.
    """
    embedded, old_checks = new.known()
    with gallery.read() as now:
        checks = now.crc32s(embedded.tolist())
        mapped = set(now.mapped().tolist())
        both = [
            int(i)
            for i, check in zip(embedded.tolist(), old_checks.tolist(), strict=True)
            if checks.get(i) == check and i not in mapped
        ]
        old = now.embeddings(both)
        owner = {face: person.id for person in now.people() if person.name for face in person.faces}
    people = np.array([owner.get(i, -1) for i in both], np.int64)
    return learn_map(old, new.embeddings(both), people)


def upgrade(
    gallery: Gallery,
    index: GalleryIndex,
    encoder: Encoder,
    fingerprint: Fingerprint,
    bar: Bar,
    *,
    with_map: bool,
    sample: int,
    drop_missing: bool,
) -> UpgradeSummary:
    """Compute new embeddings beside a gallery, and then switch the gallery to them.

    The switch happens after all faces have been embedded or, with a map, after a sample of them.
    After the switch the gallery must be opened again.

    Args:
        gallery: the gallery to upgrade.
        index: index of the gallery.
        encoder: encoder of the new model.
        fingerprint: fingerprint of the new embeddings.
        bar: progress bar, advanced by each face.
        with_map: whether to map the old embeddings of faces without a new one.
        sample: number of faces to embed before the map is learned.
        drop_missing: whether to remove photos that are missing or changed.
    """
    started = time.monotonic()
    with NewEmbeddings(gallery.folder, gallery.uuid, fingerprint) as new:
        work = Remaking(gallery, encoder, lambda faces: new.store(faces, gallery.read), bar)
        try:
            if with_map:
                wanted = max(0, sample - len(new.known()[0]))
                work.run(sample_of(waiting(gallery, new), gallery, wanted))
            else:
                while work.run(waiting(gallery, new)):
                    pass  # other processes may have added photos meanwhile
        except KeyboardInterrupt:
            return work.summary(False, started, interrupted=True)
        with writing(gallery, index) as writer:
            if not with_map:
                work.run(waiting(gallery, new))  # photos added before the lock was held
                if work.missing and not drop_missing:
                    return work.summary(False, started)
            mapped_by = figures = None
            if with_map and len(waiting(gallery, new)):
                mapped_by, figures = learned_from(gallery, new)
            done = writer.switch(new, mapped_by, drop_missing, index.write_beside)
            index.take_beside()
            abandon(gallery.folder)
    return replace(
        work.summary(True, started), mapped=done.mapped, dropped=done.dropped, learned=figures
    )


def finish(
    gallery: Gallery, index: GalleryIndex, encoder: Encoder, bar: Bar, drop_missing: bool
) -> UpgradeSummary:
    """Replace mapped embeddings by computed ones for all photos that can be read.

    Args:
        gallery: the gallery to finish.
        index: index of the gallery.
        encoder: encoder of the gallery's model.
        bar: progress bar, advanced by each face.
        drop_missing: whether to remove photos that are missing or changed.
    """
    started = time.monotonic()
    interrupted, dropped = False, 0
    with writing(gallery, index) as writer:
        work = Remaking(gallery, encoder, writer.replace_mapped, bar)
        with gallery.read() as now:
            faces, contents = now.contents()
            unfinished = np.isin(faces, now.mapped())
        try:
            work.run(np.unique(contents[unfinished]))
        except KeyboardInterrupt:
            interrupted = True
        if drop_missing and work.missing:
            with gallery.read() as now:
                gone = now.known_photos(sorted(work.missing))
            dropped = writer.remove([name for photo in gone for name in photo.photos]).faces
        index.save()
    with gallery.read() as now:
        left = len(now.mapped())
    return replace(
        work.summary(True, started, interrupted=interrupted), mapped=left, dropped=dropped
    )


def _first_unchanged(photo: KnownPhoto, read: Callable[[str], tuple[bytes, Read]]) -> Read:
    """What is read of the first file of a photo that has its bytes still.

    Args:
        photo: the photo.
        read: reads a file by its path; returns its SHA-256, and what was read.

    Raises:
        PhotoError: there is no such file.
    """
    last: PhotoError | None = None
    for name in photo.photos:
        try:
            sha256, found = read(name)
        except PhotoError as error:
            last = error
            continue
        if sha256 == photo.sha256:
            return found
        last = PhotoError(name, CHANGED)
    assert last is not None
    raise last


def _faces_in(photo: KnownPhoto, time: float | None) -> Sequence[Face]:
    return [face for face in photo.faces if face.time == time]


class _Again:
    """Gathers the known faces of a video, in their order in the gallery."""

    def __init__(self) -> None:
        self._faces: list[Face] = []

    def add(self, _time: float, _is_cut: bool, faces: Sequence[Face]) -> None:
        """Add the faces of a frame."""
        self._faces += faces

    def faces(self) -> tuple[Face, ...]:
        """All faces, by their ids."""
        return tuple(sorted(self._faces, key=lambda face: face.id or 0))
