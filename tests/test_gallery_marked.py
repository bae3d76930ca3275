"""Faces that were marked by hand: listed, named and removed by commands, and in every export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import needs

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import GalleryError, SettingsError
from face2vec.exchange.formats import FORMATS, load_table

CORNER = (0.0, 0.0, 24.0, 24.0)


@pytest.fixture
def photos(faces_folder: Path, tmp_path: Path) -> Path:
    """A photo with a face, twice, and one without."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("hopper.jpg", "nobody.jpg"):
        shutil.copy(faces_folder / name, folder)
    shutil.copy(faces_folder / "hopper.jpg", folder / "same.jpg")
    return folder


@pytest.fixture
def gallery(photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A gallery with two marks: Ada's in a photo that has a copy, and nobody's."""
    place = tmp_path / "gallery"
    with Face2Vec(place, model=tiny_model) as engine:
        engine.add(photos)
        assert engine.mark_face(photos / "hopper.jpg", CORNER).mark == 1
        assert engine.mark_face(photos / "nobody.jpg", CORNER).mark == 2
        engine.name_mark(1, "Ada")
    return place


@pytest.fixture
def engine(gallery: Path) -> Iterator[Face2Vec]:
    with Face2Vec(gallery) as one:
        yield one


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def test_marks_are_listed_with_their_photos(engine: Face2Vec, photos: Path) -> None:
    one, other = engine.marked_faces()
    assert (one.mark.id, one.mark.box, one.name) == (1, CORNER, "Ada")
    assert (one.photo, one.copies) == (str(photos / "hopper.jpg"), (str(photos / "same.jpg"),))
    assert (other.mark.id, other.name, other.photo) == (2, None, str(photos / "nobody.jpg"))
    assert one.size == (512, 600)
    assert engine.marked_faces(photos / "same.jpg") == [one]
    assert engine.marked_faces([photos / "nobody.jpg", photos / "hopper.jpg"]) == [other, one]
    with pytest.raises(GalleryError, match=r"gone\.jpg is not in the gallery"):
        engine.marked_faces(photos / "gone.jpg")


def test_marks_command_lists_text_and_json(gallery: Path, photos: Path) -> None:
    done = run("marks", gallery)
    first, second = done.stdout.splitlines()
    assert first == f"     1  {photos / 'hopper.jpg'}, face at (0, 0, 24, 24): Ada"
    assert second.endswith(f"{photos / 'nobody.jpg'}, face at (0, 0, 24, 24): nobody")
    assert done.stderr == "2 marks\n"
    found = [json.loads(line) for line in run("marks", gallery, "--json").stdout.splitlines()]
    assert found[0] == {
        "mark": 1, "photo": str(photos / "hopper.jpg"), "copies": [str(photos / "same.jpg")],
        "box": list(CORNER), "person": 1, "name": "Ada",
    }  # fmt: skip
    assert [one["mark"] for one in found] == [1, 2]
    assert run("marks", gallery, photos / "nobody.jpg").stdout == second + "\n"


def test_mark_command_adds_and_names_a_face(gallery: Path, photos: Path) -> None:
    done = run("mark", gallery, photos / "nobody.jpg", 100, 20, 140, 60, "--name", "Ada", "--json")
    assert json.loads(done.stdout) == {"face": None, "mark": 3, "person": 1}
    assert done.stderr == "mark 3: no landmarks were found, so no search finds it; it shows Ada\n"
    assert run("marks", gallery, photos / "nobody.jpg").stdout.count("Ada") == 1
    refused = run("mark", gallery, photos / "nobody.jpg", 0, 0, 9999, 20)
    assert (refused.exit_code, "must be inside of the photo" in refused.stderr) == (3, True)


def test_mark_command_marks_nothing_with_a_name_that_is_none(gallery: Path, photos: Path) -> None:
    refused = run("mark", gallery, photos / "nobody.jpg", 100, 20, 140, 60, "--name", "12")
    assert (refused.exit_code, "cannot be a name" in refused.stderr) == (3, True)
    assert run("marks", gallery).stderr == "2 marks\n"


def test_mark_of_a_face_that_is_found_is_a_face(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photo = shutil.copy(faces_folder / "hopper.jpg", tmp_path / "one.jpg")
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        (face,) = engine.encode(photo)
        (match,) = engine.search(photo)[0].matches
        engine.ignore(match.face.id)
        engine.readmit(photo)
        (match,) = engine.search(photo)[0].matches
        refused = run("mark", tmp_path / "g", photo, *(f"{side:.0f}" for side in face.box))
    assert refused.exit_code == 3
    assert f"face {match.face.id} is there already" in refused.stderr


def test_name_and_unmark_commands_change_marks(gallery: Path) -> None:
    assert run("name", gallery, 2, "Bo", "--mark").stderr == "mark 2: Bo\n"
    assert run("name", gallery, 2, "--mark").stderr == "mark 2: nobody\n"
    assert run("unmark", gallery, 2, 1).stderr == "mark 2 deleted\nmark 1 deleted\n"
    assert run("marks", gallery).stderr == "0 marks\n"
    assert run("undo", gallery).stderr == "undone: removal of mark 1\n"
    assert run("marks", gallery).stderr == "1 mark\n"
    assert "there is no mark 9" in run("unmark", gallery, 9).stderr
    assert run("name", gallery, 2, "Bo", "--mark", "--face").exit_code == 2
    assert "--mark needs the number" in run("name", gallery, "x", "Bo", "--mark").stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_tables_have_marks_without_an_embedding(
    suffix: str, engine: Face2Vec, photos: Path, tmp_path: Path
) -> None:
    if suffix == ".parquet":
        needs("export", "pyarrow")
    file = tmp_path / f"faces{suffix}"
    assert engine.export(file) == 3
    table, made_with = load_table(file)
    assert table.values("mark") == [None, 1, 2]
    assert np.isnan(table.embeddings).all(axis=1).tolist() == [False, True, True]
    assert table.values("name") == [None, "Ada", None]
    assert table.rows(("left", "top", "right", "bottom"))[1:] == [CORNER, CORNER]
    assert table.values("photo")[1] == str(photos / "hopper.jpg")
    assert table.values("copies")[1] == [str(photos / "same.jpg")]
    assert [table.values(name)[1] for name in ("width", "height")] == [512, 600]
    assert table.values("confidence")[1] is table.values("left_eye_x")[1] is None
    assert made_with is not None
    with Face2Vec(tmp_path / "copy") as copy:
        done = copy.import_faces(file)
        assert (done.faces, done.marks) == (1, 2)
        (before,), (after,) = (one.search(photos / "hopper.jpg") for one in (engine, copy))
        assert after.matches[0].similarity == before.matches[0].similarity
    done = run("import", tmp_path / "again", file)
    assert "2 marks without an embedding left out" in done.stderr


def test_embedding_that_is_missing_without_a_mark_is_refused(
    engine: Face2Vec, tmp_path: Path
) -> None:
    file = tmp_path / "faces.csv"
    engine.export(file)
    head, *rows = file.read_text("utf-8").splitlines()
    place = head.split(",").index("mark")
    changed = rows[-1].split(",")
    changed[place] = ""
    file.write_text("\n".join([head, *rows[:-1], ",".join(changed)]) + "\n", "utf-8")
    with Face2Vec(tmp_path / "copy") as copy, pytest.raises(SettingsError, match="line 4"):
        copy.import_faces(file)


def test_coco_has_marks_as_annotations_without_keypoints(engine: Face2Vec, tmp_path: Path) -> None:
    assert engine.export(tmp_path / "f.coco.json") == 5  # two faces, and a mark in three files
    found = json.loads((tmp_path / "f.coco.json").read_text("utf-8"))
    files = {one["id"]: one["file_name"] for one in found["images"]}
    names = {one["id"]: one["name"] for one in found["categories"]}
    marked = [one for one in found["annotations"] if "mark" in one]
    assert [(files[one["image_id"]], one["mark"], names[one["category_id"]]) for one in marked] == [
        ("hopper.jpg", 1, "Ada"), ("nobody.jpg", 2, "face"), ("same.jpg", 1, "Ada"),
    ]  # fmt: skip
    assert {tuple(one["bbox"]) for one in marked} == {(0, 0, 24, 24)}
    assert all(one["num_keypoints"] == 0 and len(one["keypoints"]) == 15 for one in marked)
    assert not any("face_id" in one for one in marked)
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3, 4, 5]


def test_sidecars_have_named_marks_and_are_read_again(
    engine: Face2Vec, photos: Path, tmp_path: Path
) -> None:
    needs("xmp", "defusedxml")
    done = engine.export_xmp()
    assert sorted(done.written) == [str(photos / f"{one}.jpg.xmp") for one in ("hopper", "same")]
    assert (done.faces, done.refused) == (2, ())
    text = (photos / "hopper.jpg.xmp").read_text("utf-8")
    assert "<mwg-rs:Name>Ada</mwg-rs:Name>" in text
    width, height = f'stArea:w="{24 / 512:.6f}"', f'stArea:h="{24 / 600:.6f}"'
    assert width in text
    assert height in text
    again = engine.import_xmp(photos)
    assert (again.named, again.without_face, again.is_complete) == (2, (), True)
    engine.name_mark(1, None)
    again = engine.import_xmp(photos)
    assert [name for _, name in again.without_face] == ["Ada", "Ada"]
