"""Large photos wait for each other, across threads and processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gallery_builder import in_child
from helpers import posix_only
from PIL import Image

from face2vec import PhotoError, open_photo
from face2vec.photos import large


@pytest.fixture
def one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos from 100 pixels on are large, and one may be decoded at a time."""
    monkeypatch.setattr(large, "LARGE", 100)
    monkeypatch.setattr(large, "places", lambda: 1)
    monkeypatch.setattr(large.tempfile, "gettempdir", lambda: str(tmp_path))


def is_free() -> bool:
    """Whether another thread could decode a large photo now."""
    done = threading.Event()

    def take() -> None:
        with large.taking_turns():
            large.wait_if_large(1000)
            done.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return done.wait(0.3)


def test_large_photo_waits_until_the_one_before_is_decoded(one_place: None) -> None:
    with large.taking_turns():
        large.wait_if_large(1000)
        large.wait_if_large(1000)  # the same photo, measured twice
        assert not is_free()
    time.sleep(0.2)
    assert is_free()


def test_small_photo_never_waits(one_place: None) -> None:
    with large.taking_turns():
        large.wait_if_large(1000)
        assert open_photo(np.zeros((9, 9, 3), np.uint8)).width == 9


def test_place_is_freed_after_an_error(one_place: None, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    broken = (tmp_path / "whole.png").read_bytes()[:60]
    with pytest.raises(PhotoError):
        open_photo(broken)
    assert is_free()
    assert open_photo(tmp_path / "whole.png").width == 64
    assert is_free()


@posix_only
def test_place_of_a_killed_process_is_free(one_place: None) -> None:
    import os
    import signal

    reader, writer = os.pipe()

    def hold() -> None:
        with large.taking_turns():
            large.wait_if_large(1000)
            os.write(writer, b"x")
            signal.pause()

    child = in_child(hold)
    assert os.read(reader, 1) == b"x"
    assert not is_free()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    time.sleep(0.2)
    assert is_free()


def test_nobody_waits_without_a_folder_for_temporary_files(
    one_place: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(large.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with large.taking_turns():
        large.wait_if_large(1000)
        assert is_free()


def test_places_fit_into_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for gigabytes, places in ((2, 1), (4, 1), (8, 2), (24, 6)):
        large.places.cache_clear()
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 2**30 // 4096}
        monkeypatch.setattr(large.os, "sysconf", pages.__getitem__)
        assert large.places() == places
    large.places.cache_clear()
