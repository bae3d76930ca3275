"""Keeps the index of a gallery as new as the gallery: loaded, caught up, or built again."""

from __future__ import annotations

import logging
import threading

import numpy as np

from face2vec.errors import GalleryError
from face2vec.gallery import Gallery
from face2vec.index import FaceIndex, IndexDamagedError, available_memory, choose_kind

log = logging.getLogger("face2vec")

INDEX_FILE = "index.faiss"


class GalleryIndex:
    """The index of one gallery. Safe to use from several threads at once.

    Args:
        gallery: what it is derived from.
        wanted: kind of index, or "auto" for what the size of the gallery asks for.
    """

    def __init__(self, gallery: Gallery, wanted: str = "auto") -> None:
        self._gallery = gallery
        self._wanted = wanted
        self._index: FaceIndex | None = None
        self._lock = threading.Lock()
        self.path = gallery.folder / INDEX_FILE

    def current(self) -> FaceIndex:
        """The index as the gallery is now."""
        with self._lock:
            return self._current()

    def save(self) -> None:
        """Write the index as the gallery is now, of the kind that its size asks for.

        Raises:
            GalleryError: it cannot be written.
        """
        with self._lock:
            index = self._current()
            if index.kind != self._kind(len(index)):
                index = self._index = self._built()
            if not index.mapped:  # a mapped one is the file itself
                index.save(self.path, index.position, self._gallery.uuid)

    def rebuild(self) -> None:
        """Build the index from the gallery's embeddings, whatever there is, and write it."""
        with self._lock:
            index = self._index = self._built()
            index.save(self.path, index.position, self._gallery.uuid)

    def problems(self) -> list[str]:
        """What is wrong with the file, in words; [] when it is sound."""
        faces = self._gallery.counts().faces
        try:
            index = FaceIndex.load(self.path)
        except FileNotFoundError:
            return [f"{self.path} is missing; it is built again when it is needed"] if faces else []
        except GalleryError as error:
            return [str(error)]
        if index.gallery_uuid != self._gallery.uuid:
            return [f"{self.path} belongs to another gallery; run rebuild"]
        if index.position == self._gallery.journal_position() and len(index) != faces:
            return [f"{self.path} holds {len(index)} faces, not {faces}; run rebuild"]
        return []

    def _kind(self, count: int) -> str:
        return choose_kind(count, self._gallery.dimension, available_memory(), self._wanted)

    def _current(self) -> FaceIndex:
        position = self._gallery.journal_position()
        index = self._index
        if index is None or index.position != position:
            index = self._caught_up(index, position) or self._built()
        if self._wanted not in ("auto", index.kind) and index.kind != self._kind(len(index)):
            index = self._built()
        self._index = index
        return index

    def _caught_up(self, index: FaceIndex | None, position: int) -> FaceIndex | None:
        """The index with what the journal says since; None where there is none to go on from."""
        try:
            if index is None:
                # Mapped, a large index opens at once, and many processes share its memory.
                index = FaceIndex.load(self.path, mmap=True)
            if index.gallery_uuid != self._gallery.uuid:
                log.warning("%s belongs to another gallery; it is built again", self.path)
                return None
            if index.position == position:
                return index
            if index.mapped:
                index = FaceIndex.load(self.path)
            changes = self._gallery.changes_since(index.position)
        except FileNotFoundError:
            return None
        except (IndexDamagedError, GalleryError) as error:
            log.warning("%s It is built again from the gallery.", error)
            return None
        index.remove(changes.removed)
        embeddings = self._gallery.embeddings(changes.added)
        there = ~np.isnan(embeddings[:, 0])  # some may have gone since
        index.add(changes.added[there], embeddings[there])
        index.position = changes.position
        return index

    def _built(self) -> FaceIndex:
        with self._gallery.snapshot() as faces:
            kind = self._kind(faces.count)
            log.info("building a %s index of %d faces", kind, faces.count)
            index = FaceIndex.build(faces, faces.count, self._gallery.dimension, kind)
            index.position, index.gallery_uuid = faces.position, self._gallery.uuid
        return index
