"""The exceptions of face2vec, with one common base class.

    Face2VecError
    ├── SettingsError            an invalid setting (also a ValueError)
    ├── MissingExtraError        an optional package is not installed (also an ImportError)
    ├── PhotoError               a photo cannot be read; has a short ``reason``
    ├── NoFaceError              a photo has no face, but the call needs one
    ├── ModelError               a model's description, weights or graph is wrong
    │   ├── UnknownModelError    there is no model of that name
    │   └── DownloadError        the weights could not be downloaded or verified
    ├── TrainingError            a training diverged or cannot continue
    ├── CalibrationError         the meaning of a similarity is not known
    ├── RuntimeUnavailableError  the requested runtime is not available
    ├── StorageError             a store of photos does not list them
    │   └── AddressNotAllowedError  the user has not allowed to read from there
    ├── ServiceError             a service does not answer, or refuses a request
    ├── NotWrittenError          a file cannot be written, as on a full disk (also an OSError)
    └── GalleryError             a gallery on disk cannot be used
        ├── GalleryNotFoundError there is no gallery at that path
        ├── GalleryLockedError   another process is writing; the message names it
        ├── GalleryVersionError  written by a newer face2vec
        ├── GalleryMismatchError made with another model or detector
        │   └── GalleryUpgradedError  upgraded to another model while open
        ├── OtherEditError       the last edit is another one than the caller expects
        └── GalleryDamagedError  the SQLite file is truncated or not a gallery

A message says what was wrong, where, and what to do. The command line prints it on one line.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self


class Face2VecError(Exception):
    """Base class of the exceptions of face2vec.

    Attributes:
        code: a word for the message, such as ``"name-taken"``, for programs that say it in other
            words or in another language; empty if it has none.
        values: what the message names, by name.
    """

    code: str = ""
    values: Mapping[str, Any] = MappingProxyType({})

    def coded(self, code: str, **values: Any) -> Self:
        """Give this error a code, and the values that its message names; returns the error."""
        self.code, self.values = code, values
        return self


def kind_of(error: type[Exception]) -> str:
    """The word for a class of errors, such as ``"gallery-locked"`` for `GalleryLockedError`."""
    name = error.__name__.removesuffix("Error")
    return "".join(f"-{one.lower()}" if one.isupper() else one for one in name).lstrip("-")


class SettingsError(Face2VecError, ValueError):
    """A setting has an invalid value."""


class MissingExtraError(Face2VecError, ImportError):
    """An optional package is required but not installed.

    Args:
        what: the feature that needs the package.
        package: name of the package.
        extra: the extra of face2vec that installs it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'face2vec[{extra}]'"
        )


class PhotoError(Face2VecError):
    """A photo cannot be read.

    Args:
        photo: name of the photo, as given by the user.
        reason: a short lower-case phrase for summary tables, such as ``"empty file"`` or
            ``"truncated"``; equal for all photos that fail in the same way.
        detail: further explanation for this photo; may be empty.
    """

    def __init__(self, photo: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{photo}: {reason}" + (f" ({detail})" if detail else ""))
        self.photo = photo
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str, str]]:
        return type(self), (self.photo, self.reason, self.detail)


class NoFaceError(Face2VecError):
    """No face was found in a photo, but the call needs one."""


class ModelError(Face2VecError):
    """A model's description, weights or graph is wrong."""


class UnknownModelError(ModelError):
    """There is no model of that name in the catalogue."""


class DownloadError(ModelError):
    """Weights could not be downloaded, or are not the expected file."""


class TrainingError(Face2VecError):
    """A training diverged, or cannot continue from the files in its folder."""


class CalibrationError(Face2VecError):
    """The meaning of a similarity is not known for a model or for a requested rate."""


class RuntimeUnavailableError(Face2VecError):
    """The requested runtime or device is not available on this machine."""


class StorageError(Face2VecError):
    """A store of photos, such as S3, does not answer or does not list its objects."""


class AddressNotAllowedError(StorageError):
    """An address of object storage is not below one that the user of this machine has allowed."""


class ServiceError(Face2VecError):
    """A service does not answer, refuses a request, or is none of face2vec."""


class NotWrittenError(Face2VecError, OSError):
    """A file cannot be written, as on a full disk or in a folder that does not exist."""


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""A full disk, and a user who may not use more of it."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that the disk is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def not_written(error: OSError, path: str = "") -> NotWrittenError:
    """The error of face2vec for a file that could not be written.

    Args:
        error: the error of the system.
        path: the file; without it, what the error names.
    """
    if isinstance(error, NotWrittenError):
        return error
    place = path or str(error.filename or "")
    if is_full_disk(error):
        where = f"the disk of {place}" if place else "the disk"
        return NotWrittenError(
            f"{where} is full; what was written before is kept; free some space and run the same "
            "command again"
        ).coded("disk-full", folder=place)
    folder = os.path.dirname(path)  # noqa: PTH120
    if folder and not os.path.isdir(folder):  # noqa: PTH112
        return NotWrittenError(
            f"{path} cannot be written: there is no folder {folder}; make it first: mkdir -p "
            f"{shlex.quote(folder)}"
        )
    reason = (error.strerror or str(error)).lower()
    return NotWrittenError(
        f"{place or 'a file'} cannot be written: {reason}; check the path and the permissions"
    )


NOT_WRITABLE = "not-writable"
"""Code of the error for a gallery that can only be read."""


class GalleryError(Face2VecError):
    """A gallery on disk cannot be used."""


class GalleryNotFoundError(GalleryError):
    """There is no gallery at that path."""


class GalleryLockedError(GalleryError):
    """Another process is writing to the gallery."""


class GalleryVersionError(GalleryError):
    """The gallery was written by a newer version of face2vec."""


class GalleryMismatchError(GalleryError):
    """The gallery was made with another model or detector."""


class GalleryUpgradedError(GalleryMismatchError):
    """The gallery was upgraded to another model while it was open; it must be opened again."""


class OtherEditError(GalleryError):
    """The last edit is another one than the caller expects, so nothing was undone.

    Args:
        what: the last edit in words; None if there is none.
        made: when it was made, in seconds since 1970; None if that is not known.
    """

    def __init__(self, what: str | None, made: int | None = None) -> None:
        now = (
            "there is no edit to undo any more" if what is None else f"the last edit is now: {what}"
        )
        super().__init__(f"nothing was undone: {now}; list the edits and try again")
        self.what = what
        self.made = made

    def __reduce__(self) -> tuple[type[OtherEditError], tuple[str | None, int | None]]:
        return type(self), (self.what, self.made)


class GalleryDamagedError(GalleryError):
    """The gallery's SQLite file is truncated, or is not a gallery."""
