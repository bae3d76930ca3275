"""Videos in a gallery: indexed, searched, shown, forgotten, exchanged, upgraded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs, posix_only, reads
from PIL import Image
from video_builder import drawn, grey, with_matrix, write_sound, write_video

from face2vec import Face2Vec, GalleryDamagedError, PhotoError
from face2vec.cli.main import main
from face2vec.encoding.encoder import HELD_BYTES
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.schema import LATER_COLUMNS
from face2vec.ingest import build as building
from face2vec.photos import video as video_module
from face2vec.photos.video import Video
from face2vec.report.matches import save_html
from face2vec.report.thumbnails import placeholder, thumbnail

ADA, BEA, CY = 0, 1, 2
FAST = {"movflags": "faststart"}
TABLES = ("roots", "contents", "photos", "faces", "embeddings", "journal", "ignored", "forgotten")


@pytest.fixture(scope="module", autouse=True)
def _pyav() -> None:
    needs("video", "av")


def opened(folder: Path, model: Path | None = None) -> Face2Vec:
    return Face2Vec(folder, model=model, runtime="onnxruntime", threads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ada for 3 s and then Bea for 2 s; nobody; a photo of Cy; not to be changed."""
    folder = tmp_path_factory.mktemp("videos")
    shots = [(drawn(ADA), 3.0), (drawn(BEA), 2.0)]
    write_video(folder / "a party.mp4", shots, options=FAST)
    write_video(folder / "b nobody.mkv", [(grey(120), 1.2)])
    drawn(CY).save(folder / "c.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def built(folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    gallery = tmp_path_factory.mktemp("built") / "gallery"
    with opened(gallery, tiny_model) as engine:
        done = engine.add(folder)
    assert (done.photos, done.videos, done.added, done.faces) == (3, 2, 3, 3)
    assert (done.no_face, done.unreadable, done.damaged) == (1, (), ())
    return gallery


@pytest.fixture
def gallery(built: Path, tmp_path: Path) -> Path:
    """A copy of the gallery that may be changed."""
    return Path(shutil.copytree(built, tmp_path / "gallery"))


def rows(gallery: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
            if table not in ("photos",)
            else connection.execute(f"SELECT * FROM {table} ORDER BY root_id, path").fetchall()
            for table in TABLES
        }


def seen(engine: Face2Vec, video: Path) -> list[tuple[float | None, tuple[float, float] | None]]:
    """Time and track of each face of a video."""
    with engine._session.gallery().read() as now:
        return [(one.face.time, one.face.track) for one in now.faces_of(str(video)).records()]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- Index and search ------------------------------------------------------------------------


def test_match_says_when_in_the_video_the_person_is_seen(built: Path, folder: Path) -> None:
    with opened(built) as engine:
        for person, begin, end in ((ADA, 0.0, 3.0), (BEA, 3.0, 5.0)):
            (result,) = engine.search(drawn(person), k=1)
            (match,) = result.matches
            assert Path(match.photo) == folder / "a party.mp4"
            assert match.similarity > 0.95
            assert match.time is not None
            assert begin <= match.time < end
            assert match.face.track == (begin, end - 1)
        (result,) = engine.search(drawn(CY), k=1)
        assert result.matches[0].time is result.matches[0].face.track is None
        assert [status.status for status in engine.photos()] == ["indexed", "no-face", "indexed"]


def test_another_picture_of_the_person_finds_the_video(folder: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "gallery", threads=2) as engine:
        engine.add(folder)
        for person, begin, end in ((ADA, 0.0, 3.0), (BEA, 3.0, 5.0)):
            (result,) = engine.search(drawn(person, 5), k=1)
            assert begin <= (result.matches[0].time or 0.0) < end


def test_progress_of_videos_is_told_to_a_function(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    with opened(tmp_path / "gallery", tiny_model) as engine:
        for _ in range(2):  # new, then unchanged
            seen.clear()
            done = engine.add(folder, progress=lambda *one: seen.append(one))
            assert (done.photos, done.videos, done.interrupted) == (3, 2, False)
            assert seen == [(1, 3), (2, 3), (3, 3)]


def test_unchanged_videos_are_not_opened_again(
    gallery: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the file was opened")

    before = rows(gallery)
    monkeypatch.setattr(building, "is_video", refuse)
    with opened(gallery) as engine:
        done = engine.add(folder)
    assert (done.photos, done.videos, done.unchanged, done.added) == (3, 2, 3, 0)
    assert rows(gallery) == before


def test_copy_of_a_video_is_not_decoded(
    gallery: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copy(folder / "a party.mp4", tmp_path / "copy.mp4"))
    monkeypatch.setattr(Video, "__iter__", lambda _: pytest.fail("it was decoded"))
    with opened(gallery) as engine:
        done = engine.add(copy)
        assert (done.photos, done.videos, done.copies, done.faces) == (1, 1, 1, 0)
        (result,) = engine.search(drawn(ADA), k=1)
    assert str(copy) in {result.matches[0].photo, *result.matches[0].copies}


def test_long_shot_is_stored_as_one_face(tiny_model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", [(drawn(ADA), 30)])
    with opened(tmp_path / "gallery", tiny_model) as engine:
        assert engine.add(video).faces == 1
        assert [track for _, track in seen(engine, video)] == [(0.0, 29.0)]


def test_frames_in_progress_are_limited(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame seems to hold as much as one thread may."""
    video = write_video(tmp_path / "a.mp4", [(grey(100), 40)])
    read, done = [0], [0]
    most = [0]
    real = Video.__iter__

    class Heavy(np.ndarray[Any, Any]):
        nbytes = HELD_BYTES  # type: ignore[assignment]

    def counted(self: Video) -> Any:
        for frame in real(self):
            read[0] += 1
            most[0] = max(most[0], read[0] - done[0])
            yield replace(frame, image=frame.image.view(Heavy))

    monkeypatch.setattr(Video, "__iter__", counted)
    monkeypatch.setattr(building.Build, "_on_frame", lambda *_: done.__setitem__(0, done[0] + 1))
    with opened(tmp_path / "gallery", tiny_model) as engine:
        assert engine.add(video).no_face == 1
    assert (read[0], done[0]) == (40, 40)
    assert most[0] <= 4  # two for two threads, one returned and one being decoded


def test_turned_video_is_upright(tiny_model: Path, tmp_path: Path) -> None:
    lying = [(drawn(ADA).transpose(Image.Transpose.ROTATE_90), 1.5)]
    plain = write_video(tmp_path / "plain.mp4", lying)
    (tmp_path / "turned.mp4").write_bytes(with_matrix(plain.read_bytes(), 0, 1, -1, 0))
    with opened(tmp_path / "gallery", tiny_model) as engine:
        engine.add(tmp_path / "turned.mp4")
        (result,) = engine.search(drawn(ADA), k=1)
        (match,) = result.matches
        assert match.similarity > 0.95
        assert helpers.overlap(match.face.box, result.face.box) > 0.9


def test_video_of_several_names_and_no_suffix_is_found(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(folder / "a party.mp4", photos / "video")
    shutil.copy(folder / "a party.mp4", photos / "named.jpg")
    with opened(tmp_path / "gallery", tiny_model) as engine:
        done = engine.add(photos)
        assert (done.added, done.faces) == (1, 2)
        assert done.unreadable == ((str(photos / "named.jpg"), "a video, not a photo"),)
        assert [Path(one.photo).name for one in engine.photos()] == ["video"]
        (photos / "named.jpg").rename(photos / "named.mp4")
        done = engine.add(photos)
        assert (done.unchanged, done.copies, done.unreadable) == (1, 1, ())


# --- Files that are broken or odd ------------------------------------------------------------


def test_broken_videos_are_recorded_and_cost_nothing_else(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    whole = (folder / "a party.mp4").read_bytes()
    (photos / "a.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    (photos / "b.mov").write_bytes(b"")
    (photos / "c.mkv").write_bytes(b"noise" * 1000)
    write_sound(photos / "d.mp4")
    drawn(CY).save(photos / "e.jpg")
    with opened(tmp_path / "gallery", tiny_model) as engine:
        told: list[PhotoError] = []
        done = engine.add(photos, report=told.append)
        statuses = {Path(one.photo).name: one[1:3] for one in engine.photos()}
        again = engine.add(photos)
        faces = seen(engine, photos / "a.mp4")
    assert (done.photos, done.videos, done.added, done.faces) == (5, 4, 2, 3)
    reasons = {"b.mov": "empty file", "c.mkv": "not a video", "d.mp4": "no video stream"}
    assert {Path(name).name: reason for name, reason in done.unreadable} == reasons
    assert [Path(error.photo).name for error in told] == ["b.mov", "c.mkv", "d.mp4"]
    assert faces[0][1] == (0.0, 2.0)
    ((name, damage),) = done.damaged
    assert Path(name).name == "a.mp4"
    assert re.fullmatch(r"breaks off after 0:0[34]\.\d", damage)
    assert statuses == {
        "a.mp4": ("damaged", damage),
        "c.mkv": ("unreadable", "not a video"),
        "d.mp4": ("unreadable", "no video stream"),
        "e.jpg": ("indexed", ""),
    }
    assert (again.unchanged, again.added, len(again.unreadable)) == (2, 0, 3)


def test_video_that_was_emptied_loses_its_faces(
    gallery: Path, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    video = Path(shutil.copy(folder / "a party.mp4", tmp_path / "a.mp4"))
    with opened(tmp_path / "own", tiny_model) as engine:
        engine.add(video)
        video.write_bytes(b"")
        assert engine.add(video).unreadable == ((str(video), "empty file"),)
        assert engine.info()["faces"] == 0


def test_file_that_is_being_written_is_read_by_the_next_build(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Path(shutil.copy(folder / "a party.mp4", tmp_path / "a.mp4"))
    data = video.read_bytes()
    real = building.Build._on_frame

    def write(self: Any, *arguments: Any) -> None:
        video.write_bytes(data + b"\0")
        real(self, *arguments)

    with opened(tmp_path / "gallery", tiny_model) as engine:
        with monkeypatch.context() as growing:
            growing.setattr(building.Build, "_on_frame", write)
            growing.setattr(building, "SHOWN_SECONDS", 0)
            frames = video_module._Reader.frames

            def slowly(self: Any) -> Any:
                for number, one in enumerate(frames(self)):
                    if number == 40:
                        video.write_bytes(data + b"\0")
                    yield one

            growing.setattr(video_module._Reader, "frames", slowly)
            done = engine.add(video)
        assert done.unreadable == ((str(video), "changed while in use"),)
        assert engine.photos() == []
        assert engine.add(video).faces == 2


def test_without_the_package_videos_are_counted(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "gallery", tiny_model) as engine:
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, "av", None)
            done = engine.add(folder)
            assert (done.photos, done.videos, done.unread) == (1, 0, {"VIDEO": 2})
        done = engine.add(folder)
        assert (done.photos, done.videos, done.unchanged, done.faces) == (3, 2, 1, 2)


# --- Interrupted -----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from face2vec import Face2Vec
from face2vec.ingest import build
seen = 0
def kill(*_):
    global seen
    seen += 1
    if seen == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
build.Build._on_frame = kill
with Face2Vec(sys.argv[1], model=sys.argv[2], runtime="onnxruntime", threads=2) as engine:
    engine.add(sys.argv[3])
"""


@posix_only
@pytest.mark.parametrize("frames", [1, 4, 6])
def test_killed_build_ends_as_one_that_was_not(
    built: Path, folder: Path, tiny_model: Path, tmp_path: Path, frames: int
) -> None:
    gallery = tmp_path / "gallery"
    arguments = [gallery, tiny_model, folder, frames]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -signal.SIGKILL
    with opened(gallery, tiny_model) as engine:
        engine.add(folder)
        assert engine.check() == []
    ended, expected = rows(gallery), rows(built)
    assert {table: ended[table] for table in TABLES} == expected


def test_photos_before_a_long_video_are_stored_while_it_is_read(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    drawn(CY).save(photos / "a.jpg")
    shutil.copy(folder / "a party.mp4", photos / "b.mp4")
    monkeypatch.setattr(building, "BATCH_SECONDS", 0.0)
    stored = []
    real = building.Build._on_frame

    def look(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        with Gallery.open(tmp_path / "gallery") as now:
            stored.append([Path(path).name for path, _, _ in now.photos()])

    monkeypatch.setattr(building.Build, "_on_frame", look)
    with opened(tmp_path / "gallery", tiny_model) as engine:
        engine.add(photos)
    assert stored == [["a.jpg"]] * 5


# --- What is shown ---------------------------------------------------------------------------


def test_search_prints_the_time(built: Path, tmp_path: Path) -> None:
    drawn(BEA).save(tmp_path / "bea.jpg", quality=95)
    page = tmp_path / "page.html"
    text = run("search", built, tmp_path / "bea.jpg", "-k", "1", "--html", page)
    assert re.search(r"a party\.mp4 at 0:0[34]\.0$", text.stdout.strip())
    told = json.loads(run("search", built, tmp_path / "bea.jpg", "--json").stdout)
    first, *others = told["matches"]
    assert 3 <= first["time"] < 5
    assert first["track"] == [3.0, 4.0]
    assert [match["time"] for match in others if match["photo"].endswith(".jpg")] == [None]
    assert told["query"]["time"] is None
    content = page.read_text(encoding="utf-8")
    assert re.search(r'href="file:[^"]*a%20party\.mp4#t=[34]\.000"', content)
    assert re.search(r"a party\.mp4</bdi> at 0:0[34]\.0</a>", content)


def test_records_show_the_time(built: Path) -> None:
    with opened(built) as engine:
        (result,) = engine.search(drawn(BEA), k=1)
    (match,) = result.matches
    assert f"time={match.time:.3f}" in repr(match)
    assert f"time={match.time:.3f}" in repr(match.face)
    assert result.matches.to_dicts()[0]["time"] == match.time


def test_thumbnail_is_the_face_at_its_time(built: Path, folder: Path, tmp_path: Path) -> None:
    with opened(built) as engine:
        found = [engine.search(drawn(person), k=1)[0] for person in (ADA, BEA)]
    for result in found:
        (match,) = result.matches
        ours = thumbnail(match.photo, match.face.box, time=match.time)
        wanted = result.thumbnail()
        assert wanted is not None
        assert np.abs(np.asarray(ours, float) - np.asarray(wanted, float)).mean() < 15
    gone = thumbnail(str(tmp_path / "gone.mp4"), (0, 0, 9, 9), time=1.0)
    assert np.array_equal(gone, placeholder("photo not found", 144))
    late = thumbnail(str(folder / "a party.mp4"), (0, 0, 9, 9), time=77.0)
    assert np.array_equal(late, placeholder("photo not found", 144))
    save_html(found, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_commands_count_videos(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    done = run("index", folder, "--gallery", gallery, "--model", tiny_model)
    assert "\n1 photo and 2 videos: 3 new, 0 unchanged\n" in done.stderr
    assert "3 new faces; 1 new file without a face" in done.stderr
    assert "/3 [" in done.stderr
    assert "file/s" in done.stderr
    told = json.loads(run("index", folder, "--gallery", gallery, "--json", "-q").stdout)
    assert (told["photos"], told["videos"], told["unchanged"]) == (3, 2, 3)
    listed = run("photos", gallery)
    assert listed.stderr == "1 photo and 2 videos\n"
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        *("indexed", "no-face", "indexed")
    ]
    only = run("photos", gallery, "--status", "no-face")
    assert only.stderr == "1 video\n"


def test_encode_prints_times(folder: Path, tiny_model: Path) -> None:
    done = run("encode", folder / "a party.mp4", "--model", tiny_model)
    assert re.findall(r"a party\.mp4 at 0:0(\d)\.0, face at", done.stdout)[-1] in "34"
    (line,) = run(
        "encode", folder / "a party.mp4", "--model", tiny_model, "--json"
    ).stdout.splitlines()
    faces = json.loads(line)["faces"]
    assert [face["track"] for face in faces] == [[0.0, 2.0], [3.0, 4.0]]


def test_video_as_a_query_is_refused_with_a_hint(built: Path, folder: Path) -> None:
    with opened(built) as engine, pytest.raises(PhotoError, match="give one of its frames"):
        engine.search(folder / "a party.mp4")


# --- People ----------------------------------------------------------------------------------


@pytest.fixture
def named(gallery: Path) -> Face2Vec:
    """The gallery with Ada and Bea named."""
    engine = opened(gallery)
    for person, name in ((ADA, "Ada"), (BEA, "Bea")):
        face = engine.search(drawn(person), k=1)[0].matches[0].face
        engine.name_face(face.id, name)
    return engine


def test_forgotten_person_stays_away_from_a_video_that_shows_others(
    named: Face2Vec, folder: Path
) -> None:
    with named as engine:
        done = engine.forget("Ada")
        assert (done.faces, done.photos, done.left) == (1, 0, ())
        assert [track for _, track in seen(engine, folder / "a party.mp4")] == [(3.0, 4.0)]
        engine.remove(folder / "a party.mp4")
        engine.add(folder)
        assert [track for _, track in seen(engine, folder / "a party.mp4")] == [(3.0, 4.0)]
        assert engine.search(drawn(ADA), k=1)[0].matches[0].similarity < 0.95
        assert engine.readmit(folder / "a party.mp4") == (1, 1)
        assert sorted(track for _, track in seen(engine, folder / "a party.mp4") if track) == [
            *((0.0, 2.0), (3.0, 4.0))
        ]
        assert engine.search(drawn(ADA), k=1)[0].matches[0].similarity > 0.95


def test_forgetting_everybody_of_a_video_keeps_it_away(named: Face2Vec, folder: Path) -> None:
    with named as engine:
        engine.forget("Ada")
        assert engine.forget("Bea").photos == 1
        done = engine.add(folder)
        assert (done.forgotten, done.faces) == (1, 0)


def test_ignored_face_of_a_video_comes_back_with_its_time(gallery: Path, folder: Path) -> None:
    with opened(gallery) as engine:
        face = engine.search(drawn(BEA), k=1)[0].matches[0].face
        before = seen(engine, folder / "a party.mp4")
        engine.ignore(face.id)
        assert len(seen(engine, folder / "a party.mp4")) == len(before) - 1
        engine.undo()
        assert seen(engine, folder / "a party.mp4") == before
        back = engine.search(drawn(BEA), k=1)[0].matches[0].face
        assert back.parts == face.parts
        assert back.parts is not None


def test_enrolling_leaves_videos_out(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    people = tmp_path / "people" / "Ada"
    people.mkdir(parents=True)
    drawn(ADA).save(people / "a.jpg", quality=95)
    shutil.copy(folder / "a party.mp4", people)
    with opened(tmp_path / "gallery", tiny_model) as engine:
        done = engine.enroll(tmp_path / "people")
    assert [Path(path).name for path in done.faces] == ["a.jpg"]
    assert done.added.videos == 0


def test_faces_of_one_video_may_be_one_person(tmp_path: Path) -> None:
    """Two faces in one photo are hardly one person; two at different times can well be."""
    shots = [
        (drawn(ADA), 1),
        (grey(120), 3),
        (drawn(ADA, 1), 1),
        (grey(120), 3),
        (drawn(ADA, 2), 1),
    ]
    video = write_video(tmp_path / "a.mp4", shots)
    with Face2Vec(tmp_path / "gallery", threads=2) as engine:
        assert engine.add(video).faces == 3
        with engine._session.gallery().read() as now:
            faces, images = now.images()
        assert len(faces) == len(set(images.tolist())) == 3


# --- Maintaining, exchanging, upgrading ------------------------------------------------------


def test_removed_and_pruned_videos_leave_the_gallery(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    videos = Path(shutil.copytree(folder, tmp_path / "videos"))
    with opened(tmp_path / "gallery", tiny_model) as engine:
        engine.add(videos)
        assert engine.remove(videos / "a party.mp4") == (1, 2)
        engine.add(videos)
        (videos / "a party.mp4").unlink()
        assert engine.prune() == (1, 2)
        engine.rebuild()
        assert engine.check() == []


@pytest.mark.parametrize("suffix", ["csv", "npz", "jsonl"])
def test_exported_faces_are_imported_with_their_times(
    built: Path, folder: Path, tmp_path: Path, suffix: str
) -> None:
    table = tmp_path / f"faces.{suffix}"
    with opened(built) as engine:
        assert engine.export(table) == 3
        expected = seen(engine, folder / "a party.mp4")
    with opened(tmp_path / "copy") as engine:
        engine.import_faces(table)
        assert seen(engine, folder / "a party.mp4") == expected
        assert engine.add(folder / "a party.mp4").unchanged == 1


def test_imported_time_outside_its_track_is_refused(built: Path, tmp_path: Path) -> None:
    with opened(built) as engine:
        engine.export(tmp_path / "faces.jsonl")
    lines = (tmp_path / "faces.jsonl").read_text(encoding="utf-8").splitlines()
    wrong = [{**json.loads(line), "time": 3.0, "track": [5.0, 6.0]} for line in lines]
    content = "".join(json.dumps(line) + "\n" for line in wrong)
    (tmp_path / "faces.jsonl").write_text(content, encoding="utf-8")
    with opened(tmp_path / "copy") as engine, pytest.raises(ValueError, match="in its track"):
        engine.import_faces(tmp_path / "faces.jsonl")


def test_upgrade_reads_the_frames_again(gallery: Path, folder: Path, tmp_path: Path) -> None:
    other = helpers.tiny_model(tmp_path / "other.onnx", seed=11)
    with opened(gallery) as engine:
        before = seen(engine, folder / "a party.mp4")
        ids = [face.id for face in (m.face for m in engine.search(drawn(ADA), k=9)[0].matches)]
        done = engine.upgrade(other)
        assert (done.switched, done.faces, done.missing) == (True, 3, ())
        assert seen(engine, folder / "a party.mp4") == before
    with opened(gallery) as engine:
        assert sorted(i for i in ids if i) == [1, 2, 3]
        with engine._session.gallery().read() as now:
            stored = now.stored_faces([1, 2, 3])
        for one in stored:
            time = one.face.time
            image = one.photo if time is None else Video(one.photo).frame_at(time).image
            (wanted,) = engine.encode(image)
            assert np.allclose(wanted.embedding, one.face.embedding, atol=1e-5)
            assert wanted.quality == one.face.quality


def test_upgrade_names_a_video_that_is_gone(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    videos = Path(shutil.copytree(folder, tmp_path / "videos"))
    other = helpers.tiny_model(tmp_path / "other.onnx", seed=11)
    with opened(tmp_path / "gallery", tiny_model) as engine:
        engine.add(videos)
        (videos / "a party.mp4").unlink()
        done = engine.upgrade(other)
        assert (done.switched, done.faces) == (False, 1)
        assert done.missing == ((str(videos / "a party.mp4"), "missing"),)


def without_later_columns(gallery: Path) -> None:
    """Make a gallery as one from before there were videos."""
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        for table, columns in LATER_COLUMNS.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def test_gallery_from_before_videos_opens_and_takes_videos(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    with opened(gallery, tiny_model) as engine:
        engine.add(folder / "c.jpg")
    without_later_columns(gallery)
    with opened(gallery) as engine:
        (match,) = engine.search(drawn(CY), k=1)[0].matches
        assert (match.time, match.similarity > 0.95) == (None, True)
        assert len(reads(engine._session.gallery()).images()[0]) == 1
        assert engine.add(folder).faces == 2
        assert 3 <= (engine.search(drawn(BEA), k=1)[0].matches[0].time or 0) < 5
        assert engine.check() == []


@pytest.mark.parametrize(
    "assignment", ["time = 'soon'", "time = -1.0", "track_end = NULL", "track_begin = 9e999"]
)
def test_invalid_time_in_a_gallery_is_reported_as_damage(gallery: Path, assignment: str) -> None:
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        connection.execute(f"UPDATE faces SET {assignment} WHERE time IS NOT NULL")
    with opened(gallery) as engine, pytest.raises(GalleryDamagedError, match="the time of a face"):
        list(engine.search(drawn(ADA), k=3)[0].matches)
