"""The lists of an IVF index inside FAISS: how they are learned, and how many are searched.

``ivf`` holds embeddings as they are, ``ivfpq`` codes learned from examples, which only propose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.index.flat import Ids, Vectors, best_of, even_parts, faiss, share_out
from face2vec.index.policy import EXAMPLES_A_CENTROID

Batches = Iterable[tuple[Ids, Vectors]]

# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person, by how many of 1,024 lists are
# searched: 32: 0.965 / 0.999, 64: 0.980 / 1.000, 128: 0.991 / 1.000.
# At a million, 4,000 lists, 10 faces a person: 64 / 128 / 256 / 500 / 1000 / 2000: 0.67 / 0.78 /
# 0.86 / 0.940 / 0.982 / 0.998. An eighth of the lists costs ivf 7 ms a query there, a quarter
# costs ivfpq 4.
LISTS_SEARCHED = 64
SHARE_SEARCHED, PQ_SHARE_SEARCHED = 8, 4
LISTS_MOST = 16_384
# Codes of four bits for two numbers each, whose distances to a query FAISS looks up in the
# processor's registers (André, Kermarrec, Le Scouarnec: Cache locality is not enough, 2015). A
# hundred queries among a million take 34 ms, and 186 with codes of eight bits for eight numbers.
PQ_BITS, PQ_NUMBERS = 4, 2
PQ_SCANNED_BYTES = 8 << 20  # codes that are worth another core
# Of lists with embeddings; FAISS's usual mode gives a query to one core. Batches take as long.
_EACH_QUERY_BY_ALL_CORES = 1
_QUERIES_AT_ONCE = 256  # their similarities to the most lists take 50 MB


def trained(kind: str, dimension: int, batches: Batches, count: int) -> Lists:
    """Lists without faces, ``"ivf"`` or ``"ivfpq"``, learned from some of so many."""
    lists = min(int(4 * math.sqrt(count)), count // EXAMPLES_A_CENTROID, LISTS_MOST)
    examples = _examples(batches, count, EXAMPLES_A_CENTROID * lists)
    product = faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlatIP(dimension)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, product)
    else:
        parts = max(n for n in range(1, dimension // PQ_NUMBERS + 1) if dimension % n == 0)
        index = faiss.IndexPreTransform(
            _turned(examples, parts),
            faiss.IndexIVFPQFastScan(quantizer, dimension, lists, parts, PQ_BITS, product),
        )
    index.train(examples)
    return Lists([index])


class Lists:
    """The lists of an index of FAISS: which are searched for a query, how faces leave them.

    Args:
        parts: the index, alone.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        (index,) = self.parts = parts
        self._whole, self._turn = index, None
        self.dimension: int = index.d
        if isinstance(index, faiss.IndexPreTransform):
            self._turn = faiss.downcast_VectorTransform(index.chain.at(0))
            index = faiss.downcast_index(index.index)
        self._index = index
        self._coded = isinstance(index, faiss.IndexIVFPQFastScan)
        if not self._coded:
            index.parallel_mode = _EACH_QUERY_BY_ALL_CORES  # not kept in a file
        stored = faiss.downcast_index(index.quantizer).get_xb()
        of_all = faiss.rev_swig_ptr(stored, index.nlist * index.d)
        self._centroids = _matrix(of_all.reshape(index.nlist, index.d))

    def __len__(self) -> int:
        return int(self._whole.ntotal)

    def breadth(self, wanted: int) -> int:
        """How many lists a search for that many faces looks at."""
        lists = self._index.nlist
        share = PQ_SHARE_SEARCHED if self._coded else SHARE_SEARCHED
        enough = math.ceil(4 * wanted * lists / self._index.ntotal)
        return int(min(lists, max(LISTS_SEARCHED, lists // share, enough)))

    def search(self, queries: Vectors, wanted: int, breadth: int = 0) -> tuple[Vectors, Ids]:
        """Similarities (n, k) and ids (n, k) for queries (n, d); −1 where there are no more.

        ``breadth`` may ask for another number of lists.
        """
        breadth = breadth or self.breadth(wanted)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        shape = len(queries), wanted
        similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)

        def search(start: int, end: int) -> None:
            asked = queries[start:end]
            if self._turn is not None:
                asked = _product(self._turn, asked)
            near = _product(self._centroids, asked)
            # In order of their numbers: FAISS's own search orders them by how near they are, takes
            # three times as long for it, and then orders them by their numbers.
            lists = np.sort(np.argpartition(near, -breadth, axis=1)[:, -breadth:], axis=1)
            near = np.take_along_axis(near, lists, axis=1)
            scan = self._scan_with_all_cores if len(queries) == 1 else self._scan
            scan(asked, near, lists, similarities[start:end], ids[start:end])

        at_once = faiss.omp_get_max_threads() if self._coded else 1
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            end = min(start + _QUERIES_AT_ONCE, len(queries))
            share_out(search, even_parts(start, end, min(at_once, end - start)))
        return similarities, ids

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces (n,) with their embeddings (n, d)."""
        self._whole.add_with_ids(embeddings, ids)

    def remove(self, ids: Ids) -> None:
        """Take faces out of the lists, and their codes out of memory."""
        self._whole.remove_ids(ids)
        if not self._coded:
            return
        # FAISS leaves old codes behind the last one of a list, and adds the next with "or", as if
        # there were none (seen with 1.15.1).
        lists = faiss.downcast_InvertedLists(self._index.invlists)
        kept = np.bitwise_or.accumulate(_bits_of_each(lists.packer))
        for place in range(self._index.nlist):
            full, rest = divmod(lists.list_size(place), len(kept))
            if rest:
                blocks = faiss.rev_swig_ptr(lists.get_codes(place), (full + 1) * lists.block_size)
                blocks[full * lists.block_size :] &= kept[rest - 1]

    def _scan(
        self, queries: Vectors, near: Vectors, lists: Ids, into: Vectors, ids_into: Ids
    ) -> None:
        """Search the lists (n, l) chosen for queries (n, d); what is found goes into (n, k)."""
        near, lists = np.ascontiguousarray(near), np.ascontiguousarray(lists)
        arrays = queries, lists, near, into, ids_into
        asked, chosen, similar, *results = (faiss.swig_ptr(array) for array in arrays)
        self._index.search_preassigned_c(
            len(queries), asked, into.shape[1], chosen, similar, *results, False,
            faiss.SearchParametersIVF(nprobe=lists.shape[1]),
        )  # fmt: skip

    def _scan_with_all_cores(
        self, query: Vectors, near: Vectors, lists: Ids, into: Vectors, ids_into: Ids
    ) -> None:
        """The same for one query: FAISS's own search of fast-scan codes gives it to one core."""
        index = self._index
        scanned = index.ntotal * lists.size // index.nlist * index.code_size
        parts = min(faiss.omp_get_max_threads(), 1 + scanned // PQ_SCANNED_BYTES)
        if parts == 1 or not self._coded:
            self._scan(query, near, lists, into, ids_into)
            return
        found = np.empty((parts, *into.shape), np.float32), np.empty((parts, *into.shape), np.int64)

        def scan(part: int) -> None:
            mine = near[:, part::parts], lists[:, part::parts]
            self._scan(query, *mine, *(of_part[part] for of_part in found))

        share_out(scan, [(part,) for part in range(parts)])
        into[:], ids_into[:] = best_of(*found)


def _product(matrix: Any, queries: Vectors) -> Vectors:
    """Queries (n, d) times a matrix (m, d) of FAISS: (n, m)."""
    if len(queries) > 1:
        of_all: Vectors = matrix.apply(queries)
        return of_all
    # FAISS's threads, once woken, go on turning and would be in the way of those that scan.
    result = np.empty((1, matrix.d_out), np.float32)
    into, asked = faiss.swig_ptr(result), faiss.swig_ptr(queries)
    faiss.fvec_inner_products_ny(into, asked, matrix.A.data(), matrix.d_in, matrix.d_out)
    return result


def _turned(examples: Vectors, parts: int) -> Any:
    """A rotation (d, d) after which each part of a code has as much to tell as any other.

    Of the principal components of the examples each part gets one of the largest and some of the
    smallest (Ge, He, Ke, Sun: Optimized product quantization, 2013, the parametric solution). Of
    embeddings of faces half of the components say nearly all there is to say.
    """
    dimension = examples.shape[1]
    moments = (examples.T @ examples).astype(np.float64)
    components = np.linalg.eigh(moments)[1].T[::-1]  # the largest first
    places = np.arange(dimension).reshape(-1, parts)
    places[1::2] = places[1::2, ::-1].copy()
    return _matrix(components[places.T.ravel()].astype(np.float32))


def _matrix(rows: Vectors) -> Any:
    """A copy of a matrix (m, d) that FAISS multiplies by, see ``_product``."""
    matrix = faiss.LinearTransform(rows.shape[1], rows.shape[0], False)
    faiss.copy_array_to_vector(rows.ravel(), matrix.A)
    matrix.is_trained = True
    return matrix


def _bits_of_each(packer: Any) -> NDArray[np.uint8]:
    """Which bits of a block of codes are those of its first, second … code: (codes, bytes)."""
    bits = np.zeros((packer.nvec, packer.block_size), np.uint8)
    ones = np.full(packer.code_size, 255, np.uint8)
    for place in range(packer.nvec):
        packer.pack_1(ones, place, bits[place : place + 1])
    return bits


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
