"""Metrics of verification, compared with scikit-learn, simple counts, and known results."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from face2vec.evaluation.metrics import (
    PairScores,
    all_pairs,
    area_under_curve,
    best_threshold,
    curve,
    equal_error_rate,
    ten_folds,
    threshold_at,
    true_accepts,
    with_intervals,
)


def faces(people: int = 60, most: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy embeddings of people with one to several photos, in random order."""
    rng = np.random.default_rng(seed)
    whose = np.repeat(np.arange(people), rng.integers(1, most + 1, people))
    rng.shuffle(whose)
    centres = rng.standard_normal((people, 16))
    rows = centres[whose] + 0.9 * rng.standard_normal((len(whose), 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), whose


def slowly(embeddings: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(similarity, same person) of every pair, from a simple loop."""
    pairs = [
        (np.dot(embeddings[i], embeddings[j]), people[i] == people[j])
        for i in range(len(people))
        for j in range(i + 1, len(people))
    ]
    return np.array([s for s, _ in pairs]), np.array([same for _, same in pairs])


def made(genuine: list[float], impostor: list[float]) -> PairScores:
    """Given scores, of as many people with two photos as there are genuine pairs."""
    two = np.full(len(genuine), 2)
    return PairScores(
        np.array(genuine, np.float32),
        np.arange(len(genuine)),
        np.sort(np.array(impostor, np.float32))[::-1],
        np.zeros((0, 2), np.int64),
        two,
        two,
    )


def test_all_pairs_equal_a_simple_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "face2vec.evaluation.metrics.BLOCK", 17
    )  # several blocks, the last one smaller
    embeddings, people = faces()
    similarities, same = slowly(embeddings, people)
    pairs = all_pairs(embeddings, people)
    np.testing.assert_allclose(np.sort(pairs.genuine), np.sort(similarities[same]), atol=1e-6)
    np.testing.assert_allclose(pairs.impostor[::-1], np.sort(similarities[~same]), atol=1e-6)
    assert pairs.missed == 0


def test_all_pairs_store_the_people_of_the_most_similar_impostors() -> None:
    embeddings, people = faces()
    pairs = all_pairs(embeddings, people, highest_far=0.01)
    assert len(pairs.impostor_people) == int(0.015 * len(pairs.impostor)) + 1
    for place in (0, 5, len(pairs.impostor_people) - 1):
        one, other = pairs.impostor_people[place]
        between = embeddings[people == one] @ embeddings[people == other].T
        assert np.abs(between - pairs.impostor[place]).min() < 1e-6


def test_photos_without_a_face_are_missed_genuine_pairs() -> None:
    embeddings, people = faces()
    photos = np.bincount(people)
    photos[3] += 2
    known = np.bincount(people)[3]
    pairs = all_pairs(embeddings, people, photos)
    assert pairs.missed == (known + 2) * (known + 1) // 2 - known * (known - 1) // 2
    whole = true_accepts(all_pairs(embeddings, people), 0.01)
    with_missed = true_accepts(pairs, 0.01)
    assert with_missed.threshold == whole.threshold
    assert with_missed.tar == pytest.approx(
        whole.tar * len(pairs.genuine) / (len(pairs.genuine) + pairs.missed)
    )


@pytest.mark.parametrize("far", [0.1, 0.01, 1e-3, 1e-4, 0.0])
def test_true_accepts_equal_scikit_learn(far: float) -> None:
    embeddings, people = faces()
    similarities, same = slowly(embeddings, people)
    fpr, tpr, _ = reference.roc_curve(same, similarities, drop_intermediate=False)
    found = true_accepts(all_pairs(embeddings, people), far)
    assert found.tar == pytest.approx(tpr[fpr <= far].max())
    assert (similarities[~same] >= found.threshold).mean() <= far


def test_true_accepts_with_ties_stay_within_the_rate() -> None:
    pairs = made([0.5, 0.9], [0.5, 0.5, 0.5, 0.1])
    assert true_accepts(pairs, 0.5).tar == 0.5  # all three at 0.5 are refused, one of them genuine
    assert true_accepts(pairs, 0.75).tar == 1.0
    assert true_accepts(pairs, 1.0) == (1.0, -1.0, 1.0, pytest.approx(np.nan, nan_ok=True),
                                        pytest.approx(np.nan, nan_ok=True))  # fmt: skip


def test_true_accepts_without_pairs_of_one_kind_are_nan() -> None:
    assert np.isnan(true_accepts(made([], [0.1]), 0.1).tar)
    assert np.isnan(true_accepts(made([0.1], []), 0.1).tar)


def test_threshold_at_accepts_exactly_the_allowed_share() -> None:
    scores = np.linspace(0.9, -0.9, 1001, dtype=np.float32)
    for rate in (0.0, 0.001, 0.1, 0.5):
        assert (scores >= threshold_at(scores, rate)).sum() == int(rate * 1001)


def test_area_under_curve_equals_scikit_learn() -> None:
    embeddings, people = faces()
    similarities, same = slowly(embeddings, people)
    found = area_under_curve(all_pairs(embeddings, people))
    assert found == pytest.approx(reference.roc_auc_score(same, similarities), abs=1e-6)
    assert area_under_curve(made([0.5, 0.7], [0.5, 0.1])) == (0.5 + 1 + 1 + 1) / 4


def test_equal_error_rate_is_where_both_errors_are_equal() -> None:
    embeddings, people = faces(people=200)
    similarities, same = slowly(embeddings, people)
    fpr, tpr, _ = reference.roc_curve(same, similarities)
    by_reference = fpr[np.argmin(np.abs(fpr - (1 - tpr)))]
    assert equal_error_rate(all_pairs(embeddings, people)) == pytest.approx(by_reference, abs=2e-3)
    assert equal_error_rate(made([0.9, 0.8], [0.2, 0.1])) == 0.0
    assert equal_error_rate(made([0.1, 0.2], [0.8, 0.9])) == 1.0


def test_curve_matches_scikit_learn() -> None:
    embeddings, people = faces()
    similarities, same = slowly(embeddings, people)
    fpr, tpr, _ = reference.roc_curve(same, similarities, drop_intermediate=False)
    theirs = set(zip(fpr.round(9), tpr.round(9), strict=True))
    far, tar = curve(all_pairs(embeddings, people))
    ours = list(zip(far.round(9), tar.round(9), strict=True))
    assert set(ours) <= theirs
    assert (ours[0], ours[-1]) == ((0, 0), (1, 1))
    assert (np.diff(far) >= 0).all()
    assert (np.diff(tar) >= 0).all()
    assert len(curve(all_pairs(embeddings, people), most=10)[0]) == 22


def test_intervals_contain_the_true_rate_as_often_as_stated() -> None:
    """The true TAR is that of many people; intervals of few people should contain it."""
    truth = true_accepts(all_pairs(*faces(people=1500, most=4, seed=99)), 0.01).tar
    held = 0
    for seed in range(20):
        pairs = all_pairs(*faces(people=80, most=4, seed=seed))
        (found,) = with_intervals(pairs, [0.01], rounds=60)
        assert found.low <= found.tar <= found.high
        held += found.low <= truth <= found.high
    assert held >= 15


def test_intervals_depend_only_on_the_seed() -> None:
    pairs = all_pairs(*faces())
    assert with_intervals(pairs, [0.01], rounds=20) == with_intervals(pairs, [0.01], rounds=20)
    assert with_intervals(pairs, [0.01], rounds=20, seed=1) != with_intervals(
        pairs, [0.01], rounds=20
    )


def test_ten_folds_of_a_small_example() -> None:
    """Two folds, each with the threshold of the other; pairs without a face count as wrong."""
    similarities = np.array([0.9, 0.8, 0.2, 0.1, 0.7, 0.5, 0.4, np.nan], np.float32)
    same = np.array([True, True, False, False, True, False, True, True])
    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = ten_folds(similarities, same, folds)
    # The best threshold of fold 1 is 0.6 (0.7 | 0.5, 0.4) or 0.3, each with two of three right.
    # That of fold 0 is (0.8 + 0.2) / 2 = 0.5, which classifies 0.7 of fold 1 right and 0.5 wrong.
    assert found.thresholds[1] == pytest.approx(0.5)
    assert found.thresholds[0] in (pytest.approx(0.6), pytest.approx(0.35))
    assert found.accuracies[0] == 1.0
    assert found.accuracies[1] == 0.25
    assert found.mean == 0.625
    assert found.standard_error == pytest.approx(0.375)
    assert found.missing == 1


def test_best_threshold_has_the_highest_accuracy() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        similarities = rng.normal(size=40).round(1).astype(np.float32)  # with ties
        same = rng.random(40) < 1 / (1 + np.exp(-2 * similarities))
        found = best_threshold(similarities, same)
        candidates = [*similarities, similarities.max() + 1]
        best = max(((similarities >= t) == same).sum() for t in candidates)
        assert ((similarities >= found) == same).sum() == best
