"""Clustering methods of other packages, for comparison with average linkage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face2vec.people.clustering import Evidence, Faces, Ids, average, cosines, grouped, neighbours

METHODS = ("average", "chinese-whispers", "dbscan", "hdbscan")


def by_method(
    method: str, faces: Faces, evidence: Evidence, near: Sequence[Ids], *, similarity: float
) -> list[Ids]:
    """Group faces with one of several methods.

    Args:
        method: one of ``METHODS``. ``"hdbscan"`` stores the distances of all pairs, which limits
            it to some ten thousand faces.
        faces: the faces to group.
        evidence: log odds of pairs, for ``"average"``.
        near: as for `average`.
        similarity: lowest similarity of linked faces, for ``"dbscan"`` (with one neighbour per
            core point; Ester et al., 1996) and ``"chinese-whispers"`` (Biemann, 2006).

    Returns:
        int64 (n,) ids of each group of two or more faces.
    """
    if method == "average":
        return average(faces, evidence, near)
    if method == "chinese-whispers":
        labels = _chinese_whispers(len(faces), *_similar(faces, near, similarity))
    elif method == "dbscan":
        from sklearn.cluster import DBSCAN

        radius = float(np.sqrt(max(2 - 2 * similarity, 1e-12)))
        labels = DBSCAN(eps=radius, min_samples=2).fit_predict(faces.embeddings)
    else:
        from sklearn.cluster import HDBSCAN

        # A matrix of all distances, because search trees are far slower in so many dimensions.
        similarities = faces.embeddings.astype(np.float64) @ faces.embeddings.T
        distances = np.sqrt(np.maximum(2 - 2 * similarities, 0))
        labels = HDBSCAN(min_cluster_size=2, metric="precomputed", copy=False).fit_predict(
            distances
        )
    return grouped(faces.ids, np.asarray(labels, np.int64))


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
    for _ in range(20):
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
