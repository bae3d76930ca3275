"""Reading the file of a gallery beside SQLite leaves SQLite its locks: another process asks."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from gallery_builder import DIMENSION, entry_of
from helpers import fake_fingerprint, is_in_use, posix_only

from face2vec.gallery.connection import GalleryFile
from face2vec.gallery.descriptors import descriptor
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.schema import FILE

pytestmark = posix_only
OPEN_FILES = Path("/proc/self/fd")
needs_list_of_open_files = pytest.mark.skipif(
    not OPEN_FILES.exists(), reason="this system does not list the open files of a process"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Gallery.create(tmp_path / "gallery", fake_fingerprint(DIMENSION)).close()
    return tmp_path / "gallery"


def first_bytes(folder: Path, *, writable: bool = False) -> bytes:
    with descriptor(folder / FILE, writable=writable) as raw:
        return os.read(raw, 6)


def open_files(folder: Path) -> int:
    links = [str(one.readlink()) for one in OPEN_FILES.iterdir() if one.is_symlink()]
    return links.count(str(folder / FILE))


def test_closing_another_descriptor_gives_up_the_lock(folder: Path) -> None:
    """What this module is for; if it fails, this system does not need it."""
    file = GalleryFile(folder)
    file.borrow()
    assert is_in_use(folder)
    (folder / FILE).read_bytes()
    assert not is_in_use(folder)
    file.close()


@pytest.mark.parametrize("writable", [False, True])
def test_descriptor_leaves_a_gallery_in_use_locked(folder: Path, writable: bool) -> None:
    file = GalleryFile(folder)
    file.borrow()
    for _ in range(2):
        assert first_bytes(folder, writable=writable) == b"SQLite"
        assert is_in_use(folder)
    file.close()
    assert not is_in_use(folder)


def test_second_object_of_a_gallery_leaves_the_first_one_locked(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"any content")
    with Gallery.open(folder) as first, first.read() as now:
        assert now.counts().photos == 0
        with Gallery.open(folder) as second, second.write() as writer:
            writer.record([entry_of(tmp_path, "photo.jpg")])
            writer.remove(tmp_path)  # what was removed is overwritten in the file
        assert is_in_use(folder)
    assert not is_in_use(folder)


@needs_list_of_open_files
def test_descriptors_are_used_again_and_closed_with_the_last_connection(folder: Path) -> None:
    file = GalleryFile(folder)
    file.borrow()
    before = open_files(folder)
    for _ in range(5):
        first_bytes(folder)
    with descriptor(folder / FILE) as one, descriptor(folder / FILE) as other:
        assert one != other
    assert open_files(folder) == before + 2
    file.close()
    assert open_files(folder) == 0
    first_bytes(folder)
    assert open_files(folder) == 0


@needs_list_of_open_files
def test_reading_and_writing_in_turn_opens_no_more_files(folder: Path) -> None:
    file = GalleryFile(folder)
    file.borrow()
    before = open_files(folder)
    for _ in range(4):
        first_bytes(folder, writable=True)
        first_bytes(folder)
        first_bytes(folder)
    assert open_files(folder) <= before + 2
    file.close()
    assert open_files(folder) == 0


@needs_list_of_open_files
def test_descriptors_of_an_object_that_was_never_closed_are_closed(folder: Path) -> None:
    file = GalleryFile(folder)
    file.borrow()
    first_bytes(folder)
    del file
    gc.collect()
    assert open_files(folder) == 0


def test_forked_child_keeps_no_descriptors_for_its_parent(folder: Path) -> None:
    file = GalleryFile(folder)
    file.borrow()
    first_bytes(folder)
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if first_bytes(folder) == b"SQLite" else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert is_in_use(folder)
    file.close()
