"""Measures identification: ranks in a closed set, and error rates in an open set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.evaluation.metrics import BLOCK, Scores, threshold_at

UNKNOWN_SHARE = 0.5
RANKS = (1, 5, 10, 50)


class Identification(NamedTuple):
    """Results of the identification of all probes.

    In the closed set, all people are enrolled with all their other photos. In the open set, only
    the known people are enrolled, and the others are strangers (Grother and Ngan, FRVT part 2,
    NISTIR 8271, section 3).
    """

    ranks: NDArray[np.int64]
    """Closed set, int64 (n,): rank of the right person of each probe: the number of people who are
    at least as similar, including the right one."""
    missed: int
    """Number of probes without a detected face; wrong at every rank."""
    known: Scores
    """Open set, float32 (n,): similarity of the most similar person if it is the right one, else
    −2."""
    known_missed: int
    """Number of photos of known people without a detected face."""
    strangers: Scores
    """Open set, float32 (n,): highest similarity of each stranger to an enrolled person, highest
    first."""

    @property
    def asked(self) -> int:
        """Number of probes: photos whose person has another photo."""
        return len(self.ranks) + self.missed

    def within(self, rank: int) -> float:
        """Share of probes whose person is among the ``rank`` most similar people (the CMC)."""
        return float((self.ranks <= rank).sum() / self.asked) if self.asked else float("nan")

    def false_negatives(self, false_positive_rate: float) -> tuple[float, float]:
        """Threshold and FNIR at a false positive identification rate.

        FNIR is the share of photos of known people whose person is not the most similar one, or
        is below the threshold.
        """
        asked = len(self.known) + self.known_missed
        if not asked or not len(self.strangers):
            return float("nan"), float("nan")
        threshold = threshold_at(self.strangers, false_positive_rate)
        return threshold, 1 - float((self.known >= threshold).sum() / asked)


def identify(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    photos: NDArray[np.int64],
    seed: int = 0,
) -> Identification:
    """Identify every face with all others enrolled, and again with half of the people unknown.

    Args:
        embeddings: float32 (n, d), each of unit length.
        people: int64 (n,), the person of each face, 0…people − 1.
        photos: int64 (people,), number of photos of each person, including those without a face.
        seed: seed of the choice of the unknown people.
    """
    order = np.argsort(people, kind="stable")
    embeddings, people = embeddings[order], people[order]
    whole = _nearest_people(embeddings, people, embeddings, people, themselves=True)
    asked = photos[people] > 1
    # A person whose other photos have no face cannot be identified at any rank.
    ranks = np.where(whole.own > -2, whole.better + 1, len(photos) + 1)[asked]
    faces = np.bincount(people, minlength=len(photos))
    missed = int((photos - faces)[photos > 1].sum())

    unknown = np.zeros(len(photos), bool)
    shuffled = np.random.default_rng(seed).permutation(len(photos))
    unknown[shuffled[: round(UNKNOWN_SHARE * len(photos))]] = True
    enrolled = ~unknown[people]
    known_people = people[enrolled]
    gallery = embeddings[enrolled]
    known = _nearest_people(gallery, known_people, gallery, known_people, themselves=True)
    mated = photos[known_people] > 1
    right = (known.better == 0) & (known.own > -2)
    known_scores = np.where(right, known.own, np.float32(-2))[mated]
    strangers = _nearest_people(embeddings[~enrolled], people[~enrolled], gallery, known_people)
    known_missed = int((photos - faces)[(photos > 1) & ~unknown].sum())
    return Identification(ranks, missed, known_scores, known_missed, np.sort(strangers.best)[::-1])


class _Nearest(NamedTuple):
    own: Scores
    """Highest similarity to another photo of the same person; −2 if there is none."""
    better: NDArray[np.int64]
    """Number of other people who are at least as similar."""
    best: Scores
    """Highest similarity to any person."""


def _nearest_people(
    queries: NDArray[np.float32],
    asked: NDArray[np.int64],
    enrolled: NDArray[np.float32],
    people: NDArray[np.int64],
    *,
    themselves: bool = False,
) -> _Nearest:
    """Compare each query with each enrolled person.

    Args:
        queries: float32 (q, d).
        asked: int64 (q,), the person of each query.
        enrolled: float32 (n, d), sorted by person.
        people: int64 (n,), the person of each enrolled face, increasing.
        themselves: whether the queries are the enrolled faces; none is compared with itself.
    """
    if not len(enrolled) or not len(queries):
        nothing = np.full(len(queries), -2, np.float32)
        return _Nearest(nothing, np.zeros(len(queries), np.int64), nothing)
    named, starts = np.unique(people, return_index=True)
    own, better, best = [], [], []
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        similar = queries[rows] @ enrolled.T
        if themselves:
            places = np.arange(len(similar))
            similar[places, start + places] = -2
        of_person = np.maximum.reduceat(similar, starts, axis=1)
        best.append(of_person.max(axis=1))
        column = np.searchsorted(named, asked[rows])
        column_or_last = np.minimum(column, len(named) - 1)
        is_enrolled = (column < len(named)) & (named[column_or_last] == asked[rows])
        to_own = np.where(is_enrolled, of_person[np.arange(len(similar)), column_or_last], -2)
        own.append(to_own)
        better.append((of_person >= to_own[:, None]).sum(axis=1) - is_enrolled)
    return _Nearest(
        np.concatenate(own).astype(np.float32),
        np.concatenate(better).astype(np.int64),
        np.concatenate(best),
    )
