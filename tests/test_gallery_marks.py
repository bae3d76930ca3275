"""Faces that a user has marked by hand, in a gallery's rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import fake_fingerprint, reads
from test_gallery_people import DIMENSION, face, photo

from face2vec.errors import GalleryDamagedError, GalleryError, SettingsError
from face2vec.gallery.audit import problems
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.people import PeopleWriter
from face2vec.gallery.rows import NO_FACE, Entry, face_row
from face2vec.types import Box, Mark

PLACE: Box = (20.0, 20.0, 36.0, 36.0)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Content 1 with face 1, content 2 without a face."""
    with Gallery.create(tmp_path / "g", fake_fingerprint(DIMENSION)) as made:
        with made.write() as writer:
            writer.record([photo(tmp_path, "one.jpg", face(1)), photo(tmp_path, "none.jpg")])
        yield made


def edit(gallery: Gallery, what: Callable[[PeopleWriter], object]) -> object:
    with gallery.write() as writer:
        return what(writer.people)


def marks(gallery: Gallery) -> list[Mark]:
    with gallery.read() as now:
        return [*now.marks(1), *now.marks(2)]


def test_mark_is_no_face_and_undo_takes_it_back(gallery: Gallery) -> None:
    assert edit(gallery, lambda p: p.mark(1, PLACE)) == 1
    assert marks(gallery) == [Mark(1, 1, PLACE)]
    assert reads(gallery).counts().faces == 1
    assert edit(gallery, lambda p: p.undo()) == "marking of a face by hand (mark 1)"
    assert marks(gallery) == []
    assert edit(gallery, lambda p: p.mark(2, PLACE)) == 2  # numbers are not reused
    assert reads(gallery).counts().no_face == 1
    assert problems(gallery) == []


def test_marked_face_is_a_face_and_undo_removes_it(gallery: Gallery) -> None:
    row = face_row(face(7, left=20.0), DIMENSION, "none.jpg")
    assert edit(gallery, lambda p: p.mark_face(2, row)) == 2
    (stored,) = reads(gallery).stored_faces([2])
    assert stored.face.box == (20.0, 0.0, 30.0, 10.0)
    assert reads(gallery).counts()[2:4] == (2, 0)
    assert problems(gallery) == []
    assert edit(gallery, lambda p: p.undo()) == "marking of face 2 by hand"
    assert reads(gallery).counts()[2:4] == (1, 1)
    assert problems(gallery) == []


def test_named_mark_belongs_to_a_person_and_undo_restores_nobody(gallery: Gallery) -> None:
    edit(gallery, lambda p: p.assign({}, [[1]]))
    edit(gallery, lambda p: p.name(1, "Ada"))
    edit(gallery, lambda p: p.mark(1, PLACE))
    edit(gallery, lambda p: p.mark(2, PLACE))
    assert edit(gallery, lambda p: p.name_mark(1, "Ada")) == 1
    assert edit(gallery, lambda p: p.name_mark(2, "Bob")) == 2
    assert [mark.person for mark in marks(gallery)] == [1, 2]
    assert reads(gallery).marks_of(1) == [Mark(1, 1, PLACE, 1)]
    assert edit(gallery, lambda p: p.name_mark(2, None)) is None
    assert edit(gallery, lambda p: p.undo()) == "statement that mark 2 is nobody"
    assert [mark.person for mark in marks(gallery)] == [1, 2]
    assert edit(gallery, lambda p: p.undo()) == "statement that mark 2 is 'Bob'"
    assert [mark.person for mark in marks(gallery)] == [1, None]
    assert [person.name for person in reads(gallery).people()] == ["Ada"]


def test_merge_takes_marks_along_and_undo_brings_them_back(gallery: Gallery) -> None:
    edit(gallery, lambda p: p.assign({}, [[1]]))
    edit(gallery, lambda p: p.mark(2, PLACE))
    edit(gallery, lambda p: p.name_mark(1, "Bob"))
    edit(gallery, lambda p: p.merge(1, [2]))
    assert marks(gallery) == [Mark(1, 2, PLACE, 1)]
    edit(gallery, lambda p: p.undo())
    assert marks(gallery) == [Mark(1, 2, PLACE, 2)]


def test_deleted_mark_comes_back_with_its_person_by_undo(gallery: Gallery) -> None:
    edit(gallery, lambda p: p.mark(2, PLACE))
    edit(gallery, lambda p: p.name_mark(1, "Bob"))
    edit(gallery, lambda p: p.unmark(1))
    assert marks(gallery) == []
    assert edit(gallery, lambda p: p.undo()) == "removal of mark 1"
    assert marks(gallery) == [Mark(1, 2, PLACE, 1)]
    with pytest.raises(GalleryError, match="there is no mark 9"):
        edit(gallery, lambda p: p.unmark(9))
    with pytest.raises(SettingsError, match="cannot be a name"):
        edit(gallery, lambda p: p.name_mark(1, "7"))


def test_mark_is_refused_where_a_face_is_or_was_ignored(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="face 1 is there already"):
        edit(gallery, lambda p: p.mark(1, (1.0, 0.0, 10.0, 10.0)))
    edit(gallery, lambda p: p.mark(1, PLACE))
    with pytest.raises(GalleryError, match="mark 1 is there already"):
        edit(gallery, lambda p: p.mark(1, (21.0, 20.0, 36.0, 36.0)))
    edit(gallery, lambda p: p.ignore([1]))
    with pytest.raises(GalleryError, match="ignored or forgotten here"):
        edit(gallery, lambda p: p.mark(1, (0.0, 0.0, 10.0, 10.0)))
    with pytest.raises(GalleryError, match="left the gallery"):
        edit(gallery, lambda p: p.mark(9, PLACE))


def test_removed_photo_takes_its_marks_along(gallery: Gallery, tmp_path: Path) -> None:
    edit(gallery, lambda p: p.mark(2, PLACE))
    edit(gallery, lambda p: p.unmark(1))
    with gallery.write() as writer:
        writer.remove([tmp_path / "none.jpg"])
    edit(gallery, lambda p: p.undo())  # of a photo that is gone
    assert marks(gallery) == []
    assert problems(gallery) == []


def test_forget_deletes_marks_and_photos_that_show_nobody_else(
    gallery: Gallery, tmp_path: Path
) -> None:
    edit(gallery, lambda p: p.mark(1, PLACE))
    edit(gallery, lambda p: p.mark(2, PLACE))
    edit(gallery, lambda p: p.name_mark(1, "Bob"))
    edit(gallery, lambda p: p.name_mark(2, "Bob"))
    assert edit(gallery, lambda p: p.forget(1)) == (1, 2)
    assert marks(gallery) == []
    assert reads(gallery).counts()[:3] == (1, 1, 1)
    assert reads(gallery).is_forgotten(photo(tmp_path, "none.jpg").sha256)
    with pytest.raises(GalleryError, match="ignored or forgotten here"):
        edit(gallery, lambda p: p.mark(1, PLACE))
    assert problems(gallery) == []


def test_forget_keeps_a_photo_with_a_mark_of_somebody_else(gallery: Gallery) -> None:
    edit(gallery, lambda p: p.assign({}, [[1]]))
    edit(gallery, lambda p: p.mark(1, PLACE))
    assert edit(gallery, lambda p: p.forget(1)) == (0, 1)
    assert marks(gallery) == [Mark(1, 1, PLACE)]
    assert reads(gallery).counts()[:4] == (2, 2, 0, 2)
    assert problems(gallery) == []


def test_face_that_is_found_when_the_photo_is_read_again_takes_the_place_of_a_mark(
    gallery: Gallery, tmp_path: Path
) -> None:
    edit(gallery, lambda p: p.mark(2, (20.0, 0.0, 31.0, 10.0)))
    edit(gallery, lambda p: p.mark(2, (0.0, 20.0, 10.0, 31.0)))
    edit(gallery, lambda p: p.name_mark(1, "Bob"))
    again = photo(tmp_path, "none.jpg", face(5, left=20.0))
    with gallery.write() as writer:
        writer.record([Entry(**{**vars(again), "again": True})])
    assert reads(gallery).person("Bob").faces == (2,)
    assert [mark.id for mark in marks(gallery)] == [2]
    edit(gallery, lambda p: p.undo())  # of the name of the mark, where the face is now
    assert [mark.id for mark in marks(gallery)] == [2]
    assert problems(gallery) == []


def test_photo_without_a_face_keeps_its_marks_when_it_is_read_again(
    gallery: Gallery, tmp_path: Path
) -> None:
    edit(gallery, lambda p: p.mark(2, PLACE))
    again = photo(tmp_path, "none.jpg")
    with gallery.write() as writer:
        writer.record([Entry(**{**vars(again), "again": True})])
    assert marks(gallery) == [Mark(1, 2, PLACE)]
    assert reads(gallery).counts().no_face == 1
    assert again.status == NO_FACE


def test_gallery_without_marks_is_read_and_migrated(gallery: Gallery, tmp_path: Path) -> None:
    edit(gallery, lambda p: p.assign({}, [[1]]))
    edit(gallery, lambda p: p.name(1, "Ada"))
    gallery.close()
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as connection:
        connection.execute("DROP TABLE marks")
        connection.execute("UPDATE sayings SET before = json_remove(before, '$.marks', '$.made')")
    connection.close()
    with Gallery.open(tmp_path / "g") as old:
        assert marks(old) == []
        edit(old, lambda p: p.undo())
        edit(old, lambda p: p.mark(1, PLACE))
        assert marks(old) == [Mark(1, 1, PLACE)]
        assert problems(old) == []


@pytest.mark.parametrize("value", ["'x'", "1e999", "zeroblob(9)"])
def test_invalid_mark_is_an_error(gallery: Gallery, tmp_path: Path, value: str) -> None:
    edit(gallery, lambda p: p.mark(1, PLACE))
    gallery.close()
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as connection:
        connection.execute(f"UPDATE marks SET bottom = {value}")
    connection.close()
    with (
        Gallery.open(tmp_path / "g") as opened,
        pytest.raises(GalleryDamagedError, match="a mark is"),
        opened.read() as now,
    ):
        now.marks(1)
