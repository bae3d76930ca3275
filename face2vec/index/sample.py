"""Some faces of a gallery, and what is truly nearest to a few of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from face2vec.index.parallel import Batches, Ids, Vectors, faiss

EXAMPLES_MOST = 30_000  # 60 MB of dimension 512
QUERIES = 500
AT = 10  # recall is measured for so many faces
AS_NEAR = 1e-3
"""Difference in similarity below which it does not matter which face is found."""


@dataclass(frozen=True)
class Sample:
    """Faces drawn at random, with a fixed seed; the first ones serve as queries.

    Attributes:
        ids: int64 (m,), ascending.
        examples: their embeddings, float32 (m, d).
        own: ids of the queries, int64 (q,). Faces to which twice ``AT`` others are as near as the
            last of the ``AT`` nearest are left out: copies of a photo, of which any may be found.
        queries: their embeddings, float32 (q, d).
        nearest: the ``AT`` most similar other faces of all, int64 (q, 10).
        nearest_embeddings: float32 (q, 10, d).
    """

    ids: Ids
    examples: Vectors
    own: Ids
    queries: Vectors
    nearest: Ids
    nearest_embeddings: Vectors

    @classmethod
    def draw(cls, batches: Batches, count: int) -> Sample:
        """Draw a sample; the batches are read twice.

        Args:
            batches: ids int64 (n,) and embeddings float32 (n, d); more than ``AT`` faces.
            count: how many faces they have.
        """
        drawn = np.random.default_rng(0).permutation(count)[:EXAMPLES_MOST]
        places = np.sort(drawn)
        parts, start = [], 0
        for ids, embeddings in batches:
            first, last = np.searchsorted(places, (start, start + len(ids)))
            some = places[first:last] - start
            parts.append((ids[some], embeddings[some]))
            start += len(ids)
        ids, examples = (np.concatenate(part) for part in zip(*parts, strict=True))
        asked = np.searchsorted(places, np.sort(drawn[:QUERIES]))
        asked = asked[asked < len(ids)]  # a gallery may shrink while it is read
        nearest, embeddings, tied = _nearest(batches, ids[asked], examples[asked])
        asked = asked[~tied]
        order = np.argsort(ids)
        of_queries = ids[asked], examples[asked], nearest[~tied], embeddings[~tied]
        return cls(ids[order], examples[order], *of_queries)

    @cached_property
    def components(self) -> tuple[Vectors, NDArray[np.float64]]:
        """The principal components of the examples, the one of the largest variance first.

        Returns:
            Unit vectors float32 (d, d), and the share of the variance that the first one, two, …
            hold together, float64 (d,).
        """
        moments = (self.examples.T @ self.examples).astype(np.float64)
        variances, components = np.linalg.eigh(moments)
        held = np.cumsum(variances[::-1]) / variances.sum()
        return np.ascontiguousarray(components.T[::-1], dtype=np.float32), held


def _nearest(
    batches: Batches, own: Ids, queries: Vectors
) -> tuple[Ids, Vectors, NDArray[np.bool_]]:
    """The most similar faces, but not a query's own.

    Returns:
        Ids (q, 10), embeddings (q, 10, d), and whether twice as many are about as near as the last.
    """
    most = 2 * AT
    similar = np.full((len(queries), most), -np.inf, np.float32)
    near = np.full(similar.shape, -1)
    rows = np.zeros((*similar.shape, queries.shape[1]), np.float32)
    for ids, embeddings in batches:
        wanted = min(most + 1, len(ids))
        found, places = faiss.knn(queries, embeddings, wanted, faiss.METRIC_INNER_PRODUCT)
        found[ids[places] == own[:, None]] = -np.inf
        every = np.hstack([similar, found])
        best = np.argsort(-every, axis=1, kind="stable")[:, :most]
        if best.max() < most:
            continue  # nothing nearer
        similar = np.take_along_axis(every, best, axis=1)
        near = np.take_along_axis(np.hstack([near, ids[places]]), best, axis=1)
        both = np.hstack([rows, embeddings[places]])
        rows = np.take_along_axis(both, best[:, :, None], axis=1)
    tied = similar[:, -1] >= similar[:, AT - 1] - AS_NEAR
    return near[:, :AT], rows[:, :AT], tied
