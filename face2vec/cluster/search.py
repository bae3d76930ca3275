"""Searches a gallery in Milvus: proposals from its index, ranked by their exact cosines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face2vec.cluster.milvus import BOUNDED, STRONG
from face2vec.cluster.policy import EXACT_BELOW, RERANKED, index_rule, scans_exactly
from face2vec.cluster.store import ClusterGallery
from face2vec.errors import GalleryError
from face2vec.gallery.reader import Snapshot
from face2vec.index.seam import IndexFacts, Nearest

QUERIES = 64  # per call of Milvus
MOST = 16_384  # faces that Milvus returns for one query


class ClusterSearch:
    """The index of a gallery in Milvus; see `FaceSearch`.

    Args:
        gallery: the gallery.
    """

    def __init__(self, gallery: ClusterGallery) -> None:
        self._gallery = gallery
        self._vectors = gallery.vectors
        self._is_loaded = False
        self._has_written = True  # this process, or one that has ended a moment ago

    def nearest(
        self, now: Snapshot, queries: NDArray[np.float32], k: int, where: str = ""
    ) -> Nearest:
        """The most similar faces of each query, with their exact similarities.

        Args:
            now: the snapshot.
            queries: float32 (n, d) of unit length.
            k: maximum number of faces per query.
            where: a filter of Milvus over ``id``, ``content``, ``quality`` and ``confidence``;
                empty for all faces. One that leaves a small share of the faces is compared
                exactly, or has more lists looked at, because an index of lists loses recall there.

        Raises:
            GalleryError: Milvus does not answer.
        """
        self._load()
        total = now.count
        # The first search sees all that was written before; later ones what was a moment ago.
        consistency = STRONG if self._has_written else BOUNDED
        remaining = self._vectors.count(where, consistency) if where else total
        share = remaining / max(total, 1)
        if where and scans_exactly(remaining, share):
            found = self._scanned(queries, k, where, consistency)
        else:
            found = self._proposed(queries, k, where, consistency, share)
        self._has_written = False
        return Nearest([row[0] for row in found], [row[1] for row in found], total)

    def _proposed(
        self, queries: NDArray[np.float32], k: int, where: str, consistency: str, share: float
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        rule = self._vectors.rule
        most = min(k * RERANKED if rule.clusters else k, MOST)
        found = []
        for start in range(0, len(queries), QUERIES):
            some = queries[start : start + QUERIES]
            proposed = self._vectors.search(
                some, most, where, consistency, rule.searched_with(share)
            )
            known = self._vectors.embeddings(
                [face for row in proposed for face in row], consistency
            )
            for query, row in zip(some, proposed, strict=True):
                there = [face for face in row if face in known]
                embeddings = [known[face] for face in there]
                found.append(_ranked(query, there, embeddings, k))
        return found

    def _scanned(
        self, queries: NDArray[np.float32], k: int, where: str, consistency: str
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        best: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = [
            (np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries
        ]
        for ids in self._vectors.pages(where=where, consistency=consistency):
            known = self._vectors.embeddings(ids, consistency)
            there = [face for face in ids if face in known]
            rows = [known[face] for face in there]
            for place, query in enumerate(queries):
                cosines, faces = _ranked(query, there, rows, k)
                cosines = np.concatenate([best[place][0], cosines])
                faces = np.concatenate([best[place][1], faces])
                order = np.lexsort((faces, -cosines))[:k]
                best[place] = cosines[order], faces[order]
        return best

    def save(self) -> None:
        """Give the collection the index for its size.

        Milvus is not told to write its segments: its queue keeps what was added, and a segment for
        each small change would slow down searches.

        Raises:
            GalleryError: Milvus does not answer.
        """
        self._load()
        self._has_written = True
        with self._gallery.read() as now:
            count = now.count
        wanted, current = index_rule(count), self._vectors.rule
        # A collection near the bound does not change its index again and again.
        keeps = current.clusters and count >= EXACT_BELOW // 2
        if wanted != current and not keeps:
            self._vectors.index_as(wanted)

    def rebuild(self) -> None:
        """Build the index again.

        Raises:
            GalleryError: Milvus does not answer.
        """
        with self._gallery.read() as now:
            rule = index_rule(now.count)
        self._vectors.index_as(rule)
        self._is_loaded = self._has_written = True

    def recover(self) -> None:
        """Nothing: the writer finishes what a killed one has left."""

    def problems(self) -> list[str]:
        """What is wrong with the index, one sentence each; empty if it is sound."""
        try:
            self._load()
        except GalleryError as error:
            return [str(error)]
        return []

    def facts(self, now: Snapshot) -> IndexFacts:
        """The kind and the size of the index."""
        rule = self._vectors.rule
        return IndexFacts(f"Milvus {rule.kind}", 0)

    def _load(self) -> None:
        if not self._is_loaded:
            self._vectors.load()
            self._is_loaded = True


def _ranked(
    query: NDArray[np.float32],
    faces: list[int],
    embeddings: list[NDArray[np.float32]],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and numbers of the k nearest faces, best first; equal ones by number."""
    if not faces:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    cosines = np.stack(embeddings) @ query
    ids = np.array(faces, np.int64)
    order = np.lexsort((ids, -cosines))[:k]
    return cosines[order], ids[order]
