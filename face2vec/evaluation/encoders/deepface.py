"""DeepFace's models, called through ``DeepFace.represent`` with its own detector and crop."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import MissingExtraError, ModelError, UnknownModelError
from face2vec.evaluation.encoders.seam import (
    EncodedFace,
    EncodedPhoto,
    described,
    one_by_one,
    quiet,
    unit_rows,
)
from face2vec.photos.sources import PhotoLike

PREFIX = "deepface"
PACKAGES = ("deepface", "werkzeug")
"""Required packages. DeepFace imports the second without declaring it."""
DETECTOR = "opencv"
"""Default detector of ``represent``."""
BACKEND = "DEEPFACE_BACKEND_ENGINE"
"""Environment variable that selects TensorFlow, PyTorch or ONNX Runtime."""
NO_FACE = ("FaceNotDetected", "ImgNotFound")
"""Exceptions of DeepFace for a photo without a face."""


class DeepFaceEncoder:
    """A `PhotoEncoder` that calls DeepFace's ``represent`` with its defaults.

    DeepFace rotates the detector's boxes so that the eyes are level, pads them to the shape of the
    network's input with black, and scales pixels to 0…1 BGR for every network.

    Args:
        model: name of a model of DeepFace, such as ``Facenet512``, or ``DeepFace`` for the original
            network, whose embedding is its penultimate layer of 4,096 values.
        detector: name of a detector of DeepFace.

    Raises:
        MissingExtraError: one of `PACKAGES` is not installed.
        UnknownModelError: DeepFace has no such model or detector; the message lists those it has.
        ModelError: the model or detector is not available: its weights cannot be downloaded, a
            package of DeepFace is missing, or a runtime cannot run the network.
    """

    def __init__(self, model: str, detector: str = DETECTOR) -> None:
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(f"the encoder {PREFIX}", package, "deepface")
        self._model, self._detector = model, detector
        self.name = ":".join((PREFIX, model, *([detector] if detector != DETECTOR else [])))
        try:
            with quiet():
                self._package = importlib.import_module("deepface.DeepFace")
                self._modeling = importlib.import_module("deepface.modules.modeling")
        except Exception as error:  # a broken runtime may raise anything
            raise ModelError(f"cannot import deepface: {described(error)}") from error
        self._check("facial_recognition", "model", model)
        self._check("face_detector", "detector", detector)
        network, files = _built("facial_recognition", model)
        _built("face_detector", detector)
        self.dimension = int(network.output_shape)
        width, height = network.input_shape
        self.crop_size = int(height), int(width)
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
        self.weights = digest.hexdigest()
        self.weights_bytes = sum(file.stat().st_size for file in files)
        backend = importlib.import_module("deepface.commons.backend_utils").get_backend_engine()
        self.runs_on = f"deepface {importlib.import_module('deepface').__version__}, {backend}"

    def encode(self, photos: Iterable[PhotoLike]) -> Iterator[EncodedPhoto]:
        """See `PhotoEncoder.encode`; photos are encoded one at a time, as usual with DeepFace."""
        return one_by_one(photos, self._faces_in)

    def _faces_in(self, image: NDArray[np.uint8]) -> list[EncodedFace]:
        try:
            rows = self._package.represent(
                np.ascontiguousarray(image[:, :, ::-1]),
                model_name=self._model,
                detector_backend=self._detector,
            )
        except Exception as error:
            if type(error).__name__ in NO_FACE:
                return []
            raise
        found = []
        for row in rows:
            area = row["facial_area"]
            left, top = float(area["x"]), float(area["y"])
            (embedding,) = unit_rows(self.name, row["embedding"])
            box = left, top, left + float(area["w"]), top + float(area["h"])
            found.append(EncodedFace(box, embedding))
        return found

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) of crops, RGB uint8 (n, side, side, 3)."""
        with quiet():
            rows = self._package.represent(
                [np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops],
                model_name=self._model,
                detector_backend="skip",
            )
        # For one photo the result is a list of faces, for several a list of such lists.
        faces = rows if len(crops) == 1 else [row for photo_rows in rows for row in photo_rows]
        return unit_rows(self.name, [face["embedding"] for face in faces])

    def close(self) -> None:
        """Do nothing; there is nothing to release."""

    def _check(self, task: str, what: str, name: str) -> None:
        known = self._modeling.AVAILABLE_MODELS[task]
        if name not in known:
            raise UnknownModelError(f"deepface has no {what} {name!r}; it has: {', '.join(known)}")


@functools.cache  # DeepFace builds each network only once per process
def _built(task: str, name: str) -> tuple[Any, tuple[Path, ...]]:
    """A network that DeepFace builds, and the weights files that it loads."""
    modeling = importlib.import_module("deepface.modules.modeling")
    try:
        with quiet(), _recorded_weights() as files:
            built = modeling.build_model(task, name)
    except Exception as error:  # deepface and its runtimes may raise anything
        hint = f"; or set {BACKEND}=onnx" if "LocallyConnected2D" in str(error) else ""
        raise ModelError(f"deepface cannot build {name}: {described(error)}{hint}") from error
    return built, tuple(files)


@contextlib.contextmanager
def _recorded_weights() -> Iterator[list[Path]]:
    """Record the weights files that DeepFace loads in the block; it has no API for them."""
    utils: Any = importlib.import_module("deepface.commons.weight_utils")
    original = utils.download_weights_if_necessary
    files: list[Path] = []

    def recording(*args: Any, **kwargs: Any) -> str:
        file: str = original(*args, **kwargs)
        files.append(Path(file))
        return file

    utils.download_weights_if_necessary = recording
    try:
        yield files
    finally:
        utils.download_weights_if_necessary = original
