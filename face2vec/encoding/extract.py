"""Extracts the crops of the faces in photos: opens, detects, aligns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from face2vec.detection.detector import detected
from face2vec.detection.opinion import SecondOpinion
from face2vec.detection.select import AnyDetector, open_detector
from face2vec.encoding.align import cut_known, full_size
from face2vec.encoding.quality import with_parts
from face2vec.errors import PhotoError
from face2vec.models.description import ModelDescription
from face2vec.photos.decode import MAX_PIXELS, open_photo
from face2vec.photos.sources import PhotoLike
from face2vec.runtime.select import Runtime
from face2vec.types import Face, Photo, Unopened

CHUNK_PIXELS = 4_000_000  # decoded pixels per call of the detector


@dataclass(frozen=True, eq=False)
class Wanted:
    """A photo whose faces are to be extracted.

    Attributes:
        photo: the photo, opened or not.
        faces: known faces in pixels of the full photo; None to detect them.
    """

    photo: Photo | Unopened
    faces: Sequence[Face] | None = None


@dataclass(frozen=True, eq=False)
class Extracted:
    """The result of extracting the faces of one photo.

    Attributes:
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels of the upright photo, 0 if it could not be read.
        faces: the faces in pixels of the full photo, with their quality for the model; most
            confident first, or in the order of the known faces.
        crops: RGB uint8 (n, side, side, 3), aligned for the model; None if there is an error.
        error: why the photo could not be read, or None.
        damage: what of the photo is missing, or empty.
    """

    width: int = 0
    height: int = 0
    faces: list[Face] = field(default_factory=list)
    crops: NDArray[np.uint8] | None = None
    error: PhotoError | None = None
    damage: str = ""


Extract = Callable[[Sequence[Wanted]], list[Extracted]]


class Extractor:
    """Opens photos, detects their faces and cuts the crops. Safe to use from several threads.

    Args:
        detector: a detector, or settings of MTCNN.
        model: description of the embedding network, which defines the crops.
        runtime: the runtime of MTCNN, see `detector_runtime`.
        max_pixels: photos with more pixels are refused.
    """

    def __init__(
        self,
        detector: AnyDetector,
        model: ModelDescription,
        runtime: Runtime,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.wanted = detector
        self.model = model
        self.runtime = runtime
        self.max_pixels = max_pixels
        self._detector = open_detector(detector, runtime)
        self._opinion = SecondOpinion(runtime)

    def open(self, photo: PhotoLike, name: str | None = None) -> Photo:
        """Decode a photo at the scale that the detector needs.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return open_photo(
            photo, name=name, max_side=self._detector.max_side, max_pixels=self.max_pixels
        )

    def extract(self, wanted: Sequence[Wanted]) -> list[Extracted]:
        """Extract the faces and crops of each photo; an unreadable photo gives a result with error.

        Raises:
            SettingsError: a source has an unsupported type, or the detector returns invalid faces.
        """
        done = [Extracted()] * len(wanted)
        together: list[tuple[int, Photo]] = []
        for place, one in enumerate(wanted):
            try:
                photo = one.photo
                if isinstance(photo, Unopened):
                    photo = self.open(photo.source, photo.name)
                if one.faces is not None:
                    known = with_parts(photo, one.faces, self._opinion)
                    cut = cut_known(photo, known, self.model)
                    done[place] = Extracted(photo.width, photo.height, *cut, damage=photo.damage)
                    continue
            except PhotoError as error:
                done[place] = Extracted(error=error)
                continue
            together.append((place, photo))
            if sum(photo.image.size for _, photo in together) >= 3 * CHUNK_PIXELS:
                self._search(together, done)
                together = []
        self._search(together, done)
        return done

    def _search(self, together: list[tuple[int, Photo]], done: list[Extracted]) -> None:
        """Detect the faces of several photos in one call and store the results in ``done``."""
        found = detected(self._detector, [photo.image for _, photo in together])
        for (place, photo), faces in zip(together, found, strict=True):
            size = photo.width, photo.height
            try:
                whole = with_parts(photo, [full_size(face, photo) for face in faces], self._opinion)
                cut = cut_known(photo, whole, self.model)
                done[place] = Extracted(*size, *cut, damage=photo.damage)
            except PhotoError as error:  # the second read, at full resolution, failed
                done[place] = Extracted(*size, error=error)
