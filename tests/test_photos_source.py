"""Photos whose decoders would read on and on are refused."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from face2vec.errors import PhotoError
from face2vec.photos import source
from face2vec.photos.damage import boxes_go_on, is_truncated
from face2vec.photos.decode import open_photo
from face2vec.photos.formats import REASONS, TOO_SLOW
from face2vec.photos.source import SCANS, PhotoSource, refuse_many_scans


def encoded(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, kind, **options)
    return memory.getvalue()


def refused(data: bytes) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        open_photo(data)
    return caught.value


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


JPEG, PNG = encoded("JPEG"), encoded("PNG")
FEW = 1 << 14
MANY = 4 * FEW // 3


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:200] + bytes(2 * MANY),
        JPEG[:2] + b"\xff" * (2 * MANY) + JPEG[2:],
        JPEG[:2] + b"\xff\xfe\0\2" * MANY + JPEG[2:],
        PNG[:33] + chunk(b"teST") * MANY + PNG[33:],
        PNG[:-12] + chunk(b"teST") * MANY + PNG[-12:],
        b"GIF89a\x05\0\x05\0\0\0\0" + b"!\xfe" + b"\1a" * MANY + b"\0",
    ],
    ids=["zeros", "padding", "segments", "chunks before", "chunks behind", "comment"],
)
def test_photo_of_countless_pieces_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face2vec.photos.decode.SMALL_READS", FEW)
    error = refused(data)
    assert error.reason == TOO_SLOW
    assert f"more than {FEW:,} tiny pieces" in error.detail
    assert TOO_SLOW in REASONS


def test_photo_of_many_pieces_is_decoded() -> None:
    """As many as a photo may have; they change no pixel."""
    pieces = 100_000
    for plain, data in (
        (JPEG, JPEG[:2] + b"\xff\xfe\0\2" * pieces + JPEG[2:]),
        (PNG, PNG[:33] + chunk(b"teST") * pieces + PNG[33:]),
    ):
        np.testing.assert_array_equal(open_photo(data).image, open_photo(plain).image)


def test_photo_that_takes_too_much_processor_time_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += source.CPU_SECONDS / 3
        return now[0]

    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3)).astype(np.uint8)
    memory = io.BytesIO()
    Image.fromarray(noise).save(memory, "PNG")
    data = memory.getvalue()
    assert len(data) > 1_000_000
    monkeypatch.setattr(time, "thread_time", clock)
    assert refused(data).reason == TOO_SLOW
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    np.testing.assert_array_equal(open_photo(data).image, noise)


def test_jpeg_with_countless_scans_is_refused() -> None:
    progressive = encoded("JPEG", progressive=True)
    scans = progressive.count(b"\xff\xda")
    assert 2 < scans < 20
    last = progressive.rindex(b"\xff\xda")
    scan, end = progressive[last:-2], progressive[-2:]
    many = progressive[:-2] + scan * (SCANS + 1 - scans) + end
    error = refused(many)
    assert (error.reason, error.detail) == (TOO_SLOW, f"{SCANS + 1} scans, of at most {SCANS}")
    refuse_many_scans(progressive[:-2] + scan * (SCANS - scans) + end, "photo")


def test_run_length_encoded_bmp_may_have_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    side = 64
    palette = b"".join(bytes((n, n, n, 0)) for n in range(256))
    runs = b"".join(
        b"".join(bytes((1, (row + column) % 256)) for column in range(side)) + b"\0\0"
        for row in range(side)
    )
    runs += b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    data = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs
    monkeypatch.setattr("face2vec.photos.decode.SMALL_READS", 100)
    rows, columns = np.mgrid[:side, :side]
    np.testing.assert_array_equal(open_photo(data).image[..., 0], (side - 1 - rows + columns) % 256)


def test_source_reads_what_a_stream_of_bytes_reads() -> None:
    stream = PhotoSource(b"0123456789", "photo")
    assert (stream.read(3), stream.read(), stream.read(5)) == (b"012", b"3456789", b"")
    stream.seek(8)
    assert stream.read(None) == b"89"


def test_diagnosis_of_damage_ends_at_absurd_counts() -> None:
    box = struct.pack(">I", 8) + b"free"
    whole = struct.pack(">I", 1000) + b"mdat"
    assert boxes_go_on(box * 5 + whole)
    assert not boxes_go_on(box * 200_000 + whole)
    failure = ValueError("no")
    entries = struct.pack("<HHQQ", 273, 4, 10**9, 16)
    absurd = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**12) + entries
    assert not is_truncated("TIFF", absurd, failure)
