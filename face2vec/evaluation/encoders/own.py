"""face2vec's own encoder: MTCNN, alignment, and a model of the catalogue or a model file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.encoder import Encoder
from face2vec.evaluation.encoders.seam import EncodedFace, EncodedPhoto
from face2vec.models import DEFAULT_MODEL, load_model
from face2vec.photos.sources import PhotoLike
from face2vec.runtime.select import choose_runtime


class OwnEncoder:
    """A `PhotoEncoder` with the encoder of `Face2Vec`.

    Args:
        model: a key of the catalogue, or the path of an ONNX, OpenVINO IR or Keras weights file
            with its description; None for the default model.
        runtime: runtime of the embedding network.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    def __init__(self, model: str | Path | None = None, runtime: str = "auto") -> None:
        loaded = load_model(model or DEFAULT_MODEL)
        chosen = choose_runtime(runtime)
        self._encoder = Encoder(loaded, DetectorSettings(), chosen)
        self.name = loaded.description.key
        self.dimension = loaded.description.dimension
        self.crop_size = loaded.description.input_size, loaded.description.input_size
        self.weights = loaded.weights_sha256
        self.weights_bytes = sum(file.stat().st_size for file in loaded.files())
        self.runs_on = f"{chosen.name} {chosen.precision}"

    def encode(self, photos: Iterable[PhotoLike]) -> Iterator[EncodedPhoto]:
        """See `PhotoEncoder.encode`; photos are encoded in parallel."""
        for encoded in self._encoder.stream(photos, self._encoder.unopened):
            faces = tuple(
                EncodedFace(face.box, face.embedding)
                for face in encoded.faces
                if face.embedding is not None
            )
            failure = "" if encoded.error is None else str(encoded.error)
            yield EncodedPhoto(faces, encoded.width, encoded.height, failure)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) of crops, RGB uint8 (n, side, side, 3), on all threads."""
        return self._encoder.embed(crops)

    def close(self) -> None:
        """Stop the worker threads."""
        self._encoder.close()
