from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_builder import DIMENSION, build, entry_of, fake_faces
from helpers import (
    Started,
    fake_fingerprint,
    names_of_any_bytes,
    posix_only,
    reads,
    run_python,
    state_of,
)

from face2vec.errors import (
    GalleryDamagedError,
    GalleryError,
    GalleryLockedError,
    GalleryNotFoundError,
    GalleryVersionError,
)
from face2vec.gallery.audit import problems
from face2vec.gallery.connection import GalleryFile, limited_time
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Counts, State
from face2vec.gallery.rows import INDEXED, NO_FACE, UNREADABLE, Entry, Removed
from face2vec.gallery.staging import NewEmbeddings, upgrade_in_progress
from face2vec.types import Face

HERE = Path(__file__).parent
BUILDER = HERE / "gallery_builder.py"
ROOT = "/photos/family"


def face(seed: int, dimension: int = DIMENSION) -> Face:
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal(dimension).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    points = tuple((float(x), float(y)) for x, y in 1000 * rng.random((5, 2)))
    box = tuple(float(v) for v in 1000 * rng.random(4))
    return Face(box, points, float(rng.random()), embedding, quality=float(rng.random()))


def sha(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def entry(
    path: str, content: object, *faces: Face, root: str = ROOT, size: int = 7, mtime_ns: int = 9
) -> Entry:
    status = INDEXED if faces else NO_FACE
    return Entry(root, path, size, mtime_ns, sha(content), 400, 300, status, "", faces)


def link(path: str, content: object, root: str = ROOT) -> Entry:
    return Entry.link(root, path, 7, 9, sha(content))


def dump(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, without the name that each gallery has for itself."""
    connection = sqlite3.connect(f"{(folder / 'gallery.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: [
                row
                for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2")
                if row[0] != "uuid"
            ]
            for (name,) in tables.fetchall()
        }
    finally:
        connection.close()


def change(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "gallery.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def batches_of(gallery: Gallery, size: int = 1024) -> list[tuple[np.ndarray, np.ndarray]]:
    with gallery.read(batch_size=size) as now:
        return list(now)


def raw(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gallery"


@pytest.fixture
def gallery(folder: Path) -> Iterator[Gallery]:
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        yield gallery


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files of which some hold 0, 1 and 2 fake faces, one is broken and two are copies."""
    root = tmp_path / "photos"
    for i in range(22):
        file = root / f"day{i % 3}" / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"broken" if i == 5 else b"photo %d" % i)
    shutil.copy2(root / "day0" / "03.jpg", root / "day1" / "copy.jpg")
    shutil.copy2(root / "day2" / "08.jpg", root / "day0" / "other copy.jpg")
    return root


# Creating and opening


def test_create_keeps_what_the_gallery_is_made_with(gallery: Gallery, folder: Path) -> None:
    with Gallery.open(folder) as again:
        assert again.fingerprint == fake_fingerprint(DIMENSION)
        assert again.dimension == DIMENSION
        assert again.uuid == gallery.uuid
        assert again.folder == folder
        assert reads(again).counts() == Counts(0, 0, 0, 0, 0)
        assert state_of(again) == State(gallery.uuid, 0, 0)
        assert problems(again) == []


def test_create_gives_every_gallery_its_own_uuid(gallery: Gallery, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "other", fake_fingerprint(DIMENSION)) as other:
        assert other.uuid != gallery.uuid


def test_create_refuses_where_a_gallery_is(gallery: Gallery, folder: Path) -> None:
    before = raw(folder)
    with pytest.raises(GalleryError, match="already"):
        Gallery.create(folder, fake_fingerprint(DIMENSION))
    assert raw(folder) == before


def test_create_reports_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(GalleryError, match="cannot create the folder"):
        Gallery.create(tmp_path / "file" / "gallery", fake_fingerprint(DIMENSION))
    with pytest.raises(GalleryError, match="file is a file, and a gallery is a folder"):
        Gallery.create(tmp_path / "file", fake_fingerprint(DIMENSION))


def test_open_reports_a_missing_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryNotFoundError, match="face2vec index"):
        Gallery.open(tmp_path)
    with pytest.raises(GalleryNotFoundError):
        Gallery.open(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_open_refuses_a_newer_format(gallery: Gallery, folder: Path) -> None:
    change(folder, "UPDATE meta SET value = '5' WHERE key = 'format'")
    with pytest.raises(GalleryVersionError, match=r"format 5; this face2vec reads formats up to 4"):
        Gallery.open(folder)


def test_open_refuses_the_format_before_the_first_release(gallery: Gallery, folder: Path) -> None:
    change(folder, "UPDATE meta SET value = '1' WHERE key = 'format'")
    before = (folder / "gallery.sqlite").read_bytes()
    with pytest.raises(GalleryVersionError, match=r"format 1.*index the photos again"):
        Gallery.open(folder)
    assert (folder / "gallery.sqlite").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database" * 99, b"SQLite format 3\0"])
def test_open_refuses_a_file_that_is_no_database(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "gallery.sqlite").write_bytes(content)
    with pytest.raises(GalleryDamagedError, match="nothing was overwritten"):
        Gallery.open(folder)
    assert [f.name for f in folder.iterdir()] == ["gallery.sqlite"]
    assert (folder / "gallery.sqlite").read_bytes() == content


def test_open_refuses_a_database_of_something_else(folder: Path) -> None:
    folder.mkdir()
    change(folder, "CREATE TABLE songs (title)")
    before = raw(folder)
    with pytest.raises(GalleryDamagedError, match="not a gallery"):
        Gallery.open(folder)
    assert raw(folder) == before


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'fingerprint'",
        "UPDATE meta SET value = '{' WHERE key = 'fingerprint'",
        "UPDATE meta SET value = 'x' WHERE key = 'format'",
    ],
)
def test_open_refuses_a_gallery_without_a_description(
    gallery: Gallery, folder: Path, statement: str
) -> None:
    change(folder, statement)
    with pytest.raises(GalleryDamagedError, match="its description is missing or wrong"):
        Gallery.open(folder)


def test_closed_gallery_raises_an_error(gallery: Gallery) -> None:
    gallery.close()
    gallery.close()
    with pytest.raises(GalleryError, match="is closed"):
        reads(gallery).counts()


INFINITE = struct.pack("<d", float("inf"))
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            ["DROP TABLE photos",
             f"CREATE VIEW photos AS {ENDLESS} 1 AS root_id, x'00' AS path, i AS content_id,"
             " 1 AS size, 1 AS mtime_ns FROM n"],
            "it has the view 'photos'",
        ),
        (
            ["DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} i AS key, i AS value FROM n"],
            "'meta' is not a table",
        ),
        ([f"CREATE VIEW more AS {ENDLESS} i FROM n"], "it has the view 'more'"),
        (
            [f"CREATE TRIGGER more AFTER INSERT ON photos BEGIN {ENDLESS} count(*) FROM n; END"],
            "it has the trigger 'more'",
        ),
        (
            ["DROP TRIGGER face_added",
             "CREATE TRIGGER face_added AFTER INSERT ON faces BEGIN DELETE FROM photos; END"],
            "it has the trigger 'face_added'",
        ),
        (["CREATE VIRTUAL TABLE more USING rtree(i, a, b)"], "it has the virtual table 'more'"),
        (["DROP TABLE embeddings"], "'embeddings' is not a table"),
        (["ALTER TABLE faces DROP COLUMN quality"], "'quality' of 'faces' is missing"),
        (
            ["DROP TABLE people",
             "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT AS (hex(id)))"],
            "'name' of 'people' is missing or another",
        ),
    ],
)  # fmt: skip
def test_open_refuses_views_and_what_else_is_not_a_table_of_a_gallery(
    gallery: Gallery, folder: Path, statements: list[str], words: str
) -> None:
    gallery.close()
    for statement in statements:
        change(folder, statement)
    before = (folder / "gallery.sqlite").read_bytes()
    with pytest.raises(GalleryDamagedError, match=re.escape(words)):
        Gallery.open(folder)
    assert (folder / "gallery.sqlite").read_bytes() == before


def test_open_accepts_tables_and_indexes_that_it_does_not_know(
    gallery: Gallery, folder: Path
) -> None:
    change(folder, "ANALYZE")
    change(folder, "CREATE TABLE notes (text)")
    change(folder, "CREATE INDEX by_quality ON faces (quality)")
    with Gallery.open(folder) as again:
        assert problems(again) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fingerprint", "{}"), ("fingerprint", "[]"), ("fingerprint", b"{}"),
        ("fingerprint", "[" * 100_000), ("dimension", "0"), ("dimension", "-5"),
        ("dimension", "9" * 5000), ("dimension", str(2**70)), ("uuid", b"\x00"),
        ("format", b"3"), ("more", b"bytes"),
    ],
)  # fmt: skip
def test_open_refuses_a_description_of_other_types(
    gallery: Gallery, folder: Path, key: str, value: object
) -> None:
    gallery.close()
    connection = sqlite3.connect(folder / "gallery.sqlite")
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
    connection.commit()
    connection.close()
    with pytest.raises(GalleryDamagedError, match="nothing was overwritten"):
        Gallery.open(folder)


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE people SET name = x'41'", lambda now: now.people()),
        ("UPDATE people SET name = x'41'", lambda now: now.person(1)),
        ("UPDATE memberships SET person_id = 'one'", lambda now: now.memberships()),
        ("UPDATE roots SET path = 'text'", lambda now: now.roots),
        ("UPDATE photos SET path = 'text'", lambda now: now.faces([1]).records()),
        ("UPDATE contents SET reason = x'00'", lambda now: now.photos(1, b"", 9)),
        ("UPDATE contents SET width = 'wide'", lambda now: now.size_of(f"{ROOT}/0.jpg")),
        ("UPDATE contents SET width = 'wide'", lambda now: now.landmarks()),
        ("UPDATE faces SET landmarks = 'text'", lambda now: now.landmarks()),
        ("UPDATE faces SET embedding_crc32 = 'text'", lambda now: now.crc32s([1])),
        ("UPDATE faces SET embedding_crc32 = 'text'", lambda now: now.all_crc32s()),
        ("UPDATE faces SET confidence = 'sure'", lambda now: now.faces([1]).records()),
        ("UPDATE faces SET \"left\" = 9e999", lambda now: now.faces([1]).records()),
        (f"UPDATE faces SET landmarks = x'{10 * INFINITE.hex()}'",
         lambda now: now.faces([1]).records()),
        ("UPDATE journal SET history = 'text'", lambda now: now.state),
        ("UPDATE journal SET history = 5, face_id = 'text'",
         lambda now: now.changes_since(State(now.state.gallery_uuid))),
        ("UPDATE embeddings SET embedding = 'text'", lambda now: list(now)),
        ("UPDATE embeddings SET embedding = 'text'", lambda now: now.embeddings([1])),
    ],
)  # fmt: skip
def test_values_of_other_types_are_reported_as_damage(
    gallery: Gallery, folder: Path, statement: str, read: Any
) -> None:
    with gallery.write() as writer:
        writer.record([entry("0.jpg", "a", face(1))])
        writer.people.assign({}, [[1]])
        writer.people.name(1, "Ada")
    gallery.close()
    change(folder, statement)
    with (
        Gallery.open(folder) as again,
        pytest.raises(GalleryDamagedError, match="is damaged"),
        again.read() as now,
    ):
        read(now)


@pytest.mark.parametrize(
    "before",
    ["{", "7", "[]", "{}", '{"people": 1, "faces": [], "members": [], "refused": []}',
     '{"people": [[1, "gone", null]], "faces": [], "members": [], "refused": []}',
     '{"people": [[1, "there", 7]], "faces": [], "members": [], "refused": []}',
     '{"people": [], "faces": ["one"], "members": [], "refused": []}',
     '{"people": [], "faces": [], "members": [[1, 2]], "refused": []}'],
)  # fmt: skip
def test_edit_that_is_not_one_is_reported_as_damage(
    gallery: Gallery, folder: Path, before: str
) -> None:
    with gallery.write() as writer:
        writer.record([entry("0.jpg", "a", face(1))])
        writer.people.assign({}, [[1]])
        writer.people.name(1, "Ada")
    change(folder, f"UPDATE sayings SET before = '{before}'")
    with gallery.write() as writer, pytest.raises(GalleryDamagedError, match="an edit"):
        writer.people.undo()
    assert [person.name for person in reads(gallery).people()] == ["Ada"]


def test_path_that_has_changed_is_reported_as_damage(gallery: Gallery, folder: Path) -> None:
    with gallery.write() as writer:
        writer.record([entry("0.jpg", "a", face(1)), entry("1.jpg", "b", face(2))])
    change(
        folder, "UPDATE photos SET path = CAST('7.jpg' AS BLOB) WHERE path = CAST('0.jpg' AS BLOB)"
    )
    with gallery.read() as now:
        assert [one.photo for one in now.stored_faces([2])] == [f"{ROOT}/1.jpg"]
        with pytest.raises(GalleryDamagedError, match=r"7\.jpg' has changed on the disk"):
            now.stored_faces([1])


@pytest.mark.parametrize("column", ["cover", "hidden"])
@pytest.mark.parametrize("value", ["X''", "'one'", "1.5"])
def test_person_with_a_wrong_value_is_reported_as_damage(
    gallery: Gallery, folder: Path, column: str, value: str
) -> None:
    with gallery.write() as writer:
        writer.record([entry("0.jpg", "a", face(1))])
        writer.people.assign({}, [[1]])
    change(folder, f"UPDATE people SET {column} = {value}")
    with pytest.raises(GalleryDamagedError, match="cover of a person"), gallery.read() as now:
        now.people()
    with (
        gallery.write() as writer,
        pytest.raises(GalleryDamagedError, match="cover of a person"),
    ):
        writer.people.name(1, "Ada")


def test_upgrade_file_that_is_noise_is_reported_as_damage(gallery: Gallery, folder: Path) -> None:
    (folder / "upgrade.sqlite").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(GalleryDamagedError, match=r"upgrade\.sqlite"):
        upgrade_in_progress(folder)


def test_connections_trust_nothing_in_the_file(gallery: Gallery) -> None:
    with gallery.read() as now:
        for setting, value in (("trusted_schema", 0), ("cell_size_check", 1)):
            assert now.connection.execute(f"PRAGMA {setting}").fetchone() == (value,)


def test_statement_that_does_not_end_is_interrupted() -> None:
    connection = sqlite3.connect(":memory:")
    with limited_time(connection, 0.05), pytest.raises(sqlite3.OperationalError, match="interrupt"):
        connection.execute(f"{ENDLESS} count(*) FROM n").fetchone()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


# Recording and reading


def test_stored_faces_equal_the_recorded_faces(gallery: Gallery) -> None:
    one, two, three = face(1), face(2), face(3)
    with gallery.write() as writer:
        assert writer.record([entry("a.jpg", "a", one, two), entry("b.jpg", "b", three)]) == []
    found = reads(gallery).stored_faces([3, 99, 1, 2])
    assert [stored.face.id for stored in found] == [3, 1, 2]
    assert [stored.photo for stored in found] == [f"{ROOT}/{n}.jpg" for n in "baa"]
    for stored, original in zip(found, [three, one, two], strict=True):
        assert stored.face.box == original.box
        assert stored.face.landmarks == original.landmarks
        assert stored.face.confidence == original.confidence
        assert stored.face.quality == original.quality
        assert stored.face.embedding.dtype == np.float32
        np.testing.assert_array_equal(stored.face.embedding, original.embedding)
        assert stored.copies == ()


def test_stored_faces_without_embeddings_are_otherwise_equal(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1))])
    (light,) = reads(gallery).stored_faces([1], with_embeddings=False)
    (whole,) = reads(gallery).stored_faces([1])
    assert light.face.embedding is None
    assert (light.photo, light.face.box, light.face.landmarks, light.face.confidence) == (
        whole.photo, whole.face.box, whole.face.landmarks, whole.face.confidence
    )  # fmt: skip


def test_faces_takes_more_ids_than_one_query_may_have(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry(f"{i}.jpg", i, face(i)) for i in range(1200)])
    ids = list(range(1200, 0, -1))
    assert [stored.face.id for stored in reads(gallery).stored_faces(ids)] == ids
    assert reads(gallery).stored_faces([]) == []


def test_snapshot_returns_exactly_the_requested_faces(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry(f"{i}.jpg", i, face(i)) for i in range(1200)])
    for mapped in (False, True):
        with gallery.read(mmap=mapped) as now:
            for ids in ([], [7], list(range(2, 20)), list(range(3, 1150, 2)), [5, 5000]):
                records = now.faces(ids).records()
                there = [i for i in ids if i <= 1200]
                assert sorted(one.face.id or 0 for one in records) == there
                assert [one.face.id for one in now.faces(ids).of(there[::-1]).records()] == (
                    there[::-1]
                )
                np.testing.assert_array_equal(
                    now.embeddings(there),
                    np.array([face(i - 1).embedding for i in there]).reshape(-1, DIMENSION),
                )


def test_embeddings_keep_the_order_of_ids_and_are_nan_for_unknown_ids(gallery: Gallery) -> None:
    faces = [face(i) for i in range(3)]
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", *faces)])
    found = reads(gallery).embeddings(np.array([3, 7, 1]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], faces[2].embedding)
    np.testing.assert_array_equal(found[2], faces[0].embedding)
    assert np.isnan(found[1]).all()
    assert reads(gallery).embeddings([]).shape == (0, DIMENSION)


def test_embeddings_take_many_ids_some_twice_and_some_gone(gallery: Gallery) -> None:
    faces = [face(i) for i in range(200)]
    with gallery.write() as writer:
        writer.record([entry(f"{i}.jpg", i, one) for i, one in enumerate(faces)])
    stored = np.stack([one.embedding for one in faces])
    for count in (1, 7, 8, 9, 63, 64, 65, 333):
        ids = np.random.default_rng(count).integers(1, 250, count)
        found = reads(gallery).embeddings(ids)
        there = ids <= 200
        np.testing.assert_array_equal(found[there], stored[ids[there] - 1])
        assert np.isnan(found[~there]).all()


def test_several_snapshots_are_of_one_state(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), face(2))])
    for mapped in (False, True):
        with gallery.read(mmap=mapped) as now, now.several(3) as same:
            assert same[0] is now
            assert [one.state for one in same] == [now.state] * 3
            with ThreadPoolExecutor(3) as pool:
                read = pool.map(lambda one: [one.embeddings([2, 1]) for _ in range(100)], same)
                for embeddings in (each for one in read for each in one):
                    np.testing.assert_array_equal(
                        embeddings, [face(2).embedding, face(1).embedding]
                    )


def test_several_snapshots_leave_out_those_of_a_newer_state(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1))])
        with gallery.read() as now:
            writer.record([entry("b.jpg", "b", face(2))])
            with now.several(3) as same:
                assert same == [now]
    with gallery.read() as now, now.several(2) as same:
        assert len(same) == 2


def test_snapshot_iterates_over_all_embeddings_in_batches_in_order_of_id(gallery: Gallery) -> None:
    faces = [face(i) for i in range(7)]
    with gallery.write() as writer:
        writer.record([entry(f"{i}.jpg", i, f) for i, f in enumerate(faces)])
    batches = batches_of(gallery, 3)
    assert [list(ids) for ids, _ in batches] == [[1, 2, 3], [4, 5, 6], [7]]
    assert batches[0][0].dtype == np.int64
    np.testing.assert_array_equal(
        np.concatenate([e for _, e in batches]), np.stack([f.embedding for f in faces])
    )


def test_snapshot_stays_one_state_and_can_be_read_twice(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), face(2))])
        before = state_of(gallery)
        with gallery.read() as snapshot:
            writer.record([entry("b.jpg", "b", face(3))])
            assert (snapshot.state, snapshot.count) == (before, 2)
            assert before.position == 2
            for _ in range(2):
                assert [list(ids) for ids, _ in snapshot] == [[1, 2]]
        assert [list(ids) for ids, _ in batches_of(gallery)] == [[1, 2, 3]]


def test_counts_and_photos_give_the_status_of_each_photo(gallery: Gallery) -> None:
    broken = Entry(ROOT, "c.jpg", 1, 2, sha("c"), 0, 0, UNREADABLE, "truncated")
    with gallery.write() as writer:
        writer.record([entry("d/a.jpg", "a", face(1), face(2)), entry("b.jpg", "b"), broken])
        writer.record([link("copy.jpg", "a"), link("copy of b.jpg", "b")])
    assert reads(gallery).counts() == Counts(photos=5, contents=3, faces=2, no_face=2, unreadable=1)
    assert list(gallery.photos()) == [
        (f"{ROOT}/b.jpg", NO_FACE, ""),
        (f"{ROOT}/c.jpg", UNREADABLE, "truncated"),
        (f"{ROOT}/copy of b.jpg", NO_FACE, ""),
        (f"{ROOT}/copy.jpg", INDEXED, ""),
        (f"{ROOT}/d/a.jpg", INDEXED, ""),
    ]


def test_photos_iterates_over_several_pages(gallery: Gallery) -> None:
    names = [f"{i:04}.jpg" for i in range(2500)]
    with gallery.write() as writer:
        writer.record([entry(name, name) for name in names])
    assert [path for path, _, _ in gallery.photos()] == [f"{ROOT}/{name}" for name in names]


def test_stat_of_is_what_was_recorded(gallery: Gallery) -> None:
    with gallery.write() as writer:
        assert reads(gallery).stat_of(ROOT, "a.jpg") is None
        writer.record([entry("a.jpg", "a", size=123, mtime_ns=1_600_000_000_123_456_789)])
        assert reads(gallery).stat_of(ROOT, "a.jpg") == (123, 1_600_000_000_123_456_789)
        writer.record([entry("a.jpg", "a", size=123, mtime_ns=5)])
        assert reads(gallery).stat_of(ROOT, "a.jpg") == (123, 5)
    assert reads(gallery).stat_of(ROOT, "a.jpg") == (123, 5)
    assert reads(gallery).stat_of(ROOT + "/", "a.jpg") == (123, 5)
    assert reads(gallery).stat_of(ROOT, "b.jpg") is None
    assert reads(gallery).stat_of("/elsewhere", "a.jpg") is None


def test_record_keeps_a_time_that_does_not_fit(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", mtime_ns=2**70)])
    assert reads(gallery).stat_of(ROOT, "a.jpg") == (7, 2**63 - 1)


def test_content_of_knows_the_hash(gallery: Gallery) -> None:
    with gallery.write() as writer:
        assert reads(gallery).content_of(sha("a")) is None
        writer.record([entry("a.jpg", "a")])
        assert reads(gallery).content_of(sha("a")) == 1
    assert reads(gallery).content_of(sha("a")) == 1
    assert reads(gallery).content_of(sha("b")) is None


def test_record_stores_the_same_bytes_once_under_each_name(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("b.jpg", "same", face(1)), entry("a.jpg", "same", face(1))])
        writer.record([link("z/c.jpg", "same")])
    assert reads(gallery).counts() == Counts(3, 1, 1, 0, 0)
    (stored,) = reads(gallery).stored_faces([1])
    assert stored.photo == f"{ROOT}/a.jpg"
    assert stored.copies == (f"{ROOT}/b.jpg", f"{ROOT}/z/c.jpg")
    for name in ("a.jpg", "b.jpg", "z/c.jpg"):
        assert [s.face.id for s in reads(gallery).faces_of(f"{ROOT}/{name}")] == [1]


def test_faces_of_a_photo_without_faces_or_unknown_is_empty(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a")])
    assert reads(gallery).faces_of(f"{ROOT}/a.jpg") == []
    assert reads(gallery).faces_of(f"{ROOT}/b.jpg") == []
    assert reads(gallery).faces_of("/elsewhere/b.jpg") == []


def test_record_replaces_the_faces_of_a_changed_photo(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "before", face(1), face(2)), entry("b.jpg", "b", face(3))])
        writer.record([entry("a.jpg", "after", face(4), size=8)])
    assert [s.face.id for s in reads(gallery).faces_of(f"{ROOT}/a.jpg")] == [4]
    assert reads(gallery).stat_of(ROOT, "a.jpg") == (8, 9)
    assert reads(gallery).content_of(sha("before")) is None
    assert [list(ids) for ids, _ in batches_of(gallery)] == [[3, 4]]
    assert problems(gallery) == []


def test_record_keeps_replaced_bytes_that_have_another_name(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "x", face(1)), link("copy.jpg", "x")])
        writer.record([entry("a.jpg", "y", face(2))])
    (stored,) = reads(gallery).stored_faces([1])
    assert (stored.photo, stored.copies) == (f"{ROOT}/copy.jpg", ())


def test_record_gives_bytes_to_another_name_within_one_batch(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "x", face(1)), entry("b.jpg", "y", face(2))])
        assert writer.record([link("a.jpg", "y"), link("b.jpg", "x")]) == []
    assert [s.photo for s in reads(gallery).stored_faces([1, 2])] == [
        f"{ROOT}/b.jpg",
        f"{ROOT}/a.jpg",
    ]
    assert state_of(gallery).position == 2


def test_record_hands_back_links_to_bytes_that_have_left(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "x", face(1))])
        writer.record([entry("a.jpg", "y", face(2))])
        late = link("b.jpg", "x")
        assert writer.record([late, link("c.jpg", "y")]) == [late]
    assert reads(gallery).stat_of(ROOT, "b.jpg") is None
    assert reads(gallery).stat_of(ROOT, "c.jpg") == (7, 9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (entry("b.jpg", "b", face(1, dimension=8)), r"shape \(8,\); this gallery takes \(16,\)"),
        (entry("b.jpg", "b", Face((0, 0, 1, 1), face(1).landmarks, 1.0)), r"shape \(\)"),
        (
            entry("b.jpg", "b", face(1).with_embedding(2 * face(1).embedding)),
            r"length 2\.0\d*, not 1|length 1\.9\d*, not 1",
        ),
        (
            entry("b.jpg", "b", face(1).with_embedding(np.full(DIMENSION, np.nan, np.float32))),
            "length nan",
        ),
        (Entry(ROOT, "b.jpg", 1, 1, sha("b"), 1, 1, INDEXED), "with 0 faces"),
        (Entry(ROOT, "b.jpg", 1, 1, sha("b"), 1, 1, NO_FACE, "", (face(1),)), "with 1 faces"),
        (Entry(ROOT, "b.jpg", 1, 1, b"short", 1, 1, NO_FACE), "hash of 5 bytes"),
        (Entry(ROOT, "b.jpg", 1, 1, sha("b"), 1, 1, "lost"), "'lost'"),
        (entry("b.jpg", "b", root="photos"), "root must be absolute"),
        (entry("/photos/b.jpg", "b"), "relative to it"),
    ],
)
def test_record_refuses_invalid_entries_and_stores_nothing(
    gallery: Gallery, wrong: Entry, words: str
) -> None:
    with gallery.write() as writer:
        with pytest.raises(GalleryError, match=words):
            writer.record([entry("a.jpg", "a", face(1)), wrong])
        assert reads(gallery).counts() == Counts(0, 0, 0, 0, 0)


@names_of_any_bytes
def test_paths_that_are_no_text_survive(gallery: Gallery) -> None:
    name = os.fsdecode(b"caf\xe9/\xff\xfe.jpg")
    root = os.fsdecode(b"/photos/\xe9t\xe9")
    with gallery.write() as writer:
        writer.record([entry(name, "a", face(1), root=root), entry("übung 写真.jpg", "b")])
        assert reads(gallery).stat_of(root, name) == (7, 9)
    assert reads(gallery).stat_of(root, name) == (7, 9)
    assert reads(gallery).stored_faces([1])[0].photo == f"{root}/{name}"
    assert [path for path, _, _ in gallery.photos()] == [f"{root}/{name}", f"{ROOT}/übung 写真.jpg"]
    with gallery.write() as writer:
        assert writer.remove([f"{root}/{name}"]) == Removed(1, 1)


def test_a_photo_under_two_roots_is_listed_once(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("x.jpg", "x", face(1), root="/photos/family/trip")])
        writer.record([entry("trip/x.jpg", "x", face(1)), entry("y.jpg", "y", face(2))])
        assert reads(gallery).stat_of("/photos/family", "trip/x.jpg") == (7, 9)
        assert reads(gallery).stat_of("/photos/family/trip", "x.jpg") == (7, 9)
    with gallery.write() as writer:
        writer.record([entry("deep/z.jpg", "z", face(3), root="/photos")])
        writer.record([link("new.jpg", "y", root="/photos/family/trip/deeper")])
    assert sorted(path for path, _, _ in gallery.photos()) == [
        "/photos/deep/z.jpg",
        "/photos/family/trip/deeper/new.jpg",
        "/photos/family/trip/x.jpg",
        "/photos/family/y.jpg",
    ]
    assert reads(gallery).stored_faces([1])[0].copies == ()


def test_a_photo_in_the_root_of_the_file_system_has_a_whole_path(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), root="/")])
        assert reads(gallery).stat_of("/", "a.jpg") == (7, 9)
    assert reads(gallery).stored_faces([1])[0].photo == "/a.jpg"


# Removing


def test_remove_drops_a_photo_with_its_faces(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), face(2)), entry("b.jpg", "b", face(3))])
        assert writer.remove([f"{ROOT}/a.jpg", f"{ROOT}/unknown.jpg"]) == Removed(1, 2)
    assert reads(gallery).stored_faces([1, 2]) == []
    assert [s.face.id for s in reads(gallery).stored_faces([3])] == [3]
    assert reads(gallery).content_of(sha("a")) is None
    assert problems(gallery) == []


def test_remove_takes_one_name_from_a_photo_with_copies(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1)), link("copy.jpg", "a")])
        assert writer.remove(f"{ROOT}/a.jpg") == Removed(1, 0)
        assert reads(gallery).stored_faces([1])[0].photo == f"{ROOT}/copy.jpg"
        assert writer.remove(Path(ROOT) / "copy.jpg") == Removed(1, 1)


def real(folder: Path, *names: str) -> None:
    """Write files and record them as photos of the folder, each with a face."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def recorded(folder: Path, name: str, seed: int) -> Entry:
    status = (folder / name).stat()
    made = entry(name, name, face(seed), root=str(folder))
    return replace(made, size=status.st_size, mtime_ns=status.st_mtime_ns)


@posix_only
@pytest.mark.parametrize(
    "path",
    [
        "photos/trip/a.jpg",
        "photos/../photos/trip/./a.jpg",
        "to-trip/a.jpg",
        "to-trip/../trip/a.jpg",
        "to-a.jpg",
        "trip-of-link/a.jpg",
        "hard.jpg",
        "photos/trip",
        "to-trip",
        "to-trip/",
    ],
)
def test_remove_finds_a_photo_by_any_path_to_it(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    photos = tmp_path.resolve() / "photos"
    real(photos, "trip/a.jpg", "b.jpg")
    (tmp_path / "to-trip").symlink_to(photos / "trip")
    (tmp_path / "trip-of-link").symlink_to("to-trip")
    (tmp_path / "to-a.jpg").symlink_to(photos / "trip" / "a.jpg")
    os.link(photos / "trip" / "a.jpg", tmp_path / "hard.jpg")
    with gallery.write() as writer:
        writer.record([recorded(photos, "trip/a.jpg", 1), recorded(photos, "b.jpg", 2)])
    for asked in (path, str(tmp_path / path)):
        monkeypatch.chdir(tmp_path)
        with gallery.write() as writer:
            assert writer.remove(asked) == Removed(1, 1)
            assert writer.remove(asked) == Removed(0, 0)
            assert [name for name, _, _ in gallery.photos()] == [str(photos / "b.jpg")]
            writer.record([recorded(photos, "trip/a.jpg", 1)])


@posix_only
def test_remove_follows_a_link_before_it_goes_up(gallery: Gallery, tmp_path: Path) -> None:
    photos = tmp_path.resolve()
    real(photos, "a/trip/1.jpg", "1.jpg", "a/1.jpg")
    (photos / "link").symlink_to("a/trip")
    with gallery.write() as writer:
        writer.record([recorded(photos, name, n) for n, name in enumerate(("1.jpg", "a/1.jpg"))])
        assert writer.remove(photos / "link" / ".." / "1.jpg") == Removed(1, 1)
    assert [name for name, _, _ in gallery.photos()] == [str(photos / "1.jpg")]


@posix_only
def test_remove_of_a_recorded_link_leaves_its_target(gallery: Gallery, tmp_path: Path) -> None:
    photos = tmp_path.resolve()
    real(photos, "a.jpg")
    (photos / "link.jpg").symlink_to("a.jpg")
    with gallery.write() as writer:
        writer.record([recorded(photos, "a.jpg", 1), link("link.jpg", "a.jpg", root=str(photos))])
        assert writer.remove(photos / "link.jpg") == Removed(1, 0)
    assert [name for name, _, _ in gallery.photos()] == [str(photos / "a.jpg")]


def test_remove_finds_a_photo_in_the_other_normal_form(gallery: Gallery, tmp_path: Path) -> None:
    photos = tmp_path.resolve()
    real(photos, "Jose\u0301/e\u0301.jpg")
    with gallery.write() as writer:
        writer.record([recorded(photos, "Jose\u0301/e\u0301.jpg", 1)])
        assert writer.remove(photos / "Jos\xe9" / "\xe9.jpg") == Removed(1, 1)


def test_match_shows_the_copy_that_exists(gallery: Gallery, tmp_path: Path) -> None:
    photos = tmp_path.resolve()
    names = [str(photos / f"{name}.jpg") for name in "abc"]
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), root=str(photos))])
        writer.record([link(f"{name}.jpg", "a", root=str(photos)) for name in "bc"])

    def shown() -> tuple[str, tuple[str, ...]]:
        (stored,) = reads(gallery).stored_faces([1])
        return stored.photo, stored.copies

    assert shown() == (names[0], (names[1], names[2]))  # none exists
    Path(names[1]).touch()
    assert shown() == (names[1], (names[0], names[2]))
    Path(names[0]).touch()
    assert shown() == (names[0], (names[1], names[2]))


def test_remove_of_a_folder_removes_exactly_its_photos(gallery: Gallery) -> None:
    names = ["trip/a.jpg", "trip/deep/b.jpg", "trip.jpg", "trip2/c.jpg", "tri/d.jpg", "trip-e.jpg"]
    with gallery.write() as writer:
        writer.record([entry(name, name, face(i)) for i, name in enumerate(names)])
        writer.record([entry("f.jpg", "f", face(9), root="/other/trip")])
        assert writer.remove([f"{ROOT}/trip/"]) == Removed(2, 2)
    left = {path for path, _, _ in gallery.photos()}
    assert left == {f"{ROOT}/{name}" for name in names[2:]} | {"/other/trip/f.jpg"}
    with gallery.write() as writer:
        assert writer.remove(["/other"]) == Removed(1, 1)
        assert writer.remove([ROOT]) == Removed(4, 4)
    assert list(gallery.photos()) == []


def test_remove_never_reuses_an_id(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1))])
        writer.remove([f"{ROOT}/a.jpg"])
        writer.record([entry("a.jpg", "a", face(1))])
    assert [s.face.id for s in reads(gallery).stored_faces([1, 2])] == [2]


def test_removed_bytes_are_gone_from_every_file(gallery: Gallery, folder: Path) -> None:
    """In rounds over a gallery of many pages, in which SQLite moves rows about."""
    rng = random.Random(4)
    names = {i: f"day {rng.randrange(90)}/person-{i:06}-{rng.random()}.jpg" for i in range(3000)}
    order = sorted(names, key=names.__getitem__)
    rng.shuffle(order)
    with gallery.write() as writer:
        for start in range(0, len(order), 100):
            writer.record([entry(names[i], i, face(i)) for i in order[start : start + 100]])
    removed: set[int] = set()
    for share in (0.01, 0.4, 0.01, 0.5):
        left = sorted(set(order) - removed)
        some = rng.sample(left, int(share * len(left)))
        with gallery.write() as writer:
            writer.remove(f"{ROOT}/{names[i]}" for i in some)
        removed.update(some)
        everything = raw(folder)
        traces = [
            (i, what)
            for i in removed
            for what, trace in (
                ("path", names[i].encode()),
                ("hash", sha(i)),
                ("embedding", face(i).embedding.tobytes()[8:40]),
            )
            if trace in everything
        ]
        assert traces == []
    kept = (set(order) - removed).pop()
    assert names[kept].encode() in everything
    assert face(kept).embedding.tobytes()[8:40] in everything
    assert problems(gallery) == []


def test_removing_the_last_photo_of_a_root_forgets_the_folder(
    gallery: Gallery, folder: Path
) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), root="/photos/of-alice")])
        writer.remove(["/photos/of-alice/a.jpg"])
    assert b"of-alice" not in raw(folder)


def test_rows_kept_by_a_reader_are_purged_by_the_next_writer(
    gallery: Gallery,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("face2vec.gallery.connection._BUSY_SECONDS", 0.05)
    with gallery.write() as writer:
        writer.record([entry("secret.jpg", "a", face(1)), entry("b.jpg", "b", face(2))])
    with gallery.read() as snapshot:
        with gallery.write() as writer:
            writer.remove([f"{ROOT}/secret.jpg"])
        assert "stays in its -wal" in caplog.text
        assert [list(ids) for ids, _ in snapshot] == [[1, 2]]
    assert b"secret.jpg" in raw(folder)
    assert [p for p in problems(gallery) if "traces of removed photos" in p]
    with gallery.write() as writer:
        pass
    assert b"secret.jpg" not in raw(folder)
    assert problems(gallery) == []


def test_prune_removes_photos_without_a_file(gallery: Gallery, photos: Path) -> None:
    with gallery.write() as writer:
        files = sorted(photos.rglob("*.jpg"))
        writer.record([entry_of(photos, str(file.relative_to(photos))) for file in files])
    (photos / "day0" / "00.jpg").unlink()
    shutil.rmtree(photos / "day1")
    gone = [str(file) for file in files if not file.exists()]
    assert len(gone) == 9
    # day1 holds a copy of day0/03.jpg, whose faces stay.
    contents = {file.read_bytes() for file in files if file.exists()}
    before = reads(gallery).counts().faces
    with gallery.write() as writer:
        removed = writer.prune()
    assert removed.photos == len(gone)
    assert (
        reads(gallery).counts().faces
        == before - removed.faces
        == sum(len(fake_faces(c)) for c in contents if not c.startswith(b"broken"))
    )
    assert [path for path, _, _ in gallery.photos()] == [str(f) for f in files if f.exists()]


@pytest.mark.parametrize("empty", [False, True])
def test_prune_refuses_when_a_whole_folder_is_missing_or_empty(
    gallery: Gallery, tmp_path: Path, photos: Path, empty: bool
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.jpg").write_bytes(b"a")
    with gallery.write() as writer:
        writer.record([entry_of(disk, "a.jpg"), entry_of(photos, "day0/00.jpg")])
    before = reads(gallery).counts()
    shutil.rmtree(disk)
    if empty:
        disk.mkdir()
    with gallery.write() as writer:
        with pytest.raises(GalleryError, match=rf"{disk}.*connect its disk"):
            writer.prune()
        assert reads(gallery).counts() == before
        assert writer.prune(force=True).photos == 1
    assert [path for path, _, _ in gallery.photos()] == [str(photos / "day0/00.jpg")]


def test_prune_refuses_when_a_folder_inside_another_is_empty(
    gallery: Gallery, photos: Path
) -> None:
    files = sorted(photos.rglob("*.jpg"))
    with gallery.write() as writer:
        writer.record([entry_of(photos, str(file.relative_to(photos))) for file in files])
    shutil.rmtree(photos / "day1")
    (photos / "day1").mkdir()  # where a disk was
    with gallery.write() as writer:
        with pytest.raises(GalleryError, match=r"day1, which .* is missing or empty"):
            writer.prune()
        assert reads(gallery).counts().photos == len(files)
        (photos / "day1").rmdir()
        assert writer.prune().photos == len([file for file in files if not file.exists()])


# The journal


def test_changes_since_are_net_of_each_other(gallery: Gallery) -> None:
    with gallery.write() as writer:
        empty = state_of(gallery)
        writer.record([entry("a.jpg", "a", face(1)), entry("b.jpg", "b", face(2))])
        start = state_of(gallery)
        writer.remove([f"{ROOT}/a.jpg"])
        writer.record([entry("c.jpg", "c", face(3), face(4))])
        writer.record([entry("d.jpg", "d", face(5))])
        writer.remove([f"{ROOT}/d.jpg"])
    changes = reads(gallery).changes_since(start)
    assert (list(changes.added), list(changes.removed)) == ([3, 4], [1])
    assert changes.added.dtype == changes.removed.dtype == np.int64
    now = state_of(gallery)
    assert (empty.position, start.position, now.position) == (0, 2, 7)
    whole = reads(gallery).changes_since(empty)
    assert (list(whole.added), list(whole.removed)) == ([2, 3, 4], [])
    nothing = reads(gallery).changes_since(now)
    assert (list(nothing.added), list(nothing.removed)) == ([], [])


def test_changes_since_refuses_a_state_that_never_was(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), face(2))])
    now = state_of(gallery)
    for wrong in (
        now._replace(position=-1),
        now._replace(position=3),
        now._replace(history=now.history + 1),
        now._replace(position=0),
        now._replace(gallery_uuid="another"),
    ):
        assert not reads(gallery).has_been(wrong)
        with pytest.raises(GalleryError, match=f"position {wrong.position} .* which ends at 2"):
            reads(gallery).changes_since(wrong)
    assert reads(gallery).has_been(now)
    assert reads(gallery).has_been(now._replace(position=0, history=0))


def test_two_galleries_that_went_different_ways_are_in_different_states(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    """Though the same ids came and went in both, and the last change is the same."""
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1)), entry("b.jpg", "b", face(2))])
    common = state_of(gallery)
    shutil.copytree(folder, tmp_path / "copy")
    with Gallery.open(tmp_path / "copy") as other:
        states = []
        for one, seed in ((gallery, 3), (other, 4)):
            with one.write() as writer:
                writer.record([entry("c.jpg", seed, face(seed))])
                writer.remove([f"{ROOT}/b.jpg"])
                writer.record([entry("d.jpg", "d", face(5))])
            states.append(state_of(one))
            assert reads(one).has_been(common)
        assert states[0].position == states[1].position == 5
        assert not reads(gallery).has_been(states[1])
        assert not reads(other).has_been(states[0])
    for changes in (reads(gallery).changes_since(common),):
        assert (list(changes.added), list(changes.removed)) == ([3, 4], [2])


# One writer, many readers


def test_a_writer_cannot_write_after_its_block(gallery: Gallery) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a")])
    for attempt in (
        lambda: writer.record([entry("b.jpg", "b")]),
        lambda: writer.remove([f"{ROOT}/a.jpg"]),
        lambda: writer.people.name(1, "Ada"),
    ):
        with pytest.raises(GalleryError, match="is closed; change the gallery inside"):
            attempt()
    assert [photo for photo, _, _ in gallery.photos()] == [f"{ROOT}/a.jpg"]


def test_second_writer_gets_the_name_of_the_first(gallery: Gallery, folder: Path) -> None:
    code = (
        "import sys; from face2vec.gallery.gallery import Gallery\n"
        "with Gallery.open(sys.argv[1]) as gallery, gallery.write() as writer:\n"
        "    print('writing', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with Started(
        [sys.executable, "-c", code, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as other:
        assert other.stdout.readline() == b"writing\n"
        who = rf"process {other.pid} on {platform.node()} since \d{{4}}-\d\d-\d\dT"
        with pytest.raises(GalleryLockedError, match=who), gallery.write() as writer:
            raise AssertionError("two processes were writing")
        with pytest.raises(GalleryLockedError, match=who):
            Gallery.create(folder, fake_fingerprint(DIMENSION))
        assert reads(gallery).counts().photos == 0
        other.kill()
    assert json.loads((folder / "writer.json").read_text())["pid"] == other.pid
    with gallery.write() as writer:
        assert json.loads((folder / "writer.json").read_text())["pid"] == os.getpid()
        writer.record([entry("a.jpg", "a", face(1))])
    assert not (folder / "writer.json").exists()
    assert reads(gallery).counts().photos == 1


def test_writing_ends_where_the_card_of_the_writer_cannot_be_deleted(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows does not delete a file while another process reads it."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Access is denied")

    with monkeypatch.context() as inner:
        inner.setattr(Path, "unlink", refuse)
        with gallery.write() as writer:
            writer.record([entry("a.jpg", "a", face(1))])
    with gallery.write() as writer:
        writer.record([entry("b.jpg", "b", face(2))])
    assert reads(gallery).counts().photos == 2


@posix_only
@pytest.mark.parametrize(
    "name", ["writer.json", "writer.json.new", "index.faiss.new", "gallery.sqlite.new"]
)
def test_writer_never_writes_through_a_link_in_the_folder(
    gallery: Gallery, folder: Path, tmp_path: Path, name: str
) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody")
    (folder / name).symlink_to(other)
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1))])
    assert other.read_text() == "of somebody"
    assert not (folder / name).is_symlink()
    assert reads(gallery).counts().faces == 1


@posix_only
def test_lock_that_is_a_link_is_refused_and_its_target_kept(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody")
    (folder / "writer.lock").unlink()
    (folder / "writer.lock").symlink_to(other)
    with pytest.raises(GalleryError, match=r"writer\.lock is a link, not a regular file"):  # noqa: SIM117
        with gallery.write():
            pass
    assert other.read_text() == "of somebody"


@posix_only
def test_open_refuses_a_gallery_file_that_is_a_link_or_a_pipe(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "gallery.sqlite").symlink_to(filled / "gallery.sqlite")
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "gallery.sqlite")
    (tmp_path / "beside").mkdir()
    shutil.copy(filled / "gallery.sqlite", tmp_path / "beside")
    os.mkfifo(tmp_path / "beside" / "gallery.sqlite-wal")
    for name, words in (
        ("linked", r"gallery\.sqlite is a link, not a regular"),
        ("piped", r"gallery\.sqlite is not a regular"),
        ("beside", r"gallery\.sqlite-wal is not a regular"),
    ):
        with pytest.raises(GalleryError, match=words):
            Gallery.open(tmp_path / name)


@posix_only
def test_upgrade_file_that_is_a_link_is_refused_and_its_target_kept(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.sqlite"
    other.touch()
    (folder / "upgrade.sqlite").symlink_to(other)
    with pytest.raises(GalleryError, match=r"upgrade\.sqlite is a link"):
        NewEmbeddings(folder, gallery.uuid, fake_fingerprint(DIMENSION, "new"))
    assert other.read_bytes() == b""


def test_writer_deletes_what_killed_writers_left(gallery: Gallery, folder: Path) -> None:
    names = [f"{name}.{'5' * 32}.new" for name in ("index.faiss", "writer.json", "gallery.sqlite")]
    names += ["index.faiss.new", "index.faiss.upgraded.new"]
    for name in names:
        (folder / name).write_bytes(b"half of it")
    (folder / "notes.new").write_bytes(b"of the user")
    with gallery.write():
        pass
    left = {file.name for file in folder.iterdir()}
    assert left.isdisjoint(names)
    assert "notes.new" in left


def test_writer_flushes_the_disk_s_own_cache_on_macos(gallery: Gallery) -> None:
    file = GalleryFile(gallery.folder)
    writer = file.connect_writer()
    for pragma in ("fullfsync", "checkpoint_fullfsync"):
        assert writer.execute(f"PRAGMA {pragma}").fetchone() == (1,)
    file.close()


def test_a_second_session_in_this_process_is_refused(gallery: Gallery, folder: Path) -> None:
    with gallery.write(), Gallery.open(folder) as other:
        with pytest.raises(GalleryLockedError, match=f"this process \\({os.getpid()}\\)"):
            gallery.write().__enter__()
        with pytest.raises(GalleryLockedError, match=f"process {os.getpid()} on"):
            other.write().__enter__()
    with Gallery.open(folder) as other, other.write() as writer:
        writer.record([entry("a.jpg", "a")])


def test_readers_see_whole_batches_only(gallery: Gallery, folder: Path) -> None:
    batches = [
        [entry(f"{b}-{i}.jpg", (b, i), face(10 * b + i)) for i in range(10)] for b in range(40)
    ]
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with Gallery.open(folder) as opened, opened.write() as writer:
                for batch in batches:
                    writer.record(batch)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while thread.is_alive():
        counts = reads(gallery).counts()
        assert counts.photos == counts.contents == counts.faces
        with gallery.read() as snapshot:
            seen_now = sum(len(ids) for ids, _ in snapshot)
            assert snapshot.state.position == snapshot.count == seen_now
        seen.add(seen_now)
        seen.add(counts.faces)
    thread.join()
    assert failures == []
    assert {count % 10 for count in seen} == {0}
    assert reads(gallery).counts().faces == 400


def test_a_failed_batch_leaves_nothing(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1))])
        with monkeypatch.context() as patch:
            patch.setattr("face2vec.gallery.writer.drop_unused", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                writer.record([entry("b.jpg", "b", face(2), root="/elsewhere")])
        assert reads(gallery).stat_of("/elsewhere", "b.jpg") is None
        writer.record([entry("c.jpg", "c", face(3))])
    assert [path for path, _, _ in gallery.photos()] == [f"{ROOT}/a.jpg", f"{ROOT}/c.jpg"]
    assert [s.face.id for s in reads(gallery).stored_faces([1, 2, 3])] == [1, 2]


def test_one_gallery_serves_many_threads(gallery: Gallery) -> None:
    faces = {i + 1: face(i) for i in range(200)}
    with gallery.write() as writer:
        writer.record([entry(f"{i}.jpg", i, f) for i, f in faces.items()])

    def read(seed: int) -> bool:
        ids = random.Random(seed).sample(sorted(faces), 10)
        stored = reads(gallery).stored_faces(ids)
        return (
            [s.face.id for s in stored] == ids
            and [s.photo for s in stored] == [f"{ROOT}/{i}.jpg" for i in ids]
            and np.array_equal(reads(gallery).embeddings(ids), [faces[i].embedding for i in ids])
            and reads(gallery).stat_of(ROOT, f"{ids[0]}.jpg") == (7, 9)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))


# Kills, damage, full and read-only disks


def changed(photos: Path) -> None:
    """Replace, rename, copy, swap, add and delete some of the photos."""
    (photos / "day0" / "06.jpg").write_bytes(b"replaced")
    (photos / "day1" / "01.jpg").rename(photos / "day2" / "renamed.jpg")
    shutil.copy2(photos / "day1" / "04.jpg", photos / "day1" / "04 again.jpg")
    one, two = photos / "day0" / "09.jpg", photos / "day1" / "10.jpg"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    os.utime(one, (1, 1))
    os.utime(two, (2, 2))
    for i in range(30, 36):
        (photos / "day2" / f"{i}.jpg").write_bytes(b"photo %d" % i)
    (photos / "day2" / "14.jpg").unlink()


@pytest.mark.parametrize("fresh", [True, False], ids=["new", "changed"])
@posix_only
def test_a_build_killed_anywhere_ends_equal_to_one_that_was_not(
    tmp_path: Path, photos: Path, fresh: bool
) -> None:
    start = tmp_path / "start"
    if not fresh:
        build(photos, start)
        before = dump(start)
        changed(photos)
    work = tmp_path / "work"
    work.mkdir()
    start_or_none = "-" if fresh else start
    total = int(run_python(BUILDER, photos, start_or_none, work, "count"))
    reference = dump(work / "reference")
    if not fresh:
        assert reference["journal"][: len(before["journal"])] == before["journal"]
        assert {row[1] for row in reference["journal"]} == {"+", "-"}
    points = sorted({1 + round(i * (total - 1) / 24) for i in range(25)})
    report = json.loads(run_python(BUILDER, photos, start_or_none, work, "statements", *points))
    pauses = [f"{i / 200}" for i in range(6)]
    report += json.loads(run_python(BUILDER, photos, start_or_none, work, "pauses", *pauses))
    assert [r["point"] for r in report] == [str(p) for p in points] + pauses
    assert {r["killed"] for r in report[: len(points)]} == {signal.SIGKILL}
    for outcome in report:
        # A kill between a removal and the rewriting of the file leaves traces, and is told.
        assert [p for p in outcome["problems"] if "traces of removed" not in p] == [], outcome
        assert (outcome["again"], outcome["left"]) == (0, []), outcome
        assert dump(work / outcome["point"]) == reference, outcome


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from face2vec.gallery.gallery import Gallery
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written, as on a full disk
try:
    with Gallery.open(Path(sys.argv[1])) as gallery, gallery.read() as now:
        print(now.count, [ids.tolist() for ids, _ in now], now.stored_faces([1])[0].photo)
except Exception as error:
    print(type(error).__name__, error)
"""


@posix_only
def test_gallery_on_a_full_disk_is_read_without_its_shm(gallery: Gallery, folder: Path) -> None:
    with gallery.write() as writer:
        writer.record([entry("a.jpg", "a", face(1), face(2))])
    gallery.close()
    shm, wal = folder / "gallery.sqlite-shm", folder / "gallery.sqlite-wal"
    assert not wal.exists() or not wal.stat().st_size
    for file in (shm, wal):
        file.unlink(missing_ok=True)
    done = run_python(folder, code=FULL_DISK)
    assert done == f"2 [[1, 2]] {ROOT}/a.jpg\n"
    assert not shm.exists() or not shm.stat().st_size
    wal.write_bytes(b"unfinished")
    assert re.match(
        r"GalleryError .* unfinished changes, .* disk full; ", run_python(folder, code=FULL_DISK)
    )


def test_where_a_batch_ends_makes_no_difference(tmp_path: Path) -> None:
    entries = [entry(f"{i}.jpg", i, face(i)) for i in range(12)]
    entries += [entry(f"{i}.jpg", 100 + i, face(100 + i), face(200 + i)) for i in (11, 3, 5)]
    entries += [link("copy.jpg", 103), entry("new.jpg", "new", face(300)), link("4.jpg", 103)]
    dumps = []
    for size in (1, 4, 5, len(entries)):
        with (
            Gallery.create(tmp_path / str(size), fake_fingerprint(DIMENSION)) as gallery,
            gallery.write() as writer,
        ):
            for start in range(0, len(entries), size):
                assert writer.record(entries[start : start + size]) == []
        dumps.append(dump(tmp_path / str(size)))
    assert [row[1:3] for row in dumps[0]["journal"][12:]] == [
        ("+", 13), ("+", 14), ("-", 12), ("+", 15), ("+", 16), ("-", 4),
        ("+", 17), ("+", 18), ("-", 6), ("+", 19), ("-", 5),
    ]  # fmt: skip
    assert dumps[1:] == dumps[:1] * 3


def test_a_second_run_changes_nothing(tmp_path: Path, photos: Path) -> None:
    build(photos, tmp_path / "gallery")
    before = dump(tmp_path / "gallery")
    assert len(before["photos"]) == 24
    assert len(before["contents"]) == 22
    build(photos, tmp_path / "gallery")
    assert dump(tmp_path / "gallery") == before


def test_renamed_and_copied_photos_add_no_faces(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "gallery"
    build(photos, folder)
    before = dump(folder)
    for file in list(photos.rglob("*.jpg")):
        file.rename(file.with_name("renamed " + file.name))
    shutil.copytree(photos / "day0", photos / "again")
    build(photos, folder)
    after = dump(folder)
    for table in ("contents", "faces", "journal"):
        assert after[table] == before[table]
    with Gallery.open(folder) as gallery:
        assert {path for path, _, _ in gallery.photos()} == set(map(str, photos.rglob("*.jpg")))


def test_create_works_after_a_kill_during_create(folder: Path) -> None:
    folder.mkdir()
    unguessable = f"gallery.sqlite.{'0a' * 16}.new"
    for name in ("gallery.sqlite.new", unguessable):
        for end in ("", "-wal", "-journal"):
            (folder / (name + end)).write_bytes(b"half of it")
    (folder / "writer.lock").touch()
    (folder / "writer.json").write_text('{"pid": 1')
    with pytest.raises(GalleryNotFoundError):
        Gallery.open(folder)
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        assert problems(gallery) == []
    assert not list(folder.glob("*.new*"))


@pytest.fixture
def filled(gallery: Gallery, folder: Path) -> Path:
    with gallery.write() as writer:
        for start in range(0, 1000, 50):
            writer.record([entry(f"{i}.jpg", i, face(i)) for i in range(start, start + 50)])
    gallery.close()
    return folder


@pytest.fixture
def interrupted(filled: Path, tmp_path: Path) -> Path:
    """A gallery as a kill leaves it, with five batches of 20 faces in its -wal."""
    folder = tmp_path / "interrupted"
    with Gallery.open(filled) as gallery, gallery.write() as writer:
        for start in range(1000, 1100, 20):
            writer.record([entry(f"{i}.jpg", i, face(i)) for i in range(start, start + 20)])
        shutil.copytree(filled, folder)
    (folder / "gallery.sqlite-shm").unlink()
    return folder


def test_truncated_file_is_reported_and_not_changed(filled: Path) -> None:
    file = filled / "gallery.sqlite"
    whole = file.read_bytes()
    assert len(whole) > 20 * 16384
    for size in [len(whole) * i // 10 for i in range(10)] + [len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(GalleryDamagedError, match="nothing was overwritten"):
            Gallery.open(filled)
        assert file.read_bytes() == whole[:size]
    file.write_bytes(whole)
    with Gallery.open(filled) as gallery:
        assert reads(gallery).counts().faces == 1000


def test_truncated_file_with_a_wal_is_reported(interrupted: Path) -> None:
    file = interrupted / "gallery.sqlite"
    whole = file.read_bytes()
    for share in range(5):
        file.write_bytes(whole[: len(whole) * share // 10])
        before = file.read_bytes()
        with pytest.raises(GalleryDamagedError):
            Gallery.open(interrupted)
        assert file.read_bytes() == before


def test_a_truncated_wal_gives_a_sound_older_state(interrupted: Path) -> None:
    wal = interrupted / "gallery.sqlite-wal"
    whole = wal.read_bytes()
    seen = []
    for tenth in range(11):
        wal.write_bytes(whole[: len(whole) * tenth // 10])
        with Gallery.open(interrupted) as gallery:
            assert problems(gallery) == []
            seen.append(reads(gallery).counts().faces)
        (interrupted / "gallery.sqlite-shm").unlink()
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (1000, 1100)
    assert {count % 20 for count in seen} == {0}


def test_a_wal_without_its_file_is_not_thrown_away(interrupted: Path) -> None:
    (interrupted / "gallery.sqlite").unlink()
    wal = (interrupted / "gallery.sqlite-wal").read_bytes()
    with pytest.raises(GalleryDamagedError, match=r"gallery\.sqlite-wal exists"):
        Gallery.open(interrupted)
    with pytest.raises(GalleryDamagedError, match=r"gallery\.sqlite-wal exists"):
        Gallery.create(interrupted, fake_fingerprint(DIMENSION))
    assert (interrupted / "gallery.sqlite-wal").read_bytes() == wal


def test_damaged_bytes_are_reported_and_raise_no_other_error(filled: Path) -> None:
    file = filled / "gallery.sqlite"
    whole = file.read_bytes()
    rng = random.Random(1)
    found = 0
    for _ in range(40):
        at = rng.randrange(0, len(whole) - 64)
        file.write_bytes(whole[:at] + rng.randbytes(64) + whole[at + 64 :])
        try:
            with Gallery.open(filled) as gallery:
                found += bool(problems(gallery))
                list(gallery.photos())
                reads(gallery).stored_faces(range(1, 1001))
                batches_of(gallery)
        except GalleryError:
            found += 1
    assert found >= 15  # the other places hold nothing


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE embeddings SET embedding = zeroblob(64) WHERE face_id = 7", "face 7: .*recorded"),
        ("UPDATE embeddings SET embedding = 1 WHERE face_id = 7", "face 7: .*recorded"),
        ("UPDATE embeddings SET embedding = x'00' WHERE face_id = 7", "wrong size: 1"),
        ("DELETE FROM embeddings WHERE face_id = 7", "without an embedding: 1"),
        ("UPDATE faces SET landmarks = x'00' WHERE id = 7", "wrong size: 1"),
        ("UPDATE faces SET content_id = 99999 WHERE id = 7", "faces, row 7"),
        ("DELETE FROM photos WHERE content_id = 7", "contents without a photo: 1"),
        ("UPDATE contents SET status = 'no face' WHERE id = 7", "does not agree .*: 1"),
        ("DELETE FROM journal WHERE face_id = 7", "journal does not list.*: 1"),
        (
            "INSERT INTO journal (change, face_id, history) VALUES ('+', 5000, 0)",
            "gallery does not have: 1",
        ),
    ],
)
def test_problems_reports_each_kind_of_damage(filled: Path, statement: str, words: str) -> None:
    change(filled, statement)
    with Gallery.open(filled) as gallery:
        found = problems(gallery)
    assert any(re.search(words, problem) for problem in found), found


@posix_only
def test_full_disk_is_reported_and_the_build_resumes(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for a disk that is full."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(400):
        (photos / f"{i:03}.jpg").write_bytes(b"photo %d" % i)
    build(photos, tmp_path / "reference")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from gallery_builder import build; from face2vec.errors import GalleryError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "try: build(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except GalleryError as error: print(error)"
    )
    for size in (50_000, 150_000, 300_000):
        folder = tmp_path / str(size)
        words = run_python(photos, folder, size, code=code)
        assert "full" in words or "No room" in words
        assert "everything up to the last batch is kept" in words
        if (folder / "gallery.sqlite").exists():
            with Gallery.open(folder) as gallery:
                assert problems(gallery) == []
                assert 0 <= reads(gallery).counts().photos < 400
                assert reads(gallery).counts().photos % 4 == 0
        build(photos, folder)
        assert dump(folder) == dump(tmp_path / "reference")


def mount(*options: str | Path) -> bool:
    """Whether a file system could be mounted, which needs Linux and the rights of root."""
    if sys.platform != "linux" or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.mark.parametrize("kilobytes", [40, 360, 400, 440, 520, 640])
def test_disk_that_fills_while_a_gallery_is_made_leaves_one_that_resumes(
    tmp_path: Path, kilobytes: int
) -> None:
    """On a real file system, where a checkpoint can fail after its pages were committed."""
    photos, disk = tmp_path / "photos", tmp_path / "disk"
    for place in (photos, disk):
        place.mkdir()
    for i in range(40):
        (photos / f"{i:03}.jpg").write_bytes(b"photo %d" % i)
    build(photos, tmp_path / "reference")
    if not mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk):
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(GalleryError, match=r"full|No space left") as refused:
            build(photos, disk / "gallery")
        assert not isinstance(refused.value, GalleryDamagedError)
        if (disk / "gallery" / "gallery.sqlite").exists():
            with Gallery.open(disk / "gallery") as gallery:
                assert problems(gallery) == []
        assert mount("-o", "remount,size=30m", disk)
        build(photos, disk / "gallery")
        assert dump(disk / "gallery") == dump(tmp_path / "reference")
        assert not list((disk / "gallery").glob("*.new*"))
    finally:
        subprocess.run(["umount", disk], check=True)


READ_ONLY = """
import os, sys
from face2vec.errors import GalleryError
from face2vec.gallery.audit import problems
from face2vec.gallery.connection import GalleryFile, limited_time
from face2vec.gallery.gallery import Gallery
if os.getuid() == 0:  # whom no permission binds
    os.setgid(65534)
    os.setuid(65534)
try:
    with Gallery.open(sys.argv[1]) as gallery:
        with gallery.read() as now:
            (third,) = now.stored_faces([3])
            print(now.counts().faces, problems(gallery), third.photo)
        with gallery.write() as writer:
            print("wrote")
except GalleryError as error:
    print(error)
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that another user can reach, as pytest's own cannot be."""
    if os.name != "posix":
        pytest.skip("needs the permissions of POSIX systems")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        yield folder / "gallery"
        (folder / "gallery").chmod(0o755)


def forbid_writing(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)


def test_a_read_only_folder_can_be_read_and_not_written(filled: Path, readable: Path) -> None:
    shutil.copytree(filled, readable)
    for leftover in readable.glob("*-*"):
        leftover.unlink()
    forbid_writing(readable)
    before = raw(readable)
    read, wrote = run_python(readable, code=READ_ONLY).splitlines()
    assert read == f"1000 [] {ROOT}/2.jpg"
    assert "cannot be written" in wrote
    assert raw(readable) == before


def test_a_read_only_folder_left_in_a_write_is_refused_in_words(
    interrupted: Path, readable: Path
) -> None:
    shutil.copytree(interrupted, readable)
    forbid_writing(readable)
    (said,) = run_python(readable, code=READ_ONLY).splitlines()
    assert "has unfinished changes" in said


def test_opening_for_reading_leaves_the_file_as_it_is(interrupted: Path) -> None:
    files = [interrupted / "gallery.sqlite", interrupted / "gallery.sqlite-wal"]
    before = [file.read_bytes() for file in files]
    with Gallery.open(interrupted) as gallery:
        assert reads(gallery).counts().faces == 1100
    assert [file.read_bytes() for file in files] == before
