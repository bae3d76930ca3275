"""The gallery on disk: photos, faces, embeddings and people in one SQLite file.

`Gallery.read` gives a snapshot of one state, `Gallery.write` the one writer. In the folder of a
gallery:

    gallery.sqlite   everything (with ``-wal`` and ``-shm`` beside it while in use)
    writer.lock      held by the one process that writes
    writer.json      which process that is; only informative, the lock decides

Each call of a writer is one transaction: a reader, or a process that starts after a kill, sees all
of it or nothing. No row stores the time at which it was written, so a build that was interrupted
and run again equals, row for row, one that was not.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryVersionError,
)
from face2vec.files import expanded
from face2vec.fingerprint import LARGEST_SIDE, Fingerprint
from face2vec.forks import renew_after_fork
from face2vec.gallery import removals
from face2vec.gallery.connection import (
    OPENING_SECONDS,
    GalleryFile,
    limited_time,
    refuse_orphaned_wal,
    write_empty,
    writer_lock,
)
from face2vec.gallery.reader import Meta, Snapshot, all_photos
from face2vec.gallery.schema import (
    FILE,
    FORMAT,
    OLDEST_FORMAT,
    check_meta,
    check_schema,
    has_table,
)
from face2vec.gallery.staging import upgrade_in_progress
from face2vec.gallery.writer import Writer
from face2vec.photos.dates import ALWAYS, Period
from face2vec.stored import integer, text

MOST = 1_000_000
"""Most lines of the table ``meta`` that are read."""


class Gallery:
    """Enrolled photos and faces in one folder. One process writes, any number read.

    Made with ``create`` or ``open``. Several threads may use one object; close it when none uses
    it any more.

    All methods, and those of what they return, raise ``GalleryDamagedError`` if the file turns out
    to be damaged and ``GalleryError`` if the disk is full, read-only or failing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = GalleryFile(folder)
        self._writing = threading.Lock()
        renew_after_fork(self._renew)
        try:
            stored = self._read_meta()
            fingerprint = Fingerprint.from_json(stored["fingerprint"])
            dimension = integer(int(stored["dimension"]), "the dimension", 1, LARGEST_SIDE)
            self._meta = Meta(stored["uuid"], dimension, fingerprint)
        except (KeyError, ValueError) as error:
            self.close()
            raise self._file.damaged(f"its description is missing or wrong ({error})") from error
        except GalleryError:
            self.close()
            raise

    def _renew(self) -> None:
        self._writing = threading.Lock()

    @classmethod
    def create(cls, folder: str | Path, fingerprint: Fingerprint) -> Gallery:
        """Create a new, empty gallery; missing folders are created.

        Args:
            folder: folder of the gallery.
            fingerprint: what makes its embeddings.

        Raises:
            GalleryError: there is a gallery already, or the folder cannot be written.
            GalleryLockedError: another process is creating one there.
        """
        folder = Path(expanded(folder)).absolute()
        meta = {
            "format": str(FORMAT),
            "uuid": str(uuid.uuid4()),
            "dimension": str(fingerprint.model.dimension),
            "fingerprint": fingerprint.to_json(),
            **removals.CLEAN,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise GalleryError(
                f"{folder} is a file, and a gallery is a folder; choose another path"
            ) from error
        except OSError as error:
            raise GalleryError(f"cannot create the folder {folder}: {error}") from error
        with writer_lock(folder):
            if (folder / FILE).exists():
                raise GalleryError(
                    f"there is already a gallery in {folder}; open it, or choose another folder"
                )
            refuse_orphaned_wal(folder / FILE)
            write_empty(folder / FILE, meta)
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Open the gallery in a folder, without changing it.

        Raises:
            GalleryNotFoundError: there is none.
            GalleryVersionError: a newer face2vec has written it.
            GalleryDamagedError: the file is truncated, or is not a gallery.
        """
        return cls(Path(expanded(folder)))

    @property
    def folder(self) -> Path:
        """Absolute path of the gallery's folder."""
        return self._file.folder

    @property
    def place(self) -> str:
        """What messages call the place of the gallery: its folder, or its address."""
        return str(self.folder)

    @property
    def fingerprint(self) -> Fingerprint:
        """What made the embeddings."""
        return self._meta.fingerprint

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._meta.dimension

    @property
    def uuid(self) -> str:
        """Unique identifier of this gallery."""
        return self._meta.uuid

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._file.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, dimension={self.dimension})"

    def read(self, batch_size: int = 1024, mmap: bool = False) -> Snapshot:
        """One state of the gallery, for a ``with`` block and one thread.

        Args:
            batch_size: how many embeddings an iteration yields at a time.
            mmap: map the file to memory. Faster for a few rows, as after a search; the pages that
                are read count as memory of this process.
        """
        return Snapshot(self._file, self._meta, batch_size, mmap)

    def photos(self, wanted: Period = ALWAYS) -> Iterator[tuple[str, str, str]]:
        """(full path, status, reason) of every photo; the gallery may change in between.

        Args:
            wanted: when they were taken.
        """
        return all_photos(self.read, wanted=wanted)

    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())

    def upgrade_begun(self) -> dict[str, Any] | None:
        """The model and the number of faces of an unfinished upgrade, or None."""
        return upgrade_in_progress(self.folder)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """The right to write, for a ``with`` block. It does not wait for another writer.

        If photos were removed, nothing of them is left in the file at the end: what has changed is
        scrubbed, and a file that is small or mostly empty is rewritten.

        Raises:
            GalleryLockedError: another process, or this one, is writing; the message names it.
            GalleryError: the folder cannot be written.
        """
        with self._only_writer_here(), writer_lock(self.folder):
            writer = Writer(self._file, self._meta)
            try:
                yield writer
            finally:
                writer.end()

    @contextmanager
    def _only_writer_here(self) -> Iterator[None]:
        """Refuse a second writer in this process."""
        if not self._writing.acquire(blocking=False):
            raise GalleryLockedError(
                f"the gallery {self.place} is already being written by this process "
                f"({os.getpid()}); wait until that has finished"
            ).coded("written-here")
        try:
            yield
        finally:
            self._writing.release()

    def _read_meta(self) -> dict[str, str]:
        """The table ``meta``, after checking that the file is a complete gallery."""
        with (
            self._file.reading() as connection,
            limited_time(connection, OPENING_SECONDS),
        ):
            if not has_table(connection, "meta"):
                raise GalleryDamagedError(
                    f"{self._file.path} is an SQLite file, but not a gallery of face2vec; "
                    "it was not changed, choose another folder"
                )
            check_meta(connection)
            meta = {
                text(key, "a key of meta"): text(value, f"{key!r} of meta")
                for key, value in connection.execute("SELECT key, value FROM meta LIMIT ?", (MOST,))
            }
            if int(meta["format"]) < OLDEST_FORMAT:
                raise GalleryVersionError(
                    f"the gallery {self.folder} has format {meta['format']}, which is older than "
                    f"the first release; this face2vec reads formats {OLDEST_FORMAT} to {FORMAT}; "
                    "it was not changed; index the photos again into another folder"
                )
            if int(meta["format"]) > FORMAT:
                raise GalleryVersionError(
                    f"the gallery {self.folder} has format {meta['format']}; this face2vec reads "
                    f"formats up to {FORMAT}; install a newer face2vec"
                )
            check_schema(connection)
            self._file.refuse_truncated(connection)
        return meta
