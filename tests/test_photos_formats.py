"""Detection of formats, and the reasons why a file cannot be read."""

from __future__ import annotations

import os
import struct

import pytest
from helpers import posix_only

from face2vec.errors import PhotoError
from face2vec.photos.formats import REASONS, file_sha256, photo_format, read_photo_bytes


def test_read_photo_bytes_returns_the_content(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"some bytes")
    assert read_photo_bytes(path) == b"some bytes"
    assert read_photo_bytes(str(path), max_bytes=10) == b"some bytes"


@posix_only
def test_read_photo_bytes_reports_why_a_file_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(bytes(11))
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (
        ("none.jpg", "missing"),
        ("gone.jpg", "missing"),
        ("self.jpg", "missing"),
        ("empty.jpg/a.jpg", "missing"),
        ("a\0b.jpg", "missing"),
        ("x" * 300 + ".jpg", "missing"),
        ("empty.jpg", "empty file"),
        ("large.jpg", "too many bytes"),
        ("", "not a regular file"),
        ("pipe.jpg", "not a regular file"),
    ):
        path = f"{tmp_path}/{name}"
        with pytest.raises(PhotoError) as caught:
            read_photo_bytes(path, max_bytes=10)
        assert (caught.value.photo, caught.value.reason) == (path, reason)

    for error, reason in (
        (PermissionError(13, "Permission denied"), "no permission"),
        (OSError(5, "Input/output error"), "cannot be read"),
    ):

        def refuse(path, flags, error=error):
            raise error

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(PhotoError) as caught:
            read_photo_bytes(tmp_path / "large.jpg")
        monkeypatch.undo()
        assert caught.value.reason == reason


def test_every_reason_is_one_short_lower_case_phrase():
    assert len(set(REASONS)) == len(REASONS) == 18
    assert all(reason == reason.lower() and len(reason) <= 24 for reason in REASONS)


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", None),
        (b"\xff\xd8", None),
        (b"\xff\xd8\xff\xdb", "JPEG"),
        (b"GIF87a", "GIF"),
        (b"GIF88a", None),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"II*\0\x10\0\0\0CR\x02\0", "RAW"),
        (b"IIRO\x08\0\0\0", "RAW"),
        (b"IIU\0\x08\0\0\0", "RAW"),
        (b"FUJIFILMCCD-RAW 0201", "RAW"),
        (b"II\x1a\0\0\0HEAPCCDR", "RAW"),
        (ftyp(b"crx ", b"isom"), "RAW"),
        (b"\xff\x0a\x10", "JXL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JXL"),
        (b"BM" + bytes(12) + struct.pack("<I", 124), "BMP"),
        (b"BM" + bytes(12) + struct.pack("<I", 41), None),
        (b"BM", None),
        (ftyp(b"heic", b"mif1"), "HEIC"),
        (ftyp(b"mif1", b"miaf", b"heic"), "HEIC"),
        (ftyp(b"mif1", b"miaf", b"avif"), "AVIF"),
        (ftyp(b"avif", b"mif1", b"miaf"), "AVIF"),
        (ftyp(b"avis"), "AVIF"),
        (ftyp(b"isom", b"mp41"), "VIDEO"),
        (ftyp(b"qt  "), "VIDEO"),
        (ftyp(b"3gp5"), "VIDEO"),
        (ftyp(b"isom") + b"avifheic", "VIDEO"),
        (ftyp(b"M4A "), None),
        (ftyp(b"mif1", b"miaf"), None),
        (b"\x1aE\xdf\xa3" + bytes(40), "VIDEO"),
        (b"RIFF\0\0\1\0AVI LIST", "VIDEO"),
        (b"RIFF\0\0\1\0WAVEfmt ", None),
        (b"G" + bytes(187) + b"G" + bytes(60), "VIDEO"),
        (b"GG" + bytes(254), None),
        (bytes(4) + b"G" + bytes(191) + b"G" + bytes(59), "VIDEO"),
        (b"\0\0\x01\xba" + bytes(40), "VIDEO"),
    ],
)
def test_photo_format_detects_the_format_from_the_first_bytes(head, expected):
    assert photo_format(head) == expected


@posix_only
def test_photo_in_a_folder_that_must_not_be_entered_has_no_permission(tmp_path):
    photo = tmp_path / "closed" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"\xff\xd8\xff")
    photo.parent.chmod(0o444)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may enter any folder
        for read in (read_photo_bytes, file_sha256):
            with pytest.raises(PhotoError) as caught:
                read(photo)
            assert caught.value.reason == "no permission"
    finally:
        os.seteuid(user)
        photo.parent.chmod(0o700)
