"""The lists of an IVF index inside FAISS: how they are learned, and how many are searched.

``ivf`` holds embeddings as they are, ``ivfpq`` codes learned from examples, which only propose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from face2vec.index_exact import Ids, Vectors, faiss
from face2vec.index_kind import EXAMPLES_A_CENTROID

Batches = Iterable[tuple[Ids, Vectors]]

# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person. ivf, and ivfpq with the exact
# similarities of 4 k faces or more, by how many of 1,024 lists are searched:
# 32: 0.965 / 0.999, 64: 0.980 / 1.000, 128: 0.991 / 1.000.
# At a million, 4,000 lists, 10 faces a person, ivfpq: 64 / 128 / 256 / 512: 0.67 / 0.78 / 0.86 /
# 0.93, so an eighth of the lists, and 64 at least.
LISTS_SEARCHED = 64
SHARE_SEARCHED = 8
LISTS_MOST = 16_384
PQ_NUMBERS_A_BYTE = 8
# Of all lists; FAISS's usual mode gives a query to one core. Batches take as long either way.
_EACH_QUERY_BY_ALL_CORES = 1


def trained(kind: str, dimension: int, batches: Batches, count: int) -> Any:
    """Lists without faces, ``"ivf"`` or ``"ivfpq"``, learned from some of so many."""
    index = _untrained(kind, dimension, count)
    index.train(_examples(batches, count, EXAMPLES_A_CENTROID * index.nlist))
    return index


def by_all_cores(index: Any) -> None:
    """Let all cores answer each query; not kept in a file."""
    index.parallel_mode = _EACH_QUERY_BY_ALL_CORES


def breadth(index: Any, wanted: int) -> Any:
    """How many lists a search for that many faces looks at, for FAISS."""
    lists = index.nlist
    enough = math.ceil(4 * wanted * lists / index.ntotal)
    return faiss.SearchParametersIVF(
        nprobe=min(lists, max(LISTS_SEARCHED, lists // SHARE_SEARCHED, enough))
    )


def _untrained(kind: str, dimension: int, count: int) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    lists = min(int(4 * math.sqrt(count)), count // EXAMPLES_A_CENTROID, LISTS_MOST)
    quantizer = faiss.IndexFlatIP(dimension)
    if kind == "ivf":
        return faiss.IndexIVFFlat(quantizer, dimension, lists, product)
    parts = max(n for n in range(1, dimension // PQ_NUMBERS_A_BYTE + 1) if dimension % n == 0)
    index = faiss.IndexIVFPQ(quantizer, dimension, lists, parts, 8, product)
    # Codes learned from more examples are no better and take minutes longer.
    index.pq.cp.max_points_per_centroid = 64
    index.pq.cp.niter = 15
    return index


def _examples(batches: Batches, count: int, most: int) -> Vectors:
    """Embeddings drawn at random, but the same ones each time."""
    chosen = np.random.default_rng(0).permutation(count)[:most]
    chosen.sort()
    examples, start = [], 0
    for ids, embeddings in batches:
        first, last = np.searchsorted(chosen, (start, start + len(ids)))
        examples.append(embeddings[chosen[first:last] - start])
        start += len(ids)
    return np.concatenate(examples)
