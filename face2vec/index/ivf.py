"""The ``ivf`` and ``ivfpq`` indexes: lists around centroids, of which a search scans some.

``ivf`` stores embeddings. ``ivfpq`` stores short codes, which only propose faces; the exact
similarities of the proposals decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from face2vec.index.parallel import (
    Batches,
    Ids,
    Vectors,
    check_type,
    even_parts,
    faiss,
    merge_best,
    run_parts,
)
from face2vec.index.policy import EXAMPLES_PER_CENTROID

# recall@10 among 100,000 faces of dimension 512, cosine 0.6 within a person, with 10 / 20 faces per
# person and 1,024 lists, by nprobe: 32: 0.965 / 0.999, 64: 0.980 / 1.000, 128: 0.991 / 1.000.
# A million, 4,000 lists, 10 faces per person: 64 / 128 / 256 / 500 / 1000 / 2000: 0.67 / 0.78 /
# 0.86 / 0.940 / 0.982 / 0.998. There an eighth of the lists costs ivf 7 ms a query, a quarter costs
# ivfpq 4 ms.
NPROBE_LEAST = 64
LISTS_MOST = 16_384
# Compressed similarities propose this many times k faces. Of the ten nearest faces of real people,
# 18,990 by one model and 8,949 by another, dimension 256, this share is among the proposals: 2:
# 0.990 and 0.991, 3: 0.998 and 0.998, 5: 1.000 and 1.000.
PQ_PROPOSALS = 3
# Codes of 4 bits for 2 dimensions, whose distances FAISS looks up in the processor's registers
# (André, Kermarrec, Le Scouarnec: Cache locality is not enough, 2015). A hundred queries among a
# million take 34 ms, and 186 ms with codes of 8 bits for 8 dimensions.
PQ_BITS, PQ_DIMENSIONS = 4, 2
PQ_SCANNED_BYTES = 8 << 20  # codes that are worth another core
# FAISS's usual mode gives a query to one core. For batches both modes take the same time.
_EACH_QUERY_ON_ALL_CORES = 1
_QUERIES_AT_ONCE = 256  # their similarities to the most lists take 50 MB


class Ivf:
    """Lists of embeddings; see `IndexKind`.

    Args:
        parts: one FAISS index.
    """

    proposals = 0
    probed_share = 8  # one list in so many is scanned

    def __init__(self, parts: Sequence[Any]) -> None:
        (self._index,) = self.parts = parts
        self._lists = self._inverted_lists()
        self.dimension: int = self._index.d
        stored = faiss.downcast_index(self._lists.quantizer).get_xb()
        centroids = faiss.rev_swig_ptr(stored, self._lists.nlist * self._lists.d)
        self._centroids = _matrix(centroids.reshape(self._lists.nlist, self._lists.d))

    @classmethod
    def prepare(cls, dimension: int, count: int, batches: Batches) -> Self:
        """An index without faces whose centroids are learned from some of ``count`` faces.

        Args:
            dimension: length of an embedding.
            count: how many faces will be added.
            batches: those faces, ids int64 (n,) and embeddings float32 (n, d).
        """
        lists = min(int(4 * math.sqrt(count)), count // EXAMPLES_PER_CENTROID, LISTS_MOST)
        examples = _examples(batches, count, EXAMPLES_PER_CENTROID * lists)
        index = cls._untrained(faiss.IndexFlatIP(dimension), lists, examples)
        index.train(examples)
        return cls([index])

    @staticmethod
    def _untrained(quantizer: Any, lists: int, examples: Vectors) -> Any:
        return faiss.IndexIVFFlat(quantizer, quantizer.d, lists, faiss.METRIC_INNER_PRODUCT)

    def _inverted_lists(self) -> Any:
        check_type(self._index, faiss.IndexIVFFlat)
        self._index.parallel_mode = _EACH_QUERY_ON_ALL_CORES  # FAISS does not save it
        return self._index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nprobe(self, wanted: int) -> int:
        """How many lists a search for ``wanted`` faces scans."""
        lists = self._lists.nlist
        enough = math.ceil(4 * wanted * lists / self._lists.ntotal)
        return int(min(lists, max(NPROBE_LEAST, lists // self.probed_share, enough)))

    def search(self, queries: Vectors, wanted: int, nprobe: int = 0) -> tuple[Vectors, Ids]:
        """The nearest faces, see `IndexKind.search`: float32 (n, k) and int64 (n, k).

        Args:
            queries: float32 (n, d).
            wanted: k.
            nprobe: how many lists to scan; 0 for `nprobe`.
        """
        nprobe = nprobe or self.nprobe(wanted)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        shape = len(queries), wanted
        similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
        scan = self._scan_one if len(queries) == 1 else self._scan

        def search(start: int, end: int) -> None:
            part = self._rotated(queries[start:end])
            near = _product(self._centroids, part)
            # Sorted by number: FAISS's own search sorts the lists by similarity, which takes three
            # times as long, and then by number.
            lists = np.sort(np.argpartition(near, -nprobe, axis=1)[:, -nprobe:], axis=1)
            near = np.take_along_axis(near, lists, axis=1)
            scan(part, near, lists, similarities[start:end], ids[start:end])

        threads = self._threads()
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            end = min(start + _QUERIES_AT_ONCE, len(queries))
            run_parts(search, even_parts(start, end, min(threads, end - start)))
        return similarities, ids

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces: ids int64 (n,), embeddings float32 (n, d)."""
        self._index.add_with_ids(embeddings, ids)

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,); unknown ids are ignored."""
        self._index.remove_ids(ids)

    def _threads(self) -> int:
        """How many threads cut a batch of queries into parts; 1 where FAISS does it itself."""
        return 1

    def _rotated(self, queries: Vectors) -> Vectors:
        return queries

    def _scan(
        self, queries: Vectors, near: Vectors, lists: Ids, into: Vectors, ids_into: Ids
    ) -> None:
        """Scan the lists (n, l) chosen for queries (n, d) and write results into (n, k)."""
        near, lists = np.ascontiguousarray(near), np.ascontiguousarray(lists)
        arrays = queries, lists, near, into, ids_into
        asked, chosen, similar, *results = (faiss.swig_ptr(array) for array in arrays)
        self._lists.search_preassigned_c(
            len(queries), asked, into.shape[1], chosen, similar, *results, False,
            faiss.SearchParametersIVF(nprobe=lists.shape[1]),
        )  # fmt: skip

    def _scan_one(
        self, query: Vectors, near: Vectors, lists: Ids, into: Vectors, ids_into: Ids
    ) -> None:
        """Scan the lists (1, l) chosen for one query (1, d)."""
        self._scan(query, near, lists, into, ids_into)


class IvfPq(Ivf):
    """Lists of codes along rotated axes; see `IndexKind`."""

    proposals = PQ_PROPOSALS
    probed_share = 4

    @staticmethod
    def _untrained(quantizer: Any, lists: int, examples: Vectors) -> Any:
        dimension = quantizer.d
        parts = max(n for n in range(1, dimension // PQ_DIMENSIONS + 1) if dimension % n == 0)
        product = faiss.METRIC_INNER_PRODUCT
        codes = faiss.IndexIVFPQFastScan(quantizer, dimension, lists, parts, PQ_BITS, product)
        return faiss.IndexPreTransform(_rotation(examples, parts), codes)

    def _inverted_lists(self) -> Any:
        check_type(self._index, faiss.IndexPreTransform, faiss.IndexIVFPQFastScan)
        self._turn = faiss.downcast_VectorTransform(self._index.chain.at(0))
        return faiss.downcast_index(self._index.index)

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,), and their codes from memory."""
        super().remove(ids)
        # FAISS leaves old codes behind the last one of a list, and adds the next one with "or", as
        # if there were none (seen with 1.15.1).
        lists = faiss.downcast_InvertedLists(self._lists.invlists)
        kept = np.bitwise_or.accumulate(_code_masks(lists.packer))
        for place in range(self._lists.nlist):
            full, rest = divmod(lists.list_size(place), len(kept))
            if rest:
                blocks = faiss.rev_swig_ptr(lists.get_codes(place), (full + 1) * lists.block_size)
                blocks[full * lists.block_size :] &= kept[rest - 1]

    def _threads(self) -> int:
        return int(faiss.omp_get_max_threads())

    def _rotated(self, queries: Vectors) -> Vectors:
        return _product(self._turn, queries)

    def _scan_one(
        self, query: Vectors, near: Vectors, lists: Ids, into: Vectors, ids_into: Ids
    ) -> None:
        """The same on all cores; FAISS scans fast-scan codes of one query on one core."""
        index = self._lists
        scanned = index.ntotal * lists.size // index.nlist * index.code_size
        parts = min(faiss.omp_get_max_threads(), 1 + scanned // PQ_SCANNED_BYTES)
        if parts == 1:
            self._scan(query, near, lists, into, ids_into)
            return
        found = np.empty((parts, *into.shape), np.float32), np.empty((parts, *into.shape), np.int64)

        def scan(part: int) -> None:
            mine = near[:, part::parts], lists[:, part::parts]
            self._scan(query, *mine, *(results[part] for results in found))

        run_parts(scan, [(part,) for part in range(parts)])
        into[:], ids_into[:] = merge_best(*found)


def _product(matrix: Any, queries: Vectors) -> Vectors:
    """Queries (n, d) times a FAISS matrix (m, d): (n, m)."""
    if len(queries) > 1:
        products: Vectors = matrix.apply(queries)
        return products
    # Without FAISS's threads, which keep spinning and would slow the scan that follows.
    result = np.empty((1, matrix.d_out), np.float32)
    into, asked = faiss.swig_ptr(result), faiss.swig_ptr(queries)
    faiss.fvec_inner_products_ny(into, asked, matrix.A.data(), matrix.d_in, matrix.d_out)
    return result


def _rotation(examples: Vectors, parts: int) -> Any:
    """A rotation (d, d) after which every part of a code carries about the same variance.

    Each part gets one of the largest principal components of the examples and some of the smallest
    (Ge, He, Ke, Sun: Optimized product quantization, 2013, the parametric solution). Half of the
    components hold nearly all the variance of face embeddings.
    """
    dimension = examples.shape[1]
    moments = (examples.T @ examples).astype(np.float64)
    components = np.linalg.eigh(moments)[1].T[::-1]  # the largest first
    places = np.arange(dimension).reshape(-1, parts)
    places[1::2] = places[1::2, ::-1].copy()
    return _matrix(components[places.T.ravel()].astype(np.float32))


def _matrix(rows: Vectors) -> Any:
    """A copy of a matrix (m, d) for ``_product``."""
    matrix = faiss.LinearTransform(rows.shape[1], rows.shape[0], False)
    faiss.copy_array_to_vector(rows.ravel(), matrix.A)
    matrix.is_trained = True
    return matrix


def _code_masks(packer: Any) -> NDArray[np.uint8]:
    """Which bits of a block belong to its first, second, … code: uint8 (codes, bytes)."""
    bits = np.zeros((packer.nvec, packer.block_size), np.uint8)
    ones = np.full(packer.code_size, 255, np.uint8)
    for place in range(packer.nvec):
        packer.pack_1(ones, place, bits[place : place + 1])
    return bits


def _examples(batches: Batches, count: int, most: int) -> Vectors:
    """At most ``most`` embeddings, drawn at random with a fixed seed."""
    chosen = np.random.default_rng(0).permutation(count)[:most]
    chosen.sort()
    examples, start = [], 0
    for ids, embeddings in batches:
        first, last = np.searchsorted(chosen, (start, start + len(ids)))
        examples.append(embeddings[chosen[first:last] - start])
        start += len(ids)
    return np.concatenate(examples)
