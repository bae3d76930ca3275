"""What a photo can be given as: files, streams, bytes, images and arrays of other packages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.arguments import refusal
from face2vec.errors import PhotoError, SettingsError
from face2vec.photos.formats import CANNOT_BE_READ, MAX_BYTES, TOO_MANY_BYTES


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes, such as `io.BytesIO` or an open file."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes of the stream."""
        ...


@runtime_checkable
class HasBytes(Protocol):
    """A file that is not on the disk, such as `zipfile.Path` or a resource of a package."""

    name: str

    def read_bytes(self) -> bytes:
        """The content of the file."""
        ...


PhotoLike = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Readable
    | HasBytes
    | Image.Image
    | NDArray[np.uint8]
)

Plain = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, the bytes of a file, a PIL image or an array."""

WANTED = (
    "a path, bytes, an open file, a PIL image or an RGB array uint8 (height, width, 3)"  # a message
)


def plain(source: PhotoLike, name: str | None = None) -> tuple[Plain, str]:
    """A photo as a path, bytes, a PIL image or an array, and its name.

    A stream is read from its start if it can be rewound. An array of another package, such as a
    torch tensor, is copied to a NumPy array if it is not in the memory of the processor.

    Args:
        source: the photo.
        name: its name; None for the path, the name of the stream, ``"<bytes>"`` and the like.

    Raises:
        PhotoError: a stream cannot be read.
        SettingsError: the source has an unsupported type, or is text that is not a path.
    """
    found: Plain
    if isinstance(source, str | os.PathLike):
        found, usual = source, _path(os.fspath(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        found, usual = bytes(source), "<bytes>"
    elif isinstance(source, Image.Image):
        found, usual = source, "<image>"
    elif (array := array_of(source)) is not None:
        found, usual = array, "<array>"
    elif isinstance(source, HasBytes):
        usual = str(source)
        found = _read(source.read_bytes, name or usual)
    elif isinstance(source, Readable):
        of_stream = getattr(source, "name", None)
        usual = of_stream if isinstance(of_stream, str) else "<stream>"
        found = _read(lambda: _from_start(source), name or usual)
    else:
        raise refusal("a photo", source, WANTED, _hint(source))
    return found, usual if name is None else name


def array_of(value: object) -> NDArray[Any] | None:
    """An array of NumPy or of another package as a NumPy array of any dtype and shape, or None.

    An image of torch, uint8 (3, height, width), becomes (height, width, 3).
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch
        array = np.asarray(value.detach().cpu())
        if array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] != 3 == array.shape[0]:
            array = np.moveaxis(array, 0, 2)
        return array
    if hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
        return np.asarray(value)
    return None


def _read(read: Callable[[], Any], name: str) -> bytes:
    try:
        data = read()
    except OSError as error:
        raise PhotoError(name, CANNOT_BE_READ, error.strerror or str(error)) from error
    except (KeyError, ValueError) as error:  # no such member of a zip; a closed file
        raise PhotoError(name, CANNOT_BE_READ, str(error).strip("'\"")) from error
    if not isinstance(data, bytes):
        raise SettingsError(
            f"{name} gives {type(data).__name__} and not bytes; open the file with mode 'rb'"
        )
    if len(data) > MAX_BYTES:
        raise PhotoError(name, TOO_MANY_BYTES, f"more than {MAX_BYTES:,}")
    return data


def _from_start(stream: Any) -> Any:
    seekable = getattr(stream, "seekable", None)
    if seekable is not None and seekable():
        stream.seek(0)
    return stream.read(MAX_BYTES + 1)


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]\s*){200,}={0,2}\s*")
_LONGEST_PATH = 4096


def _path(path: str) -> str:
    """Check that text is a path, and not a photo as text.

    Raises:
        SettingsError: it is Base64, a data URL or the address of a page.
    """
    if not isinstance(path, str):
        raise refusal("a photo", path, WANTED)
    if path[:5].lower() == "data:":
        raise refusal("a photo", path, WANTED, "decode the data URL: base64.b64decode(part)")
    if len(path) >= 200 and _BASE64.fullmatch(path) and not _exists(path):
        raise refusal("a photo", path, WANTED, "decode the Base64: base64.b64decode(text)")
    if re.match(r"(?i)https?://", path) and not _exists(path):
        raise refusal("a photo", path, WANTED, "download it first")
    if len(path) > _LONGEST_PATH:
        raise refusal("a photo", path, WANTED)
    return path


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _hint(source: object) -> str:
    if hasattr(source, "embedding") and hasattr(source, "box"):
        return "a Face is searched for, verified and identified, and needs no encoding"
    if hasattr(source, "face"):
        return f"use the face of the {type(source).__name__}: .face"
    if isinstance(source, list | tuple):
        return "give photos one by one, or use bulk_encode for several"
    return ""
