"""Calibrations: fits to known distributions, invalid inputs, and storage."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from face2vec.calibration import Calibration, _isotonic, fit, verified
from face2vec.errors import CalibrationError

SAME_MEAN, OTHER_MEAN, SPREAD = 0.6, 0.1, 0.1


def scores(genuine: int = 4000, impostor: int = 400_000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Similarities from two normal distributions, whose likelihood ratio is known."""
    rng = np.random.default_rng(seed)
    same = rng.normal(SAME_MEAN, SPREAD, genuine).astype(np.float32)
    other = rng.normal(OTHER_MEAN, SPREAD, impostor).astype(np.float32)
    return np.clip(same, -1, 1), np.sort(np.clip(other, -1, 1))[::-1]


def fitted(*, genuine: np.ndarray | None = None, impostor: np.ndarray | None = None) -> Calibration:
    same, other = scores()
    return fit(
        same if genuine is None else genuine, other if impostor is None else impostor,
        model="drawn", weights="ab" * 32, data="drawn numbers", people=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fitted()


def true_log_ratio(similarity: np.ndarray) -> np.ndarray:
    """Probability from the densities of the two normal distributions."""
    return ((similarity - OTHER_MEAN) ** 2 - (similarity - SAME_MEAN) ** 2) / (2 * SPREAD**2)


@pytest.mark.parametrize("far", [0.5, 0.1, 1e-2, 1e-3, 1e-4])
def test_threshold_accepts_the_given_share_of_impostor_pairs(
    calibration: Calibration, far: float
) -> None:
    fresh = scores(impostor=4_000_000, seed=1)[1]
    counted = (fresh >= calibration.threshold(far)).mean()
    assert counted == pytest.approx(far, rel=0.35 if far < 1e-3 else 0.1)


def test_far_and_threshold_are_inverse(calibration: Calibration) -> None:
    for far in (0.3, 0.03, 2e-3, 5e-5):
        assert calibration.far(calibration.threshold(far)) == pytest.approx(far, rel=1e-6)


def test_extrapolated_far_decreases_and_is_not_too_low(
    calibration: Calibration,
) -> None:
    last = calibration.thresholds[-1]
    beyond = np.array([last, last + 0.02, last + 0.05, 1.0])
    rates = calibration.far(beyond)
    assert (np.diff(rates) < 0).all()
    fresh = scores(impostor=8_000_000, seed=2)[1]
    assert rates[1] > 0.7 * (fresh >= beyond[1]).mean()


def test_probability_matches_the_densities_of_the_distributions(calibration: Calibration) -> None:
    similarity = np.linspace(0.2, 0.5, 31)
    for prior in (0.5, 0.1, 1e-3):
        odds = true_log_ratio(similarity) + np.log(prior / (1 - prior))
        wanted = 1 / (1 + np.exp(-odds))
        assert np.abs(calibration.probability(similarity, prior) - wanted).max() < 0.08


def test_probabilities_of_new_pairs_match_observed_frequencies(
    calibration: Calibration,
) -> None:
    same, other = scores(genuine=60_000, impostor=60_000, seed=3)
    given_ = calibration.probability(np.concatenate([same, other]).astype(np.float64))
    truth = np.concatenate([np.ones(60_000), np.zeros(60_000)])
    place = np.minimum((given_ * 10).astype(int), 9)
    error = sum(abs(given_[place == n].sum() - truth[place == n].sum()) for n in range(10)) / len(
        truth
    )
    assert error < 0.01


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_probability_never_decreases_with_similarity(one: float, other: float) -> None:
    calibration = _SHARED
    low, high = sorted((one, other))
    assert calibration.probability(low) <= calibration.probability(high)
    assert calibration.far(low) >= calibration.far(high)


_SHARED = fitted()


def test_isotonic_regression_equals_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    values, weights = rng.normal(size=50) + np.linspace(0, 2, 50), rng.uniform(0.1, 3, 50)
    wanted = isotonic_regression(values, sample_weight=weights)
    np.testing.assert_allclose(_isotonic(values, weights), wanted, atol=1e-12)


def test_threshold_refuses_a_rate_below_the_known_range(calibration: Calibration) -> None:
    assert calibration.fars[-1] >= 10 / 400_000
    with pytest.raises(CalibrationError, match=r"400,000 impostor pairs and covers rates from"):
        calibration.threshold(1e-6)
    for far in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(CalibrationError, match="above 0 and at most 1"):
            calibration.threshold(far)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1])
def test_prior_of_zero_or_one_is_refused(calibration: Calibration, prior: float) -> None:
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        calibration.probability(0.5, prior)


def test_fit_refuses_too_few_pairs() -> None:
    same, other = scores()
    with pytest.raises(CalibrationError, match="20 genuine and"):
        fitted(genuine=same[:20])
    with pytest.raises(CalibrationError, match="and 500 impostor pairs are too few"):
        fitted(impostor=other[:500])


def test_fit_handles_perfect_and_random_models() -> None:
    _, other = scores()
    perfect = fitted(genuine=np.full(100, 0.9, np.float32), impostor=other)
    assert perfect.probability(0.9) > 0.99
    useless = fitted(genuine=other[::80].copy(), impostor=other)
    spread = useless.probability(np.linspace(-0.1, 0.3, 9))
    assert np.abs(spread - 0.5).max() < 0.1
    constant = np.full(5000, 0.3, np.float32)
    with pytest.raises(CalibrationError):
        fitted(genuine=constant[:100], impostor=constant)


def test_calibration_is_equal_after_storage(calibration: Calibration) -> None:
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "change",
    [{"fars": [0.1]}, {"thresholds": [0.3, 0.1]}, {"log_ratios": None}, {"more": 1},
     {"similarities": "no"}, {"format": "x"}],
)  # fmt: skip
def test_damaged_calibration_is_refused(calibration: Calibration, change: dict) -> None:
    text = json.dumps(json.loads(calibration.to_json()) | change)
    with pytest.raises(CalibrationError, match="damaged"):
        Calibration.from_json(text)
    with pytest.raises(CalibrationError, match="damaged"):
        Calibration.from_json("[1]")


def test_calibration_of_a_newer_face2vec_is_refused(calibration: Calibration) -> None:
    text = json.dumps(json.loads(calibration.to_json()) | {"format": 3})
    with pytest.raises(CalibrationError, match="newer face2vec"):
        Calibration.from_json(text)


def test_decreasing_thresholds_are_refused(calibration: Calibration) -> None:
    with pytest.raises(CalibrationError, match="damaged"):
        replace(calibration, thresholds=calibration.thresholds[::-1])
    assert asdict(calibration)["people"] == 900


def test_similarity_and_distance_give_the_same_decision(calibration: Calibration) -> None:
    similarity = np.concatenate([np.linspace(-1, 1, 2001), [calibration.threshold(1e-3)]])
    found = verified(calibration, similarity, 1e-3)
    assert np.array_equal(found.same, found.distance <= found.distance_threshold + 1e-12)
    assert np.array_equal(found.same, similarity >= found.threshold)
    assert found.same[-1]
    np.testing.assert_allclose(found.distance**2, 2 - 2 * similarity, atol=1e-12)


def test_verified_returns_numbers_for_one_pair_and_arrays_for_many(
    calibration: Calibration,
) -> None:
    one = verified(calibration, np.float64(0.55), 1e-2)
    many = verified(calibration, np.array([0.55, 0.1]), 1e-2)
    assert (one.same, type(one.same), type(one.probability)) == (True, bool, float)
    assert many.same.tolist() == [True, False]
    assert many.probability[0] == one.probability
    assert json.loads(json.dumps(many.to_dict()))["far"] == 0.01
    assert one.to_dict()["distance_threshold"] == pytest.approx(
        np.sqrt(2 - 2 * calibration.threshold(1e-2))
    )
