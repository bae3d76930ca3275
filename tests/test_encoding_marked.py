"""Faces that a user has marked by hand: landmarks found inside the box, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.detection.mtcnn import DetectorSettings
from face2vec.detection.yunet import YunetSettings
from face2vec.encoding.marked import lowered
from face2vec.errors import GalleryError, PhotoError, SettingsError
from face2vec.types import Face, Marked, overlap

BLIND = DetectorSettings(min_face_size=900)
"""A detector that misses every face of the photos."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    samples.write(folder, people=2, photos=2, groups=0, seed=3)
    return folder


@pytest.fixture
def missed(photos: Path, tmp_path: Path) -> Iterator[Face2Vec]:
    """An engine whose gallery has the photos, and no face of them."""
    with Face2Vec(tmp_path / "g", model="mini", detector=BLIND) as engine:
        assert engine.add(photos).no_face == 4
        yield engine


@pytest.fixture(scope="module")
def truth(photos: Path) -> Face:
    with Face2Vec(model="mini") as engine:
        (face,) = engine.encode(photos / "person-000" / "0.jpg")
    return face


def looser(face: Face) -> tuple[float, float, float, float]:
    """A box as somebody may draw it, a little too large."""
    left, top, right, bottom = face.box
    return left - 5, top - 6, right + 4, bottom + 7


def test_marked_face_has_landmarks_and_is_found_by_a_search(
    missed: Face2Vec, photos: Path, truth: Face
) -> None:
    photo = photos / "person-000" / "0.jpg"
    marked = missed.mark_face(photo, looser(truth))
    assert marked == Marked(face=1)
    with missed.snapshot() as now:
        (stored,) = now.stored_faces([1])
    assert overlap(stored.face.box, truth.box) > 0.8
    assert np.abs(np.subtract(stored.face.landmarks, truth.landmarks)).max() < 0.1 * truth.width
    assert stored.face.quality is not None
    assert stored.face.is_sure
    (result,) = missed.search(truth.embedding)
    assert [(match.face.id, match.photo) for match in result.matches] == [(1, str(photo))]
    assert result.matches[0].similarity > 0.95
    assert [one.photo for one in missed.photos("indexed")] == [str(photo)]
    assert missed.check() == []


def test_marked_face_survives_rebuild_and_reading_again_and_undo_removes_it(
    missed: Face2Vec, photos: Path, truth: Face
) -> None:
    missed.mark_face(photos / "person-000" / "0.jpg", truth.box)
    missed.rebuild()
    missed.add(photos, again=["indexed", "no-face"])
    assert missed.info()["faces"] == 1
    (result,) = missed.search(truth.embedding)
    assert len(result.matches) == 1
    assert missed.undo() == "marking of face 1 by hand"
    (result,) = missed.search(truth.embedding)
    assert len(result.matches) == 0
    assert missed.check() == []


def test_box_without_landmarks_becomes_a_mark_that_is_never_searched(
    missed: Face2Vec, photos: Path, truth: Face
) -> None:
    photo = photos / "person-000" / "0.jpg"
    assert missed.mark_face(photo, (0, 0, 20, 20)) == Marked(mark=1)
    missed.rebuild()
    missed.add(photos, again=["no-face"])
    ((number, _, box, person),) = missed.marks(photo)
    assert (number, box, person) == (1, (0, 0, 20, 20), None)
    assert missed.info()["faces"] == 0
    named = missed.name_mark(1, "Ada")
    assert (named.name, named.faces) == ("Ada", ())  # type: ignore[union-attr]
    (result,) = missed.search(truth.embedding)
    assert len(result.matches) == 0
    assert missed.suggest() == []
    assert [edit.what for edit in missed.edits()] == [
        "statement that mark 1 is 'Ada'",
        "marking of a face by hand (mark 1)",
    ]
    assert missed.forget("Ada").faces == 1
    assert missed.marks(photo) == []
    assert [one.photo for one in missed.photos()].count(str(photo)) == 0
    assert missed.check() == []


def test_small_turned_face_is_found_in_its_box(tmp_path: Path, photos: Path) -> None:
    """Photos are enlarged, and searched at all angles, where a face is marked."""
    place = tmp_path / "turned.png"
    with Image.open(photos / "person-000" / "0.jpg") as image:
        small = image.resize((image.width // 4, image.height // 4)).rotate(90, expand=True)
    small.save(place)
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        assert engine.add(place).no_face == 1
        with Face2Vec(model="mini") as whole:
            (face,) = whole.encode(photos / "person-000" / "0.jpg")
        left, top, right, bottom = (value / 4 for value in face.box)
        box = (top, small.height - right, bottom, small.height - left)
        marked = engine.mark_face(place, box)
        assert marked.face == 1
        with engine.snapshot() as now:
            (stored,) = now.stored_faces([1])
        assert float(stored.face.embedding @ face.embedding) > 0.5  # type: ignore[operator]


def test_wrong_places_are_refused(missed: Face2Vec, photos: Path, tmp_path: Path) -> None:
    photo = photos / "person-000" / "0.jpg"
    for box in ((-1, 0, 20, 20), (0, 0, 9000, 20), (20, 0, 0, 20), (0, 0, 5, 5)):
        with pytest.raises(SettingsError, match="must be inside of the photo"):
            missed.mark_face(photo, box)
    for wrong in ((1, 2, 3), "abcd", None, (0, 0, float("nan"), 9)):
        with pytest.raises(SettingsError, match="box must be four numbers"):
            missed.mark_face(photo, wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is not in the gallery"):
        missed.mark_face(tmp_path / "other.jpg", (0, 0, 20, 20))
    missed.mark_face(photo, (0, 0, 20, 20))
    with pytest.raises(GalleryError, match="mark 1 is there already"):
        missed.mark_face(photo, (0, 0, 20, 21))


def test_changed_photo_is_refused(tmp_path: Path, photos: Path) -> None:
    place = tmp_path / "one.png"
    Image.new("RGB", (60, 60)).save(place)
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(place)
        Image.new("RGB", (60, 60), "white").save(place)
        with pytest.raises(PhotoError, match="not as it was indexed"):
            engine.mark_face(place, (0, 0, 20, 20))
        assert engine.marks(place) == []


def test_detectors_of_the_package_find_more_inside_a_box() -> None:
    assert lowered(DetectorSettings(), 40.0) == DetectorSettings(
        40.0, (0.4, 0.4, 0.3), max_side=None, try_turned="always"
    )
    assert lowered(YunetSettings(), 0.2).threshold == 0.3  # type: ignore[union-attr]
    other = object()
    assert lowered(other, 40.0) is other  # type: ignore[arg-type, comparison-overlap]
