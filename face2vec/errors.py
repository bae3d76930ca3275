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
    ├── ServiceError             a service does not answer, or refuses a request
    └── GalleryError             a gallery on disk cannot be used
        ├── GalleryNotFoundError there is no gallery at that path
        ├── GalleryLockedError   another process is writing; the message names it
        ├── GalleryVersionError  written by a newer face2vec
        ├── GalleryMismatchError made with another model or detector
        │   └── GalleryUpgradedError  upgraded to another model while open
        └── GalleryDamagedError  the SQLite file is truncated or not a gallery

A message says what was wrong, where, and what to do. The command line prints it on one line.
"""

from __future__ import annotations


class Face2VecError(Exception):
    """Base class of the exceptions of face2vec."""


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


class ServiceError(Face2VecError):
    """A service does not answer, refuses a request, or is none of face2vec."""


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


class GalleryDamagedError(GalleryError):
    """The gallery's SQLite file is truncated, or is not a gallery."""
