"""What an encoder has to be for an evaluation: photos in, faces with embeddings out."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError, PhotoError
from face2vec.photos.decode import PhotoLike, open_photo
from face2vec.types import Box, nearest_to

log = logging.getLogger("face2vec")


class EncodedFace(NamedTuple):
    """One face of a photo."""

    box: Box
    """In pixels of the upright photo."""
    embedding: NDArray[np.float32]
    """float32 (d,) of unit length."""


class EncodedPhoto(NamedTuple):
    """What an encoder made of one photo."""

    faces: tuple[EncodedFace, ...] = ()
    width: int = 0
    """Of the upright photo in pixels; 0 if it could not be read."""
    height: int = 0
    failure: str = ""
    """Why there are no faces, where the reason is not that none was found."""

    @property
    def centre_face(self) -> EncodedFace | None:
        """The face nearest the middle: whose name a photo has in LFW and CelebA."""
        return nearest_to(self.faces, self.width / 2, self.height / 2)


class PhotoEncoder(Protocol):
    """Photos to faces with embeddings, as the users of this encoder have it done.

    That is with its own detector, its own crop and its own standardisation. Only the decoding of
    photos is face2vec's for all of them.
    """

    name: str
    """What it is called on the command line."""
    dimension: int
    """Numbers in an embedding."""
    crop_size: tuple[int, int]
    """(height, width) in pixels of what goes into its network."""
    weights: str
    """SHA-256 in hexadecimal of the network's weights."""
    weights_bytes: int
    """Their size on disk."""
    runs_on: str
    """Runtime and precision, in words."""

    def encode(self, photos: Iterable[PhotoLike]) -> Iterator[EncodedPhoto]:
        """One `EncodedPhoto` a photo, in order. Photos are taken as they are needed."""
        ...

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network alone, with its standardisation, in one batch.

        Args:
            crops: RGB uint8 (n, height, width, 3) of `crop_size`.

        Returns:
            float32 (n, d), each of unit length.
        """
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


def one_by_one(
    photos: Iterable[PhotoLike], faces_in: Callable[[NDArray[np.uint8]], Sequence[EncodedFace]]
) -> Iterator[EncodedPhoto]:
    """Encode photos with another package, which takes one decoded photo at a time.

    Args:
        photos: anything that `open_photo` takes.
        faces_in: gives the faces of an RGB uint8 (height, width, 3) array. What it raises is a
            failure on that photo, and the evaluation goes on.
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
        except Exception as error:  # of a foreign package: it may be any
            failure = f"{opened.name}: {described(error)}"
            log.warning("%s", failure)
            yield EncodedPhoto((), *size, failure)
            continue
        yield EncodedPhoto(faces, *size)


def unit_rows(name: str, embeddings: NDArray[np.generic] | Sequence[object]) -> NDArray[np.float32]:
    """Embeddings of another package in this project's form.

    Args:
        name: of the encoder, for the error message.
        embeddings: (n, d) of any dtype.

    Returns:
        float32 (n, d) of unit length.

    Raises:
        ModelError: one has no length, or an infinite one.
    """
    rows = np.atleast_2d(np.asarray(embeddings, np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ModelError(f"{name} gave an embedding of no or infinite length")
    unit: NDArray[np.float32] = (rows / lengths).astype(np.float32)
    return unit


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep standard output for JSON: other packages print bars and hints there."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def described(error: Exception) -> str:
    """A foreign exception in one line, with the one behind it."""
    words = " ".join(str(error).split())
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    cause = error.__cause__
    if not isinstance(cause, Exception) or (str(cause) and str(cause) in str(error)):
        return said
    return f"{said} ({described(cause)})"
