"""Encoders for evaluations, by name: face2vec's own, keras-facenet's and DeepFace's.

=============================  ============================================================
``mini``, ``my.onnx``          face2vec with a model of the catalogue or a model file
``keras-facenet:KEY``          keras-facenet's ``FaceNet(KEY).extract``
``keras-facenet:KEY:FILE``     the same with weights from a file
``deepface:MODEL``             DeepFace's ``represent``
``deepface:MODEL:DETECTOR``    the same with another of its detectors
=============================  ============================================================
"""

from __future__ import annotations

from pathlib import Path

from face2vec.errors import ModelError, SettingsError
from face2vec.evaluation.encoders import deepface, keras_facenet
from face2vec.evaluation.encoders.deepface import DeepFaceEncoder
from face2vec.evaluation.encoders.keras_facenet import KerasFaceNetEncoder
from face2vec.evaluation.encoders.own import OwnEncoder
from face2vec.evaluation.encoders.seam import EncodedFace, EncodedPhoto, PhotoEncoder
from face2vec.files import expanded
from face2vec.models.catalogue import find_model
from face2vec.models.formats import SUFFIXES

__all__ = [
    "EncodedFace",
    "EncodedPhoto",
    "PhotoEncoder",
    "check_encoder",
    "is_other",
    "open_encoder",
]


def is_other(name: str | Path | None) -> bool:
    """Whether a name is that of another package's encoder."""
    return str(name).partition(":")[0] in (keras_facenet.PREFIX, deepface.PREFIX)


def check_encoder(name: str) -> None:
    """Check the name of an encoder without loading anything.

    Raises:
        UnknownModelError: there is no model of that key.
        ModelError: a file does not exist.
        SettingsError: the name of another package's encoder has too few or too many parts.
    """
    package, *parts = _parts(name)
    if package == keras_facenet.PREFIX:
        keras_facenet.check_key(parts[0])
    elif not package:
        path = Path(expanded(name))
        if path.suffix.lower() not in (*SUFFIXES, ".json"):
            find_model(name)
        elif not path.is_file():
            raise ModelError(f"there is no model file {path.absolute()}")


def open_encoder(name: str | Path | None, runtime: str = "auto") -> PhotoEncoder:
    """Load an encoder; close it after use.

    Args:
        name: name of the encoder, see this module; None for face2vec's default model.
        runtime: runtime of face2vec's own models; other packages have their own.

    Raises:
        SettingsError: the name is invalid.
        MissingExtraError: the package is not installed.
        ModelError: the model or its weights do not exist.
    """
    package, *parts = _parts(name)
    if package == keras_facenet.PREFIX:
        key, *file = parts
        return KerasFaceNetEncoder(key, Path(expanded(file[0])) if file else None)
    if package == deepface.PREFIX:
        return DeepFaceEncoder(*parts)
    return OwnEncoder(name, runtime)


def _parts(name: str | Path | None) -> list[str]:
    """Package, model and optional file or detector; ``[""]`` for face2vec's own models."""
    if not is_other(name):
        return [""]
    parts = str(name).split(":", 2)
    if len(parts) < 2 or not all(parts):
        raise SettingsError(
            f"{name!r} is not the name of an encoder; use keras-facenet:KEY, "
            "keras-facenet:KEY:FILE, deepface:MODEL or deepface:MODEL:DETECTOR"
        )
    return parts
