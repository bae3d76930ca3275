"""Figures of pairs of faces: rates of accepts, ten folds, and intervals over people.

A pair is *genuine* where both faces are of one person, and an *impostor* pair where they are
not. It is accepted where its similarity reaches a threshold. FAR is the share of impostor
pairs that are accepted (the paper's false accept rate, FaceNet, section 4), TAR the share of
genuine ones (its VAL).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

BLOCK = 512
"""Faces that are compared with all others at a time."""
ROUNDS = 200
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class PairScores:
    """Similarities of all pairs of a set of faces.

    Attributes:
        genuine: float32 (g,), of pairs of one person, by person.
        genuine_people: int64 (g,), whose they are, 0…people − 1.
        impostor: float32 (i,), of pairs of two people, highest first.
        impostor_people: int64 (m, 2), of which two the first m of them are.
        photos: int64 (people,), photos of each person, with or without a face.
        faces: int64 (people,), those of them in which a face was found.
    """

    genuine: Scores
    genuine_people: NDArray[np.int64]
    impostor: Scores
    impostor_people: NDArray[np.int64]
    photos: NDArray[np.int64]
    faces: NDArray[np.int64]

    @property
    def missed(self) -> int:
        """Genuine pairs that could not be compared, for a photo has no face."""
        return int(_pairs(self.photos).sum()) - len(self.genuine)


class TrueAccepts(NamedTuple):
    """What is accepted at a FAR."""

    far: float
    """At most this share of the impostor pairs is accepted."""
    threshold: float
    """Lowest similarity that is accepted."""
    tar: float
    """Share of the genuine pairs that are accepted, 0…1."""
    low: float = float("nan")
    """Lower end of the interval, where one was asked for."""
    high: float = float("nan")
    """Upper end of it."""


class Folds(NamedTuple):
    """Accuracy in folds, each with the threshold that was best in the others."""

    accuracies: NDArray[np.float64]
    """float64 (folds,), 0…1."""
    thresholds: NDArray[np.float64]
    """float64 (folds,), the similarity from which a pair counts as one person."""
    missing: int
    """Pairs that could not be compared, each counted as wrong."""

    @property
    def mean(self) -> float:
        """Mean accuracy, 0…1."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean: standard deviation of the folds over the square root of their number."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def all_pairs(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    photos: NDArray[np.int64] | None = None,
    highest_far: float = 0.1,
) -> PairScores:
    """Compare every face with every other.

    Args:
        embeddings: float32 (n, d) of unit length.
        people: int64 (n,), 0…people − 1.
        photos: int64 (people,), photos of each person with those that have no face; as many
            as faces if None.
        highest_far: people are kept of so many of the most similar impostor pairs and half as
            many again, for `with_intervals`; 0 keeps none and saves comparing twice.
    """
    count = int(people.max(initial=-1)) + 1 if photos is None else len(photos)
    faces = np.bincount(people, minlength=count).astype(np.int64)
    same, whose, other = [], [], []
    for similar, first, second in _compared(embeddings):
        alike = people[first] == people[second]
        same.append(similar[alike])
        whose.append(people[first[alike]])
        other.append(similar[~alike])
    genuine, genuine_people = _joined(same, np.float32), _joined(whose, np.int64)
    impostor = _joined(other, np.float32)
    impostor.sort()
    impostor = impostor[::-1]
    nearest = _nearest_people(embeddings, people, impostor, highest_far)
    photos = faces if photos is None else photos
    return PairScores(genuine, genuine_people, impostor, nearest, photos, faces)


def _nearest_people(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    impostor: Scores,
    highest_far: float,
) -> NDArray[np.int64]:
    """See `PairScores.impostor_people`."""
    two = [np.empty((0, 2), np.int64)]
    if not highest_far or not len(impostor):
        return two[0]
    most = min(len(impostor), int(1.5 * highest_far * len(impostor)) + 1)
    values = []
    for similar, first, second in _compared(embeddings):
        near = (similar >= impostor[most - 1]) & (people[first] != people[second])
        values.append(similar[near])
        two.append(np.stack([people[first[near]], people[second[near]]], axis=1))
    order = np.argsort(np.concatenate(values), kind="stable")[::-1][:most]
    return np.concatenate(two)[order]


def true_accepts(pairs: PairScores, far: float) -> TrueAccepts:
    """TAR at a FAR; a genuine pair that could not be compared is not accepted.

    NaN where there are no pairs of one kind.
    """
    if not len(pairs.genuine) or not len(pairs.impostor):
        return TrueAccepts(far, float("nan"), float("nan"))
    threshold = threshold_at(pairs.impostor, far)
    accepted = int((pairs.genuine >= threshold).sum())
    return TrueAccepts(far, threshold, accepted / (len(pairs.genuine) + pairs.missed))


def threshold_at(highest_first: Scores, rate: float) -> float:
    """The lowest similarity that at most this share of the scores reaches.

    Args:
        highest_first: float32 (n,) similarities, falling.
        rate: the share, 0…1.
    """
    allowed = int(np.floor(rate * len(highest_first) * (1 + 1e-12)))
    if allowed >= len(highest_first):
        return -1.0
    return float(np.nextafter(highest_first[allowed], np.float32(2)))


def with_intervals(
    pairs: PairScores, fars: Sequence[float], rounds: int = ROUNDS, seed: int = 0
) -> list[TrueAccepts]:
    """`true_accepts` with intervals of 95 %, by a bootstrap over people.

    In each round as many people are drawn as there are, with replacement, and all their photos
    with them; pairs of one photo with its own copy are no pairs (Field and Welsh,
    Bootstrapping clustered data, 2007). Pairs of photos are not independent, for each photo is
    in many of them, so a bootstrap over pairs would say too much.

    Args:
        pairs: what was compared.
        fars: 0…`all_pairs`'s ``highest_far``.
        rounds: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    people = len(pairs.photos)
    of_each = _pairs(pairs.photos)
    first, second = pairs.impostor_people.T
    values = pairs.impostor[: len(first)]
    drawn: list[list[float]] = [[] for _ in fars]
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, people, people), minlength=people).astype(np.float64)
        faces = times * pairs.faces
        total = (faces.sum() ** 2 - (faces**2).sum()) / 2
        above = np.cumsum(times[first] * times[second])
        weights = times[pairs.genuine_people]
        everyone = float((times * of_each).sum())
        for place, far in enumerate(fars):
            cut = int(np.searchsorted(above, far * total, side="right"))
            if not everyone or cut >= len(values):
                continue
            drawn[place].append(float(weights[pairs.genuine > values[cut]].sum()) / everyone)
    ends = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    found = []
    for far, rates in zip(fars, drawn, strict=True):
        low, high = np.percentile(rates, ends) if rates else (float("nan"), float("nan"))
        found.append(true_accepts(pairs, far)._replace(low=float(low), high=float(high)))
    return found


def area_under_curve(pairs: PairScores) -> float:
    """Share of (genuine, impostor) couples of pairs in which the genuine one is more similar.

    NaN where there are no pairs of one kind.
    """
    if not len(pairs.genuine) or not len(pairs.impostor):
        return float("nan")
    ascending = pairs.impostor[::-1]
    below = np.searchsorted(ascending, pairs.genuine, side="left")
    upto = np.searchsorted(ascending, pairs.genuine, side="right")
    return float((below + upto).mean() / (2 * len(ascending)))


def equal_error_rate(pairs: PairScores) -> float:
    """Where as large a share of impostor pairs is accepted as of genuine pairs refused.

    NaN where there are no pairs of one kind.
    """
    if not len(pairs.genuine) or not len(pairs.impostor):
        return float("nan")
    far, tar = curve(pairs)
    wrong = far - (1 - tar)
    after = int(np.argmax(wrong >= 0))
    before = max(after - 1, 0)
    step = wrong[after] - wrong[before]
    share = -wrong[before] / step if step > 0 else 0.0
    return float(far[before] + share * (far[after] - far[before]))


def curve(pairs: PairScores, most: int = 20_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ROC: FAR and TAR at falling thresholds, from (0, 0) to (1, 1).

    Pairs that could not be compared do not count. The thresholds lie at and just above the
    genuine similarities, where the corners of the curve are.

    Args:
        pairs: similarities of genuine and impostor pairs.
        most: the largest number of genuine similarities to take thresholds from.

    Returns:
        FAR float64 (n,) and TAR float64 (n,), both rising.
    """
    genuine = np.unique(pairs.genuine)
    if len(genuine) > most:
        genuine = genuine[np.linspace(0, len(genuine) - 1, most).round().astype(np.int64)]
    corners = []
    for scores in (pairs.impostor[::-1], np.sort(pairs.genuine)):
        above = 1 - np.searchsorted(scores, genuine[::-1], side="right") / len(scores)
        at = 1 - np.searchsorted(scores, genuine[::-1], side="left") / len(scores)
        corners.append(np.concatenate([[0.0], np.stack([above, at], axis=1).ravel(), [1.0]]))
    return corners[0], corners[1]


def ten_folds(
    similarities: NDArray[np.float32], same: NDArray[np.bool_], folds: NDArray[np.int64]
) -> Folds:
    """Accuracy in each fold with the threshold that is best in the others: LFW's View 2.

    Huang et al., Labeled Faces in the Wild, 2007, section 3.2.

    Args:
        similarities: float32 (n,); NaN for a pair that could not be compared, which is wrong.
        same: bool (n,), whether a pair is of one person.
        folds: int64 (n,), the fold of each pair.
    """
    known = ~np.isnan(similarities)
    accuracies, thresholds = [], []
    for fold in np.unique(folds):
        others, here = (folds != fold) & known, folds == fold
        threshold = best_threshold(similarities[others], same[others])
        right = ((similarities[here] >= threshold) == same[here]) & known[here]
        accuracies.append(right.mean())
        thresholds.append(threshold)
    return Folds(np.array(accuracies), np.array(thresholds), int((~known).sum()))


def best_threshold(similarities: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """The threshold that is right about most pairs; between two similarities, or the middle one.

    Args:
        similarities: float32 (n,), one a pair.
        same: bool (n,), whether the pair is one person.
    """
    order = np.argsort(similarities, kind="stable")
    ordered, alike = similarities[order].astype(np.float64), same[order]
    # With the threshold between n − 1 and n, those before n are refused and the others accepted.
    right = np.concatenate([[0], np.cumsum(~alike)]) + np.concatenate(
        [np.cumsum(alike[::-1])[::-1], [0]]
    )
    edges = np.concatenate([[ordered[0] - 1e-6], (ordered[1:] + ordered[:-1]) / 2,
                            [ordered[-1] + 1e-6]])  # fmt: skip
    apart = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    best = np.flatnonzero(apart & (right == right[apart].max()))
    return float(edges[best[len(best) // 2]])


def _compared(
    embeddings: NDArray[np.float32],
) -> Iterator[tuple[Scores, NDArray[np.int64], NDArray[np.int64]]]:
    """(similarities, first, second) of all pairs with first < second, block by block."""
    for start in range(0, len(embeddings), BLOCK):
        similar = embeddings[start : start + BLOCK] @ embeddings[start:].T
        first, second = np.triu_indices(len(similar), 1, similar.shape[1])
        yield similar[first, second], first + start, second + start


def _pairs(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return counts * (counts - 1) // 2


def _joined(parts: list[NDArray[np.float32]] | list[NDArray[np.int64]], kind: type) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.empty(0, kind)
