"""What is read of people group by group equals what is read of all faces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import fake_fingerprint

from face2vec import GalleryDamagedError
from face2vec.gallery import groups
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.types import Face

QUALITIES = (0.2, None, 0.9, 0.9, 0.0, 0.5, None, 0.7)
POINTS = ((1.0, 1.0),) * 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight faces of four photos; people 1 (faces 1 to 4), 2 (faces 5, 6), 3 without any."""
    with Gallery.create(tmp_path, fake_fingerprint(4)) as gallery, gallery.write() as writer:
        rows = np.eye(4, dtype=np.float32)[np.arange(8) % 4]
        faces = [
            Face((0, 0, 9, 9), POINTS, 1.0 if number != 7 else 0.3, rows[number], quality=quality)
            for number, quality in enumerate(QUALITIES)
        ]
        writer.record(
            Entry("/a", f"{n}.jpg", 1, 1, bytes([n]) * 32, 9, 9, INDEXED, faces=tuple(pair))
            for n, pair in enumerate(zip(faces[::2], faces[1::2], strict=True))
        )
        writer.people.assign({}, [[1, 2, 3, 4], [5, 6]], again=True)
        writer.people.name(1, "Ada")
        writer.people.hide([2], True)
    return tmp_path


@pytest.fixture
def now(folder: Path) -> Iterator[Snapshot]:
    with Gallery.open(folder) as gallery, gallery.read() as now:
        yield now


def test_largest_people_come_first(now: Snapshot) -> None:
    assert groups.largest(now, 10) == [person.id for person in now.people()] == [1, 2]
    assert groups.largest(now, 1) == [1]


def test_outlines_have_names_and_counts(now: Snapshot) -> None:
    assert groups.outlines(now, [2, 1, 9]) == {1: ("Ada", False, 4), 2: (None, True, 2)}
    assert groups.outlines(now, []) == {}


def test_best_faces_are_in_order_of_quality_and_then_of_number(now: Snapshot) -> None:
    assert groups.best_faces(now, [2, 1], None) == {1: [3, 4, 1, 2], 2: [6, 5]}
    assert groups.best_faces(now, [1, 2], 3) == {1: [3, 4, 1], 2: [6, 5]}
    assert groups.best_faces(now, [], 3) == {}


def test_best_faces_of_many_people_are_read_in_parts(
    now: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_PEOPLE", 1)
    assert groups.best_faces(now, [1, 2], None) == {1: [3, 4, 1, 2], 2: [6, 5]}


def test_people_and_contents_of_faces(now: Snapshot) -> None:
    faces = np.array([8, 5, 1, 5, 99])
    assert groups.people_of(now, faces).tolist() == [0, 2, 1, 2, 0]
    assert groups.contents_of(now, faces).tolist() == [4, 3, 1, 3, 0]
    assert groups.people_of(now, faces[:0]).tolist() == []


def test_lone_faces_are_those_that_are_sure(now: Snapshot) -> None:
    assert list(groups.lone(now)) == [7]


def test_gallery_without_people_has_lone_faces_only(folder: Path) -> None:
    with sqlite3.connect(folder / "gallery.sqlite") as connection:
        connection.execute("DELETE FROM memberships")
    connection.close()
    with Gallery.open(folder) as gallery, gallery.read() as now:
        assert groups.largest(now, 10) == []
        assert groups.outlines(now, [1]) == {}
        assert list(groups.lone(now)) == [1, 2, 3, 4, 5, 6, 7]


def test_damaged_quality_is_told(folder: Path) -> None:
    with sqlite3.connect(folder / "gallery.sqlite") as connection:
        connection.execute("UPDATE faces SET parts = x'00' WHERE id = 7")
    connection.close()
    with (
        Gallery.open(folder) as gallery,
        pytest.raises(GalleryDamagedError, match="quality of a face is invalid"),
        gallery.read() as now,
    ):
        list(groups.lone(now))
