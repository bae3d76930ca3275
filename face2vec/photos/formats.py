"""Detection of photo formats from first bytes, and the reasons why a photo cannot be used."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from face2vec.errors import PhotoError
from face2vec.files import expanded

MISSING = "missing"  # no file of that name, or a broken link
NO_PERMISSION = "no permission"
NOT_A_FILE = "not a regular file"  # a folder, a pipe, a device
CANNOT_BE_READ = "cannot be read"  # another system error, given in the detail
EMPTY_FILE = "empty file"
TOO_MANY_BYTES = "too many bytes"
NOT_A_PHOTO = "not a photo"  # the first bytes match no supported format
TRUNCATED = "truncated"
DAMAGED = "damaged"  # the decoder failed in another way
TOO_MANY_PIXELS = "too many pixels"
TOO_SLOW = "takes too long"  # a decoder reads on and on without a result
NEEDS_RAW = "needs face2vec[raw]"  # a camera raw file
NEEDS_JXL = "needs face2vec[jxl]"  # a JPEG XL photo
CHANGED = "changed while in use"  # the second decode gave another size than the first

REASONS = (
    MISSING,
    NO_PERMISSION,
    NOT_A_FILE,
    CANNOT_BE_READ,
    EMPTY_FILE,
    TOO_MANY_BYTES,
    NOT_A_PHOTO,
    TRUNCATED,
    DAMAGED,
    TOO_MANY_PIXELS,
    TOO_SLOW,
    NEEDS_RAW,
    NEEDS_JXL,
    CHANGED,
)
"""All values of ``reason`` of a :class:`~face2vec.errors.PhotoError`."""

MAX_BYTES = 1 << 30
HEAD_BYTES = 256  # enough for all signatures and the brands of a HEIC or AVIF file


def photo_format(head: bytes) -> str | None:
    """Detect a photo's format from its first bytes; :data:`HEAD_BYTES` are enough.

    Returns:
        ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"AVIF"``, ``"HEIC"``, ``"TIFF"``, ``"GIF"``,
        ``"BMP"``, ``"JXL"``, ``"RAW"`` for files of cameras that do not begin as TIFF files do, or
        None for any other content. Other raw files are ``"TIFF"`` by their first bytes.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "RAW" if head[8:10] == b"CR" else "TIFF"  # CR marks Canon's raw files
    if head.startswith(_RAW_SIGNATURES) or (head[:2] == b"II" and head[6:14] == b"HEAPCCDR"):
        return "RAW"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    if head.startswith(b"BM") and head[15:18] == b"\0\0\0" and head[14] in _BMP_HEADER_SIZES:
        return "BMP"  # the two letters alone would match any text that begins with BM
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        if head[8:12] == b"crx ":
            return "RAW"
        brands = {head[8:12], *(head[n : n + 4] for n in range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if head[8:12] in _HEIC_BRANDS or (head[8:12] in _ANY_HEIF and brands & _HEIC_BRANDS):
            return "HEIC"
    return None


# Of Olympus, Panasonic, Fujifilm, Sigma and Minolta.
_RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM")
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_ANY_HEIF = {b"mif1", b"msf1", b"mif2"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def read_photo_bytes(
    path: str | os.PathLike[str], *, name: str | None = None, max_bytes: int = MAX_BYTES
) -> bytes:
    """Read a whole file.

    Args:
        path: the file; ``~`` at its start is the home folder.
        name: name of the photo in errors; the path if None.
        max_bytes: size limit.

    Returns:
        The content, at least one byte.

    Raises:
        PhotoError: the file is missing, not a regular file, empty, too large, or unreadable.
    """
    name = os.fspath(path) if name is None else name
    path = expanded(path)
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError(name, NOT_A_FILE)
            if status.st_size > max_bytes:
                raise PhotoError(
                    name, TOO_MANY_BYTES, f"{status.st_size:,} of at most {max_bytes:,}"
                )
            data = file.read()
    except FileNotFoundError as error:
        raise PhotoError(name, MISSING) from error
    except IsADirectoryError as error:
        raise PhotoError(name, NOT_A_FILE, "a folder") from error
    except PermissionError as error:
        if Path(path).is_dir() and os.access(path, os.R_OK):  # Windows: raised for any folder
            raise PhotoError(name, NOT_A_FILE, "a folder") from error
        raise PhotoError(name, NO_PERMISSION) from error
    except ValueError as error:  # a null character in the path
        raise PhotoError(name, MISSING, str(error)) from error
    except OSError as error:
        reason = _REASON_OF_ERRNO.get(error.errno or 0, CANNOT_BE_READ)
        raise PhotoError(name, reason, error.strerror or str(error)) from error
    if not data:
        raise PhotoError(name, EMPTY_FILE)
    return data


_REASON_OF_ERRNO = {
    errno.ENOTDIR: MISSING,
    errno.ELOOP: MISSING,
    errno.ENAMETOOLONG: MISSING,
    errno.ENXIO: NOT_A_FILE,
}


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking on a named pipe that has no writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
