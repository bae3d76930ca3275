"""Small things that tests of several modules need."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import pytest


def needs(extra: str, *packages: str) -> None:
    """Skip what an extra's packages are not there for, and say so."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'face2vec[{extra}]'")


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)
