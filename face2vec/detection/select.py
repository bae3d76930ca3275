"""Opens a detector: one of the package by its settings, or one that the user brings along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from face2vec.detection.detector import Detector, detector_fingerprint
from face2vec.detection.mtcnn import CASCADE_VERSION, DetectorSettings, Mtcnn
from face2vec.detection.yunet import YUNET_VERSION, Yunet, YunetSettings
from face2vec.errors import GalleryMismatchError, SettingsError
from face2vec.fingerprint import MTCNN, YUNET, DetectorFingerprint
from face2vec.runtime.select import Runtime

OwnSettings = DetectorSettings | YunetSettings
"""The settings of a detector of the package."""
AnyDetector = Detector | OwnSettings
"""A detector, or the settings of one of the package."""

SETTINGS: Mapping[str, type[OwnSettings]] = {MTCNN: DetectorSettings, YUNET: YunetSettings}
"""The package's detectors: the settings of each by its name."""


def open_detector(wanted: AnyDetector, runtime: Runtime) -> Detector:
    """The detector, loaded.

    Args:
        wanted: a detector, which is returned as it is, or the settings of one of the package.
        runtime: where its networks run, see `detector_runtime`.

    Raises:
        MissingExtraError: the extra of this detector is not installed.
        ModelError: its weights are missing or not the expected ones.
    """
    if isinstance(wanted, DetectorSettings):
        return Mtcnn(wanted, runtime)
    return Yunet(wanted, runtime) if isinstance(wanted, YunetSettings) else wanted


def fingerprint_of(wanted: AnyDetector) -> DetectorFingerprint:
    """What a gallery stores of a detector; loads no networks."""
    if isinstance(wanted, DetectorSettings):
        return DetectorFingerprint(MTCNN, CASCADE_VERSION, wanted.to_dict())
    if isinstance(wanted, YunetSettings):
        return DetectorFingerprint(YUNET, YUNET_VERSION, wanted.to_dict())
    return detector_fingerprint(wanted)


def named_settings(name: str, **given: Any) -> OwnSettings:
    """The settings of a detector of the package by its name.

    Args:
        name: ``"mtcnn"`` or ``"yunet"``.
        given: settings that are not the default ones.

    Raises:
        SettingsError: there is no such detector, or a value is out of range.
    """
    if name not in SETTINGS:
        raise SettingsError(f"unknown detector {name!r}; choose one of {', '.join(SETTINGS)}")
    return SETTINGS[name](**given)


def settings_from(stored: DetectorFingerprint) -> OwnSettings:
    """The settings to make a detector of the package again.

    Raises:
        GalleryMismatchError: the detector is not one of this package, or does not take the
            settings.
    """
    if stored.name not in SETTINGS:
        raise GalleryMismatchError(
            f"the gallery was made with the detector {stored.name!r}, version {stored.version}, "
            "which is not part of face2vec; pass that detector: Face2Vec(gallery, detector=…)"
        )
    try:
        return SETTINGS[stored.name](**stored.settings)
    except (TypeError, ValueError) as error:  # unknown names, other types, out of range
        raise GalleryMismatchError(
            f"the gallery has settings of the detector {stored.name!r} that it does not take "
            f"({error}); pass settings of your own: Face2Vec(gallery, detector=…)"
        ) from error
