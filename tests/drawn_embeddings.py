"""Draws embeddings of people of several groups, whose true similarities are known."""

from __future__ import annotations

import numpy as np

from face2vec.calibration import Calibration, fit
from face2vec.crowding import Crowding

DIMENSION = 64
# Groups of people whose embeddings share a direction: the more, the nearer strangers come.
SHARED = (0.2, 0.45, 0.65)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def drawn(
    people: int, photos: int, shared: float, axis: int, seed: int, decay: float = 0.0
) -> np.ndarray:
    """Faces (people, photos, d) of a group around one axis, with a known density.

    The standard deviation of what people do not share falls by this power of the dimension.
    """
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((people, 1, DIMENSION)) * np.arange(DIMENSION + 3, 3, -1.0) ** -decay
    own = np.sqrt(1 - shared) * own / np.linalg.norm(own, axis=-1, keepdims=True)
    own[..., axis] += np.sqrt(shared)
    noise = rng.standard_normal((people, photos, DIMENSION)) * 0.35 / np.sqrt(DIMENSION)
    return unit(own + noise)


def strangers(faces: np.ndarray) -> np.ndarray:
    """Similarities of all pairs of different people, given one face each."""
    return (faces @ faces.T)[np.triu_indices(len(faces), 1)]


def calibrated(crowding: Crowding | None, decay: float = 0.0) -> Calibration:
    """A calibration on the first group only, as on the photos of one part of mankind."""
    faces = drawn(1500, 2, SHARED[0], 0, 9, decay)
    crowded = np.zeros(3000)
    if crowding is not None:
        crowding = crowding.with_average(faces.reshape(-1, DIMENSION))
        crowded = crowding(faces.reshape(-1, DIMENSION))
    first, second = crowded.reshape(-1, 2).T
    genuine = np.sum(faces[:, 0] * faces[:, 1], axis=1) - (first + second) / 2
    rows, columns = np.triu_indices(1500, 1)
    impostor = strangers(faces[:, 0]) - (first[rows] + first[columns]) / 2
    return fit(
        genuine.astype(np.float32), np.sort(impostor.astype(np.float32))[::-1],
        model="drawn", weights="ab" * 32, data="one group", people=1500, crowding=crowding,
    )  # fmt: skip
