"""`open_photo` and `full_resolution`: orientation, formats, scale, sources, and refused files."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import face2vec
from face2vec.errors import Face2VecError, PhotoError, SettingsError
from face2vec.photos import decode
from face2vec.photos.decode import full_resolution, open_photo
from face2vec.photos.formats import HEAD_BYTES, REASONS, photo_format
from face2vec.types import Photo

# pytest turns warnings into errors before each test. This repeats the filter that
# face2vec.photos.decode sets once for the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL.TiffImagePlugin", "ignore::UserWarning:PIL.PngImagePlugin"
)

RED, GREEN, BLUE, YELLOW = (220, 30, 40), (30, 200, 50), (40, 50, 210), (230, 220, 60)
WHITE = (255, 255, 255)
HEIGHT, WIDTH = 64, 96


def corners(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Red top left, green top right, blue bottom left, yellow bottom right."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = YELLOW
    return image


def smooth(height: int, width: int) -> np.ndarray:
    """An image of slow waves, which JPEG and resizing change little."""
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(9 * x * y + 1)]
    return np.rint(127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(buffer, **{"quality": 95, "chroma": 444, **options})
    else:
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_corners(image: np.ndarray, tolerance: int = 0) -> None:
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    height, width = image.shape[:2]
    for y, x, colour in ((1, 1, RED), (1, 3, GREEN), (3, 1, BLUE), (3, 3, YELLOW)):
        found = image[height * y // 4, width * x // 4].astype(int)
        assert np.abs(found - colour).max() <= tolerance, (y, x, found, colour)


def reason_of(source: object, **options: object) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(source, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "A camera maker with a name too long for the entry itself"
    return block.tobytes()


# The EXIF standard defines for each value which sides row 0 and column 0 of the stored image are:
# value 6, for example, stores the right side as its first row and the top as its first column.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright[::-1].transpose(1, 0, 2),
}


def stored_with(orientation: int, kind: str, image: np.ndarray, **options: object) -> bytes:
    pixels = np.ascontiguousarray(STORED[orientation](image))
    return encoded(pixels, kind, exif=exif(orientation), **options)


# --- Orientation -----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("JPEG", 12), ("PNG", 0), ("WEBP", 12), ("TIFF", 0), ("HEIC", 12), ("AVIF", 12)],
)
def test_open_photo_applies_every_orientation(kind, tolerance, orientation):
    data = stored_with(orientation, kind, corners())
    if kind == "HEIC" and orientation >= 5:
        # The encoder stores the rotation as a property, so the stored pixels are not upright.
        assert b"irot" in data
    photo = open_photo(data)
    assert photo.image.shape == (HEIGHT, WIDTH, 3)
    assert (photo.width, photo.height, photo.scale) == (WIDTH, HEIGHT, 1.0)
    assert_corners(photo.image, tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "HEIC"])
def test_open_photo_applies_orientation_at_reduced_scale(kind, orientation):
    photo = open_photo(stored_with(orientation, kind, corners(400, 600)), max_side=90)
    assert photo.image.shape == (60, 90, 3)
    assert (photo.width, photo.height) == (600, 400)
    assert photo.scale == pytest.approx(0.15)
    assert_corners(photo.image, 12)


def test_open_photo_applies_the_orientation_of_a_compressed_tiff():
    data = stored_with(6, "TIFF", corners(), compression="tiff_lzw")
    assert_corners(open_photo(data).image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_open_photo_applies_the_orientation_of_a_pil_image_once(orientation):
    jpeg = stored_with(orientation, "JPEG", corners())
    with Image.open(io.BytesIO(jpeg)) as image:
        assert_corners(open_photo(image).image, 12)
    tiff = stored_with(orientation, "TIFF", corners())
    with Image.open(io.BytesIO(tiff)) as image:
        photo = open_photo(image)
    assert (photo.width, photo.height) == (WIDTH, HEIGHT)
    assert_corners(photo.image)


def test_open_photo_does_not_change_the_callers_pil_image():
    with Image.open(io.BytesIO(stored_with(6, "JPEG", corners(400, 600)))) as image:
        photo = open_photo(image, max_side=90)
        assert image.size == (400, 600)
        assert image.getexif()[0x0112] == 6
    assert (photo.width, photo.height) == (600, 400)
    assert photo.source is image


def short_entry(tag: int, value: int, kind: int = 3) -> bytes:
    return struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)


@pytest.mark.parametrize(
    ("block", "upright"),
    [
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 6), True),
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 6, kind=4), True),
        (b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 6), True),
        (b"", False),
        (b"nonsense that is no EXIF at all", False),
        (b"II*\0", False),
        (b"II*\0" + struct.pack("<I", 4_000_000_000), False),
        (b"II*\0" + struct.pack("<IH", 8, 60_000) + short_entry(0x0112, 6), True),
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 6)[:9], False),
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 9), False),
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 0), False),
        (b"II*\0" + struct.pack("<IH", 8, 1) + short_entry(0x0112, 6, kind=7), False),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_open_photo_with_broken_exif_keeps_the_pixels(kind, block, upright):
    data = encoded(np.ascontiguousarray(STORED[6](corners())), kind, exif=b"Exif\0\0" + block)
    photo = open_photo(data)
    if upright:
        assert_corners(photo.image, 12)
    else:
        assert photo.image.shape == (WIDTH, HEIGHT, 3)
        assert_corners(np.ascontiguousarray(STORED[8](photo.image)), 12)  # 8 undoes 6


def test_open_photo_with_broken_exif_in_avif_heic_and_tiff_keeps_the_pixels():
    avif = encoded(corners(), "AVIF", exif=exif(1))
    for replacement in (b"XXXX", b"MM\0*\xff\xff\xff\xff"):
        start = avif.rindex(b"MM\0*")
        broken = avif[:start] + replacement + avif[start + len(replacement) :]
        assert_corners(open_photo(broken).image, 12)
    heic = encoded(corners(), "HEIC", exif=exif(1))
    start = heic.rindex(b"MM\0*")
    assert_corners(open_photo(heic[:start] + b"XXXX" + heic[start + 4 :]).image, 12)
    tiff = encoded(corners(), "TIFF", tiffinfo={0x8769: 4_000_000_000})
    assert_corners(open_photo(tiff).image)


def test_open_photo_with_broken_colour_profile_keeps_the_pixels():
    for kind, tolerance in (("JPEG", 12), ("PNG", 0), ("WEBP", 12), ("TIFF", 0), ("AVIF", 12)):
        data = encoded(corners(), kind, icc_profile=b"no profile")
        assert_corners(open_photo(data).image, tolerance)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_open_photo_ignores_broken_png_metadata():
    data = stored_with(6, "PNG", corners())
    at = data.index(b"IDAT") - 4
    too_long = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(3_000_000)))
    wrong_sum = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile"))[:-4] + b"0000"
    broken = data[:at] + too_long + wrong_sum + data[at:]
    with pytest.raises((ValueError, SyntaxError)):
        Image.open(io.BytesIO(broken)).load()
    assert_corners(open_photo(broken).image)


def test_open_photo_ignores_broken_jpeg_metadata():
    data = stored_with(6, "JPEG", corners())
    segment = b"Photoshop 3.0\0" + b"8BIM" + b"\x04\x04"  # ends where a length is expected
    broken = data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(broken))
    assert_corners(open_photo(broken).image, 12)


# --- Formats and modes -----------------------------------------------------------------------


FILES = {
    "jpeg": lambda: encoded(corners(), "JPEG"),
    "jpeg-progressive": lambda: encoded(corners(), "JPEG", progressive=True),
    "png": lambda: encoded(corners(), "PNG"),
    "png-palette": lambda: encoded(Image.fromarray(corners()).quantize(16), "PNG"),
    "apng": lambda: encoded(
        corners(), "PNG", save_all=True, append_images=[Image.fromarray(corners()[::-1].copy())]
    ),
    "webp": lambda: encoded(corners(), "WEBP"),
    "webp-lossless": lambda: encoded(corners(), "WEBP", lossless=True),
    "webp-animated": lambda: encoded(
        corners(), "WEBP", save_all=True, append_images=[Image.fromarray(corners()[::-1].copy())]
    ),
    "avif": lambda: encoded(corners(), "AVIF"),
    "heic": lambda: encoded(corners(), "HEIC"),
    "tiff": lambda: encoded(corners(), "TIFF"),
    "tiff-lzw": lambda: encoded(corners(), "TIFF", compression="tiff_lzw"),
    "tiff-deflate": lambda: encoded(corners(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff-jpeg": lambda: encoded(corners(), "TIFF", compression="jpeg"),
    "tiff-big": lambda: encoded(corners(), "TIFF", big_tiff=True),
    "tiff-pages": lambda: encoded(
        corners(), "TIFF", save_all=True, append_images=[Image.fromarray(corners()[::-1].copy())]
    ),
    "gif": lambda: encoded(corners(), "GIF"),
    "gif-animated": lambda: encoded(
        corners(), "GIF", save_all=True, append_images=[Image.fromarray(corners()[::-1].copy())]
    ),
    "bmp": lambda: encoded(corners(), "BMP"),
}


@pytest.mark.parametrize("kind", FILES)
def test_open_photo_decodes_every_format_to_its_colours(kind):
    data = FILES[kind]()
    assert photo_format(data[:HEAD_BYTES]) == kind.split("-")[0].upper().replace("APNG", "PNG")
    photo = open_photo(data)
    assert photo.image.shape == (HEIGHT, WIDTH, 3)
    assert_corners(photo.image, 12)


def test_open_photo_detects_the_format_from_bytes_not_name(tmp_path):
    path = tmp_path / "really-a.jpg"
    path.write_bytes(encoded(corners(), "PNG"))
    assert_corners(open_photo(path).image)
    path = tmp_path / "really-a-photo.txt"
    path.write_bytes(encoded(corners(), "BMP"))
    assert_corners(open_photo(path).image)


def test_open_photo_decodes_inverted_adobe_cmyk_jpeg():
    data = encoded(Image.fromarray(corners()).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # the inks are stored inverted
    assert_corners(open_photo(data).image, 12)


def test_open_photo_decodes_cmyk_tiff():
    assert_corners(open_photo(encoded(Image.fromarray(corners()).convert("CMYK"), "TIFF")).image, 1)


def test_open_photo_decodes_lab_tiff():
    lab = Image.new("LAB", (8, 8), (136, 209, 195))  # L 53.3, a 81, b 67 is sRGB red
    found = open_photo(encoded(lab, "TIFF")).image[4, 4].astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_open_photo_scales_16_bit_grey(kind):
    grey = np.array([[0, 256, 257, 32768], [65535, 65407, 128, 129]], np.uint16)
    image = open_photo(encoded(Image.fromarray(grey), kind)).image
    assert image[..., 0].tolist() == [[0, 1, 1, 128], [255, 255, 0, 1]]
    assert (image == image[..., :1]).all()


def test_open_photo_scales_big_endian_16_bit_grey():
    values = np.array([[0, 32768, 65535]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert open_photo(image).image[0, :, 1].tolist() == [0, 128, 255]


def test_open_photo_keeps_the_high_byte_of_16_bit_colour():
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = b"\0" + struct.pack(">6H", 0xFFFF, 0x8000, 0x0000, 0x1200, 0x3400, 0x5600)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    data += png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    assert open_photo(data).image.tolist() == [[[255, 128, 0], [0x12, 0x34, 0x56]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([-7.0, -7.0, -7.0], [0, 0, 0]),
    ],
)
def test_open_photo_scales_float_grey(values, expected):
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert open_photo(data).image[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([-5, 0, 5], [0, 128, 255]),
    ],
)
def test_open_photo_scales_32_bit_grey(values, expected):
    data = encoded(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert open_photo(data).image[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "HEIC"])
def test_open_photo_converts_grey_to_three_equal_channels(kind):
    grey = np.full((32, 48), 90, np.uint8)
    image = open_photo(encoded(Image.fromarray(grey), kind)).image
    assert image.shape == (32, 48, 3)
    assert np.abs(image.astype(int) - 90).max() <= 3


def test_open_photo_decodes_black_and_white():
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    for data in (encoded(bits, "PNG"), encoded(bits, "TIFF", compression="group4")):
        assert open_photo(data).image[..., 0].tolist() == [[0, 255], [255, 0]]


def with_alpha() -> np.ndarray:
    """Opaque red, half-transparent black, and invisible green."""
    return np.array([[(*RED, 255), (0, 0, 0, 128), (*GREEN, 0)]], np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_open_photo_composites_transparency_on_white(kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = open_photo(encoded(Image.fromarray(with_alpha()), kind, **options)).image
    assert image[0].tolist() == [list(RED), [127, 127, 127], [255, 255, 255]]


def test_open_photo_composites_every_kind_of_transparency_on_white():
    grey_alpha = Image.fromarray(np.array([[(10, 255), (0, 128), (7, 0)]], np.uint8))
    assert grey_alpha.mode == "LA"
    for image in (open_photo(encoded(grey_alpha, "PNG")).image, open_photo(grey_alpha).image):
        assert image[0, :, 0].tolist() == [10, 127, 255]
    premultiplied = Image.fromarray(with_alpha()).convert("RGBa")
    assert open_photo(premultiplied).image[0, 1].tolist() == [127, 127, 127]
    premultiplied_grey = grey_alpha.convert("La")
    assert open_photo(premultiplied_grey).image[0, :, 0].tolist() == [10, 127, 255]

    palette = Image.new("P", (3, 1))
    palette.putpalette([*RED, *GREEN, *BLUE])
    palette.putdata([0, 1, 2])
    one = encoded(palette, "PNG", transparency=1)
    assert open_photo(one).image[0].tolist() == [list(RED), list(WHITE), list(BLUE)]
    each = encoded(palette, "PNG", transparency=bytes([255, 0, 255]))
    assert open_photo(each).image[0].tolist() == [list(RED), list(WHITE), list(BLUE)]
    gif = encoded(palette, "GIF", transparency=2)
    assert open_photo(gif).image[0].tolist() == [list(RED), list(GREEN), list(WHITE)]
    colour_key = encoded(np.array([[RED, GREEN]], np.uint8), "PNG", transparency=GREEN)
    assert open_photo(colour_key).image[0].tolist() == [list(RED), list(WHITE)]
    grey_key = encoded(np.array([[9, 70]], np.uint8), "PNG", transparency=70)
    assert open_photo(grey_key).image[0, :, 0].tolist() == [9, 255]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "PA", "CMYK"])
def test_open_photo_accepts_a_pil_image_of_any_mode(mode):
    image = Image.fromarray(corners())
    image = image.convert("RGBA").convert(mode) if mode == "PA" else image.convert(mode)
    assert_corners(open_photo(image).image, 6)


def test_open_photo_decodes_one_pixel():
    photo = open_photo(encoded(np.array([[RED]], np.uint8), "PNG"), max_side=1)
    assert photo.image.tolist() == [[list(RED)]]
    assert photo.scale == 1.0


# --- Scale -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((600, 800), 200, (150, 200)),
        ((800, 600), 200, (200, 150)),
        ((601, 803), 100, (75, 100)),
        ((500, 1001), 500, (250, 500)),
        ((100, 120), 120, (100, 120)),
        ((100, 120), 500, (100, 120)),
    ],
)
def test_open_photo_reduces_the_longer_side_to_max_side(kind, size, max_side, expected):
    original = smooth(*size)
    photo = open_photo(encoded(original, kind), max_side=max_side)
    assert photo.image.shape == (*expected, 3)
    assert (photo.height, photo.width) == size
    assert photo.scale == max(expected) / max(size)
    reference = Image.fromarray(original).resize(expected[::-1], Image.Resampling.HAMMING)
    difference = np.abs(photo.image.astype(int) - np.asarray(reference))
    assert difference.mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_open_photo_reduces_a_narrow_strip_to_at_least_one_pixel(kind):
    photo = open_photo(encoded(smooth(900, 4), kind), max_side=50)
    assert photo.image.shape == (50, 1, 3)
    assert (photo.width, photo.height, photo.scale) == (4, 900, 50 / 900)


@pytest.mark.parametrize("max_side", [1000, 999, 700, 500, 499, 250, 249, 125, 124, 60])
def test_open_photo_decodes_a_jpeg_at_the_smallest_sufficient_scale(max_side, monkeypatch):
    loaded = []
    load = decode._JpegFile.load

    def recording(self):
        pixels = load(self)
        loaded.append(self.size)
        return pixels

    monkeypatch.setattr(decode._JpegFile, "load", recording)
    data = encoded(smooth(667, 1000), "JPEG", quality=95)
    reduced = open_photo(data, max_side=max_side)
    scales = [size for size in (1000, 500, 250, 125) if size >= max_side]
    assert loaded[0][0] == scales[-1]
    assert reduced.image.shape[1] == max_side

    full = Image.fromarray(open_photo(data).image)
    size = reduced.image.shape[1::-1]
    reference = np.asarray(full.resize(size, Image.Resampling.HAMMING)).astype(int)
    difference = np.abs(reduced.image.astype(int) - reference)
    assert difference.mean() < 1.5
    assert difference.max() <= 12


def test_open_photo_keeps_positions_at_reduced_scale():
    # The last column is partial: 1001 pixels at scale 1/8 are 126 columns, not 125.1.
    image = np.full((64, 1001, 3), 40, np.uint8)
    image[:, 880:] = 220
    row = open_photo(encoded(image, "JPEG"), max_side=100).image[2, :, 0].astype(float)
    edge = np.interp(130, row[80:95], np.arange(80, 95)) + 0.5
    assert edge == pytest.approx(880 * 100 / 1001, abs=0.3)


def test_full_resolution_decodes_the_whole_photo_again(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(stored_with(8, "JPEG", corners(400, 600)))
    whole = open_photo(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), whole.image):
        reduced = open_photo(source, max_side=100, name="given")
        assert reduced.image.shape == (67, 100, 3)
        full = full_resolution(reduced)
        assert (full.name, full.scale) == ("given", 1.0)
        assert full.source is source
        assert np.array_equal(full.image, whole.image)


def test_full_resolution_returns_a_full_photo_unchanged():
    photo = open_photo(corners())
    assert full_resolution(photo) is photo


def test_full_resolution_refuses_a_file_that_has_changed(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(corners(), "PNG"))
    reduced = open_photo(path, max_side=50)
    path.write_bytes(encoded(corners(80, 90), "PNG"))
    with pytest.raises(PhotoError, match=r"96×64 pixels and has 90×80 now") as caught:
        full_resolution(reduced)
    assert caught.value.reason == "changed while in use"
    path.unlink()
    with pytest.raises(PhotoError) as caught:
        full_resolution(reduced)
    assert caught.value.reason == "missing"


# --- Sources ---------------------------------------------------------------------------------


def test_open_photo_names_its_source(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(corners(), "PNG"))
    assert open_photo(path).name == str(path)
    assert open_photo(str(path)).name == str(path)
    assert open_photo(path.read_bytes()).name == "<bytes>"
    assert open_photo(Image.open(path)).name == "<image>"
    assert open_photo(corners()).name == "<array>"
    assert open_photo(path, name="me").name == "me"
    assert open_photo(path).source is path
    with pytest.raises(PhotoError, match=r"^me: "):
        open_photo(b"nothing", name="me")


def test_open_photo_does_not_copy_a_contiguous_array():
    image = corners()
    assert open_photo(image).image is image
    assert open_photo(image, max_side=WIDTH).image is image
    view = image[:, ::-1]
    photo = open_photo(view)
    assert photo.image.flags.c_contiguous
    assert np.array_equal(photo.image, view)
    reduced = open_photo(image, max_side=48)
    assert reduced.image.shape == (32, 48, 3)
    assert reduced.scale == 0.5
    assert_corners(reduced.image)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_open_photo_refuses_an_array_that_is_not_an_image(array):
    with pytest.raises(SettingsError) as caught:
        open_photo(array)
    assert str(array.dtype) in str(caught.value)
    assert str(array.shape) in str(caught.value)
    assert "grey (height, width)" in str(caught.value)


def test_open_photo_refuses_invalid_settings_and_sources():
    with pytest.raises(SettingsError, match="max_side must be at least 1, not 0"):
        open_photo(corners(), max_side=0)
    with pytest.raises(SettingsError, match="max_pixels must be at least 1, not -1"):
        open_photo(corners(), max_pixels=-1)
    with pytest.raises(SettingsError, match="not 7"):
        open_photo(7)


def test_open_photo_refuses_an_image_without_pixels():
    assert reason_of(Image.new("RGB", (0, 5))) == "damaged"


def test_open_photo_is_thread_safe():
    data = [FILES[kind]() for kind in ("jpeg", "png-palette", "webp", "avif", "heic", "tiff-lzw")]
    expected = [open_photo(one, max_side=60).image for one in data]
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        return [[open_photo(one, max_side=60).image for one in data] for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for rounds in pool.map(work, range(4)):
            for images in rounds:
                assert all(map(np.array_equal, images, expected))


# --- Photos that cannot be used --------------------------------------------------------------


def test_open_photo_refuses_files_that_are_not_photos(tmp_path):
    assert reason_of(b"") == "empty file"
    assert (
        reason_of(b"BMW and other cars, a text that begins with two unlucky letters")
        == "not a photo"
    )
    assert reason_of(b"%PDF-1.7 ...") == "not a photo"
    assert reason_of(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom") == "a video, not a photo"
    assert reason_of(tmp_path) == "not a regular file"
    assert reason_of(tmp_path / "none.jpg") == "missing"


@pytest.mark.parametrize("kind", FILES)
def test_open_photo_refuses_too_many_pixels_before_decoding(kind, monkeypatch):
    data = FILES[kind]()

    def load(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(decode, "_finish", load)
    with pytest.raises(PhotoError, match=r"96×64 is more than 6,143; raise max_pixels") as caught:
        open_photo(data, max_pixels=HEIGHT * WIDTH - 1)
    assert caught.value.reason == "too many pixels"


def test_open_photo_limits_the_pixels_of_arrays_and_images():
    assert reason_of(corners(), max_pixels=100) == "too many pixels"
    assert reason_of(Image.fromarray(corners()), max_pixels=100) == "too many pixels"
    assert open_photo(corners(), max_pixels=HEIGHT * WIDTH).width == WIDTH


@pytest.mark.parametrize("kind", FILES)
def test_open_photo_uses_its_own_limit_instead_of_pillows(kind, monkeypatch):
    data = FILES[kind]()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # a warning, which here is an error
    assert_corners(open_photo(data).image, 12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if kind.startswith("webp"):  # Pillow's own decoder refuses it
        assert reason_of(data) == "too many pixels"
    else:
        assert_corners(open_photo(data).image, 12)


def test_open_photo_uses_its_own_limit_for_a_large_rotated_tiff(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for options in ({}, {"compression": "tiff_lzw"}):
        assert_corners(open_photo(stored_with(6, "TIFF", corners(), **options)).image)


def test_open_photo_refuses_a_decompression_bomb():
    header = struct.pack(">IIBBBBB", 1_000_000, 1_000_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")
    assert reason_of(bomb) == "too many pixels"


@pytest.mark.parametrize("kind", [*FILES, "heic-tiles"])
def test_open_photo_never_decodes_a_file_in_part(kind):
    if kind == "heic-tiles":  # phones write these, and libheif would decode them in part
        data = encoded(smooth(200, 300), "HEIC", tile_size=128)
        assert b"grid" in data
    else:
        data = FILES[kind]()
    whole = open_photo(data).image
    reasons = []
    for length in range(40, len(data), max(1, len(data) // 30)):
        outcome = photo_or_error(data[:length])
        if isinstance(outcome, PhotoError):
            reasons.append(outcome.reason)
        elif outcome.damage:
            assert kind in ("jpeg", "jpeg-progressive")  # and says so
        else:  # only an end marker or a second frame is missing
            assert np.array_equal(outcome.image, whole)
            assert kind in ("apng", "gif-animated", "tiff-pages") or length > len(data) - 40
    assert len(reasons) >= 10
    assert set(reasons) == {"truncated"}


def broken_off_jpeg(**options):
    """A JPEG file of 320 rows with noise, its image, and where its first scan begins."""
    noise = np.random.default_rng(5).integers(0, 256, (320, 200, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=90, **options)
    return data, open_photo(data).image, data.index(b"\xff\xda") + 14


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("rest", [b"", bytes(7), bytes(100_000)], ids=len)
def test_jpeg_without_its_end_marker_is_whole(options, rest):
    data, whole, _ = broken_off_jpeg(**options)
    photo = open_photo(data[:-2] + rest)
    assert (photo.damage, np.array_equal(photo.image, whole)) == ("", True)
    photo = open_photo(data + rest)
    assert (photo.damage, np.array_equal(photo.image, whole)) == ("", True)


@pytest.mark.parametrize("filled", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("max_side", [None, 160])
def test_jpeg_that_breaks_off_is_decoded_up_to_there(filled, share, max_side):
    data, whole, start = broken_off_jpeg()
    kept = data[: start + round(share * (len(data) - start))]
    photo = open_photo(kept + filled * bytes(len(data) - len(kept)), max_side=max_side)
    missing = int(photo.damage.removesuffix("% of its rows are missing"))
    assert abs(missing / 100 - (1 - share)) < 0.08
    assert (photo.width, photo.height) == (200, 320)
    rows = round((1 - missing / 100) * len(photo.image)) - 16
    if max_side is None and rows > 0:
        assert np.array_equal(photo.image[:rows], whole[:rows])
        assert np.unique(photo.image[-16:]).tolist() == [128]


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive"])
@pytest.mark.parametrize("zeros", [0, 3000])
def test_jpeg_is_never_taken_for_whole_where_pixels_are_missing(kind, zeros):
    data = FILES[kind]()
    whole = open_photo(data).image
    outcomes = Counter()
    for length in range(200, len(data)):
        outcome = photo_or_error(data[:length] + bytes(zeros))
        if isinstance(outcome, PhotoError):
            outcomes[outcome.reason] += 1
        else:
            is_whole = np.array_equal(outcome.image, whole)
            outcomes["damaged" if outcome.damage else "whole" if is_whole else "wrong"] += 1
    assert set(outcomes) == {"truncated", "damaged", "whole"}
    assert outcomes["damaged"] > 50


def test_progressive_jpeg_says_that_detail_is_missing():
    data, whole, _ = broken_off_jpeg(progressive=True)
    photo = open_photo(data[: len(data) // 2])
    assert photo.damage == "detail is missing in 100% of its rows"
    assert photo.image.shape == whole.shape
    photo = open_photo(data[: -len(data) // 50])
    assert re.fullmatch(r"detail is missing in \d\d?% of its rows", photo.damage)


def test_jpeg_without_a_row_is_truncated():
    data, _, start = broken_off_jpeg()
    for kept in (data[: start - 4], data[:start], data[: start + 20]):
        for rest in (b"", bytes(50_000)):
            assert reason_of(kept + rest) == "truncated"


def test_end_marker_of_a_thumbnail_is_not_that_of_the_photo():
    data, _, start = broken_off_jpeg()
    thumbnail = encoded(smooth(16, 16), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    photo = open_photo(data[:2] + segment + data[2 : start + (len(data) - start) // 2])
    assert "of its rows are missing" in photo.damage


def test_open_photo_reports_a_missing_last_byte_as_truncated():
    for kind in ("webp", "bmp", "tiff", "heic", "avif"):
        assert reason_of(FILES[kind]()[:-1]) == "truncated"


def test_open_photo_reports_a_truncated_pil_image():
    data = encoded(smooth(200, 200), "JPEG")
    assert reason_of(Image.open(io.BytesIO(data[: len(data) // 2]))) == "truncated"


def test_open_photo_reports_overwritten_pixels_as_damaged():
    png = bytearray(encoded(smooth(60, 60), "PNG"))
    at = png.index(b"IDAT") + 20
    png[at : at + 40] = b"\xff" * 40
    assert reason_of(bytes(png)) == "damaged"


def photo_or_error(source: bytes, **options: object) -> Photo | PhotoError:
    try:
        return open_photo(source, **options)
    except PhotoError as error:
        return error


def mutated(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    kind = rng.choice(["flip", "flip", "head", "cut", "insert", "end"])
    if kind == "flip":
        for _ in range(rng.choice([1, 4, 40])):
            result[rng.randrange(len(result))] = rng.randrange(256)
    elif kind == "head":
        for _ in range(3):
            result[rng.randrange(min(200, len(result)))] = rng.randrange(256)
    elif kind == "cut":
        start = rng.randrange(len(result))
        del result[start : start + rng.randrange(1, 300)]
    elif kind == "insert":
        start = rng.randrange(len(result))
        result[start:start] = rng.randbytes(rng.randrange(1, 50))
    else:
        del result[rng.randrange(len(result)) :]
    return bytes(result)


@pytest.mark.parametrize("kind", FILES)
def test_open_photo_returns_an_image_or_a_reason_for_mutated_files(kind):
    rng = random.Random(f"photos {kind}")
    whole = FILES[kind]()
    outcomes = set()
    for _ in range(25):
        options = {"max_side": rng.choice([None, 40]), "max_pixels": 2_000_000}
        outcome = photo_or_error(mutated(whole, rng), **options)
        if isinstance(outcome, PhotoError):
            assert outcome.reason in REASONS
            assert len(outcome.detail) <= 200
            assert "object at 0x" not in str(outcome)
            outcomes.add(outcome.reason)
        else:
            assert outcome.image.dtype == np.uint8
            assert outcome.image.ndim == 3
            assert outcome.image.shape[2] == 3
            assert outcome.image.flags.c_contiguous
    assert outcomes  # the mutations do harm


def test_open_photo_does_not_catch_memory_errors(monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr(decode._JpegFile, "load", load)
    with pytest.raises(MemoryError):
        open_photo(FILES["jpeg"]())


def test_photo_errors_are_face2vec_errors():
    with pytest.raises(Face2VecError):
        open_photo(b"nothing")


def deep(mode: str, width: int, height: int) -> Image.Image:
    """An image of random pixels in any of Pillow's modes."""
    rng = np.random.default_rng(len(mode))
    if mode == "F":
        return Image.fromarray(rng.normal(0, 3, (height, width)).astype(np.float32))
    if mode == "I":
        return Image.fromarray(rng.integers(-9, 70_000, (height, width), dtype=np.int32))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65_536, (height, width), dtype=np.uint16))
    colours = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    if mode == "P":
        palette = colours.convert("RGB").quantize(200)
        palette.info["transparency"] = 3
        return palette
    if mode in ("La", "PA"):
        return colours.convert("LA").convert(mode) if mode == "La" else colours.convert("PA")
    return colours.convert(mode)


@pytest.mark.parametrize("max_side", [None, 9, 30, 200])
@pytest.mark.parametrize(
    "mode", ["1", "P", "PA", "LA", "La", "RGBA", "RGBa", "CMYK", "YCbCr", "F", "I", "I;16"]
)
def test_image_converted_in_bands_equals_one_converted_at_once(
    mode: str, max_side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = deep(mode, 131, 203)
    at_once = open_photo(image, max_side=max_side)
    monkeypatch.setattr(decode, "BAND_PIXELS", 8 * 131 * 5)
    in_bands = open_photo(image, max_side=max_side)
    np.testing.assert_array_equal(in_bands.image, at_once.image)
    assert at_once.image.std() > 1 or mode == "1"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_turned_in_bands_equals_one_turned_at_once(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    deep("RGBA", 31, 53).save(file, "PNG", exif=exif)
    at_once = open_photo(file.getvalue())
    monkeypatch.setattr(decode, "BAND_PIXELS", 8 * 31 * 5)
    in_bands = open_photo(file.getvalue())
    np.testing.assert_array_equal(in_bands.image, at_once.image)
    assert in_bands.image.shape[:2] == ((31, 53) if orientation >= 5 else (53, 31))


def test_memory_of_a_large_image_is_that_of_its_pixels_and_its_result(tmp_path: Path) -> None:
    side = 6000
    Image.new("RGBA", (side, side), (9, 9, 9, 100)).save(tmp_path / "a.png", compress_level=1)
    code = """
import resource, sys
from face2vec.photos.decode import open_photo
open_photo(sys.argv[2], max_side=500)
def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
before = peak()
open_photo(sys.argv[1], max_side=600)
print(peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    Image.new("RGBA", (600, 600)).save(tmp_path / "b.png")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        capture_output=True, encoding="utf-8", check=True,
        env=os.environ | {"PYTHONPATH": str(Path(face2vec.__file__).parents[1])},
    )  # fmt: skip
    pixels = side * side * 4 / 1e6
    assert float(done.stdout) < 1.5 * pixels


def test_large_photo_is_reduced_more_and_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.mgrid[0:900, 0:1200]
    pixels = np.stack([rows // 4, columns // 5, (rows + columns) // 9], axis=2).astype(np.uint8)
    photo = Image.fromarray(pixels)
    usual = open_photo(photo, max_side=200).image
    monkeypatch.setattr("face2vec.photos.decode.LARGE", 1_000_000)
    large = open_photo(photo, max_side=200).image
    assert usual.shape == large.shape == (150, 200, 3)
    apart = np.abs(usual.astype(int) - large.astype(int))
    assert 0 < apart.max() <= 6
    assert apart.mean() < 1
