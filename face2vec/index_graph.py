"""The graph of an HNSW index inside FAISS: how broadly it is searched, and how faces leave it.

HNSW cannot lose a node. A face that is removed leaves its node, with another's embedding, as a
stepping stone that is never returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from face2vec.index_exact import Ids, Vectors, faiss, labels, make_room
from face2vec.index_kind import HNSW_LINKS

NOBODY = -1
# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person, by breadth of the search:
# 64: 0.989 / 0.998, 128: 0.994 / 0.998, 256: 0.996 / 0.999.
BREADTH = 128
# Among a million, 10 faces a person: 128: 0.744, 256: 0.839, 512: 0.887, 1,024: 0.931; so it grows.
FACES_A_STEP = 1_000
# More nodes of the dead make a search slow.
DEAD_SHARE = 0.2
_ANY_FACE = (0, 2**63 - 1)
_NODES_AT_ONCE = 8192


def empty(dimension: int) -> Any:
    """A graph without faces, which gives ids of one's own to its nodes."""
    # Numbers of 16 bits were tried: nearly half of the memory, but 13 % slower for one query.
    product = faiss.METRIC_INNER_PRODUCT
    return faiss.IndexIDMap(faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product))


def reserve(index: Any, count: int) -> None:
    """Make room for so many faces at once."""
    graph = faiss.downcast_index(index.index)
    storage = faiss.downcast_index(graph.storage)
    # Nearly all nodes are in the lowest level only, where they have twice the links.
    make_room(graph.hnsw.neighbors, count * (2 * HNSW_LINKS + 2))
    make_room(storage.codes, count * storage.code_size)
    make_room(index.id_map, count)


def breadth(index: Any, wanted: int, dead: bool) -> Any:
    """How much of the graph a search for that many faces looks at, for FAISS.

    Where some nodes are of the dead, FAISS writes into this while it searches: one search each.
    """
    nodes = max(BREADTH, 2 * wanted, index.ntotal // FACES_A_STEP)
    if dead:
        alive = faiss.IDSelectorRange(*_ANY_FACE)
        return faiss.SearchParametersHNSW(efSearch=nodes, sel=alive)
    return faiss.SearchParametersHNSW(efSearch=nodes)


def bury(index: Any, ids: Ids) -> Ids:
    """Take faces out of all answers: their nodes (n,) lose their ids, but keep their embeddings."""
    known = labels(index)
    dead = np.flatnonzero(np.isin(known, ids))
    known[dead] = NOBODY
    return dead


def count_dead(index: Any) -> int:
    """How many nodes are of faces that were removed."""
    return int((labels(index) < 0).sum())


def overwrite(index: Any, dead: Ids, nearest: Callable[[Vectors], list[Ids]]) -> None:
    """Leave no embedding of the dead: each node gets that of the face most like it.

    There it goes on leading searches the way that it did. So do nodes that died before and
    had an embedding of those who died now.

    Args:
        index: where they are.
        dead: their nodes.
        nearest: gives the living face most similar to each embedding, or none, as ids (0 or 1,).
    """
    vectors, known = _vectors(index), labels(index)
    beginnings = vectors[:, :2].copy().view(np.int64)[:, 0]
    dead = np.flatnonzero((known < 0) & np.isin(beginnings, beginnings[dead]))
    found = [ids[0] if len(ids) else NOBODY for ids in nearest(vectors[dead])]
    order = np.argsort(known)
    heirs = order[np.minimum(np.searchsorted(known[order], found), len(order) - 1)]
    vectors[dead] = np.where((known[heirs] >= 0)[:, None], vectors[heirs], 0)


def without_dead(index: Any) -> Any:
    """A new graph of the living."""
    vectors, known = _vectors(index), labels(index)
    alive = np.flatnonzero(known >= 0)
    rebuilt = empty(index.d)
    for start in range(0, len(alive), _NODES_AT_ONCE):
        some = alive[start : start + _NODES_AT_ONCE]
        rebuilt.add_with_ids(vectors[some], known[some])
    return rebuilt


def _vectors(index: Any) -> Vectors:
    """The embeddings inside the nodes, (n, d), to be read and written in place."""
    storage = faiss.downcast_index(faiss.downcast_index(index.index).storage)
    vectors: Vectors = faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * index.d)
    return vectors.reshape(-1, index.d)
