"""The ways to group faces: average linkage of log odds, and those of other programs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import MissingExtraError, SettingsError
from face2vec.people.clustering import Evidence, Faces, Ids, average, cosines, grouped, neighbours
from face2vec.types import METHODS, Method

MOST_PAIRED = 20_000
"""Most faces for methods that store the distances of all pairs."""
ROUNDS = 20  # of Chinese whispers


def grouped_by(
    method: Method,
    faces: Faces,
    evidence: Evidence,
    near: Sequence[Ids],
    *,
    similarity: float | None = None,
    people: int | None = None,
) -> list[Ids]:
    """Group faces.

    All methods but ``"average"`` look at similarities alone: not at the crowding of a face, and
    not at whether two faces are in one photo.

    Args:
        method: ``"average"`` for average linkage of log odds (see `average`); ``"agglomerative"``
            for average linkage of distances; ``"k-means"`` (Lloyd, 1982); ``"dbscan"`` with one
            neighbour per core point (Ester et al., 1996); ``"hdbscan"`` (Campello et al., 2013);
            ``"chinese-whispers"`` (Biemann, 2006).
        faces: the faces to group.
        evidence: log odds of pairs.
        near: int64 (m,) ids of the faces nearest to each face, as for `average`.
        similarity: lowest similarity of faces that belong together, for ``"agglomerative"``,
            ``"dbscan"`` and ``"chinese-whispers"``; None for the one at which the odds are even.
        people: number of people, for ``"k-means"``.

    Returns:
        int64 (n,) ids of each group of two or more faces.

    Raises:
        SettingsError: the method is unknown, the number of people is missing or out of range, or
            there are too many faces for the method.
        MissingExtraError: SciPy or scikit-learn is not installed.
    """
    if method not in METHODS:
        raise SettingsError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if (people is not None) != (method == "k-means"):
        raise SettingsError(
            "k-means needs the number of people, and no other method takes it; give it with "
            "people=, or --count"
        )
    if method == "average":
        return average(faces, evidence, near)
    if len(faces) < 2:
        return []
    least = evidence.even_similarity if similarity is None else similarity
    if method == "chinese-whispers":
        labels = _chinese_whispers(len(faces), *_similar(faces, near, least))
    else:
        labels = _of_scikit(method, faces, least, people)
    return grouped(faces.ids, np.asarray(labels, np.int64))


def _of_scikit(method: str, faces: Faces, least: float, people: int | None) -> Any:
    try:
        cluster = importlib.import_module("sklearn.cluster")
    except ImportError as error:
        raise MissingExtraError(f"method '{method}'", "scikit-learn", "people") from error
    radius = _distance(np.float64(least))
    if method == "k-means":
        if people is None or not 1 <= people <= len(faces):
            raise SettingsError(f"people must be from 1 to the {len(faces):,} faces, not {people}")
        return cluster.KMeans(people, n_init=4, random_state=0).fit_predict(faces.vectors)
    if method == "dbscan":
        return cluster.DBSCAN(eps=radius, min_samples=2).fit_predict(faces.vectors)
    if len(faces) > MOST_PAIRED:
        raise SettingsError(
            f"{method} stores the distances of all pairs, and {len(faces):,} faces are more than "
            f"{MOST_PAIRED:,}; choose average, dbscan or chinese-whispers"
        )
    # A matrix of all distances, because search trees are far slower in so many dimensions.
    distances = _distance((faces.vectors @ faces.vectors.T).astype(np.float64))
    if method == "hdbscan":
        how = cluster.HDBSCAN(min_cluster_size=2, metric="precomputed", copy=False)
    else:
        how = cluster.AgglomerativeClustering(
            None, distance_threshold=radius, metric="precomputed", linkage="average"
        )
    return how.fit_predict(distances)


def _distance(similarity: Any) -> Any:
    """Euclidean distance of embeddings of unit length."""
    return np.sqrt(np.maximum(2 - 2 * similarity, 1e-12))


def _similar(
    faces: Faces, near: Sequence[Ids], similarity: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs (n, 2) of rows with at least this similarity, and their similarities."""
    pairs = neighbours(faces, near)
    similarities = cosines(faces, pairs)
    return pairs[similarities >= similarity], similarities[similarities >= similarity]


def _chinese_whispers(
    count: int, pairs: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Give each face the label with the most weight around it, until no label changes."""
    around: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for (one, other), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        around[one].append((other, weight))
        around[other].append((one, weight))
    labels = list(range(count))
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        changed = False
        for row in rng.permutation(count).tolist():
            votes: dict[int, float] = {}
            for other, weight in around[row]:
                votes[labels[other]] = votes.get(labels[other], 0.0) + weight
            if votes:
                winner = max(votes, key=lambda label: votes[label])
                changed |= winner != labels[row]
                labels[row] = winner
        if not changed:
            break
    return np.array(labels, np.int64)
