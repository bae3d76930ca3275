"""The lists of an IVF index inside FAISS: how they are learned, and how many are searched.

``ivf`` holds embeddings as they are, ``ivfpq`` codes learned from examples, which only propose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.index_exact import Ids, Vectors, faiss, share_out
from face2vec.index_kind import EXAMPLES_A_CENTROID

Batches = Iterable[tuple[Ids, Vectors]]

# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person, by how many of 1,024 lists are
# searched: 32: 0.965 / 0.999, 64: 0.980 / 1.000, 128: 0.991 / 1.000.
# At a million, 4,000 lists, 10 faces a person: 64 / 128 / 256 / 500 / 1000 / 2000: 0.67 / 0.78 /
# 0.86 / 0.940 / 0.982 / 0.998. An eighth of the lists costs ivf 7 ms a query there, a quarter
# costs ivfpq 4.
LISTS_SEARCHED = 64
SHARE_SEARCHED = {"ivf": 8, "ivfpq": 4}
LISTS_MOST = 16_384
# Codes of four bits for two numbers each, whose distances to a query FAISS looks up in the
# processor's registers (André, Kermarrec, Le Scouarnec: Cache locality is not enough, 2015). A
# hundred queries among a million take 34 ms, and 186 with codes of eight bits for eight numbers.
PQ_BITS, PQ_NUMBERS = 4, 2
PQ_SCANNED_BYTES = 8 << 20  # codes that are worth another core
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


def breadth(index: Any, wanted: int, kind: str) -> Any:
    """How many lists a search for that many faces looks at, for FAISS."""
    lists = index.nlist
    enough = math.ceil(4 * wanted * lists / index.ntotal)
    return faiss.SearchParametersIVF(
        nprobe=min(lists, max(LISTS_SEARCHED, lists // SHARE_SEARCHED[kind], enough))
    )


def searched(index: Any, query: Vectors, wanted: int, breadth: Any) -> tuple[Vectors, Ids]:
    """Similarities (1, k) and ids (1, k) for one query (1, d) of ``ivfpq``.

    All cores share its lists out; FAISS's own search of such codes gives a query to one.
    """
    scanned = index.ntotal * breadth.nprobe // index.nlist * index.code_size
    parts = min(faiss.omp_get_max_threads(), 1 + scanned // PQ_SCANNED_BYTES)
    if parts == 1:
        found: tuple[Vectors, Ids] = index.search(query, wanted, params=breadth)
        return found
    query = np.ascontiguousarray(query, dtype=np.float32)
    near, lists = index.quantizer.search(query, breadth.nprobe)
    similarities = np.empty((parts, wanted), dtype=np.float32)
    ids = np.empty((parts, wanted), dtype=np.int64)

    def search(part: int) -> None:
        mine = np.ascontiguousarray(lists[:, part::parts])
        distances = np.ascontiguousarray(near[:, part::parts])
        into = faiss.swig_ptr(similarities[part]), faiss.swig_ptr(ids[part])
        index.search_preassigned_c(
            1, faiss.swig_ptr(query), wanted, faiss.swig_ptr(mine), faiss.swig_ptr(distances),
            *into, False, faiss.SearchParametersIVF(nprobe=mine.shape[1]),
        )  # fmt: skip

    share_out(search, [(part,) for part in range(parts)])
    best = np.argsort(-similarities, axis=None, kind="stable")[:wanted]
    return similarities.ravel()[best][None], ids.ravel()[best][None]


def remove(index: Any, ids: Ids) -> None:
    """Take faces out of the lists, and their codes out of memory."""
    index.remove_ids(ids)
    if not isinstance(index, faiss.IndexIVFPQFastScan):
        return
    # FAISS leaves old codes behind the last one of a list, and adds the next with "or", as if
    # there were none (seen with 1.15.1).
    lists = faiss.downcast_InvertedLists(index.invlists)
    kept = np.bitwise_or.accumulate(_bits_of_each(lists.packer))
    for place in range(index.nlist):
        full, rest = divmod(lists.list_size(place), len(kept))
        if rest:
            blocks = faiss.rev_swig_ptr(lists.get_codes(place), (full + 1) * lists.block_size)
            blocks[full * lists.block_size :] &= kept[rest - 1]


def _bits_of_each(packer: Any) -> NDArray[np.uint8]:
    """Which bits of a block of codes are those of its first, second … code: (codes, bytes)."""
    bits = np.zeros((packer.nvec, packer.block_size), np.uint8)
    ones = np.full(packer.code_size, 255, np.uint8)
    for place in range(packer.nvec):
        packer.pack_1(ones, place, bits[place : place + 1])
    return bits


def _untrained(kind: str, dimension: int, count: int) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    lists = min(int(4 * math.sqrt(count)), count // EXAMPLES_A_CENTROID, LISTS_MOST)
    quantizer = faiss.IndexFlatIP(dimension)
    if kind == "ivf":
        return faiss.IndexIVFFlat(quantizer, dimension, lists, product)
    parts = max(n for n in range(1, dimension // PQ_NUMBERS + 1) if dimension % n == 0)
    return faiss.IndexIVFPQFastScan(quantizer, dimension, lists, parts, PQ_BITS, product)


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
