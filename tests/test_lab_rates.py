"""Counts and rates, compared with loops over pairs and with the metrics of evaluations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from face2vec.evaluation.metrics import all_pairs
from face2vec.lab.rates import Counts, Draws, Rate, counted, threshold_for

PEOPLE = np.repeat(np.arange(12), [4, 3, 2, 1, 3, 2, 4, 2, 3, 1, 2, 3])
NAN = float("nan")


def embeddings(seed: int, missing: tuple[int, ...] = ()) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.random.default_rng(0).standard_normal((12, 8))[PEOPLE]
    rows = rows + 0.9 * rng.standard_normal(rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[list(missing)] = np.nan
    return rows.astype(np.float32)


def by_hand(
    queries: np.ndarray, enrolled: np.ndarray, threshold: float, some: np.ndarray | None = None,
    against: np.ndarray | None = None,
) -> dict[str, float]:  # fmt: skip
    """The same figures from a loop over pairs."""
    genuine, accepted, impostor, wrong, asked, first = 0, 0, 0, 0, 0, 0
    for i in range(len(PEOPLE)):
        if some is not None and not some[i]:
            continue
        lost = bool(np.isnan(queries[i]).any())
        similarity = {j: float(queries[i] @ enrolled[j]) for j in range(len(PEOPLE)) if j != i}
        for j, value in similarity.items():
            if against is not None and not against[j]:
                continue
            if PEOPLE[i] == PEOPLE[j]:
                genuine += 1
                accepted += value >= threshold
            elif not lost:
                impostor += 1
                wrong += value >= threshold
        if any(PEOPLE[j] == PEOPLE[i] for j in similarity):
            asked += 1
            first += not lost and PEOPLE[max(similarity, key=similarity.__getitem__)] == PEOPLE[i]
    return {"tar": accepted / genuine, "far": wrong / impostor, "recall": first / asked}


def rates(counts: Counts) -> dict[str, float]:
    draws = Draws(12)
    return {
        "tar": draws.tar(counts).value,
        "far": draws.far(counts).value,
        "recall": draws.recall(counts).value,
    }


def test_counted_equals_loops_over_pairs() -> None:
    queries, enrolled = embeddings(1, missing=(0, 7, 20)), embeddings(2)
    counts = counted(queries, enrolled, PEOPLE, 0.55)
    assert rates(counts) == pytest.approx(by_hand(queries, enrolled, 0.55))
    assert counts.missed == 3
    assert counts.people == 10


def test_counted_of_a_subset_against_a_subset() -> None:
    queries, enrolled = embeddings(3, missing=(5,)), embeddings(4)
    some = np.random.default_rng(5).random(len(PEOPLE)) < 0.6
    counts = counted(queries, enrolled, PEOPLE, 0.5, some, some)
    assert rates(counts) == pytest.approx(by_hand(queries, enrolled, 0.5, some, some))


def test_counts_of_clean_photos_equal_all_pairs() -> None:
    clean = embeddings(6)
    pairs = all_pairs(clean, PEOPLE)
    for far in (0.2, 0.05, 0.01, 0.0):
        allowed = int(far * len(pairs.impostor))
        threshold = threshold_for(pairs.impostor, far)
        assert pairs.impostor[allowed] < threshold
        assert not allowed or threshold < pairs.impostor[allowed - 1]
        counts = counted(clean, clean, PEOPLE, threshold)
        assert rates(counts)["tar"] == pytest.approx((pairs.genuine > threshold).mean())
        assert rates(counts)["far"] == pytest.approx(allowed / len(pairs.impostor))
        assert counts.impostor_pairs == 2 * len(pairs.impostor)


def test_intervals_equal_a_bootstrap_over_people() -> None:
    """Compared with a simple bootstrap over photos with its own draws."""
    queries, enrolled = embeddings(7), embeddings(8)
    counts, rng = counted(queries, enrolled, PEOPLE, 0.55), np.random.default_rng(99)
    similar = queries @ enrolled.T
    tars, fars = [], []
    for _ in range(2000):
        drawn = rng.integers(0, 12, 12)
        rows = np.concatenate([np.flatnonzero(person == PEOPLE) for person in drawn])
        copy = np.repeat(np.arange(12), [int((person == PEOPLE).sum()) for person in drawn])
        whose = PEOPLE[rows]
        over = similar[np.ix_(rows, rows)] >= 0.55
        mated = (copy[:, None] == copy) & (rows[:, None] != rows)
        others = whose[:, None] != whose
        tars.append(over[mated].mean())
        fars.append(over[others].mean())
    draws = Draws(12, rounds=2000)
    for rate, reference in ((draws.tar(counts), tars), (draws.far(counts), fars)):
        low, high = np.percentile(reference, [2.5, 97.5])
        wide = high - low
        assert rate.low == pytest.approx(low, abs=0.1 * wide)
        assert rate.high == pytest.approx(high, abs=0.1 * wide)


def test_interval_of_a_perfect_rate_is_not_empty() -> None:
    clean = embeddings(9)
    nobody = Draws(12).tar(counted(clean, clean, PEOPLE, 1.1))
    everybody = Draws(12).tar(counted(clean, clean, PEOPLE, -1.1))
    # Ten people have a pair: if each is right with probability 0.6915, all are with 2.5 %.
    assert everybody == pytest.approx((1, 0.6915, 1), abs=1e-4)
    assert nobody == pytest.approx((0, 0, 0.3085), abs=1e-4)


def test_kept_uses_the_same_draws_for_clean_photos() -> None:
    clean = embeddings(10)
    before = counted(clean, clean, PEOPLE, 0.5)
    draws = Draws(12)
    assert draws.kept(before, before) == (1, 1, 1)
    after = counted(embeddings(11), clean, PEOPLE, 0.5)
    kept = draws.kept(after, before)
    assert kept.value == pytest.approx(draws.tar(after).value / draws.tar(before).value)
    assert kept.low < kept.value < kept.high


def test_unknown_rate_has_a_dash_and_none() -> None:
    assert Rate(0.66561, 0.6412, 0.69).words() == "66.6% (64.1% to 69.0%)"
    assert Rate(NAN, NAN, NAN).words() == "–"
    assert Rate(0.5, NAN, 1.0).figures() == {"value": 0.5, "low": None, "high": 1.0}
    nobody = counted(embeddings(12), embeddings(12), PEOPLE, 0.5, np.zeros(len(PEOPLE), bool))
    assert all(math.isnan(value) for value in rates(nobody).values())
