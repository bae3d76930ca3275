"""The ``hnsw`` index: graphs of limited size, searched together.

FAISS searches one graph on one core, and a larger graph takes longer. So a graph has a maximum
size, and all graphs are searched in parallel. HNSW cannot delete a node: a removed face leaves a
tombstone, a node that holds the embedding of another face, still links others, and is never
returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np

from face2vec.index.flat import labels, make_room
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
from face2vec.index.policy import HNSW_LINKS

TOMBSTONE = -1
# recall@10 among 100,000 faces of dimension 512, cosine 0.6 within a person, with 10 / 20 faces per
# person, by ef_search:
# 64: 0.989 / 0.998, 128: 0.994 / 0.998, 256: 0.996 / 0.999.
EF_SEARCH = 128
# Among a million, 10 faces per person: 128: 0.744, 256: 0.839, 512: 0.887, 1,024: 0.931; so
# ef_search grows with the graph.
FACES_PER_EF = 1_000
# A million in one graph: 0.918. In two graphs with half of ef_search each: 0.924 where the faces of
# a person are scattered over both. In four with a quarter: 0.879.
FACES_PER_GRAPH = 500_000
# A graph with a larger share of tombstones is rebuilt, for they make a search slow.
TOMBSTONE_SHARE = 0.2
_ANY_FACE = (0, 2**63 - 1)
_NODES_AT_ONCE = 8192
_QUERIES_AT_ONCE = 1024  # bounds the memory for the results of all graphs


class Hnsw:
    """HNSW graphs that are searched together; see `IndexKind`.

    Args:
        parts: one FAISS index for each graph.
    """

    proposals = 0

    def __init__(self, parts: Sequence[Any]) -> None:
        for index in parts:
            check_type(index, faiss.IndexIDMap, faiss.IndexHNSWFlat)
        self._graphs = [_Graph(index) for index in parts]
        self._expected = 0
        self.dimension: int = parts[0].d

    @classmethod
    def prepare(cls, dimension: int, count: int = 0, batches: Batches = ()) -> Self:
        """One graph without faces; graphs are added up to ``count`` faces as they are needed.

        Args:
            dimension: length of an embedding.
            count: how many faces will be added.
            batches: unused, ids int64 (n,) and embeddings float32 (n, d).
        """
        self = cls([_empty(dimension, min(count, FACES_PER_GRAPH))])
        self._expected = count
        return self

    @property
    def parts(self) -> list[Any]:
        """One FAISS index for each graph."""
        return [graph.index for graph in self._graphs]

    def __len__(self) -> int:
        return sum(len(graph) for graph in self._graphs)

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces: ids int64 (n,), embeddings float32 (n, d)."""
        while len(ids):
            index = self._with_room()
            room = FACES_PER_GRAPH - index.ntotal
            index.add_with_ids(embeddings[:room], ids[:room])
            ids, embeddings = ids[room:], embeddings[room:]

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,), and their embeddings from memory."""
        for graph in self._graphs:
            graph.remove(ids)
        self._graphs = [graph for graph in self._graphs if graph.index.ntotal] or self._graphs[:1]

    def ef_search(self, wanted: int) -> int:
        """Length of the candidate lists of all graphs in a search for ``wanted`` faces."""
        return sum(graph.ef_search(wanted) for graph in self._graphs)

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """The nearest faces, see `IndexKind.search`: float32 (n, k) and int64 (n, k)."""
        count, threads = len(queries), faiss.omp_get_max_threads()
        if count < min(threads, len(self._graphs)):
            groups = [self._graphs[part::threads] for part in range(threads)]
            tasks = [(group, queries) for group in groups if group]
        else:
            parts = max(min(threads, count), count // _QUERIES_AT_ONCE)
            tasks = [(self._graphs, queries[a:b]) for a, b in even_parts(0, count, parts)]
        if len(tasks) == 1:
            return merge_best(*_search_each(*tasks[0], wanted))
        found: list[Any] = [None] * len(tasks)

        def search(number: int) -> None:
            graphs, asked = tasks[number]
            found[number] = merge_best(*_search_each(graphs, asked, wanted))

        run_parts(search, [(number,) for number in range(len(tasks))])
        similarities, ids = zip(*found, strict=True)
        if len(tasks[0][0]) == len(self._graphs):
            return np.concatenate(similarities), np.concatenate(ids)
        return merge_best(np.stack(similarities), np.stack(ids))

    def _with_room(self) -> Any:
        """The graph with most room; a new one if all are full."""
        index = min(self.parts, key=lambda index: index.ntotal)
        if index.ntotal >= FACES_PER_GRAPH:
            to_come = self._expected - sum(full.ntotal for full in self.parts)
            index = _empty(self.dimension, min(max(to_come, 0), FACES_PER_GRAPH))
            self._graphs.append(_Graph(index))
        return index


class _Graph:
    """One graph and the number of its tombstones."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self._tombstones = int((labels(index) < 0).sum())

    def __len__(self) -> int:
        return int(self.index.ntotal) - self._tombstones

    def ef_search(self, wanted: int) -> int:
        """Length of the candidate list in a search for ``wanted`` faces."""
        return max(EF_SEARCH, 2 * wanted, int(self.index.ntotal) // FACES_PER_EF)

    def search(self, queries: Vectors, similarities_into: Vectors, ids_into: Ids) -> None:
        """Search with queries (n, d) and write the results into two arrays (n, k)."""
        wanted = ids_into.shape[1]
        ef_search = self.ef_search(wanted)
        if self._tombstones:  # a selector is written to during a search, so it is not shared
            faces = faiss.IDSelectorRange(*_ANY_FACE)
            params = faiss.SearchParametersHNSW(efSearch=ef_search, sel=faces)
        else:
            params = _parameters(ef_search)
        into = faiss.swig_ptr(similarities_into), faiss.swig_ptr(ids_into)
        asked = len(queries), faiss.swig_ptr(queries)
        self.index.search_c(*asked, wanted, *into, params)

    def remove(self, ids: Ids) -> None:
        """Turn the nodes of these faces into tombstones."""
        known = labels(self.index)
        removed = np.flatnonzero(np.isin(known, ids))
        if not len(removed):
            return
        known[removed] = TOMBSTONE
        self._tombstones += len(removed)
        if self._tombstones > TOMBSTONE_SHARE * self.index.ntotal:
            self._rebuild()
        else:
            self._overwrite(removed)

    def _overwrite(self, removed: Ids) -> None:
        """Erase the embeddings of removed faces: each node gets that of the most similar face.

        Older tombstones that hold one of these embeddings are overwritten, too.
        """
        vectors, known = self._vectors(), labels(self.index)
        beginnings = vectors[:, :2].copy().view(np.int64)[:, 0]
        nodes = np.flatnonzero((known < 0) & np.isin(beginnings, beginnings[removed]))
        _, nearest = _search_each([self], vectors[nodes], 1)
        found = nearest.ravel()  # TOMBSTONE if there is none
        order = np.argsort(known)
        nearest_nodes = order[np.minimum(np.searchsorted(known[order], found), len(order) - 1)]
        vectors[nodes] = np.where((known[nearest_nodes] >= 0)[:, None], vectors[nearest_nodes], 0)

    def _rebuild(self) -> None:
        vectors, known = self._vectors(), labels(self.index)
        kept = np.flatnonzero(known >= 0)
        rebuilt = _empty(self.index.d, len(kept))
        for start in range(0, len(kept), _NODES_AT_ONCE):
            some = kept[start : start + _NODES_AT_ONCE]
            rebuilt.add_with_ids(vectors[some], known[some])
        self.index, self._tombstones = rebuilt, 0

    def _vectors(self) -> Vectors:
        """The embeddings of the nodes, float32 (n, d), as a writable view."""
        storage = faiss.downcast_index(faiss.downcast_index(self.index.index).storage)
        vectors: Vectors = faiss.rev_swig_ptr(storage.get_xb(), self.index.ntotal * self.index.d)
        return vectors.reshape(-1, self.index.d)


def _empty(dimension: int, room: int) -> Any:
    """A graph without faces, with memory for ``room`` of them."""
    # 16-bit floats were tried: nearly half of the memory, but 13 % slower for one query.
    product = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIDMap(faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product))
    graph = faiss.downcast_index(index.index)
    storage = faiss.downcast_index(graph.storage)
    # Nearly all nodes are in the lowest level only, which has twice the links.
    make_room(graph.hnsw.neighbors, room * (2 * HNSW_LINKS + 2))
    make_room(storage.codes, room * storage.code_size)
    make_room(index.id_map, room)
    return index


@lru_cache(maxsize=8)
def _parameters(ef_search: int) -> Any:
    return faiss.SearchParametersHNSW(efSearch=ef_search)


def _search_each(graphs: Sequence[_Graph], queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
    """Similarities and ids (graphs, n, k) of each graph for queries (n, d)."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    shape = len(graphs), len(queries), wanted
    similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
    for number, graph in enumerate(graphs):
        graph.search(queries, similarities[number], ids[number])
    return similarities, ids
