"""The ``pq`` index: a short code of each face, all of which are scanned, and a long one.

The short codes give candidates, whose long codes are compared. The best of them are proposed, and
their exact similarities decide. How long the short codes are, and how many candidates and proposals
there are, is measured on the faces themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from face2vec.index.codes import (
    CANDIDATES_LEAST,
    CANDIDATES_MOST,
    CANDIDATES_RECALL,
    PROPOSED_LEAST,
    PROPOSED_MOST,
    RECALL,
    Codes,
    check_shard,
    code_masks,
    codes_of,
    empty_shard,
    enough,
    group_queries,
)
from face2vec.index.flat import labels
from face2vec.index.parallel import (
    Batches,
    Ids,
    Vectors,
    check_type,
    faiss,
    merge_best,
    run_parts,
)
from face2vec.index.policy import Measured
from face2vec.index.sample import AT, Sample
from face2vec.products import even_parts, product

FACES_PER_SHARD = 1 << 17  # FAISS scans a shard on one core
SCANNED_BYTES = 1 << 20  # codes that are worth another core
_QUERIES_AT_ONCE = 512  # bounds the memory for the results of all shards


class Pq:
    """Codes along rotated axes, in shards that are searched together; see `IndexKind`.

    Args:
        parts: one FAISS index for each shard; the first one has the rotation, too.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._first, *others = parts
        check_type(self._first, faiss.IndexPreTransform)
        turn = faiss.downcast_VectorTransform(self._first.chain.at(0))
        check_type(turn, faiss.LinearTransform)
        sizes = turn.have_bias, turn.d_in, turn.A.size()
        if sizes != (False, self._first.d, turn.d_out * turn.d_in):
            raise ValueError("its rotation has another size")
        self._rows = faiss.vector_to_array(turn.A).reshape(turn.d_out, turn.d_in)
        self._shards = [faiss.downcast_index(self._first.index), *others]
        for shard in self._shards:
            check_shard(shard, len(self._rows))
            group_queries(shard)
        self._code_bytes = int(codes_of(self._shards[0])[0].code_size)
        self.dimension: int = self._first.d
        self.measured: Measured | None = None
        self._sample: Sample | None = None
        self._expected = 0

    @classmethod
    def prepare(cls, dimension: int, count: int, batches: Batches) -> Self:
        """An index without faces, whose codes are learned from some of ``count`` faces.

        Args:
            dimension: length of an embedding.
            count: how many faces will be added.
            batches: those faces, ids int64 (n,) and embeddings float32 (n, d); read twice.
        """
        sample = Sample.draw(batches, count)
        codes = Codes.choose(sample, count)
        whole = faiss.IndexPreTransform(codes.turn, codes.shard(min(count, FACES_PER_SHARD)))
        self = cls([whole])
        self._expected, self._sample = count, sample
        return self

    def settle(self) -> None:
        """Measure how many candidates and proposals find the nearest faces, when all are added."""
        if self._sample is None:
            return
        sample, self._sample = self._sample, None
        candidates = enough(self._places_in_shards(sample), CANDIDATES_RECALL)
        candidates = min(max(candidates, CANDIDATES_LEAST), CANDIDATES_MOST)
        measured = Measured(0.0, len(sample.own), PROPOSED_MOST, candidates, len(self))
        self.measured = measured
        found = self.search(sample.queries, min(PROPOSED_MOST + 1, len(self)))[1]
        # Where each of the nearest is, not counting the query itself; at the end if missing.
        ranks = _places(found, sample.nearest)
        ranks -= _places(found, sample.own[:, None]) < ranks
        proposals = min(max(enough(ranks, RECALL), PROPOSED_LEAST), PROPOSED_MOST)
        recall = float((ranks < proposals).mean()) if ranks.size else 1.0
        self.measured = measured._replace(recall=recall, proposals=proposals)

    @property
    def parts(self) -> list[Any]:
        """One FAISS index for each shard."""
        return [self._first, *self._shards[1:]]

    def __len__(self) -> int:
        return sum(int(shard.ntotal) for shard in self._shards)

    def proposals(self, k: int) -> int:
        """How many faces to propose for the k nearest."""
        least = PROPOSED_MOST if self.measured is None else self.measured.proposals
        return max(least, -(-least * k // AT))

    def candidates(self, wanted: int) -> int:
        """How many faces of each shard to compare by their long codes, for so many proposals."""
        if self.measured is None:
            return max(CANDIDATES_MOST, wanted)
        least = self.measured.candidates
        return max(least, -(-least * wanted // self.measured.proposals), wanted)

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces: ids int64 (n,), embeddings float32 (n, d)."""
        turned = product(embeddings, self._rows)
        while len(ids):
            shard = self._with_room()
            room = FACES_PER_SHARD - shard.ntotal
            shard.add_with_ids(turned[:room], ids[:room])
            ids, turned = ids[room:], turned[room:]
        self._first.ntotal = self._shards[0].ntotal  # which FAISS checks when it loads them

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,), and their codes from memory."""
        for shard in self._shards:
            _remove(shard, ids)
        self._first.ntotal = self._shards[0].ntotal

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """The nearest faces, see `IndexKind.search`: float32 (n, k) and int64 (n, k)."""
        turned = product(np.ascontiguousarray(queries, dtype=np.float32), self._rows)
        shape = len(queries), wanted
        similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            similarities[part], ids[part] = self._searched(turned[part], wanted)
        return similarities, ids

    def _searched(self, turned: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """Search with some rotated queries (n, d): float32 (n, k) and int64 (n, k)."""
        shards = [shard for shard in self._shards if shard.ntotal]
        shape = len(shards), len(turned), wanted
        similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
        candidates = self.candidates(wanted)

        def search(first: int, step: int, start: int, end: int) -> None:
            asked = end - start, faiss.swig_ptr(turned[start:end]), wanted
            for number in range(first, len(shards), step):
                shard = shards[number]
                into = similarities[number, start:end], ids[number, start:end]
                how = faiss.IndexRefineSearchParameters()
                # The half is for FAISS's rounding.
                how.k_factor = (max(min(candidates, shard.ntotal), wanted) + 0.5) / wanted
                shard.search_c(*asked, *map(faiss.swig_ptr, into), how)

        threads = self._threads(len(turned))
        if len(shards) >= threads:
            run_parts(search, [(part, threads, 0, len(turned)) for part in range(threads)])
        else:
            parts = even_parts(0, len(turned), min(threads, len(turned)))
            run_parts(search, [(0, 1, start, end) for start, end in parts])
        similarities, ids = merge_best(list(similarities), list(ids), wanted)
        if wanted <= len(self) and (ids < 0).any():
            self._fill(similarities, ids)
        return similarities, ids

    def _places_in_shards(self, sample: Sample) -> NDArray[np.int64]:
        """Where the short codes have the nearest faces in their shards: int64 (q, 10)."""
        turned = product(sample.queries, self._rows)
        places = np.full(sample.nearest.shape, CANDIDATES_MOST)
        for shard in self._shards:
            short = codes_of(shard)[0]
            wanted = min(CANDIDATES_MOST, shard.ntotal)
            if wanted:
                found = labels(shard)[short.search(turned, wanted)[1]]
                there = _places(found, sample.nearest)
                places = np.where(there < wanted, there, places)
        return places

    def _fill(self, similarities: Vectors, ids: Ids) -> None:
        """Fill in faces that FAISS left out: those of the lowest similarity that a code can have.

        That happens only if nearly all faces are asked for, or if a query is not a number.
        """
        every = np.sort(np.concatenate([labels(shard) for shard in self._shards]))
        for similar, row in zip(similarities, ids, strict=True):
            missing = np.flatnonzero(row < 0)
            similar[missing] = similar[row >= 0].min(initial=0)
            row[missing] = np.setdiff1d(every, row)[: len(missing)]

    def _threads(self, queries: int) -> int:
        worth = 1 + queries * len(self) * self._code_bytes // SCANNED_BYTES
        return int(min(faiss.omp_get_max_threads(), worth))

    def _with_room(self) -> Any:
        """The last shard, or a new one if it is full."""
        if self._shards[-1].ntotal >= FACES_PER_SHARD:
            to_come = min(max(self._expected - len(self), 0), FACES_PER_SHARD)
            short, long = codes_of(self._shards[0])
            self._shards.append(empty_shard(short.pq, long.sq, to_come))
            group_queries(self._shards[-1])
        return self._shards[-1]


def _places(found: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Places int64 (q, m) of ids (q, m) among found ids (q, n); n if missing."""
    places = np.full(wanted.shape, found.shape[1])
    for column in range(wanted.shape[1]):
        there = found == wanted[:, column, None]
        places[:, column] = np.where(there.any(axis=1), there.argmax(axis=1), found.shape[1])
    return places


def _remove(shard: Any, ids: Ids) -> None:
    """Remove faces from a shard; FAISS cannot remove from two codes together."""
    gone = np.isin(labels(shard), ids)
    if not gone.any():
        return
    kept = labels(shard)[~gone]
    short, long = codes_of(shard)
    for codes in (short, long):
        codes.remove_ids(np.flatnonzero(gone))
    faiss.copy_array_to_vector(kept, shard.id_map)
    shard.ntotal = faiss.downcast_index(shard.index).ntotal = len(kept)
    _erase_behind_end(short)


def _erase_behind_end(codes: Any) -> None:
    """Erase codes behind the last one, which FAISS leaves, and adds the next ones to with "or"."""
    packer = codes.get_CodePacker()
    kept = np.bitwise_or.accumulate(code_masks(packer))
    full, rest = divmod(codes.ntotal, packer.nvec)
    blocks = faiss.rev_swig_ptr(codes.codes.get(), codes.codes.size())
    behind = full * packer.block_size
    if rest:
        blocks[behind : behind + packer.block_size] &= kept[rest - 1]
        behind += packer.block_size
    blocks[behind:] = 0
