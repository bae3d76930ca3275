"""Calibration of similarities: false accept rates, thresholds and probabilities.

A calibration is fitted on photos of known people. It stores the distributions of the similarities
of genuine pairs (one person) and impostor pairs (two people). A probability also needs a prior:
one half for two photos that are compared, and 1 / N for one of the N faces of a gallery (Bayes'
rule; Brümmer and du Preez, Application-independent evaluation of speaker detection, 2006,
section 2).

Strangers come nearer to some faces than to others. Where the calibration has a `Crowding`, all its
distributions are of the similarity less the mean crowding of the two faces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face2vec import stored
from face2vec.cohort import LOWER, Cohort, cohort_rows, expected_mates, near_of
from face2vec.crowding import Crowding
from face2vec.errors import CalibrationError
from face2vec.products import product
from face2vec.tail import FROM_RATE, Tail, TailFit

Similarities = TypeVar("Similarities", float, NDArray[np.float64])

USUAL_FAR = 1e-3
QUANTILES = 15
"""Quantiles that a mean between two of them is made of."""
FEWEST_BEYOND = 10
"""Least number of impostor pairs above a threshold to estimate its false accept rate."""
FEWEST_GENUINE = 50
STEPS_A_DECADE = 8
GENUINE_BINS = 60
GENUINE_STEPS = 2000
ABOUT = 0.01
"""Similarities that are as near as this are counted together, for the density of impostor pairs."""
MOST_LIKELY = 1 / 3
"""Highest likelihood ratio for each pair of different people: if none of n independent pairs
reaches a similarity, 3 / n is the upper end of a 95 % interval of the rate (Hanley and
Lippman-Hand, If nothing goes wrong, is everything all right?, 1983)."""
FORMAT = 2


@dataclass(frozen=True)
class Calibration:
    """Distributions of similarities, fitted on photos of known people.

    Attributes:
        model: key of the model.
        weights: SHA-256 in hexadecimal of the model's weights.
        data: description of the photos that it was fitted on.
        people: number of people in these photos.
        genuine: number of genuine pairs.
        impostor: number of impostor pairs.
        fars: false accept rates, decreasing.
        thresholds: lowest accepted similarity at each of these rates, increasing.
        similarities: similarities at which the likelihood ratio is known, increasing.
        log_ratios: natural logarithm of the likelihood ratio at each of them: the density of
            genuine pairs divided by that of impostor pairs; never decreasing.
        crowding: how near strangers come to a face; None if that is taken to be equal for all.
        cohort: faces of a gallery, which shows how near strangers come to a face there,
            see `among`; not stored.
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
    crowding: Crowding | None = None
    cohort: Cohort | None = field(default=None, compare=False, repr=False)

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

    def crowded(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """The crowding of faces: by how much strangers are more similar to each than on average.

        Args:
            embeddings: float32 (d,) or (n, d), of unit length.

        Returns:
            float64 () or (n,), in units of similarity, 0 or more; 0 if the calibration has none.

        Raises:
            CalibrationError: the embeddings have another dimension.
        """
        crowding = self._crowded(embeddings)
        if self.cohort is None:
            return crowding
        return np.asarray(crowding + self.cohort.above(embeddings, crowding))

    @property
    def is_crowded(self) -> bool:
        """Whether the crowding of any face may be other than 0."""
        return self.crowding is not None or self.cohort is not None

    def among(self, embeddings: NDArray[np.float32]) -> Calibration:
        """The same calibration for the gallery of these faces, which are its cohort.

        Where the people of a gallery are more like each other than those that the calibration was
        fitted on, the crowding of each face rises, so far that the highest similarities agree with
        the calibration; see `tail`. It never falls.

        Args:
            embeddings: float32 (n, d), faces of the gallery in random order; with too few people,
                the calibration stays as it is.

        Raises:
            CalibrationError: the embeddings have another dimension.
        """
        crowding = self._crowded(embeddings)
        threshold = self.threshold(max(USUAL_FAR, self.fars[-1]))
        lower = 1 - np.linspace(*LOWER, QUANTILES)
        expected = float(np.mean([self.threshold(rate) for rate in lower.tolist()]))
        rows, weight = cohort_rows(embeddings, crowding, threshold, expected)
        if not weight:
            return replace(self, cohort=None)
        expected = self.threshold(0.5)
        ranks = (np.arange(*near_of(len(rows))) + 0.5) / len(rows)
        near = float(np.mean([self.threshold(rate) for rate in ranks.tolist()]))
        mean_crowding = float(crowding[rows].mean())
        faces = embeddings[rows]
        cohort = Cohort(faces, mean_crowding, expected, near - expected, weight)
        tail = replace(self, cohort=cohort).tail(faces)
        harder = weight * tail.harder
        return replace(self, cohort=replace(cohort, shift=tail.trusted, harder=harder))

    @property
    def has_tail(self) -> bool:
        """Whether it covers enough rates to compare the highest similarities of strangers."""
        return self.fars[-1] <= FROM_RATE / 10

    def tail(self, embeddings: NDArray[np.float32]) -> Tail:
        """Where the highest similarities of strangers among faces lie, without labels.

        Args:
            embeddings: float32 (n, d), two faces or more.

        Returns:
            The fit; its shift is 0 if the calibration covers too few rates to tell.

        Raises:
            CalibrationError: the embeddings have another dimension.
        """
        return self.tails(embeddings, 0)[0]

    def tails(self, embeddings: NDArray[np.float32], draws: int) -> list[Tail]:
        """The same, and what it would be among other faces of the same kind.

        Args:
            embeddings: float32 (n, d), two faces or more.
            draws: how often as many faces are drawn from these, with replacement (Efron,
                Bootstrap methods: another look at the jackknife, 1979).

        Returns:
            The fit of the faces, and that of each draw.

        Raises:
            CalibrationError: the embeddings have another dimension.
        """
        count = len(embeddings)
        pairs = count * (count - 1) / 2
        if not self.has_tail:
            return [Tail(0.0, 0.0, pairs)] * (1 + draws)
        fit = TailFit(self.threshold, self.fars[-1], self.far, self.tar)
        similar = self.adjusted(embeddings)
        rows, columns = np.nonzero(np.triu(similar >= fit.lowest, 1))
        bins = fit.bins(similar[rows, columns])
        found, rng = [fit(bins, pairs)], np.random.default_rng(0)
        for _ in range(draws):
            times = np.bincount(rng.integers(0, count, count), minlength=count).astype(float)
            drawn_pairs = float(times.sum() ** 2 - (times**2).sum()) / 2  # none with itself
            found.append(fit(bins, drawn_pairs, times[rows] * times[columns]))
        return found

    def adjusted(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Similarities of all pairs of faces, less the mean crowding of both.

        Args:
            embeddings: float32 (n, d), of unit length.

        Returns:
            float32 (n, n).

        Raises:
            CalibrationError: the embeddings have another dimension.
        """
        half = (self.crowded(embeddings) / 2).astype(np.float32)
        return product(embeddings, embeddings) - half[:, None] - half

    def mates(self, log_ratios: NDArray[np.float64], count: int) -> float:
        """How many other photos of its person a face of the gallery has; see `expected_mates`.

        Where the cohort may be of few people, people who look alike would be taken for mates, so
        the estimate is nearer to 1; without a cohort it is 1.

        Args:
            log_ratios: float64 (n, k), logarithms of the likelihood ratios of the k nearest faces
                of each of n faces; −∞ for none.
            count: number of faces in the gallery, at least 2.
        """
        if self.cohort is None:
            return 1.0
        found = expected_mates(log_ratios, count, float(self.log_odds(1.0)))
        return float(found**self.cohort.weight)

    def _crowded(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """The crowding by the density of faces alone."""
        if self.crowding is None:
            return np.zeros(embeddings.shape[:-1])
        if embeddings.shape[-1] != self.crowding.dimension:
            raise CalibrationError(
                f"the calibration of {self.model!r} is for embeddings of {self.crowding.dimension} "
                f"numbers, not {embeddings.shape[-1]}"
            )
        return self.crowding(embeddings)

    def threshold(self, far: float = USUAL_FAR) -> float:
        """The lowest accepted similarity at a false accept rate, of two faces without crowding.

        Of two other faces, the similarity less their mean crowding must reach it.

        Args:
            far: the false accept rate.

        Raises:
            CalibrationError: the rate is not above 0 and at most 1, or the calibration was fitted
                on too few pairs for so low a rate.
        """
        if not 0 < far <= 1:
            raise CalibrationError(f"far must be above 0 and at most 1, not {far}")
        if not self.fars[-1] <= far <= 1:
            raise CalibrationError(
                f"no threshold is known for a false accept rate of {far:g}: the calibration of "
                f"{self.model!r} was fitted on {self.impostor:,} impostor pairs and covers rates "
                f"from {self.fars[-1]:.3g} to 1; choose one of these, or fit it on more people: "
                "face2vec calibrate GALLERY --people PEOPLE"
            )
        logs = -np.log10(self.fars)
        return float(np.interp(-np.log10(far), logs, self.thresholds))

    def far(self, similarity: Similarities, crowding: ArrayLike = 0.0) -> Similarities:
        """Share of impostor pairs with at least this similarity, 0…1.

        Args:
            similarity: one similarity or an array of them, −1…1.
            crowding: mean crowding of the two faces of each, see `crowded`.

        Above the last known threshold the rate is extrapolated with the slope of the last decade.
        The tail of the similarities falls faster, so the extrapolated rate is too high rather
        than too low.
        """
        rate: Any = _rate(np.asarray(similarity) - np.asarray(crowding), self.fars, self.thresholds)
        return cast("Similarities", rate)

    def tar(self, similarity: Similarities, crowding: ArrayLike = 0.0) -> Similarities:
        """Share of genuine pairs with at least this similarity, 0…1.

        Args:
            similarity: one similarity or an array of them, −1…1.
            crowding: mean crowding of the two faces of each, see `crowded`.
        """
        known, reached = self._genuine
        share: Any = np.interp(np.asarray(similarity) - np.asarray(crowding), known, reached)
        return cast("Similarities", share)

    @cached_property
    def _genuine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Similarities, increasing, and the share of genuine pairs that reaches each."""
        grid = np.linspace(-1.0, 1.0, GENUINE_STEPS + 1)
        impostor = -np.diff(self.far(grid), append=0.0)
        genuine = impostor * np.exp(np.interp(grid, self.similarities, self.log_ratios))
        return grid, genuine[::-1].cumsum()[::-1] / genuine.sum()

    def probability(
        self, similarity: Similarities, prior: float = 0.5, crowding: ArrayLike = 0.0
    ) -> Similarities:
        """Probability that two faces of this similarity show one person, 0…1.

        Args:
            similarity: one similarity or an array of them, −1…1.
            prior: prior probability, greater than 0 and less than 1; for one face of a gallery
                of N faces, m of which are expected to show the person, m / N.
            crowding: mean crowding of the two faces of each similarity, see `crowded`.

        Raises:
            CalibrationError: the prior is not between 0 and 1.
        """
        odds: Any = self.log_odds(similarity, prior, crowding)
        return cast("Similarities", 1.0 / (1.0 + np.exp(-odds)))

    def log_odds(
        self, similarity: Similarities, prior: float = 0.5, crowding: ArrayLike = 0.0
    ) -> Similarities:
        """Natural logarithm of the odds that two faces show one person; see `probability`.

        The likelihood ratio is at most a third of the number of pairs of different people that the
        calibration was fitted on: it cannot be known that strangers are rarer than that.

        Raises:
            CalibrationError: the prior is not between 0 and 1.
        """
        if not 0 < prior < 1:
            raise CalibrationError(f"prior is {prior}; it must be between 0 and 1")
        alike = np.asarray(similarity) - np.asarray(crowding)
        known, ratios = self._ratios
        ratio = np.interp(alike, known, ratios)
        odds: Any = np.minimum(ratio, self._most) + np.log(prior / (1 - prior))
        return cast("Similarities", odds)

    @cached_property
    def _ratios(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Similarities, increasing, and the logarithm of the likelihood ratio at each.

        In a gallery whose photos of one person are harder to recognize, the density of genuine
        pairs is that of a similarity that is as much higher. The ratio never falls by this: where
        strangers are more frequent than photos of one person, or are not known, it stays.
        """
        known, ratios = np.array(self.similarities), np.array(self.log_ratios)
        if self.cohort is None or not self.cohort.harder:
            return known, ratios
        grid = np.linspace(self.threshold(0.5), 1.0, GENUINE_STEPS + 1)
        easier = grid + self.cohort.harder
        rarer = np.log(self._impostors_about(easier) / self._impostors_about(grid))
        higher = np.interp(easier, known, ratios) + rarer
        raised = np.maximum.accumulate(np.maximum(higher, np.interp(grid, known, ratios)))
        below = known < grid[0]
        return np.append(known[below], grid), np.append(ratios[below], raised)

    def _impostors_about(self, similarities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of impostor pairs near each similarity."""
        shares = self.far(similarities - ABOUT) - self.far(similarities + ABOUT)
        return np.maximum(shares, np.finfo(np.float64).tiny)

    @property
    def _most(self) -> float:
        """Highest natural logarithm of a likelihood ratio that the pairs can support."""
        return float(np.log(max(MOST_LIKELY * self.people * (self.people - 1) / 2, 1.0)))

    def to_json(self) -> str:
        """Encode as JSON for storage."""
        facts = asdict(replace(self, crowding=None, cohort=None))
        del facts["cohort"]
        facts["crowding"] = None if self.crowding is None else self.crowding.to_dict()
        return json.dumps({"format": FORMAT} | facts)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Decode a stored calibration.

        Raises:
            CalibrationError: the text is damaged, or was written by a newer face2vec.
        """
        try:
            facts = stored.mapping(stored.parsed(text, "it"), "it")
            if stored.integer(facts.pop("format", None), "its format") > FORMAT:
                raise CalibrationError(
                    "the calibration was written by a newer face2vec; update face2vec, or fit it "
                    "again"
                )
            for name in ("model", "weights", "data"):
                stored.text(facts.get(name), name)
            for name in ("people", "genuine", "impostor"):
                stored.integer(facts.get(name), name)
            for name in ("fars", "thresholds", "similarities", "log_ratios"):
                values = stored.array(facts.get(name), name)
                facts[name] = tuple(stored.number(value, name) for value in values)
            if (crowding := facts.pop("crowding", None)) is not None:
                facts["crowding"] = Crowding.from_dict(stored.mapping(crowding, "its crowding"))
            return cls(**facts)
        except (ValueError, TypeError) as error:
            raise CalibrationError(f"the calibration is damaged ({error}); fit it again") from error


def fit(
    genuine: NDArray[np.float32],
    impostor: NDArray[np.float32],
    *,
    model: str,
    weights: str,
    data: str,
    people: int,
    crowding: Crowding | None = None,
) -> Calibration:
    """Fit a calibration on the similarities of genuine and impostor pairs.

    The likelihood ratio is that of two histograms. Each bin has the same number of genuine pairs.
    Pooling adjacent violators makes the ratio monotone (Ayer et al., An empirical distribution
    function for sampling with incomplete information, 1955). In a tail with almost no pairs of one
    kind, their number is extrapolated from their rate.

    Args:
        genuine: float32 (g,), similarities of genuine pairs.
        impostor: float32 (i,), similarities of impostor pairs, highest first.
        model: key of the model.
        weights: SHA-256 in hexadecimal of its weights.
        data: description of the photos.
        people: number of people in the photos.
        crowding: the crowding, if it was subtracted from the similarities.

    Raises:
        CalibrationError: there are too few pairs of one kind.
    """
    if len(genuine) < FEWEST_GENUINE or len(impostor) < FEWEST_BEYOND * 100:
        raise CalibrationError(
            f"{len(genuine):,} genuine and {len(impostor):,} impostor pairs are too few to fit a "
            f"calibration, which needs {FEWEST_GENUINE} and {FEWEST_BEYOND * 100:,}; give more "
            "people with two or more photos each"
        )
    fars, thresholds = _falling_rates(impostor)
    frrs, refusals = _falling_rates(np.sort(-genuine)[::-1])
    if thresholds[-1] <= thresholds[0]:
        raise CalibrationError(f"all impostor pairs have the similarity {thresholds[0]:.3f}")
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
    certainty = 1.0 / (1.0 / same + 1.0 / other)  # inverse variance of the logarithm
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
        tuple(_isotonic(logs, certainty).tolist()),
        crowding,
    )


def _falling_rates(
    highest_first: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates decreasing from 1, and the score that each share of the values reaches."""
    decades = np.log10(len(highest_first) / FEWEST_BEYOND)
    rates = 10.0 ** -(np.arange(int(decades * STEPS_A_DECADE) + 1) / STEPS_A_DECADE)
    places = np.ceil(rates * len(highest_first) - 1e-9).astype(np.int64) - 1
    return rates, highest_first[places].astype(np.float64)


def _rate(scores: NDArray[np.float64], rates: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Share that reaches a score, interpolated and extrapolated from `_falling_rates`."""
    logs, known = np.log10(np.asarray(rates)), np.asarray(at)
    before = int(np.searchsorted(known, known[-1], side="left")) - 1
    before = min(before, max(len(known) - 1 - STEPS_A_DECADE, 0))
    slope = (logs[-1] - logs[before]) / (known[-1] - known[before])
    beyond = np.maximum(scores - known[-1], 0.0)
    return np.asarray(10.0 ** (np.interp(scores, known, logs) + slope * beyond))


def _isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Isotonic regression: the nearest non-decreasing values in weighted least squares."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of values
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
    """Whether two faces show one person; numbers for one pair, arrays for several.

    Attributes:
        same: whether the similarity reaches the threshold.
        probability: probability that the faces show one person, 0…1, with a prior of one half.
        similarity: cosine of the embeddings, −1…1.
        distance: Euclidean distance of the embeddings, √(2 − 2 · similarity), 0…2.
        threshold: lowest similarity that counts as one person; it is higher for faces to which
            strangers come near.
        far: share of impostor pairs that reach the threshold.
        outside: why the probability and the rate are less certain than stated, in words; empty if
            nothing is known against them.
    """

    same: Any
    probability: Any
    similarity: Any
    distance: Any
    threshold: Any
    far: float
    outside: tuple[str, ...] = ()

    @property
    def distance_threshold(self) -> Any:
        """The largest distance that counts as one person."""
        return np.sqrt(2 - 2 * np.minimum(self.threshold, 1.0))

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-able values."""
        facts = asdict(self) | {"distance_threshold": self.distance_threshold}
        facts["outside"] = list(self.outside)
        return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in facts.items()}


def verified(
    calibration: Calibration,
    similarity: NDArray[np.float64],
    far: float = USUAL_FAR,
    crowding: ArrayLike = 0.0,
) -> Verification:
    """Verify pairs by their similarities.

    Args:
        calibration: calibration of the model that made the embeddings.
        similarity: float64 () for one pair, or float64 (n,) for several.
        far: false accept rate of the threshold.
        crowding: mean crowding of the two faces of each pair, see `Calibration.crowded`.

    Raises:
        CalibrationError: the calibration was fitted on too few pairs for so low a rate.
    """
    threshold = calibration.threshold(far) + np.asarray(crowding, np.float64)
    similarity = np.clip(np.asarray(similarity, np.float64), -1.0, 1.0)
    same, distance = similarity >= threshold, np.sqrt(2 - 2 * similarity)
    probability = np.asarray(calibration.probability(similarity, crowding=crowding))
    if similarity.ndim:
        threshold = np.broadcast_to(threshold, similarity.shape)
        return Verification(same, probability, similarity, distance, threshold, far)
    return Verification(
        same.item(),
        probability.item(),
        similarity.item(),
        distance.item(),
        threshold.item(),
        far,
    )
