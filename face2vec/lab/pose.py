"""How a face is turned and how wide its mouth is, as far as five landmarks tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOSE_DEPTH = 0.5
"""How far the tip of a nose is before the plane of the eyes, in distances between the pupils.

About 33 mm to 63 mm in adults; people differ by a third, and so does an angle made of it.
"""

Floats = NDArray[np.float64]


def yaw(landmarks: Floats) -> Floats:
    """How far faces are turned to a side, roughly.

    Seen from far away, eyes ±a from the middle and a nose d before them that are turned by θ are
    seen 2 a cos θ apart and the nose d sin θ off their middle, so tan θ = offset / (d / 2a) with
    the offset in distances between the eyes as they are seen.

    Args:
        landmarks: float64 (n, 5, 2), as `face2vec.Face` has them.

    Returns:
        float64 (n,) degrees, 0…90, whichever the side.
    """
    left, right, nose = (np.asarray(landmarks, np.float64)[:, place] for place in range(3))
    along = right - left
    apart = np.maximum(np.sum(along**2, axis=1), 1e-12)
    offset = np.sum((nose - (left + right) / 2) * along, axis=1) / apart
    return np.asarray(np.degrees(np.arctan(np.abs(offset) / NOSE_DEPTH)))


def mouth_width(landmarks: Floats) -> Floats:
    """Distance between the mouth corners over that between the eyes: wider in a smile.

    Args:
        landmarks: float64 (n, 5, 2), as `face2vec.Face` has them.

    Returns:
        float64 (n,).
    """
    points = np.asarray(landmarks, np.float64)
    eyes = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    mouth = np.linalg.norm(points[:, 4] - points[:, 3], axis=1)
    return np.asarray(mouth / np.maximum(eyes, 1e-6))
