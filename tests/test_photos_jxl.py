"""JPEG XL photos."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from helpers import needs
from PIL import Image

from face2vec import open_photo
from face2vec.errors import PhotoError
from face2vec.photos.jxl import jxl_size


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth, red at the left and green at the right."""
    across = np.linspace(0, 255, width).astype(np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 255 - across, across, 40
    return Image.fromarray(image)


def jxl(image: Image.Image, **options: object) -> bytes:
    needs("jxl", "pillow_jxl")
    import pillow_jxl  # noqa: F401

    memory = io.BytesIO()
    image.save(memory, "JXL", lossless=True, **options)
    return memory.getvalue()


@pytest.mark.parametrize("container", [False, True])
def test_jxl_photo_has_the_pixels_of_its_picture(container: bool) -> None:
    data = jxl(picture(), use_container=container)
    assert data.startswith(b"\xff\x0a") is not container
    assert np.array_equal(open_photo(data).image, np.asarray(picture()))
    small = open_photo(data, max_side=48)
    assert (small.image.shape, small.width, small.scale) == ((32, 48, 3), 96, 0.5)


def test_transparent_and_grey_jxl_photos_become_rgb() -> None:
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    assert open_photo(jxl(clear)).image.min() == 255
    grey = picture().convert("L")
    assert np.array_equal(open_photo(jxl(grey)).image[..., 1], np.asarray(grey))


def test_orientation_in_exif_does_not_turn_a_jxl_photo() -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # its codestream is upright (ISO/IEC 18181-2)
    photo = open_photo(jxl(picture(), exif=exif.tobytes()))
    assert np.array_equal(photo.image, np.asarray(picture()))


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size", [(96, 64), (64, 64), (8, 8), (300, 200), (801, 600), (1001, 7), (9, 1500), (512, 256)]
)
def test_jxl_size_is_read_before_decoding(container: bool, size: tuple[int, int]) -> None:
    assert jxl_size(jxl(picture(*size), use_container=container)) == size


def test_jxl_photo_has_a_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl(picture())
    monkeypatch.setattr("face2vec.photos.decode.jxl_image", lambda _: pytest.fail("decoded"))
    with pytest.raises(PhotoError, match="96×64 is more than 6,000") as caught:
        open_photo(data, max_pixels=6_000)
    assert caught.value.reason == "too many pixels"


def test_broken_jxl_photo_is_a_photo_error() -> None:
    data = jxl(picture(500, 400))
    for broken in (data[: len(data) // 2], b"\xff\x0a" + bytes(4096)):
        with pytest.raises(PhotoError) as caught:
            open_photo(broken)
        assert caught.value.reason in ("damaged", "truncated")


@pytest.mark.parametrize("head", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jxl_photo_without_the_package_gives_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(PhotoError, match=r"pip install 'face2vec\[jxl\]'") as caught:
        open_photo(head + bytes(100))
    assert caught.value.reason == "needs face2vec[jxl]"
