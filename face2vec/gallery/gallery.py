"""The gallery on disk: photos, faces and embeddings in one SQLite file, the truth.

It knows nothing of photo formats, networks or the index. In the folder of a gallery:

    gallery.sqlite   everything (with ``-wal`` and ``-shm`` beside it while in use)
    writer.lock      held by the one process that writes
    writer.json      who that is; left behind by a kill it is harmless, the lock is the truth

Each call of ``record``, ``remove`` or ``prune`` is one transaction: a reader, or
a process that is started after a kill, sees all of it or nothing. No row holds
the time at which it was written, so a build that was interrupted and run again
equals, row for row, one that was not.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryMismatchError,
    GalleryVersionError,
)
from face2vec.gallery import people as gallery_people
from face2vec.gallery.connection import (
    FILE,
    FORMAT,
    OLDEST_FORMAT,
    Connection,
    GalleryFile,
    refuse_orphaned_wal,
    write_empty,
    writer_lock,
)
from face2vec.gallery.reader import CONTENT, STAT, Changes, Counts, Snapshot, State, last_change
from face2vec.gallery.rows import (
    INDEXED,
    NO_FACE,
    UNREADABLE,
    Entry,
    StoredFace,
    StoredFaces,
    decoded,
    owner_of,
)
from face2vec.gallery.staging import (
    Inside,
    Map,
    NewEmbeddings,
    Remade,
    Switched,
    replace_mapped,
    switch,
)
from face2vec.gallery.writer import Changed, Removed, Session
from face2vec.photos.discover import Source, paths_of
from face2vec.types import Person, model_digest

__all__ = [
    "INDEXED",
    "NO_FACE",
    "UNREADABLE",
    "Changes",
    "Counts",
    "Entry",
    "Gallery",
    "Removed",
    "Snapshot",
    "State",
    "StoredFace",
    "StoredFaces",
]

_PHOTOS_A_PAGE = 1000
_CALIBRATION = "calibration"


class Gallery:
    """Enrolled photos and faces in one folder; one process writes, any number read.

    Made with ``create`` or ``open``. One object may be used by several threads
    at once; close it when none of them uses it any more.

    Every method raises ``GalleryDamagedError`` where the file turns out to be
    damaged and ``GalleryError`` for a disk that is full, read-only or failing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = GalleryFile(folder)
        self._turn = threading.Lock()
        self._session: Session | None = None
        try:
            meta = self._read_meta()
            self._fingerprint: dict[str, Any] = json.loads(meta["fingerprint"])
            self._dimension = int(meta["dimension"])
            self._uuid = meta["uuid"]
        except (KeyError, ValueError) as error:
            self.close()
            raise self._file.damaged("it does not say what it holds") from error
        except GalleryError:
            self.close()
            raise

    @classmethod
    def create(cls, folder: str | Path, fingerprint: Mapping[str, Any], dimension: int) -> Gallery:
        """A new, empty gallery; the folder is made where it is missing.

        Args:
            folder: where it goes.
            fingerprint: JSON-able description of what makes the embeddings.
            dimension: length of an embedding.

        Raises:
            GalleryError: there is a gallery already, or the folder cannot be written.
            GalleryLockedError: another process is making one there.
        """
        folder = Path(folder).absolute()
        meta = {
            "format": str(FORMAT),
            "uuid": str(uuid.uuid4()),
            "dimension": str(dimension),
            "fingerprint": json.dumps(dict(fingerprint), sort_keys=True),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GalleryError(f"Cannot make the folder {folder}: {error}.") from error
        with writer_lock(folder):
            if (folder / FILE).exists():
                raise GalleryError(
                    f"There is a gallery in {folder} already. Open it, or choose another folder."
                )
            refuse_orphaned_wal(folder / FILE)
            write_empty(folder / FILE, meta)
        return cls(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """The gallery in that folder, which is not changed by opening it.

        Raises:
            GalleryNotFoundError: there is none.
            GalleryVersionError: a newer face2vec has written it.
            GalleryDamagedError: the file is truncated, or is no gallery.
        """
        return cls(Path(folder))

    @property
    def folder(self) -> Path:
        """Absolute path of the gallery's folder."""
        return self._file.folder

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What made the embeddings, as given to ``create``."""
        return dict(self._fingerprint)

    @cached_property
    def model_digest(self) -> str:
        """Says of which model the embeddings are, as `Face.model` does."""
        made = self._fingerprint.get("model")
        return "" if made is None else model_digest(made)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._dimension

    @property
    def uuid(self) -> str:
        """A name for this gallery that no other has."""
        return self._uuid

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._file.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, dimension={self._dimension})"

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write, as one process at a time can; it is not waited for.

        After photos were removed, the file is rewritten when this ends, so that
        nothing of them stays in it; that takes a second or two for each 100,000 faces.

        Raises:
            GalleryLockedError: someone else is writing; says who.
            GalleryError: the folder cannot be written.
        """
        if not self._turn.acquire(blocking=False):
            raise GalleryLockedError(
                f"The gallery {self.folder} is being written by this very process "
                f"({os.getpid()}). Wait until that is done."
            )
        try:
            with writer_lock(self.folder):
                session = self._session = Session(self._file, self._uuid, self._dimension)
                try:
                    yield
                finally:
                    self._session = None
                    session.end()
        finally:
            self._turn.release()

    def record(self, entries: Iterable[Entry]) -> list[Entry]:
        """Store photos in the order given, in one transaction.

        Bytes that the gallery knows already get one more name and nothing else.
        A photo recorded before with other bytes is replaced: its old faces go,
        unless the old bytes have another name. A photo under two roots belongs
        to the one that the gallery knew first.

        Returns:
            Links that were *not* recorded, because the bytes they name have left
            the gallery since they were looked up (their last name was given to
            another photo). Read these photos, and record them again.

        Raises:
            GalleryError: an entry contradicts itself or an embedding does not
                belong here (nothing of the call is stored), or the disk is full.
        """
        return self._writer_session().record(entries)

    def remove(self, photos: Source | Iterable[Source]) -> Removed:
        """Drop photos and, where no copy is left, their faces, in one transaction.

        Args:
            photos: full paths; a folder stands for all photos under it. What is
                not in the gallery is passed over.
        """
        return self._writer_session().remove(_absolute(photo) for photo in paths_of(photos))

    def note_origin(self, origin: str) -> None:
        """Note where the model of the embeddings is found now, if it was moved.

        Args:
            origin: a key of the catalogue, or an absolute path.
        """
        made = self._fingerprint["model"]
        was = Path(made["origin"])
        if was.is_absolute() and not was.exists():
            self._fingerprint["model"] = {**made, "origin": origin}
            told = json.dumps(self._fingerprint, sort_keys=True)
            self._writer_session().note("fingerprint", told)

    def calibrate(self, calibration: Calibration) -> None:
        """Keep what similarities in this gallery mean.

        Raises:
            GalleryMismatchError: it is of another model.
        """
        made = self._fingerprint["model"]
        if calibration.weights != made["weights"]:
            raise GalleryMismatchError(
                f"the calibration is of model {calibration.model!r} and the gallery {self.folder} "
                f"was made with {made['key']!r}, or with other weights of it; fit it with the "
                "gallery's own model"
            )
        self._writer_session().note(_CALIBRATION, calibration.to_json())

    # People

    def people(self) -> list[Person]:
        """All people, those with most faces first."""
        with self.snapshot() as now:
            return now.people()

    def person(self, who: int | str) -> Person:
        """A person by number or name.

        Raises:
            GalleryError: there is none, or the one's name is the other's number.
        """
        found = [p for p in self.people() if who in (p.id, p.name, str(p.id))]
        if len(found) == 1:
            return found[0]
        if found:
            raise GalleryError(
                f"{who!r} is the name of one person in the gallery {self.folder} and the number "
                "of another. Give the former another name first: engine.name(number, name)."
            )
        raise GalleryError(
            f"There is no person {who!r} in the gallery {self.folder}. "
            f"See who there is with: face2vec people {self.folder}"
        )

    def assign(
        self,
        joining: Mapping[int, Sequence[int]],
        new: Iterable[Sequence[int]],
        *,
        again: bool = False,
    ) -> None:
        """Note what clustering found: faces that join people, and new people by their faces.

        Args:
            joining: numbers of faces by the person's.
            new: numbers of the faces of each.
            again: in its place, of all that was found before and nobody said.
        """
        self._say(lambda c: gallery_people.assign(c, joining, new, again=again))

    def drop_nobodies(self) -> None:
        """Drop people with neither a name nor a face."""
        self._say(gallery_people.drop_empty)

    def name(self, person: int, name: str | None) -> None:
        """Give a person a name, or take it away.

        Raises:
            GalleryError: somebody else has that name.
        """
        self._say(lambda c: gallery_people.name(c, person, name))

    def merge(self, into: int, others: Sequence[int]) -> None:
        """The others are the same person as the first.

        Raises:
            GalleryError: they have different names.
        """
        self._say(lambda c: gallery_people.merge(c, into, others))

    def split(self, person: int, faces: Sequence[int]) -> int:
        """Make a new person of some faces of one; returns the new number.

        Raises:
            GalleryError: a face is not one of that person.
        """
        return self._say(lambda c: gallery_people.split(c, person, faces))

    def this_person(self, person: int | None, faces: Sequence[int]) -> int:
        """These faces are of that person, or of a new one; returns the number."""
        return self._say(lambda c: gallery_people.this_person(c, person, faces))

    def not_this_person(self, person: int, faces: Sequence[int]) -> None:
        """These faces are of somebody else.

        Raises:
            GalleryError: a face is not one of that person.
        """
        self._say(lambda c: gallery_people.not_this_person(c, person, faces))

    def undo(self) -> str:
        """Take back what was said last; returns what that was.

        Raises:
            GalleryError: nothing was said.
        """
        return self._say(gallery_people.undo)

    def forget(self, person: int) -> Removed:
        """Delete a person: faces, embeddings, the photos that show nobody else.

        Their hashes are kept, so that the same photos are not taken in again.
        """
        faces, photos = self._writer_session().change(
            lambda c: gallery_people.forget(c, person), purge=True
        )
        return Removed(photos, faces)

    def is_forgotten(self, sha256: bytes) -> bool:
        """Whether a photo of these bytes showed nobody but people who were forgotten."""
        session = self._session
        if session is None:
            with self.snapshot() as now:
                return now.is_forgotten(sha256)
        return session.look_up(gallery_people.FORGOTTEN, sha256) is not None

    def _say(self, how: Callable[[Connection], Changed]) -> Changed:
        return self._writer_session().change(how)

    def gone(self) -> Iterator[str]:
        """Full paths of photos in the gallery whose files no longer exist."""
        for path, _, _ in self.photos():
            try:
                Path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                yield path

    def prune(self, force: bool = False) -> Removed:
        """Drop the photos whose files no longer exist.

        Args:
            force: also where a whole folder that photos were added from is missing, or one that
                photos were in is empty: so does a disk look that is not connected.

        Raises:
            GalleryError: there is such a folder and ``force`` is not set.
        """
        self._writer_session()
        gone = list(self.gone())
        if not force:
            with self.snapshot() as now:
                roots = now.roots
            folders = (root + os.sep for root in roots)
            for folder in chain(folders, sorted({_last_there(photo) for photo in gone})):
                if _is_missing_or_empty(folder):
                    raise GalleryError(
                        f"The folder {folder.rstrip(os.sep) or os.sep}, where photos in this "
                        "gallery were, is missing or empty. If it is on a disk that is not "
                        "connected, connect it; if the photos are really gone, prune with force."
                    )
        return self.remove(gone)

    def switch(
        self,
        new: NewEmbeddings,
        mapped_by: Map | None,
        drop: bool,
        index: Callable[[Inside, int, State], None],
    ) -> Switched:
        """Become a gallery of another model; this object and all others of it end with that.

        Args:
            new: embeddings of its faces.
            mapped_by: from old embeddings to new ones, for faces that have no new one.
            drop: drop photos with such faces instead.
            index: called with what the gallery will hold, the length of an embedding, and the
                state in which it will be, before it is so.

        Raises:
            GalleryError: faces have no new embedding, and neither is given.
        """

        def how(connection: Connection) -> Switched:
            done = switch(connection, new, mapped_by, drop)
            target = new.target
            state = State(target.new_gallery, *last_change(connection))
            index(Inside(connection, target.dimension), target.dimension, state)
            return done

        return self._writer_session().change(how, purge=True)

    def replace_mapped(self, faces: Iterable[Remade]) -> None:
        """Put true embeddings in the place of mapped ones, in one transaction."""
        self._writer_session().change(lambda c: replace_mapped(c, faces))

    # Reading

    def stat_of(self, root: str, path: str) -> tuple[int, int] | None:
        """(size, mtime_ns) that a photo was recorded with, or None if it was not."""
        photo = f"{root.rstrip(os.sep)}{os.sep}{path}"
        session = self._session
        if session is None:
            with self.snapshot() as now:
                return now.stat_of(photo)
        owner = owner_of(session.roots, photo)
        return owner and session.look_up(STAT, *owner)

    def content_of(self, sha256: bytes) -> int | None:
        """Number of the content with that hash, or None if the gallery does not know it."""
        session = self._session
        if session is None:
            with self.snapshot() as now:
                return now.content_of(sha256)
        found = session.look_up(CONTENT, sha256)
        return found[0] if found else None

    def snapshot(self, batch_size: int = 1024, mapped: bool = False) -> Snapshot:
        """One state of the gallery, to be held by a ``with``.

        Args:
            batch_size: how many embeddings an iteration gives at a time.
            mapped: quicker where a few faces are looked up, as after a search; what is
                read then counts as memory of this process.
        """
        return Snapshot(self._file, self._uuid, self._dimension, batch_size, mapped)

    def state(self) -> State:
        """The state in which the gallery is now."""
        with self.snapshot() as now:
            return now.state

    def faces(self, ids: Iterable[int], *, with_embeddings: bool = True) -> list[StoredFace]:
        """Faces in the order asked for; ids that are not in the gallery are skipped.

        Args:
            ids: numbers of faces.
            with_embeddings: False leaves ``face.embedding`` None and is faster.
        """
        wanted = [int(i) for i in ids]
        with self.snapshot() as now:
            found = now.faces(wanted)
            records = (
                _with_embeddings(now, found, self.model_digest)
                if with_embeddings
                else found.records()
            )
        by_id = {one.face.id: one for one in records}
        return [by_id[i] for i in wanted if i in by_id]

    def faces_of(self, photo: Source) -> list[StoredFace]:
        """Faces in one photo by its full path, in order of id; none if it is not in the gallery."""
        with self.snapshot() as now:
            return _with_embeddings(now, now.faces_of(_absolute(photo)), self.model_digest)

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings float32 (n, d) in the order asked for; NaN for an id that is not there."""
        with self.snapshot() as now:
            return now.embeddings(ids)

    def iter_embeddings(
        self, batch_size: int = 1024
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All embeddings in one state of the gallery, in order of id.

        Yields:
            ids int64 (n,) and embeddings float32 (n, d), n ≤ ``batch_size``.
        """
        with self.snapshot(batch_size) as snapshot:
            yield from snapshot

    def photos(self) -> Iterator[tuple[str, str, str]]:
        """(full path, status, reason) of every photo; the gallery may change meanwhile."""
        with self.snapshot() as now:
            roots = now.roots
        for root, root_id in roots.items():
            last = b""
            while True:
                with self.snapshot() as now:
                    page = now.photos(root_id, last, _PHOTOS_A_PAGE)
                for path, status, reason in page:
                    yield f"{root}{os.sep}{decoded(path)}", status, reason
                if not page:
                    break
                last = page[-1][0]

    def calibration(self) -> Calibration | None:
        """What similarities mean here, as it was kept by `calibrate`; None if nothing was.

        Raises:
            CalibrationError: it is damaged.
        """
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT value FROM meta WHERE key = ?", (_CALIBRATION,)
            ).fetchone()
        return None if found is None else Calibration.from_json(found[0])

    def mapped(self) -> NDArray[np.int64]:
        """Numbers of the faces whose embeddings were mapped from an older model's, rising."""
        with self.snapshot() as now:
            return now.mapped()

    def counts(self) -> Counts:
        """How many photos and faces there are."""
        with self.snapshot() as now:
            return now.counts()

    def has_been(self, state: State) -> bool:
        """Whether the gallery is or was once in that state."""
        with self.snapshot() as now:
            return now.has_been(state)

    def changes_since(self, state: State) -> Changes:
        """What happened to faces after a state that the gallery has been in.

        Raises:
            GalleryError: it has never been in that state.
        """
        with self.snapshot() as now:
            return now.changes_since(state)

    def check(self) -> list[str]:
        """Read the whole file and say in words what is wrong with it; empty when it is sound."""
        problems: list[str] = []
        try:
            with self.snapshot() as now:
                problems += now.problems()
        except GalleryError as error:
            problems.append(str(error))
        return problems

    # Inside

    def _read_meta(self) -> dict[str, str]:
        """The table ``meta``, after looking for what says that the file is no gallery."""
        with self._file.reading() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if ("meta",) not in tables.fetchall():
                raise GalleryDamagedError(
                    f"{self._file.path} is an SQLite file, but not a gallery of face2vec. "
                    "It was left as it is; choose another folder."
                )
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if int(meta["format"]) < OLDEST_FORMAT:
                raise GalleryVersionError(
                    f"The gallery {self.folder} has format {meta['format']}, from before the first "
                    f"release of face2vec; this face2vec knows {OLDEST_FORMAT} to {FORMAT}. It was "
                    "left as it is; index the photos again into another folder."
                )
            if int(meta["format"]) > FORMAT:
                raise GalleryVersionError(
                    f"The gallery {self.folder} has format {meta['format']}; this face2vec knows "
                    f"format {FORMAT}. Install a newer face2vec to use it."
                )
            self._file.refuse_truncated(connection)
        return meta

    def _writer_session(self) -> Session:
        if self._session is None:
            raise GalleryError(
                f"The gallery {self.folder} is open for reading. "
                "Change it inside 'with gallery.writing():'."
            )
        return self._session


def _with_embeddings(now: Snapshot, found: StoredFaces, model: str) -> list[StoredFace]:
    records = found.records()
    embeddings = now.embeddings([one.face.id for one in records if one.face.id is not None])
    return [
        replace(one, face=one.face.with_embedding(embedding, model))
        for one, embedding in zip(records, embeddings, strict=True)
    ]


def _last_there(photo: str) -> str:
    """The innermost of the folders that a photo was in that is still there."""
    folder = Path(photo).parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def _is_missing_or_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _absolute(photo: Source) -> str:
    return os.path.normpath(Path(photo).absolute())
