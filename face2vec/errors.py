"""Everything that face2vec raises on purpose, under one root.

    Face2VecError
    ├── SettingsError            a setting that cannot be met (also a ValueError)
    ├── MissingExtraError        an optional package is not installed (also an ImportError)
    ├── PhotoError               one photo that cannot be read; carries a short ``reason``
    ├── NoFaceError              a call that needs a face got a photo without one
    ├── ModelError               a model's description, weights or graph
    │   ├── UnknownModelError    no model of that name
    │   └── DownloadError        the weights could not be fetched or did not verify
    ├── TrainingError            a training that diverged or cannot go on
    ├── CalibrationError         what a similarity means is not known
    ├── RuntimeUnavailableError  the runtime asked for is not on this machine
    └── GalleryError             a gallery on disk
        ├── GalleryNotFoundError
        ├── GalleryLockedError   another process is writing; says which
        ├── GalleryVersionError  written by a newer face2vec
        ├── GalleryMismatchError made with another model or other settings
        │   └── GalleryUpgradedError  since it was opened
        └── GalleryDamagedError  the SQLite file is truncated or not a gallery

Messages say what was wrong, where, and what to do; the command line prints
them as one line.
"""

from __future__ import annotations


class Face2VecError(Exception):
    """Root of every error that face2vec raises on purpose."""


class SettingsError(Face2VecError, ValueError):
    """A setting has a value that cannot be met."""


class MissingExtraError(Face2VecError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'face2vec[{extra}]'"
        )


class PhotoError(Face2VecError):
    """A photo cannot be read.

    Args:
        photo: name of the photo, as the user gave it.
        reason: a short lower-case phrase fit for a summary table, such as
            ``"empty file"`` or ``"truncated"``; the same for every photo that
            fails the same way.
        detail: more words for this photo alone, may be empty.
    """

    def __init__(self, photo: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{photo}: {reason}" + (f" ({detail})" if detail else ""))
        self.photo = photo
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str, str]]:
        return type(self), (self.photo, self.reason, self.detail)


class NoFaceError(Face2VecError):
    """A call that needs a face got a photo in which none was found."""


class ModelError(Face2VecError):
    """A model's description, weights or graph is wrong."""


class UnknownModelError(ModelError):
    """No model of that name is in the catalogue."""


class DownloadError(ModelError):
    """Weights could not be fetched, or are not the file that was expected."""


class TrainingError(Face2VecError):
    """A training diverged, or cannot go on from what is in its folder."""


class CalibrationError(Face2VecError):
    """What a similarity means is not known for a model, or not for what was asked."""


class RuntimeUnavailableError(Face2VecError):
    """The runtime or device that was asked for is not on this machine."""


class GalleryError(Face2VecError):
    """Something is wrong with a gallery on disk."""


class GalleryNotFoundError(GalleryError):
    """There is no gallery at that path."""


class GalleryLockedError(GalleryError):
    """Another process is writing to the gallery."""


class GalleryVersionError(GalleryError):
    """The gallery was written by a newer version of face2vec."""


class GalleryMismatchError(GalleryError):
    """The gallery was made with another model or other settings."""


class GalleryUpgradedError(GalleryMismatchError):
    """The gallery was upgraded to another model while it was open; open it again."""


class GalleryDamagedError(GalleryError):
    """The gallery's SQLite file is truncated, or is not a gallery."""
