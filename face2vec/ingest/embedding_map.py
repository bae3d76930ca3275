"""Learns a linear map from one model's embeddings to another's, from faces that have both.

With the map, faces that only the old model has encoded can be compared with faces of the new
model. It resembles the harmonic embedding of the FaceNet paper (Schroff et al. 2015, section 6),
but is learned after the models instead of with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError

LEAST_FACES = 20
HELD_OUT = 0.2
LEAST_PAIRS = 20
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Maps old embeddings to new ones: (x − ``centre``) ``matrix`` + ``shift``, normalised.

    Attributes:
        centre: float64 (old,), mean of the old embeddings that it was learned from.
        matrix: float64 (old, new).
        shift: float64 (new,), mean of the new embeddings that it was learned from.
    """

    centre: NDArray[np.float64]
    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map embeddings.

        Args:
            embeddings: float32 (n, old), embeddings of the old model.

        Returns:
            float32 (n, new), each of unit length.
        """
        mapped = (embeddings - self.centre) @ self.matrix + self.shift
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (mapped / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit


class MapFigures(NamedTuple):
    """Quality of a map, measured on faces that it was not learned from.

    Attributes:
        faces: number of faces that it was learned from.
        held_out: number of faces that it was measured on.
        cosine: median cosine of mapped and true new embeddings, −1…1.
        found: share of held-out faces whose true new embedding is the most similar to the
            mapped one among all held-out faces, 0…1.
        accuracies: balanced accuracies of verification at the best threshold, on pairs of
            faces of named people: both embeddings of the old model, one mapped and one of the
            new model, both of the new model. None if there are too few pairs.
    """

    faces: int
    held_out: int
    cosine: float
    found: float
    accuracies: tuple[float, float, float] | None = None


def learn_map(
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    people: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> tuple[EmbeddingMap, MapFigures]:
    """Learn a map by ridge regression (Hoerl and Kennard 1970), and measure it.

    One fifth of the faces is held out. It is used to choose the ridge with the highest cosine, and
    for the figures. The returned map is then learned from all faces.

    Args:
        old: float32 (n, old), each of unit length.
        new: float32 (n, new), each of unit length, of the same faces.
        people: int64 (n,), the person of each face, −1 if unknown; None if none is known.
        seed: seed of the random choice of the held-out faces.

    Raises:
        SettingsError: there are fewer than 20 faces.
    """
    if len(old) < LEAST_FACES:
        raise SettingsError(
            f"{len(old)} faces with embeddings of both models are too few to learn a map; "
            f"at least {LEAST_FACES} are needed, and a few thousand are better"
        )
    order = np.random.default_rng(seed).permutation(len(old))
    held, rest = np.split(order, [max(2, round(HELD_OUT * len(old)))])
    systems = _System(old[rest], new[rest])
    best, cosines = RIDGES[0], np.full(len(held), -2.0)
    for ridge in RIDGES:
        reached = np.sum(systems.solved(ridge)(old[held]) * new[held], axis=1)
        if np.median(reached) > np.median(cosines):
            best, cosines = ridge, reached
    mapped = systems.solved(best)(old[held])
    nearest = (mapped @ new[held].T).argmax(axis=1)
    accuracies = None
    if people is not None:
        accuracies = _accuracies(old[held], mapped, new[held], people[held])
    figures = MapFigures(
        len(rest),
        len(held),
        float(np.median(cosines)),
        float((nearest == np.arange(len(held))).mean()),
        accuracies,
    )
    return _System(old, new).solved(best), figures


def best_accuracy(genuine: NDArray[np.floating], impostor: NDArray[np.floating]) -> float:
    """Balanced accuracy of verification at the best threshold, 0…1.

    Args:
        genuine: float32 or float64 (n,), similarities of genuine pairs.
        impostor: float32 or float64 (m,), similarities of impostor pairs.
    """
    thresholds = np.sort(genuine)
    accepted = 1 - np.arange(len(thresholds)) / len(thresholds)
    refused = np.searchsorted(np.sort(impostor), thresholds) / len(impostor)
    return float(((accepted + refused) / 2).max())


def _accuracies(
    old: NDArray[np.float32],
    mapped: NDArray[np.float32],
    new: NDArray[np.float32],
    people: NDArray[np.int64],
) -> tuple[float, float, float] | None:
    some = people >= 0
    one, other = np.triu_indices(int(some.sum()), 1)
    same = people[some][one] == people[some][other]
    if same.sum() < LEAST_PAIRS or (~same).sum() < LEAST_PAIRS:
        return None

    def accuracy(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        similar = first[some] @ second[some].T
        pairs = np.concatenate([similar[one, other], similar[other, one]])
        both = np.concatenate([same, same])
        return best_accuracy(pairs[both], pairs[~both])

    return accuracy(old, old), accuracy(mapped, new), accuracy(new, new)


class _System:
    """The normal equations of a regression, to be solved for several ridge strengths."""

    def __init__(self, old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
        self._centre, self._shift = old.mean(axis=0, dtype=float), new.mean(axis=0, dtype=float)
        x, y = old - self._centre, new - self._shift
        self._gram, self._onto = x.T @ x / len(x), x.T @ y / len(x)

    def solved(self, ridge: float) -> EmbeddingMap:
        """Solve for a map; ``ridge`` is a fraction of the mean variance of the old embeddings."""
        size = len(self._gram)
        strength = ridge * np.trace(self._gram) / size
        matrix = np.linalg.solve(self._gram + strength * np.eye(size), self._onto)
        return EmbeddingMap(self._centre, matrix, self._shift)
