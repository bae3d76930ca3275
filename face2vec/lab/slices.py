"""Rates of slices, which are subsets of the photos, compared with all photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.lab.rates import Counts, Draws, Embeddings, Numbers, Rate, counted

FEWEST_PEOPLE, FEWEST_PAIRS = 10, 30
"""Least number of people and of genuine pairs of a slice for a conclusion."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Rates of one slice.

    Attributes:
        attribute: attribute by which the photos are divided.
        value: value of the attribute in this slice.
        photos: number of photos in the slice.
        people: number of people with a genuine pair in the slice.
        pairs: number of genuine pairs with a photo of the slice.
        tar: share of these genuine pairs that are accepted.
        recall: share of the slice's photos whose most similar photo shows the same person.
        far: share of impostor pairs within the slice that are accepted.
        stated: share of impostor pairs within the slice that the calibration accepts at the FAR,
            divided by the FAR; 1 is right. None without a calibration.
        weak: whether the slice is significantly worse than all photos: the interval of its TAR is
            entirely below the TAR of all photos, or that of its FAR entirely above the set FAR.
        small: whether the slice is too small for a conclusion.
    """

    attribute: str
    value: str
    photos: int
    people: int
    pairs: int
    tar: Rate
    recall: Rate
    far: Rate
    stated: Rate | None
    weak: bool
    small: bool

    @property
    def remark(self) -> str:
        """A short remark for tables, or an empty text."""
        return "too small" if self.small else "weak" if self.weak else ""

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "attribute": self.attribute,
            "value": self.value,
            "photos": self.photos,
            "people": self.people,
            "genuine_pairs": self.pairs,
            "tar": self.tar.figures(),
            "recall_at_1": self.recall.figures(),
            "far": self.far.figures(),
            "far_over_stated": None if self.stated is None else self.stated.figures(),
            "weak": self.weak,
            "too_small": self.small,
        }


def sliced(
    embeddings: Embeddings,
    people: Numbers,
    threshold: float,
    far: float,
    slices: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    draws: Draws,
    calibration: Calibration | None = None,
) -> tuple[Slice, ...]:
    """Compare the photos of each slice with all photos, at one threshold.

    Args:
        embeddings: float32 (n, d), each of unit length; a row of NaN for a photo without a face.
        people: int64 (n,), the person of each photo, 0…people − 1.
        threshold: lowest accepted similarity, equal for all slices.
        far: FAR of all photos at the threshold.
        slices: for each attribute, its values and the photos, bool (n,), that have them; values
            without photos are left out.
        draws: bootstrap draws of the people.
        calibration: whose stated FAR is compared with the counted one.
    """
    everybody = draws.tar(counted(embeddings, embeddings, people, threshold)).value
    found = []
    for attribute, values in slices.items():
        for value, some in values.items():
            if not some.any():
                continue
            counts = counted(embeddings, embeddings, people, threshold, some)
            within = counted(embeddings, embeddings, people, threshold, some, some)
            stated = None
            if calibration is not None:
                one, other = _adjusted(embeddings, calibration)
                bar = calibration.threshold(far)
                rate = draws.far(counted(one, other, people, bar, some, some))
                stated = Rate(*(value / far for value in rate))
            found.append(_slice(attribute, value, counts, within, draws, everybody, far, stated))
    return tuple(found)


def _adjusted(embeddings: Embeddings, calibration: Calibration) -> tuple[Embeddings, Embeddings]:
    """Rows whose products are the similarities less the mean crowding of both faces."""
    half = (calibration.crowded(embeddings) / -2).astype(np.float32)[:, None]
    ones = np.ones_like(half)
    return np.hstack([embeddings, half, ones]), np.hstack([embeddings, ones, half])


def _slice(
    attribute: str,
    value: str,
    counts: Counts,
    within: Counts,
    draws: Draws,
    everybody: float,
    far: float,
    stated: Rate | None,
) -> Slice:
    tar, among = draws.tar(counts), draws.far(within)
    pairs = int(counts.genuine.sum())
    small = counts.people < FEWEST_PEOPLE or pairs < FEWEST_PAIRS
    return Slice(
        attribute,
        value,
        int(counts.queries.sum()) + counts.missed,
        counts.people,
        pairs,
        tar,
        draws.recall(counts),
        among,
        stated,
        weak=not small and (tar.high < everybody or among.low > far),
        small=small,
    )
