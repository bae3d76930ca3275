"""The highest similarities of strangers, fitted without labels."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_embeddings import DIMENSION, SHARED, calibrated, drawn

from face2vec.calibration import Calibration
from face2vec.errors import CalibrationError
from face2vec.models.store import shipped_calibration
from face2vec.tail import FROM_RATE, PRIOR_PAIRS, SHIFTS, Tail, TailFit

PAIRS = 400_000


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrated(None)


def fitted(calibration: Calibration, similarities: np.ndarray) -> Tail:
    fit = TailFit(calibration.threshold, calibration.fars[-1], calibration.far, calibration.tar)
    bins = fit.bins(similarities[similarities >= fit.lowest])
    return fit(bins, len(similarities))


def similarities(calibration: Calibration, shift: float, mates: int, harder: float) -> np.ndarray:
    """Similarities of pairs of which ``mates`` show one person."""
    rng = np.random.default_rng(1)
    rates = -np.log10(rng.random(PAIRS - mates))
    strangers = np.interp(rates, -np.log10(calibration.fars), calibration.thresholds)
    grid = np.linspace(1, -1, 4001)
    same = np.interp(rng.random(mates), calibration.tar(grid), grid)
    return np.concatenate([strangers + shift, same - harder]).astype(np.float32)


@pytest.mark.parametrize("shift", [-0.05, 0.0, 0.05, 0.12])
@pytest.mark.parametrize(("mates", "harder"), [(0, 0.0), (400, 0.0), (4000, 0.0), (4000, 0.15)])
def test_tail_finds_the_shift_of_strangers_whatever_the_mates(
    calibration: Calibration, shift: float, mates: int, harder: float
) -> None:
    found = fitted(calibration, similarities(calibration, shift, mates, harder))
    assert found.shift == pytest.approx(shift, abs=0.01)
    assert found.same == pytest.approx(mates / PAIRS, rel=0.15, abs=2e-4)
    assert found.pairs == PAIRS
    assert found.harder == pytest.approx(harder, abs=0.05 if harder else 0)


def test_tail_of_weighted_pairs_is_that_of_repeated_ones(calibration: Calibration) -> None:
    values = similarities(calibration, 0.05, 400, 0.0)
    fit = TailFit(calibration.threshold, calibration.fars[-1], calibration.far, calibration.tar)
    bins = fit.bins(values[values >= fit.lowest])
    twice = fit(np.concatenate([bins, bins]), 2 * PAIRS)
    weighted = fit(bins, 2 * PAIRS, np.full(len(bins), 2.0))
    assert (weighted.shift, weighted.same) == (twice.shift, pytest.approx(twice.same))


def test_few_pairs_are_trusted_little() -> None:
    assert Tail(0.1, 0.0, PRIOR_PAIRS / FROM_RATE).trusted == pytest.approx(0.05)
    assert Tail(0.1, 0.0, 0).trusted == 0
    assert Tail(-0.1, 0.0, 1e9).trusted == pytest.approx(-0.1)


def test_calibration_on_few_pairs_has_no_tail(calibration: Calibration) -> None:
    few = Calibration("m", "w", "d", 50, 100, 1000, calibration.fars[:17],
                      calibration.thresholds[:17], calibration.similarities,
                      calibration.log_ratios)  # fmt: skip
    assert few.fars[-1] == pytest.approx(1e-2)
    assert not few.has_tail
    faces = drawn(300, 1, SHARED[2], 2, 5)[:, 0]
    assert few.tail(faces).shift == 0
    assert few.tails(faces, 3) == [few.tail(faces)] * 4


def test_share_of_genuine_pairs_is_that_of_the_photos(calibration: Calibration) -> None:
    faces = drawn(4000, 2, SHARED[0], 0, 77)
    similar = np.sum(faces[:, 0] * faces[:, 1], axis=1)
    for similarity in (0.7, 0.8, 0.85, 0.9):
        counted = (similar >= similarity).mean()
        assert calibration.tar(similarity) == pytest.approx(counted, abs=0.03)
    assert calibration.tar(-1.0) == pytest.approx(1)
    assert calibration.tar(0.8, 0.1) == pytest.approx(calibration.tar(0.7))


def test_tails_of_drawn_faces_scatter_around_that_of_all(calibration: Calibration) -> None:
    faces = drawn(400, 2, 0.3, 1, 6).reshape(-1, DIMENSION)
    found, *others = calibration.tails(faces, 50)
    shifts = [other.shift for other in others]
    assert found.shift > 0.02
    assert np.median(shifts) == pytest.approx(found.shift, abs=0.01)
    assert 0 < np.std(shifts) < 0.02
    assert calibration.tail(faces) == found


def test_tail_is_within_its_range(calibration: Calibration) -> None:
    crowd = drawn(300, 1, 0.97, 3, 8)[:, 0]
    assert calibration.tail(crowd).shift == SHIFTS[-1]


def test_tail_wants_embeddings_of_the_calibrations_dimension() -> None:
    shipped = shipped_calibration("mini2")
    assert shipped is not None
    with pytest.raises(CalibrationError, match="numbers, not 64"):
        shipped.tail(drawn(10, 1, 0.2, 0, 1)[:, 0])
