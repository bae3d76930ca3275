"""XMP packets and the orientation inside photo files, without decoding their pixels.

Only headers are read: of a JPEG file the segments before its pixels, of a PNG or WebP file the
heads of its chunks, of a TIFF file (and a DNG, CR2 or NEF file) its first directory.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from face2vec.errors import Face2VecError, PhotoError
from face2vec.photos.formats import (
    DAMAGED,
    HEAD_BYTES,
    MAX_BYTES,
    NOT_A_FILE,
    NOT_A_PHOTO,
    TOO_MANY_BYTES,
    photo_format,
    read_photo_bytes,
)
from face2vec.photos.orientation import ORIENTATION_TAG, exif_blocks, orientation_of, raw_profile
from face2vec.photos.storage import is_regular, opened, status_of_open

MAX_PACKET = 16 << 20
"""Bytes of the largest XMP packet that is read."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_XMP = b"XML:com.adobe.xmp"
_XMP_TAG = 700
_MAX_PACKETS = 4
_MAX_EXIF = 1 << 20
_MAX_ENTRIES = 4096  # of a TIFF directory
_PROFILES = ("Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp")


@dataclass(frozen=True)
class Metadata:
    """What a photo file says about itself.

    Attributes:
        packets: its XMP packets; the second and later ones continue the first.
        orientation: 1…8, how the stored image is turned to be upright, as photos are decoded here.
        too_large: whether a packet was left out because it has more than ``MAX_PACKET`` bytes.
    """

    packets: tuple[bytes, ...] = ()
    orientation: int = 1
    too_large: bool = False


@dataclass
class _Found:
    """What a reader has found so far: `Image.info` as Pillow would give it, and packets."""

    info: dict[str, Any] = field(default_factory=dict)
    packets: list[bytes] = field(default_factory=list)
    orientation: int | None = None
    too_large: bool = False

    def add(self, packet: bytes) -> None:
        packet = packet.rstrip(b"\0")
        if len(packet) > MAX_PACKET:
            self.too_large = True
        elif packet and len(self.packets) < _MAX_PACKETS:
            self.packets.append(packet)


def metadata_of(path: str | os.PathLike[str]) -> Metadata:
    """The XMP packets and the orientation of a photo.

    Formats other than JPEG, PNG, WebP, TIFF, HEIC and AVIF have none here, and orientation 1.

    Raises:
        PhotoError: the file is missing, unreadable, or not a photo, or its metadata is damaged.
    """
    name = os.fspath(path)
    try:
        with opened(path) as file:
            if not is_regular(file):
                raise PhotoError(name, NOT_A_FILE)
            if status_of_open(file).size > MAX_BYTES:
                raise PhotoError(name, TOO_MANY_BYTES)
            kind = photo_format(file.read(HEAD_BYTES))
            if kind is None:
                raise PhotoError(name, NOT_A_PHOTO)
            file.seek(0)
            found = _Found()
            if kind in _READERS:
                _READERS[kind](file, found)
    except OSError:
        read_photo_bytes(path)  # raises the same as a PhotoError with its reason
        raise
    except Face2VecError:
        raise
    except Exception as error:  # a damaged header makes readers raise almost any exception
        raise PhotoError(name, DAMAGED, f"its metadata cannot be read: {error}") from error
    if found.packets:
        found.info["xmp"] = found.packets[0]
    orientation = found.orientation
    if orientation is None:
        orientation = orientation_of(found.info, kind)
    return Metadata(tuple(found.packets), orientation, found.too_large)


def exif_of(data: bytes, kind: str | None) -> bytes:
    """The EXIF block of a photo, or nothing.

    Args:
        data: the bytes of the file.
        kind: its format, see `photo_format`; other ones than those of `metadata_of` have none.

    Raises:
        Exception: the metadata is damaged; readers raise almost any.
    """
    if kind == "HEIC":
        import pillow_heif

        exif = pillow_heif.open_heif(io.BytesIO(data)).info.get("exif")
        return exif if isinstance(exif, bytes) else b""
    found = _Found()
    if kind in _READERS:
        _READERS[kind](io.BytesIO(data), found)
    return next(exif_blocks(found.info), b"")


# --- JPEG -------------------------------------------------------------------------------------


def _jpeg(file: BinaryIO, found: _Found) -> None:
    """APP1 segments (ITU-T T.81 B.1.1.4; XMP specification, part 3, 1.1.3)."""
    file.seek(2)
    parts: dict[bytes, dict[int, bytes]] = {}
    room = MAX_PACKET
    for content in _app1(file):
        if content.startswith(b"Exif\0\0"):
            found.info.setdefault("exif", content)
        elif content.startswith(_XMP):
            found.add(content[len(_XMP) :])
        elif content.startswith(_EXTENSION):
            room -= len(content)
            if room < 0:
                found.too_large = True
                return
            at = len(_EXTENSION)
            identifier, offset = content[at : at + 32], int.from_bytes(content[at + 36 : at + 40])
            parts.setdefault(identifier, {})[offset] = content[at + 40 :]
    for pieces in parts.values():
        found.add(b"".join(pieces[offset] for offset in sorted(pieces)))


def _app1(file: BinaryIO) -> Iterator[bytes]:
    while True:
        marker = file.read(2)
        while marker == b"\xff\xff":  # padding
            marker = b"\xff" + file.read(1)
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (0xD9, 0xDA):
            return
        size = int.from_bytes(file.read(2)) - 2
        if size < 0:
            return
        if marker[1] == 0xE1:
            yield file.read(size)
        else:
            file.seek(size, os.SEEK_CUR)


# --- PNG and WebP -----------------------------------------------------------------------------


def _png(file: BinaryIO, found: _Found) -> None:
    """Chunks eXIf, iTXt, tEXt and zTXt (PNG specification, 11.3), wherever they are."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4]), head[4:]
        if kind == b"IEND":
            return
        if kind not in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") or size > MAX_PACKET:
            start = file.tell()
            found.too_large |= kind == b"iTXt" and file.read(len(_PNG_XMP)) == _PNG_XMP
            file.seek(start + size + 4)
            continue
        content = file.read(size)
        file.seek(4, os.SEEK_CUR)
        if kind == b"eXIf":
            found.info["exif"] = content
        else:
            _png_text(kind, content, found)


def _png_text(kind: bytes, content: bytes, found: _Found) -> None:
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if keyword != _PNG_XMP and name not in _PROFILES:
        return
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[2]
    elif packed:
        rest = rest[1:]
    if packed:
        unpacker = zlib.decompressobj()
        rest = unpacker.decompress(rest, MAX_PACKET + 1)  # a small chunk may unpack to gigabytes
    if keyword == _PNG_XMP:
        found.add(rest)
    elif len(rest) <= MAX_PACKET:
        found.info[name] = rest.decode("latin-1")
        content = raw_profile(found.info[name])
        if name.endswith("xmp") or content.startswith(_XMP):
            found.add(content.removeprefix(_XMP))


def _webp(file: BinaryIO, found: _Found) -> None:
    """Chunks EXIF and XMP of the RIFF container (RFC 9649, 2.7.1)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF" and size <= _MAX_EXIF:
            found.info["exif"] = file.read(size)
        elif head[:4] == b"XMP " and size <= MAX_PACKET:
            found.add(file.read(size))
        else:
            found.too_large |= head[:4] == b"XMP "
            file.seek(size, os.SEEK_CUR)
        file.seek(size % 2, os.SEEK_CUR)


# --- TIFF -------------------------------------------------------------------------------------


def _tiff(file: BinaryIO, found: _Found) -> None:
    """Tags 274 and 700 of the first directory (TIFF 6.0, section 2; BigTIFF)."""
    head = file.read(16)
    order: Any = "little" if head[:2] == b"II" else "big"
    big = int.from_bytes(head[2:4], order) == 43
    pointer, counter = (8, 8) if big else (4, 2)
    file.seek(int.from_bytes(head[pointer : 2 * pointer], order))
    entries = int.from_bytes(file.read(counter), order)
    step = 4 + 2 * pointer
    directory = file.read(step * min(entries, _MAX_ENTRIES))
    found.orientation = 1
    for at in range(0, len(directory) - step + 1, step):
        tag, kind = (int.from_bytes(directory[n : n + 2], order) for n in (at, at + 2))
        size = int.from_bytes(directory[at + 4 : at + 4 + pointer], order)
        value = directory[at + 4 + pointer : at + step]
        if tag == ORIENTATION_TAG and kind == 3:
            turned = int.from_bytes(value[:2], order)
            found.orientation = turned if 1 <= turned <= 8 else 1
        elif tag == _XMP_TAG and size > MAX_PACKET:
            found.too_large = True
        elif tag == _XMP_TAG and size <= pointer:
            found.add(value[:size])
        elif tag == _XMP_TAG:
            file.seek(int.from_bytes(value, order))
            found.add(file.read(size))


# --- HEIC and AVIF ----------------------------------------------------------------------------


def _heic(file: BinaryIO, found: _Found) -> None:
    import pillow_heif

    info = pillow_heif.open_heif(io.BytesIO(file.read())).info
    found.orientation = 1  # libheif turns the image upright; EXIF only repeats it
    if isinstance(info.get("xmp"), bytes):
        found.add(info["xmp"])


def _avif(file: BinaryIO, found: _Found) -> None:
    from PIL import AvifImagePlugin

    image = AvifImagePlugin.AvifImageFile(io.BytesIO(file.read()))
    found.info.update({"exif": image.info.get("exif")})
    if isinstance(image.info.get("xmp"), bytes):
        found.add(image.info["xmp"])


_READERS: dict[str, Callable[[BinaryIO, _Found], None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
    "HEIC": _heic,
    "AVIF": _avif,
}
