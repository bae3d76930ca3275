"""The ``flat`` index: all vectors in one array, all of them compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from face2vec.index.parallel import Batches, Ids, Vectors, check_type, faiss, run_parts
from face2vec.index.policy import Measured
from face2vec.products import even_parts

# Vectors that one thread scans in one to two milliseconds. Waking another thread for less does not
# pay.
SCANNED_BYTES = 32 << 20


class Flat:
    """All vectors in one array; see `IndexKind`.

    Args:
        parts: one FAISS index.
    """

    measured: Measured | None = None

    def __init__(self, parts: Sequence[Any]) -> None:
        (self._index,) = self.parts = parts
        check_type(self._index, faiss.IndexIDMap, faiss.IndexFlat)
        self.dimension: int = self._index.d

    @classmethod
    def prepare(cls, dimension: int, count: int = 0, batches: Batches = ()) -> Self:
        """An index without faces, with room for ``count``.

        Args:
            dimension: length of an embedding.
            count: how many faces will be added.
            batches: unused, ids int64 (n,) and embeddings float32 (n, d).
        """
        index = faiss.IndexIDMap(faiss.IndexFlatIP(dimension))
        vectors = faiss.downcast_index(index.index)
        make_room(vectors.codes, count * vectors.code_size)
        make_room(index.id_map, count)
        return cls([index])

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def settle(self) -> None:
        """Nothing remains to be done."""

    def proposals(self, k: int) -> int:
        """0: similarities are exact."""
        return 0

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces: ids int64 (n,), embeddings float32 (n, d)."""
        self._index.add_with_ids(embeddings, ids)

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,); unknown ids are ignored."""
        self._index.remove_ids(ids)

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """The nearest faces, see `IndexKind.search`: float32 (n, k) and int64 (n, k)."""
        if len(queries) > 1:
            similarities, ids = self._index.search(queries, wanted)
            return similarities, ids
        return self._scanned(queries, wanted)

    def _scanned(self, query: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """Search with one query (1, d), all cores sharing the work.

        This takes little more than half as long as FAISS's own search, a matrix product that is
        fast for many rows.
        """
        index, size = self._index, 4 * self.dimension
        similarities = np.empty(len(self), dtype=np.float32)
        query = np.ascontiguousarray(query, dtype=np.float32)  # as FAISS's own wrapper does
        asked, start = faiss.swig_ptr(query), int(faiss.downcast_index(index.index).get_xb())

        def scan(first: int, end: int) -> None:  # FAISS releases the GIL
            into = faiss.swig_ptr(similarities[first:end])
            vectors = faiss.cast_integer_to_float_ptr(start + first * size)
            faiss.fvec_inner_products_ny(into, asked, vectors, self.dimension, end - first)

        parts = min(faiss.omp_get_max_threads(), 1 + len(self) * size // SCANNED_BYTES)
        run_parts(scan, even_parts(0, len(self), parts))
        best = np.argpartition(similarities, -wanted)[-wanted:]
        best = best[np.argsort(-similarities[best])]
        similarities, ids = similarities[best], labels(index)[best]
        ids[np.isnan(similarities)] = -1
        return similarities[None], ids[None]


def make_room(array: Any, size: int) -> None:
    """Reserve memory in an empty FAISS array, which otherwise grows by doubling and copying."""
    array.resize(size)
    array.resize(0)  # keeps the memory


def labels(index: Any) -> Ids:
    """The ids inside a FAISS index, int64 (n,), as a writable view."""
    ids: Ids = faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)
    return ids
