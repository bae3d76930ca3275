"""An exact index inside FAISS: vectors in a row, each with an id, all of them looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any, Self

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its own type hints lack half of what it has
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

# Vectors that one thread reads in one to two milliseconds; to hand on fewer takes as long.
SCANNED_BYTES = 32 << 20


class Exact:
    """Vectors in a row.

    Args:
        parts: the index of FAISS, alone.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        (self._index,) = self.parts = parts
        self.dimension: int = self._index.d

    @classmethod
    def empty(cls, dimension: int, count: int = 0) -> Self:
        """One without faces, with room for so many."""
        index = faiss.IndexIDMap(faiss.IndexFlatIP(dimension))
        vectors = faiss.downcast_index(index.index)
        make_room(vectors.codes, count * vectors.code_size)
        make_room(index.id_map, count)
        return cls([index])

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces (n,) with their embeddings (n, d)."""
        self._index.add_with_ids(embeddings, ids)

    def remove(self, ids: Ids) -> None:
        """Take faces out; ids that are not there are passed over."""
        self._index.remove_ids(ids)

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """Similarities (n, k) and ids (n, k) for queries (n, d); −1 where there are no more."""
        if len(queries) > 1:
            similarities, ids = self._index.search(queries, wanted)
            return similarities, ids
        return self._scanned(queries, wanted)

    def _scanned(self, query: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """The same for one query (1, d).

        All cores share the work. It takes little more than half as long as FAISS's own search,
        which is a product of matrices, quick where they have many rows.
        """
        index, size = self._index, 4 * self.dimension
        similarities = np.empty(len(self), dtype=np.float32)
        query = np.ascontiguousarray(query, dtype=np.float32)  # as FAISS's own wrapper sees to
        asked, start = faiss.swig_ptr(query), int(faiss.downcast_index(index.index).get_xb())

        def scan(first: int, end: int) -> None:  # other threads go on meanwhile
            into = faiss.swig_ptr(similarities[first:end])
            vectors = faiss.cast_integer_to_float_ptr(start + first * size)
            faiss.fvec_inner_products_ny(into, asked, vectors, self.dimension, end - first)

        parts = min(faiss.omp_get_max_threads(), 1 + len(self) * size // SCANNED_BYTES)
        share_out(scan, even_parts(0, len(self), parts))
        best = np.argpartition(similarities, -wanted)[-wanted:]
        best = best[np.argsort(-similarities[best])]
        similarities, ids = similarities[best], labels(index)[best]
        ids[np.isnan(similarities)] = -1
        return similarities[None], ids[None]


def make_room(array: Any, size: int) -> None:
    """Make room for so much at once in one of FAISS's arrays, which has nothing in it yet.

    They double as they grow, by copying.
    """
    array.resize(size)
    array.resize(0)  # keeps what it has


def labels(index: Any) -> Ids:
    """The ids inside an index of FAISS, to be read and written in place."""
    ids: Ids = faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)
    return ids


def best_of(similarities: Vectors, ids: Ids) -> tuple[Vectors, Ids]:
    """The best (n, k) of what several have found (graphs, n, k)."""
    if len(ids) == 1:
        return similarities[0], ids[0]
    wanted = ids.shape[2]
    similarities, ids = np.concatenate(similarities, axis=1), np.concatenate(ids, axis=1)
    similarities[ids < 0] = -np.inf
    best = np.argsort(-similarities, axis=1, kind="stable")[:, :wanted]
    return np.take_along_axis(similarities, best, axis=1), np.take_along_axis(ids, best, axis=1)


def even_parts(start: int, end: int, parts: int) -> list[tuple[int, int]]:
    """(start, end) of so many parts of a range, one after the other."""
    ends = [start + (end - start) * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))


def share_out(work: Callable[..., None], parts: Sequence[tuple[int, ...]]) -> None:
    """Do the parts of some work, given as arguments, in as many threads at once.

    FAISS then does what it is asked to in the thread that asks: its own threads go on turning for
    some milliseconds after each task, and would keep the cores from what comes next.
    """
    if len(parts) == 1:
        work(*parts[0])
        return
    others = [_workers().submit(work, *part) for part in parts[1:]]
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # counts for the thread that says so
    try:
        work(*parts[0])
    finally:
        faiss.omp_set_num_threads(threads)
        for other in others:
            other.result()


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "search", partial(faiss.omp_set_num_threads, 1))
