"""Where photos are: the seam between what reads photos and files or objects.

A path is that of a file, or the address of an object (`face2vec.photos.objects`). Both have a
status, and are read as a whole or in parts.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from face2vec.errors import StorageError
from face2vec.files import expanded, is_object
from face2vec.photos.objects import (
    ObjectFile,
    ObjectStatus,
    find_objects,
    object_head,
    object_status,
    open_object,
)

Status = ObjectStatus
"""Size in bytes, and times of change in nanoseconds, of a file or object."""


def status_of(path: str | os.PathLike[str]) -> Status:
    """The status of a file, by one ``stat`` call, or of an object, by one request.

    Raises:
        OSError: it is missing, or the disk or store does not give it.
    """
    text = os.fspath(path)
    if is_object(text):
        return object_status(text)
    return _of_stat(os.stat(text))  # noqa: PTH116 - for each photo of a folder


def status_of_open(file: io.BufferedReader, *, now: bool = False) -> Status:
    """The status of what `opened` returned.

    Args:
        file: the open file or object.
        now: ask for that of an object again; otherwise it is that from when it was opened.

    Raises:
        OSError: an object is missing by now.
    """
    if isinstance(file, ObjectFile):
        return object_status(file.address) if now else file.status
    return _of_stat(os.fstat(file.fileno()))


def exists(path: str) -> bool:
    """Whether there is a file or an object.

    Raises:
        OSError: the disk or store does not answer.
    """
    try:
        status_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except IsADirectoryError:  # a folder of objects
        return True
    return True


def is_empty(folder: str) -> bool:
    """Whether a folder has nothing in it, is missing, or cannot be read."""
    try:
        if is_object(folder):
            return next(find_objects(folder), None) is None
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def missing_photos(photos: Iterable[str], roots: Iterable[str]) -> Iterator[str]:
    """Those of some photos whose file or object is gone.

    Objects are looked for in a listing of their folder, a thousand by a request; those that it
    does not have are then asked for one by one.

    Args:
        photos: full paths and addresses; objects of one folder in order of their names.
        roots: the folders that they were added from.

    Raises:
        StorageError: a store does not answer.
    """
    listing = _Listing(sorted(filter(is_object, roots), key=len, reverse=True))
    for photo in photos:
        try:
            if not listing.has(photo) and not exists(photo):
                yield photo
        except OSError as error:
            if is_object(photo):
                raise StorageError(
                    f"{photo} cannot be looked for ({error}); nothing was removed; look at your "
                    "credentials and at the connection, and try again"
                ) from error
            # A file that cannot be looked at is there.


class _Listing:
    """A listing of the folder of some objects, read on as they are asked for in order."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders, self._folder, self._last = folders, "", b""
        self._names: Iterator[tuple[str, Status]] = iter(())
        self._next: bytes | None = None

    def has(self, photo: str) -> bool:
        """Whether it lists an object; False of a file."""
        folder = next((one for one in self._folders if photo.startswith(one + os.sep)), None)
        if folder is None:
            return False
        name = os.fsencode(photo[len(folder) + 1 :])
        if folder != self._folder or name < self._last:
            self._folder, self._names = folder, find_objects(folder)
            self._advance()
        self._last = name
        while self._next is not None and self._next < name:
            self._advance()
        return self._next == name

    def _advance(self) -> None:
        found = next(self._names, None)
        self._next = None if found is None else os.fsencode(found[0])


def opened(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A file or object, open for reading; a named pipe without a writer is not waited for.

    Raises:
        IsADirectoryError: it is a folder.
        OSError: it cannot be opened.
    """
    text = expanded(path)
    if is_object(text):
        return open_object(text)
    return open(text, "rb", opener=_without_waiting)


def is_regular(file: io.BufferedReader) -> bool:
    """Whether what `opened` returned is a file or an object, and not a pipe or a device."""
    return isinstance(file, ObjectFile) or stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def head_of(path: str | os.PathLike[str], count: int) -> bytes:
    """The first bytes of a regular file or an object.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    text = expanded(path)
    if is_object(text):
        return object_head(text, count)
    with opened(text) as file:
        if not is_regular(file):
            raise OSError(errno.EINVAL, "not a regular file", text)
        return file.read(count)


def objects_in(folder: str) -> Iterator[tuple[str, Status]]:
    """(name, status) of the objects in a folder and below, see `find_objects`.

    Raises:
        OSError: the store does not list them.
    """
    return find_objects(folder)


def _of_stat(found: os.stat_result) -> Status:
    return Status(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
