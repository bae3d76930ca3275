"""Detection of photo formats from first bytes, and the reasons why a photo cannot be used."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from face2vec.errors import PhotoError, SettingsError
from face2vec.files import expanded
from face2vec.photos.storage import is_regular, opened, status_of_open

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
NEEDS_VIDEO = "needs face2vec[video]"
IS_VIDEO = "a video, not a photo"  # where only a photo will do, or by the name of a photo
NOT_A_VIDEO = "not a video"  # the name is that of a video, the content of nothing known
NO_VIDEO_STREAM = "no video stream"  # sound only
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
    NEEDS_VIDEO,
    IS_VIDEO,
    NOT_A_VIDEO,
    NO_VIDEO_STREAM,
    CHANGED,
)
"""All values of ``reason`` of a :class:`~face2vec.errors.PhotoError`."""

MAX_BYTES = 1 << 30
HEAD_BYTES = 256  # enough for all signatures and the brands of a HEIC or AVIF file


def photo_format(head: bytes) -> str | None:
    """Detect a photo's format from its first bytes; :data:`HEAD_BYTES` are enough.

    Returns:
        ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"AVIF"``, ``"HEIC"``, ``"TIFF"``, ``"GIF"``,
        ``"BMP"``, ``"JXL"``, ``"RAW"`` for files of cameras that do not begin as TIFF files do,
        ``"VIDEO"`` for a video of any format, or None for any other content. Other raw files are
        ``"TIFF"`` by their first bytes.
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
        is_video = head[8:12] in _VIDEO_BRANDS or head[8:11] in _VIDEO_FAMILIES
        return "VIDEO" if is_video else None
    return "VIDEO" if video_container(head) else None


def video_container(head: bytes) -> str | None:
    """FFmpeg's name of the container of a video, by the first bytes of the file.

    A file of the MP4 family may also be a photo, or hold sound alone.

    Args:
        head: the first :data:`HEAD_BYTES` of the file.

    Returns:
        The name of a reader, such as ``"mov"``, or None for any other content.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    for start, name in _VIDEO_SIGNATURES.items():
        if head.startswith(start):
            return name
    packets = head[0:1] + head[188:189], head[4:5] + head[196:197]
    return "mpegts" if b"GG" in packets else None


_VIDEO_SIGNATURES = {
    b"\x1aE\xdf\xa3": "matroska",  # WebM, too
    b"0&\xb2u\x8ef\xcf\x11": "asf",  # WMV
    b"FLV\x01": "flv",
    b"\0\0\x01\xba": "mpeg",
    b"\0\0\x01\xb3": "mpegvideo",
}
# Of the MP4 family; brands for sound alone are not among these.
_VIDEO_BRANDS = {
    *(b"isom", b"avc1", b"qt  ", b"mmp4", b"MSNV", b"dash", b"XAVC", b"M4V ", b"M4VH", b"M4VP"),
    *(b"F4V ", b"f4v "),
}
_VIDEO_FAMILIES = {b"iso", b"mp4", b"mp7", b"3gp", b"3g2"}

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
        path: the file, or the address of an object; ``~`` at its start is the home folder.
        name: name of the photo in errors; the path if None.
        max_bytes: size limit.

    Returns:
        The content, at least one byte.

    Raises:
        PhotoError: the file is missing, not a regular file, empty, too large, or unreadable.
    """
    name = os.fspath(path) if name is None else name
    with _as_photo_errors(path, name), open_file(path, name) as file:
        size = status_of_open(file).size
        if size > max_bytes:
            raise PhotoError(name, TOO_MANY_BYTES, f"{size:,} of at most {max_bytes:,}")
        data = file.read()
    if not data:
        raise PhotoError(name, EMPTY_FILE)
    return data


def file_sha256(path: str | os.PathLike[str], *, name: str | None = None) -> bytes:
    """The SHA-256 of a file of any size, 32 bytes.

    Args:
        path: the file, or the address of an object; ``~`` at its start is the home folder.
        name: name of the file in errors; the path if None.

    Raises:
        PhotoError: the file is missing, not a regular file, empty, or unreadable.
    """
    name = os.fspath(path) if name is None else name
    with _as_photo_errors(path, name), open_file(path, name) as file:
        if not status_of_open(file).size:
            raise PhotoError(name, EMPTY_FILE)
        return hashlib.file_digest(file, "sha256").digest()


def open_file(path: str | os.PathLike[str], name: str) -> io.BufferedReader:
    """A regular file or an object, open for reading.

    Args:
        path: the file, or the address of an object; ``~`` at its start is the home folder.
        name: name of the file in errors.

    Raises:
        PhotoError: the file is missing, not a regular file, or cannot be opened.
    """
    with _as_photo_errors(path, name):
        file = opened(path)
        if is_regular(file):
            return file
        file.close()
    raise PhotoError(name, NOT_A_FILE)


@contextmanager
def _as_photo_errors(path: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Turn the errors of opening and reading a file into a `PhotoError`."""
    path = expanded(path)
    try:
        yield
    except FileNotFoundError as error:
        raise PhotoError(name, MISSING) from error
    except IsADirectoryError as error:
        raise PhotoError(name, NOT_A_FILE, "a folder") from error
    except PermissionError as error:
        # Windows raises it for any folder. Path.is_dir would raise it again.
        if os.path.isdir(path) and os.access(path, os.R_OK):  # noqa: PTH112
            raise PhotoError(name, NOT_A_FILE, "a folder") from error
        raise PhotoError(name, NO_PERMISSION) from error
    except SettingsError:  # an address that cannot be used
        raise
    except ValueError as error:  # a null character in the path
        raise PhotoError(name, MISSING, str(error)) from error
    except OSError as error:
        reason = _REASON_OF_ERRNO.get(error.errno or 0, CANNOT_BE_READ)
        raise PhotoError(name, reason, error.strerror or str(error)) from error


_REASON_OF_ERRNO = {
    errno.ENOTDIR: MISSING,
    errno.ELOOP: MISSING,
    errno.ENAMETOOLONG: MISSING,
    errno.ENXIO: NOT_A_FILE,
}
