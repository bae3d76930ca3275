"""Estimates the yaw of a face and the width of its mouth from the five landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOSE_DEPTH = 0.5
"""Distance of the tip of the nose from the plane of the eyes, in distances between the pupils.

In adults it is about 33 mm to 63 mm. People differ by a third, and so do angles computed from it.
"""

Floats = NDArray[np.float64]


def yaw(landmarks: Floats) -> Floats:
    """Estimate the yaw of faces.

    Let the eyes be at ±a and the nose at depth d. After a rotation by θ, seen from far away, the
    eyes are 2 a cos θ apart and the nose is d sin θ from their midpoint. Hence
    tan θ = offset / (d / 2a), with the offset in units of the visible eye distance.

    Args:
        landmarks: float64 (n, 5, 2), as in `face2vec.Face`.

    Returns:
        float64 (n,), absolute angles in degrees, 0…90.
    """
    left, right, nose = (np.asarray(landmarks, np.float64)[:, place] for place in range(3))
    along = right - left
    apart = np.maximum(np.sum(along**2, axis=1), 1e-12)
    offset = np.sum((nose - (left + right) / 2) * along, axis=1) / apart
    return np.asarray(np.degrees(np.arctan(np.abs(offset) / NOSE_DEPTH)))


def mouth_width(landmarks: Floats) -> Floats:
    """Distance between the mouth corners divided by the eye distance; a smile increases it.

    Args:
        landmarks: float64 (n, 5, 2), as in `face2vec.Face`.

    Returns:
        float64 (n,).
    """
    points = np.asarray(landmarks, np.float64)
    eyes = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    mouth = np.linalg.norm(points[:, 4] - points[:, 3], axis=1)
    return np.asarray(mouth / np.maximum(eyes, 1e-6))
