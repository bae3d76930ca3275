"""The graphs of an HNSW index inside FAISS: how they are filled and searched, how faces leave them.

A search of a graph is the work of one core, and the larger the graph is the longer it takes. So no
graph grows beyond a size, and all are searched at once. HNSW cannot lose a node: a face that is
removed leaves its node, with another's embedding, as a stepping stone that is never returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np

from face2vec.index.flat import (
    Ids,
    Vectors,
    best_of,
    even_parts,
    faiss,
    labels,
    make_room,
    share_out,
)
from face2vec.index.policy import HNSW_LINKS

NOBODY = -1
# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person, by breadth of the search:
# 64: 0.989 / 0.998, 128: 0.994 / 0.998, 256: 0.996 / 0.999.
BREADTH = 128
# Among a million, 10 faces a person: 128: 0.744, 256: 0.839, 512: 0.887, 1,024: 0.931; so it grows.
FACES_A_STEP = 1_000
# Of a million in two graphs, with half the breadth each, 0.924 where a person's faces lie scattered
# over both; in one graph 0.918; in four, with a quarter of it, 0.879.
FACES_A_GRAPH = 500_000
# More nodes of the dead make a search slow.
DEAD_SHARE = 0.2
_ANY_FACE = (0, 2**63 - 1)
_NODES_AT_ONCE = 8192
_QUERIES_AT_ONCE = 1024  # what each graph finds for them is kept side by side


class Graphs:
    """Graphs of limited size that are searched together.

    Args:
        parts: an index of FAISS for each.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._graphs = [_Graph(index) for index in parts]
        self._expected = 0
        self.dimension: int = parts[0].d

    @classmethod
    def empty(cls, dimension: int, count: int = 0) -> Self:
        """One graph without faces, to begin with, and room as they come for so many in all."""
        self = cls([_empty(dimension, min(count, FACES_A_GRAPH))])
        self._expected = count
        return self

    @property
    def parts(self) -> list[Any]:
        """An index of FAISS for each graph."""
        return [graph.index for graph in self._graphs]

    def __len__(self) -> int:
        return sum(len(graph) for graph in self._graphs)

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces (n,) with their embeddings (n, d)."""
        while len(ids):
            index = self._with_room()
            room = FACES_A_GRAPH - index.ntotal
            index.add_with_ids(embeddings[:room], ids[:room])
            ids, embeddings = ids[room:], embeddings[room:]

    def remove(self, ids: Ids) -> None:
        """Take faces out of all answers, and their embeddings out of memory."""
        for graph in self._graphs:
            graph.remove(ids)
        self._graphs = [graph for graph in self._graphs if graph.index.ntotal] or self._graphs[:1]

    def breadth(self, wanted: int) -> int:
        """How many nodes of all graphs a search for that many faces keeps in sight."""
        return sum(graph.breadth(wanted) for graph in self._graphs)

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """Similarities (n, k) and ids (n, k) for queries (n, d); −1 where there are no more."""
        count, threads = len(queries), faiss.omp_get_max_threads()
        if count < min(threads, len(self._graphs)):
            groups = [self._graphs[part::threads] for part in range(threads)]
            tasks = [(group, queries) for group in groups if group]
        else:
            parts = max(min(threads, count), count // _QUERIES_AT_ONCE)
            tasks = [(self._graphs, queries[a:b]) for a, b in even_parts(0, count, parts)]
        if len(tasks) == 1:
            return best_of(*_each(*tasks[0], wanted))
        found: list[Any] = [None] * len(tasks)

        def search(number: int) -> None:
            graphs, asked = tasks[number]
            found[number] = best_of(*_each(graphs, asked, wanted))

        share_out(search, [(number,) for number in range(len(tasks))])
        similarities, ids = zip(*found, strict=True)
        if len(tasks[0][0]) == len(self._graphs):
            return np.concatenate(similarities), np.concatenate(ids)
        return best_of(np.stack(similarities), np.stack(ids))

    def _with_room(self) -> Any:
        """The graph of FAISS that has most room, a new one where all are full."""
        index = min(self.parts, key=lambda index: index.ntotal)
        if index.ntotal >= FACES_A_GRAPH:
            to_come = self._expected - sum(full.ntotal for full in self.parts)
            index = _empty(self.dimension, min(max(to_come, 0), FACES_A_GRAPH))
            self._graphs.append(_Graph(index))
        return index


class _Graph:
    """One graph, and how many of its nodes are of the dead."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self._dead = int((labels(index) < 0).sum())

    def __len__(self) -> int:
        return int(self.index.ntotal) - self._dead

    def breadth(self, wanted: int) -> int:
        """How many nodes a search for that many faces keeps in sight."""
        return max(BREADTH, 2 * wanted, int(self.index.ntotal) // FACES_A_STEP)

    def search(self, queries: Vectors, similarities_into: Vectors, ids_into: Ids) -> None:
        """What is found for queries (n, d) goes into (n, k)."""
        wanted = ids_into.shape[1]
        breadth = self.breadth(wanted)
        if self._dead:  # FAISS writes into one with a selector while it searches
            alive = faiss.IDSelectorRange(*_ANY_FACE)
            params = faiss.SearchParametersHNSW(efSearch=breadth, sel=alive)
        else:
            params = _breadth(breadth)
        into = faiss.swig_ptr(similarities_into), faiss.swig_ptr(ids_into)
        asked = len(queries), faiss.swig_ptr(queries)
        self.index.search_c(*asked, wanted, *into, params)

    def remove(self, ids: Ids) -> None:
        """Faces lose their nodes, which keep leading searches the way that they did."""
        known = labels(self.index)
        dead = np.flatnonzero(np.isin(known, ids))
        if not len(dead):
            return
        known[dead] = NOBODY
        self._dead += len(dead)
        if self._dead > DEAD_SHARE * self.index.ntotal:
            self._build_of_the_living()
        else:
            self._overwrite(dead)

    def _overwrite(self, dead: Ids) -> None:
        """Leave no embedding of the dead: each node gets that of the face most like it.

        So do nodes that died before and had an embedding of those who died now.
        """
        vectors, known = self._vectors(), labels(self.index)
        beginnings = vectors[:, :2].copy().view(np.int64)[:, 0]
        dead = np.flatnonzero((known < 0) & np.isin(beginnings, beginnings[dead]))
        _, nearest = _each([self], vectors[dead], 1)
        found = nearest.ravel()  # NOBODY where there is none
        order = np.argsort(known)
        heirs = order[np.minimum(np.searchsorted(known[order], found), len(order) - 1)]
        vectors[dead] = np.where((known[heirs] >= 0)[:, None], vectors[heirs], 0)

    def _build_of_the_living(self) -> None:
        vectors, known = self._vectors(), labels(self.index)
        alive = np.flatnonzero(known >= 0)
        rebuilt = _empty(self.index.d, len(alive))
        for start in range(0, len(alive), _NODES_AT_ONCE):
            some = alive[start : start + _NODES_AT_ONCE]
            rebuilt.add_with_ids(vectors[some], known[some])
        self.index, self._dead = rebuilt, 0

    def _vectors(self) -> Vectors:
        """The embeddings inside the nodes, (n, d), to be read and written in place."""
        storage = faiss.downcast_index(faiss.downcast_index(self.index.index).storage)
        vectors: Vectors = faiss.rev_swig_ptr(storage.get_xb(), self.index.ntotal * self.index.d)
        return vectors.reshape(-1, self.index.d)


def _empty(dimension: int, room: int) -> Any:
    """A graph without faces, which gives ids of one's own to its nodes, with room for so many."""
    # Numbers of 16 bits were tried: nearly half of the memory, but 13 % slower for one query.
    product = faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIDMap(faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product))
    graph = faiss.downcast_index(index.index)
    storage = faiss.downcast_index(graph.storage)
    # Nearly all nodes are in the lowest level only, where they have twice the links.
    make_room(graph.hnsw.neighbors, room * (2 * HNSW_LINKS + 2))
    make_room(storage.codes, room * storage.code_size)
    make_room(index.id_map, room)
    return index


@lru_cache(maxsize=8)
def _breadth(nodes: int) -> Any:
    return faiss.SearchParametersHNSW(efSearch=nodes)


def _each(graphs: Sequence[_Graph], queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
    """What each graph finds for queries (n, d): similarities and ids (graphs, n, k)."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    shape = len(graphs), len(queries), wanted
    similarities, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
    for number, graph in enumerate(graphs):
        graph.search(queries, similarities[number], ids[number])
    return similarities, ids
