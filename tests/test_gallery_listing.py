"""Lists of photos of a gallery that somebody has changed, or that an older version has made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from helpers import fake_fingerprint
from test_gallery_people import DIMENSION, face, photo

from face2vec.errors import GalleryDamagedError
from face2vec.gallery import listing
from face2vec.gallery.gallery import Gallery


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery with two photos, not open."""
    with (
        Gallery.create(tmp_path / "g", fake_fingerprint(DIMENSION)) as made,
        made.write() as writer,
    ):
        writer.record([photo(tmp_path, "a.jpg", face(1)), photo(tmp_path, "b.jpg")])
        writer.people.assign({}, [[1]])
    return tmp_path / "g"


def change(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "gallery.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_changed_path_is_an_error_in_every_list(folder: Path) -> None:
    change(folder, "UPDATE photos SET path = CAST('c.jpg' AS BLOB) WHERE path = x'622e6a7067'")
    with Gallery.open(folder) as gallery:
        with pytest.raises(GalleryDamagedError, match=r"the path '.*c.jpg' has changed"):
            list(gallery.photos())
        with pytest.raises(GalleryDamagedError, match="has changed"), gallery.read() as now:
            listing.photo_page(now, listing.Wanted(), 0, 9)
        with pytest.raises(GalleryDamagedError, match="has changed"), gallery.write() as writer:
            writer.prune(force=True)


def test_copies_of_a_photo_are_counted(folder: Path) -> None:
    change(
        folder,
        "INSERT INTO photos (root_id, path, content_id, size, mtime_ns)"
        " SELECT root_id, x'632e6a7067', content_id, size, mtime_ns FROM photos"
        " WHERE path = x'612e6a7067'",
    )
    with Gallery.open(folder) as gallery, gallery.read() as now:
        listed = listing.photo_page(now, listing.Wanted(), 0, 9)
    assert {Path(one.path).name: one.copies for one in listed} == {
        "a.jpg": 1,
        "b.jpg": 0,
        "c.jpg": 1,
    }


def test_photo_of_a_missing_folder_is_an_error(folder: Path) -> None:
    change(folder, "PRAGMA foreign_keys = OFF", "UPDATE photos SET root_id = 99")
    with (
        Gallery.open(folder) as gallery,
        pytest.raises(GalleryDamagedError, match="the folder 99 is missing"),
        gallery.read() as now,
    ):
        listing.photo_page(now, listing.Wanted(), 0, 9)


def test_gallery_of_format_2_is_listed(folder: Path) -> None:
    later = ("apart", "marks", "ignored", "memberships", "refusals", "sayings", "forgotten")
    change(
        folder,
        *(f"DROP TABLE {table}" for table in (*later, "people")),
        "UPDATE meta SET value = '2' WHERE key = 'format'",
    )
    with Gallery.open(folder) as gallery, gallery.read() as now:
        assert listing.person_of(now, 1) is None
        assert listing.faces_in(now, 1) == [(1, None)]
        assert listing.count_photos(now, listing.Wanted(person=1)) == 0
        assert len(listing.photo_page(now, listing.Wanted(), 0, 9)) == 2
        assert now.marks(1) == []
        assert listing.version(now)
