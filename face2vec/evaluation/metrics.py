"""Metrics of verification: accept rates, accuracy in ten folds, and intervals over people.

A *genuine* pair shows one person, an *impostor* pair two. A pair is accepted if its similarity
reaches a threshold. FAR is the share of impostor pairs that are accepted (the false accept rate of
the FaceNet paper, section 4), TAR the share of genuine pairs (its VAL).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

BLOCK = 512
"""Faces per block that are compared with all others."""
ROUNDS = 200
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class PairScores:
    """Similarities of all pairs of a set of faces.

    Attributes:
        genuine: float32 (g,), similarities of genuine pairs.
        genuine_people: int64 (g,), the person of each genuine pair, 0…people − 1.
        impostor: float32 (i,), similarities of impostor pairs, highest first.
        impostor_people: int64 (m, 2), the two people of each of the first m impostor pairs.
        photos: int64 (people,), number of photos of each person, with or without a face.
        faces: int64 (people,), number of photos of each person with a detected face.
    """

    genuine: Scores
    genuine_people: NDArray[np.int64]
    impostor: Scores
    impostor_people: NDArray[np.int64]
    photos: NDArray[np.int64]
    faces: NDArray[np.int64]

    @property
    def missed(self) -> int:
        """Number of genuine pairs that could not be compared because a photo has no face."""
        return int(_pairs(self.photos).sum()) - len(self.genuine)


class TrueAccepts(NamedTuple):
    """Threshold and TAR at a FAR."""

    far: float
    """Largest share of impostor pairs that may be accepted."""
    threshold: float
    """Lowest accepted similarity."""
    tar: float
    """Share of genuine pairs that are accepted, 0…1."""
    low: float = float("nan")
    """Lower end of the interval of TAR, if requested."""
    high: float = float("nan")
    """Upper end of the interval of TAR, if requested."""


class Folds(NamedTuple):
    """Accuracy in folds, each with the best threshold of the other folds."""

    accuracies: NDArray[np.float64]
    """float64 (folds,), 0…1."""
    thresholds: NDArray[np.float64]
    """float64 (folds,), lowest similarity that counts as one person."""
    missing: int
    """Number of pairs that could not be compared; they count as wrong."""

    @property
    def mean(self) -> float:
        """Mean accuracy, 0…1."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean accuracy over the folds."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def all_pairs(
    embeddings: NDArray[np.float32],
    people: NDArray[np.int64],
    photos: NDArray[np.int64] | None = None,
    highest_far: float = 0.1,
    crowded: NDArray[np.float64] | None = None,
) -> PairScores:
    """Compare every face with every other.

    Args:
        embeddings: float32 (n, d), each of unit length.
        people: int64 (n,), the person of each face, 0…people − 1.
        photos: int64 (people,), number of photos of each person, including those without a face;
            if None, the number of faces.
        highest_far: largest FAR for `with_intervals`. The people of 1.5 times as many impostor
            pairs are stored; 0 stores none and avoids a second comparison.
        crowded: float64 (n,), the crowding of each face: the mean of both is subtracted from each
            similarity; not together with ``highest_far``.
    """
    count = int(people.max(initial=-1)) + 1 if photos is None else len(photos)
    faces = np.bincount(people, minlength=count).astype(np.int64)
    same, owners, other = [], [], []
    for similar, first, second in _compared(embeddings):
        alike = people[first] == people[second]
        if crowded is not None:
            similar = similar - ((crowded[first] + crowded[second]) / 2).astype(np.float32)
        same.append(similar[alike])
        owners.append(people[first[alike]])
        other.append(similar[~alike])
    genuine, genuine_people = _joined(same, np.float32), _joined(owners, np.int64)
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
    """TAR at a FAR; genuine pairs that could not be compared count as not accepted.

    The result is NaN if there are no pairs of one kind.
    """
    if not len(pairs.genuine) or not len(pairs.impostor):
        return TrueAccepts(far, float("nan"), float("nan"))
    threshold = threshold_at(pairs.impostor, far)
    accepted = int((pairs.genuine >= threshold).sum())
    return TrueAccepts(far, threshold, accepted / (len(pairs.genuine) + pairs.missed))


def threshold_at(highest_first: Scores, rate: float) -> float:
    """The lowest threshold that at most a given share of scores reaches.

    Args:
        highest_first: float32 (n,) similarities, decreasing.
        rate: the share, 0…1.
    """
    allowed = int(np.floor(rate * len(highest_first) * (1 + 1e-12)))
    if allowed >= len(highest_first):
        return -1.0
    return float(np.nextafter(highest_first[allowed], np.float32(2)))


def with_intervals(
    pairs: PairScores, fars: Sequence[float], rounds: int = ROUNDS, seed: int = 0
) -> list[TrueAccepts]:
    """`true_accepts` with 95 % intervals from a bootstrap over people.

    Each round draws as many people as there are, with replacement, together with all their photos.
    A photo is not paired with its own copy (Field and Welsh, Bootstrapping clustered data, 2007).
    Pairs are not independent, because each photo is in many of them, so a bootstrap over pairs
    would give intervals that are too narrow.

    Args:
        pairs: similarities of all pairs.
        fars: false accept rates, at most the ``highest_far`` given to `all_pairs`.
        rounds: number of bootstrap rounds.
        seed: seed of the draws.
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
    """Area under the ROC: how often a genuine pair is more similar than an impostor pair, 0…1.

    NaN if there are no pairs of one kind.
    """
    if not len(pairs.genuine) or not len(pairs.impostor):
        return float("nan")
    ascending = pairs.impostor[::-1]
    below = np.searchsorted(ascending, pairs.genuine, side="left")
    upto = np.searchsorted(ascending, pairs.genuine, side="right")
    return float((below + upto).mean() / (2 * len(ascending)))


def equal_error_rate(pairs: PairScores) -> float:
    """Equal error rate: FAR at the threshold at which it equals the false reject rate.

    NaN if there are no pairs of one kind.
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
    """The ROC: FAR and TAR at decreasing thresholds, from (0, 0) to (1, 1).

    Pairs that could not be compared do not count. The thresholds are at and just above the
    genuine similarities, which are the corners of the curve.

    Args:
        pairs: similarities of genuine and impostor pairs.
        most: largest number of genuine similarities to use as thresholds.

    Returns:
        FAR float64 (n,) and TAR float64 (n,), both increasing.
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
    """Accuracy in each fold with the best threshold of the other folds, as in LFW's View 2.

    Huang et al., Labeled Faces in the Wild, 2007, section 3.2.

    Args:
        similarities: float32 (n,), one per pair; NaN for a pair that could not be compared, which
            counts as wrong.
        same: bool (n,), whether a pair shows one person.
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
    """The threshold with the highest accuracy, halfway between two similarities.

    If several thresholds are equally accurate, it is the middle one.

    Args:
        similarities: float32 (n,), one per pair.
        same: bool (n,), whether a pair shows one person.
    """
    order = np.argsort(similarities, kind="stable")
    ordered, alike = similarities[order].astype(np.float64), same[order]
    # With a threshold between n − 1 and n, the pairs before n are refused, the others accepted.
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
