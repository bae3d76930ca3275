"""Decodes photos to upright RGB images.

The format is detected from the first bytes of a file, never from its name. A photo that
cannot be used raises :class:`~face2vec.errors.PhotoError` with one of
:data:`~face2vec.photos.formats.REASONS`. A JPEG file that breaks off is decoded up to there, and
its rest is grey; no other photo is decoded in part. ICC profiles are ignored, because the networks
were trained on stored pixel values.

All functions are safe to use from several threads.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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

from face2vec.arguments import optional_whole, whole
from face2vec.errors import PhotoError, SettingsError
from face2vec.photos import libtiff
from face2vec.photos.damage import (
    JPEG_END,
    JPEG_FILLER,
    boxes_go_on,
    broken_off,
    is_truncated,
    says_truncated,
    scans_of,
    without_metadata,
)
from face2vec.photos.extras import JXL, KINDS, RAW, VIDEO, require
from face2vec.photos.formats import (
    CHANGED,
    DAMAGED,
    EMPTY_FILE,
    HEAD_BYTES,
    IS_VIDEO,
    NOT_A_PHOTO,
    TOO_MANY_PIXELS,
    TRUNCATED,
    photo_format,
    read_photo_bytes,
)
from face2vec.photos.jxl import jxl_image, jxl_size
from face2vec.photos.large import LARGE, taking_turns, wait_if_large
from face2vec.photos.orientation import ORIENTATION_TAG, orientation_of
from face2vec.photos.raw import is_raw, raw_image
from face2vec.photos.source import BMP_READS, SMALL_READS, PhotoSource, refuse_many_scans
from face2vec.photos.sources import PhotoLike, plain
from face2vec.types import Box, Photo

MAX_PIXELS = 200_000_000
BAND_PIXELS = 16_000_000
"""Images with more pixels are converted in bands, each an eighth of this."""
REDUCING_GAP, LARGE_REDUCING_GAP = 3.0, 2.0
"""How much larger than wanted a photo is after its first reduction, by whole numbers. Large photos,
see `large`, are reduced more, so that both fit into a gigabyte; the difference is hardly seen."""

# Warnings about corrupt TIFF tags or broken PNG animations do not help a user who indexes a
# folder, and `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Png|Tiff)ImagePlugin")


def open_photo(
    source: PhotoLike,
    *,
    name: str | None = None,
    max_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    bgr: bool = False,
) -> Photo:
    """Decode a photo and turn it upright.

    The orientation in EXIF is applied, or in XMP if EXIF has none. Every mode is converted to 8-bit
    RGB: 16-bit and float grey is scaled, and transparency is composited on white. Only the first
    frame or page is decoded.

    Args:
        source: a path; the bytes of a file; an open file, a stream or a member of a zip archive
            (`zipfile.Path`), which are read from their start; a PIL image; or an RGB array uint8
            (height, width, 3) of NumPy or of another package. A contiguous array is not copied.
        name: name of the photo; if None, the path or the name of the file, ``"<bytes>"``,
            ``"<stream>"``, ``"<image>"`` or ``"<array>"``.
        max_side: largest number of pixels of the longer side; a larger image is resized to
            exactly this. Large JPEG files are then decoded at a reduced scale.
        max_pixels: photos with more pixels are refused before they are decoded.
        bgr: whether an array has the channels blue, green, red, as OpenCV makes them. An array does
            not tell; with the wrong order, faces are found and their embeddings are wrong.

    Returns:
        The photo. Its image may be read-only.

    Raises:
        PhotoError: the photo cannot be used; its ``reason`` is one of
            :data:`~face2vec.photos.formats.REASONS`.
        SettingsError: the source has an unsupported type, an array has the wrong dtype or shape,
            a limit is less than one, or ``bgr`` is given for something else than an array.
    """
    optional_whole("max_side", max_side, 1)
    whole("max_pixels", max_pixels, 1)
    found, name = plain(source, name)
    if bgr:
        if not isinstance(found, np.ndarray):
            raise SettingsError(f"bgr is for arrays only; {name} states its own order of channels")
        found = found[..., ::-1]
    with taking_turns():
        if isinstance(found, np.ndarray):
            decoded = _from_array(name, found, max_side, max_pixels)
        elif isinstance(found, Image.Image):
            decoded = _from_image(name, found, max_side, max_pixels)
        else:
            data = found if isinstance(found, bytes) else read_photo_bytes(found, name=name)
            decoded = _from_bytes(name, data, max_side, max_pixels)
    return Photo(
        name,
        decoded.image,
        decoded.width,
        decoded.height,
        scale=decoded.scale,
        source=found,
        damage=decoded.damage,
    )


_windows: ContextVar[Sequence[Box] | None] = ContextVar("windows", default=None)
"""Parts of a large photo, in pixels of the upright photo, whose rows are needed; None for all."""


def full_resolution(photo: Photo, windows: Sequence[Box] | None = None) -> Photo:
    """Decode a photo again from its source at scale 1; a photo at scale 1 is returned unchanged.

    Args:
        photo: the photo.
        windows: (left, top, right, bottom) in pixels of the upright photo of all parts that are
            needed. Of a large photo, other rows, or columns if it is stored turned, may be black,
            so that they take no memory. None for the whole photo.

    Raises:
        PhotoError: the source can no longer be read, or now has another size.
        SettingsError: the photo has no source.
    """
    if photo.scale == 1:
        return photo
    if photo.source is None:
        raise SettingsError(f"{photo.name} has no source to decode again at full resolution")
    limit = max(MAX_PIXELS, photo.width * photo.height)
    token = _windows.set(windows)
    try:
        full = open_photo(photo.source, name=photo.name, max_pixels=limit)
    finally:
        _windows.reset(token)
    if (full.width, full.height) != (photo.width, photo.height):
        raise PhotoError(
            photo.name,
            CHANGED,
            f"it had {photo.width}×{photo.height} pixels and has {full.width}×{full.height} now",
        )
    return full


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An upright image, with the size of the upright photo at full resolution."""

    image: NDArray[np.uint8]
    width: int
    height: int
    scale: float
    damage: str = ""


def _from_array(name: str, array: NDArray[Any], max_side: int | None, max_pixels: int) -> _Decoded:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise SettingsError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; an image must be RGB uint8 "
            "(height, width, 3); convert grey (height, width) and RGBA arrays first, for example "
            "grey with np.stack([grey] * 3, axis=-1), and floats of 0 to 1 with "
            "(255 * image).astype(np.uint8)"
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
        reason = TRUNCATED if says_truncated(error) else DAMAGED
        raise PhotoError(name, reason, _one_line(error)) from error


def _from_bytes(name: str, data: bytes, max_side: int | None, max_pixels: int) -> _Decoded:
    if not data:
        raise PhotoError(name, EMPTY_FILE)
    kind = photo_format(data[:HEAD_BYTES])
    if kind is None:
        raise PhotoError(name, NOT_A_PHOTO)
    if kind == VIDEO:
        raise PhotoError(name, IS_VIDEO, "give one of its frames as a photo, or index it")
    if kind in ("HEIC", "AVIF") and boxes_go_on(data):
        raise PhotoError(name, TRUNCATED)  # libheif would omit the tiles that it cannot read
    try:
        return _decode(name, kind, data, max_side, max_pixels)
    except (MemoryError, PhotoError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, inside some decoders
        raise PhotoError(name, TOO_MANY_PIXELS, _one_line(error)) from error
    # Damaged files make decoders raise almost any exception: OSError, SyntaxError, ValueError,
    # TypeError, KeyError, OverflowError, RuntimeError, struct.error, zlib.error, …
    except Exception as error:
        failure = error
    bare = without_metadata(kind, data)
    if bare is not None and bare != data:
        try:
            return _decode(name, kind, bare, max_side, max_pixels)
        except MemoryError:
            raise
        except Exception as error:
            # The first failure is reported, because it concerns the unmodified file.
            failure.add_note(f"and without its metadata: {_one_line(error)}")
    reason = TRUNCATED if is_truncated(kind, data, failure) else DAMAGED
    raise PhotoError(name, reason, _one_line(failure)) from failure


def _one_line(error: Exception) -> str:
    """The message of an error as one short line, without the address of a buffer."""
    text = re.sub(r"\s*<_io\.\w+ object at 0x\w+>", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def _check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PhotoError(
            name,
            TOO_MANY_PIXELS,
            f"{width}×{height} is more than {max_pixels:,}; raise max_pixels, or --max-pixels of "
            "'index', to accept it",
        )
    wait_if_large(width * height)


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG file whose EXIF block is not parsed on opening.

    Pillow parses it only to find a resolution in dots per inch. That takes time, warns about
    damaged blocks, and fails on some of them.
    """

    def _read_dpi_from_exif(self) -> None:
        return


# Decoders are called directly, because Image.open tries them in turn and checks the size against
# a process-wide limit.
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
    if kind == "TIFF" and is_raw(data):
        kind = RAW
    if kind in KINDS:
        require(kind, name)
    if kind == RAW:
        inner = raw_image(data)
        if isinstance(inner, bytes):
            return _decode(name, "JPEG", inner, max_side, max_pixels)
        _check_pixels(name, inner.size, max_pixels)
        return _finish(inner, max_side)
    if kind == JXL:
        _check_pixels(name, jxl_size(data) or (0, 0), max_pixels)
        return _finish(jxl_image(data), max_side)
    if kind == "HEIC":
        import pillow_heif

        decoder: type[ImageFile.ImageFile] = pillow_heif.HeifImageFile
    else:
        decoder = _DECODERS[kind]
    if kind == "TIFF":
        libtiff.redirect()
    if kind == "JPEG":
        refuse_many_scans(data, name)
    kept = broken_off(data) if kind == "JPEG" else None
    if kept is not None:
        return _decode_broken_off(name, kept, max_side, max_pixels)
    return _decoded(
        name,
        decoder(PhotoSource(data, name, BMP_READS if kind == "BMP" else SMALL_READS)),
        max_side,
        max_pixels,
    )


def _decode_broken_off(name: str, data: bytes, max_side: int | None, max_pixels: int) -> _Decoded:
    """Decode a JPEG file that has no end marker.

    libjpeg decodes what is there. Bytes that follow change the image only from where pixels are
    missing; so the image is whole if it does not depend on them.

    Raises:
        PhotoError: no row of the image is there.
    """
    scans, has_all = scans_of(data)
    if not scans:
        raise PhotoError(name, TRUNCATED, "no row of its image is there")
    ends = JPEG_END, JPEG_FILLER + JPEG_END
    one, other = (
        _drafted(name, _JpegFile(PhotoSource(data + end, name)), max_side, max_pixels)
        for end in ends
    )
    rows = np.asarray(one.image), np.asarray(other.image)
    differs = np.flatnonzero((rows[0] != rows[1]).reshape(len(rows[0]), -1).any(axis=1))
    missing = 1 - int(differs[0]) / len(rows[0]) if len(differs) else 0.0
    if scans == 1 and missing == 1:
        raise PhotoError(name, TRUNCATED, "no row of its image is there")
    done = _finish(*one)
    if has_all and not missing:
        return done
    if scans == 1 and missing:
        what = "{}% of its rows are missing"
    else:  # of a progressive file, whose first scan has all rows
        what, missing = "detail is missing in {}% of its rows", missing if has_all else 1.0
    return replace(done, damage=what.format(max(1, round(100 * missing))))


class _Drafted(NamedTuple):
    """The arguments of `_finish`."""

    image: Image.Image
    max_side: int | None
    full_size: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None


def _decoded(
    name: str, image: ImageFile.ImageFile, max_side: int | None, max_pixels: int
) -> _Decoded:
    return _finish(*_drafted(name, image, max_side, max_pixels))


def _drafted(
    name: str, image: ImageFile.ImageFile, max_side: int | None, max_pixels: int
) -> _Drafted:
    """Check the size of an image, and prepare to decode it at the scale that is needed."""
    _check_pixels(name, image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _make_room(image)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and max_side is not None:
        full_size = image.size
        return _Drafted(image, max_side, full_size, _draft(image, max_side))
    return _Drafted(image, max_side)


def _make_room(image: TiffImagePlugin.TiffImageFile) -> None:
    """Allocate the memory of a large TIFF image, after the caller's limit has been checked.

    Otherwise Pillow's decoder compares the size with its process-wide limit and warns.
    """
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        turned = image.tag_v2.get(ORIENTATION_TAG) in (5, 6, 7, 8)
        image.im = Image.new(image.mode, (height, width) if turned else (width, height)).im


def _draft(
    image: JpegImagePlugin.JpegImageFile, max_side: int
) -> tuple[float, float, float, float] | None:
    """Decode at the smallest supported scale whose longer side is at least ``max_side``.

    Returns:
        Box of the photo in the decoded image, whose last row and column may be partial.
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
    """Load, flatten, resize and rotate an image.

    Args:
        image: any PIL image, loaded or not.
        max_side: largest number of pixels of the longer side.
        full_size: width and height of the stored photo; if None, those of the image.
        box: box of the photo in the image; if None, the whole image.
    """
    image.load()
    full_width, full_height = full_size or image.size
    scale, size = 1.0, image.size
    if max_side is not None and max(full_width, full_height) > max_side:
        scale = max_side / max(full_width, full_height)
        size = max(1, round(full_width * scale)), max(1, round(full_height * scale))
    orientation = orientation_of(image.info, image.format)
    if scale != 1:
        if box is None:
            image, box = _flattened(image, size)
        image = _flatten(image)
        gap = _reducing_gap(full_width, full_height)
        image = image.resize(size, Image.Resampling.HAMMING, box=box, reducing_gap=gap)
    if orientation >= 5:
        full_width, full_height = full_height, full_width
    return _Decoded(_upright(image, orientation), full_width, full_height, scale)


def _reducing_gap(width: int, height: int) -> float:
    """By how much an image is larger, after its first reduction, than it is to be."""
    return LARGE_REDUCING_GAP if width * height >= LARGE else REDUCING_GAP


def _upright(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """The pixels of an image as RGB, uint8 (height, width, 3), turned upright."""
    if image.width * image.height <= BAND_PIXELS:
        flat = _flatten(image)
        if orientation != 1:
            flat = flat.transpose(_TURNS[orientation])
        return np.asarray(flat.convert("RGB"))
    shape = (image.height, image.width)
    windows = _windows.get()
    # Pages that are never written take no memory.
    made = np.empty if windows is None else np.zeros
    array = made((*(shape[::-1] if orientation >= 5 else shape), 3), np.uint8)
    needed = _rows_needed(windows, image.height, orientation)
    as_stored = array.swapaxes(0, 1) if orientation >= 5 else array
    if orientation in (3, 4, 6, 7):
        as_stored = as_stored[::-1]
    if orientation in (2, 3, 7, 8):
        as_stored = as_stored[:, ::-1]
    limits = _limits(image) if _is_deep(image) else None
    for top, band in _bands(image):
        if needed[top : top + band.height].any():
            as_stored[top : top + band.height] = np.asarray(_flatten(band, limits).convert("RGB"))
    return array


def _rows_needed(windows: Sequence[Box] | None, height: int, orientation: int) -> NDArray[np.bool_]:
    """Which rows of a stored image are needed for parts of the upright photo, bool (height,)."""
    needed = np.full(height, windows is None)
    for window in windows or ():
        low, high = window[0::2] if orientation >= 5 else window[1::2]
        needed[max(math.floor(low), 0) : max(math.ceil(high), 0) + 1] = True
    return needed[::-1] if orientation in (3, 4, 6, 7) else needed


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _flattened(
    image: Image.Image, size: tuple[int, int]
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Convert to mode "L" or "RGB", with transparency composited on white, band by band.

    If the image is to be reduced much, each band is reduced by a whole number already, as
    `Image.resize` does it before it resamples. So a second image of full size is never needed.

    Args:
        image: an image whose pixels are loaded.
        size: (width, height) in pixels to which it will be resized.

    Returns:
        The image, and the box of it that is to be resized.
    """
    width, height = image.size
    whole = (0.0, 0.0, float(width), float(height))
    if _is_flat(image):
        return image, whole
    if width * height <= BAND_PIXELS:
        return _flatten(image), whole
    factors = [
        max(1, int(full / wanted / _reducing_gap(width, height)))
        for full, wanted in zip(image.size, size, strict=True)
    ]
    across, down = factors
    limits = _limits(image) if _is_deep(image) else None
    reduced: Image.Image | None = None
    for top, band in _bands(image, down):
        flat = _flatten(band, limits)
        if across > 1 or down > 1:
            flat = flat.reduce((across, down))
        if reduced is None:
            reduced = Image.new(flat.mode, (-(-width // across), -(-height // down)))
        reduced.paste(flat, (0, top // down))
    assert reduced is not None
    return reduced, (0.0, 0.0, width / across, height / down)


def _bands(image: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """First row and pixels of each band of rows; all but the last have a multiple of rows."""
    rows = max(1, BAND_PIXELS // 8 // (image.width * multiple)) * multiple
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_flat(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB") and "transparency" not in image.info


def _is_deep(image: Image.Image) -> bool:
    """Whether a sample has more than eight bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _flatten(image: Image.Image, limits: tuple[float, float] | None = None) -> Image.Image:
    """Convert to mode "L" or "RGB", with transparency composited on white.

    Args:
        image: the image, or a band of it.
        limits: see `_eight_bits`; None for those of the image.
    """
    if _is_flat(image):
        return image
    if _is_deep(image):
        return Image.fromarray(_eight_bits(np.asarray(image), limits or _limits(image)))
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow cannot convert it to RGBA directly
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _limits(image: Image.Image) -> tuple[float, float]:
    """The values of black and white in grey of more than eight bits.

    The range of 16-bit grey is 0 to 65535. Floats and 32-bit integers do not define white. It is
    the smallest of 1 (floats only), 255 and 65535 that no value exceeds. If there is none, or if
    values are negative, the lowest value is black and the highest white.
    """
    low, high = math.inf, -math.inf
    whites: tuple[float, ...] = (255.0, 65535.0)
    for _, band in _bands(image):
        grey = np.asarray(band)
        if grey.dtype.kind == "u":
            return 0.0, 65535.0
        if grey.dtype.kind == "f":
            whites = (1.0, 255.0, 65535.0)
        finite = grey[np.isfinite(grey)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:  # no value is finite
        return 0.0, 0.0
    if low >= 0 and high <= whites[-1]:
        return 0.0, next(white for white in whites if high <= white)
    return low, high


def _eight_bits(grey: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale grey of more than eight bits to 0…255. NaN becomes black.

    Args:
        grey: of any shape and any dtype.
        limits: the values that become 0 and 255.
    """
    low, high = limits
    if grey.dtype.kind == "u":
        return np.rint(grey / 257).astype(np.uint8)
    values = np.nan_to_num(grey.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)
