"""What libraries in C write to standard error."""

from __future__ import annotations

import logging
import os
import re
import threading

import numpy as np
import pytest
from dng import dng

from face2vec import PhotoError, open_photo
from face2vec.photos.stderr import captured

WORDS = re.compile(rb"lib: ")


def test_lines_of_the_library_go_to_the_log_and_others_to_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "face2vec"), captured(WORDS, "Lib"):
        os.write(2, b"lib: one\nother\nlib: \xfftwo\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "other\nafter\n"
    assert [one.getMessage() for one in caplog.records] == ["Lib: lib: one", "Lib: lib: \\xfftwo"]


def test_standard_error_is_restored_when_the_last_of_several_threads_ends(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def write(number: int) -> None:
        for _ in range(50):
            with captured(WORDS, "Lib"):
                os.write(2, f"lib: {number}\nother {number}\n".encode())

    with caplog.at_level(logging.INFO, "face2vec"):
        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"other {n}" for n in range(4) for _ in range(50))
    assert len(caplog.records) == 200


def test_error_in_the_block_restores_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), captured(WORDS, "Lib"):
        raise ValueError("no")
    os.write(2, b"lib: after\n")
    assert capfd.readouterr().err == "lib: after\n"


def test_words_of_libraw_go_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rawpy")
    mosaic = np.random.default_rng(0).integers(0, 65535, (200, 300)).astype(np.uint16)
    data = dng(mosaic)
    with caplog.at_level(logging.INFO, "face2vec"), pytest.raises(PhotoError, match="truncated"):
        open_photo(data[: len(data) // 2])
    assert capfd.readouterr().err == ""
    assert [one.getMessage() for one in caplog.records] == [
        "LibRaw: unknown file: Unexpected end of file"
    ]
