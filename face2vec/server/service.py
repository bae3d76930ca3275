"""What answers requests: the engine, the decoding processes, the jobs and the thumbnails.

`api` and `pages` turn requests into calls of `Service` and its results into JSON and HTML.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import (
    AddressNotAllowedError,
    Face2VecError,
    GalleryLockedError,
    GalleryUpgradedError,
    OtherEditError,
    SettingsError,
)
from face2vec.files import is_object
from face2vec.gallery import listing
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import StoredFace
from face2vec.gallery.schema import FILE
from face2vec.gallery.thumbnails import drop_thumbnails_except, keep_thumbnail, thumbnail_file
from face2vec.models.catalogue import CATALOGUE
from face2vec.photos.allowed import warn_once
from face2vec.photos.dates import ALWAYS, Period
from face2vec.photos.discover import PHOTO_SUFFIXES, FoundPhoto, find_photos
from face2vec.photos.formats import EMPTY_FILE
from face2vec.photos.storage import exists, status_of
from face2vec.photos.video import is_video
from face2vec.report.text import printable
from face2vec.server import metrics
from face2vec.server.decoders import Decoders, Upload, decode_upload, face_thumbnail, photo_view
from face2vec.server.history import keep_jobs, kept_jobs
from face2vec.server.jobs import LOOK_SECONDS, Job, Jobs, Report
from face2vec.server.problems import NotThereError, ProblemError
from face2vec.server.settings import Settings
from face2vec.server.sharing import SharedEncoder
from face2vec.types import (
    STATUSES,
    Edit,
    Face,
    Mark,
    Match,
    Person,
    Photo,
    Suggestion,
    largest_sure,
)

log = logging.getLogger("face2vec")

Result = TypeVar("Result")

THUMBNAIL_SIDES = (96, 192)
"""Sides of thumbnails in pixels; a page asks for one of them."""
LIST_SIDE = 240
"""Side in pixels of the pictures in lists of photos."""
MOST_FETCHED = 4096
"""Matches that are looked through for those that a filter lets pass."""
PEOPLE_SECONDS = 2.0
"""Time for which the list of people is kept; edits through the service end it at once."""
EDIT_SECONDS = 8.0
"""Time for which an edit waits for a job, or for another process that writes."""
MOST_FOLDERS = 1000
"""Folders that are listed to choose from."""
SUGGESTED = 200
"""Suggestions that are computed together."""


class EncodedUpload(NamedTuple):
    """The faces of an uploaded photo.

    Attributes:
        upload: the decoded photo.
        faces: its faces with embeddings, most confident first.
        chosen: place of the largest sure face, or None if there is no face.
        sha256: the 32 bytes of the hash of its bytes.
        dropped: number of faces beyond the limit, which are left out.
    """

    upload: Upload
    faces: list[Face]
    chosen: int | None
    sha256: bytes
    dropped: int


@dataclass(frozen=True)
class Filter:
    """Which matches are wanted.

    Attributes:
        k: how many.
        far: highest false accept rate, or None.
        min_similarity: lowest similarity, or None.
        person: number of the person that they belong to, or None for anybody.
        folder: folder that their photos are in, or None.
        without: ids of faces that are left out.
        period: when their photos were taken.
    """

    k: int = 10
    far: float | None = None
    min_similarity: float | None = None
    person: int | None = None
    folder: str | None = None
    without: frozenset[int] = frozenset()
    period: Period = ALWAYS


class Listed(NamedTuple):
    """The folders in a folder.

    Attributes:
        folder: full path, links resolved; None for the list of all roots.
        parent: the folder above, if that may be indexed, too; None otherwise.
        folders: (name, full path with links resolved) of each, in order of name.
        photos: number of files in it that have the suffix of a photo.
        more: whether there are more folders.
    """

    folder: str | None
    parent: str | None
    folders: list[tuple[str, Path]]
    photos: int
    more: bool


class _People(NamedTuple):
    """The people of the gallery, as they were read at a time."""

    read: float
    listed: list[Person]
    owners: dict[int, Person]


class Service:
    """One gallery and what serves it. Safe to use from several threads.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        limits = settings.limits
        self._engine = Face2Vec(settings.gallery, max_pixels=limits.pixels)
        self._opening = threading.Lock()
        self._editing = threading.Lock()
        folder = settings.gallery
        self.jobs = Jobs(self._changed, kept_jobs(folder), partial(keep_jobs, folder))
        threads = os.cpu_count() or 1
        self._decoders = Decoders(max(threads, 2), limits.memory, limits.photo_seconds)
        self._shared = SharedEncoder(
            lambda: self._engine.encoder,
            threads,
            limits.waiting,
            4 * limits.photo_seconds,
            metrics.BATCH.observe,
        )
        self._suggestions: tuple[Any, list[Suggestion]] | None = None
        self._people: _People | None = None
        self._changes, self._started = 0, time.time()
        with suppress(Exception):  # an old thumbnail is no reason not to start
            with self.reading() as now:
                faces, contents = now.contents()
                marks = now.all_marks()
            there = {f"face-{i}" for i in faces.tolist()}
            there |= {f"photo-{i}" for i in contents.tolist()}
            there |= {f"mark-{mark.id}" for mark in marks}
            drop_thumbnails_except(settings.gallery, there)

    def close(self) -> None:
        """End the jobs, the threads and the processes, and close the gallery."""
        self.jobs.close()
        self._shared.close()
        self._decoders.close()
        self._engine.close()

    # The engine

    @property
    def engine(self) -> Face2Vec:
        """The engine, with the gallery open."""
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """One state of the gallery.

        Raises:
            GalleryNotFoundError: there is no gallery yet.
        """
        try:
            with self._engine.snapshot() as now:
                yield now
        except GalleryUpgradedError:
            self._reopen()
            raise ProblemError(503, "the gallery was upgraded; try again", "upgraded") from None

    def edit(self, change: Callable[[Face2Vec], Result]) -> Result:
        """Change the gallery; edits wait for each other, and a while for a job that writes.

        Raises:
            GalleryLockedError: a job, or another process, goes on writing to the gallery.
            NotThereError: the gallery was deleted.
        """
        if not (self.settings.gallery / FILE).exists():
            raise NotThereError(f"there is no gallery in {self.settings.gallery} any more").coded(
                "no-gallery", folder=str(self.settings.gallery)
            )
        until = time.monotonic() + EDIT_SECONDS
        while True:
            if self._editing.acquire(timeout=max(until - time.monotonic(), 0.1)):
                try:
                    return self._edited(change)
                except GalleryLockedError as error:
                    if time.monotonic() > until:
                        raise self._locked(error) from error
                finally:
                    self._editing.release()
            elif time.monotonic() > until:
                raise GalleryLockedError(
                    "other edits are going on, so nothing was changed; try again"
                ).coded("other-edits")
            time.sleep(LOOK_SECONDS)

    def undo(self, expected: Edit | None = None) -> str:
        """Undo the last edit of people; returns what it was.

        Args:
            expected: the edit that must be the last one; None for any.

        Raises:
            OtherEditError: another edit is the last one; nothing was undone.
            GalleryError: there is no edit to undo.
        """
        return self.edit(lambda engine: engine.undo(expected))

    def _edited(self, change: Callable[[Face2Vec], Result]) -> Result:
        try:
            done = change(self._engine)
        except (GalleryLockedError, OtherEditError, ProblemError):  # nothing was changed
            raise
        except GalleryUpgradedError:
            self._reopen()
            done = change(self._engine)
        except Exception:
            self._changed()  # a part of it may be done
            raise
        self._changed()
        return done

    def _locked(self, error: GalleryLockedError) -> GalleryLockedError:
        """The error of an edit, in words for people."""
        job = self.jobs.running
        if job is None:
            return GalleryLockedError(f"nothing was changed: {error}").coded(
                "edit-locked", writer=error.values.get("writer", "another process")
            )
        return GalleryLockedError(
            f"nothing was changed: the job {job.id} ({job.kind}) is writing to the gallery; try "
            "again when it has ended, or cancel it on the page Jobs"
        ).coded("edit-waits-for-job", job=job.id, kind=job.kind)

    def _changed(self) -> None:
        """Note that this process has changed the gallery."""
        self._people = None
        self._changes += 1

    def version(self) -> str:
        """A word that is another after each change of the gallery, by any process."""
        try:
            with self.reading() as now:
                state = listing.version(now)
        except (Face2VecError, ProblemError):  # there is none, or it is being made
            state = ()
        whole = repr((self._started, self._changes, state))
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def forgotten(self) -> int:
        """Number of photos and faces that are kept away because they were forgotten."""
        try:
            with self.reading() as now:
                return listing.count_forgotten(now)
        except (Face2VecError, ProblemError):  # there is no gallery, or it is being made
            return 0

    def _reopen(self) -> None:
        with self._opening:
            self._engine.reopen()

    # Queries

    def encode(self, data: bytes, name: str, *, preview: bool = False) -> EncodedUpload:
        """The faces of an uploaded photo.

        Args:
            data: bytes of the file.
            name: its name, for messages.
            preview: also make a picture to show.

        Raises:
            PhotoError: it cannot be read.
            ProblemError: too many photos are waiting.
        """
        limits = self.settings.limits
        if not data:
            raise ProblemError(
                422,
                f"{name}: the file is empty",
                "photo",
                values={"photo": name, "reason": EMPTY_FILE},
            )
        upload = self._decoders.run(decode_upload, name, data, name, limits.pixels, preview)
        height, width = upload.image.shape[:2]
        # Small faces are cut from the reduced image: the upload itself is not decoded again.
        photo = Photo(name, upload.image, width, height)
        scale = upload.width / width
        faces = [_scaled(face, scale) for face in self._shared.encode(photo)]
        kept = faces[: limits.faces]
        chosen = kept.index(largest_sure(kept)) if kept else None
        return EncodedUpload(
            upload, kept, chosen, hashlib.sha256(data).digest(), len(faces) - len(kept)
        )

    def face(self, number: int) -> StoredFace:
        """A face of the gallery with its embedding.

        Raises:
            NotThereError: the gallery does not have it.
        """
        with self.reading() as now:
            found = now.stored_faces([number])
        if not found:
            raise NotThereError(f"there is no face {number} in the gallery").coded(
                "no-face", number=number
            )
        return found[0]

    def search(self, query: Face | NDArray[np.float32], wanted: Filter) -> list[Match]:
        """The matches of one query that pass the filter, most similar first.

        Args:
            query: a face with an embedding, or an embedding float32 (d,).
            wanted: how many, and which.

        Raises:
            SettingsError: the embedding has another dimension.
            CalibrationError: a rate is given, and there is no calibration.
        """
        members: frozenset[int] | None = None
        if wanted.person is not None:
            members = frozenset(self.person(wanted.person).faces)
        if wanted.period != ALWAYS:
            with self.reading() as now:
                dated = listing.faces_within(now, wanted.period)
            members = dated if members is None else members & dated
        is_filtered = members is not None or wanted.folder is not None or bool(wanted.without)
        fetch = wanted.k * 4 + len(wanted.without) if is_filtered else wanted.k
        while True:
            (found,) = self._engine.search(
                query, fetch, min_similarity=wanted.min_similarity, far=wanted.far
            )
            matches = list(found.matches)
            kept = [match for match in matches if _passes(match, members, wanted)][: wanted.k]
            if len(kept) == wanted.k or len(matches) < fetch or fetch >= MOST_FETCHED:
                return [_ranked(match, rank) for rank, match in enumerate(kept, 1)]
            fetch = min(fetch * 4, MOST_FETCHED)

    def contents_of(self, faces: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        """(number of the photo, SHA-256 of its bytes) of each face."""
        with self.reading() as now:
            hashes = {face: row[0] for face, row in now.photo_of(list(faces)).items()}
            return {
                face: (listing.content_of_face(now, face) or 0, hashes[face]) for face in hashes
            }

    # Photos

    def photo(self, number: int) -> list[listing.ListedPhoto]:
        """A photo and its copies.

        Raises:
            NotThereError: the gallery does not have it.
        """
        with self.reading() as now:
            found = listing.photo_page(now, listing.Wanted(content=number), 0, 1000)
        if not found:
            raise NotThereError(f"there is no photo {number} in the gallery").coded(
                "no-photo", number=number
            )
        return found

    def photo_file(self, number: int) -> str:
        """The path of a photo whose file is as it was indexed.

        Raises:
            NotThereError: the gallery does not have it, or its file is gone or has changed.
        """
        paths = [one.path for one in self.photo(number) if one.is_file]
        for path in paths:
            if self._is_as_indexed(path):
                return path
        there = any(map(_is_there, paths))
        what = "has changed since it was indexed; index it again" if there else "is not there"
        raise NotThereError(f"the file of photo {number} {what}").coded(
            "file-changed" if there else "file-missing", number=number
        )

    def _is_as_indexed(self, path: str) -> bool:
        """Whether a file has the size and time of change that the gallery has stored."""
        try:
            now = status_of(path)
        except OSError:
            return False
        with self.reading() as snapshot:
            return snapshot.stat_of(path) == now[:2]

    def photo_picture(self, number: int, side: int) -> bytes:
        """A photo to look at, as WebP, its longest side at most ``side`` pixels."""
        photo = self.photo_file(number)
        file = thumbnail_file(self.settings.gallery, f"photo-{number}", number, side)
        is_kept = side == LIST_SIDE
        if is_kept:
            with suppress(OSError):
                return file.read_bytes()
        pixels, time = self.settings.limits.pixels, self._time_to_show(number, photo)
        made = self._decoders.run(photo_view, photo, photo, side, pixels, time)
        if is_kept:
            self._keep(file, made, lambda: self.photo(number))
        return made

    def _time_to_show(self, number: int, path: str) -> float | None:
        """Of a video, the time of its first face, or of its start; None for a photo."""
        if not is_video(path):
            return None
        with self.reading() as now:
            faces = [face for face, _ in listing.faces_in(now, number)]
            times = [one.face.time for one in now.stored_faces(faces, with_embeddings=False)]
        return min((time for time in times if time is not None), default=0.0)

    def thumbnail(self, number: int, side: int) -> bytes:
        """A face to look at, as WebP; made once.

        Raises:
            NotThereError: the gallery does not have the face.
        """
        one = self.face(number)
        file = thumbnail_file(self.settings.gallery, f"face-{number}", number, side)
        with suppress(OSError):
            return file.read_bytes()
        name, box, time = one.photo, one.face.box, one.face.time
        try:
            is_as_indexed = self._is_as_indexed(name)
        except AddressNotAllowedError as error:
            warn_once(error)
            is_as_indexed = False
        if not is_as_indexed:
            return self._decoders.run(face_thumbnail, name, b"", box, side, None)
        made = self._decoders.run(face_thumbnail, name, name, box, side, time)
        self._keep(file, made, lambda: self.face(number))
        return made

    def mark(self, number: int) -> Mark:
        """A face that was marked by hand and has no landmarks.

        Raises:
            NotThereError: the gallery does not have it.
        """
        with self.reading() as now:
            found = now.mark(number)
        if found is None:
            raise NotThereError(f"there is no mark {number} in the gallery").coded(
                "no-mark", number=number
            )
        return found

    def mark_thumbnail(self, number: int, side: int) -> bytes:
        """A mark to look at, as WebP; made once.

        Raises:
            NotThereError: the gallery does not have it, or its photo is gone or has changed.
        """
        mark = self.mark(number)
        file = thumbnail_file(self.settings.gallery, f"mark-{number}", number, side)
        with suppress(OSError):
            return file.read_bytes()
        name = self.photo_file(mark.content)
        made = self._decoders.run(face_thumbnail, name, name, mark.box, side, None)
        self._keep(file, made, lambda: self.mark(number))
        return made

    def _keep(self, file: Path, made: bytes, check: Callable[[], object]) -> None:
        """Keep a thumbnail in the gallery's folder, if that is there.

        Args:
            file: where.
            made: the picture.
            check: raises `NotThereError` if the gallery does not have it any more.
        """
        if not (self.settings.gallery / FILE).exists():
            return
        with suppress(OSError):
            keep_thumbnail(file, made)
            try:
                check()
            except NotThereError:  # it was removed meanwhile
                file.unlink(missing_ok=True)
                raise

    # People

    def people(self) -> list[Person]:
        """All people who have faces or a name: named ones first, then by number of faces."""
        return self._known_people().listed

    def owners(self) -> dict[int, Person]:
        """The person of each face that has one."""
        return self._known_people().owners

    def _known_people(self) -> _People:
        known = self._people
        if known is None or time.monotonic() - known.read > PEOPLE_SECONDS:
            with self.reading() as now:
                people = now.people()
            some = [person for person in people if person.faces or person.name is not None]
            some.sort(key=lambda person: person.name is None)
            owners = {face: person for person in some for face in person.faces}
            known = self._people = _People(time.monotonic(), some, owners)
        return known

    def person(self, number: int) -> Person:
        """A person.

        Raises:
            NotThereError: there is none with this number.
        """
        for person in self.people():
            if person.id == number:
                return person
        raise NotThereError(f"there is no person {number} in the gallery").coded(
            "no-person", number=number
        )

    def suggestions(self) -> list[Suggestion]:
        """Pairs that may be one person; computed again when faces or people have changed."""
        with self.reading() as now:
            people = now.people()
            state = (now.state, now.edits(1), len(now.apart()), hash(tuple(people)))
        if self._suggestions is None or self._suggestions[0] != state:
            self._suggestions = state, self._engine.suggest(SUGGESTED)
        return self._suggestions[1]

    # Jobs

    def index(self, folders: Sequence[str], again: bool = False) -> Job:
        """Index folders in the background.

        Args:
            folders: each must be one of the roots, or be inside of one, links followed.
            again: read unchanged photos again, for their dates and for faces that were missed.

        Raises:
            ProblemError: a folder is outside of the roots.
        """
        paths = [self.allowed(folder) for folder in folders]

        def work(report: Report) -> dict[str, Any]:
            with Face2Vec(self.settings.gallery) as engine:
                inside = {full for full in map(_real, find_photos(paths)) if self._is_inside(full)}
                done = report.when_free(
                    lambda: engine.add(
                        *map(str, paths), only=inside, again=STATUSES * again, progress=report
                    )
                )
                people = {}
                if engine.info()["faces"] and not done.interrupted:
                    people = report.when_free(engine.find_people)._asdict()
            return {**done.to_dict(), "grouped": people}

        return self.jobs.start("index", ", ".join(map(str, paths)), work)

    def group(self, again: bool) -> Job:
        """Group faces into people in the background."""

        def work(report: Report) -> dict[str, Any]:
            with Face2Vec(self.settings.gallery) as engine:
                return report.when_free(lambda: engine.find_people(again=again))._asdict()

        return self.jobs.start("people", "", work)

    def rebuild(self) -> Job:
        """Rebuild the index in the background."""

        def work(report: Report) -> dict[str, Any]:
            with Face2Vec(self.settings.gallery) as engine:
                report.when_free(engine.rebuild)
            return {}

        return self.jobs.start("rebuild", "", work)

    def upgrade(self, model: str) -> Job:
        """Change the gallery to another model of the catalogue in the background.

        Raises:
            SettingsError: the catalogue has no such model.
        """
        if model not in CATALOGUE:
            raise SettingsError(f"there is no model {model!r} in the catalogue").coded(
                "no-model", model=model
            )

        def work(report: Report) -> dict[str, Any]:
            with Face2Vec(self.settings.gallery) as engine:
                return report.when_free(lambda: engine.upgrade(model, progress=report)).to_dict()

        return self.jobs.start("upgrade", model, work)

    def allowed(self, folder: str) -> Path:
        """A folder that may be indexed, with links resolved.

        Raises:
            ProblemError: it is outside of the roots, is no folder, or cannot be read.
        """
        try:
            path = Path(folder).resolve()
        except (OSError, ValueError, RuntimeError):
            path = None
        if path is None or not self._is_inside(str(path)):
            raise ProblemError(
                403,
                "only folders below those that were given to 'face2vec serve' with --root can be "
                "indexed",
                "outside-roots",
            )
        try:
            if path.is_dir():
                return path.resolve(strict=True)
            is_there = path.exists()
            what = "is not a folder" if is_there else "does not exist"
            code = "no-folder" if is_there else "folder-missing"
        except OSError as error:
            what, code = f"cannot be read: {error.strerror}", "folder-unreadable"
        shown = printable(str(path))
        raise ProblemError(
            422, f"{shown} {what}; check the path", "folder", code=code, values={"folder": shown}
        )

    def folders(self, folder: str | None) -> Listed:
        """The folders in a folder that may be indexed, or, with None, all roots.

        Links are followed, and what they lead to must be below a root, too.

        Raises:
            ProblemError: the folder is outside of the roots, is no folder, or cannot be read.
        """
        if folder is None:
            return Listed(None, None, [(str(root), root) for root in self.settings.roots], 0, False)
        here = self.allowed(folder)
        found, photos = list[tuple[str, Path]](), 0
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        path = Path(os.path.realpath(entry.path))
                        if self._is_inside(str(path)):
                            found.append((entry.name, path))
                    elif Path(entry.name).suffix[1:].lower() in PHOTO_SUFFIXES:
                        photos += 1
        except OSError as error:
            raise ProblemError(
                422,
                f"{here} cannot be read: {error.strerror}",
                "folder",
                code="folder-unreadable",
                values={"folder": printable(str(here))},
            ) from error
        found.sort(key=lambda one: one[0].casefold())
        above = str(here.parent) if self._is_inside(str(here.parent)) else None
        return Listed(str(here), above, found[:MOST_FOLDERS], photos, len(found) > MOST_FOLDERS)

    def _is_inside(self, path: str) -> bool:
        """Whether a path with links resolved is one of the roots, or below one."""
        return any(
            path == str(root) or path.startswith(f"{root}{os.sep}") for root in self.settings.roots
        )


def _is_there(photo: str) -> bool:
    try:
        return exists(photo)
    except OSError:
        return False


def _real(photo: FoundPhoto) -> str:
    """The full path of a photo with links resolved."""
    return photo.place if is_object(photo.folder) else os.path.realpath(photo.full)


def _scaled(face: Face, scale: float) -> Face:
    """The face with box and landmarks in pixels of the whole photo."""
    if scale == 1:
        return face
    left, top, right, bottom = (v * scale for v in face.box)
    points: Any = tuple((x * scale, y * scale) for x, y in face.landmarks)
    return replace(face, box=(left, top, right, bottom), landmarks=points)


def _passes(match: Match, members: frozenset[int] | None, wanted: Filter) -> bool:
    if match.face.id in wanted.without or (members is not None and match.face.id not in members):
        return False
    if wanted.folder is None:
        return True
    folder = Path(wanted.folder)
    return any(folder in Path(photo).parents for photo in (match.photo, *match.copies))


def _ranked(match: Match, rank: int) -> Match:
    return match if match.rank == rank else replace(match, rank=rank)
