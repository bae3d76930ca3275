"""Identifies a face as one of the named people, or as none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.gallery.reader import Snapshot, State
from face2vec.products import product
from face2vec.types import Face, Identified, Person

UNKNOWN = 0.5
"""Prior probability that a face shows none of the named people."""


@dataclass(frozen=True, eq=False)
class KnownFaces:
    """The faces of people with names, kept from one query to the next.

    Attributes:
        ids: int64 (n,).
        embeddings: float32 (n, d).
        crowding: float64 (n,).
        state: state of the gallery that they were read from.
        calibration: whose crowding it is.
    """

    ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    crowding: NDArray[np.float64]
    state: State
    calibration: Calibration

    @classmethod
    def read(
        cls,
        ids: NDArray[np.int64],
        now: Snapshot,
        calibration: Calibration,
        before: KnownFaces | None,
    ) -> KnownFaces:
        """Read faces from the gallery, unless they are those from before.

        Args:
            ids: int64 (n,).
            now: the gallery.
            calibration: gives the crowding.
            before: what an earlier call returned.
        """
        if (
            before is not None
            and before.state == now.state
            and before.calibration is calibration
            and np.array_equal(before.ids, ids)
        ):
            return before
        embeddings = now.embeddings(ids)
        return cls(ids, embeddings, calibration.crowded(embeddings), now.state, calibration)


def identified(
    faces: Sequence[Face],
    embeddings: NDArray[np.float32],
    now: Snapshot,
    calibration: Calibration,
    at_least: float,
    candidates: int,
    before: KnownFaces | None = None,
) -> tuple[list[Identified], KnownFaces | None]:
    """Identify each face; see `Face2Vec.identify`.

    Args:
        faces: the query faces.
        embeddings: float32 (n, d), one for each face.
        now: the gallery.
        calibration: converts similarities to log odds.
        at_least: lowest probability of an identification, 0…1.
        candidates: number of most probable people to list for each face.
        before: the faces of people with names from an earlier call.

    Returns:
        One entry per face, and the faces of people with names for the next call.
    """
    named = {p.id: p for p in now.people() if p.name is not None and p.faces}
    ids = np.array([i for p in named.values() for i in p.faces], np.int64)
    people: list[Person] = []
    shares = np.zeros((len(embeddings), 0))
    if len(ids) and len(embeddings):
        owners = np.array([p.id for p in named.values() for _ in p.faces], np.int64)
        before = KnownFaces.read(ids, now, calibration, before)
        numbers, shares = probabilities(
            embeddings, before.embeddings, owners, calibration, before.crowding
        )
        people = [named[i] for i in numbers.tolist()]
    found = []
    for face, row in zip(faces, shares, strict=True):
        best = ranked(people, row, max(candidates, 1))
        sure = [one for one in best[:1] if one[1] >= at_least]
        person, probability = sure[0] if sure else (None, 1.0 - float(row.sum()))
        found.append(Identified(face, person, probability, tuple(best[:candidates])))
    return found, before


def probabilities(
    queries: NDArray[np.float32],
    known: NDArray[np.float32],
    owners: NDArray[np.int64],
    calibration: Calibration,
    crowding: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Probability that each query shows each of the people, by Bayes' rule.

    A query shows no known person, or the same person as one face of one known person. All people,
    and all faces of a person, have the same prior. Therefore the likelihood ratio of a person is
    the mean over their faces: one good photo is enough, and more faces give no advantage.

    Args:
        queries: embeddings float32 (n, d).
        known: embeddings float32 (m, d) of the faces of named people, m ≥ 1.
        owners: int64 (m,), the person of each face.
        calibration: converts similarities to log odds.
        crowding: float64 (m,), of the faces of named people, if it is known.

    Returns:
        People int64 (p,), and probabilities float64 (n, p); the difference of a row's sum to 1 is
        the probability that the query shows no known person.
    """
    people, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    cosines = product(queries, known).astype(np.float64)
    crowding = calibration.crowded(known) if crowding is None else crowding
    mean = (calibration.crowded(queries)[:, None] + crowding) / 2
    # With a prior of one half, these are the log likelihood ratios.
    logs = calibration.log_odds(cosines, crowding=mean)[:, order]
    highest = logs.max(axis=1, initial=0.0, keepdims=True)
    ratios = np.add.reduceat(np.exp(logs - highest), starts, axis=1) / counts
    weights = (1 - UNKNOWN) / len(people) * ratios
    no_one = UNKNOWN * np.exp(-highest)
    return people, weights / (weights.sum(axis=1, keepdims=True) + no_one)


def ranked(
    people: Sequence[Person], shares: NDArray[np.float64], most: int
) -> list[tuple[Person, float]]:
    """The most probable people of one query, best first.

    Args:
        people: p people.
        shares: float64 (p,), the probability of each person.
        most: largest number of people to return.
    """
    best = np.argsort(-shares, kind="stable")[:most]
    return [(people[i], float(shares[i])) for i in best.tolist()]
