"""Orientation of photos that is not in EXIF alone: XMP, PNG's raw profiles, HEIC with both."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from face2vec.photos.decode import open_photo
from face2vec.photos.orientation import orientation_of

UPRIGHT = np.zeros((32, 48, 3), np.uint8)
UPRIGHT[:16, :24] = (220, 30, 40)
UPRIGHT[:16, 24:] = (30, 200, 50)
UPRIGHT[16:, :24] = (40, 50, 210)
STORED = np.ascontiguousarray(UPRIGHT[:, ::-1].transpose(1, 0, 2))  # upright with orientation 6
ATTRIBUTE = '<rdf:Description tiff:Orientation="{}"/>'
ELEMENT = "<rdf:Description><tiff:Orientation> {} </tiff:Orientation></rdf:Description>"


def xmp(orientation: int, form: str = ATTRIBUTE) -> bytes:
    inside = form.format(orientation)
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inside}</rdf:RDF></x:xmpmeta>'.encode()


def exif(orientation: int | None) -> bytes:
    block = Image.Exif()
    block[0x010F] = "A camera maker with a name too long for the entry itself"
    if orientation is not None:
        block[0x0112] = orientation
    return block.tobytes()


def encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(STORED).save(stream, kind, **options)
    return stream.getvalue()


def jpeg_with(packet: bytes, **options: Any) -> bytes:
    plain = encoded("JPEG", quality=95, subsampling=0, **options)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def png_with(name: str, text: str, packed: bool = True) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text(name, text, zip=packed)
    return encoded("PNG", pnginfo=info)


def raw_profile(kind: str, content: bytes) -> str:
    digits = content.hex()
    lines = "".join(f"{digits[n : n + 72]}\n" for n in range(0, len(digits), 72))
    return f"\n{kind}\n{len(content):8d}\n{lines}"


def itxt(packet: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    return encoded("PNG", pnginfo=info)


def assert_upright(data: bytes) -> None:
    photo = open_photo(data)
    assert (photo.width, photo.height) == (48, 32)
    assert np.abs(photo.image.astype(int) - UPRIGHT).mean() < 12
    reduced = open_photo(data, max_side=24)
    assert reduced.image.shape == (16, 24, 3)


@pytest.mark.parametrize("form", [ATTRIBUTE, ELEMENT], ids=["attribute", "element"])
@pytest.mark.parametrize("block", [None, exif(None)], ids=["no EXIF", "EXIF without it"])
def test_orientation_in_xmp_is_applied(form: str, block: bytes | None) -> None:
    options = {} if block is None else {"exif": block}
    assert_upright(jpeg_with(xmp(6, form), **options))
    assert_upright(encoded("WEBP", xmp=xmp(6, form), lossless=True, **options))
    assert_upright(itxt(xmp(6, form)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("exif", exif(6) if exif(6).startswith(b"Exif") else b"Exif\0\0" + exif(6)),
        ("APP1", b"Exif\0\0" + exif(6).removeprefix(b"Exif\0\0")),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)),
        ("xmp", xmp(6)),
    ],
    ids=["exif", "APP1 with EXIF", "APP1 with XMP", "xmp"],
)
@pytest.mark.parametrize("packed", [True, False])
def test_orientation_in_a_raw_profile_of_a_png_is_applied(
    name: str, content: bytes, packed: bool
) -> None:
    assert_upright(png_with(f"Raw profile type {name}", raw_profile(name, content), packed))


@pytest.mark.parametrize("other", [1, 3])
def test_orientation_in_exif_comes_before_xmp(other: int) -> None:
    assert_upright(jpeg_with(xmp(other), exif=exif(6)))
    assert_upright(encoded("WEBP", xmp=xmp(other), exif=exif(6), lossless=True))
    stored = open_photo(jpeg_with(xmp(6), exif=exif(1)))
    assert (stored.width, stored.height) == (32, 48)


def test_orientation_of_a_tiff_is_applied_once_though_xmp_repeats_it() -> None:
    data = encoded("TIFF", tiffinfo={274: 6, 700: xmp(6)})
    assert_upright(data)
    with Image.open(io.BytesIO(data)) as image:
        photo = open_photo(image)
    assert (photo.width, photo.height) == (48, 32)


def test_heic_with_a_rotation_exif_and_xmp_is_turned_once() -> None:
    stream = io.BytesIO()
    pillow_heif.register_heif_opener()
    image = Image.fromarray(STORED)
    image.save(stream, "HEIF", quality=-1, exif=exif(6), xmp=xmp(6))
    data = stream.getvalue()
    assert b"irot" in data
    # The encoder resets the orientation in EXIF; set it again, as cameras write both.
    big = rb"\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x01-\x08]"
    little = rb"\x12\x01\x03\x00\x01\x00\x00\x00[\x01-\x08]\x00"
    entry = re.compile(big + b"|" + little)
    found = entry.search(data)
    assert found is not None
    value = found[0]
    six = value[:-1] + b"\x06" if value.startswith(b"\x01") else value[:-2] + b"\x06\x00"
    both = data.replace(value, six)
    assert xmp(6) in both
    assert_upright(both)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"exif": b"Exif\0\0II*\0"},
        {"xmp": b"tiff:Orientation='9'"},
        {"xmp": b"\xff" * 1000},
        {"Raw profile type exif": "\nexif\n  12\nnot hexadecimal"},
        {"Raw profile type exif": b"no text"},
        {"Raw profile type exif": ""},
    ],
    ids=str,
)
def test_damaged_metadata_have_no_orientation(info: dict[str, Any]) -> None:
    assert orientation_of(info, "PNG") == 1
