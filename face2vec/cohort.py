"""What the faces of a gallery say about strangers and about photos of one person, without labels.

Nearly all pairs of faces in a gallery show different people, and these people are of the origin and
age, and seen by the cameras, of the user's own photos. So the gallery is a cohort, as in score
normalisation (Auckenthaler et al., Score normalization for text-independent speaker verification
systems, 2000): a face is compared with many faces of other people, to see how similar strangers
are to it. They are only kept in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.products import product

LOOKED_AT = 1500
"""Faces of a gallery that are drawn at random to form a cohort."""
MOST = 1000
PER_LOOK_ALIKE = 5
"""Most faces of the cohort that may look like one person."""
FEWEST_PEOPLE, ENOUGH_PEOPLE = 10, 20
"""Effective numbers of people: a cohort of fewer says nothing, one of enough counts in full, and
one between them in part, so that a few photos more do not change all answers."""
LOWER = 0.1, 0.5
"""Quantiles between which the similarities are looked at before it is known which faces look like
one person: even in a family of two, half of all pairs are strangers."""
MOST_ABOVE = 0.2
"""By how much strangers may be more alike than expected, before they are taken for one person.

Among children under 5, with the model that tells them apart worst, it is 0.2; among photos of one
person about 0.4."""
NEAR = 5, 30
"""Of the faces of a cohort, the most similar ones that are looked at: the sixth to the thirtieth.

The first five may show the same person."""
SCATTER = 0.02
"""By how much the mean of these may be above the expected by chance."""
WEIGHT = 0.5
"""How much of what they are above that counts."""
ROWS = 1024  # faces that are compared with the cohort together
ROUNDS = 100
FEWEST_MATES = 0.02
"""Least number of mates: among fifty faces, there is one second photo of somebody."""
ODDS_OF_A_COPY = 5.0
"""Least odds of the highest likelihood ratio: a copy of a photo shows the same person."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Faces of many people of a gallery, and what a calibration expects of them.

    Attributes:
        faces: float32 (m, d), few of each person.
        crowding: their mean crowding by the calibration alone.
        expected: mean adjusted similarity that the calibration expects among strangers.
        expected_near: by how much it expects the similarities of ``NEAR`` to be above the mean.
        weight: how much it counts, above 0 and up to 1.
        shift: what the highest similarities of strangers add to the crowding of each face, or take
            from it; see `Tail`.
        harder: by how much less similar photos of one person are than the calibration expects.
    """

    faces: NDArray[np.float32]
    crowding: float
    expected: float
    expected_near: float
    weight: float = 1.0
    shift: float = 0.0
    harder: float = 0.0

    @cached_property
    def _mean(self) -> NDArray[np.float32]:
        return np.asarray(self.faces.mean(axis=0))

    def above(
        self, embeddings: NDArray[np.float32], crowding: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """By how much strangers are more similar to faces than the calibration expects.

        All of the gallery may be, and those who are like a face may be so by more than all are.
        What both say is corrected by the shift.

        Args:
            embeddings: float32 (d,) or (m, d).
            crowding: float64 () or (m,), the crowding of each by the calibration alone.

        Returns:
            float64 () or (m,), in units of similarity, 0 or more: a gallery of people who are
            unlike each other does not show that strangers of one kind are.
        """
        mean = np.vecdot(embeddings, self._mean)
        all_of_them = mean - (crowding + self.crowding) / 2 - self.expected
        near = self.nearness(np.atleast_2d(embeddings)).reshape(mean.shape) - mean
        nearer = np.maximum(near - self.expected_near - SCATTER, 0.0)
        found = np.maximum(all_of_them, 0.0) + WEIGHT * nearer + self.shift
        return np.asarray(self.weight * np.maximum(found, 0.0))

    def nearness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean similarity of the faces of the cohort that are most like a face, see `NEAR`.

        Args:
            embeddings: float32 (n, d).

        Returns:
            float64 (n,), −1…1.
        """
        first, last = near_of(len(self.faces))
        found = np.empty(len(embeddings))
        for start in range(0, len(embeddings), ROWS):
            similar = product(embeddings[start : start + ROWS], self.faces)
            similar.partition(-last, axis=1)  # with one place it takes a sixth of the time
            nearest = np.sort(similar[:, -last:], axis=1)[:, :-first]
            found[start : start + ROWS] = nearest.mean(axis=1, dtype=np.float64)
        return found


def near_of(faces: int) -> tuple[int, int]:
    """Which of the faces of a cohort are looked at: `NEAR`, or fewer of a small one.

    How alike faces of the other half are is not known well.

    Args:
        faces: of the cohort, `FEWEST_PEOPLE` or more.

    Returns:
        The place of the first one, and the one behind the last; the most similar face has 0.
    """
    first, last = NEAR
    return first, min(last, max(faces // 2, first + 1))


def _mean_between(values: NDArray[np.float32], quantiles: tuple[float, float]) -> Any:
    """Mean of what lies between two quantiles of each row."""
    low, high = (round(share * (values.shape[1] - 1)) for share in quantiles)
    between = np.partition(values, (low, high), axis=1)[:, low : high + 1]
    return between.mean(axis=1, dtype=np.float64)


def cohort_rows(
    embeddings: NDArray[np.float32],
    crowding: NDArray[np.float64],
    threshold: float,
    expected: float,
) -> tuple[NDArray[np.int64], float]:
    """Choose faces for a cohort, few of each person, and how much it counts.

    Faces that look like an earlier one are taken for the same person as that one. This is right
    often enough: nothing is decided about them.

    Args:
        embeddings: float32 (n, d), faces in random order.
        crowding: float64 (n,), the crowding of each.
        threshold: adjusted similarity from which two faces look alike, among people like those of
            the calibration.
        expected: mean of the adjusted similarities between the quantiles ``LOWER`` among them; if
            it is higher here, all strangers are more alike, and so is the threshold, by at most
            ``MOST_ABOVE``: if it is higher by more than that, these are photos of one person.

    Returns:
        The rows, int64 (m,), m ≤ ``MOST``, and a weight of 0 to 1. The weight is below 1 if the
        faces are of few people, such as one family: the similarities to a face's own photos would
        be taken for those of strangers. The number of people is the inverse of the probability that
        two faces look like one person (Simpson, Measurement of diversity, 1949).
    """
    if len(embeddings) < FEWEST_PEOPLE:
        return np.empty(0, np.int64), 0.0
    half = (crowding / 2).astype(np.float32)
    similar = embeddings @ embeddings.T - half[:, None] - half
    above = float(_mean_between(similar, LOWER).mean()) - expected
    alike = similar >= threshold + min(max(above, 0.0), MOST_ABOVE)
    first = np.full(len(embeddings), -1)
    for row in range(len(embeddings)):
        if first[row] < 0:
            first[alike[row] & (first < 0)] = row
            first[row] = row
    counts = np.bincount(first)
    people = 1 / float(((counts / counts.sum()) ** 2).sum())
    weight = (people - FEWEST_PEOPLE) / (ENOUGH_PEOPLE - FEWEST_PEOPLE)
    seen = np.zeros(len(embeddings), np.int64)
    kept = []
    for row, person in enumerate(first.tolist()):
        seen[person] += 1
        if seen[person] <= PER_LOOK_ALIKE:
            kept.append(row)
    return np.array(kept[:MOST]), min(max(weight, 0.0), 1.0)


def expected_mates(log_ratios: NDArray[np.float64], count: int, highest: float) -> float:
    """How many other photos of its person a face of a gallery has, in the mean.

    The prior probability of a match is estimated from the matches themselves, by expectation
    maximisation (Saerens et al., Adjusting the outputs of a classifier to new a priori
    probabilities, 2002, section 2.2).

    Args:
        log_ratios: float64 (n, k), logarithms of the likelihood ratios of the k nearest faces of
            each of n faces; −∞ for none.
        count: number of faces in the gallery, at least 2.
        highest: highest logarithm of a likelihood ratio of the calibration.

    Returns:
        Above 0. It is below 1 where most people have a single photo, but never so low that not
        even the highest likelihood ratio gives odds of ``ODDS_OF_A_COPY``, unless it would have
        to be above 1 for that.
    """
    least = min(max(FEWEST_MATES, ODDS_OF_A_COPY * count * np.exp(-highest)), 1.0)
    mates = 1.0
    for _ in range(ROUNDS):
        prior = min(mates / count, 0.5)
        odds = np.exp(np.minimum(log_ratios, 700.0)) * prior / (1 - prior)
        mates = max(float((odds / (1 + odds)).sum(axis=1).mean()), least)
    return mates
