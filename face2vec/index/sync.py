"""Keeps the index of a gallery up to date: loads it, updates it from the journal, or rebuilds it.

FAISS is imported only when something is searched or built.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import GalleryError
from face2vec.files import open_regular, put_in_place
from face2vec.forks import abandon, renew_after_fork
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot, State
from face2vec.gallery.staging import UPGRADED_INDEX, Uncommitted
from face2vec.gallery.writer import Writer
from face2vec.index.file import (
    FormerIndexError,
    Header,
    IndexDamagedError,
    damaged,
    read_header,
)
from face2vec.index.policy import choose_kind
from face2vec.index.seam import FaceSearch, IndexFacts, Nearest

if TYPE_CHECKING:
    from face2vec.index.face_index import FaceIndex

log = logging.getLogger("face2vec")

INDEX_FILE = "index.faiss"
# FAISS and NumPy add in another order. A cosine of float32 vectors of length 1 differs by 1e-6 or
# less for that; a changed bit below this limit does not change an answer that anybody sees.
COSINE_TOLERANCE = 1e-4
# Embeddings read at a time; building needs little memory besides the index. Larger steps take less
# time for a large one.
BATCH = 256
BATCH_MOST = 8192
QUERIES_KEPT = 1000
"""Queries whose matches' embeddings are kept for what follows: 25 MB of dimension 512."""

_Read = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Ids (n,), and their embeddings (n, d)."""


class GalleryIndex:
    """The index of one gallery. Safe to use from several threads.

    Args:
        gallery: the gallery that it is derived from.
        wanted: kind of index, or "auto" to choose by the size of the gallery.
        in_memory: keep it in memory, see `FaceIndex.load`; otherwise its file is mapped.
    """

    def __init__(self, gallery: Gallery, wanted: str = "auto", in_memory: bool = False) -> None:
        self._gallery = gallery
        self._wanted = wanted
        self._in_memory = in_memory
        self._index: FaceIndex | None = None
        self._new_lock()
        renew_after_fork(self._renew)
        self.path = gallery.folder / INDEX_FILE
        self._beside = gallery.folder / UPGRADED_INDEX
        self._distrusted = False  # the file; what is built from the gallery is trusted

    def _new_lock(self) -> None:
        self._lock = threading.RLock()
        self._search_ended = threading.Condition(self._lock)
        self._searches = self._waiting = 0

    def _renew(self) -> None:
        """Keep the index, whose memory is shared with the parent, unless it was being changed."""
        if not self._lock.acquire(blocking=False):
            abandon(self._index)
            self._index = None
        self._new_lock()

    def at(self, now: Snapshot) -> _InUse:
        """For a `with` block: the index at the state of a snapshot or newer, unchanged."""
        return _InUse(self, now)

    def nearest(self, now: Snapshot, queries: NDArray[np.float32], k: int) -> Nearest:
        """The most similar faces of each query, with similarities that agree with the gallery.

        An index whose similarities are not those of the gallery's embeddings is damaged: it is
        built again from the gallery, and searched again.

        Args:
            now: the snapshot.
            queries: float32 (n, d) of unit length.
            k: maximum number of faces per query.

        Raises:
            GalleryDamagedError: embeddings in the gallery have changed since they were stored.
            IndexDamagedError: a new index disagrees, too, so the gallery's embeddings are invalid.
        """
        for _ in range(2):
            with self.at(now) as index:
                read: list[_Read] | None = [] if len(queries) <= QUERIES_KEPT else None
                similarities, ids = nearest_faces(index, now, queries, k, read)
                numbers = np.unique(np.concatenate(ids))
                embeddings: NDArray[np.float32] | None
                if index.measured is None:
                    embeddings = now.embeddings(numbers)
                    sound = _agree(index, now, queries, similarities, ids, numbers, embeddings)
                else:  # the similarities come from the embeddings themselves
                    embeddings = _found(read, numbers)
                    sound = _is_distinct(ids)
                if sound:
                    return Nearest(similarities, ids, len(index), embeddings)
                now.verify(numbers.tolist())
            self._distrust(index, "a similarity is not that of the gallery's embeddings")
        raise damaged(self.path, "its similarities are not those of the gallery's embeddings")

    def _distrust(self, index: FaceIndex, what: str) -> None:
        """Have a damaged index built from the gallery when it is needed next."""
        with self._lock:
            if self._index is index:
                if not self._distrusted:
                    log.warning("%s", damaged(self.path, what))
                self._distrusted = True
                self._index = None

    def _verify_later(self, index: FaceIndex) -> None:
        """Verify all bytes of the file of a mapped index in a thread, once per opening."""
        if not index.verified:
            index.verified = True
            threading.Thread(
                target=self._verify, args=(index,), name="verify index", daemon=True
            ).start()

    def _verify(self, index: FaceIndex) -> None:
        try:
            with open_regular(self.path) as stream:
                if read_header(stream, self.path, whole=False).state == index.state:
                    read_header(stream, self.path, whole=True)
        except IndexDamagedError:
            self._distrust(index, "its checksum is wrong")
        except OSError as error:  # another process replaces it, or the disk fails
            log.info("the index %s cannot be verified: %s", self.path, error)

    def save(self) -> None:
        """Bring the index up to date, change its kind if the size requires it, and write it.

        Raises:
            GalleryError: it cannot be written.
        """
        with self._lock, self._gallery.read() as now:
            if self._index is None and not self._distrusted and self._is_written(now):
                return
            index = self._brought_to(now)
            if index.outgrown or index.kind != self._kind(len(index)):
                index = self._index = self._built(now)
            if not index.read_only:  # a read-only one is the file itself
                index.save(self.path)
                self._distrusted = False

    def rebuild(self) -> None:
        """Rebuild the index from the embeddings of the gallery and write it."""
        with self._lock, self._gallery.read() as now:
            index = self._index = self._built(now)
            index.save(self.path)
            self._distrusted = False

    def write_beside(self, batches: Uncommitted, dimension: int, state: State) -> None:
        """Write an index of embeddings that are not committed yet, beside the current one.

        Args:
            batches: ids int64 (n,) and embeddings float32 (n, d).
            dimension: length of an embedding.
            state: state of the gallery after the commit.
        """
        self._build(batches, dimension, state).save(self._beside)

    def take_beside(self) -> None:
        """Replace the index by the one of `write_beside`."""
        with self._lock:
            self._index, self._distrusted = None, False
            with suppress(FileNotFoundError):  # it is rebuilt when it is needed
                put_in_place(self._beside, self.path)

    def recover(self) -> None:
        """Finish what a killed writer has left undone; the caller has the right to write.

        The index of an upgrade that was killed behind its switch is put in place. A file that may
        hold embeddings of removed faces is written again, or deleted if there is no room.

        Raises:
            GalleryError: the folder cannot be written.
        """
        with self._lock, self._gallery.read() as now:
            try:
                beside = self._header(self._beside, whole=True)
                if beside is not None and beside.state == now.state:
                    self.take_beside()
                else:
                    self._beside.unlink(missing_ok=True)
                if not self._may_hold_removed(now):
                    return
                try:
                    if now.purge_is_due():
                        self.rebuild()
                    else:
                        self.save()
                except GalleryError as error:
                    log.warning("%s; the file is deleted, because it holds removed faces", error)
                    self._index = None
                    self.path.unlink(missing_ok=True)
            except OSError as error:
                raise GalleryError(
                    f"cannot write the gallery {self._gallery.folder}: {error}; get write "
                    "permission, or copy the folder"
                ) from error

    def problems(self) -> list[str]:
        """What is wrong with the index file, one sentence each; empty if it is sound."""
        from face2vec.index.face_index import FaceIndex

        with self._gallery.read() as now:
            faces = now.count
            try:
                index = FaceIndex.load(self.path)
            except FileNotFoundError:
                if not faces:
                    return []
                return [f"{self.path} is missing; it will be rebuilt when it is needed"]
            except FormerIndexError:
                return []
            except GalleryError as error:
                return [str(error)]
            if not now.has_been(index.state):
                return [f"{self.path} {_foreign(index, now)}; run rebuild"]
            if index.state == now.state and len(index) != faces:
                return [f"{self.path} holds {len(index)} faces, not {faces}; run rebuild"]
            if now.has_removed_since(index.state):
                return [
                    f"{self.path} holds faces that were removed from the gallery; the next change "
                    "of the gallery, or rebuild, removes them from it"
                ]
            return []

    def facts(self, now: Snapshot) -> IndexFacts:
        """The kind and the size of the index for a state of the gallery."""
        with self.at(now) as current:
            kind, measured = current.kind, current.measured
        size = self.path.stat().st_size if self.path.exists() else 0
        return IndexFacts(kind, size, measured)

    def _is_written(self, now: Snapshot) -> bool:
        """Whether the file has the state of the snapshot and the right kind."""
        header = self._header(self.path)
        if header is None:
            return False  # loading it reports the damage
        if header.measured is not None and header.measured.is_outgrown(header.count):
            return False
        return header.state == now.state and header.kind == self._kind(header.count)

    def _header(self, path: Path, *, whole: bool = False) -> Header | None:
        """The header of an index file; None if it is missing or damaged."""
        try:
            with open_regular(path) as stream:
                return read_header(stream, path, whole=whole)
        except (OSError, IndexDamagedError):
            return None

    def _may_hold_removed(self, now: Snapshot) -> bool:
        """Whether the file may hold embeddings that the gallery no longer has."""
        header = self._header(self.path)
        if header is not None and now.has_been(header.state):
            return now.has_removed_since(header.state)
        return now.purge_is_due() and self.path.exists()

    def _kind(self, count: int) -> str:
        return choose_kind(count, self._gallery.dimension, self._wanted)

    def _begin_search(self, now: Snapshot) -> FaceIndex:
        with self._lock:
            index = self._index
            if index is None or index.state != now.state:
                index = self._brought_to(now)
            self._searches += 1
            return index

    def _end_search(self) -> None:
        with self._lock:
            self._searches -= 1
            if self._waiting:
                self._search_ended.notify_all()

    def _brought_to(self, now: Snapshot) -> FaceIndex:
        while self._index is not None and self._searches and not self._serves(self._index, now):
            self._waiting += 1
            self._search_ended.wait()  # never change an index during a search
            self._waiting -= 1
        index, self._index = self._index, None  # if this fails half-way, it is loaded again
        if index is None or not self._serves(index, now):
            index = self._caught_up(index, now) or self._built(now)
        if self._wanted not in ("auto", index.kind) and index.kind != self._kind(len(index)):
            index = self._built(now)
        self._index = index
        return index

    def _serves(self, index: FaceIndex, now: Snapshot) -> bool:
        """Whether the index has the state of the snapshot or a newer one."""
        if index.state == now.state:
            return True
        if index.state.position <= now.state.position:
            return False
        with self._gallery.read() as newest:
            return newest.has_been(index.state)

    def _caught_up(self, index: FaceIndex | None, now: Snapshot) -> FaceIndex | None:
        """The index, updated from the journal; None if there is none to start from."""
        from face2vec.index.face_index import FaceIndex

        if self._distrusted and index is None:
            return None
        try:
            if index is None or index.read_only or self._is_written(now):
                # Another process may have written a newer file. Mapped, a large index opens at once
                # and processes share its memory.
                index = FaceIndex.load(self.path, mmap=True)
                if self._in_memory and self._serves(index, now):
                    index = FaceIndex.load(self.path, in_memory=True)
            if self._serves(index, now):
                self._verify_later(index)
                return index
            if index.read_only and self._beside_file(index, now):
                return index
            if index.read_only:
                index = FaceIndex.load(self.path)
        except FileNotFoundError:
            return None
        except IndexDamagedError as error:
            log.warning("%s", error)
            return None
        if not now.has_been(index.state):
            log.warning("%s %s; rebuilding it", self.path, _foreign(index, now))
            return None
        changes = now.changes_since(index.state)
        index.remove(changes.removed)
        for added in _in_steps(changes.added, len(index)):
            index.add(added, now.embeddings(added))
        index.state = now.state
        return index

    def _beside_file(self, index: FaceIndex, now: Snapshot) -> bool:
        """Add a few faces beside a large file, which is then not read and written as a whole."""
        if not now.has_been(index.state):
            return False
        changes = now.changes_since(index.state)
        if len(changes.removed) or not index.can_take(len(changes.added)):
            return False
        for added in _in_steps(changes.added, len(index)):
            index.add_later(added, now.embeddings(added))
        index.state = now.state
        return True

    def _built(self, now: Snapshot) -> FaceIndex:
        now.verifying = True
        try:
            return self._build(now, self._gallery.dimension, now.state)
        finally:
            now.verifying = False

    def _build(self, batches: Snapshot | Uncommitted, dimension: int, state: State) -> FaceIndex:
        from face2vec.index.face_index import FaceIndex

        count = batches.count
        kind = choose_kind(count, dimension, self._wanted)
        log.info("building a %s index of %d faces", kind, count)
        batches.batch_size = max(BATCH, min(count // 100, BATCH_MOST))
        index = FaceIndex.build(batches, count, dimension, kind)
        index.state = state
        return index


def _agree(
    index: FaceIndex,
    now: Snapshot,
    queries: NDArray[np.float32],
    similarities: Sequence[NDArray[np.float32]],
    ids: Sequence[NDArray[np.int64]],
    numbers: NDArray[np.int64],
    embeddings: NDArray[np.float32],
) -> bool:
    """Whether similarities are those of the gallery's embeddings, where both have one state.

    Args:
        index: what was searched.
        now: the snapshot.
        queries: float32 (n, d).
        similarities: float32 (m,) of each query.
        ids: int64 (m,) of each query.
        numbers: int64 (f,), all ids, each once and ascending.
        embeddings: their embeddings, float32 (f, d).
    """
    if index.state != now.state:
        return True
    for query, told, row in zip(queries, similarities, ids, strict=True):
        found = embeddings[np.searchsorted(numbers, row)]
        # Not ">": a comparison with NaN, of a face that the gallery does not have, is false.
        if not np.all(np.abs(np.vecdot(found, query) - told) <= COSINE_TOLERANCE):
            return False
    return _is_distinct(ids)


def _is_distinct(ids: Sequence[NDArray[np.int64]]) -> bool:
    """Whether no query has found a face twice."""
    return all(len(np.unique(row)) == len(row) for row in ids)


def _found(read: list[_Read] | None, wanted: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Embeddings float32 (n, d) of ids int64 (n,) that were read; None if one was not."""
    if not read:
        return None
    ids = np.concatenate([some for some, _ in read])
    order = np.argsort(ids)
    places = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    if not np.array_equal(ids[places], wanted):
        return None
    embeddings: NDArray[np.float32] = np.concatenate([rows for _, rows in read])[places]
    return embeddings


@contextmanager
def writing(gallery: Gallery, index: FaceSearch) -> Iterator[Writer]:
    """`Gallery.write`, after finishing what a killed writer has left undone.

    Args:
        gallery: the gallery.
        index: its index.

    Raises:
        GalleryLockedError: another process, or this one, is writing; the message names it.
        GalleryError: the folder cannot be written.
    """
    with gallery.write() as writer:
        index.recover()
        yield writer


def nearest_faces(
    index: FaceIndex,
    now: Snapshot,
    queries: NDArray[np.float32],
    k: int,
    read: list[_Read] | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """`FaceIndex.search` with the exact similarities of a snapshot.

    Args:
        index: at the state of the snapshot or newer.
        now: the snapshot.
        queries: float32 (n, d) of unit length.
        k: maximum number of faces per query.
        read: is given what is read for this: ids int64 (n,) and embeddings float32 (n, d).

    Returns:
        Cosines float32 (m,) and ids int64 (m,), m ≤ k, for each query.
    """

    def reader(one: Snapshot) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        if read is None:
            return one.embeddings

        def noted(ids: NDArray[np.int64]) -> NDArray[np.float32]:
            embeddings = one.embeddings(ids)
            read.append((ids, embeddings))
            return embeddings

        return noted

    readers = index.readers(len(queries), k)
    if readers == 1:
        return index.search(queries, k, [reader(now)])
    with now.several(readers) as same:
        return index.search(queries, k, [reader(one) for one in same])


class _InUse:
    """An index during a search."""

    __slots__ = ("_indexes", "_now")

    def __init__(self, indexes: GalleryIndex, now: Snapshot) -> None:
        self._indexes = indexes
        self._now = now

    def __enter__(self) -> FaceIndex:
        return self._indexes._begin_search(self._now)

    def __exit__(self, *_: object) -> None:
        self._indexes._end_search()


def _in_steps(ids: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """Ids in parts whose embeddings are read together, for an index of ``count`` faces."""
    step = max(BATCH, min(count // 100, BATCH_MOST))
    for start in range(0, len(ids), step):
        yield ids[start : start + step]


def _foreign(index: FaceIndex, now: Snapshot) -> str:
    if index.state.gallery_uuid != now.state.gallery_uuid:
        return "belongs to another gallery"
    return "was made from another state of the gallery, such as before a backup was restored"
