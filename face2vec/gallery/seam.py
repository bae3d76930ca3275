"""The seam for what stores photos, faces, embeddings and people: `FaceStore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from face2vec.fingerprint import Fingerprint
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.writer import Writer


@runtime_checkable
class FaceStore(Protocol):
    """A gallery: `Gallery` keeps it in one folder, `ClusterGallery` in Milvus and PostgreSQL."""

    @property
    def place(self) -> str:
        """Its folder, or its address without user and password."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What made the embeddings."""
        ...

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def uuid(self) -> str:
        """Unique identifier of this gallery."""
        ...

    def read(self, batch_size: int = 1024, mmap: bool = False) -> Snapshot:
        """One state of it, for a ``with`` block and one thread."""
        ...

    def write(self) -> AbstractContextManager[Writer]:
        """The right to write, for a ``with`` block.

        Raises:
            GalleryLockedError: another process, or this one, is writing; the message names it.
        """
        ...

    def photos(self) -> Iterator[tuple[str, str, str]]:
        """(full path, status, reason) of every photo."""
        ...

    def close(self) -> None:
        """Close it; calling it again does nothing."""
        ...
