"""Find a face again in a photo collection: MTCNN, FaceNet and FAISS.

>>> from face2vec import Face2Vec
>>> engine = Face2Vec("indexes/family")
>>> engine.add("photos")
>>> engine.search("someone.jpg", k=5)
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from face2vec.errors import (
    AddressNotAllowedError,
    CalibrationError,
    DownloadError,
    Face2VecError,
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryMismatchError,
    GalleryNotFoundError,
    GalleryUpgradedError,
    GalleryVersionError,
    MissingExtraError,
    ModelError,
    NoFaceError,
    NotWrittenError,
    OtherEditError,
    PhotoError,
    RuntimeUnavailableError,
    ServiceError,
    SettingsError,
    StorageError,
    TrainingError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from face2vec.calibration import Calibration, Verification
    from face2vec.client import Client
    from face2vec.detection.detector import Detector
    from face2vec.detection.mtcnn import DetectorSettings
    from face2vec.detection.yunet import YunetSettings
    from face2vec.engine import Face2Vec
    from face2vec.gallery.rows import Removed
    from face2vec.ingest.build import BuildSummary
    from face2vec.models import DEFAULT_MODEL, ModelDescription
    from face2vec.photos.decode import open_photo
    from face2vec.photos.discover import find_photos
    from face2vec.report.matches import Matches, QueryResult, save_grid, save_html
    from face2vec.types import Face, Match, Photo

__version__ = "0.2.0"

__all__ = [
    "DEFAULT_MODEL",
    "AddressNotAllowedError",
    "BuildSummary",
    "Calibration",
    "CalibrationError",
    "Client",
    "Detector",
    "DetectorSettings",
    "DownloadError",
    "Face",
    "Face2Vec",
    "Face2VecError",
    "GalleryDamagedError",
    "GalleryError",
    "GalleryLockedError",
    "GalleryMismatchError",
    "GalleryNotFoundError",
    "GalleryUpgradedError",
    "GalleryVersionError",
    "Match",
    "Matches",
    "MissingExtraError",
    "ModelDescription",
    "ModelError",
    "NoFaceError",
    "NotWrittenError",
    "OtherEditError",
    "Photo",
    "PhotoError",
    "QueryResult",
    "Removed",
    "RuntimeUnavailableError",
    "ServiceError",
    "SettingsError",
    "StorageError",
    "TrainingError",
    "UnknownModelError",
    "Verification",
    "YunetSettings",
    "find_photos",
    "open_photo",
    "save_grid",
    "save_html",
]

# Importing face2vec loads none of the packages that it depends on; the first use of a name does.
_HOME = {
    "BuildSummary": "ingest.build",
    "Calibration": "calibration",
    "Client": "client",
    "DEFAULT_MODEL": "models",
    "Detector": "detection.detector",
    "DetectorSettings": "detection.mtcnn",
    "Face": "types",
    "Face2Vec": "engine",
    "Match": "types",
    "Matches": "report.matches",
    "ModelDescription": "models",
    "Photo": "types",
    "QueryResult": "report.matches",
    "Removed": "gallery.rows",
    "Verification": "calibration",
    "YunetSettings": "detection.yunet",
    "find_photos": "photos.discover",
    "open_photo": "photos.decode",
    "save_grid": "report.matches",
    "save_html": "report.matches",
}


# Deprecated names, which will be removed in the next version.
_RENAMED = {"Found": "QueryResult"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"face2vec.{name} is deprecated; use face2vec.{_RENAMED[name]}",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _HOME:
        raise AttributeError(f"module 'face2vec' has no attribute {name!r}")
    return getattr(importlib.import_module(f"face2vec.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
