"""The three-line API: a gallery, what fills it and what searches it."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import USUAL_FAR, Calibration, Verification, verified
from face2vec.cascade import CASCADE_VERSION, DetectorSettings
from face2vec.errors import (
    CalibrationError,
    GalleryError,
    GalleryMismatchError,
    GalleryNotFoundError,
    NoFaceError,
    PhotoError,
    SettingsError,
)
from face2vec.gallery import Gallery, Removed, Snapshot, StoredFace, StoredFaces
from face2vec.models import DEFAULT_MODEL, LoadedModel, calibration_of, load_model
from face2vec.photos import MAX_PIXELS, PhotoLike, find_photos
from face2vec.records import Face, Forgotten, Identified, Match, Person, Photo
from face2vec.results import Found, Matches
from face2vec.runtime import choose_runtime, detector_runtime

if TYPE_CHECKING:
    from face2vec.building import BuildSummary
    from face2vec.encoder import Encoder
    from face2vec.indexing import GalleryIndex
    from face2vec.layout import By
    from face2vec.people.finding import PeopleSummary

log = logging.getLogger("face2vec")

LAYOUTS_AT_ONCE = 256  # of which it is looked up whether they are similar enough

Source = str | os.PathLike[str]
Who = int | str | Person
Query = PhotoLike | Photo | Face | NDArray[np.float32] | Sequence[PhotoLike | Photo]


class Face2Vec:
    """Face retrieval over a photo collection.

    Without a gallery it encodes photos. With one it also adds photos to it and
    searches it; a gallery that does not exist yet is made by the first `add`.
    Use it as a context manager, or call `close`.

    Args:
        gallery: folder of the gallery.
        model: a key of the catalogue or the path of a model file; by default
            the model that the gallery was made with, and for a new gallery
            ``face2vec.DEFAULT_MODEL``.
        detector: what counts as a face; by default as the gallery was made.
        runtime: "auto", "onnxruntime", "openvino" or "cuda".
        threads: processor threads to use; None for all cores.
        index: kind of index: "auto", "exact", "hnsw", "ivf" or "ivfpq".
        max_pixels: photos with more pixels are not decoded.

    Raises:
        GalleryMismatchError: the gallery was made with another model or detector.
        GalleryError: the gallery cannot be opened.
        SettingsError: a setting out of its range.
    """

    def __init__(
        self,
        gallery: Source | None = None,
        *,
        model: Source | None = None,
        detector: DetectorSettings | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        index: str = "auto",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._folder = None if gallery is None else Path(gallery).absolute()
        self._wanted_model = model
        self._wanted_detector = detector
        self._wanted_index = index
        self._runtime_wish = runtime
        self._threads = threads
        self._max_pixels = max_pixels
        self._lock = threading.RLock()
        self._gallery: Gallery | None = None
        self._model: LoadedModel | None = None
        self._encoder: Encoder | None = None
        self._index: GalleryIndex | None = None
        self._calibration: tuple[Calibration | None] | None = None
        if self._folder is not None:
            try:
                self._gallery = Gallery.open(self._folder)
            except GalleryNotFoundError:
                log.info("no gallery at %s yet", self._folder)
            else:
                self._check_detector(self._gallery)
                if model is not None:
                    self._check_model(self._gallery, self._load_model())

    def __enter__(self) -> Face2Vec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Face2Vec({str(self._folder) if self._folder else ''!r})"

    def close(self) -> None:
        """Close the gallery and let the worker threads end."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None
        self._index = None

    # Encoding

    @property
    def detector(self) -> DetectorSettings:
        """What counts as a face."""
        if self._gallery is not None:
            return DetectorSettings(**self._gallery.fingerprint["detector"])
        return self._wanted_detector or DetectorSettings()

    @property
    def encoder(self) -> Encoder:
        """The networks, loaded at first use."""
        with self._lock:
            if self._encoder is None:
                from face2vec.encoder import Encoder

                runtime = choose_runtime(self._runtime_wish, self._threads)
                self._encoder = Encoder(
                    self._load_model(), self.detector, runtime, self._max_pixels
                )
            return self._encoder

    def encode(self, photo: PhotoLike | Photo) -> list[Face]:
        """Faces of one photo with their embeddings, most confident first; [] if there are none.

        Args:
            photo: a path, bytes, a PIL image, an RGB uint8 array or an opened `Photo`.

        Raises:
            PhotoError: the photo cannot be read.
            ModelError: the model cannot be had or loaded.
        """
        return self.encoder.encode(self._open(photo))

    def bulk_encode(
        self,
        photos: Iterable[PhotoLike | Photo],
        *,
        on_error: Callable[[PhotoError], None] | None = None,
    ) -> Iterator[list[Face]]:
        """Faces of many photos, one list a photo, in order, while the next are being worked on.

        Args:
            photos: anything that `encode` takes; read only as fast as needed.
            on_error: called with each photo that cannot be read, which then
                gives an empty list; without it the error is raised in its place.
        """
        for encoded in self.encoder.stream(photos, self._open):
            if encoded.error is not None:
                if on_error is None:
                    raise encoded.error
                on_error(encoded.error)
            yield list(encoded.faces)

    def _open(self, photo: PhotoLike | Photo) -> Photo:
        return photo if isinstance(photo, Photo) else self.encoder.read(photo)

    # Building

    def add(
        self,
        *sources: Source,
        progress: bool = False,
        report: Callable[[PhotoError], None] | None = None,
    ) -> BuildSummary:
        """Add every face of every new or changed photo.

        A photo that has not changed costs a look at its size and time. What is
        done is kept whatever happens: run it again to go on. Ctrl-C ends it
        with ``interrupted`` set.

        Args:
            sources: folders, files, glob patterns, ``@list.txt``, or ``-`` for
                paths on standard input.
            progress: show a bar on standard error.
            report: called with each photo that cannot be read.

        Raises:
            SettingsError: a source does not exist.
            GalleryLockedError: another process is adding to this gallery.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be had or loaded.
        """
        from tqdm import tqdm

        from face2vec.building import Build

        started = time.monotonic()
        found = find_photos(sources)
        gallery = self._writable()
        # Standard input can be read once only, so a bar over it has no end.
        total = sum(1 for _ in find_photos(sources)) if progress and "-" not in sources else None
        interrupted = False
        with (
            gallery.writing(),
            tqdm(total=total, unit="photo", disable=not progress, dynamic_ncols=True) as bar,
        ):
            build = Build(gallery, lambda: self.encoder, report, bar)
            try:
                build.run(found)
            except KeyboardInterrupt:
                interrupted = True
            self._index_of(gallery).save()
        return build.summary(time.monotonic() - started, interrupted)

    # Searching

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[Found]:
        """The k most similar gallery faces, for each face of the query.

        Args:
            query: a photo (path, bytes, PIL image, RGB uint8 array, `Photo`):
                one entry for each face in it; a list of photos of one person:
                one entry, for the largest face of each photo taken together; a
                `Face` (one that is in the gallery is not returned itself); an
                embedding (d,), one entry; or embeddings (n, d), n entries.
            k: most matches an entry, at least 1.
            min_similarity: leave out matches below it, −1…1.
            far: leave out matches that a larger share of pairs of two people reaches, 0…1.

        Returns:
            One `Found` an entry, matches most similar first; [] for a photo without a face.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            NoFaceError: none of several photos has a face.
            SettingsError: k below 1, or an embedding of another dimension.
            CalibrationError: ``far`` is given, and what similarities mean is not known for
                the gallery's model, or not at so low a rate.
        """
        gallery = self._readable()
        if k < 1:
            raise SettingsError(f"k must be at least 1, not {k}")
        if far is not None:
            least = self.calibration.threshold(far)
            min_similarity = least if min_similarity is None else max(least, min_similarity)
        name, faces, embeddings, source = self._query(query, gallery)
        if not len(embeddings):
            return []
        itself = _own_record(query, gallery) if isinstance(query, Face) else None
        with gallery.snapshot(mapped=True) as now:
            with self._index_of(gallery).at(now) as index:
                wanted = k if itself is None else k + 1
                similarities, ids = index.search(embeddings, wanted, now.embeddings)
                among = len(index)
            if itself is not None or min_similarity is not None:
                lowest = -1.0 if min_similarity is None else min_similarity
                for n, row in enumerate(similarities):
                    keep = row >= lowest
                    if itself is not None:
                        keep &= ids[n] != itself.id
                    similarities[n], ids[n] = row[keep][:k], ids[n][keep][:k]
            everyone = ids[0] if len(ids) == 1 else np.unique(np.concatenate(ids))
            stored = now.faces(everyone.tolist())
        meaning = self._calibrated(gallery)
        return [
            Found(name, face, _matches(stored, row, row_ids, meaning, among), source)
            for face, row, row_ids in zip(faces, similarities, ids, strict=True)
        ]

    def search_layout(
        self,
        query: PhotoLike | Photo | Face,
        k: int = 10,
        *,
        by: By = "pose",
        person: Who | None = None,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[Found]:
        """The k gallery faces whose landmarks lie most as the query's, whoever they are.

        Args:
            query: a photo: one entry for each face in it; or a face of this gallery, which is
                not returned itself.
            k: most matches an entry, at least 1.
            by: ``"pose"`` for faces that are turned alike, wherever and however large;
                ``"framing"`` for faces at the same place in their photos.
            person: only faces of somebody, as in "Ada, turned like this".
            min_similarity: only faces at least so similar to the query's, −1…1.
            far: only faces as similar as so small a share of pairs of two people is, 0…1.

        Returns:
            One `Found` an entry, least distance first (`Match.layout`, see `face2vec.layout`);
            ``similarity`` is that of the embeddings, as in a search.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            SettingsError: k below 1, another ``by``, or a face that is not in the gallery.
            CalibrationError: ``far`` is given, and what similarities mean is not known.
        """
        from face2vec.layout import distances, layouts

        gallery = self._readable()
        if k < 1:
            raise SettingsError(f"k must be at least 1, not {k}")
        if far is not None:
            least = self.calibration.threshold(far)
            min_similarity = least if min_similarity is None else max(least, min_similarity)
        name, faces, embeddings, source = self._query(query, gallery)
        with gallery.snapshot() as now:
            ids, points, sizes = now.landmarks()
            if isinstance(query, Face):
                own = ids == query.id
                if not own.any():
                    raise SettingsError("search for the layout of a photo, or of a gallery's face")
                asked = layouts(points[own], sizes[own], by)
                keep = ~own
            else:
                size = self._open(query)
                asked = layouts([face.landmarks for face in faces if face is not None],
                                [(size.width, size.height)] * len(faces), by)  # fmt: skip
                keep = np.ones(len(ids), bool)
            if person is not None:
                keep &= np.isin(ids, self.person(person).faces)
            ids, known = ids[keep], layouts(points[keep], sizes[keep], by)
            found = []
            for face, embedding, one in zip(faces, embeddings, asked, strict=True):
                apart = distances(one, known)
                order = np.argsort(apart, kind="stable")
                nearest = _similar_enough(now, ids[order], embedding, k, min_similarity)
                found.append((face, [(float(apart[order[n]]), i, s) for n, i, s in nearest]))
            everyone = {i for _, best in found for _, i, _ in best}
            stored = now.faces(sorted(everyone))
        records = {one.face.id: one for one in stored.records()}
        return [
            Found(name, face, Matches(_laid_out(records, best)), source) for face, best in found
        ]

    # Verifying

    @property
    def calibration(self) -> Calibration:
        """What similarities mean: the gallery's own where it has one, else the model's.

        Raises:
            CalibrationError: neither has one.
        """
        if self._gallery is not None:
            found = self._calibrated(self._gallery)
            key = self._gallery.fingerprint["model"]["key"]
        else:
            model = self._load_model()
            key = model.description.key
            found = calibration_of(key, model.fingerprint, model.origin)
        if found is None:
            raise CalibrationError(
                f"what a similarity means is not known for the model {key!r}. "
                "Fit it on photos whose people are known: face2vec calibrate PEOPLE"
            )
        return found

    def calibrate(self, calibration: Calibration) -> None:
        """Keep with the gallery what similarities mean for it.

        Args:
            calibration: fitted with the gallery's own model, see ``face2vec calibrate``.

        Raises:
            GalleryMismatchError: it is of another model.
            GalleryLockedError: another process is writing to the gallery.
        """
        gallery = self._readable()
        with gallery.writing():
            gallery.calibrate(calibration)
        self._calibration = None

    def _calibrated(self, gallery: Gallery) -> Calibration | None:
        """The gallery's calibration or its model's, read once, without loading the model."""
        if self._calibration is None:
            made = gallery.fingerprint["model"]
            self._calibration = (
                gallery.calibration()
                or calibration_of(made["key"], made["weights"], made["origin"]),
            )
        return self._calibration[0]

    def verify(
        self,
        first: PhotoLike | Photo | Face | NDArray[np.float32],
        second: PhotoLike | Photo | Face | NDArray[np.float32],
        *,
        far: float = USUAL_FAR,
    ) -> Verification:
        """Whether two faces are of one person, and how sure that is.

        Args:
            first: a photo, of which the largest face is taken; a `Face`; an embedding (d,); or
                embeddings (n, d), for n answers at once as arrays.
            second: the same of the other; of embeddings as many.
            far: share of pairs of two people that may be taken for one, 0…1.

        Raises:
            NoFaceError: no face in a photo.
            PhotoError: a photo cannot be read.
            SettingsError: embeddings of different numbers or dimensions.
            CalibrationError: what similarities mean is not known for the model, or not at
                so low a rate.
        """
        calibration = self.calibration
        one, other = self._side(first), self._side(second)
        if one.shape != other.shape:
            raise SettingsError(
                f"embeddings of shape {one.shape} and {other.shape} cannot be verified pair by pair"
            )
        return verified(calibration, np.sum(one * other, axis=-1, dtype=np.float64), far)

    def _side(self, query: PhotoLike | Photo | Face | NDArray[np.float32]) -> NDArray[np.float32]:
        """Embedding (d,), or embeddings (n, d), of one side of a comparison."""
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            rows = _unit_rows(query, self._load_model().description.dimension)
            return rows if query.ndim == 2 else rows[0]
        if isinstance(query, Face):
            if query.embedding is not None:
                return query.embedding
            return self._embedding_of(query, self._readable())
        embedding: NDArray[np.float32] = self._one_person([cast("PhotoLike | Photo", query)])[2][0]
        return embedding

    def _query(
        self, query: Query, gallery: Gallery
    ) -> tuple[str, Sequence[Face | None], NDArray[np.float32], Any]:
        """(name, faces, embeddings, what the faces can be cut from) of whatever was asked about."""
        if isinstance(query, Face):
            return "<face>", [query], self._embedding_of(query, gallery)[None], None
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            embeddings = _unit_rows(query, gallery.dimension)
            return "<embedding>", [None] * len(embeddings), embeddings, None
        self._check_model(gallery, self._load_model())
        if isinstance(query, list | tuple):
            return self._one_person(query)
        photo = self._open(cast("PhotoLike | Photo", query))
        faces = self.encoder.encode(photo)
        rows = [face.embedding for face in faces if face.embedding is not None]
        embeddings = np.stack(rows) if rows else np.empty((0, 0), np.float32)
        return photo.name, faces, embeddings, photo.source

    def _embedding_of(self, face: Face, gallery: Gallery) -> NDArray[np.float32]:
        if face.embedding is not None:
            return face.embedding
        own = _own_record(face, gallery)
        if own is None or own.embedding is None:
            raise SettingsError(
                f"{face!r} has no embedding and is not in the gallery; search with a face from "
                "encode() or from a match"
            )
        return own.embedding

    def _one_person(
        self, photos: Sequence[PhotoLike | Photo]
    ) -> tuple[str, list[Face], NDArray[np.float32], Any]:
        """The largest face of each photo, and the mean of their embeddings."""
        opened = [self._open(photo) for photo in photos]
        name = ", ".join(photo.name for photo in opened)
        largest = []
        for faces, photo in zip(self.bulk_encode(opened), opened, strict=True):
            if len(faces) > 1:
                log.warning("%s: took the largest of %d faces", photo.name, len(faces))
            if faces:
                largest.append((max(faces, key=lambda face: face.area), photo))
        if not largest:
            raise NoFaceError(f"no face found in any of: {name}. Give photos that show the person")
        if len(largest) < len(opened):
            log.warning("no face in %d of %d photos", len(opened) - len(largest), len(opened))
        total = np.sum([f.embedding for f, _ in largest if f.embedding is not None], axis=0)
        mean = (total / np.linalg.norm(total)).astype(np.float32)
        face, photo = max(largest, key=lambda pair: pair[0].area)
        return name, [face.with_embedding(mean)], mean[None], photo.source

    # People

    def find_people(self, *, again: bool = False) -> PeopleSummary:
        """Group the faces that are nobody's yet into people, or let them join people.

        Who somebody is stays as it was: people keep their numbers, names and faces.

        Args:
            again: group all faces anew but those of which somebody said who they are.

        Raises:
            CalibrationError: what similarities mean is not known for the gallery's model.
            GalleryLockedError: another process is writing to the gallery.
            MissingExtraError: SciPy is not installed.
        """
        from face2vec.people.finding import find_people

        gallery, calibration = self._readable(), self.calibration
        with gallery.writing():
            return find_people(gallery, self._index_of(gallery), calibration, again=again)

    def people(self) -> list[Person]:
        """Everybody in the gallery, those with most faces first."""
        return self._readable().people()

    def person(self, who: Who) -> Person:
        """Somebody by number or name.

        Raises:
            GalleryError: there is no such person.
        """
        return who if isinstance(who, Person) else self._readable().person(who)

    def faces_of(self, who: Who) -> list[StoredFace]:
        """Somebody's faces, without embeddings, and the photos that they are in."""
        return self._readable().faces(self.person(who).faces, with_embeddings=False)

    def name(self, who: Who, name: str | None) -> Person:
        """Give somebody a name, or take it away with None.

        Raises:
            GalleryError: somebody else has that name.
        """
        return self._said(who, lambda gallery, i: gallery.name(i, name))

    def merge(self, who: Who, *others: Who) -> Person:
        """Say that others are the same person as the first, who keeps the number.

        Raises:
            GalleryError: they have different names.
        """
        numbers = [self.person(other).id for other in others]
        mine = self.person(who).id
        if not numbers or mine in numbers or len(set(numbers)) < len(numbers):
            raise SettingsError("name two people or more, each once, to merge them")
        return self._said(who, lambda gallery, i: gallery.merge(i, numbers))

    def split(self, who: Who, *faces: int) -> Person:
        """Make a new person of some faces of somebody.

        Args:
            who: the person that they are taken from.
            faces: their numbers.

        Raises:
            GalleryError: a face is not one of that person.
        """
        new: list[int] = []
        self._said(who, lambda gallery, i: new.append(gallery.split(i, faces)))
        return self.person(new[0])

    def this_person(self, who: Who | None, *faces: int) -> Person:
        """Say that faces are of somebody, or, with None, of a new person."""
        gallery = self._readable()
        known = None if who is None else self.person(who).id
        if len(gallery.faces(faces, with_embeddings=False)) < len(set(faces)) or not faces:
            raise SettingsError(f"name faces of the gallery by their numbers, not {faces}")
        with gallery.writing():
            number = gallery.this_person(known, faces)
        return self.person(number)

    def not_this_person(self, who: Who, *faces: int) -> Person:
        """Say that faces are not of somebody; they are nobody's until people are found again.

        Raises:
            GalleryError: a face is not one of that person.
        """
        return self._said(who, lambda gallery, i: gallery.not_this_person(i, faces))

    def undo(self) -> str:
        """Take back what was said last of people; returns what that was.

        Raises:
            GalleryError: there is nothing to take back.
        """
        gallery = self._readable()
        with gallery.writing():
            return gallery.undo()

    def identify(
        self, query: PhotoLike | Photo | Face, *, at_least: float = 0.5, candidates: int = 3
    ) -> list[Identified]:
        """Who each face of a photo is, out of the people with names.

        Args:
            query: a photo, or a face.
            at_least: how likely somebody has to be to be named, 0…1.
            candidates: how many people to give with each face.

        Returns:
            One entry a face; somebody's whose probability is lower is unknown.

        Raises:
            CalibrationError: what similarities mean is not known for the gallery's model.
            PhotoError: the photo cannot be read.
        """
        from face2vec.people.recognition import probabilities, ranked

        gallery, calibration = self._readable(), self.calibration
        _, faces, embeddings, _ = self._query(query, gallery)
        with gallery.snapshot() as now:
            named = {p.id: p for p in now.people() if p.name is not None and p.faces}
            ids = np.array([i for p in named.values() for i in p.faces], np.int64)
            whose = np.array([p.id for p in named.values() for _ in p.faces], np.int64)
            known = now.embeddings(ids) if len(ids) else None
        people: list[Person] = []
        shares = np.zeros((len(embeddings), 0))
        if known is not None and len(embeddings):
            numbers, shares = probabilities(embeddings, known, whose, calibration)
            people = [named[i] for i in numbers.tolist()]
        found = []
        for face, row in zip(faces, shares, strict=True):
            assert face is not None
            best = ranked(people, row, candidates)
            sure = [one for one in best[:1] if one[1] >= at_least]
            person, probability = sure[0] if sure else (None, 1.0 - float(row.sum()))
            found.append(Identified(face, person, probability, tuple(best)))
        return found

    def forget(self, who: Who) -> Forgotten:
        """Delete somebody: faces, embeddings, name, and photos that show nobody else.

        The photos' files stay where they are, and only their hashes here, so that they are not
        taken in again. What is left in the gallery's files is looked at afterwards.

        Raises:
            GalleryError: there is no such person, or the gallery cannot be written.
        """
        from face2vec.people.forgetting import traces

        gallery = self._readable()
        person = self.person(who)
        stored = gallery.faces(person.faces)
        with gallery.writing():
            removed = gallery.forget(person.id)
            self._index_of(gallery).rebuild()
        left = traces(gallery.folder, person, stored)
        return Forgotten(person.id, removed.faces, removed.photos, tuple(left))

    def _said(self, who: Who, say: Callable[[Gallery, int], object]) -> Person:
        gallery, number = self._readable(), self.person(who).id
        with gallery.writing():
            say(gallery, number)
        return self.person(number)

    # Keeping

    def remove(self, *photos: Source) -> Removed:
        """Take photos out of the gallery, with their faces where no copy is left.

        Args:
            photos: paths of photos, or of folders for all photos under them.

        Raises:
            GalleryError: none of them is in the gallery, or it cannot be written.
        """
        removed = self._drop(lambda gallery: gallery.remove(photos))
        if not removed.photos:
            raise GalleryError(
                f"none of these is in the gallery {self._folder}: {', '.join(map(str, photos))}. "
                "Name photos by the paths that a search shows"
            )
        return removed

    def prune(self, force: bool = False) -> Removed:
        """Drop the photos whose files no longer exist.

        Args:
            force: also where a whole folder that photos came from is missing.

        Raises:
            GalleryError: a whole folder is missing, or the gallery cannot be written.
        """
        return self._drop(lambda gallery: gallery.prune(force))

    def _drop(self, drop: Callable[[Gallery], Removed]) -> Removed:
        gallery = self._readable()
        with gallery.writing():
            removed = drop(gallery)
            if removed.faces:
                self._index_of(gallery).save()
        return removed

    def rebuild(self) -> None:
        """Build the index again from the gallery's embeddings."""
        gallery = self._readable()
        with gallery.writing():
            self._index_of(gallery).rebuild()

    def check(self) -> list[str]:
        """Read the whole gallery and say in words what is wrong; [] when it is sound."""
        gallery = self._readable()
        return [*gallery.check(), *self._index_of(gallery).problems()]

    def info(self) -> dict[str, Any]:
        """What there is, as JSON-able values: counts, model, detector, runtime, index, sizes."""
        gallery = self._readable()
        index = self._index_of(gallery)
        with gallery.snapshot() as now, index.at(now) as current:
            kind = current.kind
        runtime = choose_runtime(self._runtime_wish, self._threads)
        return {
            "gallery": str(gallery.folder),
            **gallery.counts()._asdict(),
            "made_with": gallery.fingerprint,
            "dimension": gallery.dimension,
            "index": kind,
            "bytes": sum(file.stat().st_size for file in gallery.folder.iterdir()),
            "index_bytes": index.path.stat().st_size if index.path.exists() else 0,
            "runtime": runtime.describe(),
            "detector_runtime": detector_runtime(runtime).describe(),
        }

    # Opening

    def _index_of(self, gallery: Gallery) -> GalleryIndex:
        with self._lock:
            if self._index is None:
                from face2vec.indexing import GalleryIndex

                self._index = GalleryIndex(gallery, self._wanted_index)
            return self._index

    def _load_model(self) -> LoadedModel:
        with self._lock:
            if self._model is None:
                wanted = self._wanted_model
                if wanted is None and self._gallery is not None:
                    wanted = self._gallery.fingerprint["model"]["origin"]
                self._model = load_model(DEFAULT_MODEL if wanted is None else wanted)
            return self._model

    def _readable(self) -> Gallery:
        if self._folder is None:
            raise SettingsError(
                "this Face2Vec has no gallery; name a folder: Face2Vec('indexes/family')"
            )
        if self._gallery is None:
            try:
                self._gallery = Gallery.open(self._folder)
            except GalleryNotFoundError as error:
                raise GalleryNotFoundError(
                    f"there is no gallery at {self._folder} yet; add photos to it first"
                ) from error
        return self._gallery

    def _writable(self) -> Gallery:
        """The gallery, made if it is not there, of this very model."""
        model = self._load_model()
        if self._folder is not None and self._gallery is None:
            try:
                self._gallery = Gallery.open(self._folder)
            except GalleryNotFoundError:
                model = self.encoder.model  # one that cannot be loaded leaves no gallery behind
                fingerprint = _fingerprint(model, self.detector)
                self._gallery = Gallery.create(
                    self._folder, fingerprint, model.description.dimension
                )
        gallery = self._readable()
        self._check_detector(gallery)
        self._check_model(gallery, model)
        return gallery

    def _check_model(self, gallery: Gallery, model: LoadedModel) -> None:
        version = gallery.fingerprint["cascade"]
        if version != CASCADE_VERSION:
            raise GalleryMismatchError(
                f"the gallery {gallery.folder} was made with version {version} of the cascade, "
                f"this face2vec has version {CASCADE_VERSION} and cuts faces in another way: use "
                "the face2vec that made it, or make a new gallery"
            )
        made = {k: v for k, v in gallery.fingerprint["model"].items() if k != "origin"}
        mine = {k: v for k, v in _model_fingerprint(model).items() if k != "origin"}
        if made != mine:
            raise GalleryMismatchError(
                f"the gallery {gallery.folder} was made with model {_words(made, mine)}; "
                f"this is model {_words(mine, made)}. Embeddings of different models cannot be "
                "compared: use the gallery's model, or make a new gallery"
            )

    def _check_detector(self, gallery: Gallery) -> None:
        made, wanted = gallery.fingerprint["detector"], self._wanted_detector
        if wanted is not None and wanted.to_dict() != made:
            mine = wanted.to_dict()
            differ = ", ".join(f"{k} {made[k]} not {mine[k]}" for k in mine if made[k] != mine[k])
            raise GalleryMismatchError(
                f"the gallery {gallery.folder} was made with other detector settings: {differ}. "
                "Leave them out to use the gallery's, or make a new gallery"
            )


def _own_record(face: Face, gallery: Gallery) -> Face | None:
    """The gallery's record of a face; None where its id is another's, as from another gallery."""
    for stored in gallery.faces([] if face.id is None else [face.id]):
        own = stored.face
        same_place = (own.box, own.landmarks, own.confidence) == (
            face.box,
            face.landmarks,
            face.confidence,
        )
        if not same_place:
            continue
        if own.embedding is None or face.embedding is None:
            return own
        if np.array_equal(own.embedding, face.embedding):
            return own
    return None


def _matches(
    stored: StoredFaces,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    meaning: Calibration | None,
    among: int,
) -> Matches:
    """The faces that were found; their records are made when they are first looked at."""
    some = stored.of(ids.tolist())

    def ranked() -> Iterator[Match]:
        cosines = np.clip(similarities.astype(np.float64), -1.0, 1.0)  # maybe off by a last bit
        columns = [cosines.tolist()]
        if meaning is not None:
            columns.append(meaning.probability(cosines, 1 / max(among, 2)).tolist())
            columns.append(((among - 1) * meaning.far(cosines)).tolist())
        by_id = dict(zip(ids.tolist(), zip(*columns, strict=True), strict=True))
        for rank, (face, photo, copies) in enumerate(some, 1):
            similarity, *sure = by_id[face.id]
            yield Match(rank, similarity, face, photo, copies, *sure)

    return Matches.later(len(some), ranked)


def _similar_enough(
    now: Snapshot,
    ids: NDArray[np.int64],
    embedding: NDArray[np.float32],
    most: int,
    least: float | None,
) -> list[tuple[int, int, float]]:
    """(place, id, similarity) of the first faces that are at least so similar."""
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(ids), LAYOUTS_AT_ONCE):
        some = ids[start : start + LAYOUTS_AT_ONCE]
        cosines = now.embeddings(some) @ embedding
        keep = np.flatnonzero(cosines >= (-2.0 if least is None else least))
        found += [(start + int(n), int(some[n]), float(cosines[n])) for n in keep]
        if len(found) >= most:
            break
    return found[:most]


def _laid_out(
    records: Mapping[int | None, StoredFace], best: Iterable[tuple[float, int, float]]
) -> Iterator[Match]:
    for rank, (apart, i, cosine) in enumerate(best, 1):
        one = records[i]
        yield Match(rank, min(max(cosine, -1.0), 1.0), one.face, one.photo, one.copies,
                    layout=apart)  # fmt: skip


def _unit_rows(query: NDArray[Any], dimension: int) -> NDArray[np.float32]:
    """Embeddings of a query, (d,) or (n, d), as unit rows (n, d)."""
    rows: NDArray[np.float32] = np.array(query, dtype=np.float32, ndmin=2)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise SettingsError(
            f"the query has shape {query.shape}; embeddings of this gallery are ({dimension},), "
            f"several of them (n, {dimension})"
        )
    for row in rows:
        length = math.sqrt(row.dot(row))
        if not 0 < length < math.inf:
            raise SettingsError("an embedding of the query has no or infinite length")
        row /= length
    return rows


def _fingerprint(model: LoadedModel, detector: DetectorSettings) -> dict[str, Any]:
    """All that the embeddings of a gallery depend on, and where the model was found."""
    return {
        "cascade": CASCADE_VERSION,
        "detector": detector.to_dict(),
        "model": _model_fingerprint(model),
    }


def _model_fingerprint(model: LoadedModel) -> dict[str, Any]:
    description = model.description
    return {
        "origin": model.origin,
        "key": description.key,
        "weights": model.fingerprint,
        "dimension": description.dimension,
        "input_size": description.input_size,
        "alignment": description.alignment,
        "template": None if description.template is None else [*map(list, description.template)],
        "margin": [description.margin, description.margin_size],
        "standardization": [description.standardization, description.mean, description.std],
        "channels": description.channels,
        "mirror": description.mirror,
    }


def _words(mine: dict[str, Any], other: dict[str, Any]) -> str:
    differ = ", ".join(f"{k}: {v}" for k, v in mine.items() if other.get(k) != v and k != "key")
    return f"{mine.get('key')} ({differ})"
