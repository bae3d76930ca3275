"""Faces as COCO JSON, read by pycocotools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs
from PIL import Image

from face2vec import Face2Vec
from face2vec.exchange import coco
from face2vec.report.matches import LANDMARK_NAMES


@pytest.fixture(scope="module")
def built(
    faces_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Photos, and a gallery with two people of a name; one is called as the category of all."""
    work = tmp_path_factory.mktemp("coco")
    photos = work / "photos"
    (photos / "more").mkdir(parents=True)
    for name in ("both.jpg", "copy of hopper.jpg", "nobody.jpg", "broken.jpg"):
        shutil.copy(faces_folder / name, photos)
    shutil.copy(faces_folder / "hopper.jpg", photos / "more" / "ö.jpg")
    shutil.copy(faces_folder / "astronaut.jpg", photos / "more")
    with Face2Vec(work / "gallery", model=tiny_model) as engine:
        engine.add(photos)
        for photo, name in (("both.jpg", "face"), ("more/ö.jpg", "Grace")):
            with engine._session.gallery().read() as now:
                first = min(one.face.id or 0 for one in now.faces_of(str(photos / photo)).records())
            engine.name_face(first, name)
    return photos, work / "gallery"


def exported(gallery: Path, file: Path) -> dict[str, Any]:
    with Face2Vec(gallery) as engine:
        faces = engine.export(file)
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert len(found["annotations"]) == faces
    return found


def test_images_are_the_photos_that_were_read(built: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gallery = built
    found = exported(gallery, tmp_path / "faces.coco.json")
    assert found["info"]["root"] == str(photos)
    names = {one["file_name"]: (one["width"], one["height"]) for one in found["images"]}
    assert names == {
        "both.jpg": (1024, 600),
        "copy of hopper.jpg": (512, 600),
        "more/astronaut.jpg": (512, 512),
        "more/ö.jpg": (512, 600),
        "nobody.jpg": (300, 200),
    }
    for name, size in names.items():
        with Image.open(photos / name) as image:
            assert image.size == size
    assert [one["id"] for one in found["images"]] == [1, 2, 3, 4, 5]


def test_annotations_are_the_faces_of_the_gallery(built: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gallery = built
    found = exported(gallery, tmp_path / "faces.coco.json")
    image_of = {one["id"]: one["file_name"] for one in found["images"]}
    people = {one["id"]: one["name"] for one in found["categories"]}
    with Face2Vec(gallery) as engine:
        numbers = {person.name: person.id for person in engine.people()}
        assert people == {
            1: "face",
            numbers["face"] + 1: f"face (person {numbers['face']})",
            numbers["Grace"] + 1: "Grace",
        }
        names = {face: one.name for one in engine.people() for face in one.faces}
        with engine._session.gallery().read() as now:
            stored = {
                (name, one.face.id): one.face
                for name in image_of.values()
                for one in now.faces_of(str(photos / name)).records()
            }
    assert len(stored) == len(found["annotations"]) == 5
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3, 4, 5]
    for one in found["annotations"]:
        face = stored[image_of[one["image_id"]], one["face_id"]]
        left, top, right, bottom = face.box
        assert one["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=0.01)
        assert one["area"] == pytest.approx(face.area, rel=1e-3)
        points = np.array(one["keypoints"]).reshape(5, 3)
        assert points[:, :2] == pytest.approx(np.array(face.landmarks), abs=0.01)
        assert points[:, 2].tolist() == [2] * 5
        assert one["num_keypoints"] == 5
        assert one["score"] == pytest.approx(face.confidence, abs=1e-6)
        assert one["quality"] == pytest.approx(face.quality, abs=1e-6)
        name = names.get(one["face_id"])
        assert one["confirmed"] == (name is not None)
        assert people[one["category_id"]].startswith(name or "face")


def test_pycocotools_reads_it(built: tuple[Path, Path], tmp_path: Path) -> None:
    needs("test", "pycocotools")
    from pycocotools.coco import COCO

    _, gallery = built
    found = exported(gallery, tmp_path / "faces.coco.json")
    read = COCO(str(tmp_path / "faces.coco.json"))
    (grace,) = read.getCatIds(catNms=["Grace"])
    assert read.loadCats(grace)[0]["keypoints"] == list(LANDMARK_NAMES)
    images = read.loadImgs(read.getImgIds(catIds=[grace]))
    assert {one["file_name"] for one in images} == {"copy of hopper.jpg", "more/ö.jpg"}
    (first,) = read.loadAnns(read.getAnnIds(imgIds=images[0]["id"]))
    assert first in found["annotations"]
    results = read.loadRes([dict(one) for one in found["annotations"]])  # as a detector's answer
    assert len(results.getAnnIds()) == len(found["annotations"])


def test_part_outside_of_the_photo_is_cut_off() -> None:
    from face2vec.types import Face

    points = ((-3.0, 5.0), (10.0, 5.0), (5.0, 9.0), (2.0, 101.0), (9.0, 100.0))
    face = Face((-10.0, 2.0, 20.0, 120.0), points, 0.9)
    assert coco._inside(face.box, (200, 100)) == [0, 2, 20, 98]
    assert coco._inside(face.box, (200, 1)) is None
    found = [coco._keypoint(point, (200, 100)) for point in points]
    assert found == [(0, 0, 0), (10, 5, 2), (5, 9, 2), (0, 0, 0), (9, 100, 2)]


def test_photos_of_several_folders_are_relative_to_what_they_share(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for name in ("a/x", "a/y"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(faces_folder / "hopper.jpg", tmp_path / name)
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(tmp_path / "a" / "x", tmp_path / "a" / "y")
    found = exported(tmp_path / "g", tmp_path / "f.coco.json")
    assert found["info"]["root"] == str(tmp_path / "a")
    assert [one["file_name"] for one in found["images"]] == ["x/hopper.jpg", "y/hopper.jpg"]


def test_empty_gallery_is_valid(tiny_model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(tmp_path / "a.png")
        engine.remove(tmp_path / "a.png")
    found = exported(tmp_path / "g", tmp_path / "f.coco.json")
    assert (found["images"], found["annotations"]) == ([], [])


def test_unknown_suffix_names_the_format(tmp_path: Path, built: tuple[Path, Path]) -> None:
    with Face2Vec(built[1]) as engine, pytest.raises(ValueError, match=r"\.jsonl, \.coco\.json; "):
        engine.export(tmp_path / "faces.json")
