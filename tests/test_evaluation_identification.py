"""Identification, compared with a simple implementation and on easy and impossible people."""

from __future__ import annotations

import numpy as np
import pytest

from face2vec.evaluation.identification import identify


def faces(spread: float, people: int = 30, photos: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((people, 12)), photos, axis=0)
    rows = centres + spread * rng.standard_normal(centres.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


WHOSE = np.repeat(np.arange(30), 3)
ALL = np.full(30, 3)


def slow_ranks(embeddings: np.ndarray, people: np.ndarray) -> list[int]:
    ranks = []
    for row, person in enumerate(people):
        best = {}
        for other in range(len(people)):
            if other != row:
                similar = float(embeddings[row] @ embeddings[other])
                best[people[other]] = max(best.get(people[other], -2), similar)
        ranks.append(sum(value >= best[person] for value in best.values()))
    return ranks


@pytest.mark.parametrize("spread", [0.4, 1.2])
def test_ranks_equal_a_simple_count(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face2vec.evaluation.identification.BLOCK", 7)
    embeddings = faces(spread)
    shuffled = np.random.default_rng(1).permutation(len(WHOSE))
    found = identify(embeddings[shuffled], WHOSE[shuffled], ALL)
    assert sorted(found.ranks) == sorted(slow_ranks(embeddings, WHOSE))
    assert found.asked == 90
    for rank in (1, 2, 5, 30):
        assert found.within(rank) == np.mean(found.ranks <= rank)
    assert found.within(30) == 1


def test_open_set_of_distinct_people_has_no_errors() -> None:
    found = identify(faces(0.05), WHOSE, ALL)
    assert len(found.known) == len(found.strangers) == 45
    assert (np.diff(found.strangers) <= 0).all()
    threshold, fnir = found.false_negatives(0.0)
    assert threshold > found.strangers[0]
    assert fnir == 0


def test_open_set_of_random_faces_is_nearly_always_wrong() -> None:
    found = identify(faces(1000.0), WHOSE, ALL)
    assert found.false_negatives(0.01)[1] > 0.9
    assert found.within(1) < 0.15


def test_open_set_never_compares_a_face_with_itself() -> None:
    found = identify(faces(0.5), WHOSE, ALL)
    assert found.known.max() < 0.9999


def test_false_positive_rate_is_the_share_of_strangers() -> None:
    found = identify(faces(0.8), WHOSE, ALL)
    for rate in (0.02, 0.1, 0.5):
        threshold, fnir = found.false_negatives(rate)
        assert (found.strangers >= threshold).mean() <= rate
        assert fnir == 1 - (found.known >= threshold).sum() / 45


def test_photos_without_a_face_count_as_wrong() -> None:
    photos = ALL.copy()
    photos[:10] += 1
    found = identify(faces(0.05), WHOSE, photos)
    assert found.missed == 10
    assert found.asked == 100
    assert found.within(1) == 0.9
    missed = found.known_missed
    assert 0 < missed < 10  # about half of these people are unknown
    assert found.false_negatives(0.0)[1] == pytest.approx(missed / (45 + missed))


def test_person_whose_other_photo_has_no_face_has_no_rank() -> None:
    embeddings, people = faces(0.05)[:4], np.array([0, 0, 0, 1])
    found = identify(embeddings, people, np.array([3, 2]))
    assert sorted(found.ranks) == [1, 1, 1, 3]
    assert (
        found.within(2) == 0.6
    )  # three of five: one cannot be identified at any rank, one has no face


def test_people_with_one_photo_are_not_probes() -> None:
    embeddings = faces(0.05)[::3]
    found = identify(embeddings, np.arange(30), np.ones(30, np.int64))
    assert found.asked == 0
    assert np.isnan(found.within(1))
    assert np.isnan(found.false_negatives(0.1)[1])
