"""Who somebody is, out of those who have a name, or that it is nobody of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.types import Person

UNKNOWN = 0.5
"""How likely it is, before looking, that somebody is none of the people with names."""


def probabilities(
    queries: NDArray[np.float32],
    known: NDArray[np.float32],
    whose: NDArray[np.int64],
    calibration: Calibration,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How likely each query is each of the people, by Bayes' rule.

    A query is nobody known, or the same person as one of the faces of one person, each face and
    each person as likely before looking. So what counts for a person is the mean over their
    faces of how much more often such a similarity comes between photos of one person than of
    two: one good photo is enough, and many faces are no advantage by themselves.

    Args:
        queries: embeddings float32 (n, d).
        known: embeddings float32 (m, d) of faces of people with names, m ≥ 1.
        whose: int64 (m,), the person of each.
        calibration: what a similarity says.

    Returns:
        People int64 (p,), and float64 (n, p); what is missing to 1 is for nobody known.
    """
    people, place, counts = np.unique(whose, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    cosines = (queries @ known[order].T).astype(np.float64)
    logs = calibration.log_odds(cosines)  # with even odds: the logarithm of the ratio
    highest = logs.max(axis=1, initial=0.0, keepdims=True)
    ratios = np.add.reduceat(np.exp(logs - highest), starts, axis=1) / counts
    weights = (1 - UNKNOWN) / len(people) * ratios
    nobody = UNKNOWN * np.exp(-highest)
    return people, weights / (weights.sum(axis=1, keepdims=True) + nobody)


def ranked(
    people: Sequence[Person], shares: NDArray[np.float64], most: int
) -> list[tuple[Person, float]]:
    """The likeliest people of one query, the likeliest first."""
    best = np.argsort(-shares, kind="stable")[:most]
    return [(people[i], float(shares[i])) for i in best.tolist()]
