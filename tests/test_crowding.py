"""Crowding: the density of faces, and what calibrations make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_embeddings import SHARED, calibrated, drawn, strangers
from scipy.special import logsumexp

from face2vec.calibration import Calibration, verified
from face2vec.crowding import Crowding, fit_crowding
from face2vec.errors import CalibrationError


@pytest.fixture(scope="module")
def crowding() -> Crowding:
    faces = [drawn(3000, 1, shared, n, n)[:, 0] for n, shared in enumerate(SHARED)]
    found = fit_crowding(
        np.concatenate(faces), centres=30, concentration=40.0, slope=1.0, data="drawn faces"
    )
    density = [found.density(some).mean() for some in faces]
    threshold = [np.quantile(strangers(some), 1 - 1e-3) for some in faces]
    return replace(found, slope=float(np.polyfit(density, threshold, 1)[0]))


def test_density_is_that_of_the_mixture(crowding: Crowding) -> None:
    faces = drawn(50, 1, 0.4, 1, 3)[:, 0]
    centres = np.frombuffer(crowding.centres, np.int8).reshape(len(crowding.scales), -1)
    centres = centres * np.array(crowding.scales)[:, None]
    wanted = logsumexp(40.0 * faces @ centres.T, b=np.array(crowding.shares), axis=1) / 40.0
    np.testing.assert_allclose(crowding.density(faces), wanted, atol=1e-5)
    above = np.maximum(crowding.slope * (wanted - crowding.average), 0)
    np.testing.assert_allclose(crowding(faces), above, atol=1e-5)
    assert (crowding(-faces) == 0).all()
    assert crowding(faces[0]).shape == ()


def test_no_centre_stands_for_fewer_than_ten_faces() -> None:
    faces = drawn(400, 1, 0.4, 1, 3)[:, 0]
    found = fit_crowding(faces, centres=60, concentration=40.0, slope=1.0, data="drawn")
    shares = np.array(found.shares)
    assert shares.sum() == pytest.approx(1)
    assert len(shares) < 60
    assert shares.min() * 400 >= 10 * (shares * 400).sum() / 400
    with pytest.raises(ValueError, match="no centre has 10 faces"):
        fit_crowding(faces[:20], centres=20, concentration=40.0, slope=1.0, data="drawn")


@pytest.mark.parametrize("group", range(len(SHARED)))
def test_stated_rate_holds_at_every_density(crowding: Crowding, group: int) -> None:
    fresh = drawn(1500, 1, SHARED[group], group, 77)[:, 0]
    similarities = strangers(fresh)
    rows, columns = np.triu_indices(len(fresh), 1)
    counted = {}
    for name, known in (("without", None), ("with", crowding)):
        calibration = calibrated(known)
        crowded = calibration.crowded(fresh)
        apart = (crowded[rows] + crowded[columns]) / 2
        counted[name] = (calibration.far(similarities, apart) <= 1e-3).mean() / 1e-3
    assert 0.5 <= counted["with"] <= 2
    if group:
        assert counted["without"] > 20


def test_calibration_with_crowding_survives_json(crowding: Crowding) -> None:
    calibration = calibrated(crowding)
    again = Calibration.from_json(calibration.to_json())
    assert again == calibration
    faces = drawn(3, 1, 0.4, 1, 3)[:, 0]
    np.testing.assert_array_equal(again.crowded(faces), calibration.crowded(faces))


@pytest.mark.parametrize(
    "change",
    [
        {"centres": "AAAA"}, {"centres": 3}, {"scales": []}, {"shares": [2.0]},
        {"concentration": 0}, {"slope": "x"}, {"average": None}, {"data": 1},
    ],
)  # fmt: skip
def test_damaged_crowding_is_refused(crowding: Crowding, change: dict[str, Any]) -> None:
    import json

    facts = json.loads(calibrated(crowding).to_json())
    facts["crowding"] |= change
    with pytest.raises(CalibrationError, match="damaged"):
        Calibration.from_json(json.dumps(facts))


def test_embeddings_of_another_dimension_are_refused(crowding: Crowding) -> None:
    with pytest.raises(CalibrationError, match="for embeddings of 64 numbers, not 8"):
        calibrated(crowding).crowded(np.eye(8, dtype=np.float32))


def test_threshold_of_a_pair_rises_with_its_crowding(crowding: Crowding) -> None:
    calibration = calibrated(crowding)
    one = verified(calibration, np.float64(0.5), 1e-2, 0.1)
    assert one.threshold == pytest.approx(calibration.threshold(1e-2) + 0.1)
    many = verified(calibration, np.array([0.5, 0.5]), 1e-2, np.array([0.1, 0.0]))
    np.testing.assert_allclose(many.threshold, [one.threshold, one.threshold - 0.1])
    assert many.probability[0] == pytest.approx(one.probability)
    assert many.probability[0] < many.probability[1]


def test_probability_is_never_more_sure_than_the_pairs_allow(crowding: Crowding) -> None:
    calibration = calibrated(crowding)
    pairs = 1500 * 1499 / 2
    most = pairs / 3 / (pairs / 3 + 1)
    assert calibration.probability(1.0) <= most + 1e-12
    few = replace(calibration, people=12)
    assert few.probability(1.0) == pytest.approx(22 / 23)
