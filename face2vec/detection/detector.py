"""The seam for face detectors: the `Detector` protocol.

An object with these members finds the faces for ``Face2Vec(detector=…)``. It needs no base class
and no registration. A gallery stores its name, version and settings in the fingerprint and refuses
photos that are encoded with another detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

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

        The faces of an image must not depend on the other images.

        Args:
            images: RGB uint8 (height, width, 3), upright, of any sizes.
        """
        ...


def detector_fingerprint(detector: Detector) -> DetectorFingerprint:
    """What a gallery stores of a detector."""
    return DetectorFingerprint(detector.name, detector.version, dict(detector.settings))
