"""The index: FAISS behind five verbs, derived from the gallery and never the truth.

Similarities that leave this module are cosines, −1…1 but for rounding. What FAISS
says with an id of −1 ("nothing more") never leaves it: a query gets fewer answers
instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from face2vec import index_file
from face2vec.errors import SettingsError
from face2vec.gallery import State
from face2vec.index_kind import EXAMPLES_A_CENTROID, HNSW_LINKS, IVF_FACES_LEAST, KINDS

faiss: Any = _faiss  # its own type hints lack half of what it has
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Batches = Iterable[tuple[Ids, Vectors]]

# Vectors of an exact index that one thread reads in a millisecond, for one query.
SCANNED_BYTES = 16 << 20
# Recall of the ten nearest among 100,000 faces of 512 numbers, of which those of one person
# have a cosine of 0.6, measured with 10 / 20 faces a person. hnsw by breadth of the search:
# 64: 0.989 / 0.998, 128: 0.994 / 0.998, 256: 0.996 / 0.999.
HNSW_BREADTH = 128
# Among a million, 10 faces a person: 128: 0.744, 256: 0.839, 512: 0.887, 1,024: 0.931; so it grows.
HNSW_FACES_A_STEP = 1_000
# A deleted node stays as a stepping stone, with another's embedding, and is never returned; too
# many make it slow.
HNSW_DEAD_SHARE = 0.2
# ivf, and ivfpq with the exact similarities of 4 k faces or more, by how many of 1,024 lists
# are searched: 32: 0.965 / 0.999, 64: 0.980 / 1.000, 128: 0.991 / 1.000.
# At a million, 4,000 lists, 10 faces a person, ivfpq: 64 / 128 / 256 / 512: 0.67 / 0.78 / 0.86 /
# 0.93, so an eighth of the lists, and 64 at least.
IVF_LISTS_SEARCHED = 64
IVF_SHARE_SEARCHED = 8
IVF_LISTS_MOST = 16_384
PQ_NUMBERS_A_BYTE = 8
# Compressed similarities only propose: of this many times k the exact ones choose. Of the ten
# nearest among 18,990 faces of real people (256 numbers) 5: 0.935, 10: 0.983, 20: 0.997.
PQ_PROPOSED = 10

_ANY_FACE = (0, 2**63 - 1)
# Of IVF's lists; FAISS's usual mode gives a query to one core. Batches take as long either way.
_EACH_QUERY_BY_ALL_CORES = 1


class FaceIndex:
    """Faces by id, searched by similarity of their embeddings.

    Any number of threads may search at once; nothing else may run beside ``add``
    or ``remove``.

    Attributes:
        kind: ``"exact"``, ``"hnsw"``, ``"ivf"`` (exact similarities, not all faces are
            looked at) or ``"ivfpq"`` (compressed).
        dimension: length of an embedding.
        mapped: whether the vectors are left in the file, which then cannot be changed.
        state: state of a gallery whose faces these are.
    """

    def __init__(self, index: Any, kind: str) -> None:
        self._index = index
        if kind.startswith("ivf"):
            index.parallel_mode = _EACH_QUERY_BY_ALL_CORES
        self._dead = 0
        self._plan: tuple[int, int, Any] | None = None  # of the last search, see there
        self.mapped = False
        self.kind = kind
        self.dimension: int = index.d
        self.state = State()

    @classmethod
    def empty(cls, dimension: int, kind: str = "exact") -> FaceIndex:
        """An index without faces; ``ivf`` and ``ivfpq`` need ``build``."""
        if kind not in ("exact", "hnsw"):
            raise SettingsError(
                f"An index of kind {kind!r} cannot begin empty; choose exact or hnsw."
            )
        return cls(_untrained(kind, dimension, 0), kind)

    @classmethod
    def build(cls, batches: Batches, count: int, dimension: int, kind: str) -> FaceIndex:
        """An index of all the faces in the batches.

        Args:
            batches: (ids int64 (n,), embeddings float32 (n, d)), again and again. ``ivf``
                and ``ivfpq`` go through them twice; an iterator, which can be
                gone through once, is kept in memory for that.
            count: how many faces there are.
            dimension: length of an embedding.
            kind: one of ``KINDS``.

        Raises:
            SettingsError: too few faces for that kind, see ``index_kind``.
        """
        if kind in ("exact", "hnsw"):
            self = cls.empty(dimension, kind)
        elif kind not in KINDS or count < IVF_FACES_LEAST:
            raise SettingsError(
                f"An index of kind {kind!r} cannot be built of {count} faces; "
                f"ivf and ivfpq need {IVF_FACES_LEAST}, exact and hnsw any number."
            )
        else:
            if iter(batches) is batches:
                batches = list(batches)
            self = cls(_untrained(kind, dimension, count), kind)
            self._index.train(_examples(batches, count, EXAMPLES_A_CENTROID * self._index.nlist))
        _reserve(self._index, kind, count)
        for ids, embeddings in batches:
            self.add(ids, embeddings)
        return self

    def __len__(self) -> int:
        return int(self._index.ntotal) - self._dead

    def __repr__(self) -> str:
        return f"FaceIndex({self.kind}, {len(self)} faces, dimension={self.dimension})"

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces that are not in the index: ids int64 (n,), embeddings float32 (n, d)."""
        self._to_be_changed()
        if len(ids):
            self._refuse_misfits(embeddings)
            self._index.add_with_ids(embeddings, np.asarray(ids, dtype=np.int64))

    def remove(self, ids: Ids) -> None:
        """Remove faces; ids that are not in the index are passed over."""
        self._to_be_changed()
        ids = np.asarray(ids, dtype=np.int64)
        if not len(ids):
            return
        if self.kind != "hnsw":
            self._index.remove_ids(ids)
            return
        # HNSW cannot lose a node. Here it loses its id, which no search returns.
        labels = _labels(self._index)
        gone = np.isin(labels, ids)
        labels[gone] = -1
        self._dead += int(gone.sum())
        if self._dead > HNSW_DEAD_SHARE * self._index.ntotal:
            self._index = _without_dead(self._index)
            self._dead = 0
        elif gone.any():
            self._overwrite(np.flatnonzero(gone))

    def _overwrite(self, dead: Ids) -> None:
        """Leave no embedding of the dead: each node gets that of the face most like it.

        There it goes on leading searches the way that it did. So do nodes that died before and
        had an embedding of those who died now.
        """
        vectors, labels = _vectors(self._index), _labels(self._index)
        beginnings = vectors[:, :2].copy().view(np.int64)[:, 0]
        dead = np.flatnonzero((labels < 0) & np.isin(beginnings, beginnings[dead]))
        found = [ids[0] if len(ids) else -1 for ids in self.search(vectors[dead].copy(), 1)[1]]
        self._plan = None
        order = np.argsort(labels)
        heirs = order[np.minimum(np.searchsorted(labels[order], found), len(order) - 1)]
        vectors[dead] = np.where((labels[heirs] >= 0)[:, None], vectors[heirs], 0)

    def search(
        self, queries: Vectors, k: int, rerank: Callable[[Ids], Vectors] | None = None
    ) -> tuple[list[Vectors], list[Ids]]:
        """The most similar faces of each query, most similar first.

        Args:
            queries: float32 (n, d) of unit length.
            k: how many at most; a query gets fewer where the index has fewer, or where
                an index that is not exact does not come upon more.
            rerank: for ``ivfpq``, gives the embeddings float32 (m, d) of ids int64 (m,),
                NaN for one that has gone. With it similarities are exact, without it those
                of the compressed embeddings. The other kinds do not call it.

        Returns:
            Similarities float32 (m,) and ids int64 (m,), m ≤ k, for each of the n queries.
        """
        self._refuse_misfits(queries)
        if k < 1:
            raise SettingsError(f"k must be 1 or more, not {k}.")
        exactly = rerank if self.kind == "ivfpq" else None
        asked = k if exactly is None else PQ_PROPOSED * k
        plan = self._plan  # once: another thread may put its own in this place
        if plan is None or plan[0] != asked:
            wanted = min(len(self), asked)
            plan = self._plan = asked, wanted, self._breadth(wanted) if wanted else None
        _, wanted, breadth = plan
        if self._dead:  # FAISS writes into one with a selector while it searches
            breadth = self._breadth(wanted)
        if wanted == 0 or len(queries) == 0:
            nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
            return [nothing[0] for _ in queries], [nothing[1] for _ in queries]
        if self.kind == "exact" and len(queries) == 1:
            similarities, ids = _scanned(self._index, queries, wanted)
        else:
            similarities, ids = self._index.search(queries, wanted, params=breadth)
        if exactly is not None:
            similarities, ids = _reranked(queries, ids, exactly, k)
        if min(ids[:, -1].tolist()) >= 0:  # those that are missing stand at the end
            return list(similarities), list(ids)
        found = ids >= 0
        return (
            [row[known] for row, known in zip(similarities, found, strict=True)],
            [row[known] for row, known in zip(ids, found, strict=True)],
        )

    def save(self, path: str | Path) -> None:
        """Write the index to a file, whole or not at all; one process at a time.

        Args:
            path: the file, replaced where it is there.

        Raises:
            GalleryError: it cannot be written; an older file stays as it was.
        """

        def put(stream: BinaryIO) -> None:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(stream.write))

        about = index_file.About(self.kind, self.dimension, len(self), self.state)
        index_file.write(Path(path), put, about)

    @classmethod
    def load(cls, path: str | Path, mmap: bool = False) -> FaceIndex:
        """The index in a file.

        Args:
            path: the file.
            mmap: leave the vectors in the file, to be read when they are searched: it
                opens at once and several processes share the memory, but cannot be
                added to or removed from. Only the size of the file and its two ends
                are then checked, for to check all of it would be to read all of it.
                A file whose name is not text is read instead.

        Raises:
            FileNotFoundError: it is not there.
            IndexDamagedError: it is not whole, or not an index of face2vec.
        """
        path = Path(path)
        mmap = mmap and _is_text(path)  # FAISS opens it by name
        with path.open("rb") as stream:
            # FAISS can end the whole process over bytes that it did not write, so
            # these are known to be right before it sees them.
            about = index_file.checked(stream, path, whole=not mmap)
            try:
                if mmap:
                    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
                else:
                    stream.seek(0)
                    index = faiss.read_index(faiss.PyCallbackIOReader(stream.read))
            except (RuntimeError, TypeError, MemoryError) as error:
                raise index_file.damaged(path, f"FAISS cannot read it ({error})") from error
        self = cls(index, about.kind)
        self.mapped = mmap
        if self.kind == "hnsw":
            self._dead = int((_labels(index) < 0).sum())
        if (len(self), self.dimension) != (about.count, about.dimension):
            raise index_file.damaged(path, f"it says {about.count} faces and has {len(self)}")
        self.state = about.state
        return self

    def _breadth(self, wanted: int) -> Any:
        """How much of the index a search for that many faces looks at."""
        if self.kind == "exact":
            return None
        if self.kind == "hnsw":
            total = self._index.ntotal
            breadth = max(HNSW_BREADTH, 2 * wanted, total // HNSW_FACES_A_STEP)
            if self._dead:
                alive = faiss.IDSelectorRange(*_ANY_FACE)
                return faiss.SearchParametersHNSW(efSearch=breadth, sel=alive)
            return faiss.SearchParametersHNSW(efSearch=breadth)
        lists = self._index.nlist
        enough = math.ceil(4 * wanted * lists / self._index.ntotal)
        return faiss.SearchParametersIVF(
            nprobe=min(lists, max(IVF_LISTS_SEARCHED, lists // IVF_SHARE_SEARCHED, enough))
        )

    def _refuse_misfits(self, vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise SettingsError(
                f"Embeddings of the shape {vectors.shape} do not fit an index of "
                f"(n, {self.dimension})."
            )

    def _to_be_changed(self) -> None:
        if self.mapped:  # FAISS would end the process
            raise SettingsError("This index is read from its file; load it without mmap first.")
        self._plan = None


def _untrained(kind: str, dimension: int, count: int) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    if kind == "exact":
        return faiss.IndexIDMap(faiss.IndexFlatIP(dimension))
    if kind == "hnsw":
        return faiss.IndexIDMap(faiss.IndexHNSWFlat(dimension, HNSW_LINKS, product))
    lists = min(int(4 * math.sqrt(count)), count // EXAMPLES_A_CENTROID, IVF_LISTS_MOST)
    quantizer = faiss.IndexFlatIP(dimension)
    if kind == "ivf":
        return faiss.IndexIVFFlat(quantizer, dimension, lists, product)
    parts = max(n for n in range(1, dimension // PQ_NUMBERS_A_BYTE + 1) if dimension % n == 0)
    index = faiss.IndexIVFPQ(quantizer, dimension, lists, parts, 8, product)
    # Codes learned from more examples are no better and take minutes longer.
    index.pq.cp.max_points_per_centroid = 64
    index.pq.cp.niter = 15
    return index


def _reserve(index: Any, kind: str, count: int) -> None:
    """Make room for so many faces at once: FAISS's arrays double as they grow, by copying."""
    if kind == "exact":
        storage = faiss.downcast_index(index.index)
    elif kind == "hnsw":
        graph = faiss.downcast_index(index.index)
        storage = faiss.downcast_index(graph.storage)
        # Nearly all nodes are in the lowest level only, where they have twice the links.
        _make_room(graph.hnsw.neighbors, count * (2 * HNSW_LINKS + 2))
    else:  # its faces are in many lists
        return
    _make_room(storage.codes, count * storage.code_size)
    _make_room(index.id_map, count)


def _make_room(vector: Any, size: int) -> None:
    vector.resize(size)
    vector.resize(0)  # keeps what it has


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


def _labels(index: Any) -> Ids:
    """The ids inside an index of FAISS, to be read and written in place."""
    labels: Ids = faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)
    return labels


def _vectors(index: Any) -> Vectors:
    """The embeddings inside an HNSW index, (n, d), to be read and written in place."""
    storage = faiss.downcast_index(faiss.downcast_index(index.index).storage)
    vectors: Vectors = faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * index.d)
    return vectors.reshape(-1, index.d)


def _scanned(index: Any, query: Vectors, wanted: int) -> tuple[Vectors, Ids]:
    """The search of an exact index for one query, half as long as FAISS's own.

    FAISS makes it a product of matrices, which are quick where they have many rows.
    """
    count, size = index.ntotal, 4 * index.d
    similarities = np.empty(count, dtype=np.float32)
    query = np.ascontiguousarray(query, dtype=np.float32)  # as FAISS's own wrapper sees to
    asked, start = faiss.swig_ptr(query), int(faiss.downcast_index(index.index).get_xb())

    def scan(first: int, end: int) -> None:  # other threads go on meanwhile
        into = faiss.swig_ptr(similarities[first:end])
        vectors = faiss.cast_integer_to_float_ptr(start + first * size)
        faiss.fvec_inner_products_ny(into, asked, vectors, index.d, end - first)

    parts = min(faiss.omp_get_max_threads(), 1 + count * size // SCANNED_BYTES)
    ends = [count * part // parts for part in range(parts + 1)]
    others = [_scanners().submit(scan, *part) for part in pairwise(ends[1:])]
    scan(0, ends[1])
    for other in others:
        other.result()
    best = np.argpartition(similarities, -wanted)[-wanted:]
    best = best[np.argsort(-similarities[best])]
    similarities, ids = similarities[best], _labels(index)[best]
    ids[np.isnan(similarities)] = -1
    return similarities[None], ids[None]


@cache
def _scanners() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "scan")


def _without_dead(index: Any) -> Any:
    labels = _labels(index)
    alive = labels >= 0
    rebuilt = _untrained("hnsw", index.d, 0)
    if alive.any():
        rebuilt.add_with_ids(_vectors(index)[alive], labels[alive])
    return rebuilt


def _reranked(
    queries: Vectors, proposed: Ids, embeddings_of: Callable[[Ids], Vectors], k: int
) -> tuple[Vectors, Ids]:
    """The k best of what was proposed, by exact similarity; −1 where there are fewer."""
    known = np.unique(proposed)
    known = known[np.searchsorted(known, 0) :]
    embeddings = np.asarray(embeddings_of(known), dtype=np.float32)
    similarities = np.full((len(queries), k), -1, dtype=np.float32)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    for row, (query, some) in enumerate(zip(queries, proposed, strict=True)):
        some = np.sort(some[some >= 0])
        exact = embeddings[np.searchsorted(known, some)] @ query
        order = np.argsort(-exact, kind="stable")
        best = order[~np.isnan(exact[order])][:k]
        similarities[row, : len(best)] = exact[best]
        ids[row, : len(best)] = some[best]
    return similarities, ids


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
