"""Keeps the index of a gallery as new as the gallery: loaded, caught up, or built again.

FAISS is loaded when something has to be searched or built, and not to see that nothing has.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from face2vec.errors import GalleryError
from face2vec.files import put_in_place
from face2vec.gallery.gallery import Gallery, Snapshot, State
from face2vec.gallery.staging import UPGRADED_INDEX, Inside
from face2vec.index.file import IndexDamagedError, checked
from face2vec.index.policy import available_memory, choose_kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from face2vec.index.face_index import FaceIndex

log = logging.getLogger("face2vec")

INDEX_FILE = "index.faiss"
# Embeddings read at a time, so that building takes little memory beside the index. A graph has
# a cost for each call that grows with it, so a large one is built in larger steps.
BATCH = 256
BATCH_MOST = 8192


class GalleryIndex:
    """The index of one gallery. Safe to use from several threads at once.

    Args:
        gallery: what it is derived from.
        wanted: kind of index, or "auto" for what the size of the gallery asks for.
        hold: keep it in memory, see `FaceIndex.load`; else it is read from its file.
    """

    def __init__(self, gallery: Gallery, wanted: str = "auto", hold: bool = False) -> None:
        self._gallery = gallery
        self._wanted = wanted
        self._hold = hold
        self._index: FaceIndex | None = None
        self._lock = threading.RLock()
        self._search_ended = threading.Condition(self._lock)
        self._searches = self._waiting = 0
        self.path = gallery.folder / INDEX_FILE
        self._beside = gallery.folder / UPGRADED_INDEX

    def at(self, now: Snapshot) -> _InUse:
        """For a ``with``: the index as the gallery is in a snapshot, or newer; it stays so."""
        return _InUse(self, now)

    def save(self) -> None:
        """Write the index as the gallery is now, of the kind that its size asks for.

        Raises:
            GalleryError: it cannot be written.
        """
        with self._lock, self._gallery.snapshot() as now:
            if self._index is None and self._is_written(now):
                return
            index = self._brought_to(now)
            if index.kind != self._kind(len(index)):
                index = self._index = self._built(now)
            if not index.fixed:  # one that is is the file itself
                index.save(self.path)

    def rebuild(self) -> None:
        """Build the index from the gallery's embeddings, whatever there is, and write it."""
        with self._lock, self._gallery.snapshot() as now:
            index = self._index = self._built(now)
            index.save(self.path)

    def write_beside(self, batches: Inside, dimension: int, state: State) -> None:
        """Write an index of what the gallery is about to hold, beside its own.

        Args:
            batches: ids and embeddings, again and again, and how many there are.
            dimension: length of an embedding.
            state: in which the gallery will be.
        """
        self._build(batches, dimension, state).save(self._beside)

    def take_beside(self) -> None:
        """Put the index that was written beside in the place of the gallery's own."""
        with self._lock:
            self._index = None
            with suppress(FileNotFoundError):  # it is built again
                put_in_place(self._beside, self.path)

    def problems(self) -> list[str]:
        """What is wrong with the file, in words; [] when it is sound."""
        from face2vec.index.face_index import FaceIndex

        with self._gallery.snapshot() as now:
            faces = now.count
            try:
                index = FaceIndex.load(self.path)
            except FileNotFoundError:
                if not faces:
                    return []
                return [f"{self.path} is missing; it is built again when it is needed"]
            except GalleryError as error:
                return [str(error)]
            if not now.has_been(index.state):
                return [f"{self.path} {_foreign(index, now)}; run rebuild"]
            if index.state == now.state and len(index) != faces:
                return [f"{self.path} holds {len(index)} faces, not {faces}; run rebuild"]
            return []

    def _is_written(self, now: Snapshot) -> bool:
        """Whether the file is that of the gallery as it is now, of the kind that it should be."""
        try:
            with self.path.open("rb") as stream:
                about = checked(stream, self.path, whole=False)
        except (OSError, IndexDamagedError):
            return False  # it is seen to, and spoken of, where it is loaded
        return about.state == now.state and about.kind == self._kind(about.count)

    def _kind(self, count: int) -> str:
        return choose_kind(count, self._gallery.dimension, available_memory(), self._wanted)

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
            self._search_ended.wait()  # an index is not changed while it is searched
            self._waiting -= 1
        index, self._index = self._index, None  # should this fail half-way, it is loaded again
        if index is None or not self._serves(index, now):
            index = self._caught_up(index, now) or self._built(now)
        if self._wanted not in ("auto", index.kind) and index.kind != self._kind(len(index)):
            index = self._built(now)
        self._index = index
        return index

    def _serves(self, index: FaceIndex, now: Snapshot) -> bool:
        """Whether the index is as new as the snapshot, or newer."""
        if index.state == now.state:
            return True
        return index.state.position > now.state.position and self._gallery.has_been(index.state)

    def _caught_up(self, index: FaceIndex | None, now: Snapshot) -> FaceIndex | None:
        """The index with what the journal says since; None where there is none to go on from."""
        from face2vec.index.face_index import FaceIndex

        try:
            if index is None or index.fixed or self._is_written(now):
                # Mapped, a large index opens at once, and many processes share its memory. It is
                # opened anew where another process has written it since.
                index = FaceIndex.load(self.path, mapped=True)
                if self._hold and self._serves(index, now):
                    index = FaceIndex.load(self.path, hold=True)
            if self._serves(index, now):
                return index
            if index.fixed:
                index = FaceIndex.load(self.path)
        except FileNotFoundError:
            return None
        except IndexDamagedError as error:
            log.warning("%s", error)
            return None
        if not now.has_been(index.state):
            log.warning("%s %s; it is built again", self.path, _foreign(index, now))
            return None
        changes = now.changes_since(index.state)
        index.remove(changes.removed)
        step = max(BATCH, min(len(index) // 100, BATCH_MOST))
        for start in range(0, len(changes.added), step):
            added = changes.added[start : start + step]
            index.add(added, now.embeddings(added))
        index.state = now.state
        return index

    def _built(self, now: Snapshot) -> FaceIndex:
        return self._build(now, self._gallery.dimension, now.state)

    def _build(self, batches: Snapshot | Inside, dimension: int, state: State) -> FaceIndex:
        from face2vec.index.face_index import FaceIndex

        count = batches.count
        kind = choose_kind(count, dimension, available_memory(), self._wanted)
        log.info("building a %s index of %d faces", kind, count)
        batches.batch_size = max(BATCH, min(count // 100, BATCH_MOST))
        index = FaceIndex.build(batches, count, dimension, kind)
        index.state = state
        return index


def nearest_faces(
    index: FaceIndex, now: Snapshot, queries: NDArray[np.float32], k: int
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """What `FaceIndex.search` finds, by the exact similarities of a snapshot."""
    readers = index.readers(len(queries), k)
    if readers == 1:
        return index.search(queries, k, [now.embeddings])
    with now.several(readers) as same:
        return index.search(queries, k, [one.embeddings for one in same])


class _InUse:
    """An index while it is searched."""

    __slots__ = ("_indexes", "_now")

    def __init__(self, indexes: GalleryIndex, now: Snapshot) -> None:
        self._indexes = indexes
        self._now = now

    def __enter__(self) -> FaceIndex:
        return self._indexes._begin_search(self._now)

    def __exit__(self, *_: object) -> None:
        self._indexes._end_search()


def _foreign(index: FaceIndex, now: Snapshot) -> str:
    if index.state.gallery_uuid != now.state.gallery_uuid:
        return "belongs to another gallery"
    return "was made from another state of the gallery, such as one before a backup was put back"
