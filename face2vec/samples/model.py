"""The statistical face model: converts coefficients to the texture and shape of a face.

``training/sample_faces.py`` makes ``faces.npz``. A face is a mean plus joint principal components
of texture and shape: a crop of 112 × 112 pixels in the frame of the mean face, and a flow that maps
points of the mean face to this face. Coefficients have a standard deviation of one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # large arrays are float32
Pixels = NDArray[np.uint8]

SIDE, SMALL = 112, 28
CENTRE, RADII = (55.5, 66.0), (50.0, 58.0)  # the mask, as in training/sample_faces.py
CHROMA_WEIGHT, FLOW_WEIGHT = 3.0, 24.0  # as in training/sample_faces.py
ORIGINS = 5
DISTINCT = 0.75  # how strongly sex, age and origin are imposed; 1 matches the labels exactly
BLUE, RED = (-26.0, -7.0), (9.0, 26.0)  # range of the chroma of skin in ordinary light
EVEN = 0.5  # share of the variation of light over the face that the surrounding skin keeps
# Left eye, right eye, nose, left and right mouth corner of the mean face in pixels of the crop: the
# template of the training faces, adjusted to the positions that MTCNN finds in the drawn mean.
LANDMARKS = np.array(
    [(36.0, 50.7), (74.8, 50.7), (55.5, 74.1), (37.8, 90.2), (73.5, 90.2)], np.float32
)


@dataclass(frozen=True)
class Appearance:
    """Texture and shape of a face, without the head.

    Attributes:
        texture: float32 (112, 112, 3), RGB 0…255 in the frame of the mean face; zero far outside.
        flow: float32 (2, 28, 28), displacement of points of the mean face, right and down, in
            pixels of the crop.
        skin: float32 (28, 28, 3), RGB, the texture smoothed and extrapolated to the whole crop.
    """

    texture: Floats
    flow: Floats
    skin: Floats


@dataclass(frozen=True)
class FaceModel:
    """The arrays of ``faces.npz``, for k coefficients and d values per face.

    Attributes:
        mean: float32 (d,), the mean face.
        components: float32 (k, d), the principal components.
        tells: float32 (1 + k, 6), a linear map from a constant 1 and the coefficients to sex, age
            and origins.
        untold: float32 (k, 6), the smallest change of coefficients that changes each of these.
        changes: float32 (c, k), directions in which the photos of one person vary.
        rest: float32 (k,), standard deviation of the remaining variation of these photos.
    """

    mean: Floats
    components: Floats
    tells: Floats
    untold: Floats
    changes: Floats
    rest: Floats

    def person(
        self, female: bool, age: float, origin: int, spread: float, rng: np.random.Generator
    ) -> Floats:
        """Draw the coefficients of a random person.

        Args:
            female: whether the person is female.
            age: age in years.
            origin: origin, 0…4.
            spread: standard deviation of the coefficients.
            rng: random generator.

        Returns:
            float32 (k,).
        """
        drawn = spread * np.clip(rng.standard_normal(len(self.rest)), -2.2, 2.2)
        wanted = [float(female), np.clip((age - 40) / 20, -1.2, 1.2)]
        wanted += [float(origin == other) for other in range(1, ORIGINS)]
        missing = DISTINCT * (wanted - self.tells[0]) - drawn @ self.tells[1:]
        drawn += self.untold @ missing
        return drawn.astype(np.float32)

    def change(self, amount: float, rng: np.random.Generator) -> Floats:
        """Draw the random variation of one photo of a person: expression, light and age.

        Args:
            amount: strength of the variation.
            rng: random generator.

        Returns:
            float32 (k,), to be added to the coefficients.
        """
        ways = np.clip(rng.standard_normal(len(self.changes)), -2, 2) @ self.changes
        rest = self.rest * np.clip(rng.standard_normal(len(self.rest)), -2, 2)
        return (amount * (ways + rest)).astype(np.float32)

    def appearance(self, coefficients: Floats) -> Appearance:
        """Compute texture and shape of a face.

        Args:
            coefficients: float32 (k,), the coefficients of the face.
        """
        inside, coarse, cells, smooth, norm = _geometry()
        # Not a matrix product, whose threads cost time and whose rounding depends on the machine.
        values = self.mean + np.einsum("k,kd->d", coefficients, self.components)
        luma, blue, red, right, down = np.split(
            values, np.cumsum([inside.sum(), coarse.sum(), coarse.sum(), coarse.sum()])
        )
        texture = np.zeros((SIDE, SIDE, 3), np.float32)
        # A blue or green cast comes from the light of training photos and is removed.
        for plane, (least, most) in ((blue, BLUE), (red, RED)):
            cast = np.median(plane) / CHROMA_WEIGHT
            plane += CHROMA_WEIGHT * (np.clip(cast, least, most) - cast)
        planes = np.zeros((2, SMALL, SMALL), np.float32)
        planes[0, coarse], planes[1, coarse] = blue / CHROMA_WEIGHT, red / CHROMA_WEIGHT
        blue, red = (cells @ plane @ cells.T for plane in planes)
        y = np.zeros((SIDE, SIDE), np.float32)
        y[inside] = luma
        # The inverse of the conversion to luma and chroma in ITU-T T.871.
        texture[..., 0] = y + red / 0.713
        texture[..., 2] = y + blue / 0.564
        texture[..., 1] = (y - 0.299 * texture[..., 0] - 0.114 * texture[..., 2]) / 0.587
        texture *= inside[..., None]
        flow = np.zeros((2, SMALL, SMALL), np.float32)
        # The training stores the vertical component first.
        flow[1, coarse], flow[0, coarse] = right / FLOW_WEIGHT, down / FLOW_WEIGHT
        means = texture.reshape(SMALL, 4, SMALL, 4, 3).mean((1, 3)) * _cheeks()[..., None]
        skin = np.einsum("yi,ijc,xj->yxc", smooth, means, smooth, optimize=True) / norm[..., None]
        tone = skin[9:19, 7:21].mean((0, 1))
        return Appearance(texture, flow, (tone + EVEN * (skin - tone)).astype(np.float32))


@functools.cache
def face_model() -> FaceModel:
    """The model of the package, loaded once."""
    with np.load(Path(__file__).parent / "faces.npz", allow_pickle=False) as file:
        steps = file["steps"][:, None]
        rest = {
            name: file[name].astype(np.float32) for name in ("mean", "tells", "changes", "rest")
        }
        components = file["components"].astype(np.float32) * steps
    return FaceModel(components=components, untold=np.linalg.pinv(rest["tells"][1:].T), **rest)


def _ellipse() -> Floats:
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot((x - CENTRE[0]) / RADII[0], (y - CENTRE[1]) / RADII[1])
    out: Floats = np.clip((1.06 - radius) / 0.12, 0, 1).astype(np.float32)
    return out


def _quarter(planes: Floats) -> Floats:
    out: Floats = planes.reshape(SMALL, 4, SMALL, 4).mean((1, 3))
    return out


def _cheeks() -> Floats:
    """Weights (28, 28) of skin, low at the eyes, brows, mouth and the rim."""
    y, x = np.mgrid[:SMALL, :SMALL] * 4 + 1.5
    radius = np.hypot((x - CENTRE[0]) / 38, (y - 64) / 46)
    weight: Floats = (radius < 1).astype(np.float32)
    weight[(y > 36) & (y < 60)] *= 0.15
    weight[(y > 80) & (y < 102) & (np.abs(x - 55.5) < 24)] *= 0.1
    return weight


@functools.cache
def _geometry() -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats, Floats, Floats]:
    """Masks of pixels and of cells, interpolation from cells to pixels, smoothing, and its sums."""
    mask = _ellipse()
    at = np.clip((np.arange(SIDE) + 0.5) / 4 - 0.5, 0, SMALL - 1)
    low = np.minimum(at.astype(int), SMALL - 2)
    cells = np.zeros((SIDE, SMALL), np.float32)
    cells[np.arange(SIDE), low] = 1 - (at - low)
    cells[np.arange(SIDE), low + 1] = at - low
    i = np.arange(SMALL)
    smooth = np.exp(-(((i[:, None] - i) / 3.5) ** 2) / 2).astype(np.float32)
    return mask > 0, _quarter(mask) > 0, cells, smooth, smooth @ _cheeks() @ smooth.T
