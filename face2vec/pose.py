"""Where the landmarks of a face are: which way it looks, and where in the photo it is.

Two faces whose landmarks are in the same places are turned the same way, whoever they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face2vec.errors import SettingsError

By = Literal["pose", "framing"]
KINDS: tuple[By, ...] = ("pose", "framing")


def layouts(landmarks: ArrayLike, sizes: ArrayLike, by: By = "pose") -> NDArray[np.float64]:
    """Landmarks as vectors that can be compared.

    Args:
        landmarks: (n, 5, 2), left eye, right eye, nose, left and right mouth corner as the
            viewer sees them, in pixels of the photos.
        sizes: (n, 2), width and height of the photos in pixels.
        by: ``"pose"``: seen from their middle and divided by the root of their mean square
            distance from it, so that place and size of the face do not count, and its turn
            does; ``"framing"``: as fractions of the photo's width and height.

    Returns:
        float64 (n, 10).

    Raises:
        SettingsError: another ``by``.
    """
    points = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    if by == "framing":
        points /= np.asarray(sizes, np.float64).reshape(-1, 1, 2)
        return points.reshape(-1, 10)
    if by != "pose":
        raise SettingsError(f"layouts are compared by {' or '.join(KINDS)}, not by {by!r}")
    centred = points - points.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=2).mean(axis=1))
    return np.asarray((centred / np.maximum(spread, 1e-9)[:, None, None]).reshape(-1, 10))


def distances(query: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of the mean square distance between the landmarks of a layout and those of others.

    By pose 1 is as far as a landmark is, root mean square, from the middle of its face; by
    framing it is the side of the photo.

    Args:
        query: float64 (10,), a layout.
        others: float64 (n, 10), the layouts to compare with.

    Returns:
        float64 (n,).
    """
    apart = (others - query).reshape(-1, 5, 2)
    return np.asarray(np.sqrt((apart**2).sum(axis=2).mean(axis=1)))
