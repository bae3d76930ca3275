"""Landmarks as vectors: how a face is turned, and where in the photo it is.

Two faces whose landmarks have the same arrangement are turned the same way, whoever they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face2vec.errors import SettingsError

By = Literal["pose", "framing"]
CHOICES: tuple[By, ...] = ("pose", "framing")


def pose_vectors(landmarks: ArrayLike, sizes: ArrayLike, by: By = "pose") -> NDArray[np.float64]:
    """Landmarks as vectors that can be compared.

    Args:
        landmarks: float (n, 5, 2): left eye, right eye, nose, left and right mouth corner as the
            viewer sees them, in pixels of the photos.
        sizes: (n, 2), width and height of the photos in pixels.
        by: ``"pose"``: relative to their centroid, divided by their root mean square distance
            from it, so that only the turn of the face counts and not its place or size;
            ``"framing"``: fractions of the photo's width and height.

    Returns:
        float64 (n, 10).

    Raises:
        SettingsError: there is no such ``by``.
    """
    points = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    if by == "framing":
        points /= np.asarray(sizes, np.float64).reshape(-1, 1, 2)
        return points.reshape(-1, 10)
    if by != "pose":
        raise SettingsError(f"by must be one of {', '.join(CHOICES)}, not {by!r}")
    centred = points - points.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=2).mean(axis=1))
    return np.asarray((centred / np.maximum(spread, 1e-9)[:, None, None]).reshape(-1, 10))


GENERIC_HEAD = np.array(
    [(-0.5, -0.42, -0.18), (0.5, -0.42, -0.18), (0.0, 0.06, 0.28),
     (-0.38, 0.39, -0.12), (0.38, 0.39, -0.12)]
)  # fmt: skip
"""The landmarks in space, in distances between the eyes: right, down, towards the viewer."""


def head_angles(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Yaw, pitch and roll of heads in degrees, from five landmarks.

    The landmarks of a generic head are mapped to those of the face by the affine camera with the
    least squared error; its rows, made orthogonal, are two axes of the head (DeMenthon and Davis,
    Model-based object pose in 25 lines of code, 1995, section 3, without their iteration). Good to
    about ten degrees, up to a yaw of 60.

    Args:
        landmarks: float (n, 5, 2): left eye, right eye, nose, left and right mouth corner as the
            viewer sees them.

    Returns:
        float64 (n, 3): yaw, positive if turned to the viewer's right; pitch, positive if raised;
        roll, positive if turned clockwise.
    """
    points = np.array(landmarks, np.float64).reshape(-1, 5, 2)
    head = GENERIC_HEAD - GENERIC_HEAD.mean(axis=0)
    camera = np.swapaxes(points - points.mean(axis=1, keepdims=True), 1, 2) @ np.linalg.pinv(head).T
    # The nearest pair of orthonormal rows (the polar factor).
    left, _, right = np.linalg.svd(camera, full_matrices=False)
    across, down = np.swapaxes(left @ right, 0, 1)
    towards = np.cross(across, down)
    yaw = np.arctan2(-towards[:, 0], towards[:, 2])
    pitch = np.arcsin(np.clip(towards[:, 1], -1, 1))
    roll = np.arctan2(-across[:, 1], down[:, 1])
    angles: NDArray[np.float64] = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    return angles


def pose_distances(query: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance between the landmarks of one face and others.

    By pose, 1 is the root mean square distance of the landmarks from their centroid. By framing, 1
    is the side of the photo.

    Args:
        query: float64 (10,), see `pose_vectors`.
        others: float64 (n, 10).

    Returns:
        float64 (n,), at least 0.
    """
    apart = (others - query).reshape(-1, 5, 2)
    return np.asarray(np.sqrt((apart**2).sum(axis=2).mean(axis=1)))
