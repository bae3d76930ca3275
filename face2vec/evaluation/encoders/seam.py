"""The interface of encoders for evaluations: photos in, faces with embeddings out."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError, PhotoError
from face2vec.photos.decode import open_photo
from face2vec.photos.sources import PhotoLike
from face2vec.types import Box, nearest_to

log = logging.getLogger("face2vec")


class EncodedFace(NamedTuple):
    """One face of a photo."""

    box: Box
    """The box in pixels of the upright photo."""
    embedding: NDArray[np.float32]
    """float32 (d,) of unit length."""


class EncodedPhoto(NamedTuple):
    """The result of encoding one photo."""

    faces: tuple[EncodedFace, ...] = ()
    """The faces of the photo."""
    width: int = 0
    """Width of the upright photo in pixels; 0 if it could not be read."""
    height: int = 0
    """Height of the upright photo in pixels; 0 if it could not be read."""
    failure: str = ""
    """Why the photo could not be encoded; empty if it could."""

    @property
    def centre_face(self) -> EncodedFace | None:
        """The face nearest the centre, which is the named person's in LFW and CelebA."""
        return nearest_to(self.faces, self.width / 2, self.height / 2)

    @property
    def largest_face(self) -> EncodedFace | None:
        """The face with the largest box."""
        return max(
            self.faces,
            key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]),
            default=None,
        )


class PhotoEncoder(Protocol):
    """An encoder with its own detector, crop and standardisation, as its users run it.

    Only the decoding of photos is done by face2vec for all encoders.
    """

    name: str
    """Name on the command line."""
    dimension: int
    """Dimension of an embedding."""
    crop_size: tuple[int, int]
    """(height, width) in pixels of the network's input."""
    weights: str
    """SHA-256 in hexadecimal of the network's weights."""
    weights_bytes: int
    """Size of the weights on disk."""
    runs_on: str
    """Runtime and precision."""

    def encode(self, photos: Iterable[PhotoLike]) -> Iterator[EncodedPhoto]:
        """Encode photos, with one `EncodedPhoto` per photo, in order; photos are read lazily."""
        ...

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network alone, with its standardisation, in one batch.

        Args:
            crops: RGB uint8 (n, height, width, 3) of `crop_size`.

        Returns:
            float32 (n, d), each of unit length.
        """
        ...

    def close(self) -> None:
        """Release threads and other resources."""
        ...


def one_by_one(
    photos: Iterable[PhotoLike], faces_in: Callable[[NDArray[np.uint8]], Sequence[EncodedFace]]
) -> Iterator[EncodedPhoto]:
    """Encode photos with another package, one decoded photo at a time.

    Args:
        photos: any sources that `open_photo` accepts.
        faces_in: returns the faces of an image, RGB uint8 (height, width, 3). An exception is
            recorded as the failure of that photo, and the evaluation continues.
    """
    for photo in photos:
        try:
            opened = open_photo(photo)
        except PhotoError as error:
            yield EncodedPhoto(failure=str(error))
            continue
        size = opened.width, opened.height
        try:
            with quiet():
                faces = tuple(faces_in(opened.image))
        except Exception as error:  # another package may raise anything
            failure = f"{opened.name}: {described(error)}"
            log.warning("%s", failure)
            yield EncodedPhoto((), *size, failure)
            continue
        yield EncodedPhoto(faces, *size)


def unit_rows(name: str, embeddings: NDArray[np.generic] | Sequence[object]) -> NDArray[np.float32]:
    """Normalise embeddings of another package.

    Args:
        name: name of the encoder, for the error message.
        embeddings: (n, d) of any dtype.

    Returns:
        float32 (n, d), each of unit length.

    Raises:
        ModelError: an embedding has zero or infinite length.
    """
    rows = np.atleast_2d(np.asarray(embeddings, np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelError(f"{name} gave an embedding of zero or infinite length")
    unit: NDArray[np.float32] = (rows / lengths).astype(np.float32)
    return unit


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what other packages print to standard output, which is reserved for JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def described(error: Exception) -> str:
    """Describe an exception of another package, with its cause, on one line."""
    message = " ".join(str(error).split())
    description = f"{type(error).__name__}: {message}" if message else type(error).__name__
    cause = error.__cause__
    if not isinstance(cause, Exception) or (str(cause) and str(cause) in str(error)):
        return description
    return f"{description} ({described(cause)})"
