"""A second opinion on faces: whether it is an upright face, how much is covered, whether a child's.

A network of 34,000 weights looks at the face alone, cut by its landmarks. A detector's confidence
says little about what it takes for a face by mistake: half of MTCNN's false faces have 0.9 and
more. The second opinion was trained on those, on faces that lie wrongly, and on faces with masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.runtime.select import Runtime
from face2vec.types import Face

Array = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

SIDE = 64
AT_ONCE = 32
GREY = (128, 128, 128)
GRAPH = Path(__file__).with_name("opinion.onnx")
TEMPLATE = np.array(
    [(0.31556875, 0.46157411), (0.68262292, 0.46157411), (0.50026250, 0.64050536),
     (0.34947187, 0.82469192), (0.65343645, 0.82469192)]
)  # fmt: skip
"""Positions of the landmarks in the crop, as fractions of its side."""


class Opinion(NamedTuple):
    """The second opinion on one face."""

    face: float
    """Probability that it is a face, upright by its landmarks, 0…1."""
    covered: float
    """Share of the face that is covered, by a mask or otherwise, 0…1."""
    child: float
    """Probability that it is the face of a child under 13, 0…1."""
    size: float
    """Pixels of the image along a side of the square that was looked at."""
    sharpness: float
    """Root mean square of the Laplacian over that of the contrast, 0 or more."""


class SecondOpinion:
    """The network. Safe to use from several threads.

    Args:
        runtime: where it runs.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._network = runtime.load(GRAPH)

    def __call__(self, image: ImageArray, faces: Sequence[Face]) -> list[Opinion]:
        """The opinion on each face of an image.

        Args:
            image: RGB uint8 (height, width, 3).
            faces: faces with landmarks in its pixels.
        """
        found: list[Opinion] = []
        for start in range(0, len(faces), AT_ONCE):
            cut = [_crop(image, face) for face in faces[start : start + AT_ONCE]]
            pixels = (np.stack([crop for crop, _ in cut]).astype(np.float32) - 127.5) / 127.5
            (logits,) = self._network.run({self._network.input_name: pixels})
            chances = sigmoid(logits)
            found += [
                Opinion(float(face), float(covered), float(child), size, _sharpness(crop))
                for (face, covered, child), (crop, size) in zip(chances, cut, strict=True)
            ]
        return found


def sigmoid(logits: Array) -> Array:
    """Probabilities of logits, float32 of any shape, 0…1 of the same shape."""
    one = np.float32(1)
    value: Array = one / (one + np.exp(-np.clip(logits, -60, 60)))
    return value


def _crop(image: ImageArray, face: Face) -> tuple[ImageArray, float]:
    """The face, and the side in pixels of the image of the square that it shows.

    The face at `SIDE` × `SIDE`, cut by the similarity transform of its landmarks.

    With points as complex numbers the transform with the least squared error is z ↦ a·z + b.
    """
    wanted = (TEMPLATE * SIDE) @ (1, 1j)
    given = (np.asarray(face.landmarks, np.float64) + 0.5) @ (1, 1j)
    from_middle = wanted - wanted.mean()
    a = np.vdot(from_middle, given - given.mean()) / np.vdot(from_middle, from_middle)
    b = given.mean() - a * wanted.mean()
    half = SIDE / 2
    shown = abs(a) * SIDE
    reach = shown * 0.75
    centre = a * complex(half, half) + b
    height, width = image.shape[:2]
    left, top = max(0, int(centre.real - reach)), max(0, int(centre.imag - reach))
    right = min(width, int(centre.real + reach) + 2)
    bottom = min(height, int(centre.imag + reach) + 2)
    if right <= left or bottom <= top:
        return np.full((SIDE, SIDE, 3), GREY[0], np.uint8), shown
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    b -= complex(left, top)
    factor = int(abs(a))
    if factor >= 2:  # bilinear sampling would skip pixels
        part, a, b = part.reduce(factor), a / factor, b / factor
    data = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
    crop = part.transform(
        (SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GREY
    )
    return np.asarray(crop), shown


def _sharpness(crop: ImageArray) -> float:
    grey = crop.astype(np.float32).mean(axis=2)
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    edges = around - 4 * inner
    return float(np.sqrt((edges**2).mean()) / max(float(inner.std()), 1.0))
