"""The seam for face detectors: the `Detector` protocol.

An object with these members finds the faces for ``Face2Vec(detector=…)``. It needs no base class
and no registration. A gallery stores its name, version and settings in the fingerprint and refuses
photos that are encoded with another detector.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError
from face2vec.fingerprint import DetectorFingerprint
from face2vec.types import Face


@runtime_checkable
class Detector(Protocol):
    """Finds faces in images. Several threads call one detector at the same time."""

    @property
    def name(self) -> str:
        """Name of the detector, such as ``"mtcnn"``."""
        ...

    @property
    def version(self) -> int:
        """Version of the detector; raise it whenever the same photo gives other faces."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings that change which faces are found, as JSON-able values."""
        ...

    @property
    def max_side(self) -> int | None:
        """Longest side in pixels at which photos are decoded for detection; None for full size."""
        ...

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each image, most confident first, in pixels of that image.

        The faces of an image must not depend on the other images. Landmarks are the left eye, the
        right eye, the nose, the left and the right mouth corner, as the viewer sees them. The
        confidence is 0…1; faces below 0.9 are left out when people are grouped.

        Args:
            images: RGB uint8 (height, width, 3), upright, of any sizes.
        """
        ...


def detected(detector: Detector, images: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
    """The faces that a detector finds in each image, after checking them.

    Args:
        detector: any detector.
        images: RGB uint8 (height, width, 3), upright, of any sizes.

    Raises:
        SettingsError: the detector does not return one list per image, or a face is invalid.
    """
    found = detector.detect(images)
    if len(found) != len(images):
        raise SettingsError(
            f"the detector {detector.name!r} returned {len(found)} lists of faces for "
            f"{len(images)} images; it must return one list for each image"
        )
    for face in (face for faces in found for face in faces):
        left, top, right, bottom = face.box
        numbers = (*face.box, *(number for point in face.landmarks for number in point))
        if not (
            all(map(math.isfinite, numbers))
            and left < right
            and top < bottom
            and len(set(face.landmarks)) > 1
            and 0 <= face.confidence <= 1
        ):
            raise SettingsError(
                f"the detector {detector.name!r} returned an invalid face: box {face.box}, "
                f"landmarks {face.landmarks}, confidence {face.confidence}; a box has a positive "
                "size, landmarks are different points, and a confidence is 0…1"
            )
    return found


def detector_fingerprint(detector: Detector) -> DetectorFingerprint:
    """What a gallery stores of a detector.

    Raises:
        SettingsError: its settings are not JSON-able.
    """
    settings = dict(detector.settings)
    try:
        json.dumps(settings)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"the settings of the detector {detector.name!r} are not JSON-able: {error}"
        ) from error
    return DetectorFingerprint(detector.name, detector.version, settings)
