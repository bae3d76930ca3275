"""Embedding maps, compared with scikit-learn's regression and scores."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score

from face2vec.errors import SettingsError
from face2vec.ingest import embedding_map as mapping
from face2vec.ingest.embedding_map import best_accuracy, learn_map


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def both_models(faces: int, noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of one model, and of another that rotates them and adds noise."""
    rng = np.random.default_rng(3)
    old = unit(rng.standard_normal((faces, 12)))
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    return old, unit(old @ turn + noise * rng.standard_normal((faces, 12)))


def test_learn_map_recovers_a_rotation() -> None:
    old, new = both_models(200, noise=0)
    learned, figures = learn_map(old, new)
    assert np.abs(learned(old) - new).max() < 1e-3
    assert (figures.faces, figures.held_out, figures.found) == (160, 40, 1.0)
    assert figures.cosine > 0.9999


@pytest.mark.parametrize("ridge", mapping.RIDGES)
def test_learn_map_equals_ridge_regression(ridge: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "RIDGES", (ridge,))
    old, new = both_models(200, noise=0.3)
    learned, _ = learn_map(old, new)
    variance = old.var(axis=0, dtype=float).mean()
    reference = Ridge(alpha=ridge * variance * len(old)).fit(old.astype(float), new.astype(float))
    assert np.abs(learned(old) - unit(reference.predict(old))).max() < 1e-5


def test_learn_map_measures_on_held_out_faces() -> None:
    rng = np.random.default_rng(5)
    old, new = unit(rng.standard_normal((60, 40))), unit(rng.standard_normal((60, 40)))
    _, figures = learn_map(old, new)  # unrelated embeddings with enough dimensions to overfit
    assert figures.cosine < 0.4
    assert figures.found < 0.5


def test_learn_map_measures_verification_accuracy() -> None:
    rng = np.random.default_rng(9)
    centres = rng.standard_normal((10, 12))
    people = np.repeat(np.arange(10), 20)
    old = unit(centres[people] + 1.5 * rng.standard_normal((200, 12)))
    new = unit(centres[people] + 0.1 * rng.standard_normal((200, 12)))
    people[150:] = -1
    _, figures = learn_map(old, new, people)
    assert figures.accuracies is not None
    both_old, mixed, both_new = figures.accuracies
    assert 0.55 < both_old < mixed < both_new
    assert both_new == 1
    _, nobody = learn_map(old, new, np.full(200, -1))
    assert nobody.accuracies is None


def test_learn_map_refuses_too_few_faces() -> None:
    old, new = both_models(19, noise=0)
    with pytest.raises(SettingsError, match="at least 20 are needed"):
        learn_map(old, new)


def test_best_accuracy_equals_the_best_threshold() -> None:
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(1, 1, 40), rng.normal(0, 1, 300)
    scores = np.concatenate([genuine, impostor])
    truth = np.arange(340) < 40
    wanted = max(balanced_accuracy_score(truth, scores >= limit) for limit in scores)
    assert best_accuracy(genuine, impostor) == pytest.approx(wanted)
