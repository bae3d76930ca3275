"""keras-facenet with its own pipeline: detector of the ``mtcnn`` package, own crop, TensorFlow."""

from __future__ import annotations

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
from face2vec.models import CATALOGUE
from face2vec.models.store import weights_of
from face2vec.photos.sources import PhotoLike

PREFIX = "keras-facenet"
PACKAGES = ("keras_facenet", "mtcnn", "tensorflow", "scipy", "cv2")
KEYS = tuple(key for key, model in CATALOGUE.items() if model.format == "keras")


class KerasFaceNetEncoder:
    """A `PhotoEncoder` that calls keras-facenet's ``FaceNet.extract``.

    It accepts detections of ``mtcnn`` above 0.95 confidence, enlarges their boxes by 16 pixels of
    the photo, and stretches them to 160 × 160 without rotation.

    Args:
        key: one of `KEYS`.
        file: weights file in keras-facenet's layout. None for the published weights, from
            keras-facenet's own cache, or else from face2vec's.

    Raises:
        UnknownModelError: there is no such key.
        MissingExtraError: one of `PACKAGES` is not installed.
        DownloadError: the weights are missing and could not be downloaded.
        ModelError: there is no such file, or it has other weights.
    """

    def __init__(self, key: str, file: Path | None = None) -> None:
        check_key(key)
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(f"the encoder {PREFIX}", package, "keras")
        weights = file or _published(key)
        if not weights.is_file():
            raise ModelError(f"there is no weights file {weights} for {PREFIX}:{key}")
        with weights.open("rb") as stream:
            self.weights = hashlib.file_digest(stream, "sha256").hexdigest()
        self.weights_bytes = weights.stat().st_size
        self._facenet = _facenet(key, weights)
        size = int(self._facenet.metadata["image_size"])
        self.name = f"{PREFIX}:{key}" if file is None else f"{PREFIX}:{key}:{file}"
        self.dimension = int(self._facenet.metadata["dimensions"])
        self.crop_size = size, size
        self.runs_on = f"tensorflow {importlib.import_module('tensorflow').__version__}"

    def encode(self, photos: Iterable[PhotoLike]) -> Iterator[EncodedPhoto]:
        """See `PhotoEncoder.encode`; ``extract`` encodes one photo at a time."""
        return one_by_one(photos, self._faces_in)

    def _faces_in(self, image: NDArray[np.uint8]) -> list[EncodedFace]:
        found = []
        for face in self._facenet.extract(image):
            left, top, width, height = (float(value) for value in face["box"])
            (embedding,) = unit_rows(self.name, face["embedding"])
            found.append(EncodedFace((left, top, left + width, top + height), embedding))
        return found

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) of crops, RGB uint8 (n, side, side, 3)."""
        with quiet():
            return unit_rows(self.name, self._facenet.embeddings(list(crops)))

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


def check_key(key: str) -> None:
    """Check that keras-facenet has a key.

    Raises:
        UnknownModelError: it does not; the message lists the keys that it has.
    """
    if key not in KEYS:
        raise UnknownModelError(
            f"keras-facenet has no model {key!r}; it has: {', '.join(KEYS)}; "
            f"name one of them: {PREFIX}:{KEYS[0]}"
        )


def _published(key: str) -> Path:
    """The published weights, from keras-facenet's cache or else from face2vec's."""
    cached = Path.home() / ".keras-facenet" / key / f"{key}-weights.h5"
    if cached.is_file():
        with cached.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == CATALOGUE[key].sha256:
                return cached
    return weights_of(key)


def _facenet(key: str, weights: Path) -> Any:
    """Create ``FaceNet(key)`` with weights from a file instead of a download."""
    package = importlib.import_module("keras_facenet")
    network = importlib.import_module("keras_facenet.inception_resnet_v1")
    facenet = package.FaceNet.__new__(package.FaceNet)
    facenet.metadata = package.metadata.MODEL_METADATA[key]
    try:
        with quiet():
            facenet.model = network.InceptionResNetV1(
                input_shape=(None, None, 3), classes=facenet.metadata["dimensions"]
            )
            facenet.model.load_weights(str(weights))
    except Exception as error:  # Keras may raise anything
        raise ModelError(f"keras-facenet cannot load {weights}: {described(error)}") from error
    return facenet
