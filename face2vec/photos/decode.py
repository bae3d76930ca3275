"""Decoding photos into upright RGB images.

What a file is comes from its first bytes, never from its name. A photo that
cannot be used raises :class:`~face2vec.errors.PhotoError` with one of
:data:`~face2vec.photos.formats.REASONS`; no photo is ever decoded in part. ICC profiles are
ignored: the networks were trained on pixels as they are stored.

Everything here may be called from several threads at once.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from dataclasses import dataclass
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
from face2vec.photos.damage import boxes_go_on, is_truncated, says_truncated, without_metadata
from face2vec.photos.formats import (
    CHANGED,
    DAMAGED,
    EMPTY_FILE,
    HEAD_BYTES,
    NOT_A_PHOTO,
    TOO_MANY_PIXELS,
    TRUNCATED,
    photo_format,
    read_photo_bytes,
)
from face2vec.types import Photo

PhotoLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]

MAX_PIXELS = 200_000_000

# A corrupt tag in a TIFF file or a broken animation in a PNG file is no news for the person who
# indexes a folder, and `warnings.catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Png|Tiff)ImagePlugin")


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
        PhotoError: the photo cannot be used; its ``reason`` is one of
            :data:`~face2vec.photos.formats.REASONS`.
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
        reason = TRUNCATED if says_truncated(error) else DAMAGED
        raise PhotoError(name, reason, _words(error)) from error


def _from_bytes(name: str, data: bytes, max_side: int | None, max_pixels: int) -> _Decoded:
    if not data:
        raise PhotoError(name, EMPTY_FILE)
    kind = photo_format(data[:HEAD_BYTES])
    if kind is None:
        raise PhotoError(name, NOT_A_PHOTO)
    if kind in ("HEIC", "AVIF") and boxes_go_on(data):
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
    bare = without_metadata(kind, data)
    if bare is not None and bare != data:
        try:
            return _decode(name, kind, bare, max_side, max_pixels)
        except MemoryError:
            raise
        except Exception as error:
            # What is told is the first failure: that is the file as the user has it.
            failure.add_note(f"and without its metadata: {_words(error)}")
    reason = TRUNCATED if is_truncated(kind, data, failure) else DAMAGED
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
