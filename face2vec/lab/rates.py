"""Rates of degraded photos compared with clean photos, with intervals over people.

Each photo of a subject is a *query* once, degraded, and is *enrolled* once, clean. A query is
compared with all enrolled photos except its own. Pairs and rates are those of
`face2vec.evaluation.metrics`, but each pair of photos counts twice, because either photo may be
the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.evaluation.metrics import BLOCK, CONFIDENCE, ROUNDS, Scores, threshold_at

Embeddings = NDArray[np.float32]
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

JUST_ABOVE = 1e-4


class Rate(NamedTuple):
    """A share with its 95 % interval; NaN if there is nothing to count."""

    value: float
    low: float
    high: float

    def words(self) -> str:
        """Format as ``66.6% (64.1% to 69.0%)``."""
        if self.value != self.value:
            return "–"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"

    def figures(self) -> dict[str, float | None]:
        """JSON-able values; None if unknown."""
        return {name: None if value != value else value for name, value in self._asdict().items()}


@dataclass(frozen=True, eq=False)
class Counts:
    """Results of queries, counted by person.

    Attributes:
        accepted: int64 (people,), number of genuine pairs at or above the threshold.
        genuine: int64 (people,), number of genuine pairs, including queries without a face.
        first: int64 (people,), number of queries whose most similar enrolled photo shows the same
            person.
        asked: int64 (people,), number of queries whose person has another enrolled photo.
        queries: int64 (people,), number of queries with a detected face.
        others: int64 (people,), number of photos with which the queries are compared.
        confused: int64 (c, 2), the two people of each accepted impostor pair.
        missed: number of queries without a detected face.
    """

    accepted: Numbers
    genuine: Numbers
    first: Numbers
    asked: Numbers
    queries: Numbers
    others: Numbers
    confused: Numbers
    missed: int

    @property
    def people(self) -> int:
        """Number of people with a genuine pair."""
        return int((self.genuine > 0).sum())

    @property
    def impostor_pairs(self) -> int:
        """Number of impostor pairs."""
        pairs = self.queries.sum() * self.others.sum() - (self.queries * self.others).sum()
        return int(pairs)


def threshold_for(highest_first: Scores, far: float) -> float:
    """A threshold that at most a given share of impostor pairs reaches.

    It is halfway between two similarities, so that rounding errors, which depend on the size of a
    matrix product, do not matter.

    Args:
        highest_first: float32 (i,), similarities of impostor pairs, highest first.
        far: the share, 0…1.
    """
    allowed = int(np.floor(far * len(highest_first) * (1 + 1e-12)))
    below = threshold_at(highest_first, far)
    return (below + float(highest_first[allowed - 1])) / 2 if allowed else below + JUST_ABOVE


def counted(
    queries: Embeddings,
    enrolled: Embeddings,
    people: Numbers,
    threshold: float,
    some: NDArray[np.bool_] | None = None,
    against: NDArray[np.bool_] | None = None,
) -> Counts:
    """Compare queries with enrolled photos.

    Args:
        queries: float32 (n, d), each of unit length; a row of NaN for a photo without a face.
        enrolled: float32 (n, d), the enrolled photos in the same order; a row of NaN is not
            compared.
        people: int64 (n,), the person of each photo, 0…people − 1.
        threshold: lowest accepted similarity.
        some: bool (n,), the queries that count; all if None.
        against: bool (n,), the enrolled photos of the pairs; all if None. The most similar photo
            is always searched among all.
    """
    count = len(people)
    asked_for = np.ones(count, bool) if some is None else some
    enrolled_for = np.ones(count, bool) if against is None else against
    has_face = np.asarray(np.isfinite(enrolled).all(axis=1))
    enrolled_for = enrolled_for & has_face
    everyone = int(people.max(initial=-1)) + 1
    own = np.bincount(people[enrolled_for], minlength=everyone)
    mates = np.bincount(people[has_face], minlength=everyone)
    rows = np.flatnonzero(asked_for)
    found = rows[~np.isnan(queries[rows]).any(axis=1)]
    accepted, first = np.zeros(everyone, np.int64), np.zeros(everyone, np.int64)
    confused = [np.empty((0, 2), np.int64)]
    for start in range(0, len(found), BLOCK):
        part = found[start : start + BLOCK]
        similar = queries[part] @ np.where(has_face[:, None], enrolled, 0).T
        similar[:, ~has_face] = -2
        similar[np.arange(len(part)), part] = -2
        same = people[part][:, None] == people
        over = (similar >= threshold) & enrolled_for
        np.add.at(accepted, people[part], (over & same).sum(axis=1))
        best = similar.argmax(axis=1)
        np.add.at(
            first, people[part], same[np.arange(len(part)), best] & (similar.max(axis=1) > -2)
        )
        query, other = np.nonzero(over & ~same)
        confused.append(np.stack([people[part][query], people[other]], axis=1))
    return Counts(
        accepted=accepted,
        genuine=_per_person(people, rows, own[people] - enrolled_for, everyone),
        first=first,
        asked=_per_person(people, rows, (mates[people] - has_face) > 0, everyone),
        queries=np.bincount(people[found], minlength=everyone),
        others=own,
        confused=np.concatenate(confused),
        missed=len(rows) - len(found),
    )


def _per_person(people: Numbers, rows: Numbers, values: Any, everyone: int) -> Numbers:
    total = np.bincount(people[rows], np.asarray(values, np.float64)[rows], minlength=everyone)
    return total.astype(np.int64)


class Draws:
    """Bootstrap draws of people, shared by all intervals of one set.

    Each round draws as many people as there are, with replacement, together with all their photos
    (Field and Welsh, Bootstrapping clustered data, 2007). The threshold is fixed. All rates use
    the same rounds, so that they can be compared.

    Args:
        people: number of people.
        rounds: number of rounds.
        seed: seed of the draws.
    """

    def __init__(self, people: int, rounds: int = ROUNDS, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.times = np.stack(
            [np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(rounds)]
        ).astype(np.float64)

    def tar(self, counts: Counts) -> Rate:
        """Share of genuine pairs that are accepted."""
        return self._share(counts.accepted, counts.genuine)

    def recall(self, counts: Counts) -> Rate:
        """Share of queries whose most similar enrolled photo shows the same person."""
        return self._share(counts.first, counts.asked)

    def far(self, counts: Counts) -> Rate:
        """Share of impostor pairs that are accepted; a person is not paired with a drawn copy."""
        if not counts.impostor_pairs:
            return Rate(float("nan"), float("nan"), float("nan"))
        one, other = counts.confused.T
        hits = np.array([float(times[one] @ times[other]) for times in self.times])
        queries, others = self.times * counts.queries, self.times * counts.others
        pairs = queries.sum(axis=1) * others.sum(axis=1) - (queries * others).sum(axis=1)
        value = len(counts.confused) / counts.impostor_pairs
        two = (counts.queries > 0).sum() * (counts.others > 0).sum() / 2
        return self._interval(value, hits, pairs, int(two))

    def kept(self, counts: Counts, clean: Counts) -> Rate:
        """TAR as a share of the clean photos' TAR.

        Args:
            counts: results of the degraded photos.
            clean: results of the clean photos.
        """
        before, after = _value(clean.accepted, clean.genuine), self.tar(counts).value
        if not before > 0:
            return Rate(float("nan"), float("nan"), float("nan"))
        now = _ratios(self.times @ counts.accepted, self.times @ counts.genuine)
        then = _ratios(self.times @ clean.accepted, self.times @ clean.genuine)
        low, high = _ends(_ratios(now, then))
        return Rate(after / before, low, high)

    def _share(self, hits: Numbers, asked: Numbers) -> Rate:
        return self._interval(
            _value(hits, asked), self.times @ hits, self.times @ asked, int((asked > 0).sum())
        )

    def _interval(self, value: float, hits: Floats, asked: Floats, trials: int) -> Rate:
        """Interval from the draws, except if all or no trials are hits, which draws cannot resolve.

        In that case it is the interval of Clopper and Pearson, 1934, with one trial per person, or
        per two people for a rate of impostor pairs.
        """
        low, high = _ends(_ratios(hits, asked))
        beyond = ((1 - CONFIDENCE) / 2) ** (1 / max(trials, 1))
        if value == 1:
            low = beyond
        elif value == 0:
            high = 1 - beyond
        return Rate(value, low, high)


def _value(hits: Numbers, asked: Numbers) -> float:
    return float(hits.sum() / asked.sum()) if asked.sum() else float("nan")


def _ratios(over: Floats, under: Floats) -> Floats:
    ratios: Floats = np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)
    return ratios


def _ends(values: Floats) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
