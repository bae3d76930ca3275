"""What a similarity means: false accept rates, thresholds, probabilities, fitted on named photos.

Of pairs of one person and pairs of two, it keeps how often each similarity comes. A
probability needs, beside that, how likely it was before looking that the two are one person:
half for two photos that somebody holds side by side, and one in N for a face among the N of a
gallery (Bayes' rule; Brümmer and du Preez, Application-independent evaluation of speaker
detection, 2006, section 2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face2vec.errors import CalibrationError

Similarities = TypeVar("Similarities", float, NDArray[np.float64])

USUAL_FAR = 1e-3
FEWEST_BEYOND = 10
"""Impostor pairs above a threshold without which its false accept rate is not known."""
FEWEST_GENUINE = 50
STEPS_A_DECADE = 8
GENUINE_BINS = 60
FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Similarities of pairs of one person and of two, as fitted on photos whose people are known.

    Attributes:
        model: key of the model that it is of.
        weights: SHA-256 in hexadecimal of the model's weights.
        data: what it was fitted on, in words.
        people: how many people that were.
        genuine: how many pairs of one person.
        impostor: how many pairs of two.
        fars: false accept rates, falling.
        thresholds: the lowest similarity accepted at each of them, rising.
        similarities: where the ratio below is known, rising.
        log_ratios: natural logarithm of how much more often such a similarity comes between
            photos of one person than of two; never falling.
    """

    model: str
    weights: str
    data: str
    people: int
    genuine: int
    impostor: int
    fars: tuple[float, ...]
    thresholds: tuple[float, ...]
    similarities: tuple[float, ...]
    log_ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = len(self.fars), len(self.similarities)
        sound = (
            lengths == (len(self.thresholds), len(self.log_ratios))
            and min(lengths) >= 2
            and all(0 < far <= 1 for far in self.fars)
            and all(np.isfinite(v) for v in (*self.thresholds, *self.similarities))
            and bool(np.all(np.diff(self.fars) < 0))
            and bool(np.all(np.diff(self.thresholds) >= 0))
            and self.thresholds[-1] > self.thresholds[0]
            and bool(np.all(np.diff(self.similarities) > 0))
            and bool(np.all(np.diff(self.log_ratios) >= 0))
        )
        if not sound:
            raise CalibrationError(f"the calibration of {self.model!r} is damaged; fit it again")

    def threshold(self, far: float = USUAL_FAR) -> float:
        """The lowest similarity that is accepted when this share of false pairs may be.

        Raises:
            CalibrationError: it was fitted on too few pairs to know so low a rate.
        """
        if not self.fars[-1] <= far <= 1:
            raise CalibrationError(
                f"a false accept rate of {far:g} cannot be told: the calibration of "
                f"{self.model!r} was fitted on {self.impostor:,} pairs of two people and knows "
                f"rates from {self.fars[-1]:.3g} to 1. Fit it on more people: face2vec calibrate"
            )
        logs = -np.log10(self.fars)
        return float(np.interp(-np.log10(far), logs, self.thresholds))

    def far(self, similarity: Similarities) -> Similarities:
        """Share of pairs of two people that are as similar or more, 0…1.

        Above the last known threshold it goes on falling as it did over the last decade. Tails
        of similarities fall faster, so this says rather too much than too little.
        """
        rate: Any = _rate(np.asarray(similarity), self.fars, self.thresholds)
        return cast("Similarities", rate)

    def probability(self, similarity: Similarities, prior: float = 0.5) -> Similarities:
        """How likely two faces of this similarity are one person, 0…1.

        Args:
            similarity: −1…1, one or an array.
            prior: how likely it was before looking, 0…1, both excluded: for one face of a
                gallery of N in which the person is expected m times, m / N.

        Raises:
            CalibrationError: a prior that is none.
        """
        odds: Any = self.log_odds(similarity, prior)
        return cast("Similarities", 1.0 / (1.0 + np.exp(-odds)))

    def log_odds(self, similarity: Similarities, prior: float = 0.5) -> Similarities:
        """Natural logarithm of how much likelier one person is than two; see `probability`.

        Raises:
            CalibrationError: a prior that is none.
        """
        if not 0 < prior < 1:
            raise CalibrationError(f"prior is {prior}; it must lie between 0 and 1")
        odds: Any = np.interp(similarity, self.similarities, self.log_ratios)
        return cast("Similarities", odds + np.log(prior / (1 - prior)))

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """One that was stored.

        Raises:
            CalibrationError: it is damaged, or of a newer face2vec.
        """
        try:
            facts: dict[str, Any] = json.loads(text)
            if facts.pop("format") > FORMAT:
                raise CalibrationError(
                    "the calibration is of a newer face2vec; update, or fit it again"
                )
            lists = {name: tuple(v) for name, v in facts.items() if isinstance(v, list)}
            return cls(**facts | lists)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"the calibration is damaged ({error}); fit it again") from error


def fit(
    genuine: NDArray[np.float32],
    impostor: NDArray[np.float32],
    *,
    model: str,
    weights: str,
    data: str,
    people: int,
) -> Calibration:
    """Fit a calibration on similarities of pairs of one person and of two.

    The ratio is that of two histograms whose bins hold as many genuine pairs each, made never
    falling by pooling neighbours (Ayer et al., An empirical distribution function for sampling
    with incomplete information, 1955). Where there are next to none of one kind, as many are
    taken as its rate says that goes on falling.

    Args:
        genuine: float32 (g,).
        impostor: float32 (i,), highest first.
        model: key of the model.
        weights: SHA-256 in hexadecimal of its weights.
        data: what they are of, in words.
        people: how many people that are.

    Raises:
        CalibrationError: too few pairs of one kind.
    """
    if len(genuine) < FEWEST_GENUINE or len(impostor) < FEWEST_BEYOND * 100:
        raise CalibrationError(
            f"{len(genuine):,} pairs of one person and {len(impostor):,} of two are too few to fit "
            f"a calibration; it takes {FEWEST_GENUINE} and {FEWEST_BEYOND * 100:,}. Give more "
            "people with two photos or more"
        )
    fars, thresholds = _falling_rates(impostor)
    frrs, refusals = _falling_rates(np.sort(-genuine)[::-1])
    if thresholds[-1] <= thresholds[0]:
        raise CalibrationError(f"all pairs of two people have the similarity {thresholds[0]:.3f}")
    bins = min(GENUINE_BINS, len(genuine) // FEWEST_BEYOND)
    inner = np.unique(np.quantile(genuine, np.linspace(0, 1, bins + 1)[1:-1]))
    below = thresholds[thresholds < inner[0]][::2]
    edges = np.unique(np.concatenate([[-1.0, 1.0], below, inner]))
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-9])]
    same = np.histogram(np.clip(genuine, -1, 1), edges)[0] + 0.5
    if refusals[-1] > refusals[0]:
        rarely = _rate(-edges, frrs, refusals) * len(genuine)
        same = np.where(edges[1:] <= inner[0], np.maximum(np.diff(rarely), 1e-9), same)
    other = np.maximum(-np.diff(_rate(edges, fars, thresholds)) * len(impostor), 1e-9)
    logs = np.log(same / same.sum()) - np.log(other / other.sum())
    sure = 1.0 / (1.0 / same + 1.0 / other)  # one over the logarithm's variance
    return Calibration(
        model,
        weights,
        data,
        people,
        len(genuine),
        len(impostor),
        tuple(fars.tolist()),
        tuple(thresholds.tolist()),
        tuple(((edges[1:] + edges[:-1]) / 2).tolist()),
        tuple(_never_falling(logs, sure).tolist()),
    )


def _falling_rates(
    highest_first: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates falling from 1, and the scores that so large a share reaches."""
    decades = np.log10(len(highest_first) / FEWEST_BEYOND)
    rates = 10.0 ** -(np.arange(int(decades * STEPS_A_DECADE) + 1) / STEPS_A_DECADE)
    places = np.ceil(rates * len(highest_first) - 1e-9).astype(np.int64) - 1
    return rates, highest_first[places].astype(np.float64)


def _rate(scores: NDArray[np.float64], rates: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Share that reaches a score, between and beyond those that `_falling_rates` gave."""
    logs, known = np.log10(np.asarray(rates)), np.asarray(at)
    before = int(np.searchsorted(known, known[-1], side="left")) - 1
    before = min(before, max(len(known) - 1 - STEPS_A_DECADE, 0))
    slope = (logs[-1] - logs[before]) / (known[-1] - known[before])
    beyond = np.maximum(scores - known[-1], 0.0)
    return np.asarray(10.0 ** (np.interp(scores, known, logs) + slope * beyond))


def _never_falling(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The nearest values, by weighted squares, that never fall."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            before, heavy, many = pools.pop()
            mean = (mean * total + before * heavy) / (total + heavy)
            total, count = total + heavy, count + many
        pools.append((mean, total, count))
    return np.concatenate([np.full(count, mean) for mean, _, count in pools])


@dataclass(frozen=True, eq=False)
class Verification:
    """Whether faces are of one person; numbers for one pair, arrays for many.

    Attributes:
        same: whether the similarity reaches the threshold.
        probability: that they are one person, 0…1, where one in two such pairs is.
        similarity: cosine of the embeddings, −1…1.
        distance: length of their difference, √(2 − 2 · similarity), 0…2.
        threshold: the lowest similarity that is taken for one person.
        far: share of pairs of two people that reach the threshold.
    """

    same: Any
    probability: Any
    similarity: Any
    distance: Any
    threshold: float
    far: float

    @property
    def distance_threshold(self) -> float:
        """The largest distance that is taken for one person."""
        return float(np.sqrt(2 - 2 * self.threshold))

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-able values."""
        facts = asdict(self) | {"distance_threshold": self.distance_threshold}
        return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in facts.items()}


def verified(
    calibration: Calibration, similarity: NDArray[np.float64], far: float = USUAL_FAR
) -> Verification:
    """The answer for pairs of given similarities.

    Args:
        calibration: of the model that made the embeddings.
        similarity: float64 () of one pair, or float64 (n,) of several.
        far: the false accept rate at which a pair counts as one person.

    Raises:
        CalibrationError: the calibration does not know so low a rate.
    """
    threshold = calibration.threshold(far)
    similarity = np.clip(np.asarray(similarity, np.float64), -1.0, 1.0)
    same, distance = similarity >= threshold, np.sqrt(2 - 2 * similarity)
    probability = np.asarray(calibration.probability(similarity))
    if similarity.ndim:
        return Verification(same, probability, similarity, distance, threshold, far)
    return Verification(
        same.item(), probability.item(), similarity.item(), distance.item(), threshold, far
    )
