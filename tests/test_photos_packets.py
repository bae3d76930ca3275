"""XMP packets and orientations inside photo files, read without decoding them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from face2vec.errors import PhotoError
from face2vec.photos import packets
from face2vec.photos.decode import open_photo
from face2vec.photos.packets import Metadata, metadata_of

PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
PIXELS = np.zeros((30, 40, 3), np.uint8)
PIXELS[:15, :20] = 250  # the mark that shows how a photo is turned


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_with(packet: bytes, packed: bool, at_end: bool) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    data = stream.getvalue()
    text = zlib.compress(packet) if packed else packet
    new = chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + text)
    place = len(data) - 12 if at_end else 33
    return data[:place] + new + data[place:]


def saved(path: Path, kind: str, **options: Any) -> Path:
    if kind == "HEIF":
        pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(path, quality=90, **options)
    else:
        if kind == "TIFF" and "xmp" in options:
            options = {"tiffinfo": {700: options["xmp"]}}
        Image.fromarray(PIXELS).save(path, kind, **options)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_packet_is_read_from_each_format(tmp_path: Path, kind: str) -> None:
    assert metadata_of(saved(tmp_path / "with", kind, xmp=PACKET)) == Metadata((PACKET,))
    assert metadata_of(saved(tmp_path / "without", kind)) == Metadata()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_packet_is_read_from_png_before_and_after_its_pixels(
    tmp_path: Path, packed: bool, at_end: bool
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png_with(PACKET, packed, at_end))
    assert metadata_of(file) == Metadata((PACKET,))


def test_packet_of_imagemagick_is_read_from_png(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "no XMP")
    info.add_text("Raw profile type xmp", f"\nxmp\n{len(PACKET):8}\n{PACKET.hex()}\n", zip=True)
    assert metadata_of(saved(tmp_path / "a.png", "PNG", pnginfo=info)).packets == (PACKET,)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_packet_and_orientation_are_read_from_each_kind_of_tiff(
    tmp_path: Path, order: str, big: bool
) -> None:
    pointer, start = ("Q", 16) if big else ("I", 8)
    mark = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head = mark + (struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}I", 8))
    width = struct.calcsize(f"{order}{pointer}")
    turned = struct.pack(f"{order}HH{pointer}", 274, 3, 1)
    turned += struct.pack(f"{order}H", 6).ljust(width, b"\0")
    place = start + struct.calcsize(f"{order}{'Q' if big else 'H'}") + 2 * len(turned) + width
    found = struct.pack(f"{order}HH{pointer}{pointer}", 700, 1, len(PACKET) + 2, place)
    entries = struct.pack(f"{order}{'Q' if big else 'H'}", 2) + turned + found
    file = tmp_path / "a.tif"
    file.write_bytes(head + entries + bytes(width) + PACKET + b"\0\0")
    assert metadata_of(file) == Metadata((PACKET,), 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_is_the_one_that_decoding_applies(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiff = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif.tobytes()}
    file = saved(tmp_path / "a", kind, **tiff)
    found = metadata_of(file).orientation
    assert found == (1 if kind == "HEIF" else orientation)
    if kind == "HEIF":
        return
    stored = Image.fromarray(PIXELS)
    if orientation > 1:
        stored = stored.transpose(TURNS[found])
    difference = np.asarray(stored, int) - open_photo(file).image
    assert np.abs(difference).mean() < 8


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def test_orientation_in_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    turned = b'<rdf:Description tiff:Orientation="8"/>'
    assert metadata_of(saved(tmp_path / "a.jpg", "JPEG", xmp=turned)).orientation == 8
    exif = Image.Exif()
    exif[0x0112] = 3
    file = saved(tmp_path / "b.jpg", "JPEG", xmp=turned, exif=exif.tobytes())
    assert metadata_of(file).orientation == 3


def test_extended_xmp_is_a_second_packet(tmp_path: Path) -> None:
    """Segments of at most 64 KiB in any order (XMP specification, part 3, 1.1.3.1)."""
    rest = b"<more>" + b"x" * 90_000 + b"</more>"
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    segments = b""
    for start in (60_000, 0):
        part = rest[start : start + 60_000]
        content = head + struct.pack(">II", len(rest), start) + part
        segments += b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    data = saved(tmp_path / "a.jpg", "JPEG", xmp=PACKET).read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + segments + data[2:])
    assert metadata_of(tmp_path / "a.jpg").packets == (PACKET, rest)


@pytest.mark.parametrize("packed", [False, True])
def test_too_large_packet_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(packets, "MAX_PACKET", 1000)
    file = tmp_path / "a.png"
    file.write_bytes(png_with(b"x" * 5000, packed, at_end=True))
    assert metadata_of(file) == Metadata(too_large=True)
    for kind in ("WEBP", "TIFF", "JPEG"):
        assert metadata_of(saved(tmp_path / "b", kind, xmp=b"x" * 5000)) == Metadata(too_large=True)


def test_damaged_header_is_a_photo_error(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.avif", "AVIF", xmp=PACKET).read_bytes()
    (tmp_path / "a.avif").write_bytes(whole[:200])
    with pytest.raises(PhotoError, match="damaged"):
        metadata_of(tmp_path / "a.avif")
    (tmp_path / "b.txt").write_text("no photo", encoding="utf-8")
    with pytest.raises(PhotoError, match="not a photo"):
        metadata_of(tmp_path / "b.txt")
    with pytest.raises(PhotoError, match="missing"):
        metadata_of(tmp_path / "c.jpg")
    with pytest.raises(PhotoError, match="not a regular file"):
        metadata_of(tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_file_that_breaks_off_anywhere_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    data = saved(tmp_path / "a", kind, xmp=PACKET).read_bytes()
    file = tmp_path / "b"
    outcomes = set()
    for length in range(12, len(data), 7):
        file.write_bytes(data[:length])
        try:
            outcomes.add(metadata_of(file).packets)
        except PhotoError as error:
            outcomes.add(error.reason)
    assert (PACKET,) in outcomes
