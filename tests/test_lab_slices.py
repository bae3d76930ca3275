"""Slices of embeddings that are known to differ."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_embeddings import DIMENSION, SHARED, calibrated, drawn

from face2vec.lab.rates import Draws, counted
from face2vec.lab.slices import FEWEST_PAIRS, FEWEST_PEOPLE, sliced

COUNT, PHOTOS = 60, 3
PEOPLE = np.repeat(np.arange(COUNT), PHOTOS)
HARD = PEOPLE < COUNT // 2
FEW = PEOPLE < FEWEST_PEOPLE - 1


def embeddings(noise: np.ndarray, together: np.ndarray | None = None) -> np.ndarray:
    """Random people and photos around them; people in ``together`` are similar."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((COUNT, 24))
    rows = centres[PEOPLE] + noise[:, None] * rng.standard_normal((len(PEOPLE), 24))
    if together is not None:
        rows[together] += 3 * rng.standard_normal(24)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def remarks(rows: np.ndarray, threshold: float, far: float) -> dict[str, str]:
    slices = {"kind": {"hard": HARD, "easy": ~HARD, "few": FEW, "none": HARD & ~HARD}}
    found = sliced(rows, PEOPLE, threshold, far, slices, Draws(COUNT))
    return {one.value: one.remark for one in found}


def test_slice_of_noisy_photos_is_weak() -> None:
    rows = embeddings(np.where(HARD, 1.1, 0.4))
    assert remarks(rows, 0.6, 0.01) == {"hard": "weak", "easy": "", "few": "too small"}


def test_slice_of_similar_people_is_weak_by_false_accepts() -> None:
    rows = embeddings(np.full(len(PEOPLE), 0.3), together=HARD)
    one, other = sliced(
        rows, PEOPLE, 0.6, 0.01, {"kind": {"hard": HARD, "easy": ~HARD}}, Draws(COUNT)
    )
    assert one.tar.value == 1
    assert one.far.low > 0.01
    assert (one.remark, other.remark) == ("weak", "")


def test_slices_count_only_their_photos() -> None:
    rows = embeddings(np.full(len(PEOPLE), 0.8))
    rows[[0, 100]] = np.nan
    (one,) = sliced(rows, PEOPLE, 0.5, 0.01, {"kind": {"hard": HARD}}, Draws(COUNT))
    counts = counted(rows, rows, PEOPLE, 0.5, HARD)
    assert (one.photos, one.people) == (HARD.sum(), COUNT // 2)
    assert one.pairs == counts.genuine.sum() > FEWEST_PAIRS
    assert one.tar == Draws(COUNT).tar(counts)
    assert one.recall == Draws(COUNT).recall(counts)
    assert one.far == Draws(COUNT).far(counted(rows, rows, PEOPLE, 0.5, HARD, HARD))
    assert one.figures()["tar"]["value"] == one.tar.value


def test_stated_rates_are_compared_with_counted_ones() -> None:
    calibration = calibrated(None)
    faces = drawn(200, 2, SHARED[0], 0, 70).reshape(-1, DIMENSION)
    alike = drawn(200, 2, SHARED[1], 1, 71).reshape(-1, DIMENSION)
    rows, people = np.concatenate([faces, alike]), np.repeat(np.arange(400), 2)
    dense = people >= 200
    slices = {"kind": {"usual": ~dense, "dense": dense}}
    found = sliced(rows, people, 0.6, 0.01, slices, Draws(400), calibration)
    for one, some in zip(found, (~dense, dense), strict=True):
        own = rows[some] @ rows[some].T
        apart = people[some][:, None] != people[some]
        expected = (own[apart] >= calibration.threshold(0.01)).mean() / 0.01
        assert one.stated is not None
        assert one.stated.value == pytest.approx(expected, rel=0.01)
        assert one.stated.low < one.stated.value < one.stated.high
    assert 0.8 < found[0].stated.value < 1.25 < 10 < found[1].stated.value
    cohort = calibration.among(np.random.default_rng(0).permutation(alike))
    (within,) = sliced(rows, people, 0.6, 0.01, {"kind": {"dense": dense}}, Draws(400), cohort)
    assert within.stated.value < 0.1 * found[1].stated.value


def test_slices_without_a_calibration_have_no_stated_rate() -> None:
    (one,) = sliced(embeddings(np.full(len(PEOPLE), 0.8)), PEOPLE, 0.5, 0.01,
                    {"kind": {"hard": HARD}}, Draws(COUNT))  # fmt: skip
    assert one.stated is None
    assert one.figures()["far_over_stated"] is None
