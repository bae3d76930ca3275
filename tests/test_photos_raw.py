"""Camera raw files, on small DNG files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from dng import dng
from helpers import needs
from PIL import Image

from face2vec import open_photo
from face2vec.errors import PhotoError
from face2vec.photos.decode import full_resolution
from face2vec.photos.raw import is_raw

RED = (200, 30, 40)


@pytest.fixture
def libraw() -> None:
    needs("raw", "rawpy")


def mosaic() -> np.ndarray:
    """A sensor of 300×200 values, dark above and bright below."""
    values = np.full((200, 300), 30_000, np.uint16)
    values[:100] = 2_000
    return values


def jpeg(width: int, height: int) -> bytes:
    """Red at its left, white at its right."""
    image = Image.new("RGB", (width, height), "white")
    image.paste(RED, (0, 0, width // 2, height))
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=95)
    return memory.getvalue()


def is_red(pixel: np.ndarray) -> bool:
    return bool(np.abs(pixel.astype(int) - RED).max() < 8)


@pytest.mark.usefixtures("libraw")
def test_raw_file_without_a_preview_is_developed_at_half_of_its_size() -> None:
    photo = open_photo(dng(mosaic()))
    assert photo.image.shape == (100, 150, 3)
    assert photo.image[10, 10].max() < 100 < 200 < photo.image[-10, -10].min()
    turned = open_photo(dng(mosaic(), orientation=6))
    assert turned.image.shape == (150, 100, 3)
    assert turned.image[10, 10].min() > 200 > 100 > turned.image[10, -10].max()


@pytest.mark.usefixtures("libraw")
@pytest.mark.parametrize(
    ("orientation", "size", "red"),
    [(1, (280, 180), (90, 10)), (3, (280, 180), (90, -10)), (6, (180, 280), (10, 90)),
     (8, (180, 280), (-10, 90))],
)  # fmt: skip
def test_embedded_preview_is_taken_and_turned_upright(
    orientation: int, size: tuple[int, int], red: tuple[int, int]
) -> None:
    photo = open_photo(dng(mosaic(), orientation=orientation, preview=jpeg(280, 180)))
    assert (photo.width, photo.height) == size
    assert is_red(photo.image[red])
    assert photo.image[tuple(-n for n in red)].min() > 240


@pytest.mark.usefixtures("libraw")
def test_small_preview_is_not_taken() -> None:
    photo = open_photo(dng(mosaic(), preview=jpeg(80, 60)))
    assert (photo.width, photo.height) == (150, 100)


@pytest.mark.usefixtures("libraw")
def test_raw_file_is_resized_and_read_again_at_full_size() -> None:
    photo = open_photo(dng(mosaic(), preview=jpeg(280, 180)), max_side=140)
    assert (photo.image.shape, photo.width, photo.scale) == ((90, 140, 3), 280, 0.5)
    assert full_resolution(photo).image.shape == (180, 280, 3)


@pytest.mark.usefixtures("libraw")
def test_damaged_raw_file_is_a_photo_error() -> None:
    data = dng(mosaic())
    for broken in (data[:600], b"II*\0\x10\0\0\0CR\2\0" + bytes(4096)):
        with pytest.raises(PhotoError) as caught:
            open_photo(broken)
        assert caught.value.reason in ("damaged", "truncated")


@pytest.mark.usefixtures("libraw")
def test_raw_file_has_a_limit_of_pixels() -> None:
    for data in (dng(mosaic()), dng(mosaic(), preview=jpeg(280, 180))):
        with pytest.raises(PhotoError, match="too many pixels"):
            open_photo(data, max_pixels=10_000)


def test_raw_file_without_the_package_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for data in (dng(mosaic()), b"II*\0\x10\0\0\0CR\2\0" + bytes(100)):
        with pytest.raises(PhotoError, match=r"pip install 'face2vec\[raw\]'") as caught:
            open_photo(data)
        assert caught.value.reason == "needs face2vec[raw]"


def test_is_raw_tells_sensors_from_pictures(tmp_path: Path) -> None:
    assert is_raw(dng(mosaic()))
    version = (50706).to_bytes(2, "little")
    assert is_raw(dng(mosaic()).replace(version, b"\x10\xc6", 1))  # by its filter array alone
    for options in ({}, {"compression": "tiff_lzw"}, {"big_tiff": True}):
        file = tmp_path / "a.tif"
        Image.new("RGB", (40, 30), RED).save(file, **options)
        assert not is_raw(file.read_bytes())
        assert open_photo(file).image.shape == (30, 40, 3)
    assert not is_raw(b"MM\0*\xff\xff\xff\xff")
    assert not is_raw(b"II*\0\x08\0\0\0\xff\xff" + bytes(40))
