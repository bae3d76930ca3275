"""Another model for a gallery: its faces are embedded again while it goes on answering.

Where the faces are is known, so nothing is detected again. A photo is read from the first of
its files that still holds the very bytes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.encoding.encoder import Encoder
from face2vec.errors import PhotoError
from face2vec.fingerprint import Fingerprint
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import KnownPhoto
from face2vec.gallery.staging import NewEmbeddings, Remade, abandon
from face2vec.index.sync import GalleryIndex
from face2vec.ingest.build import BATCH_PHOTOS, BATCH_SECONDS
from face2vec.ingest.embedding_map import EmbeddingMap, MapFigures, learn_map
from face2vec.photos.formats import read_photo_bytes
from face2vec.types import Unopened

log = logging.getLogger("face2vec")

PAGE = 512  # photos looked up at a time
SAMPLE = 2000  # faces that a map is learned from
CHANGED = "changed since it was indexed"


@dataclass(frozen=True)
class UpgradeSummary:
    """What `Face2Vec.upgrade` did.

    Attributes:
        switched: whether the gallery is now of the new model; what is made is kept either way.
        faces: faces that were embedded again.
        mapped: faces whose embeddings are mapped from the old model's, for now or because
            their photos are gone.
        dropped: faces that left the gallery with their photos, which are gone.
        missing: (photo, reason) of photos that cannot be read as they were.
        learned: how well the map does, where one was learned.
        seconds: how long it took.
        interrupted: whether Ctrl-C ended it early.
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
        """The sum of what was done here and after it."""
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
    """Embeds faces of a gallery again, a batch at a time.

    Attributes:
        gallery: whose faces they are.
        encoder: of the new model.
        keep: called with each batch.
        bar: moved on by each face.
        faces: how many are done.
        missing: (photo, reason) by the number of a photo's bytes.
    """

    gallery: Gallery
    encoder: Encoder
    keep: Callable[[list[Remade]], None]
    bar: Any
    faces: int = 0
    missing: dict[int, tuple[str, str]] = field(default_factory=dict)

    def run(self, contents: NDArray[np.int64]) -> bool:
        """Embed the faces of photos; photos whose files are missing are skipped.

        Args:
            contents: int64 (n,) ids of the photos' contents.

        Returns:
            Whether there were any.
        """
        waiting = [i for i in contents.tolist() if i not in self.missing]
        batch: list[Remade] = []
        last, photos = time.monotonic(), 0
        try:
            for done in self.encoder.stream(self._photos(waiting), self._read, _faces_of):
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
        """What was done since a time."""
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
        last: PhotoError | None = None
        for name in photo.photos:
            try:
                data = read_photo_bytes(Path(name))
            except PhotoError as error:
                last = error
                continue
            if hashlib.sha256(data).digest() == photo.sha256:
                return Unopened(data, name)
            last = PhotoError(name, CHANGED)
        assert last is not None
        raise last

    def _miss(self, photo: KnownPhoto, reason: str) -> None:
        log.info("%s: %s", photo.photos[0], reason)
        self.missing[photo.content] = (photo.photos[0], reason)


def waiting(gallery: Gallery, new: NewEmbeddings) -> NDArray[np.int64]:
    """Photos with a face that has no new embedding yet.

    Returns:
        int64 (n,) ids of the photos' contents, rising.
    """
    made, was = new.known()
    with gallery.read() as now:
        faces, contents = now.contents()
        _, checks = now.all_crc32s()
    place = np.searchsorted(made, faces)
    there = np.zeros(len(faces), bool)
    inside = place < len(made)
    there[inside] = (made[place[inside]] == faces[inside]) & (was[place[inside]] == checks[inside])
    return np.unique(contents[~there])


def sample_of(contents: NDArray[np.int64], gallery: Gallery, faces: int) -> NDArray[np.int64]:
    """Some of the photos, drawn at random with a fixed seed.

    Args:
        contents: int64 (n,) ids of the photos' contents.
        gallery: that has them.
        faces: how many faces the sample has, if there are so many.

    Returns:
        int64 (m,), some of ``contents``.
    """
    drawn = np.random.default_rng(0).permutation(contents)
    with gallery.read() as now:
        _, of = now.contents()
    many = np.bincount(
        np.searchsorted(contents, of[np.isin(of, contents)]), minlength=len(contents)
    )
    sizes = many[np.searchsorted(contents, drawn)]
    enough = int(np.searchsorted(np.cumsum(sizes), faces)) + 1
    return drawn[:enough]


def learned_from(gallery: Gallery, new: NewEmbeddings) -> tuple[EmbeddingMap, MapFigures]:
    """The map from a gallery's embeddings to the new ones that are made so far.

    Raises:
        SettingsError: there are too few.
    """
    made, was = new.known()
    with gallery.read() as now:
        checks = now.crc32s(made.tolist())
        mapped = set(now.mapped().tolist())
        both = [
            int(i)
            for i, check in zip(made.tolist(), was.tolist(), strict=True)
            if checks.get(i) == check and i not in mapped
        ]
        old = now.embeddings(both)
        whose = {face: person.id for person in now.people() if person.name for face in person.faces}
    people = np.array([whose.get(i, -1) for i in both], np.int64)
    return learn_map(old, new.embeddings(both), people)


def upgrade(
    gallery: Gallery,
    index: GalleryIndex,
    encoder: Encoder,
    fingerprint: Fingerprint,
    bar: Any,
    *,
    with_map: bool,
    sample: int,
    drop_missing: bool,
) -> UpgradeSummary:
    """Make new embeddings beside a gallery, and put them into it when it is time.

    That is when all are made; with a map, when a sample is. The gallery object is of no use
    after the switch: open it again.

    Args:
        gallery: whose faces are embedded again.
        index: the gallery's.
        encoder: of the new model.
        fingerprint: what makes the new embeddings.
        bar: moved on by each face.
        with_map: map the old embeddings of faces that have no new one.
        sample: faces that are embedded before the map is learned.
        drop_missing: drop photos that cannot be read as they were.
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
                    pass  # photos may have come meanwhile
        except KeyboardInterrupt:
            return work.summary(False, started, interrupted=True)
        with gallery.write() as writer:
            if not with_map:
                work.run(waiting(gallery, new))  # what came since
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
    gallery: Gallery, index: GalleryIndex, encoder: Encoder, bar: Any, drop_missing: bool
) -> UpgradeSummary:
    """Put true embeddings in the place of those that are mapped, where the photos are there.

    See `upgrade` for the arguments.
    """
    started = time.monotonic()
    interrupted, dropped = False, 0
    with gallery.write() as writer:
        work = Remaking(gallery, encoder, writer.replace_mapped, bar)
        with gallery.read() as now:
            faces, contents = now.contents()
            still = np.isin(faces, now.mapped())
        try:
            work.run(np.unique(contents[still]))
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


def _faces_of(photo: KnownPhoto) -> Sequence[Any]:
    return photo.faces
