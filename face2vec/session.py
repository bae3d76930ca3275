"""What a `Face2Vec` has open: the gallery, and the model, encoder and index at first use.

It decides whether the model and the detector at hand belong to the gallery, and refuses otherwise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from face2vec import arguments
from face2vec.calibration import Calibration
from face2vec.cluster.address import MilvusAddress, is_address
from face2vec.cohort import FEWEST_PEOPLE, LOOKED_AT
from face2vec.detection.mtcnn import DetectorSettings
from face2vec.detection.select import (
    AnyDetector,
    fingerprint_of,
    named_settings,
    settings_from,
)
from face2vec.errors import (
    CalibrationError,
    GalleryMismatchError,
    GalleryNotFoundError,
    ModelError,
    SettingsError,
)
from face2vec.files import expanded, is_object
from face2vec.fingerprint import Fingerprint, ModelFingerprint
from face2vec.forks import renew_after_fork
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot, State
from face2vec.gallery.rows import StoredFace
from face2vec.gallery.schema import FILE
from face2vec.gallery.writer import Writer
from face2vec.index.policy import canonical
from face2vec.index.seam import FaceSearch, Nearest
from face2vec.index.sync import GalleryIndex, writing
from face2vec.models.catalogue import DEFAULT_MODEL
from face2vec.models.store import (
    LoadedModel,
    calibration_of,
    catalogue_fingerprint,
    load_model,
)
from face2vec.photos.decode import MAX_PIXELS
from face2vec.photos.discover import Source
from face2vec.runtime.select import Runtime, choose_runtime
from face2vec.types import Person

if TYPE_CHECKING:
    from face2vec.encoding.encoder import Encoder
    from face2vec.encoding.seam import Workers
    from face2vec.people.identify import KnownFaces

log = logging.getLogger("face2vec")

GROWTH = 0.05
"""By how much a gallery may grow before its faces are looked at again."""
ASKED = 100
NEAREST = 50
"""Faces, and nearest faces of each, from which the number of mates is estimated."""


@dataclass(frozen=True)
class Surroundings:
    """What the faces of a gallery say about an answer.

    Attributes:
        calibration: the gallery's calibration, with the gallery as its cohort.
        mates: estimated number of other faces of a face's person, above 0.
        state: state of the gallery that was looked at.
        count: number of faces it had.
    """

    calibration: Calibration
    mates: float
    state: State
    count: int


def mean_crowding(
    calibration: Calibration,
    now: Snapshot,
    queries: NDArray[np.float32],
    found: Nearest,
) -> list[NDArray[np.float64]]:
    """Mean crowding of each query and each of its nearest faces.

    Args:
        calibration: gives the crowding.
        now: the gallery.
        queries: float32 (n, d).
        found: their nearest faces.

    Returns:
        float64 (m,) for each query.
    """
    matched, places = np.unique(np.concatenate(found.ids), return_inverse=True)
    embeddings = now.embeddings(matched) if found.embeddings is None else found.embeddings
    both = calibration.crowded(np.concatenate([queries, embeddings]))  # at once: one product
    of_queries, of_matches = both[: len(queries)], both[len(queries) :]
    parts = np.split(of_matches[places], np.cumsum([len(row) for row in found.ids])[:-1])
    return [(one + part) / 2 for one, part in zip(of_queries, parts, strict=True)]


class Session:
    """A folder and what is open of it. Safe to use from several threads.

    Args:
        folder: folder or address of the gallery, which may not exist yet, or None.
        model: the model asked for, or None.
        detector: the detector asked for, its settings or its name, or None.
        runtime: one of ``runtime.select.RUNTIMES``.
        threads: processor threads to use; None for all cores.
        index: kind of index, or ``"auto"``.
        index_in_memory: keep the index in memory instead of mapping its file.
        max_pixels: photos with more pixels are refused.
        ray: address of the Ray cluster that encodes builds; None for this machine.

    Raises:
        GalleryMismatchError: the gallery was made with another model or detector.
        GalleryError: the gallery cannot be opened.
        SettingsError: there is no such kind of index.
    """

    def __init__(
        self,
        folder: Path | MilvusAddress | None,
        *,
        model: Source | None = None,
        detector: AnyDetector | str | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        index: str = "auto",
        index_in_memory: bool = False,
        max_pixels: int = MAX_PIXELS,
        ray: str | None = None,
    ) -> None:
        self.folder = folder
        self.wanted_model = model
        self._wanted_detector = named_settings(detector) if isinstance(detector, str) else detector
        self._wanted_runtime = runtime
        self._threads = threads
        self._wanted_index = canonical(index)
        self._index_in_memory = index_in_memory
        self.max_pixels = max_pixels
        self._ray = ray
        self._workers: Workers | None = None
        self._lock = threading.RLock()
        self._gallery: Gallery | None = None
        self._model: LoadedModel | None = None
        self._encoder: Encoder | None = None
        self._index: FaceSearch | None = None
        self._calibration: tuple[Calibration | None] | None = None
        self._surroundings: Surroundings | None = None
        self.known_faces: KnownFaces | None = None
        renew_after_fork(self._renew)
        if folder is not None:
            try:
                self._gallery = open_gallery(folder)
            except GalleryNotFoundError:
                log.info("no gallery at %s yet", folder)
            else:
                try:
                    self._check_detector(self._gallery)
                    if model is not None:
                        self.check_model()
                except BaseException:
                    self.close()
                    raise

    def _renew(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it

    def close(self) -> None:
        """Close the gallery and stop the worker threads."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None
        self._index = None

    def reopen(self) -> Gallery:
        """Open the gallery again after it was upgraded, with the model that it has now."""
        self.close()
        self.wanted_model = self._model = self._calibration = self._surroundings = None
        return self.gallery()

    # The gallery and its index

    @property
    def has_gallery(self) -> bool:
        """Whether there is a gallery in the folder."""
        return self._gallery is not None

    def gallery(self) -> Gallery:
        """The gallery.

        Raises:
            SettingsError: no folder was given.
            GalleryNotFoundError: there is no gallery in the folder yet.
        """
        if self.folder is None:
            raise SettingsError(
                "this Face2Vec has no gallery; give it a folder: Face2Vec('indexes/family')"
            )
        if self._gallery is None:
            try:
                self._gallery = open_gallery(self.folder)
            except GalleryNotFoundError as error:
                raise GalleryNotFoundError(
                    f"there is no gallery at {self.folder} yet; add photos to it first"
                ) from error
        return self._gallery

    def gallery_to_add_to(self) -> Gallery:
        """The gallery, created if it does not exist.

        Raises:
            GalleryMismatchError: it was made with another model or detector.
        """
        if self.folder is not None and self._gallery is None:
            try:
                self._gallery = open_gallery(self.folder)
            except GalleryNotFoundError:
                model = self.encoder().model  # if it cannot be loaded, no gallery is created
                self._gallery = _create(self.folder, self.fingerprint_with(model))
        self._check_detector(self.gallery())
        self.check_model()
        return self.gallery()

    def gallery_to_import_to(
        self, model: ModelFingerprint, made_with: Fingerprint | None
    ) -> Gallery:
        """The gallery for embeddings of a model, created if it does not exist.

        Args:
            model: what made the embeddings.
            made_with: also what found the faces, if that is known.

        Raises:
            GalleryMismatchError: the gallery was made with another model.
        """
        if self.folder is not None and self._gallery is None:
            try:
                self._gallery = open_gallery(self.folder)
            except GalleryNotFoundError:
                detector = fingerprint_of(self.detector())
                if self._wanted_detector is None and made_with is not None:
                    detector = made_with.detector
                self._gallery = _create(self.folder, Fingerprint(detector, model))
        gallery = self.gallery()
        if gallery.fingerprint.model.digest != model.digest:
            raise self._other_model(gallery, model)
        return gallery

    def gallery_made_with(self, fingerprint: Fingerprint) -> Gallery:
        """The gallery, created with a fingerprint if it does not exist."""
        if self.folder is not None and self._gallery is None:
            try:
                self._gallery = open_gallery(self.folder)
            except GalleryNotFoundError:
                self._gallery = _create(self.folder, fingerprint)
        return self.gallery()

    def index(self) -> FaceSearch:
        """The index of the gallery."""
        with self._lock:
            if self._index is None:
                self._index = self._new_index(self.gallery())
            return self._index

    def _new_index(self, gallery: Gallery) -> FaceSearch:
        if not isinstance(self.folder, MilvusAddress):
            return GalleryIndex(gallery, self._wanted_index, self._index_in_memory)
        from face2vec.cluster.search import ClusterSearch
        from face2vec.cluster.store import ClusterGallery, unsupported

        assert isinstance(gallery, ClusterGallery)
        if self._wanted_index != "auto":
            raise unsupported("choosing the kind of index", "leave out --index")
        return ClusterSearch(gallery)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """The right to write to the gallery, after finishing what a killed writer has left.

        Raises:
            GalleryNotFoundError: there is no gallery.
            GalleryLockedError: another process, or this one, is writing; the message names it.
            GalleryError: the folder cannot be written.
        """
        self.known_faces = None  # this may forget some of them
        with writing(self.gallery(), self.index()) as writer:
            yield writer

    def problems(self) -> list[str]:
        """What is wrong with the gallery, one sentence each; empty if it is sound."""
        gallery = self.gallery()
        if isinstance(self.folder, MilvusAddress):
            from face2vec.cluster.store import ClusterGallery

            assert isinstance(gallery, ClusterGallery)
            return gallery.problems()
        from face2vec.gallery.audit import problems

        return problems(gallery)

    def left_of(self, person: Person, faces: Sequence[StoredFace]) -> list[str]:
        """What is left of a forgotten person where the gallery is, one phrase each.

        Args:
            person: the forgotten person.
            faces: the person's faces with embeddings, as they were before.
        """
        gallery = self.gallery()
        if isinstance(self.folder, MilvusAddress):
            from face2vec.cluster.traces import traces as left_in_servers

            return left_in_servers(gallery, faces)
        from face2vec.people.traces import traces

        left = list(traces(gallery.folder, person, faces))
        with gallery.read() as now:
            if not left and now.purge_is_due():
                left = [f"what was removed may be left in {gallery.folder / FILE}"]
        return left

    # The model and what runs it

    def model(self) -> LoadedModel:
        """The model asked for, or that of the gallery, or the default model.

        Raises:
            ModelError: the model cannot be found or loaded.
        """
        with self._lock:
            if self._model is None:
                wanted = self.wanted_model
                if wanted is None and self._gallery is not None:
                    wanted = _origin_of(self._gallery)
                self._model = load_model(DEFAULT_MODEL if wanted is None else wanted)
            return self._model

    def runtime(self) -> Runtime:
        """The runtime for the embedding network."""
        return choose_runtime(self._wanted_runtime, self._threads)

    def detector(self) -> AnyDetector:
        """The detector asked for, or that of the gallery, or MTCNN with its default settings.

        Raises:
            GalleryMismatchError: the gallery's detector is not part of face2vec.
        """
        wanted = self._wanted_detector
        if wanted is None and self._gallery is not None:
            return settings_from(self._gallery.fingerprint.detector)
        return DetectorSettings() if wanted is None else wanted

    def encoder(self) -> Encoder:
        """The detector and the networks, loaded at first use."""
        with self._lock:
            if self._encoder is None:
                from face2vec.encoding.encoder import Encoder

                self._encoder = Encoder(
                    self.model(), self.detector(), self.runtime(), self.max_pixels
                )
            return self._encoder

    def workers(self) -> Workers:
        """What encodes the photos of a build: the encoder, or actors of Ray."""
        if self._ray is None:
            return self.encoder()
        with self._lock:
            if self._workers is None:
                from face2vec.cluster.ray import RayWorkers

                self._workers = RayWorkers(
                    self._ray, self.model(), self.detector(), self.runtime(), self.max_pixels
                )
            return self._workers

    def local_index(self, what: str, instead: str) -> GalleryIndex:
        """The index of a gallery in a folder.

        Args:
            what: what needs it, for the message.
            instead: what to do instead with a gallery in Milvus.

        Raises:
            SettingsError: the gallery is in Milvus.
        """
        index = self.index()
        if isinstance(index, GalleryIndex):
            return index
        from face2vec.cluster.store import unsupported

        raise unsupported(what, instead)

    def fingerprint_with(self, model: LoadedModel) -> Fingerprint:
        """The fingerprint of embeddings by a model and the detector at hand."""
        return Fingerprint(fingerprint_of(self.detector()), model.fingerprint)

    def note_origin(self, writer: Writer, model: LoadedModel) -> None:
        """Store where the gallery's model is now, if its file was moved."""
        writer.note_origin(model.origin)
        self._calibration = self._surroundings = None  # it may be beside the model

    # Calibration

    def calibration(self) -> Calibration:
        """The gallery's own calibration if it has one, otherwise that of the model.

        Raises:
            CalibrationError: neither has one.
        """
        if self._gallery is not None:
            found, key = self.calibration_or_none(), self._gallery.fingerprint.model.key
        else:
            model = self.model()
            key = model.description.key
            found = calibration_of(key, model.weights_sha256, model.origin)
        if found is None:
            raise CalibrationError(
                f"there is no calibration for the model {key!r}; fit one on photos with known "
                "people: face2vec calibrate GALLERY --people PEOPLE"
            ).coded("no-calibration", model=key)
        return found

    def calibration_or_none(self) -> Calibration | None:
        """The gallery's or its model's calibration, read once, without loading the model."""
        if self._calibration is None:
            with self.gallery().read() as now:
                own = now.calibration()
            model = self.gallery().fingerprint.model
            self._calibration = (own or calibration_of(model.key, model.weights, model.origin),)
        return self._calibration[0]

    def set_calibration(self, calibration: Calibration) -> None:
        """Store a calibration in the gallery.

        Raises:
            GalleryMismatchError: it was fitted with another model.
        """
        with self.write() as writer:
            writer.calibrate(calibration)
        self._calibration = self._surroundings = None

    def known_surroundings(self, now: Snapshot) -> Surroundings:
        """What the faces of the gallery say about an answer, see `surroundings`.

        Raises:
            CalibrationError: there is no calibration.
        """
        self.calibration()
        around = self.surroundings(now)
        assert around is not None
        return around

    def surroundings(self, now: Snapshot) -> Surroundings | None:
        """What the faces of the gallery say about an answer; None without a calibration.

        A part of the faces is looked at, once, and again when the gallery has grown or lost faces.
        """
        calibration = self.calibration_or_none()
        if calibration is None:
            return None
        seen = self._surroundings
        if seen is not None and seen.state == now.state:
            return seen
        count = now.count
        if (
            seen is None
            or abs(count - seen.count) > GROWTH * seen.count
            or now.has_removed_since(seen.state)
        ):
            self._surroundings = None  # nothing of a removed face is kept, whatever happens
            seen = self._looked_at(now, calibration, count)
        self._surroundings = seen = replace(seen, state=now.state)
        return seen

    def _looked_at(self, now: Snapshot, calibration: Calibration, count: int) -> Surroundings:
        nothing = Surroundings(calibration, 1.0, now.state, count)
        if count < FEWEST_PEOPLE:
            return nothing
        looked_at = now.some_ids(LOOKED_AT)
        now.verify(looked_at.tolist())
        some = now.embeddings(looked_at)
        calibration = calibration.among(some)
        if calibration.cohort is None:
            return nothing  # people who look alike would be taken for mates
        asked = some[:ASKED]
        found = self.index().nearest(now, asked, NEAREST + 1)
        ratios = np.full((len(asked), NEAREST), -np.inf)
        crowding = mean_crowding(calibration, now, asked, found)
        for n, (row, mean) in enumerate(zip(found.similarities, crowding, strict=True)):
            # The first is the face itself.
            odds = calibration.log_odds(row[1:].astype(float), crowding=mean[1:])
            ratios[n, : len(row) - 1] = odds
        return Surroundings(calibration, calibration.mates(ratios, count), now.state, count)

    # What belongs together

    def check_model(self) -> None:
        """Check that the model, and the version of the detector, are those of the gallery.

        Raises:
            GalleryMismatchError: they are not; the message says what differs.
        """
        gallery = self.gallery()
        self.check_detector_version()
        made = gallery.fingerprint.model
        # A mismatch with a catalogue model is reported before anything is downloaded.
        wanted = self.wanted_model
        mine = None if wanted is None else catalogue_fingerprint(wanted)
        mine = self.model().fingerprint if mine is None else mine
        if made.digest != mine.digest:
            raise self._other_model(gallery, mine)

    def _other_model(self, gallery: Gallery, mine: ModelFingerprint) -> GalleryMismatchError:
        made = gallery.fingerprint.model
        return GalleryMismatchError(
            f"the gallery {gallery.place} was made with model "
            f"{made.described_against(mine)}; this is model {mine.described_against(made)}; "
            "embeddings of different models cannot be compared; use the gallery's model, make "
            "another gallery, or upgrade this one: "
            f"face2vec upgrade {gallery.place} --model {mine.origin}"
        )

    def check_detector_version(self) -> None:
        """Check that the gallery was made with this version of its detector.

        Raises:
            GalleryMismatchError: it was made with another version.
        """
        gallery = self.gallery()
        made, here = gallery.fingerprint.detector, fingerprint_of(self.detector())
        if made.version != here.version:
            raise GalleryMismatchError(
                f"the gallery {gallery.place} was made with version {made.version} of the "
                f"detector {made.name!r}; this is version {here.version}, which finds other "
                f"faces; use version {made.version} of the detector, or make another gallery"
            )

    def _check_detector(self, gallery: Gallery) -> None:
        if self._wanted_detector is None:
            return
        made, wanted = gallery.fingerprint.detector, fingerprint_of(self._wanted_detector)
        if made.name != wanted.name:
            raise GalleryMismatchError(
                f"the gallery {gallery.place} was made with the detector {made.name!r}, not "
                f"with {wanted.name!r}; use the gallery's detector, or make another gallery"
            )
        if made.settings != wanted.settings:
            names = sorted({*made.settings, *wanted.settings})
            was, now = made.settings.get, wanted.settings.get
            differ = ", ".join(f"{n} {was(n)}, not {now(n)}" for n in names if was(n) != now(n))
            raise GalleryMismatchError(
                f"the gallery {gallery.place} was made with other detector settings: {differ}; "
                "leave them out to use those of the gallery, or make another gallery"
            )


def place_of(gallery: Source | MilvusAddress | None) -> Path | MilvusAddress | None:
    """The absolute folder, or the address, of a gallery.

    Raises:
        SettingsError: it is no path, or an address in object storage.
    """
    if gallery is None or isinstance(gallery, MilvusAddress):
        return gallery
    given = arguments.path("gallery", gallery)
    if not given.strip() or "\0" in given:
        raise arguments.refusal("gallery", gallery, "the path of a folder")
    if is_address(gallery):
        return MilvusAddress.parse(str(gallery))
    if is_object(given):
        raise SettingsError(
            f"a gallery is a folder, or in Milvus, and not in object storage like "
            f"{expanded(given)!r}; photos can be there: face2vec index {expanded(given)} "
            "--gallery indexes/family"
        )
    return Path(expanded(gallery)).absolute()


def open_gallery(place: Path | MilvusAddress) -> Gallery:
    """Open the gallery in a folder or at an address.

    Raises:
        GalleryNotFoundError: there is none.
    """
    if isinstance(place, MilvusAddress):
        from face2vec.cluster.store import ClusterGallery

        return ClusterGallery.open(place)
    return Gallery.open(place)


def _create(place: Path | MilvusAddress, fingerprint: Fingerprint) -> Gallery:
    """Create a new, empty gallery in a folder or at an address."""
    if isinstance(place, MilvusAddress):
        from face2vec.cluster.store import ClusterGallery

        return ClusterGallery.create(place, fingerprint)
    return Gallery.create(place, fingerprint)


def _origin_of(gallery: Gallery) -> str:
    """Where the model of a gallery is: a key of the catalogue, or a path."""
    model = gallery.fingerprint.model
    if model.has_moved:
        raise ModelError(
            f"the model of the gallery {gallery.place} is no longer at {model.origin}; if the "
            f"file was moved, tell where it is: face2vec upgrade {gallery.place} --model FILE"
        )
    return model.origin
