"""Finding photos on disk and decoding them into upright RGB images.

What a file is comes from its first bytes, never from its name. A photo that
cannot be used raises :class:`~face2vec.errors.PhotoError` with one of
:data:`REASONS`; no photo is ever decoded in part. ICC profiles are ignored:
the networks were trained on pixels as they are stored.

Everything here may be called from several threads at once.
"""

# A folder may hold a million files, and paths as strings are several times as fast as Path
# objects, which is why this module uses os.path; a block of words is how a list of suffixes reads.
# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH116, PTH118, PTH122, PTH123, SIM905

from __future__ import annotations

import errno
import fnmatch
import io
import os
import re
import stat
import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from face2vec.errors import PhotoError, SettingsError
from face2vec.records import Photo

PhotoLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

MISSING = "missing"  # no file of that name, or a link that leads nowhere
NO_PERMISSION = "no permission"
NOT_A_FILE = "not a regular file"  # a folder, a pipe, a device
CANNOT_BE_READ = "cannot be read"  # the system gave another error, told in the detail
EMPTY_FILE = "empty file"
TOO_MANY_BYTES = "too many bytes"
NOT_A_PHOTO = "not a photo"  # the first bytes are of none of the formats
TRUNCATED = "truncated"
DAMAGED = "damaged"  # the decoder failed in another way
TOO_MANY_PIXELS = "too many pixels"
CHANGED = "changed while in use"  # the second decode has another size than the first

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
    CHANGED,
)
"""Every ``reason`` that a :class:`~face2vec.errors.PhotoError` of this module can have."""

MAX_PIXELS = 200_000_000
MAX_BYTES = 1 << 30
HEAD_BYTES = 256  # enough for every signature and the brands of a HEIC or AVIF file

PHOTO_SUFFIXES = frozenset(
    "jpg jpeg jpe jfif pjpeg mpo png apng webp avif avifs heic heics heif heifs hif "
    "tif tiff gif bmp dib".split()
)
"""Suffixes taken without opening the file when a folder is searched."""

OTHER_SUFFIXES = frozenset(
    # documents, data and programs
    "txt md rst html htm xml json jsonl ndjson yaml yml toml csv tsv log pdf doc docx xls xlsx "
    "ppt pptx odt ods odp rtf py pyc ipynb js css sh bat exe dll so dylib ini cfg conf db lock "
    "sqlite sqlite3 sqlite-wal sqlite-shm sqlite-journal faiss npy npz h5 onnx pt pkl url lnk "
    "torrent part crdownload tmp bak "
    # what cameras, phones and photo programs put beside photos
    "xmp aae thm pp3 dop cos lrcat lrdata photoslibrary ithmb "
    # films and sound
    "mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp mts m2ts vob mp3 m4a wav flac aac ogg opus "
    # archives
    "zip rar 7z tar gz tgz bz2 xz zst iso dmg "
    # pictures that are not read: raw camera data (much of it begins like a TIFF file), drawings
    "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw raw x3f 3fr iiq erf mrw "
    "psd psb xcf ai eps ps svg svgz ico icns cur jp2 j2k jpx jxl exr hdr tga pcx ppm pgm "
    "pbm".split()
)
"""Suffixes passed over without opening the file when a folder is searched."""

# A corrupt tag in a TIFF file or a broken animation in a PNG file is no news for the person who
# indexes a folder, and `warnings.catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Png|Tiff)ImagePlugin")


# --- Finding ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A file that is taken for a photo.

    Attributes:
        root: absolute path, links resolved, of the folder it was found from.
        path: its path relative to ``root``.
    """

    root: Path
    path: Path

    @property
    def full(self) -> Path:
        """The absolute path."""
        return self.root / self.path


def find_photos(sources: Iterable[str | os.PathLike[str]]) -> Iterator[FoundPhoto]:
    """Find the photos that the sources name, in a fixed order, each real file once.

    A source is one of

    - a folder, searched with all its subfolders in the order of the names. Names that begin with
      a dot are passed over. A file is taken when its suffix is one of :data:`PHOTO_SUFFIXES`,
      passed over when it is one of :data:`OTHER_SUFFIXES`, and otherwise taken when its first
      bytes are a photo's. Links are followed; a link to something inside the same folder is left
      to the thing's own name, so that adding a link renames nothing. A subfolder that may not be
      read is yielded itself, so that reading it records the reason.
    - a file, taken whatever it is; its root is its folder.
    - a glob pattern (``*``, ``?``, ``[…]``, ``**`` for any depth), where no path has that very
      name; what it matches is treated like the contents of a folder, and its root is the last
      folder before the first wildcard. ``**`` does not follow links to folders.
    - ``@list.txt``: a UTF-8 text file with one file or folder a line, relative to the list's own
      folder. Blank lines and lines that begin with ``#`` are passed over. A listed file is taken
      whatever it is, even when it is missing; its root is the list's folder when it is inside it.
    - ``-``: such a list on standard input, relative to the working directory.

    Args:
        sources: the sources, in the order in which to search them.

    Returns:
        An iterator over the photos.

    Raises:
        SettingsError: a source does not exist, cannot be listed, or is a pattern that matches
            nothing. All sources are checked before this function returns.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    return _distinct([_search(os.fspath(source)) for source in sources])


_Found = tuple[str, str, str]  # root, path relative to it, real path


def _distinct(searches: Sequence[Iterator[_Found]]) -> Iterator[FoundPhoto]:
    seen: set[str] = set()
    roots: dict[str, Path] = {}
    for search in searches:
        for root, relative, real in search:
            if real not in seen:
                seen.add(real)
                if root not in roots:
                    roots[root] = Path(root)
                yield FoundPhoto(roots[root], Path(relative))


def _search(source: str) -> Iterator[_Found]:
    """Check one source and return the search that it asks for."""
    if source == "-":
        return _listed(_standard_input(), Path.cwd())
    if source.startswith("@"):
        return _listed(*_list_file(source))
    if os.path.isdir(source):
        _check_listable(source)
        return _walk(os.path.realpath(source))
    if os.path.exists(source):
        return iter([_single(source)])
    if _is_pattern(source):
        root, parts = _split_pattern(source)
        if next(_matching(root, parts), None) is None:
            raise SettingsError(f"no file matches the pattern {source!r}")
        return _globbed(root, parts)
    raise SettingsError(
        f"{source!r} does not exist (looked in {str(Path.cwd())!r}); give a folder, a file, "
        "a glob pattern, @LIST for a text file of paths, or - for paths on standard input"
    )


def _check_listable(folder: str) -> None:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise SettingsError(f"the folder {folder!r} cannot be listed: {error.strerror}") from error


def _single(path: str) -> _Found:
    folder, name = os.path.split(path)
    root = os.path.realpath(folder)
    return root, name, os.path.realpath(path)


def _walk(root: str, start: str = "") -> Iterator[_Found]:
    """Search a folder and its subfolders, names in sorted order.

    Args:
        root: absolute real path of the root.
        start: the folder to search, relative to ``root``.
    """
    top = os.path.realpath(os.path.join(root, start))
    first = _sorted_entries(top)
    if first is None:
        yield root, start, top
        return
    visited = {_identity(top)}
    # An own stack: a tree may be deeper than Python's recursion limit.
    stack = [(first, start, top)]
    while stack:
        entries, folder, real_folder = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name = entry.name
        if name.startswith("."):
            continue
        relative = os.path.join(folder, name)
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            is_folder, is_file = os.path.isdir(real), os.path.isfile(real)
            if (is_folder or is_file) and _has_own_name(real, top, is_folder):
                continue
            if not os.path.exists(real):  # a broken link that claims to be a photo is recorded
                is_file = _suffix(name) in PHOTO_SUFFIXES
        else:
            real = os.path.join(real_folder, name)
            is_folder, is_file = entry.is_dir(), entry.is_file()
        if is_folder:
            below = _sorted_entries(entry.path)
            if below is None:
                yield root, relative, real
                continue
            identity = _identity(entry.path)
            if identity not in visited:
                visited.add(identity)
                stack.append((below, relative, real))
        elif is_file and _may_be_photo(name, entry.path):
            yield root, relative, real


def _identity(folder: str) -> tuple[int, int]:
    """Tell a folder from every other, also where a mount shows it under a second name."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _sorted_entries(folder: str) -> Iterator[os.DirEntry[str]] | None:
    """Entries of a folder by name, or None where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))
    except OSError:
        return None


def _has_own_name(real: str, top: str, is_folder: bool) -> bool:
    """Whether the walk of ``top`` comes to a link's target under the target's own name."""
    if real != top and not real.startswith(os.path.join(top, "")):
        return False
    parts = Path(real[len(top) :]).parts
    if any(part.startswith(".") for part in parts):
        return False
    return is_folder or _suffix(real) not in OTHER_SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _may_be_photo(name: str, path: str) -> bool:
    suffix = _suffix(name)
    if suffix in PHOTO_SUFFIXES:
        return True
    if suffix in OTHER_SUFFIXES or not os.path.isfile(path):  # to open a pipe would wait for ever
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            return photo_format(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


_WILDCARD = re.compile(r"[*?[]")


def _is_pattern(source: str) -> bool:
    return _WILDCARD.search(source) is not None


def _split_pattern(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Split a pattern into the real folder before its first wildcard and the parts after it."""
    parts = Path(pattern).parts
    folder = ""
    for n, part in enumerate(parts):
        below = os.path.join(folder, part)
        if _is_pattern(part) and not os.path.lexists(below):
            return os.path.realpath(folder), parts[n:]
        folder = below
    return os.path.realpath(folder), ()


def _matching(root: str, parts: tuple[str, ...], folder: str = "") -> Iterator[str]:
    """Paths relative to ``root`` that match the parts of a pattern, names in sorted order."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    path = os.path.join(root, folder)
    if part == "**":
        yield from _matching(root, rest, folder)
        for entry in _sorted_entries(path) or ():
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _matching(root, parts, os.path.join(folder, entry.name))
    elif os.path.lexists(os.path.join(path, part)):  # also a name that merely holds a wildcard
        yield from _matching(root, rest, os.path.join(folder, part))
    elif _is_pattern(part):
        names = [entry.name for entry in _sorted_entries(path) or ()]
        for name in fnmatch.filter(names, part):
            if part.startswith(".") or not name.startswith("."):
                yield from _matching(root, rest, os.path.join(folder, name))


def _globbed(root: str, parts: tuple[str, ...]) -> Iterator[_Found]:
    real_folder = lru_cache(os.path.realpath)
    for relative in _matching(root, parts):
        path = os.path.join(root, relative)
        if os.path.isdir(path):
            yield from _walk(root, relative)
        elif _may_be_photo(relative, path):
            folder, name = os.path.split(path)
            yield root, relative, _real_path(real_folder(folder), name)


def _real_path(real_folder: str, name: str) -> str:
    """Resolve one name in a folder that is resolved already."""
    path = os.path.join(real_folder, name)
    return os.path.realpath(path) if os.path.islink(path) else path


def _list_file(source: str) -> tuple[list[str], Path]:
    path = Path(source[1:])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the list {source!r} cannot be read: {error.strerror}") from error
    return _lines(content), path.parent


def _standard_input() -> list[str]:
    buffer = getattr(sys.stdin, "buffer", None)
    content = sys.stdin.read() if buffer is None else buffer.read()
    return _lines(content.encode() if isinstance(content, str) else content)


def _lines(content: bytes) -> list[str]:
    # Not str.splitlines: a name may hold U+2028. Not strict: a name may be no UTF-8 at all.
    text = content.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _listed(lines: list[str], base: Path) -> Iterator[_Found]:
    top = os.path.realpath(base)
    below_top = os.path.join(top, "")

    @lru_cache
    def root_and_rest(folder: str) -> tuple[str, str, str]:
        real = os.path.realpath(folder)
        if real != top and not real.startswith(below_top):
            return real, real, ""
        return real, top, real[len(below_top) :]

    for line in lines:
        path = os.path.join(top, line)
        if os.path.isdir(path):
            yield from _walk(os.path.realpath(path))
        else:
            folder, name = os.path.split(path)
            real_folder, root, rest = root_and_rest(folder)
            yield root, os.path.join(rest, name), _real_path(real_folder, name)


# --- Reading ---------------------------------------------------------------------------------


def photo_format(head: bytes) -> str | None:
    """Tell a photo's format from its first bytes (:data:`HEAD_BYTES` are enough).

    Returns:
        ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"AVIF"``, ``"HEIC"``, ``"TIFF"``, ``"GIF"``,
        ``"BMP"``, or None for anything else.
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
        return None if head[8:10] == b"CR" else "TIFF"  # Canon's raw files say CR
    if head.startswith(b"BM") and head[15:18] == b"\0\0\0" and head[14] in _BMP_HEADER_SIZES:
        return "BMP"  # two letters alone would take any text that begins with BM
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[n : n + 4] for n in range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if head[8:12] in _HEIC_BRANDS or (head[8:12] in _ANY_HEIF and brands & _HEIC_BRANDS):
            return "HEIC"
    return None


_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_ANY_HEIF = {b"mif1", b"msf1", b"mif2"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def read_photo_bytes(
    path: str | os.PathLike[str], *, name: str | None = None, max_bytes: int = MAX_BYTES
) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        name: what to call it in an error; the path when None.
        max_bytes: the largest size to read.

    Returns:
        Its bytes, at least one.

    Raises:
        PhotoError: it is missing, not a regular file, empty, too large, or cannot be read.
    """
    name = os.fspath(path) if name is None else name
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
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
        if os.path.isdir(path) and os.access(path, os.R_OK):  # Windows says so of every folder
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


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe that nobody writes to must not stop a build."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- Decoding --------------------------------------------------------------------------------


def open_photo(
    source: PhotoLike,
    *,
    name: str | None = None,
    max_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """Decode a photo and turn it upright.

    EXIF orientation is applied; every mode becomes 8-bit RGB: 16-bit and float grey is scaled,
    transparency is laid on white, and of several frames or pages the first is taken.

    Args:
        source: a path, the bytes of a file, a PIL image, or an RGB uint8 array (height, width, 3).
            An array is taken as it is, without a copy where none is needed.
        name: what to call the photo; the path, ``"<bytes>"``, ``"<image>"`` or ``"<array>"``
            when None.
        max_side: where the longer side has more pixels than this, the image is made smaller so
            that it has exactly as many. Large JPEGs are then decoded at a reduced scale.
        max_pixels: photos with more pixels are refused before they are decoded.

    Returns:
        The photo. Its image may be read-only.

    Raises:
        PhotoError: the photo cannot be used; its ``reason`` is one of :data:`REASONS`.
        SettingsError: the source is no kind of photo, an array has the wrong type or shape, or
            a limit is less than one.
    """
    for setting, value in (("max_side", max_side), ("max_pixels", max_pixels)):
        if value is not None and value < 1:
            raise SettingsError(f"{setting} is {value}; it must be at least 1")
    if isinstance(source, np.ndarray):
        name = "<array>" if name is None else name
        decoded = _from_array(name, source, max_side, max_pixels)
    elif isinstance(source, Image.Image):
        name = "<image>" if name is None else name
        decoded = _from_image(name, source, max_side, max_pixels)
    elif isinstance(source, bytes):
        name = "<bytes>" if name is None else name
        decoded = _from_bytes(name, source, max_side, max_pixels)
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source) if name is None else name
        data = read_photo_bytes(source, name=name)
        decoded = _from_bytes(name, data, max_side, max_pixels)
    else:
        raise SettingsError(
            f"a photo is a path, bytes, a PIL image or an RGB array, not {type(source).__name__}"
        )
    return Photo(
        name, decoded.image, decoded.width, decoded.height, scale=decoded.scale, source=source
    )


def full_resolution(photo: Photo) -> Photo:
    """Decode a photo again from its source at scale 1; one that is at scale 1 is returned itself.

    Raises:
        PhotoError: the source cannot be read any more, or is another photo now.
        SettingsError: the photo keeps no source.
    """
    if photo.scale == 1:
        return photo
    if photo.source is None:
        raise SettingsError(f"{photo.name} keeps no source to decode at full resolution")
    limit = max(MAX_PIXELS, photo.width * photo.height)
    full = open_photo(photo.source, name=photo.name, max_pixels=limit)
    if (full.width, full.height) != (photo.width, photo.height):
        raise PhotoError(
            photo.name,
            CHANGED,
            f"it had {photo.width}×{photo.height} pixels and has {full.width}×{full.height} now",
        )
    return full


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An upright image, and the size of the whole upright photo."""

    image: NDArray[np.uint8]
    width: int
    height: int
    scale: float


def _from_array(name: str, array: NDArray[Any], max_side: int | None, max_pixels: int) -> _Decoded:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise SettingsError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; an image is uint8 of shape "
            "(height, width, 3), RGB. Grey (height, width) and RGBA arrays are not taken: "
            "convert them first, grey with np.stack([grey] * 3, axis=-1)"
        )
    height, width = array.shape[:2]
    _check_pixels(name, (width, height), max_pixels)
    if max_side is None or max(width, height) <= max_side:
        return _Decoded(np.ascontiguousarray(array), width, height, 1.0)
    return _finish(Image.fromarray(array), max_side)


def _from_image(name: str, image: Image.Image, max_side: int | None, max_pixels: int) -> _Decoded:
    _check_pixels(name, image.size, max_pixels)
    if 0 in image.size:
        raise PhotoError(name, DAMAGED, "the image has no pixels")
    try:
        return _finish(image, max_side)
    except MemoryError:
        raise
    except Exception as error:  # see _from_bytes
        reason = TRUNCATED if _says_truncated(error) else DAMAGED
        raise PhotoError(name, reason, _words(error)) from error


def _from_bytes(name: str, data: bytes, max_side: int | None, max_pixels: int) -> _Decoded:
    if not data:
        raise PhotoError(name, EMPTY_FILE)
    kind = photo_format(data[:HEAD_BYTES])
    if kind is None:
        raise PhotoError(name, NOT_A_PHOTO)
    if kind in ("HEIC", "AVIF") and _boxes_go_on(data):
        raise PhotoError(name, TRUNCATED)  # libheif would leave out the tiles that it cannot read
    try:
        return _decode(name, kind, data, max_side, max_pixels)
    except (MemoryError, PhotoError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, inside some decoders
        raise PhotoError(name, TOO_MANY_PIXELS, _words(error)) from error
    # On a damaged file the decoders raise nearly anything: OSError, SyntaxError, ValueError,
    # TypeError, KeyError, OverflowError, RuntimeError, struct.error, zlib.error, …
    except Exception as error:
        failure = error
    bare = _without_metadata(kind, data)
    if bare is not None and bare != data:
        try:
            return _decode(name, kind, bare, max_side, max_pixels)
        except MemoryError:
            raise
        except Exception as error:
            # What is told is the first failure: that is the file as the user has it.
            failure.add_note(f"and without its metadata: {_words(error)}")
    reason = TRUNCATED if _is_truncated(kind, data, failure) else DAMAGED
    raise PhotoError(name, reason, _words(failure)) from failure


def _words(error: Exception) -> str:
    """Tell an error in one short line, without the address of the buffer it was read from."""
    text = re.sub(r"\s*<_io\.\w+ object at 0x\w+>", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def _check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PhotoError(
            name,
            TOO_MANY_PIXELS,
            f"{width}×{height} is more than {max_pixels:,}; raise max_pixels to take it",
        )


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose EXIF block is not parsed while it is opened.

    Pillow looks there for a resolution in dots an inch, which takes time, warns about
    damage, and on some damage fails.
    """

    def _read_dpi_from_exif(self) -> None:
        return


# The decoders are called by name: Image.open tries one after the other, and compares sizes with
# a limit that belongs to the whole process.
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}


def _decode(name: str, kind: str, data: bytes, max_side: int | None, max_pixels: int) -> _Decoded:
    if kind == "HEIC":
        import pillow_heif

        decoder: type[ImageFile.ImageFile] = pillow_heif.HeifImageFile
    else:
        decoder = _DECODERS[kind]
    image = decoder(io.BytesIO(data))
    _check_pixels(name, image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _make_room(image)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and max_side is not None:
        full_size = image.size
        return _finish(image, max_side, full_size, _draft(image, max_side))
    return _finish(image, max_side)


def _make_room(image: TiffImagePlugin.TiffImageFile) -> None:
    """Give a large TIFF file its memory here, where the caller's limit has been checked.

    Pillow's decoder would compare it with the limit of the whole process and warn.
    """
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        turned = image.tag_v2.get(_ORIENTATION_TAG) in (5, 6, 7, 8)
        image.im = Image.new(image.mode, (height, width) if turned else (width, height)).im


def _draft(
    image: JpegImagePlugin.JpegImageFile, max_side: int
) -> tuple[float, float, float, float] | None:
    """Let the decoder skip detail: the smallest scale whose longer side is ≥ ``max_side``.

    Returns:
        Where the photo lies in the decoded image, whose last row and column may be partial.
    """
    width, height = image.size
    for divisor in (8, 4, 2):
        if -(-max(width, height) // divisor) >= max_side:
            drafted = image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
            return None if drafted is None else drafted[1]
    return None


def _finish(
    image: Image.Image,
    max_side: int | None,
    full_size: tuple[int, int] | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> _Decoded:
    """Load, flatten, shrink and turn an image.

    Args:
        image: any PIL image, loaded or not.
        max_side: most pixels that the longer side may have.
        full_size: width and height of the whole photo as it is stored; the image's when None.
        box: where the photo lies in the image; all of it when None.
    """
    image.load()
    full_width, full_height = full_size or image.size
    flat = _flatten(image)
    scale = 1.0
    if max_side is not None and max(full_width, full_height) > max_side:
        scale = max_side / max(full_width, full_height)
        size = max(1, round(full_width * scale)), max(1, round(full_height * scale))
        flat = flat.resize(size, Image.Resampling.HAMMING, box=box, reducing_gap=3.0)
    # TIFF and HEIC have been turned by their decoders, which also took the tag away.
    orientation = _orientation(image.info.get("exif"))
    if orientation != 1:
        flat = flat.transpose(_TURNS[orientation])
    if orientation >= 5:
        full_width, full_height = full_height, full_width
    if flat.mode != "RGB":
        flat = flat.convert("RGB")
    return _Decoded(np.asarray(flat), full_width, full_height, scale)


_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(exif: object) -> int:
    """Orientation 1…8 from an EXIF block (EXIF 2.32, 4.6.4); 1 where it cannot be told.

    Read here and not with Pillow's ``getexif``, which warns about damage anywhere in the block.
    """
    if not isinstance(exif, bytes):
        return 1
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order: Any = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    for n in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        if int.from_bytes(exif[n : n + 2], order) == _ORIENTATION_TAG:
            width = {3: 2, 4: 4}.get(int.from_bytes(exif[n + 2 : n + 4], order), 0)
            value = int.from_bytes(exif[n + 8 : n + 8 + width], order)
            return value if value in _TURNS else 1
    return 1


def _flatten(image: Image.Image) -> Image.Image:
    """Convert to mode "L" or "RGB", transparency laid on white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # has no direct way to RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey of more than eight bits to 0…255.

    16-bit grey runs from 0 to 65535. Floats and 32-bit integers do not say what white is: the
    smallest of 1 (floats only), 255 and 65535 that holds all values; where none does, or values
    are negative, the lowest becomes black and the highest white. NaN becomes black.
    """
    if grey.dtype.kind == "u":
        return np.rint(grey / 257).astype(np.uint8)
    finite = grey[np.isfinite(grey)]
    if finite.size == 0:
        return np.zeros(grey.shape, np.uint8)
    low, high = float(finite.min()), float(finite.max())
    whites = (1.0, 255.0, 65535.0) if grey.dtype.kind == "f" else (255.0, 65535.0)
    if low >= 0 and high <= whites[-1]:
        low, high = 0.0, next(white for white in whites if high <= white)
    values = np.nan_to_num(grey.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


# --- Damage ----------------------------------------------------------------------------------


def _without_metadata(kind: str, data: bytes) -> bytes | None:
    """Copy the file without the metadata on which its decoder may have failed.

    Returns:
        The copy, or None where the format needs none or the file cannot be taken apart.
    """
    if kind == "JPEG":
        return _bare_jpeg(data)
    if kind == "PNG":
        return _bare_png(data)
    if kind == "AVIF":  # call the EXIF item something else, and the decoder passes over it
        return re.sub(rb"(infe.{8})Exif", rb"\1free", data, flags=re.DOTALL)
    return None


def _bare_jpeg(data: bytes) -> bytes | None:
    """Copy a JPEG file with no application segments but JFIF, EXIF and Adobe."""
    kept = [data[:2]]
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan: the pixels follow
            kept.append(data[at:])
            return b"".join(kept)
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at:end]
        is_metadata = 0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)
        if not is_metadata or segment[4:10] == b"Exif\0\0":
            kept.append(segment)
        at = end
    return None


def _bare_png(data: bytes) -> bytes:
    """Copy a PNG file's chunks that hold pixels, and EXIF where its checksum is right."""
    kept = [data[:8]]
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND") or (
            kind == b"eXIf" and zlib.crc32(data[at + 4 : end - 4]) == checksum
        ):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _says_truncated(failure: Exception) -> bool:
    words = str(failure).lower()
    return "truncated" in words or "end of file" in words


def _is_truncated(kind: str, data: bytes, failure: Exception) -> bool:
    """Whether a file that failed to decode ends before its container says."""
    if _says_truncated(failure):
        return True
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "PNG":
        return b"IEND" not in data
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if kind == "TIFF":
        return _tiff_goes_on(data)
    return b"meta" not in data or b"mdat" not in data  # _from_bytes has looked at their ends


def _boxes_go_on(data: bytes) -> bool:
    """Whether a box of a HEIC or AVIF file ends after the file (ISO 14496-12, 4.2).

    Only the boxes that hold the photo count: what some phones append is no box at all.
    """
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0 is a last box without a length, the others mean nothing
            return False
        if at + size > len(data):
            return data[at + 4 : at + 8] in (b"ftyp", b"meta", b"moov", b"mdat")
        at += size
    return False


def _tiff_goes_on(data: bytes) -> bool:
    """Whether the first directory of a TIFF file, or what it names, ends after the file."""
    order: Any = "little" if data[:2] == b"II" else "big"

    def number(at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], order)

    # A directory is a number of entries, then entries of tag, type, count, and value or offset.
    big = number(2, 2) == 43
    pointer, entries = (8, 8) if big else (4, 2)
    start = number(pointer, pointer)
    first, step = start + entries, 4 + 2 * pointer
    end = first + step * number(start, entries)
    if end + pointer > len(data):
        return True
    values: dict[int, list[int]] = {}
    for entry in range(first, end, step):
        tag, count = number(entry, 2), number(entry + 4, pointer)
        width = _TIFF_WIDTHS.get(number(entry + 2, 2), 1)
        at = entry + 4 + pointer
        if width * count > pointer:
            at = number(at, pointer)
        if at + width * count > len(data):
            return True
        if tag in (273, 279, 324, 325):  # offsets and sizes of strips, of tiles
            values[tag] = [number(n, width) for n in range(at, at + width * count, width)]
    return any(
        offset + size > len(data)
        for offsets, sizes in ((273, 279), (324, 325))
        for offset, size in zip(values.get(offsets, []), values.get(sizes, []), strict=False)
    )


_TIFF_WIDTHS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
