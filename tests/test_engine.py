from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dng import dng
from helpers import fake_fingerprint, needs, posix_only, reads
from PIL import Image, ImageEnhance

import face2vec
from face2vec import (
    BuildSummary,
    DetectorSettings,
    Face,
    Face2Vec,
    GalleryError,
    GalleryLockedError,
    GalleryMismatchError,
    GalleryNotFoundError,
    ModelError,
    NoFaceError,
    PhotoError,
    SettingsError,
    open_photo,
)
from face2vec.encoding import workers as extraction_processes
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.index import policy
from face2vec.photos.formats import REASONS, read_photo_bytes

HERE = Path(__file__).parent


def counted(summary: dict[str, Any]) -> int:
    """Photos of a build by what became of them."""
    kinds = ("added", "unchanged", "copies", "forgotten")
    return sum(summary[kind] for kind in kinds) + len(summary["unreadable"])


TABLES = (*("roots", "contents", "photos", "faces", "embeddings", "journal", "sqlite_sequence"),)


def open_engine(folder: Path | None, model: Path | None = None, **options: Any) -> Face2Vec:
    return Face2Vec(folder, model=model, runtime="onnxruntime", threads=2, **options)


@pytest.fixture(scope="module")
def built(
    faces_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, BuildSummary]:
    folder = tmp_path_factory.mktemp("engine") / "gallery"
    with open_engine(folder, tiny_model) as engine:
        return folder, engine.add(faces_folder)


@pytest.fixture(scope="module")
def family(built: tuple[Path, BuildSummary]) -> Iterator[Face2Vec]:
    """An engine over the whole folder, not to be changed."""
    with open_engine(built[0]) as engine:
        yield engine


@pytest.fixture
def folder(built: tuple[Path, BuildSummary], tmp_path: Path) -> Path:
    """A copy of that gallery, free to be changed."""
    return Path(shutil.copytree(built[0], tmp_path / "gallery"))


def test_home_folder_is_expanded_in_every_path(
    home: Path, faces_folder: Path, tiny_model: Path
) -> None:
    shutil.copy(faces_folder / "hopper.jpg", home / "one.jpg")
    for file in (tiny_model, tiny_model.with_suffix(".json")):
        shutil.copy(file, home)
    photo = str(home.resolve() / "one.jpg")
    with open_engine(Path("~/gallery"), Path("~/tiny.onnx")) as engine:
        assert engine.add("~/one.jpg").added == 1
        assert engine.info()["gallery"] == str(home / "gallery")
        (result,) = engine.search("~/one.jpg")
        assert (result.photo, result.matches[0].photo) == ("~/one.jpg", photo)
        assert result.thumbnail() is not None
        result.save_html("~/page.html")
        (faces,) = engine.bulk_encode([Path("~/one.jpg")])
        assert faces[0].box == result.face.box
        assert engine.remove("~/one.jpg").photos == 1
    assert (home / "page.html").is_file()
    with Gallery.open("~/gallery") as gallery:
        assert gallery.folder == home / "gallery"
    assert open_photo("~/one.jpg").width == 512
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture
def photos(faces_folder: Path, tmp_path: Path) -> Path:
    """A few of the photos, free to be changed."""
    copy = tmp_path / "photos"
    copy.mkdir()
    for name in ("astronaut.jpg", "hopper.jpg", "nobody.jpg", "broken.jpg"):
        shutil.copy(faces_folder / name, copy)
    return copy


LIGHTS = 22
MANY = LIGHTS + 4


@pytest.fixture(scope="module")
def many(
    tmp_path_factory: pytest.TempPathFactory, astronaut: Image.Image, hopper: Image.Image
) -> Path:
    """Small photos: two faces in many lights, copies of two, nobody, and a broken one."""
    folder = tmp_path_factory.mktemp("many")
    faces = (astronaut.crop((130, 20, 320, 220)), hopper.crop((120, 50, 410, 390)))
    for n in range(LIGHTS):
        face = faces[n % 2].resize((130 + n, 150 + n // 2))
        face = ImageEnhance.Brightness(face).enhance(0.7 + n / 50)
        face.save(folder / f"{n:02}.jpg", quality=90)
    Image.new("RGB", (120, 90), "teal").save(folder / "20-nobody.png")
    (folder / "11-copy.jpg").write_bytes((folder / "05.jpg").read_bytes())
    (folder / "21-copy.jpg").write_bytes((folder / "20.jpg").read_bytes())
    (folder / "12-broken.jpg").write_bytes((folder / "05.jpg").read_bytes()[:300])
    return folder


def dump(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a gallery but its own name."""
    connection = sqlite3.connect(folder / "gallery.sqlite")
    try:
        rows = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in TABLES
        }
        rows["meta"] = connection.execute(
            "SELECT * FROM meta WHERE key <> 'uuid' ORDER BY key"
        ).fetchall()
    finally:
        connection.close()
    return rows


@pytest.fixture(scope="module")
def uninterrupted(
    many: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[Any, ...]]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "gallery"
    with open_engine(folder, tiny_model) as engine:
        engine.add(many)
    rows = dump(folder)
    assert len(rows["photos"]) == MANY
    assert len(rows["contents"]) == MANY - 2
    assert len(rows["faces"]) >= LIGHTS - 4
    return rows


def test_build_that_extracts_in_processes_of_its_own_gives_the_same_rows(
    many: Path,
    tiny_model: Path,
    tmp_path: Path,
    uninterrupted: dict[str, list[tuple[Any, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    start = extraction_processes._start
    monkeypatch.setattr(extraction_processes, "START_AFTER", 0.0)
    monkeypatch.setattr(
        extraction_processes,
        "_start",
        lambda extractor: started.append(start(extractor)) or started[-1],
    )
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(many)
        assert [process.poll() is None for process in started] == [False, False]
    assert dump(tmp_path / "gallery") == uninterrupted


def start(mode: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """A process of engine_builder.py, which says what the modes are."""
    return subprocess.Popen(
        [sys.executable, HERE / "engine_builder.py", mode, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )


def unit(*numbers: float) -> np.ndarray:
    vector = np.zeros(64, np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def all_faces(engine: Face2Vec, folder: Path) -> list[tuple[str, Face]]:
    """(path, face) of every face, encoded anew one photo at a time."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.name not in ("broken.jpg", "empty.jpg"):
            found += [(str(path), face) for face in engine.encode(path)]
    return found


# --- encoding -------------------------------------------------------------------------------


def test_engine_without_a_gallery_encodes(tiny_model: Path, faces_folder: Path) -> None:
    path = faces_folder / "both.jpg"
    with open_engine(None, tiny_model) as engine:
        faces = engine.encode(path)
        assert len(faces) == 2
        for photo in (str(path), path.read_bytes(), Image.open(path), open_photo(path)):
            for face, other in zip(faces, engine.encode(photo), strict=True):
                assert (face.box, face.confidence) == (other.box, other.confidence)
                np.testing.assert_array_equal(face.embedding, other.embedding)
        with pytest.raises(SettingsError, match="has no gallery"):
            engine.search(path)
        with pytest.raises(SettingsError, match="has no gallery"):
            engine.add(path)
        with pytest.raises(PhotoError, match=r"empty\.jpg: empty file"):
            engine.encode(faces_folder / "empty.jpg")


def test_bulk_encode_keeps_the_order_and_hands_errors_over(
    family: Face2Vec, faces_folder: Path
) -> None:
    names = ["hopper.jpg", "empty.jpg", "nobody.jpg", "both.jpg", "broken.jpg", "astronaut.jpg"]
    errors: list[PhotoError] = []
    given = (faces_folder / name for name in names)
    lists = list(family.bulk_encode(given, on_error=errors.append))
    assert [error.reason for error in errors] == ["empty file", "truncated"]
    assert [len(faces) for faces in lists] == [1, 0, 0, 2, 0, 1]
    for name, faces in zip(names, lists, strict=True):
        if faces:
            alone = family.encode(faces_folder / name)
            assert [face.box for face in faces] == [face.box for face in alone]


def test_bulk_encode_without_on_error_raises_in_the_photos_place(
    family: Face2Vec, faces_folder: Path
) -> None:
    names = ["hopper.jpg", "empty.jpg", "both.jpg"]
    lists = family.bulk_encode(faces_folder / name for name in names)
    assert len(next(lists)) == 1
    with pytest.raises(PhotoError, match="empty file"):
        next(lists)


def test_bulk_encode_takes_photos_only_as_they_are_needed(family: Face2Vec) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((16, 16, 3), np.uint8)

    lists = family.bulk_encode(endless())
    for _ in range(10):
        assert next(lists) == []
    assert 10 <= taken < 100


# --- building -------------------------------------------------------------------------------


def test_the_three_lines(tiny_model: Path, faces_folder: Path, tmp_path: Path) -> None:
    engine = Face2Vec(tmp_path / "indexes" / "family", model=tiny_model)
    engine.add(faces_folder)
    (found,) = engine.search(faces_folder / "hopper.jpg", k=5)
    engine.close()
    assert Path(found.matches[0].photo).name in ("hopper.jpg", "copy of hopper.jpg")
    # On whatever runtime there is: bf16 has about three digits.
    assert found.matches[0].similarity == pytest.approx(1, abs=5e-3)


def test_add_returns_a_summary(
    built: tuple[Path, BuildSummary], family: Face2Vec, faces_folder: Path
) -> None:
    summary = built[1]
    assert (summary.photos, summary.added, summary.unchanged, summary.copies) == (10, 7, 0, 1)
    assert (summary.faces, summary.no_face, summary.interrupted) == (7, 1, False)
    assert dict(summary.unreadable) == {
        str(faces_folder / "broken.jpg"): "truncated",
        str(faces_folder / "empty.jpg"): "empty file",
    }
    assert summary.seconds > 0
    assert summary.rate == summary.photos / summary.seconds
    assert family.check() == []
    info = family.info()
    assert (info["photos"], info["contents"], info["faces"]) == (9, 8, 7)
    assert (info["no_face"], info["unreadable"], info["dimension"]) == (1, 1, 64)
    assert info["index"] == "flat"
    assert json.loads(json.dumps(info)) == info


def test_add_reports_progress_to_a_function_and_ends_when_it_says_so(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []

    def two(done: int, total: int | None) -> bool:
        seen.append((done, total))
        return done < 2

    with open_engine(tmp_path / "g", tiny_model) as engine:
        stopped = engine.add(photos, progress=two)
        assert stopped.interrupted
        assert seen == [(1, 4), (2, 4)]
        assert engine.info()["photos"] + len(stopped.unreadable) >= stopped.photos == 2
        seen.clear()
        rest = engine.add(photos, progress=lambda *one: seen.append(one))
    assert not rest.interrupted
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert rest.photos == 4


def test_add_again_adds_nothing(folder: Path, faces_folder: Path) -> None:
    before = dump(folder)
    with open_engine(folder) as engine:
        summary = engine.add(faces_folder)
    assert (summary.photos, summary.added, summary.unchanged, summary.copies) == (10, 0, 8, 0)
    assert (summary.faces, summary.no_face) == (0, 0)
    assert dict(summary.unreadable) == {
        str(faces_folder / "broken.jpg"): "truncated",
        str(faces_folder / "empty.jpg"): "empty file",
    }
    assert dump(folder) == before


def test_report_is_called_with_what_cannot_be_read(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    errors: list[PhotoError] = []
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos, report=errors.append)
    assert [(error.photo, error.reason) for error in errors] == [
        (str(photos / "broken.jpg"), "truncated")
    ]


@pytest.mark.parametrize("reason", ["empty file", "truncated", "too many bytes"])
def test_photo_that_became_unreadable_loses_its_faces(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    hopper = photos / "hopper.jpg"
    with open_engine(tmp_path / "g", tiny_model) as engine:
        before = engine.add(photos)
        assert (before.faces, [why for _, why in before.unreadable]) == (2, ["truncated"])
        data = hopper.read_bytes()
        hopper.write_bytes({"empty file": b"", "truncated": data[:500]}.get(reason, data + b"x"))
        if reason == "too many bytes":
            limits = {"name": None, "max_bytes": len(data)}
            monkeypatch.setattr(read_photo_bytes, "__kwdefaults__", limits)
        summary = engine.add(photos)
        broken = (str(photos / "broken.jpg"), "truncated")
        assert summary.unreadable == (broken, (str(hopper), reason))
        assert engine.info()["faces"] == 1
        with Gallery.open(tmp_path / "g") as gallery:
            rows = {path: (status, why) for path, status, why in gallery.photos()}
        recorded = None if reason == "too many bytes" else ("unreadable", reason)
        assert rows.get(str(hopper)) == recorded
        assert engine.add(photos).unreadable == summary.unreadable
        monkeypatch.undo()
        hopper.write_bytes(data)
        assert (engine.add(photos).faces, engine.info()["faces"]) == (1, 2)


def replace_in_place(place: Path, data: bytes) -> None:
    """Write a file whose size and modification time stay."""
    stat = place.stat()
    place.write_bytes(data)
    os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (place.stat().st_size, place.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def no_decoding(*_: object) -> None:
    raise AssertionError("a photo was decoded")


@posix_only
def test_photo_mended_with_its_size_and_time_kept_is_read_again(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    good, place = (photos / "hopper.jpg").read_bytes(), photos / "mended.jpg"
    place.write_bytes(b"not a photo".ljust(len(good), b"."))
    with open_engine(tmp_path / "g", tiny_model) as engine:
        first = engine.add(place)
        assert first.unreadable == ((str(place), "not a photo"),)
        replace_in_place(place, good)
        done = engine.add(place)
        assert (done.unreadable, done.added, done.faces) == ((), 1, 1)


@posix_only
def test_file_whose_status_alone_has_changed_is_compared_by_its_bytes(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(tmp_path / "g", tiny_model) as engine:
        engine.add(photos)
        before = dump(tmp_path / "g")
        (photos / "hopper.jpg").chmod(0o640)
        (photos / "broken.jpg").chmod(0o640)
        monkeypatch.setattr("face2vec.encoding.extract.open_photo", no_decoding)
        done = engine.add(photos)
        assert (done.unchanged, done.added, done.copies) == (3, 0, 0)
        assert done.unreadable == ((str(photos / "broken.jpg"), "truncated"),)
        after = dump(tmp_path / "g")
        changed = [table for table in after if after[table] != before[table]]
        assert changed == ["photos"]  # the times
        monkeypatch.setattr("face2vec.ingest.build.read_photo_bytes", no_decoding)
        assert engine.add(photos).unchanged == 3


def test_gallery_without_change_times_takes_photos_as_unchanged(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(tmp_path / "g", tiny_model) as engine:
        engine.add(photos)
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as connection:
        for column in ("path_crc32", "ctime_ns"):
            connection.execute(f"ALTER TABLE photos DROP COLUMN {column}")
    connection.close()
    with open_engine(tmp_path / "g") as engine:
        assert [one.status for one in engine.photos()].count("indexed") == 2
        monkeypatch.setattr("face2vec.ingest.build.read_photo_bytes", no_decoding)
        assert engine.add(photos).unchanged == 3
        monkeypatch.undo()
        (photos / "hopper.jpg").touch()
        engine.add(photos)
    times = {row[1]: row[5] for row in dump(tmp_path / "g")["photos"]}
    assert times[b"hopper.jpg"] == (photos / "hopper.jpg").stat().st_ctime_ns
    assert times[b"astronaut.jpg"] is None


def test_unreadable_photos_are_reported_until_they_are_mended(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    broken = photos / "broken.jpg"
    shutil.copy(broken, photos / "copy.jpg")
    with open_engine(tmp_path / "g", tiny_model) as engine:
        for _ in range(2):
            reported: list[str] = []
            done = engine.add(photos, report=lambda error: reported.append(error.photo))  # noqa: B023
            assert done.unreadable == (
                (str(broken), "truncated"),
                (str(photos / "copy.jpg"), "truncated"),
            )
            assert reported == [str(broken), str(photos / "copy.jpg")]
            assert counted(asdict(done)) == done.photos == 5
        elsewhere = Path(shutil.copy(broken, tmp_path / "third.jpg"))  # its bytes are known
        assert engine.add(elsewhere).unreadable == ((str(elsewhere), "truncated"),)
        shutil.copy(photos / "hopper.jpg", broken)
        assert engine.add(photos).unreadable == ((str(photos / "copy.jpg"), "truncated"),)
        assert engine.add(photos / "hopper.jpg").unreadable == ()


@pytest.mark.parametrize("filled", [False, True], ids=["cut", "zeros"])
def test_photo_that_breaks_off_is_indexed_and_recorded_as_damaged(
    tiny_model: Path, photos: Path, tmp_path: Path, filled: bool
) -> None:
    data = (photos / "hopper.jpg").read_bytes()
    kept = data[: len(data) * 8 // 10]
    (photos / "hopper.jpg").write_bytes(kept + filled * bytes(len(data) - len(kept)))
    (photos / "broken.jpg").write_bytes(data[: len(data) // 5])  # the face is not there
    with open_engine(tmp_path / "g", tiny_model) as engine:
        first = engine.add(photos)
        assert (first.added, first.faces, first.no_face, first.unreadable) == (4, 2, 2, ())
        paths = [str(photos / name) for name in ("broken.jpg", "hopper.jpg")]
        assert [path for path, _ in first.damaged] == paths
        reason = re.compile(r"\d\d% of its rows are missing")
        assert all(reason.fullmatch(why) for _, why in first.damaged)
        assert [tuple(one)[:3] for one in engine.photos("damaged")] == [
            (path, "damaged", why) for path, why in first.damaged
        ]
        assert [one.photo for one in engine.photos("no-face")] == [str(photos / "nobody.jpg")]
        again = engine.add(photos)
        assert (again.unchanged, again.damaged) == (4, first.damaged)
        assert json.loads(json.dumps(again.to_dict()))["damaged"][0]["photo"] == paths[0]
        assert engine.add(photos, again=["damaged"]).damaged == first.damaged
        (result,) = engine.search(photos / "hopper.jpg", k=1)
        assert result.matches[0].photo == paths[1]
        (photos / "hopper.jpg").write_bytes(data)
        mended = engine.add(photos)
        assert (mended.added, mended.faces, mended.damaged) == (1, 1, first.damaged[:1])


def test_files_that_need_a_package_are_counted_and_read_when_it_is_there(
    tiny_model: Path, hopper: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("raw", "rawpy")
    needs("jxl", "pillow_jxl")
    needs("video", "av")
    import pillow_jxl  # noqa: F401

    photos, preview = tmp_path / "photos", io.BytesIO()
    photos.mkdir()
    hopper.save(photos / "a.jxl", "JXL", lossless=True)
    hopper.save(preview, "JPEG", quality=95)
    (photos / "b.dng").write_bytes(dng(np.zeros((300, 400), np.uint16), preview=preview.getvalue()))
    (photos / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(4096))
    with open_engine(tmp_path / "g", tiny_model) as engine:
        with monkeypatch.context() as missing:
            for package in ("rawpy", "pillow_jxl", "av"):
                missing.setitem(sys.modules, package, None)
            done = engine.add(photos)
            assert (done.photos, done.unread) == (0, {"JXL": 1, "RAW": 1, "VIDEO": 1})
            assert json.loads(json.dumps(done.to_dict()))["unread"] == done.unread
            named = engine.add(photos / "a.jxl", photos / "b.dng", photos / "c.mp4")
            reasons = ["needs face2vec[jxl]", "needs face2vec[raw]", "needs face2vec[video]"]
            assert [why for _, why in named.unreadable] == reasons
            assert engine.photos() == []  # not for ever
        done = engine.add(photos)
        assert (done.photos, done.videos, done.added, done.faces) == (3, 1, 2, 2)
        assert (done.unread, done.unreadable) == ({}, ((str(photos / "c.mp4"), "damaged"),))
        (result,) = engine.search(photos / "a.jxl", k=2)
        assert [Path(match.photo).name for match in result.matches] == ["a.jxl", "b.dng"]
        assert result.matches[1].similarity > 0.95


def test_photos_are_listed_by_status(folder: Path, faces_folder: Path) -> None:
    with open_engine(folder) as engine:
        assert engine.photos("unreadable") == [
            (str(faces_folder / "broken.jpg"), "unreadable", "truncated", "")
        ]
        assert engine.photos("no-face") == [(str(faces_folder / "nobody.jpg"), "no-face", "", "")]
        everything = engine.photos()
        assert len(everything) == 9
        assert [one for one in everything if one.status == "indexed"] == engine.photos("indexed")
        assert engine.photos("unreadable", "no-face", "indexed") == everything
        with pytest.raises(SettingsError, match="statuses must be some of 'indexed', 'no-face'"):
            engine.photos("no face")


def test_only_some_of_the_photos_found_are_added(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = [str(faces_folder / "hopper.jpg"), str(faces_folder / "more" / "gone.jpg")]
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        done = engine.add(faces_folder, only=wanted)
        assert (done.photos, done.added) == (1, 1)
        assert [one.photo for one in engine.photos()] == wanted[:1]
        assert engine.add(faces_folder, only=()).photos == 0


def test_photos_are_read_again_on_request(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "hopper.jpg", photos / "hopper too.jpg")
    with open_engine(tmp_path / "g", tiny_model) as engine:
        with monkeypatch.context() as earlier:  # a version that could not read or find so much
            earlier.setattr(
                "face2vec.encoding.extract.detected", lambda _, images: [[] for _ in images]
            )
            assert engine.add(photos).no_face == 3
        assert engine.add(photos).unchanged == 4
        assert engine.add(photos, again=["unreadable"]).unreadable == (
            (str(photos / "broken.jpg"), "truncated"),
        )
        assert engine.info()["faces"] == 0
        done = engine.add(photos, again=["no-face", "unreadable"])
        assert (done.added, done.copies, done.faces, done.no_face) == (3, 1, 2, 1)
        assert [Path(one.photo).name for one in engine.photos("no-face")] == ["nobody.jpg"]
        (result,) = engine.search(photos / "hopper.jpg", k=1)
        assert result.matches[0].copies != ()
        before = dump(tmp_path / "g")
        again = engine.add(photos, again=["indexed"])
        assert (again.unchanged, again.added) == (4, 0)
        assert dump(tmp_path / "g") == before
        assert engine.check() == []
        with pytest.raises(SettingsError, match=r"again must be some of .*, not 'no-face'"):
            engine.add(photos, again="no-face")


def test_changed_photo_replaces_its_faces(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos)
        (before,) = engine.search(photos / "hopper.jpg")
        shutil.copy(photos / "astronaut.jpg", photos / "nobody.jpg")
        with Image.open(photos / "hopper.jpg") as image:
            image.crop((40, 20, 500, 560)).save(photos / "hopper.jpg", quality=97)
        summary = engine.add(photos)
        assert (summary.added, summary.copies, summary.unchanged, summary.faces) == (1, 1, 1, 1)
        (after,) = engine.search(photos / "hopper.jpg")
        assert after.matches[0].similarity == pytest.approx(1, abs=1e-5)
        assert after.matches[0].photo == str(photos / "hopper.jpg")
        gone = before.matches[0].face.id
        assert gone not in [match.face.id for match in after.matches]
        assert len(after.matches) == 2
        (found,) = engine.search(photos / "nobody.jpg", k=1)
        assert found.matches[0].photo == str(photos / "astronaut.jpg")
        assert found.matches[0].copies == (str(photos / "nobody.jpg"),)
        assert engine.check() == []


def test_renamed_photo_is_not_decoded_again(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos)
        (query,) = engine.encode(photos / "hopper.jpg")
        (photos / "hopper.jpg").rename(photos / "grace.jpg")
        (photos / "astronaut.jpg").rename(photos / "eileen.jpg")
        shutil.copy(photos / "eileen.jpg", photos / "eileen too.jpg")
        monkeypatch.setattr("face2vec.encoding.extract.open_photo", no_decoding)
        summary = engine.add(photos)
        assert (summary.added, summary.copies, summary.unchanged) == (0, 3, 1)
        assert engine.prune() == (2, 0)
        (found,) = engine.search(query)
    assert [(Path(m.photo).name, [Path(c).name for c in m.copies]) for m in found.matches] == [
        ("grace.jpg", []),
        ("eileen too.jpg", ["eileen.jpg"]),
    ]


def test_photos_are_added_and_removed_by_lists_of_paths(folder: Path, faces_folder: Path) -> None:
    two = [faces_folder / "hopper.jpg", faces_folder / "astronaut.jpg"]
    with open_engine(folder) as engine:
        assert engine.add(two).unchanged == 2
        assert engine.remove(two).photos == 2
        with pytest.raises(GalleryError, match=r"none of these .*hopper\.jpg, .*astronaut\.jpg"):
            engine.remove(two)
        assert engine.add(iter(two)).photos == 2
        with pytest.raises(SettingsError, match="not by an array float64"):
            engine.add(np.zeros(3))
        with pytest.raises(SettingsError, match="not by an object of type Image"):
            engine.remove(Image.new("L", (1, 1)))


def test_the_root_of_the_file_system_is_not_removed(folder: Path) -> None:
    with open_engine(folder) as engine:
        before = engine.info()["faces"]
        for root in (folder.anchor, f"{folder.anchor}tmp/.."):
            with pytest.raises(SettingsError, match="stands for all photos on this machine"):
                engine.remove("nowhere.jpg", root)
        assert engine.info()["faces"] == before > 0


def test_removed_photos_are_not_found_and_can_be_added_again(
    folder: Path, faces_folder: Path
) -> None:
    with open_engine(folder) as engine:
        (before,) = engine.search(faces_folder / "hopper.jpg", k=20)
        assert engine.remove(faces_folder / "hopper.jpg") == (1, 0)  # its copy is left
        assert engine.remove(faces_folder / "copy of hopper.jpg", faces_folder / "more") == (4, 4)
        (after,) = engine.search(faces_folder / "hopper.jpg", k=20)
        assert {Path(match.photo).name for match in after.matches} == {"astronaut.jpg", "both.jpg"}
        assert len(after.matches) == 3
        assert engine.check() == []
        with pytest.raises(GalleryError, match="none of these is in the gallery"):
            engine.remove(faces_folder / "hopper.jpg")
        assert engine.add(faces_folder).faces == 4
        (again,) = engine.search(faces_folder / "hopper.jpg", k=20)
    assert [(m.photo, m.copies) for m in again.matches] == [
        (m.photo, m.copies) for m in before.matches
    ]
    np.testing.assert_array_equal(
        [m.similarity for m in again.matches], [m.similarity for m in before.matches]
    )


def test_prune_drops_what_has_gone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos)
        (photos / "hopper.jpg").unlink()
        assert engine.prune() == (1, 1)
        (found,) = engine.search(photos / "astronaut.jpg")
        assert [match.photo for match in found.matches] == [str(photos / "astronaut.jpg")]
        shutil.rmtree(photos)
        with pytest.raises(GalleryError, match="missing or empty"):
            engine.prune()
        assert engine.prune(force=True) == (3, 1)
        (found,) = engine.search(unit(1))
        assert list(found.matches) == []


def test_add_of_a_missing_source_creates_no_gallery(tiny_model: Path, tmp_path: Path) -> None:
    with (
        open_engine(tmp_path / "gallery", tiny_model) as engine,
        pytest.raises(SettingsError, match="does not exist"),
    ):
        engine.add(tmp_path / "nowhere")
    assert not (tmp_path / "gallery").exists()


def test_failing_model_leaves_no_gallery_behind(
    tiny_model: Path, faces_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_model.read_bytes()[:5000])
    shutil.copy(tiny_model.with_suffix(".json"), broken.with_suffix(".json"))
    with open_engine(tmp_path / "gallery", broken) as engine, pytest.raises(ModelError):
        engine.add(faces_folder)
    with (
        open_engine(tmp_path / "gallery", tmp_path / "gone.onnx") as engine,
        pytest.raises(ModelError, match=r"gone\.onnx"),
    ):
        engine.add(faces_folder)
    assert not (tmp_path / "gallery").exists()


def test_mutated_files_are_all_accounted_for(
    tiny_model: Path, tmp_path: Path, astronaut: Image.Image
) -> None:
    rng = np.random.default_rng(20)
    face = astronaut.crop((130, 20, 320, 220)).resize((95, 100))
    originals = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        face.save(file, kind)
        originals.append((kind.lower(), file.getvalue()))
    folder = tmp_path / "mutated"
    folder.mkdir()
    for n in range(200):
        kind, data = originals[n % len(originals)]
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            damaged[place] = rng.integers(256)
        if n % 5 == 0:
            del damaged[rng.integers(1, len(data)) :]
        (folder / f"{n:03}.{kind}").write_bytes(damaged)
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        summary = engine.add(folder)
        stored = engine._session.gallery().photos()
        states = {path: (status, reason) for path, status, reason in stored}
        assert engine.check() == []
        info = engine.info()
        again = engine.add(folder)
    assert summary.photos == 200
    assert sorted(states) == sorted(str(path) for path in folder.iterdir())
    assert counted(asdict(summary)) == 200
    unreadable = {path: reason for path, (state, reason) in states.items() if state == "unreadable"}
    assert dict(summary.unreadable).items() <= unreadable.items()
    assert set(unreadable.values()) <= set(REASONS)
    indexed = [path for path, (state, _) in states.items() if state == "indexed"]
    assert len(unreadable) > 20
    assert len(indexed) > 20
    assert len(indexed) + len(unreadable) + info["no_face"] == 200
    assert (info["photos"], info["faces"]) == (200, summary.faces)
    assert info["unreadable"] == len(unreadable)
    assert dict(again.unreadable) == unreadable
    assert (again.unchanged, again.added, again.faces) == (200 - len(unreadable), 0, 0)


# --- searching ------------------------------------------------------------------------------


def test_search_gives_the_cosines_in_order(family: Face2Vec, faces_folder: Path) -> None:
    everyone = all_faces(family, faces_folder)
    (found,) = family.search(faces_folder / "astronaut.jpg", k=100)
    (query,) = family.encode(faces_folder / "astronaut.jpg")
    expected: dict[tuple[float, ...], tuple[float, set[str]]] = {}
    for path, face in everyone:
        cosine = float(np.asarray(face.embedding) @ np.asarray(query.embedding))
        # A copy of a photo has the same faces under another name.
        same = (round(cosine, 5), *face.box)
        expected.setdefault(same, (cosine, set()))[1].add(path)
    wanted = sorted(expected.values(), key=lambda pair: -pair[0])
    assert len(found.matches) == len(wanted) == 7
    for rank, (match, (cosine, paths)) in enumerate(zip(found.matches, wanted, strict=True), 1):
        assert match.rank == rank
        assert match.similarity == pytest.approx(cosine, abs=1e-5)
        assert {match.photo, *match.copies} == paths
        assert match.photo == min(paths)
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-5)
    assert found.matches[0].photo == str(faces_folder / "astronaut.jpg")
    assert (found.photo, found.face.box) == (  # type: ignore[union-attr]
        str(faces_folder / "astronaut.jpg"),
        query.box,
    )


def test_search_of_the_same_people_ranks_them_first(family: Face2Vec, faces_folder: Path) -> None:
    for person in ("astronaut", "hopper"):
        (found,) = family.search(faces_folder / f"{person}.jpg", k=3)
        others = [match for match in found.matches if "both" not in match.photo]
        assert all(person in Path(match.photo).name for match in others[:2])


def test_search_with_two_faces_returns_two_results(family: Face2Vec, faces_folder: Path) -> None:
    found = family.search(faces_folder / "both.jpg", k=2)
    faces = family.encode(faces_folder / "both.jpg")
    assert [one.face.box for one in found if one.face] == [face.box for face in faces]
    for one in found:
        assert len(one.matches) == 2
        assert one.matches[0].photo == str(faces_folder / "both.jpg")
        assert one.face is not None
        np.testing.assert_allclose(one.matches[0].face.box, one.face.box)


def test_search_takes_bytes_images_and_arrays(family: Face2Vec, faces_folder: Path) -> None:
    path = faces_folder / "hopper.jpg"
    with Image.open(path) as image:
        array = np.asarray(image)
    (wanted,) = family.search(path)
    for query in (path.read_bytes(), array, Image.fromarray(array), open_photo(path), str(path)):
        (found,) = family.search(query)
        assert [m.face.id for m in found.matches] == [m.face.id for m in wanted.matches]
        assert found.matches[0].similarity == pytest.approx(1, abs=1e-5)


def test_search_k_is_the_most_and_not_padded(family: Face2Vec, faces_folder: Path) -> None:
    (all_of_them,) = family.search(faces_folder / "hopper.jpg", k=1000)
    ids = [match.face.id for match in all_of_them.matches]
    assert len(ids) == len(set(ids)) == 7
    for k in (1, 2, 6, 7, 8):
        (found,) = family.search(faces_folder / "hopper.jpg", k=k)
        assert [match.face.id for match in found.matches] == ids[:k]


def test_search_min_similarity_leaves_out_what_is_below(
    family: Face2Vec, faces_folder: Path
) -> None:
    (every,) = family.search(faces_folder / "hopper.jpg")
    similarities = [match.similarity for match in every.matches]
    for limit in (-1.0, similarities[2], similarities[3] + 1e-6, 0.999):
        (found,) = family.search(faces_folder / "hopper.jpg", min_similarity=limit)
        assert [m.similarity for m in found.matches] == [s for s in similarities if s >= limit]
    (none,) = family.search(-every_embedding(family, every.matches[0].face), min_similarity=0.99)
    assert list(none.matches) == []


def every_embedding(engine: Face2Vec, face: Face) -> np.ndarray:
    return np.asarray(reads(engine._session.gallery()).embeddings([face.id or 0])[0])


def test_search_without_a_face_gives_nothing(family: Face2Vec, faces_folder: Path) -> None:
    assert family.search(faces_folder / "nobody.jpg") == []
    with pytest.raises(PhotoError, match="truncated"):
        family.search(faces_folder / "broken.jpg")


@pytest.mark.parametrize("k", [0, -3])
def test_search_k_below_one_is_refused(k: int, family: Face2Vec) -> None:
    with pytest.raises(SettingsError, match=f"k must be at least 1, not {k}"):
        family.search(unit(1), k)


def test_search_without_a_gallery_says_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    engine = open_engine(tmp_path / "gallery", tiny_model)
    with pytest.raises(GalleryNotFoundError, match="add photos to it first"):
        engine.search(unit(1))
    assert not (tmp_path / "gallery").exists()


def test_search_of_an_empty_gallery_finds_nothing(
    tmp_path: Path, tiny_model: Path, faces_folder: Path
) -> None:
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(faces_folder / "nobody.jpg")
        (found,) = engine.search(faces_folder / "hopper.jpg")
        assert found.face is not None
        assert list(found.matches) == []
        assert [list(one.matches) for one in engine.search(np.eye(64)[:2])] == [[], []]


def test_search_by_embeddings_of_any_length(family: Face2Vec, faces_folder: Path) -> None:
    (face,) = family.encode(faces_folder / "hopper.jpg")
    (other,) = family.encode(faces_folder / "astronaut.jpg")
    (one,) = family.search(np.asarray(face.embedding) * 7)
    assert one.face is None
    assert one.matches[0].similarity == pytest.approx(1, abs=1e-5)
    rows = np.stack([other.embedding, face.embedding]).astype(np.float64)  # type: ignore[list-item]
    found = family.search(rows, k=3)
    assert [[m.face.id for m in entry.matches] for entry in found] == [
        [m.face.id for m in family.search(query, k=3)[0].matches] for query in (other, face)
    ]
    assert family.search(np.empty((0, 64), np.float32)) == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (np.zeros(63), r"shape \(63,\); .*\(64,\)"),
        (np.zeros((2, 128)), r"shape \(2, 128\)"),
        (np.zeros((1, 2, 64)), r"shape \(1, 2, 64\)"),
        (np.zeros(64), "has length 0 or is not finite"),
        (np.full(64, np.nan), "has length 0 or is not finite"),
        (np.full(64, np.inf), "has length 0 or is not finite"),
        (np.full(64, 1e30), "is not finite in float32"),
    ],
    ids=["too short", "too long", "three axes", "zero", "nan", "inf", "huge"],
)
def test_search_by_an_impossible_embedding_is_refused(
    query: np.ndarray, words: str, family: Face2Vec
) -> None:
    with pytest.raises(SettingsError, match=words):
        family.search(query)


def test_search_by_a_face_from_a_match_does_not_find_itself(
    family: Face2Vec, faces_folder: Path
) -> None:
    (found,) = family.search(faces_folder / "hopper.jpg")
    itself = found.matches[0].face
    (by_face,) = family.search(itself, k=100)
    assert by_face.face is itself
    assert itself.id not in [match.face.id for match in by_face.matches]
    assert [(m.rank, m.face.id) for m in by_face.matches] == [
        (m.rank - 1, m.face.id) for m in found.matches[1:]
    ]
    (two,) = family.search(itself, k=2)
    assert len(two.matches) == 2
    with pytest.raises(SettingsError, match="no embedding and is not in the gallery"):
        family.search(replace(itself, id=None))
    with pytest.raises(SettingsError, match="no embedding and is not in the gallery"):
        family.search(replace(itself, id=10**9))


def test_face_of_another_gallery_is_not_confused_with_the_same_id(
    family: Face2Vec, folder: Path, tmp_path: Path, tiny_model: Path, faces_folder: Path
) -> None:
    with open_engine(tmp_path / "other", tiny_model) as other:
        other.add(faces_folder / "hopper.jpg")
        (found,) = other.search(faces_folder / "hopper.jpg")
        stranger = found.matches[0].face
        theirs = reads(other._session.gallery()).embeddings([stranger.id or 0])[0]
        whole = stranger.with_embedding(theirs)
    (wanted,) = family.search(np.asarray(whole.embedding), k=100)
    (got,) = family.search(whole, k=100)
    assert whole.id in [match.face.id for match in wanted.matches]
    assert [m.face.id for m in got.matches] == [m.face.id for m in wanted.matches]
    with pytest.raises(SettingsError, match="no embedding and is not in the gallery"):
        family.search(stranger)


def test_a_face_with_another_embedding_than_the_gallerys_is_not_that_face(
    family: Face2Vec, faces_folder: Path
) -> None:
    (found,) = family.search(faces_folder / "hopper.jpg")
    face = found.matches[0].face
    changed = face.with_embedding(unit(1, 2, 3))
    (got,) = family.search(changed, k=100)
    assert face.id in [match.face.id for match in got.matches]


def test_similarities_stay_within_one(family: Face2Vec, faces_folder: Path) -> None:
    (found,) = family.search(faces_folder / "hopper.jpg")
    face = found.matches[0].face
    query = every_embedding(family, face)
    longer = face.with_embedding(query * np.float32(1 + 1e-6))
    opposite = face.with_embedding(query * np.float32(-1 - 1e-6))
    assert family.search(longer, k=1)[0].matches[0].similarity == 1
    assert family.search(opposite, k=100)[0].matches[-1].similarity == -1


def test_results_outlive_the_engine_and_the_gallery(
    folder: Path, family: Face2Vec, faces_folder: Path
) -> None:
    query = faces_folder / "astronaut.jpg"
    with open_engine(folder) as engine:
        (found,) = engine.search(query)
        again = pickle.loads(pickle.dumps(engine.search(query)[0].matches))
    shutil.rmtree(folder)
    (wanted,) = family.search(query)
    for matches in (found.matches, again):
        assert len(matches) == len(wanted.matches) == 7
        assert matches.to_dicts() == wanted.matches.to_dicts()
        assert any(match.copies for match in matches)


def test_search_by_several_photos_is_by_the_mean_of_their_largest_faces(
    family: Face2Vec, faces_folder: Path
) -> None:
    names = ["both.jpg", "nobody.jpg", "more/hopper-brighter.webp"]
    (found,) = family.search([faces_folder / name for name in names])
    embeddings = []
    for name in names:
        faces = family.encode(faces_folder / name)
        if faces:
            embeddings.append(max(faces, key=lambda face: face.area).embedding)
    mean = np.sum(embeddings, axis=0)
    (wanted,) = family.search(mean)
    assert [m.face.id for m in found.matches] == [m.face.id for m in wanted.matches]
    assert [m.similarity for m in found.matches] == pytest.approx(
        [m.similarity for m in wanted.matches], abs=1e-6
    )
    assert all(name in found.photo for name in names)
    with pytest.raises(NoFaceError, match=r"nobody\.jpg"):
        family.search([faces_folder / "nobody.jpg"])


# --- the index beside the gallery -----------------------------------------------------------


def answers(engine: Face2Vec) -> list[list[tuple[int | None, float]]]:
    queries = np.concatenate([np.eye(64)[:5], -np.eye(64)[:3]])
    return [
        [(match.face.id, round(match.similarity, 5)) for match in found.matches]
        for found in engine.search(queries, k=50)
    ]


@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "changed", "foreign", "nonsense"])
def test_damaged_index_file_never_changes_an_answer(
    damage: str, folder: Path, family: Face2Vec, tmp_path: Path, tiny_model: Path, photos: Path
) -> None:
    index = folder / "index.faiss"
    content = index.read_bytes()
    if damage == "deleted":
        index.unlink()
    elif damage == "foreign":
        with open_engine(tmp_path / "other", tiny_model) as other:
            other.add(photos)
        shutil.copy(tmp_path / "other" / "index.faiss", index)
    else:
        middle = len(content) // 3
        index.write_bytes(
            {
                "cut": content[:-100],
                "emptied": b"",
                "changed": content[:middle] + b"\x55\xaa" * 8 + content[middle + 16 :],
                "nonsense": b"no index" * 100,
            }[damage]
        )
    with open_engine(folder) as engine:
        assert len(engine.check()) == 1
        assert str(index) in engine.check()[0]
        assert answers(engine) == answers(family)
        engine.rebuild()
        assert engine.check() == []
        assert answers(engine) == answers(family)


def test_index_behind_the_gallery_catches_up(
    tiny_model: Path, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gallery"
    with open_engine(folder, tiny_model) as engine:
        engine.add(photos)
        old = (folder / "index.faiss").read_bytes()
        engine.add(faces_folder / "more", faces_folder / "both.jpg")
        engine.remove(photos / "hopper.jpg")
        wanted = answers(engine)
    (folder / "index.faiss").write_bytes(old)
    with open_engine(folder) as engine:
        (found,) = engine.search(photos / "hopper.jpg", k=1)
        assert len(found.matches) == 1  # what was removed takes no place
        assert answers(engine) == wanted
        (problem,) = engine.check()
        assert "holds faces that were removed from the gallery" in problem
    (folder / "index.faiss").unlink()
    with open_engine(folder) as engine:
        assert answers(engine) == wanted
    assert len(wanted[0]) == 6


def test_open_engine_sees_what_another_adds_and_removes(
    tiny_model: Path, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gallery"
    with open_engine(folder, tiny_model) as writer, open_engine(folder) as reader:
        writer.add(photos / "hopper.jpg")
        assert len(answers(reader)[0]) == 1
        writer.add(faces_folder / "both.jpg")
        assert answers(reader) == answers(writer)
        assert len(answers(reader)[0]) == 3
        writer.remove(photos / "hopper.jpg")
        (found,) = reader.search(photos / "hopper.jpg", k=1)
        assert [match.photo for match in found.matches] == [str(faces_folder / "both.jpg")]
        assert answers(reader) == answers(writer)
        assert len(answers(reader)[0]) == 2


@pytest.mark.parametrize("kind", ["auto", "flat", "pq"])
def test_index_of_few_faces_is_flat(kind: str, folder: Path, family: Face2Vec) -> None:
    with open_engine(folder, index=kind) as engine:
        engine.rebuild()
        assert engine.info()["index"] == "flat"
        assert engine.info()["index_recall"] is None
        assert answers(engine) == answers(family)


def test_requested_kind_of_index_is_used_and_its_recall_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "PQ_FACES_LEAST", 100)
    vectors = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Gallery.create(tmp_path / "gallery", fake_fingerprint(64)) as gallery:
        entries = [
            Entry("/photos", f"{n}.jpg", 1, 1, n.to_bytes(32, "big"), 9, 9, INDEXED,
                  faces=(Face((0.0, 0.0, 9.0, 9.0), ((1.0, 1.0),) * 5, 1.0, vector),))
            for n, vector in enumerate(vectors)
        ]  # fmt: skip
        with gallery.write() as writer:
            writer.record(entries)
    with Face2Vec(tmp_path / "gallery", index="pq") as engine:
        (found,) = engine.search(vectors[:1], k=1)
        assert found.matches[0].similarity == pytest.approx(1, abs=1e-6)
        facts = engine.info()
        assert (facts["index"], facts["index_recall_faces"]) == ("pq", 300)
        assert 0.99 <= facts["index_recall"] <= 1


def test_index_held_in_memory_follows_what_is_added(
    tiny_model: Path, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gallery"
    with open_engine(folder, tiny_model) as writer:
        writer.add(photos / "hopper.jpg")
        with open_engine(folder, index_in_memory=True) as holder:
            assert answers(holder) == answers(writer)
            writer.add(faces_folder / "both.jpg")
            assert answers(holder) == answers(writer)
            assert len(answers(holder)[0]) == 3
            holder.remove(photos / "hopper.jpg")
            assert answers(holder) == answers(writer)
            assert len(answers(holder)[0]) == 2


# --- one gallery, one model -----------------------------------------------------------------


def other_model(tiny_model: Path, folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = Path(shutil.copy(tiny_model, folder / "other.onnx"))
    description = json.loads(tiny_model.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".json").write_text(json.dumps({**description, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"standardization": "fixed"}, "standardization"),
        ({"mirror": True}, "mirror"),
        ({"channels": "BGR"}, "channels"),
        ({"template": [[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7], [0.7, 0.7]]}, "template"),
    ],
    ids=["standardization", "mirror", "channels", "template"],
)
def test_model_that_makes_other_embeddings_is_refused_in_words(
    changes: dict[str, object], word: str, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    before = dump(folder)
    other = other_model(tiny_model, tmp_path / "models", **changes)
    with pytest.raises(GalleryMismatchError, match=rf"was made with model .*{word}.*this is"):
        open_engine(folder, other)
    assert dump(folder) == before


def test_gallery_of_another_detector_version_is_refused(
    folder: Path, faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face2vec.detection.select.CASCADE_VERSION", 2)
    before = dump(folder)
    with open_engine(folder) as engine:
        with pytest.raises(
            GalleryMismatchError, match=r"version 1 of the detector 'mtcnn'.* version 2"
        ):
            engine.search(faces_folder / "hopper.jpg")
        with pytest.raises(GalleryMismatchError, match="version 1 of the detector 'mtcnn'"):
            engine.add(faces_folder)
        gallery = reads(engine._session.gallery())
        query = gallery.stored_faces([1])[0].face  # embeddings stay comparable
        assert engine.search(query, k=1)[0].matches[0].similarity > 0.9
    assert dump(folder) == before


def test_same_model_under_another_name_is_the_same(
    folder: Path, tiny_model: Path, tmp_path: Path, faces_folder: Path
) -> None:
    other = other_model(tiny_model, tmp_path / "models", key="tiny")
    with open_engine(folder, other) as engine:
        (found,) = engine.search(faces_folder / "hopper.jpg", k=1)
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-5)


def test_model_changed_behind_the_gallerys_back_is_refused(
    tiny_model: Path, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    model = other_model(tiny_model, tmp_path / "models")
    with open_engine(tmp_path / "gallery", model) as engine:
        engine.add(photos)
    other_model(tiny_model, tmp_path / "models", mean=100, standardization="fixed")
    with open_engine(tmp_path / "gallery") as engine:
        with pytest.raises(GalleryMismatchError, match="standardization"):
            engine.search(photos / "hopper.jpg")
        with pytest.raises(GalleryMismatchError, match="standardization"):
            engine.add(faces_folder)
        assert len(engine.search(unit(1, 2))[0].matches) == 2  # needs no network


def test_opening_without_a_model_uses_the_gallerys_and_names_it_when_it_has_gone(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    model = other_model(tiny_model, tmp_path / "models")
    with open_engine(tmp_path / "gallery", model) as engine:
        engine.add(photos)
    with open_engine(tmp_path / "gallery") as engine:
        assert engine.encoder.model.path == model
        assert len(engine.search(photos / "hopper.jpg")) == 1
    model.unlink()
    with open_engine(tmp_path / "gallery") as engine:
        with pytest.raises(ModelError) as caught:
            engine.search(photos / "hopper.jpg")
        assert str(model) in str(caught.value)


def test_other_detector_settings_are_refused_and_named(folder: Path) -> None:
    wanted = DetectorSettings(min_face_size=40, try_turned=True)
    with pytest.raises(GalleryMismatchError) as caught:
        open_engine(folder, detector=wanted)
    assert "min_face_size 20, not 40" in str(caught.value)
    assert "try_turned False, not True" in str(caught.value)
    assert "max_side" not in str(caught.value)


def test_detector_settings_are_remembered(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    wanted = DetectorSettings(min_face_size=0.2, max_side=700)
    with open_engine(tmp_path / "gallery", tiny_model, detector=wanted) as engine:
        assert engine.detector == wanted
        engine.add(photos / "hopper.jpg")
    with open_engine(tmp_path / "gallery") as engine:
        assert engine.detector == wanted
        assert engine.encoder._extractor.wanted == wanted
    with open_engine(tmp_path / "gallery", detector=wanted) as engine:
        assert engine.search(photos / "nobody.jpg") == []


# --- other processes ------------------------------------------------------------------------


def test_second_writer_is_refused_and_readers_see_whole_batches(
    many: Path, tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, list[tuple[Any, ...]]]
) -> None:
    folder = tmp_path / "gallery"
    counts, similarities = [], []
    with start("steps", folder, tiny_model, many) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None
        line = builder.stdout.readline()
        with open_engine(folder, tiny_model) as engine:
            with pytest.raises(GalleryLockedError, match=f"process {builder.pid} on "):
                engine.add(many)
            while line == "batch\n":
                (found,) = engine.search(unit(1, -1, 0.5), k=1000)
                counts.append((engine.info()["photos"], len(found.matches)))
                similarities.append({m.face.id: m.similarity for m in found.matches})
                assert [m.rank for m in found.matches] == list(range(1, len(found.matches) + 1))
                builder.stdin.write("\n")
                builder.stdin.flush()
                line = builder.stdout.readline()
        builder.stdin.close()
    assert builder.returncode == 0
    assert json.loads(line)["photos"] == MANY
    assert [photos for photos, _ in counts] == [*range(4, MANY, 4), MANY]
    faces = [count for _, count in counts]
    assert faces == sorted(faces)
    assert faces[-1] == len(uninterrupted["faces"])
    for earlier, later in pairwise(similarities):
        assert earlier.items() <= later.items()
    assert dump(folder) == uninterrupted


@posix_only
def test_ctrl_c_keeps_finished_work_and_the_build_resumes(
    many: Path, tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, list[tuple[Any, ...]]]
) -> None:
    folder = tmp_path / "gallery"
    with start("free", folder, tiny_model, many) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "batch\n"
        builder.send_signal(signal.SIGINT)
        *_, last = builder.stdout.read().splitlines()
    assert builder.returncode == 0
    summary = json.loads(last)
    assert summary["interrupted"] is True
    with open_engine(folder, tiny_model) as engine:
        assert engine.check() == []
        kept = engine.info()
        assert kept["photos"] == summary["photos"] == counted(summary)
        assert 4 <= kept["photos"] < MANY
        assert kept["faces"] == summary["faces"]
        again = engine.add(many)
    assert (again.photos, again.unchanged, again.interrupted) == (MANY, kept["photos"], False)
    assert dump(folder) == uninterrupted


def test_ctrl_c_waits_until_a_counted_photo_is_stored(
    many: Path, tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, list[tuple[Any, ...]]]
) -> None:
    told: list[str] = []

    def interrupt(error: PhotoError) -> None:
        told.append(error.reason)
        signal.raise_signal(signal.SIGINT)
        told.append("went on")

    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        summary = engine.add(many, report=interrupt)
        kept = engine.info()
        engine.add(many)
    assert dump(tmp_path / "gallery") == uninterrupted
    assert told == ["truncated", "went on"]
    assert summary.interrupted
    assert [Path(path).name for path, _ in summary.unreadable] == ["12-broken.jpg"]
    assert kept["unreadable"] == 1
    assert kept["photos"] == summary.photos == counted(asdict(summary))
    assert kept["faces"] == summary.faces


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of one process; needs os.fork")
def test_build_killed_anywhere_and_resumed_equals_an_uninterrupted_one(
    many: Path, tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, list[tuple[Any, ...]]]
) -> None:
    with start("count", tmp_path / "counted", tiny_model, many) as counter:
        assert counter.stdout is not None
        total = int(counter.stdout.read())
    assert dump(tmp_path / "counted") == uninterrupted
    places = np.linspace(3, total - 3, 14).astype(int)
    rng = np.random.default_rng()
    points = [
        *(f"statement:{place}" for place in places),
        "fsync:1",  # the gallery is made
        "fsync:2",  # the index is written
        *(f"seconds:{seconds:.3f}" for seconds in rng.uniform(0.3, 1.5, 6)),
    ]
    with start("kills", tmp_path, tiny_model, many, *points) as killer:
        assert killer.stdout is not None
        report = json.loads(killer.stdout.read())
    assert [entry["point"] for entry in report] == points
    for entry in report:
        by_time = entry["point"].startswith("seconds:")
        assert entry["killed"] in ((signal.SIGKILL, 0) if by_time else (signal.SIGKILL,)), entry
        assert entry["again"] == 0, entry
        assert dump(tmp_path / entry["point"]) == uninterrupted, entry
        with open_engine(tmp_path / entry["point"]) as engine:
            assert engine.check() == [], entry
            (found,) = engine.search(unit(1), k=1000)
        assert len(found.matches) == len(uninterrupted["faces"]), entry


def test_closed_engine_can_be_used_again(folder: Path, family: Face2Vec) -> None:
    engine = open_engine(folder)
    wanted = answers(engine)
    engine.close()
    engine.close()
    assert answers(engine) == wanted == answers(family)
    engine.close()


def test_gallery_of_another_engine_in_the_same_process_is_locked_while_it_adds(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    with open_engine(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos)
        with Gallery.open(tmp_path / "gallery") as gallery, gallery.write():
            for change in (
                lambda: engine.add(photos),
                lambda: engine.remove(photos),
                lambda: engine.prune(),
                lambda: engine.rebuild(),
            ):
                with pytest.raises(GalleryLockedError, match=str(os.getpid())):
                    change()
        (found,) = engine.search(photos / "hopper.jpg")  # reading goes on
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-5)


# --- deprecated names -----------------------------------------------------------------------


def test_deprecated_names_work_with_a_warning(folder: Path, faces_folder: Path) -> None:
    with pytest.warns(DeprecationWarning, match="use face2vec.QueryResult"):
        assert face2vec.Found is face2vec.QueryResult
    with pytest.warns(DeprecationWarning, match="use index_in_memory"):
        engine = Face2Vec(folder, hold_index=True, runtime="onnxruntime")
    with engine:
        with pytest.warns(DeprecationWarning, match="use search_pose"):
            (old,) = engine.search_layout(faces_folder / "hopper.jpg", k=3, by="framing")
        (new,) = engine.search_pose(faces_folder / "hopper.jpg", k=3, by="framing")
    assert old.matches.to_json() == new.matches.to_json()
    with pytest.warns(DeprecationWarning, match="use Match.pose_distance"):
        assert old.matches[1].layout == new.matches[1].pose_distance
