"""A folder of photos for each named person: copies of the photos, or links to them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from face2vec.errors import AddressNotAllowedError, SettingsError
from face2vec.files import composed, is_object, new_beside, put_in_place
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import NAME_ONLY
from face2vec.photos.storage import opened, status_of

LONGEST = 100
"""Bytes of the longest name of a folder; longer names of people are cut."""
_LONGEST_FILE = 240
_UNSAFE = re.compile(
    r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]'
)
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)
_CHUNK = 1 << 20

CHANGED = "changed since it was indexed; index it again"
TAKEN = "files of other content have its names"


@dataclass(frozen=True)
class PeopleExported:
    """What `Face2Vec.export_people` did.

    Attributes:
        folders: path of the folder of each person, by name.
        written: number of photos that were copied or linked; one of two people counts twice.
        there: number of photos that were there already.
        refused: (photo, reason) of each photo that was not written.
    """

    folders: dict[str, str]
    written: int = 0
    there: int = 0
    refused: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        refused = [{"path": path, "reason": reason} for path, reason in self.refused]
        return {**asdict(self), "refused": refused}


class PhotoOf(NamedTuple):
    """A photo of a person.

    Attributes:
        path: full path; of several copies the first that exists.
        stat: (bytes, mtime_ns) of the file that was indexed.
        sha256: the 32 bytes of the hash of its bytes.
    """

    path: str
    stat: tuple[int, int]
    sha256: bytes


class PersonPhotos(NamedTuple):
    """A person with a name.

    Attributes:
        name: the name.
        folder: name of the folder.
        photos: the photos, each content once, in order of path.
    """

    name: str
    folder: str
    photos: tuple[PhotoOf, ...]


def people_of(now: Snapshot) -> list[PersonPhotos]:
    """The people with names, in order of their numbers; names without a file are left out."""
    people = sorted((one for one in now.people() if one.name), key=lambda person: person.id)
    folders = folder_names([(one.id, one.name or "") for one in people])
    found = []
    for person in people:
        hashes = now.photo_of(person.faces)
        photos: dict[bytes, PhotoOf] = {}
        for one in now.stored_faces(person.faces, with_embeddings=False):
            times, sha256 = now.stat_of(one.photo), hashes[one.face.id or 0][0]
            if times is not None and times[0] != NAME_ONLY:
                photos.setdefault(sha256, PhotoOf(one.photo, times, sha256))
        some = tuple(sorted(photos.values()))
        found.append(PersonPhotos(person.name or "", folders[person.id], some))
    return found


def folder_names(people: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Name of the folder of each person, by number.

    A name that is safe on every system stands as it is. A changed name ends with the number of the
    person, and so does the later of two that differ only in the case of letters. A person's folder
    does not depend on people with higher numbers.

    Args:
        people: (number, name) of each person, in order of number.
    """
    names: dict[int, str] = {}
    used: set[str] = set()
    for number, name in people:
        safe = safe_name(name)
        if safe != composed(name) or safe.casefold() in used:
            safe = f"{safe} ({number})"
        while safe.casefold() in used:
            safe += "_"
        used.add(safe.casefold())
        names[number] = safe
    return names


def safe_name(name: str) -> str:
    """A name that is one folder below another on Linux, macOS and Windows.

    Separators, control characters and characters that change the direction of text become "_", and
    so do dots at the start; dots and spaces at the end go; a name that Windows reserves, such as
    "CON", begins with "_"; what is longer than ``LONGEST`` bytes is cut.
    """
    safe = _UNSAFE.sub("_", composed(name)).strip()
    dots = len(safe) - len(safe.lstrip("."))
    safe = "_" * dots + safe[dots:]
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    safe = safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").rstrip(" .")
    return safe or "_"


def export(people: Iterable[PersonPhotos], to: Path, *, link: bool) -> PeopleExported:
    """Write a folder of photos for each person. Nothing that is there is changed or deleted.

    Args:
        people: the people.
        to: the folder that the folders go to; it is made if it does not exist.
        link: make relative symbolic links instead of copies.

    Raises:
        SettingsError: the folder cannot be made.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make the folder {to}: {error.strerror}") from error
    folders: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    written = there = 0
    for person in people:
        if not person.photos:
            continue
        folder = to / person.folder
        folders[person.name] = str(folder)
        reason = _made(folder)
        for photo in person.photos:
            try:
                if reason is not None:
                    raise ValueError(reason)
                new = _put(photo, folder, link)
                written, there = written + new, there + (not new)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                refused.append((photo.path, f"cannot be {'linked' if link else 'copied'}: {why}"))
            except (ValueError, AddressNotAllowedError) as error:
                refused.append((photo.path, str(error)))
    return PeopleExported(folders, written, there, tuple(refused))


def _made(folder: Path) -> str | None:
    """Make the folder of a person; returns why nothing can be written to it."""
    if folder.is_symlink():  # it can lead anywhere
        return f"{folder} is a link, not a folder"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        return f"cannot make the folder {folder}: {error.strerror}"
    return None


def _put(photo: PhotoOf, folder: Path, link: bool) -> bool:
    """Copy or link a photo; returns False if it is there already.

    Raises:
        ValueError: the photo changed, or other files have its names.
        OSError: it cannot be read or written.
    """
    if link and is_object(photo.path):
        raise ValueError("it is in object storage and cannot be linked; leave out --link")
    if status_of(photo.path)[:2] != photo.stat:
        raise ValueError(CHANGED)
    for name in _names(photo):
        target = folder / name
        if not os.path.lexists(target):
            (_link if link else _copy)(photo, target)
            return True
        if _is_same(target, photo):
            return False
    raise ValueError(TAKEN)


def _names(photo: PhotoOf) -> tuple[str, str]:
    """The names that a photo may have in a folder: its own; with its hash, if that is taken."""
    path = Path(photo.path)
    suffix = path.suffix
    stem = path.name[: len(path.name) - len(suffix)] or "_"
    if path.name in ("", ".", ".."):
        stem, suffix = "_", ""
    ending = f" ({photo.sha256.hex()[:8]}){suffix}"
    room = max(_LONGEST_FILE - len(os.fsencode(ending)), 1)
    return stem + suffix, os.fsdecode(os.fsencode(stem)[:room]) + ending


def _is_same(target: Path, photo: PhotoOf) -> bool:
    """Whether a file in a folder is this photo: a link to it, or a copy of its bytes."""
    if target.is_symlink():
        return os.path.realpath(target) == os.path.realpath(photo.path)
    if not target.is_file() or target.stat().st_size != photo.stat[0]:
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest() == photo.sha256


def _link(photo: PhotoOf, target: Path) -> None:
    real = os.path.realpath(photo.path)
    try:
        place = os.path.relpath(real, os.path.realpath(target.parent))
    except ValueError:  # on another drive of Windows
        place = real
    target.symlink_to(place)


def _copy(photo: PhotoOf, target: Path) -> None:
    """Copy a photo with its time of change; a copy that is interrupted leaves no file."""
    new = new_beside(target.with_name("photo"))
    found = hashlib.sha256()
    try:
        with opened(photo.path) as source, new.open("r+b") as stream:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
                stream.write(chunk)
        if found.digest() != photo.sha256:
            raise ValueError(CHANGED)
        os.utime(new, ns=(photo.stat[1], photo.stat[1]))
        put_in_place(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
