"""A gallery that is open, with its model, index and calibration; what `Face2Vec` stands on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.detection.mtcnn import CASCADE_VERSION, DetectorSettings
from face2vec.errors import (
    CalibrationError,
    GalleryMismatchError,
    GalleryNotFoundError,
    ModelError,
    NoFaceError,
    PhotoError,
    SettingsError,
)
from face2vec.gallery.gallery import Gallery
from face2vec.index.sync import GalleryIndex
from face2vec.models import DEFAULT_MODEL, LoadedModel, calibration_of, load_model
from face2vec.photos.decode import MAX_PIXELS, PhotoLike
from face2vec.photos.discover import Source
from face2vec.runtime.select import choose_runtime
from face2vec.types import Face, Photo, model_digest

if TYPE_CHECKING:
    from face2vec.encoding.encoder import Encoder

log = logging.getLogger("face2vec")

Query = PhotoLike | Photo | Face | NDArray[np.float32] | Sequence[PhotoLike | Photo]


class OpenedGallery:
    """A folder, the gallery in it where there is one, and what is loaded at first use.

    See `Face2Vec` for the arguments.
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
        hold_index: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._folder = None if gallery is None else Path(gallery).absolute()
        self._wanted_model = model
        self._wanted_detector = detector
        self._wanted_index = index
        self._hold_index = hold_index
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder) if self._folder else ''!r})"

    def close(self) -> None:
        """Close the gallery and let the worker threads end."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None
        self._index = None

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
                from face2vec.encoding.encoder import Encoder

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
        for encoded in self.encoder.stream(photos, self.encoder.unopened):
            if encoded.error is not None:
                if on_error is None:
                    raise encoded.error
                on_error(encoded.error)
            yield list(encoded.faces)

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

    def _calibrated(self, gallery: Gallery) -> Calibration | None:
        """The gallery's calibration or its model's, read once, without loading the model."""
        if self._calibration is None:
            made = gallery.fingerprint["model"]
            self._calibration = (
                gallery.calibration()
                or calibration_of(made["key"], made["weights"], made["origin"]),
            )
        return self._calibration[0]

    def _query(
        self, query: Query, gallery: Gallery
    ) -> tuple[str, Sequence[Face | None], NDArray[np.float32], Any]:
        """(name, faces, embeddings, what the faces can be cut from) of whatever was asked about."""
        if isinstance(query, Face):
            return "<face>", [query], self._embedding_of(query, gallery)[None], None
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            embeddings = unit_rows(query, gallery.dimension)
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
            return embedding_of(face, gallery.model_digest)
        own = own_record(face, gallery)
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
        return name, [face.with_embedding(mean, face.model)], mean[None], photo.source

    def _open(self, photo: PhotoLike | Photo) -> Photo:
        return photo if isinstance(photo, Photo) else self.encoder.read(photo)

    def _index_of(self, gallery: Gallery) -> GalleryIndex:
        with self._lock:
            if self._index is None:
                self._index = GalleryIndex(gallery, self._wanted_index, self._hold_index)
            return self._index

    def _load_model(self) -> LoadedModel:
        with self._lock:
            if self._model is None:
                wanted = self._wanted_model
                if wanted is None and self._gallery is not None:
                    wanted = origin_of(self._gallery)
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
                self._gallery = Gallery.create(
                    self._folder,
                    fingerprint(model, self.detector),
                    model.description.dimension,
                )
        gallery = self._readable()
        self._check_detector(gallery)
        self._check_model(gallery, model)
        return gallery

    def _note_origin(self, gallery: Gallery, model: LoadedModel) -> None:
        """Where the gallery's model is found now; the gallery is open for writing."""
        gallery.note_origin(model.origin)
        self._calibration = None  # it may lie beside the model

    def _check_model(self, gallery: Gallery, model: LoadedModel) -> None:
        self._check_cascade(gallery)
        if not of_model(gallery, model):
            made, mine = gallery.fingerprint["model"], model.as_fingerprint()
            raise GalleryMismatchError(
                f"the gallery {gallery.folder} was made with model {_words(made, mine)}; "
                f"this is model {_words(mine, made)}. Embeddings of different models cannot be "
                "compared: use the gallery's model, make a new gallery, or bring this one to the "
                f"other model: face2vec upgrade {gallery.folder} --model {model.origin}"
            )

    def _check_cascade(self, gallery: Gallery) -> None:
        version = gallery.fingerprint["cascade"]
        if version != CASCADE_VERSION:
            raise GalleryMismatchError(
                f"the gallery {gallery.folder} was made with version {version} of the cascade, "
                f"this face2vec has version {CASCADE_VERSION} and cuts faces in another way: use "
                "the face2vec that made it, or make a new gallery"
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


def embedding_of(face: Face, model: str) -> NDArray[np.float32]:
    """The embedding that a face brings along.

    Raises:
        GalleryMismatchError: it is known to be of another model than the one of that digest.
    """
    if face.model and face.model != model:
        raise GalleryMismatchError(
            f"the embedding of {face!r} is of another model than the one it is asked about with; "
            "embeddings of different models cannot be compared: encode its photo again"
        )
    assert face.embedding is not None
    return face.embedding


def own_record(face: Face, gallery: Gallery) -> Face | None:
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


def unit_rows(query: NDArray[Any], dimension: int) -> NDArray[np.float32]:
    """Embeddings of a query, (d,) or (n, d), as unit rows (n, d)."""
    rows: NDArray[np.float32] = np.array(query, dtype=np.float32, ndmin=2)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise SettingsError(
            f"the query has shape {query.shape}; embeddings of this gallery are ({dimension},), "
            f"several of them (n, {dimension})"
        )
    lengths = np.sqrt(np.vecdot(rows, rows))
    if not ((lengths > 0) & (lengths < np.inf)).all():
        raise SettingsError("an embedding of the query has no or infinite length")
    rows /= lengths[:, None]
    return rows


def origin_of(gallery: Gallery) -> str:
    """Where a gallery's model was found: a key of the catalogue, or a path.

    Raises:
        ModelError: it is not there any more.
    """
    origin: str = gallery.fingerprint["model"]["origin"]
    if Path(origin).is_absolute() and not Path(origin).exists():
        raise ModelError(
            f"the model of the gallery {gallery.folder} is no longer at {origin}. If it was moved, "
            f"say where it is: face2vec upgrade {gallery.folder} --model FILE"
        )
    return origin


def of_model(gallery: Gallery, model: LoadedModel) -> bool:
    """Whether a gallery's embeddings are of this very model, wherever it was found."""
    return gallery.model_digest == model_digest(model.as_fingerprint())


def fingerprint(model: LoadedModel, detector: DetectorSettings) -> dict[str, Any]:
    """All that the embeddings of a gallery depend on, and where the model was found."""
    return {
        "cascade": CASCADE_VERSION,
        "detector": detector.to_dict(),
        "model": model.as_fingerprint(),
    }


def _words(mine: dict[str, Any], other: dict[str, Any]) -> str:
    differ = ", ".join(f"{k}: {v}" for k, v in mine.items() if other.get(k) != v and k != "key")
    return f"{mine.get('key')} ({differ})"
