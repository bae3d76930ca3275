"""The index: FAISS behind five verbs, derived from the gallery and never the truth.

Similarities that leave this module are cosines, −1…1 but for rounding. What FAISS
says with an id of −1 ("nothing more") never leaves it: a query gets fewer answers
instead.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError
from face2vec.files import ON_WINDOWS
from face2vec.gallery.gallery import State
from face2vec.index import file as index_file
from face2vec.index import ivf as index_lists
from face2vec.index.flat import Exact, Ids, Vectors, faiss, share_out
from face2vec.index.hnsw import Graphs
from face2vec.index.ivf import Batches, Lists
from face2vec.index.policy import IVF_FACES_LEAST, KINDS

# Compressed similarities only propose: of this many times k the exact ones choose. Of the ten
# nearest faces of real people, 18,990 by one model and 8,949 by another, 256 numbers each,
# 2: 0.990 and 0.991, 3: 0.998 and 0.998, 5: 1.000 and 1.000.
PQ_PROPOSED = 3
ROWS_A_READER = 500  # a millisecond's reading


class Structure(Protocol):
    """How FAISS holds the faces of an index of one kind, and finds them.

    Attributes:
        dimension: length of an embedding.
    """

    dimension: int

    @property
    def parts(self) -> Sequence[Any]:
        """Indexes of FAISS that it is made of."""

    def __len__(self) -> int: ...

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces (n,) with their embeddings (n, d)."""

    def remove(self, ids: Ids) -> None:
        """Take faces out; ids that are not there are passed over."""

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """Similarities (n, k) and ids (n, k) for queries (n, d); −1 where there are no more."""


_UNTRAINED: dict[str, type[Exact] | type[Graphs]] = {"exact": Exact, "hnsw": Graphs}
_STRUCTURES: dict[str, Callable[[Sequence[Any]], Structure]] = {
    **_UNTRAINED,
    "ivf": Lists,
    "ivfpq": Lists,
}


class FaceIndex:
    """Faces by id, searched by similarity of their embeddings.

    Any number of threads may search at once; nothing else may run beside ``add``
    or ``remove``.

    Attributes:
        kind: ``"exact"``; ``"hnsw"`` or ``"ivf"`` (exact similarities, not all faces are
            looked at); or ``"ivfpq"`` (compressed).
        dimension: length of an embedding.
        fixed: whether it is as its file is, and cannot be added to or removed from.
        state: state of a gallery whose faces these are.
    """

    def __init__(self, faces: Structure, kind: str) -> None:
        self._faces = faces
        self._bytes: NDArray[np.uint8] | None = None  # what FAISS's arrays are views of
        self.fixed = False
        self.kind = kind
        self.dimension = faces.dimension
        self.state = State()

    @classmethod
    def empty(cls, dimension: int, kind: str = "exact") -> FaceIndex:
        """An index without faces; ``ivf`` and ``ivfpq`` need ``build``."""
        if kind not in _UNTRAINED:
            raise SettingsError(
                f"An index of kind {kind!r} cannot begin empty; choose exact or hnsw."
            )
        return cls(_UNTRAINED[kind].empty(dimension), kind)

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
        if kind in _UNTRAINED:
            self = cls(_UNTRAINED[kind].empty(dimension, count), kind)
        elif kind not in KINDS or count < IVF_FACES_LEAST:
            raise SettingsError(
                f"An index of kind {kind!r} cannot be built of {count} faces; "
                f"ivf and ivfpq need {IVF_FACES_LEAST}, exact and hnsw any number."
            )
        else:
            if iter(batches) is batches:
                batches = list(batches)
            self = cls(index_lists.trained(kind, dimension, batches, count), kind)
        for ids, embeddings in batches:
            self.add(ids, embeddings)
        return self

    def __len__(self) -> int:
        return len(self._faces)

    def __repr__(self) -> str:
        return f"FaceIndex({self.kind}, {len(self)} faces, dimension={self.dimension})"

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces that are not in the index: ids int64 (n,), embeddings float32 (n, d)."""
        self._to_be_changed()
        if len(ids):
            self._refuse_misfits(embeddings)
            self._faces.add(np.asarray(ids, dtype=np.int64), embeddings)

    def remove(self, ids: Ids) -> None:
        """Remove faces; ids that are not in the index are passed over."""
        self._to_be_changed()
        if len(ids):
            self._faces.remove(np.asarray(ids, dtype=np.int64))

    def search(
        self, queries: Vectors, k: int, rerank: Sequence[Callable[[Ids], Vectors]] = ()
    ) -> tuple[list[Vectors], list[Ids]]:
        """The most similar faces of each query, most similar first.

        Args:
            queries: float32 (n, d) of unit length.
            k: how many at most; a query gets fewer where the index has fewer, or where
                an index that is not exact does not come upon more.
            rerank: for ``ivfpq``, one or more functions that give the embeddings float32
                (m, d) of ids int64 (m,), NaN for one that has gone; each is called by one
                thread at a time. With them similarities are exact, without them those of
                the compressed embeddings. The other kinds do not call them.

        Returns:
            Similarities float32 (m,) and ids int64 (m,), m ≤ k, for each of the n queries.
        """
        self._refuse_misfits(queries)
        if k < 1:
            raise SettingsError(f"k must be 1 or more, not {k}.")
        exactly = rerank if self.kind == "ivfpq" else ()
        wanted = min(len(self), PQ_PROPOSED * k if exactly else k)
        if wanted == 0 or len(queries) == 0:
            nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
            return [nothing[0] for _ in queries], [nothing[1] for _ in queries]
        similarities, ids = self._faces.search(queries, wanted)
        if exactly:
            similarities, ids = _reranked(queries, ids, exactly, k)
        if min(ids[:, -1].tolist()) >= 0:  # those that are missing stand at the end
            return list(similarities), list(ids)
        found = ids >= 0
        return (
            [row[known] for row, known in zip(similarities, found, strict=True)],
            [row[known] for row, known in zip(ids, found, strict=True)],
        )

    def readers(self, queries: int, k: int) -> int:
        """How many functions to rerank with are of use to a search, one at least."""
        if self.kind != "ivfpq":
            return 1
        rows = queries * min(PQ_PROPOSED * k, len(self))
        return int(max(1, min(faiss.omp_get_max_threads(), queries, rows // ROWS_A_READER)))

    def save(self, path: str | Path) -> None:
        """Write the index to a file, whole or not at all; one process at a time.

        Args:
            path: the file, replaced where it is there.

        Raises:
            GalleryError: it cannot be written; an older file stays as it was.
        """

        def put(part: Any, write: Callable[[bytes], int]) -> None:
            faiss.write_index(part, faiss.PyCallbackIOWriter(write))

        about = index_file.About(self.kind, self.dimension, len(self), self.state)
        parts = [partial(put, part) for part in self._faces.parts]
        index_file.write(Path(path), parts, about)

    @classmethod
    def load(cls, path: str | Path, mapped: bool = False, hold: bool = False) -> FaceIndex:
        """The index in a file.

        Args:
            path: the file.
            mapped: leave the vectors in the file, to be read when they are searched: it
                opens at once and several processes share the memory, but cannot be
                added to or removed from. Only the size of the file and both ends of what
                FAISS wrote are then checked, for to check all of it would be to read
                all of it.
            hold: keep the file's bytes in memory as they are, in large pages where the
                system has them: a large index is searched faster, for fewer pages have
                to be looked up, but it cannot be added to or removed from.

        Raises:
            FileNotFoundError: it is not there.
            IndexDamagedError: it is not whole, or not an index of face2vec.
            SettingsError: there is no room in memory to hold it.
        """
        path = Path(path)
        with path.open("rb") as stream:
            # FAISS can end the whole process over bytes that it did not write, so
            # these are known to be right before it sees them.
            about = index_file.checked(stream, path, whole=hold or not mapped)
            there = _bytes_of(stream, path, hold) if mapped or hold else None
            try:
                parts = [
                    faiss.read_index(_reader(stream, there, start, end))
                    for start, end in about.parts
                ]
            except (RuntimeError, TypeError, MemoryError) as error:
                raise index_file.damaged(path, f"FAISS cannot read it ({error})") from error
        self = cls(_STRUCTURES[about.kind](parts), about.kind)
        self.fixed = there is not None
        self._bytes = there
        if (len(self), self.dimension) != (about.count, about.dimension):
            raise index_file.damaged(path, f"it says {about.count} faces and has {len(self)}")
        self.state = about.state
        return self

    def _refuse_misfits(self, vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise SettingsError(
                f"Embeddings of the shape {vectors.shape} do not fit an index of "
                f"(n, {self.dimension})."
            )

    def _to_be_changed(self) -> None:
        if self.fixed:  # FAISS would end the process
            raise SettingsError(
                "This index is as its file is; load it without mapped or hold first."
            )


def _reranked(
    queries: Vectors, proposed: Ids, readers: Sequence[Callable[[Ids], Vectors]], k: int
) -> tuple[Vectors, Ids]:
    """The k best of what was proposed, by exact similarity; −1 where there are fewer."""
    proposed = np.sort(proposed, axis=1)  # of equals the first comes first
    exact = np.full(proposed.shape, np.nan, dtype=np.float32)

    def compare(part: int) -> None:
        # Query by query: the embeddings of one fit into the processor's cache, those of many
        # do not.
        for row in range(part, len(queries), len(readers)):
            there = int(np.searchsorted(proposed[row], 0))
            embeddings = readers[part](proposed[row, there:])
            # Not by BLAS: its threads, once woken, would keep a core from the next search.
            np.vecdot(embeddings, queries[row], out=exact[row, there:])

    share_out(compare, [(part,) for part in range(len(readers))])
    best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    similarities = np.take_along_axis(exact, best, axis=1)
    ids = np.take_along_axis(proposed, best, axis=1)
    missing = np.isnan(similarities)
    similarities[missing] = ids[missing] = -1
    return similarities, ids


def _bytes_of(stream: BinaryIO, path: Path, hold: bool) -> NDArray[np.uint8]:
    """A whole file, as it lies there or in memory, where NumPy asks for large pages."""
    if not hold and not ON_WINDOWS:  # where a mapped file cannot be replaced by the next index
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    stream.seek(0)
    try:
        return np.fromfile(stream, np.uint8)
    except MemoryError as error:
        raise SettingsError(
            f"There is no room in memory for the {path.stat().st_size:,} bytes of the index "
            f"{path}. Leave it in its file: open the gallery without hold_index."
        ) from error


def _reader(stream: BinaryIO, there: NDArray[np.uint8] | None, start: int, end: int) -> Any:
    """What FAISS reads a part of a file by; it leaves the bytes where they are there already."""
    if there is not None:
        return faiss.ZeroCopyIOReader(faiss.swig_ptr(there[start:end]), end - start)
    stream.seek(start)
    return faiss.PyCallbackIOReader(stream.read)
