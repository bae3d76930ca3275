"""Kinds of files that only an optional package reads: camera raw, JPEG XL, videos."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from face2vec.errors import PhotoError
from face2vec.photos.formats import NEEDS_JXL, NEEDS_RAW, NEEDS_VIDEO

RAW, JXL, VIDEO = "RAW", "JXL", "VIDEO"
"""Kinds of files, as `photo_format` returns them."""


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        name: what a summary calls several of them.
        suffixes: suffixes of their names, without the dot.
        package: the package that reads them.
        reason: the reason of a `PhotoError` without the package.
        extra: the extra of face2vec that installs the package.
    """

    name: str
    suffixes: frozenset[str]
    package: str
    reason: str
    extra: str

    @property
    def is_read(self) -> bool:
        """Whether the package is installed."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def advice(self) -> str:
        """How to have them read."""
        return f"pip install 'face2vec[{self.extra}]' and index again"


_RAW = "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw x3f 3fr iiq erf mrw"
_VIDEOS = "mp4 m4v mov avi mkv webm mpg mpeg m2v wmv asf flv f4v 3gp 3g2 mts m2ts vob"
KINDS = {
    RAW: Kind("camera raw files", frozenset(_RAW.split()), "rawpy", NEEDS_RAW, "raw"),
    JXL: Kind("JPEG XL photos", frozenset({"jxl"}), "pillow_jxl", NEEDS_JXL, "jxl"),
    VIDEO: Kind("videos", frozenset(_VIDEOS.split()), "av", NEEDS_VIDEO, "video"),
}
_BY_SUFFIX = {suffix: key for key, kind in KINDS.items() for suffix in kind.suffixes}


def kind_by_suffix(suffix: str) -> str | None:
    """The kind of a file by the suffix of its name, in lower case without the dot; or None."""
    return _BY_SUFFIX.get(suffix)


def kind_by_name(name: str) -> str | None:
    """The kind of a file by its name or path; or None."""
    return _BY_SUFFIX.get(name[name.rfind(".") + 1 :].lower())


def require(kind: str, name: str) -> None:
    """Check that files of a kind can be read.

    Raises:
        PhotoError: the package is not installed; the message has the pip line.
    """
    known = KINDS[kind]
    if not known.is_read:
        raise PhotoError(name, known.reason, known.advice)
