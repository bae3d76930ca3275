"""Encoders that can be evaluated, by name: face2vec's own, keras-facenet's and DeepFace's.

=============================  ============================================================
``mini``, ``my.onnx``          face2vec with a model of the catalogue or of a file
``keras-facenet:KEY``          keras-facenet's ``FaceNet(KEY).extract``
``keras-facenet:KEY:FILE``     the same with the weights of a file
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
    """Whether a name is of another package's encoder."""
    return str(name).partition(":")[0] in (keras_facenet.PREFIX, deepface.PREFIX)


def check_encoder(name: str) -> None:
    """Refuse a name that is of no encoder, without loading anything.

    Raises:
        UnknownModelError: no model has that key.
        ModelError: a file is not there.
        SettingsError: the name of another package's encoder has too few or too many parts.
    """
    package, *parts = _parts(name)
    if package == keras_facenet.PREFIX:
        keras_facenet.check_key(parts[0])
    elif not package:
        path = Path(name).expanduser()
        if path.suffix.lower() not in (*SUFFIXES, ".json"):
            find_model(name)
        elif not path.is_file():
            raise ModelError(f"there is no model file {path.absolute()}")


def open_encoder(name: str | Path | None, runtime: str = "auto") -> PhotoEncoder:
    """The encoder of a name, loaded and ready; close it after use.

    Args:
        name: see this module; None for face2vec's default model.
        runtime: where a network of face2vec's own runs; the others have their own.

    Raises:
        SettingsError: a name that cannot be.
        MissingExtraError: the package is not installed.
        ModelError: the encoder cannot be had: no such model, or no weights.
    """
    package, *parts = _parts(name)
    if package == keras_facenet.PREFIX:
        key, *file = parts
        return KerasFaceNetEncoder(key, Path(file[0]).expanduser() if file else None)
    if package == deepface.PREFIX:
        return DeepFaceEncoder(*parts)
    return OwnEncoder(name, runtime)


def _parts(name: str | Path | None) -> list[str]:
    """Package, model and, where it is given, file or detector; ``[""]`` for face2vec's own."""
    if not is_other(name):
        return [""]
    parts = str(name).split(":", 2)
    if len(parts) < 2 or not all(parts):
        raise SettingsError(
            f"{name!r} names no encoder; the forms are keras-facenet:KEY, keras-facenet:KEY:FILE, "
            "deepface:MODEL and deepface:MODEL:DETECTOR"
        )
    return parts
