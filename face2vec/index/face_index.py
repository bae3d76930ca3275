"""`FaceIndex`: faces by id, searched by the similarity of their embeddings.

It is derived from the gallery and can be rebuilt at any time. All similarities that leave this
module are cosines. FAISS's id −1, "no more results", never leaves it: a query gets fewer results
instead.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError
from face2vec.files import ON_WINDOWS, open_regular
from face2vec.gallery.reader import State
from face2vec.index import file as index_file
from face2vec.index.flat import Flat
from face2vec.index.kinds import KINDS, IndexKind
from face2vec.index.parallel import Batches, Ids, Vectors, faiss, merge_best, run_parts
from face2vec.index.policy import PQ_FACES_LEAST, Measured, canonical, choose_kind

_WRONG_PARTS = (
    *(RuntimeError, TypeError, MemoryError),
    *(ValueError, AttributeError, IndexError, AssertionError),
)
VERIFIED_BYTES = 32 << 20  # are read and verified in some ten milliseconds
ROWS_PER_READER = 500  # embeddings that are read in a millisecond
LATER_LEAST, LATER_PART = 2000, 200
"""Faces, and the part of a large file's faces, that are added beside it before it is rewritten."""


class FaceIndex:
    """Faces by id, searched by the similarity of their embeddings.

    Several threads may search at once; nothing else may run during ``add`` or ``remove``.

    Attributes:
        kind: ``"flat"`` (all faces are compared) or ``"pq"`` (short codes of all faces are).
        dimension: length of an embedding.
        read_only: whether its memory is that of the file, so that it cannot change. Faces can be
            added beside it, see `add_later`.
        verified: whether all bytes of its file were verified when it was loaded.
        state: state of the gallery whose faces these are.
    """

    def __init__(self, faces: IndexKind, kind: str) -> None:
        self._faces = faces
        self._later: Flat | None = None
        self._bytes: NDArray[np.uint8] | None = None  # FAISS's arrays are views of it
        self.read_only = False
        self.verified = True
        self.kind = kind
        self.dimension = faces.dimension
        self.state = State()

    @classmethod
    def build(cls, batches: Batches, count: int, dimension: int, kind: str) -> FaceIndex:
        """An index of all faces of ``batches``.

        Args:
            batches: ids int64 (n,) and embeddings float32 (n, d). ``pq`` iterates three times; an
                iterator, which allows only one pass, is copied to memory for that.
            count: how many faces there are.
            dimension: length of an embedding.
            kind: a key of ``KINDS``.

        Raises:
            SettingsError: there is no such kind, or it needs more faces.
        """
        kind = canonical(kind)
        if kind == "pq":
            if choose_kind(count, dimension, kind) != kind:
                raise SettingsError(
                    f"cannot build an index of kind {kind!r} from {count} faces: it needs at least "
                    f"{PQ_FACES_LEAST}; choose 'flat'"
                )
            if iter(batches) is batches:
                batches = list(batches)
        self = cls(KINDS[kind].prepare(dimension, count, batches), kind)
        for ids, embeddings in batches:
            self.add(ids, embeddings)
        self._faces.settle()
        return self

    def __len__(self) -> int:
        return len(self._faces) + (0 if self._later is None else len(self._later))

    def __repr__(self) -> str:
        return f"FaceIndex({self.kind}, {len(self)} faces, dimension={self.dimension})"

    @property
    def measured(self) -> Measured | None:
        """What was measured when the index was built; None if its search is exact."""
        return self._faces.measured

    @property
    def outgrown(self) -> bool:
        """Whether so many faces have been added that it should be built again."""
        return self.measured is not None and self.measured.is_outgrown(len(self))

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces.

        Args:
            ids: int64 (n,), none of which is in the index.
            embeddings: float32 (n, d) of unit length.

        Raises:
            SettingsError: the index is read-only, or embeddings have another shape.
        """
        self._check_writable()
        if len(ids):
            self._check_shape(embeddings)
            self._faces.add(np.asarray(ids, dtype=np.int64), embeddings)

    def can_take(self, count: int) -> bool:
        """Whether so many more faces may be added beside the file, instead of rewriting it.

        They may if the file is large, and they are few for it.
        """
        if self._bytes is None or len(self._bytes) <= VERIFIED_BYTES:
            return False
        most = max(LATER_LEAST, len(self._faces) // LATER_PART)
        return len(self) - len(self._faces) + count <= most

    def add_later(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces beside the file, in memory: exact, and compared with each query.

        Args:
            ids: int64 (n,), none of which is in the index.
            embeddings: float32 (n, d) of unit length.

        Raises:
            SettingsError: embeddings have another shape.
        """
        if len(ids):
            self._check_shape(embeddings)
            if self._later is None:
                self._later = Flat.prepare(self.dimension)
            self._later.add(np.asarray(ids, dtype=np.int64), embeddings)

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,); unknown ids are ignored.

        Raises:
            SettingsError: the index is read-only.
        """
        self._check_writable()
        if len(ids):
            self._faces.remove(np.asarray(ids, dtype=np.int64))

    def search(
        self, queries: Vectors, k: int, rerank: Sequence[Callable[[Ids], Vectors]] = ()
    ) -> tuple[list[Vectors], list[Ids]]:
        """The most similar faces of each query, most similar first.

        Args:
            queries: float32 (n, d) of unit length.
            k: maximum number of faces per query. A query gets fewer if the index has fewer, or
                if an approximate index finds no more.
            rerank: for ``pq``, functions that return the embeddings float32 (m, d) of ids
                int64 (m,), NaN for a face that has gone; each is called by one thread at a time.
                They make the similarities exact. Without them similarities are those of the
                compressed embeddings. ``flat`` ignores them.

        Returns:
            Cosines float32 (m,) and ids int64 (m,), m ≤ k, for each of the n queries.

        Raises:
            SettingsError: k is below 1, or queries have another shape.
        """
        self._check_shape(queries)
        if k < 1:
            raise SettingsError(f"k must be at least 1, not {k}")
        proposals = self._faces.proposals(k) if rerank else 0
        wanted = min(len(self._faces), proposals or k)
        if wanted == 0 or len(queries) == 0:
            nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
            return [nothing[0] for _ in queries], [nothing[1] for _ in queries]
        similarities, ids = self._faces.search(queries, wanted)
        if proposals:
            similarities, ids = _reranked(queries, ids, rerank, k)
        if self._later is not None:
            more = self._later.search(queries, min(len(self._later), k))
            similarities, ids = merge_best((similarities, more[0]), (ids, more[1]), k)
        if min(ids[:, -1].tolist()) >= 0:  # missing results are at the end
            return list(similarities), list(ids)
        found = ids >= 0
        return (
            [row[known] for row, known in zip(similarities, found, strict=True)],
            [row[known] for row, known in zip(ids, found, strict=True)],
        )

    def readers(self, queries: int, k: int) -> int:
        """How many functions for ``rerank`` a search can use at the same time; at least 1."""
        rows = queries * min(self._faces.proposals(k), len(self))
        return int(max(1, min(faiss.omp_get_max_threads(), queries, rows // ROWS_PER_READER)))

    def save(self, path: str | Path) -> None:
        """Write the index to a file, completely or not at all; one process at a time.

        Args:
            path: the file; an existing one is replaced.

        Raises:
            GalleryError: it cannot be written; an older file is kept.
        """

        def put(part: Any, write: Callable[[bytes], int]) -> None:
            faiss.write_index(part, faiss.PyCallbackIOWriter(write))

        header = index_file.Header(
            self.kind, self.dimension, len(self), self.state, measured=self.measured
        )
        parts = [partial(put, part) for part in self._faces.parts]
        index_file.write(Path(path), parts, header)

    @classmethod
    def load(cls, path: str | Path, mmap: bool = False, in_memory: bool = False) -> FaceIndex:
        """Load the index from a file.

        Args:
            path: the file.
            mmap: map the file to memory. It opens at once and processes share the memory, but it
                is read-only. Of a file of more than ``VERIFIED_BYTES`` only the size and both ends
                of each part are verified, and ``verified`` is False.
            in_memory: read the file's bytes to memory, in large pages where the system has them.
                A large index is searched faster, but it is read-only.

        Raises:
            FileNotFoundError: there is no such file.
            IndexDamagedError: it is incomplete, not an index of face2vec, or cannot be read.
            SettingsError: the memory is too small for ``in_memory``.
        """
        path = Path(path)
        with _opened(path) as stream:
            # FAISS can crash on bytes that it did not write, so they are verified first.
            whole = in_memory or not mmap or os.fstat(stream.fileno()).st_size <= VERIFIED_BYTES
            header = index_file.read_header(stream, path, whole=whole)
            data = _bytes_of(stream, path, in_memory) if mmap or in_memory else None
            try:
                parts = [
                    faiss.read_index(_reader(stream, data, start, end))
                    for start, end in header.parts
                ]
                self = cls(KINDS[header.kind](parts), header.kind)
            # Parts that are not those of the kind have other attributes, or another number.
            except _WRONG_PARTS as error:
                raise index_file.damaged(path, f"FAISS cannot read it ({error})") from error
        self._faces.measured = header.measured
        self.read_only = data is not None
        self.verified = whole
        self._bytes = data
        if (len(self), self.dimension) != (header.count, header.dimension):
            raise index_file.damaged(
                path,
                f"it declares {header.count} faces of dimension {header.dimension} and has "
                f"{len(self)} of {self.dimension}",
            )
        self.state = header.state
        return self

    def _check_shape(self, vectors: Vectors) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise SettingsError(
                f"embeddings have shape {vectors.shape}; this index takes (n, {self.dimension})"
            )

    def _check_writable(self) -> None:
        if self.read_only:  # FAISS would crash
            raise SettingsError("the index is read-only; load it without mmap and in_memory")


def _reranked(
    queries: Vectors, proposed: Ids, readers: Sequence[Callable[[Ids], Vectors]], k: int
) -> tuple[Vectors, Ids]:
    """The k best of the proposed faces by exact similarity; −1 where there are fewer."""
    proposed = np.sort(proposed, axis=1)  # ties go to the lowest id
    exact = np.full(proposed.shape, np.nan, dtype=np.float32)

    def compare(part: int) -> None:
        # One query at a time: its embeddings fit into the processor's cache.
        for row in range(part, len(queries), len(readers)):
            there = int(np.searchsorted(proposed[row], 0))
            embeddings = readers[part](proposed[row, there:])
            # Without BLAS, whose threads keep spinning and would slow the next search.
            np.vecdot(embeddings, queries[row], out=exact[row, there:])

    run_parts(compare, [(part,) for part in range(len(readers))])
    best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    similarities = np.take_along_axis(exact, best, axis=1)
    ids = np.take_along_axis(proposed, best, axis=1)
    missing = np.isnan(similarities)
    similarities[missing] = ids[missing] = -1
    return similarities, ids


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise index_file.damaged(path, f"it cannot be read ({error.strerror})") from error


def _bytes_of(stream: BinaryIO, path: Path, in_memory: bool) -> NDArray[np.uint8]:
    """A whole file, mapped or in memory, for which NumPy requests large pages."""
    if not in_memory and not ON_WINDOWS:  # Windows cannot replace a mapped file
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    stream.seek(0)
    try:
        return np.fromfile(stream, np.uint8)
    except MemoryError as error:
        raise SettingsError(
            f"the index {path} needs {path.stat().st_size:,} bytes of memory, and there is not "
            "enough; open the gallery without index_in_memory"
        ) from error


def _reader(stream: BinaryIO, data: NDArray[np.uint8] | None, start: int, end: int) -> Any:
    """A FAISS reader for a part of the file; it does not copy bytes that are in ``data``."""
    if data is not None:
        return faiss.ZeroCopyIOReader(faiss.swig_ptr(data[start:end]), end - start)
    stream.seek(start)
    return faiss.PyCallbackIOReader(stream.read)
