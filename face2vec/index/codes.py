"""Codes of embeddings: how they are learned, and how long they must be.

Each face has two. All short ones are scanned, and the long ones of those faces that seem nearest
are compared: their candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.index.flat import make_room
from face2vec.index.parallel import Vectors, check_type, faiss, one_thread
from face2vec.index.sample import Sample
from face2vec.products import product

# Four bits a number, whose distances FAISS looks up in the processor's registers (André, Kermarrec,
# Le Scouarnec: Cache locality is not enough, 2015).
BITS = 4
BLOCK = 32  # codes that are scanned together
# Among a million faces of dimension 512, 32 numbers find 0.991 of the ten nearest with 4 dimensions
# a number, 0.994 with 5, 0.995 with 6 and with 8.
DIMENSIONS_MOST = 8
VARIANCE = 0.999  # components that hold this share of it are coded
# Numbers of a code for 512 dimensions; fewer for fewer dimensions.
LENGTHS = (24, 32, 40, 48, 64, 96, 128, 256)
NUMBERS_LEAST = 8
LEARNED_FROM = 8192  # examples: each number has 16 centroids
RECALL = 0.99  # of the ten nearest faces
CANDIDATES_LEAST, CANDIDATES_MOST = 50, 3000  # for the ten nearest, of each shard
CANDIDATES_RECALL = RECALL + 0.001  # the long codes lose some more
PROPOSED_LEAST, PROPOSED_MOST = 12, 100  # for the ten nearest
# Seconds of one core to scan a face, and each number of its code, and to keep a candidate and
# compare its long code; a million faces, 100 queries at once, AMD EPYC with AVX-512.
FACE_SECONDS, SCAN_SECONDS, CANDIDATE_SECONDS = 1.3e-10, 1.2e-11, 2.4e-7
# Queries that share the load of a block of codes, one hexadecimal digit a group. With AVX-512, four
# are faster than the three that FAISS takes by itself (0.7 times the time), with AVX2 slower.
FOURS = 0x44


class Codes:
    """A rotation, and codes along the rotated axes.

    Args:
        sample: what they are learned from.
        numbers: how many numbers a short code has.

    Attributes:
        numbers: how many numbers a short code has.
        turn: rotates embeddings and keeps some of their axes: a FAISS matrix (d, dimension).
    """

    def __init__(self, sample: Sample, numbers: int) -> None:
        rows = rotation(*sample.components, numbers)
        self.numbers = numbers
        self._rows = rows
        self.turn = matrix(rows)
        self._quantizer = faiss.ProductQuantizer(len(rows), numbers, BITS)
        examples = product(sample.examples[:LEARNED_FROM], rows)
        self._finer = faiss.ScalarQuantizer(len(rows), faiss.ScalarQuantizer.QT_6bit)
        with one_thread():  # many small steps: FAISS's threads would wait more than they work
            self._quantizer.train(examples)
            self._finer.train(examples)

    @classmethod
    def choose(cls, sample: Sample, count: int) -> Codes:
        """The codes that find enough of the nearest among ``count`` faces at the lowest cost.

        Longer codes take longer to scan, shorter ones have more candidates. If none finds enough,
        the longest.
        """
        best: Codes | None = None
        least = np.inf
        for numbers in lengths(sample.examples.shape[1]):
            scan = count * (FACE_SECONDS + numbers * SCAN_SECONDS)
            if best is not None and scan >= least:
                break
            codes = cls(sample, numbers)
            found = max(enough(codes.ranks(sample, count), CANDIDATES_RECALL), CANDIDATES_LEAST)
            cost = scan + found * CANDIDATE_SECONDS if found <= CANDIDATES_MOST else np.inf
            if best is None or cost <= least:
                best, least = codes, cost
        assert best is not None
        return best

    def ranks(self, sample: Sample, count: int) -> NDArray[np.float64]:
        """At which place the short codes have the truly nearest faces: estimates, float64 (q, 10).

        A face of the sample that seems nearer stands for as many of the ``count`` faces as the
        sample has one of.
        """
        queries = product(sample.queries, self._rows)
        near = np.vecdot(self._decoded(sample.nearest_embeddings), queries[:, None])
        seeming = queries @ self._decoded(sample.examples).T
        # Neither a query itself nor what is truly nearest stands for others.
        counted = np.hstack([sample.own[:, None], sample.nearest])
        places = np.searchsorted(sample.ids, counted).clip(max=len(sample.ids) - 1)
        rows, columns = np.nonzero(sample.ids[places] == counted)
        seeming[rows, places[rows, columns]] = -np.inf
        before = np.stack([(seeming > some[:, None]).sum(axis=1) for some in near.T], axis=1)
        nearer = (near[:, None, :] > near[:, :, None]).sum(axis=2)
        ranks: NDArray[np.float64] = before * (count / len(sample.ids)) + nearer
        return ranks

    def shard(self, room: int) -> Any:
        """A FAISS index without faces, with memory for ``room`` of them."""
        return empty_shard(self._quantizer, self._finer, room)

    def _decoded(self, embeddings: Vectors) -> Vectors:
        """Embeddings (…, dimension) as their codes give them back, rotated: float32 (…, d)."""
        flat = np.ascontiguousarray(embeddings.reshape(-1, embeddings.shape[-1]))
        decoded: Vectors = self._quantizer.decode(
            self._quantizer.compute_codes(product(flat, self._rows))
        )
        return decoded.reshape(*embeddings.shape[:-1], self.turn.d_out)


def lengths(dimension: int) -> list[int]:
    """How many numbers a code may have for embeddings of a dimension, ascending."""
    least = min(dimension, NUMBERS_LEAST)
    return sorted({max(least, length * dimension // 512) for length in LENGTHS})


def enough(ranks: NDArray[Any], share: float) -> int:
    """How many of the first places hold a share of the nearest.

    Args:
        ranks: places of the truly nearest faces, counted from 0; float64 or int64 (q, 10).
        share: 0…1.
    """
    if ranks.size == 0:  # all faces are copies of each other
        return 1
    ordered = np.sort(ranks, axis=None)
    return int(np.ceil(ordered[int(np.ceil(share * len(ordered))) - 1])) + 1


def empty_shard(quantizer: Any, finer: Any, room: int) -> Any:
    """A FAISS index without faces: rotated embeddings by id, with quantizers that have learned.

    Args:
        quantizer: makes short codes.
        finer: makes long codes.
        room: how many faces to have memory for.
    """
    codes = faiss.IndexPQFastScan(quantizer.d, quantizer.M, BITS, faiss.METRIC_INNER_PRODUCT)
    codes.pq = quantizer
    long = faiss.IndexScalarQuantizer(finer.d, finer.qtype, faiss.METRIC_INNER_PRODUCT)
    long.sq = finer
    codes.is_trained = long.is_trained = True
    make_room(long.codes, room * long.code_size)
    both = faiss.IndexRefine(codes, long)
    shard = faiss.IndexIDMap(both)
    for owned in (codes, long, both):
        owned.this.disown()
    both.own_fields = both.own_refine_index = shard.own_fields = True
    make_room(shard.id_map, room)
    return shard


def codes_of(shard: Any) -> tuple[Any, Any]:
    """The FAISS indexes of the short and of the long codes of a shard.

    Raises:
        TypeError: it has others.
    """
    check_type(shard, faiss.IndexIDMap, faiss.IndexRefine)
    both = faiss.downcast_index(shard.index)
    short, long = (faiss.downcast_index(one) for one in (both.base_index, both.refine_index))
    check_type(short, faiss.IndexPQFastScan)
    check_type(long, faiss.IndexScalarQuantizer)
    return short, long


def check_shard(shard: Any, dimension: int) -> None:
    """Check that the parts of a shard fit together.

    FAISS reads outside of its memory where they do not, and does not check all of it.

    Args:
        shard: from a file that may be damaged.
        dimension: of the rotated embeddings.

    Raises:
        TypeError: it has other parts.
        ValueError: they do not fit together.
    """
    short, long = codes_of(shard)
    every = (shard, faiss.downcast_index(shard.index), short, long)
    pq, sq, count = short.pq, long.sq, shard.ntotal
    blocks = -(-count // BLOCK)
    sound = (
        all(
            (one.d, one.ntotal, one.metric_type, one.is_trained)
            == (dimension, count, faiss.METRIC_INNER_PRODUCT, True)
            for one in every
        )
        and shard.id_map.size() == count
        and (pq.d, pq.nbits, pq.ksub, short.nbits, short.ksub) == (dimension, BITS, 16, BITS, 16)
        and 0 < pq.M == short.M <= dimension == pq.M * pq.dsub
        and pq.centroids.size() == 16 * dimension
        and (short.M2, short.bbs, short.implem) == (-(-pq.M // 2) * 2, BLOCK, 0)
        and (short.code_size, short.ntotal2) == (short.M2 // 2, blocks * BLOCK)
        and short.codes.size() >= blocks * BLOCK * short.M2 // 2
        and (sq.d, sq.qtype, sq.code_size, long.code_size)
        == (dimension, faiss.ScalarQuantizer.QT_6bit, *(-(-6 * dimension // 8),) * 2)
        and sq.trained.size() == 2 * dimension
        and long.codes.size() == count * long.code_size
    )
    if not sound:
        raise ValueError("the parts of a shard do not fit together")


def group_queries(shard: Any) -> None:
    """Have FAISS scan a shard for as many queries at once as is fastest on this machine."""
    wide = faiss.SIMDConfig.get_level_name().startswith("AVX512")
    codes_of(shard)[0].qbs = FOURS if wide else 0


def rotation(components: Vectors, held: NDArray[np.float64], numbers: int) -> Vectors:
    """Axes (m, d) along which every number of a code carries about the same variance.

    Each number gets one of the largest principal components and some of the smaller ones (Ge, He,
    Ke, Sun: Optimized product quantization, 2013, the parametric solution). What is not needed for
    ``VARIANCE``, exceeds ``DIMENSIONS_MOST`` a number, or cannot be shared out evenly, is left out:
    the components of the least variance.

    Args:
        components: principal components float32 (d, d), see `Sample.components`.
        held: share of the variance that the first ones hold together, float64 (d,).
        numbers: how many numbers a code has; at most d.

    Returns:
        float32 (m, d), m ≤ d: unit vectors at right angles.
    """
    needed = 1 + int(np.searchsorted(held, VARIANCE))
    each = min(DIMENSIONS_MOST, len(components) // numbers, -(-needed // numbers))
    places = np.arange(each * numbers).reshape(each, numbers)
    places[1::2] = places[1::2, ::-1].copy()
    return components[places.T.ravel()]


def matrix(rows: Vectors) -> Any:
    """A FAISS transformation that multiplies by a copy of a matrix.

    Args:
        rows: float32 (m, d).
    """
    linear = faiss.LinearTransform(rows.shape[1], rows.shape[0], False)
    faiss.copy_array_to_vector(rows.ravel(), linear.A)
    linear.is_trained = True
    return linear


def code_masks(packer: Any) -> NDArray[np.uint8]:
    """Which bits of a block belong to its first, second, … code: uint8 (codes, bytes)."""
    bits = np.zeros((packer.nvec, packer.block_size), np.uint8)
    ones = np.full(packer.code_size, 255, np.uint8)
    for place in range(packer.nvec):
        packer.pack_1(ones, place, bits[place : place + 1])
    return bits
