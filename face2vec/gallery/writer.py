"""Changing a gallery: `Writer`, whose methods are one transaction each."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from face2vec.calibration import Calibration
from face2vec.errors import GalleryError, GalleryMismatchError
from face2vec.files import expanded, is_object, paths_to
from face2vec.gallery import ignored, marks, removals
from face2vec.gallery.connection import Connection, GalleryFile
from face2vec.gallery.marks import insert_face
from face2vec.gallery.people import (
    FORGOTTEN,
    PeopleRows,
    PeopleWriter,
    covers_photo,
    places_forgotten,
    replace_rows,
    without_forgotten,
)
from face2vec.gallery.reader import (
    CALIBRATION,
    CONTENT,
    NOT_INDEXED,
    OUTCOME,
    RECORDED,
    STAT,
    TIMES,
    UUID,
    Meta,
    Snapshot,
    State,
    all_photos,
    last_change,
    refuse_upgraded,
    roots_of,
)
from face2vec.gallery.rows import (
    INDEXED,
    NO_FACE,
    Entry,
    Recorded,
    Removed,
    Rewritten,
    decoded,
    encoded,
    face_row,
    face_rows,
    owner_of,
    path_crc32,
)
from face2vec.gallery.staging import (
    UPGRADED_INDEX,
    Map,
    NewEmbeddings,
    Remade,
    Switched,
    Uncommitted,
    drop_leftover,
    drop_removed,
    replace_mapped,
    switch,
)
from face2vec.gallery.thumbnails import drop_thumbnails
from face2vec.photos.discover import Source, paths_of
from face2vec.photos.storage import is_empty, missing_photos
from face2vec.stored import StoredValueError
from face2vec.types import Face, Place

_log = logging.getLogger(__name__)

WAL_BYTES = 16 << 20
"""Size of the ``-wal`` from which on it is emptied; what SQLite itself does after 1,000 pages."""
SMALL_BYTES = 64 << 20
"""Size of a file up to which it is rewritten after each removal, which takes about a second."""
MOSTLY = 0.5
"""Share of free pages of a file above which it is rewritten after a removal."""


class Writer:
    """The one writer of a gallery; made by `Gallery.write`. Each method is one transaction.

    Looking up photos goes through a second connection that stays inside one read transaction
    between two changes. That halves the cost of a look-up, which is all that an unchanged photo
    costs.

    Args:
        file: the gallery's file; the caller holds ``writer_lock``.
        meta: what the gallery says about itself.

    Attributes:
        people: changes people.
        unfinished: removals that an earlier writer has not finished; this one does.
    """

    def __init__(self, file: GalleryFile, meta: Meta) -> None:
        self._file = file
        self._meta = meta
        self.people = PeopleWriter(self._transaction)
        self._ended = False
        self._removals: set[str] = set()
        self._process = os.getpid()
        try:
            self._writer = file.connect_writer()
            self._reader = file.borrow()
            refuse_upgraded(self._writer, file, meta.uuid)
            self._roots = roots_of(self._writer)
            self.unfinished = removals.unfinished(self._writer)
            self._clean = removals.is_clean(self._writer)
            self._most_wal = WAL_BYTES
        except (sqlite3.Error, StoredValueError) as error:
            raise file.error_for(error) from error
        self._lock = threading.Lock()

    def stat_of(self, root: str, path: str) -> tuple[int, int] | None:
        """(size in bytes, mtime_ns) recorded for a photo, or None."""
        owner = owner_of(self._roots, f"{root.rstrip(os.sep)}{os.sep}{path}")
        found: tuple[int, int] | None = owner and self._look_up(STAT, *owner)
        return found

    def outcome_if_unchanged(
        self, root: str, path: str, size: int, mtime_ns: int, ctime_ns: int
    ) -> tuple[str, str] | None:
        """(status, reason) of a photo whose file is as it was recorded; None for any other.

        An older gallery does not know ``ctime_ns``. The status is that from before this writer
        changed anything.
        """
        owner = owner_of(self._roots, f"{root.rstrip(os.sep)}{os.sep}{path}")
        if owner is None:
            return None
        found = self._look_up(TIMES, *owner)
        if not found or found[:2] != (size, mtime_ns) or found[2] not in (None, ctime_ns):
            return None
        # Most photos are indexed, and reading the status of each would double the time.
        return self._not_indexed.get(owner, (INDEXED, ""))

    @cached_property
    def _not_indexed(self) -> dict[tuple[int, bytes], tuple[str, str]]:
        try:
            with self._lock:
                rows = self._reader.execute(NOT_INDEXED).fetchall()
        except sqlite3.Error as error:
            raise self._file.error_for(error) from error
        return {(root, path): (status, reason) for root, path, status, reason in rows}

    def recorded(self, root: str, path: str) -> Recorded | None:
        """What the gallery has of a photo, or None."""
        owner = owner_of(self._roots, f"{root.rstrip(os.sep)}{os.sep}{path}")
        found = owner and self._look_up(RECORDED, *owner)
        return Recorded(*found) if found else None

    def outcome_of(self, sha256: bytes) -> tuple[str, str] | None:
        """(status, reason) of photos with this hash, or None."""
        found: tuple[str, str] | None = self._look_up(OUTCOME, sha256)
        return found

    def content_of(self, sha256: bytes) -> int | None:
        """Number of the content with this hash, or None."""
        found = self._look_up(CONTENT, sha256)
        return found[0] if found else None

    def is_forgotten(self, sha256: bytes) -> bool:
        """Whether a photo with this hash showed only people who were forgotten."""
        return self._look_up(FORGOTTEN, sha256) is not None

    def blocked(self, sha256: bytes) -> list[Place | None]:
        """Places of forgotten and ignored faces in a photo; None stands for the whole photo."""
        return places_forgotten(self._writer, sha256)

    def _look_up(self, statement: str, *values: Any) -> Any:
        """The first row of a SELECT, or None."""
        self._check_open()
        try:
            with self._lock:
                if not self._reader.in_transaction:
                    self._reader.execute("BEGIN")
                return self._reader.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            raise self._file.error_for(error) from error

    def record(self, entries: Iterable[Entry]) -> list[Entry]:
        """Store photos in the order given.

        Bytes that the gallery already has only get another path. A photo that was recorded with
        other bytes is replaced: its old faces are removed, unless the old bytes have another
        path. A photo under two roots belongs to the older root.

        Returns:
            Links that were *not* recorded, because their bytes have left the gallery since they
            were looked up. Read these photos, and record them again.

        Raises:
            GalleryError: an entry is inconsistent or an embedding has another shape; nothing of
                the call is stored.
        """
        self._check_open()
        refused: list[Entry] = []
        kept = [self._without_forgotten(entry) for entry in entries]
        rows = [
            (entry, face_rows(entry, self._meta.dimension)) for entry in kept if entry is not None
        ]
        # Contents that lose their last path are kept to the end if the batch gives them another
        # one later. All others are removed at once, so the boundaries of batches do not matter.
        last_named = {entry.sha256: place for place, (entry, _) in enumerate(rows)}
        with self._transaction() as connection:
            roots = roots_of(connection)
            waiting: set[int] = set()
            for place, (entry, faces) in enumerate(rows):
                found = connection.execute(
                    "SELECT id FROM contents WHERE sha256 = ?", (entry.sha256,)
                ).fetchone()
                if found is None and entry.content_known:
                    refused.append(entry)
                    continue
                content = found[0] if found else _insert_content(connection, entry, faces)
                if found and entry.again:
                    _replace_content(connection, content, entry, faces)
                if found:
                    note_taken(connection, content, entry)
                before = link_photo(connection, roots, entry, content)
                if before and last_named.get(before[1], -1) >= place:
                    waiting.add(before[0])
                elif before:
                    drop_unused(connection, [before[0]])
            drop_unused(connection, waiting)
        return refused

    def add_missing(self, sha256: bytes, faces: Iterable[Face]) -> int:
        """Add the faces of a photo that the gallery does not have; returns how many.

        Args:
            sha256: the 32 bytes of the hash of the photo's bytes, which the gallery has.
            faces: all faces of the photo, with embeddings float32 (d,).

        Raises:
            GalleryError: an embedding has another shape; nothing is stored.
        """
        added = 0
        with self._transaction() as connection:
            (content,) = connection.execute(CONTENT, (sha256,)).fetchone()
            known = places_in(connection, content)
            blocked = places_forgotten(connection, sha256)
            for face in without_forgotten(faces, [*known, *blocked]):
                insert_face(connection, content, face_row(face, self._meta.dimension, "photo"))
                added += 1
            if added:
                connection.execute(
                    "UPDATE contents SET status = ? WHERE id = ?", (INDEXED, content)
                )
                marks.give_to_faces(connection, content)
        return added

    def note_new_bytes(self, sha256: bytes, photos: Sequence[Rewritten]) -> bool:
        """Keep the faces of photos that got other bytes with the same pixels, such as other XMP.

        Args:
            sha256: the 32 bytes of the hash of the bytes that the gallery has.
            photos: the photos as they are now.

        Returns:
            Whether it was done: all paths of the old bytes are among the photos, and all of
            these have the same new bytes, which the gallery does not have. Otherwise the next
            build reads the photos as changed ones.
        """
        hashes = {photo.sha256 for photo in photos}
        with self._transaction() as connection:
            roots = roots_of(connection)
            owners = {owner_of(roots, photo.path): photo for photo in photos}
            paths = connection.execute(
                "SELECT root_id, path FROM photos JOIN contents ON id = content_id"
                " WHERE sha256 = ?",
                (sha256,),
            ).fetchall()
            if not paths or len(hashes) != 1 or not set(paths) <= set(owners):
                return False
            new = hashes.pop()
            if connection.execute(CONTENT, (new,)).fetchone():
                return False
            connection.execute("UPDATE contents SET sha256 = ? WHERE sha256 = ?", (new, sha256))
            connection.executemany(
                "UPDATE photos SET size = ?, mtime_ns = ?, ctime_ns = ?"
                " WHERE root_id = ? AND path = ?",
                [
                    (one.size, fitting(one.mtime_ns), fitting(one.ctime_ns), *place)
                    for place, one in owners.items()
                    if place is not None
                ],
            )
            # Faces that were forgotten or ignored in the old bytes must not come back in the new.
            connection.execute("UPDATE ignored SET sha256 = ? WHERE sha256 = ?", (new, sha256))
            connection.execute(
                'INSERT INTO forgotten (sha256, "left", "top", "right", "bottom", time)'
                ' SELECT ?, "left", "top", "right", "bottom", time FROM forgotten WHERE sha256 = ?',
                (new, sha256),
            )
        return True

    def remove(self, photos: Source | Iterable[Source]) -> Removed:
        """Remove photos and, if no copy is left, their faces.

        Args:
            photos: paths; a folder stands for all photos in it. A file or folder is also found
                by another path to it, such as a link. Unknown paths are ignored.

        Returns:
            What was removed; or, if nothing is left to be removed and an earlier removal of the
            same paths was interrupted, what that one removed.
        """
        wanted = paths_of(photos)
        words = sorted(map(_absolute, wanted))
        with self._transaction() as connection:
            roots = roots_of(connection)
            names: dict[tuple[int, bytes], int] = {}
            for photo in wanted:
                names.update(_names_of(connection, roots, photo))
            connection.executemany("DELETE FROM photos WHERE root_id = ? AND path = ?", names)
            faces = drop_unused(connection, set(names.values()))
            connection.execute(
                "DELETE FROM roots WHERE NOT EXISTS (SELECT 1 FROM photos WHERE root_id = roots.id)"
            )
            key = removals.key_of(connection, removals.REMOVE, words)
            if names:
                removals.begin(connection, removals.Removal(len(names), faces, keys=(key,)))
                self._removals.add(key)
            elif key not in self._removals:  # those of this writer are finished when it ends
                earlier = removals.find(connection, removals.REMOVE, words)
                if earlier is not None:
                    return Removed(earlier.photos, earlier.faces)
        return Removed(len(names), faces)

    def prune(self, force: bool = False) -> Removed:
        """Remove the photos whose files no longer exist.

        Args:
            force: also if a whole root is missing, or a folder that held photos is empty, which
                is also how a disconnected disk looks.

        Raises:
            GalleryError: there is such a folder and ``force`` is not set.
        """
        gone = list(self._missing_photos())
        if not force:
            folders = (root if is_object(root) else root + os.sep for root in self._roots)
            parents = {_existing_parent(photo) for photo in gone if not is_object(photo)}
            for folder in chain(folders, sorted(parents)):
                if is_empty(folder):
                    raise GalleryError(
                        f"the folder {folder.rstrip(os.sep) or os.sep}, which held photos of this "
                        "gallery, is missing or empty; connect its disk or store, or, if the "
                        "photos are really gone, run face2vec prune with --force"
                    )
        return self.remove(gone)

    def _missing_photos(self) -> Iterator[str]:
        now = partial(Snapshot, self._file, self._meta)
        photos = (path for path, _, _ in all_photos(now, only_files=True))
        return missing_photos(photos, self._roots)

    def take_over(self, rows: PeopleRows) -> None:
        """Replace all rows about people by those of another gallery, with numbers of this one."""
        with self._transaction() as connection:
            replace_rows(connection, rows)

    def note(self, key: str, value: str) -> None:
        """Store a fact about the gallery."""
        self._note(key, value)

    def note_origin(self, origin: str) -> None:
        """Store where the model is now, if its file is no longer where it was.

        Args:
            origin: a key of the catalogue, or an absolute path.
        """
        if self._meta.fingerprint.model.has_moved:
            fingerprint = self._meta.fingerprint.with_origin(origin)
            self._note("fingerprint", fingerprint.to_json())
            self._meta.fingerprint = fingerprint

    def calibrate(self, calibration: Calibration) -> None:
        """Store a calibration of this gallery.

        Raises:
            GalleryMismatchError: it was fitted with another model.
        """
        model = self._meta.fingerprint.model
        if calibration.weights != model.weights:
            raise GalleryMismatchError(
                f"the calibration was fitted with model {calibration.model!r}, and the gallery "
                f"{self._file.folder} was made with {model.key!r} or with other weights of it; "
                "fit it with the gallery's own model"
            )
        self._note(CALIBRATION, calibration.to_json())

    def switch(
        self,
        new: NewEmbeddings,
        mapped_by: Map | None,
        drop: bool,
        index: Callable[[Uncommitted, int, State], None],
    ) -> Switched:
        """Turn the gallery into one of another model. All open objects of it end with that.

        Args:
            new: embeddings of its faces by the other model.
            mapped_by: the embedding map for faces without a new embedding.
            drop: remove photos with such faces instead.
            index: called before the commit with the new embeddings, their dimension, and the state
                that the gallery will have.

        Raises:
            GalleryError: faces have no new embedding, and neither is given.
        """
        with self._transaction(purge=True) as connection:
            done = switch(connection, new, mapped_by, drop)
            target = new.target
            state = State(target.new_gallery, *last_change(connection))
            index(Uncommitted(connection, target.dimension), target.dimension, state)
        return done

    def replace_mapped(self, faces: Iterable[Remade]) -> None:
        """Replace mapped embeddings by those of the model."""
        with self._transaction() as connection:
            replace_mapped(connection, faces)

    def _note(self, key: str, value: str) -> None:
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def end(self) -> None:
        """Purge the file if something was removed, and empty the ``-wal``.

        All changes are on the disk by now, so errors are only logged.
        """
        self._ended = True
        if os.getpid() != self._process:
            return
        writer = self._writer
        try:
            self._file.give_back(self._reader)
            # A leftover of an upgrade that was killed at the switch; none is running now.
            (self._file.folder / UPGRADED_INDEX).unlink(missing_ok=True)
            (gallery,) = writer.execute(UUID).fetchone()
            drop_leftover(self._file.folder, gallery)
            if removals.is_due(writer):
                self._purge()
            self._file.checkpoint(writer, wait=False)
        except sqlite3.Error as error:
            _log.warning("after writing: %s", self._file.error_for(error))
        except (GalleryError, OSError) as error:
            _log.warning("after writing: %s", error)
        finally:
            self._file.disconnect(writer)

    def _purge(self) -> None:
        """Leave nothing in the file of what was removed."""
        writer, folder = self._writer, self._file.folder
        drop_removed(folder, writer)
        drop_thumbnails(folder)
        if not self._clean or self._is_better_rewritten():
            try:
                writer.execute("VACUUM")
            except sqlite3.Error as error:
                if not self._clean:
                    _log.warning(
                        "what was removed is still in %s, which could not be rewritten (%s); the "
                        "next change of the gallery, or the same command, tries again",
                        self._file.path,
                        error,
                    )
                    return
                _log.info("%s keeps its size: %s", self._file.path, error)
        if not self._file.checkpoint(writer, wait=True):
            _log.warning(
                "the gallery %s is being read, so what was removed stays in its -wal until "
                "the next change",
                folder,
            )
            return
        self._clean = True
        removals.note_clean(writer)
        removals.finish(writer)
        for earlier in self.unfinished:
            _log.warning(
                "an earlier removal of %d photos and %d faces from the gallery %s was interrupted; "
                "it is finished now",
                earlier.photos,
                earlier.faces,
                folder,
            )

    def _empty_wal_if_large(self) -> None:
        """What SQLite does by itself, without scrubbing, if it is not told otherwise."""
        size = self._file.wal_bytes()
        if size < self._most_wal:
            return
        done = self._file.checkpoint(self._writer, wait=False)
        # A reader may prevent it for long.
        self._most_wal = WAL_BYTES if done else size + WAL_BYTES

    def _is_better_rewritten(self) -> bool:
        """Whether the file is small, or most of it is free."""
        size, pages, free = (
            self._writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        return bool(size * pages <= SMALL_BYTES or free > MOSTLY * pages)

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise GalleryError(
                f"this writer of the gallery {self._file.folder} belongs to process "
                f"{self._process}, from which this one was forked; write in the child with "
                "a writer of its own"
            )
        if self._ended:
            raise GalleryError(
                f"this writer of the gallery {self._file.folder} is closed; change the gallery "
                "inside 'with gallery.write() as writer:'"
            )

    def _without_forgotten(self, entry: Entry) -> Entry | None:
        """The entry without forgotten faces; None if the whole photo is forgotten."""
        places = self.blocked(entry.sha256)
        if not places or entry.content_known:
            return entry
        if covers_photo(places):
            return None
        faces = without_forgotten(entry.faces, places)
        return replace(entry, faces=faces, status=INDEXED if faces else NO_FACE)

    @contextmanager
    def _transaction(self, *, purge: bool = False) -> Iterator[Connection]:
        """One transaction; with ``purge`` traces are removed when writing ends."""
        self._check_open()
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                if purge:
                    removals.request_purge(writer)
                roots = roots_of(writer)
                if self._clean:
                    removals.note_clean(writer)
                with self._lock:
                    self._reader.rollback()
                    writer.execute("COMMIT")
                    self._roots = roots
                    self._empty_wal_if_large()
            except BaseException:
                writer.rollback()
                raise
        except (sqlite3.Error, StoredValueError) as error:
            raise self._file.error_for(error) from error


def places_in(connection: Connection, content: int) -> list[Place]:
    """Places of the faces of a content."""
    rows = connection.execute(
        'SELECT "left", "top", "right", "bottom", time FROM faces WHERE content_id = ?',
        (content,),
    ).fetchall()
    return [Place((left, top, right, bottom), time) for left, top, right, bottom, time in rows]


def place_of(connection: Connection, roots: dict[str, int], entry: Entry) -> tuple[int, bytes]:
    """(root, path) of a photo; its root is added unless an older root contains it."""
    folder = entry.root.rstrip(os.sep)
    owner = owner_of(roots, f"{folder}{os.sep}{entry.path}")
    if owner is not None:
        return owner
    connection.execute("INSERT INTO roots (path) VALUES (?)", (encoded(folder),))
    (root,) = connection.execute(
        "SELECT id FROM roots WHERE path = ?", (encoded(folder),)
    ).fetchone()
    roots[folder] = root
    return root, encoded(entry.path)


def outcome_columns(entry: Entry) -> tuple[int, int, str, str]:
    """Width, height, status and reason as they are stored."""
    reason = entry.reason.encode("utf-8", "backslashreplace").decode()
    return entry.width, entry.height, entry.status, reason


def note_taken(connection: Connection, content: int, entry: Entry) -> None:
    """Store when a photo was taken, if it was read again and nobody has looked before."""
    if entry.taken is not None:
        connection.execute(
            "UPDATE contents SET taken = ? WHERE id = ? AND (taken IS NULL OR taken <> ?)",
            (entry.taken, content, entry.taken),
        )


def _replace_content(
    connection: Connection, content: int, entry: Entry, faces: Sequence[tuple[Any, ...]]
) -> None:
    """Store the outcome of reading a photo again, if no face of it is stored."""
    changed = connection.execute(
        "UPDATE contents SET width = ?, height = ?, status = ?, reason = ?"
        " WHERE id = ? AND status <> ?",
        (*outcome_columns(entry), content, INDEXED),
    ).rowcount
    for row in faces if changed else ():
        insert_face(connection, content, row)
    if changed:
        marks.give_to_faces(connection, content)


def _insert_content(connection: Connection, entry: Entry, faces: Sequence[tuple[Any, ...]]) -> int:
    content = connection.execute(
        "INSERT INTO contents (sha256, width, height, status, reason, taken)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (entry.sha256, *outcome_columns(entry), entry.taken),
    ).lastrowid
    assert content is not None
    for row in faces:
        insert_face(connection, content, row)
    return content


def fitting(number: int) -> int:
    """The nearest 64-bit integer; a file time can be out of range."""
    return max(-(2**63), min(number, 2**63 - 1))


def link_photo(
    connection: Connection, roots: dict[str, int], entry: Entry, content: int
) -> tuple[int, bytes] | None:
    """Record that a path has this content; returns number and hash of what it had before."""
    root, path = place_of(connection, roots, entry)
    before: tuple[int, bytes] | None = connection.execute(
        "SELECT content_id, sha256 FROM photos JOIN contents ON id = content_id"
        " WHERE root_id = ? AND path = ?",
        (root, path),
    ).fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO photos"
        " (root_id, path, content_id, size, mtime_ns, ctime_ns, path_crc32)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(root, path, content, entry.size, fitting(entry.mtime_ns)),
            None if entry.ctime_ns is None else fitting(entry.ctime_ns),
            path_crc32(f"{entry.root.rstrip(os.sep)}{os.sep}{entry.path}"),
        ),
    )
    return before


def drop_unused(connection: Connection, contents: Iterable[int]) -> int:
    """Remove the contents that no photo has any more; returns how many faces were removed."""
    faces = 0
    for content in sorted(contents):
        unused = "NOT EXISTS (SELECT 1 FROM photos WHERE content_id = ?1)"
        (count,) = connection.execute(
            f"SELECT count(*) FROM faces WHERE content_id = ?1 AND {unused}", (content,)
        ).fetchone()
        hashes = connection.execute(
            f"SELECT sha256 FROM contents WHERE id = ?1 AND {unused}", (content,)
        ).fetchall()
        for found in hashes:
            ignored.reduce(connection, "sha256 = ?", found)
        connection.execute(f"DELETE FROM contents WHERE id = ?1 AND {unused}", (content,))
        faces += count
    return faces


_Names = dict[tuple[int, bytes], int]
"""The content of each photo by (root, path in it)."""


def _names_of(connection: Connection, roots: Mapping[str, int], photo: str) -> _Names:
    """A photo, or all photos in a folder, by any path to it."""
    for path in paths_to(photo):
        if names := dict(_names_under(connection, roots, path)):
            return names
    return dict(_same_file(connection, roots, photo))


def _same_file(
    connection: Connection, roots: Mapping[str, int], photo: str
) -> Iterator[tuple[tuple[int, bytes], int]]:
    """The photos that are the same file as a path: hard links, and paths through other mounts."""
    try:
        status = os.stat(photo)  # noqa: PTH116 - as everywhere here
    except (OSError, ValueError):
        return
    folders = {number: root for root, number in roots.items()}
    for root, path, content in connection.execute(
        "SELECT root_id, path, content_id FROM photos WHERE size = ? AND mtime_ns = ?",
        (status.st_size, fitting(status.st_mtime_ns)),
    ).fetchall():
        with suppress(OSError):
            known = os.stat(f"{folders[root]}{os.sep}{decoded(path)}")  # noqa: PTH116
            if (known.st_dev, known.st_ino) == (status.st_dev, status.st_ino):
                yield (root, path), content


def _names_under(
    connection: Connection, roots: Mapping[str, int], photo: str
) -> Iterator[tuple[tuple[int, bytes], int]]:
    """((root, path), content) of a photo by its full path, or of all photos in a folder."""
    select = "SELECT path, content_id FROM photos WHERE root_id = ?"
    owner = owner_of(roots, photo)
    if owner is not None:
        root, path = owner
        below = path + os.sep.encode()
        beyond = path + bytes([ord(os.sep) + 1])
        # Not with OR, for which SQLite reads all photos of the root.
        rows = connection.execute(
            f"{select} AND path = ? UNION ALL {select} AND path >= ? AND path < ?",
            (root, path, root, below, beyond),
        )
        yield from (((root, path), content) for path, content in rows)
    folder = photo.rstrip(os.sep)
    for name, root in roots.items():
        if name == folder or name.startswith(folder + os.sep):
            rows = connection.execute(select, (root,))
            yield from (((root, path), content) for path, content in rows)


def _existing_parent(photo: str) -> str:
    """The innermost folder of a photo that still exists."""
    folder = os.path.dirname(photo)  # noqa: PTH120
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):  # noqa: PTH112, PTH120
        folder = os.path.dirname(folder)  # noqa: PTH120
    return folder


def _absolute(photo: str) -> str:
    path = expanded(photo)
    return path if is_object(path) else os.path.normpath(Path(path).absolute())
