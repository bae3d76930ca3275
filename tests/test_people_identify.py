"""Identification, compared with Bayes' rule written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from face2vec.calibration import Calibration, fit
from face2vec.people.identify import UNKNOWN, probabilities, ranked
from face2vec.types import Person

DIMENSION = 16


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    genuine = np.clip(rng.normal(0.6, 0.12, 4000), -1, 1).astype(np.float32)
    impostor = np.sort(np.clip(rng.normal(0.05, 0.12, 400_000), -1, 1))[::-1].astype(np.float32)
    return fit(genuine, impostor, model="m", weights="w", data="drawn", people=1000)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, DIMENSION))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_probabilities_equal_bayes_rule(calibration: Calibration) -> None:
    rng = np.random.default_rng(1)
    queries, known = unit(rng, 5), unit(rng, 9)
    queries[0] = known[3]
    whose = np.array([7, 2, 7, 4, 4, 2, 2, 2, 7])
    people, found = probabilities(queries, known, whose, calibration)
    assert people.tolist() == [2, 4, 7]
    for query, row in zip(queries, found, strict=True):
        weights = []
        for person in (2, 4, 7):
            ratios = [
                math.exp(calibration.log_odds(float(query @ face)))
                for face in known[whose == person]
            ]
            weights.append((1 - UNKNOWN) / 3 * sum(ratios) / len(ratios))
        total = sum(weights) + UNKNOWN
        np.testing.assert_allclose(row, [w / total for w in weights], rtol=1e-4, atol=1e-12)
    assert found[0].argmax() == 1
    assert found[0, 1] > 0.99


def test_dissimilar_query_is_no_known_person(calibration: Calibration) -> None:
    known = np.eye(DIMENSION, dtype=np.float32)[:4]
    _, found = probabilities(-known[:1], known, np.arange(4), calibration)
    assert 1 - found.sum() > 0.99


def test_more_faces_of_a_person_give_no_advantage(calibration: Calibration) -> None:
    rng = np.random.default_rng(2)
    one = unit(rng, 1)
    known = np.concatenate([one, np.repeat(one, 50, axis=0)])
    _, found = probabilities(one, known, np.array([0] + [1] * 50), calibration)
    assert found[0, 0] == pytest.approx(found[0, 1])


def test_ranked_orders_by_probability() -> None:
    people = [Person(i) for i in range(4)]
    best = ranked(people, np.array([0.1, 0.5, 0.0, 0.3]), 3)
    assert best == [(people[1], 0.5), (people[3], 0.3), (people[0], 0.1)]
