"""Messages of libtiff, which writes to standard error by itself."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image

from face2vec import PhotoError, open_photo
from face2vec.photos import libtiff


def damaged_tiff() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression="tiff_lzw")
    data = bytearray(stream.getvalue())
    for place in range(200, 2000, 7):
        data[place] ^= 0x55
    return bytes(data)


def test_messages_of_libtiff_go_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    if not libtiff.redirect():
        pytest.skip("libtiff is a part of Pillow's own module")
    with caplog.at_level(logging.INFO, "face2vec"), pytest.raises(PhotoError, match="damaged"):
        open_photo(damaged_tiff())
    assert capfd.readouterr().err == ""
    said = [record.getMessage() for record in caplog.records]
    assert said
    assert all(words.startswith("libtiff: tempfile.tif: ") for words in said)
    assert "code" in said[0]
