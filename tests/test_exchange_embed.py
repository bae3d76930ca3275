"""Names into photo files, with exiftool."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from click.testing import CliRunner
from helpers import needs_program
from PIL import Image

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import SettingsError
from face2vec.gallery.rows import Rewritten
from face2vec.photos.decode import open_photo
from face2vec.photos.packets import metadata_of


@pytest.fixture
def exiftool() -> str:
    return needs_program("exiftool", "libimage-exiftool-perl")


def said_by(exiftool: str, *words: str | Path) -> str:
    done = subprocess.run([exiftool, *map(str, words)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(engine: Face2Vec, photo: Path, name: str = "Grace <G>") -> None:
    with engine._session.gallery().read() as now:
        (face,) = (one.face for one in now.faces_of(str(photo)).records())
    assert face.id is not None
    engine.name_face(face.id, name)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic"])
def test_embedded_names_are_read_by_exiftool_and_the_gallery_keeps_its_faces(
    exiftool: str, hopper: Image.Image, tiny_model: Path, tmp_path: Path, suffix: str
) -> None:
    photo = tmp_path / "photos" / f"a{suffix}"
    photo.parent.mkdir()
    if suffix == ".heic":
        pillow_heif.from_pillow(hopper).save(photo, quality=90)
    else:
        hopper.save(photo, quality=95)
    before, pixels = photo.read_bytes(), open_photo(photo).image
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo.parent)
        named(engine, photo)
        done = engine.export_xmp(embed=True)
        assert (done.written, done.faces, done.refused) == ((str(photo),), 1, ())
        assert photo.with_name(f"{photo.name}_original").read_bytes() == before
        assert photo.read_bytes() != before
        assert np.array_equal(open_photo(photo).image, pixels)
        (found,) = json.loads(said_by(exiftool, "-json", "-struct", "-RegionInfo", photo))
        assert [one["Name"] for one in found["RegionInfo"]["RegionList"]] == ["Grace <G>"]
        again = engine.add(photo.parent)
        assert (again.photos, again.unchanged, again.left_out) == (1, 1, {"*.*_original": 1})
        with engine._session.gallery().read() as now:
            assert now.content_of(hashlib.sha256(photo.read_bytes()).digest()) is not None
        assert engine.check() == []
        unchanged = engine.export_xmp(embed=True)
        assert (unchanged.written, unchanged.unchanged) == ((), 1)
        engine.undo()
        assert engine.import_xmp(photo).people == ("Grace <G>",)


def test_other_xmp_in_a_photo_stays(
    exiftool: str, hopper: Image.Image, tiny_model: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "a.jpg"
    hopper.save(photo, quality=95)
    said_by(exiftool, "-overwrite_original", "-XMP-dc:Subject=sea", "-EXIF:Artist=Ada", photo)
    (before,) = metadata_of(photo).packets
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        named(engine, photo)
        engine.export_xmp(embed=True)
    (after,) = metadata_of(photo).packets
    assert b">sea<" in after
    start = before.index(b"</rdf:RDF>")
    assert after.startswith(before[:start].rstrip())
    assert said_by(exiftool, "-s3", "-EXIF:Artist", "-XMP-dc:Subject", photo) == "Ada\nsea\n"


def test_ignored_face_does_not_come_back_with_the_new_bytes(
    exiftool: str, faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(faces_folder / "both.jpg", photos / name)
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photos)
        engine.name_face(1, "Eileen")
        engine.ignore(2)
        assert len(engine.export_xmp(embed=True).written) == 2
        assert engine.add(photos).unchanged == 2
        assert (photos / "one.jpg").read_bytes() == (photos / "two.jpg").read_bytes()
        engine.undo()  # the ignored face is whole again
        assert engine.info()["faces"] == 2
        engine.ignore(2)
        engine.remove(photos)
        engine.add(photos)
        assert engine.info()["faces"] == 1
        assert engine.check() == []


def test_copy_that_cannot_be_written_leaves_the_record_of_both(
    exiftool: str, hopper: Image.Image, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    hopper.save(photos / "one.jpg", quality=95)
    shutil.copy2(photos / "one.jpg", photos / "two.jpg")
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photos)
        named(engine, photos / "one.jpg")
        with (photos / "two.jpg").open("ab") as file:
            file.write(b"more")
        done = engine.export_xmp(embed=True)
        assert done.written == (str(photos / "one.jpg"),)
        assert [path for path, _ in done.refused] == [str(photos / "two.jpg")]
        assert engine.add(photos).unchanged == 0  # both have other bytes than the gallery


def test_format_that_exiftool_cannot_write_is_refused(
    exiftool: str, hopper: Image.Image, tiny_model: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "a.bmp"
    hopper.save(photo)
    before = photo.read_bytes()
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        named(engine, photo)
        ((path, reason),) = engine.export_xmp(embed=True).refused
    assert path == str(photo)
    assert reason == "exiftool: Error: Writing of BMP files is not yet supported"
    assert photo.read_bytes() == before


def test_missing_exiftool_is_said_with_what_to_install(
    hopper: Image.Image, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "a.jpg"
    hopper.save(photo)
    before = photo.read_bytes()
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        named(engine, photo)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(main, ["export", str(tmp_path / "g"), "--xmp", "--embed"])
    assert done.exit_code == 3
    assert "needs the program exiftool, which is not installed" in done.stderr
    assert "apt-get install libimage-exiftool-perl" in done.stderr
    assert photo.read_bytes() == before


def test_embedding_to_another_folder_is_refused(tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g") as engine, pytest.raises(SettingsError, match="leave out"):
        engine.export_xmp(tmp_path, embed=True)
    words = ["export", str(tmp_path / "g"), "--xmp", "--embed", "--to", str(tmp_path)]
    assert CliRunner().invoke(main, words).exit_code == 2


def test_gallery_takes_new_bytes_of_all_copies_and_of_no_others(
    hopper: Image.Image, tiny_model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    hopper.save(photos / "one.jpg", quality=95)
    shutil.copy2(photos / "one.jpg", photos / "two.jpg")
    old = hashlib.sha256((photos / "one.jpg").read_bytes()).digest()

    def changed(name: str) -> Rewritten:
        file = photos / name
        file.write_bytes(file.read_bytes() + b"\0")
        status = file.stat()
        times = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return Rewritten(str(file), *times, hashlib.sha256(file.read_bytes()).digest())

    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photos)
        named(engine, photos / "one.jpg")
        with engine._session.write() as writer:
            one, two = changed("one.jpg"), changed("two.jpg")
            assert not writer.note_new_bytes(old, [])
            assert not writer.note_new_bytes(old, [one])
            assert not writer.note_new_bytes(old, [one, two._replace(sha256=bytes(32))])
            assert not writer.note_new_bytes(bytes(32), [one, two])
            assert writer.note_new_bytes(old, [one, two])
            assert not writer.note_new_bytes(one.sha256, [one, two])  # the gallery has them now
        assert engine.add(photos).unchanged == 2
        assert [person.name for person in engine.people()] == ["Grace <G>"]
