"""Yaw and mouth width, compared with heads rotated in space."""

from __future__ import annotations

import numpy as np
import pytest

from face2vec.lab.pose import mouth_width, yaw

# Millimetres: x to the viewer's right, y down, z towards the viewer; nose of the assumed depth.
HEAD = np.array([(-31.5, 0, 0), (31.5, 0, 0), (0, 38, 31.5), (-25, 66, 5), (25, 66, 5)], float)


def seen(degrees: float, roll: float = 0.0, scale: float = 2.0) -> np.ndarray:
    """Landmarks of the head after a yaw and then a roll, seen from far away."""
    side, plane = np.radians([degrees, roll])
    turned = HEAD @ np.array(
        [[np.cos(side), 0, -np.sin(side)], [0, 1, 0], [np.sin(side), 0, np.cos(side)]]
    )
    flat = turned[:, :2] @ np.array(
        [[np.cos(plane), np.sin(plane)], [-np.sin(plane), np.cos(plane)]]
    )
    return scale * flat + 100


@pytest.mark.parametrize("degrees", [-50, -20, 0, 12, 45])
@pytest.mark.parametrize("roll", [0, 33])
def test_yaw_equals_the_rotation_of_the_head(degrees: float, roll: float) -> None:
    assert yaw(seen(degrees, roll)[None]) == pytest.approx([abs(degrees)], abs=1e-6)


def test_mouth_width_is_in_eye_distances() -> None:
    assert mouth_width(seen(0)[None]) == pytest.approx([50 / 63])
    assert mouth_width(seen(0, 40, 7.0)[None]) == pytest.approx([50 / 63])
