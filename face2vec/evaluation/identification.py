"""Who is it? Ranks among the enrolled, and how often somebody unknown is taken for one of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.evaluation.metrics import BLOCK, Scores, threshold_at

UNKNOWN_SHARE = 0.5
RANKS = (1, 5, 10, 50)


class Identification(NamedTuple):
    """What became of each photo that was asked about.

    In the closed set everyone is enrolled with all their other photos; in the open set only
    the known people are, and the others are strangers (Grother and Ngan, FRVT part 2,
    NISTIR 8271, section 3).
    """

    ranks: NDArray[np.int64]
    """Closed set, int64 (n,): how many people were as similar as the right one or more, itself
    included."""
    missed: int
    """Photos asked about in which no face was found; wrong at every rank."""
    known: Scores
    """Open set, float32 (n,): similarity of the most similar person where it is the right one,
    else −2."""
    known_missed: int
    """Photos of known people without a face."""
    strangers: Scores
    """Open set, float32 (n,): highest similarity of each stranger to anyone enrolled, highest
    first."""

    @property
    def asked(self) -> int:
        """Photos whose person has another one."""
        return len(self.ranks) + self.missed

    def within(self, rank: int) -> float:
        """Share of those asked whose person is among so many most similar people: the CMC."""
        return float((self.ranks <= rank).sum() / self.asked) if self.asked else float("nan")

    def false_negatives(self, false_positive_rate: float) -> tuple[float, float]:
        """(threshold, FNIR) at which so many strangers are taken for somebody.

        FNIR is the share of photos of known people whose person is not the most similar one
        or not similar enough.
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
    """Ask about every face with all others enrolled, and again with half of the people unknown.

    Args:
        embeddings: float32 (n, d) of unit length.
        people: int64 (n,), 0…people − 1.
        photos: int64 (people,), photos of each person, with those that have no face.
        seed: decides who is unknown.
    """
    order = np.argsort(people, kind="stable")
    embeddings, people = embeddings[order], people[order]
    whole = _nearest_people(embeddings, people, embeddings, people, themselves=True)
    asked = photos[people] > 1
    # A person whose other photos have no face cannot be found at any rank.
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
    """Highest similarity to another photo of the same person; −2 where there is none."""
    better: NDArray[np.int64]
    """Other people who are as similar or more."""
    best: Scores
    """Highest similarity to anyone."""


def _nearest_people(
    queries: NDArray[np.float32],
    asked: NDArray[np.int64],
    enrolled: NDArray[np.float32],
    people: NDArray[np.int64],
    *,
    themselves: bool = False,
) -> _Nearest:
    """Each query against each enrolled person.

    Args:
        queries: float32 (q, d).
        asked: int64 (q,), who they are.
        enrolled: float32 (n, d), sorted by person.
        people: int64 (n,), who they are, rising.
        themselves: the queries are the enrolled; none is compared with itself.
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
        there = (column < len(named)) & (named[np.minimum(column, len(named) - 1)] == asked[rows])
        mine = np.where(
            there, of_person[np.arange(len(similar)), np.minimum(column, len(named) - 1)], -2
        )
        own.append(mine)
        better.append((of_person >= mine[:, None]).sum(axis=1) - there)
    return _Nearest(
        np.concatenate(own).astype(np.float32),
        np.concatenate(better).astype(np.int64),
        np.concatenate(best),
    )
