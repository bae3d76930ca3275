"""Opens a detector: one of the package by its settings, or one that the user brings along."""

from __future__ import annotations

from face2vec.detection.detector import Detector, detector_fingerprint
from face2vec.detection.mtcnn import CASCADE_VERSION, DetectorSettings, Mtcnn
from face2vec.errors import GalleryMismatchError
from face2vec.fingerprint import MTCNN, DetectorFingerprint
from face2vec.runtime.select import Runtime

AnyDetector = Detector | DetectorSettings
"""A detector, or the settings of MTCNN."""


def open_detector(wanted: AnyDetector, runtime: Runtime) -> Detector:
    """The detector, loaded.

    Args:
        wanted: a detector, which is returned as it is, or settings of MTCNN.
        runtime: where the networks of MTCNN run, see `detector_runtime`.
    """
    return Mtcnn(wanted, runtime) if isinstance(wanted, DetectorSettings) else wanted


def fingerprint_of(wanted: AnyDetector) -> DetectorFingerprint:
    """What a gallery stores of a detector; loads no networks."""
    if isinstance(wanted, DetectorSettings):
        return DetectorFingerprint(MTCNN, CASCADE_VERSION, wanted.to_dict())
    return detector_fingerprint(wanted)


def settings_from(stored: DetectorFingerprint) -> DetectorSettings:
    """The settings to make a detector of the package again.

    Raises:
        GalleryMismatchError: the detector is not one of this package.
    """
    if stored.name != MTCNN:
        raise GalleryMismatchError(
            f"the gallery was made with the detector {stored.name!r}, version {stored.version}, "
            "which is not part of face2vec; pass that detector: Face2Vec(gallery, detector=…)"
        )
    return DetectorSettings(**stored.settings)
