"""Figures of changed photos compared with clean ones, with intervals over people.

Every subject's photo is a *query* once, changed, and is *enrolled* once, clean. A query is compared
with every enrolled photo but its own. The pairs and the rates are those of
`face2vec.evaluation.metrics`; each pair of two photos counts twice, for either may be the query.
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
    """A share with its interval of 95 %; NaN where there is nothing to count."""

    value: float
    low: float
    high: float

    def words(self) -> str:
        """As ``66.6% (64.1% to 69.0%)``."""
        if self.value != self.value:
            return "–"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"

    def figures(self) -> dict[str, float | None]:
        """JSON-able; None for what is not known."""
        return {name: None if value != value else value for name, value in self._asdict().items()}


@dataclass(frozen=True, eq=False)
class Counts:
    """What became of some queries, by person.

    Attributes:
        accepted: int64 (people,), genuine pairs at or above the threshold.
        genuine: int64 (people,), genuine pairs, with those of a query without a face.
        first: int64 (people,), queries whose most similar enrolled photo is of their person.
        asked: int64 (people,), queries whose person has another photo enrolled.
        queries: int64 (people,), queries in which a face was found.
        others: int64 (people,), photos that the queries are compared with.
        confused: int64 (c, 2), the two people of each impostor pair that is accepted.
        missed: queries in which no face was found.
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
        """How many people have a genuine pair."""
        return int((self.genuine > 0).sum())

    @property
    def impostor_pairs(self) -> int:
        """How many pairs of two people were compared."""
        pairs = self.queries.sum() * self.others.sum() - (self.queries * self.others).sum()
        return int(pairs)


def threshold_for(highest_first: Scores, far: float) -> float:
    """A similarity that at most this share of the impostor pairs reaches.

    Halfway between the last that may and the next, so that the last bit of a similarity, which
    differs with the size of a product of matrices, decides nothing.

    Args:
        highest_first: float32 (i,), similarities of impostor pairs.
        far: 0…1.
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
        queries: float32 (n, d) of unit length; a row of NaN where no face was found.
        enrolled: float32 (n, d), the same photos in the same order, to be compared with; a row of
            NaN is compared with nothing.
        people: int64 (n,), 0…people − 1.
        threshold: lowest similarity that is accepted.
        some: bool (n,), the queries that count; all if None.
        against: bool (n,), the enrolled that pairs are made with; all if None. Who is most
            similar is looked for among all.
    """
    count = len(people)
    asked_for = np.ones(count, bool) if some is None else some
    enrolled_for = np.ones(count, bool) if against is None else against
    there = np.asarray(np.isfinite(enrolled).all(axis=1))
    enrolled_for = enrolled_for & there
    everyone = int(people.max(initial=-1)) + 1
    own = np.bincount(people[enrolled_for], minlength=everyone)
    mates = np.bincount(people[there], minlength=everyone)
    rows = np.flatnonzero(asked_for)
    found = rows[~np.isnan(queries[rows]).any(axis=1)]
    accepted, first = np.zeros(everyone, np.int64), np.zeros(everyone, np.int64)
    confused = [np.empty((0, 2), np.int64)]
    for start in range(0, len(found), BLOCK):
        part = found[start : start + BLOCK]
        similar = queries[part] @ np.where(there[:, None], enrolled, 0).T
        similar[:, ~there] = -2
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
        asked=_per_person(people, rows, (mates[people] - there) > 0, everyone),
        queries=np.bincount(people[found], minlength=everyone),
        others=own,
        confused=np.concatenate(confused),
        missed=len(rows) - len(found),
    )


def _per_person(people: Numbers, rows: Numbers, values: Any, everyone: int) -> Numbers:
    total = np.bincount(people[rows], np.asarray(values, np.float64)[rows], minlength=everyone)
    return total.astype(np.int64)


class Draws:
    """The same people drawn again and again, for intervals of all figures of one set.

    In each round as many people are drawn as there are, with replacement, and all their photos
    with them (Field and Welsh, Bootstrapping clustered data, 2007). The threshold stays as it is.
    All figures see the same rounds, so that two of them can be compared.

    Args:
        people: how many there are.
        rounds: how many draws.
        seed: of the draws.
    """

    def __init__(self, people: int, rounds: int = ROUNDS, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.times = np.stack(
            [np.bincount(rng.integers(0, people, people), minlength=people) for _ in range(rounds)]
        ).astype(np.float64)

    def tar(self, counts: Counts) -> Rate:
        """Share of the genuine pairs that are accepted."""
        return self._share(counts.accepted, counts.genuine)

    def recall(self, counts: Counts) -> Rate:
        """Share of the queries whose most similar enrolled photo is of their person."""
        return self._share(counts.first, counts.asked)

    def far(self, counts: Counts) -> Rate:
        """Share of the impostor pairs that are accepted; a pair of somebody with a copy is none."""
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
        """TAR as a part of the clean photos' TAR."""
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
        """From the draws, and where all or none are hits, of which draws say nothing, otherwise.

        Then it is Clopper and Pearson's interval, 1934, with each person as one trial, or, where
        pairs of people are counted, each two people.
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
