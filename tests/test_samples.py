"""Drawn people: reproducible, detected at their boxes, and recognised."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from helpers import overlap
from PIL import Image

from face2vec import samples
from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.errors import SettingsError
from face2vec.runtime.select import Runtime


@pytest.fixture(scope="module")
def people() -> list[samples.Person]:
    return samples.people(12, seed=3)


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn(DetectorSettings(), Runtime("onnxruntime", threads=1))


def test_photo_is_bit_identical_for_equal_seeds(people):
    again = samples.people(12, seed=3)
    first, second = people[5].photo(2), again[5].photo(2)
    assert np.array_equal(first.image, second.image)
    assert first.jpeg() == second.jpeg()
    assert first.faces[0].box == second.faces[0].box
    assert np.array_equal(first.faces[0].landmarks, second.faces[0].landmarks)


def test_group_photo_is_bit_identical_for_equal_seeds(people):
    again = samples.people(12, seed=3)
    first, second = samples.group_photo(people[:3], 1), samples.group_photo(again[:3], 1)
    assert np.array_equal(first.image, second.image)
    assert first.quality == second.quality


def test_first_people_do_not_depend_on_the_count(people):
    few = samples.people(2, seed=3)
    assert [person.name for person in few] == ["person-000", "person-001"]
    for one, other in zip(few, people, strict=False):
        assert np.array_equal(one.coefficients, other.coefficients)
        assert np.array_equal(one.photo().image, other.photo().image)


def test_another_seed_gives_different_people(people):
    for mine, other in zip(people, samples.people(12, seed=4), strict=True):
        alike = np.corrcoef(mine.coefficients, other.coefficients)[0, 1]
        assert alike < 0.7


def test_photos_of_a_person_differ_in_pose_size_and_pixels(people):
    photos = [people[0].photo(number) for number in range(4)]
    assert len({photo.image.shape for photo in photos}) == 4
    assert len({photo.faces[0].box for photo in photos}) == 4
    assert len({photo.jpeg() for photo in photos}) == 4


def test_photo_has_its_person_inside_the_frame(people):
    for person in people:
        photo = person.photo(1)
        (face,) = photo.faces
        height, width = photo.image.shape[:2]
        left, top, right, bottom = face.box
        assert face.person == person.name
        assert photo.image.dtype == np.uint8
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        inside = (face.landmarks > (left, top)) & (face.landmarks < (right, bottom))
        assert inside.all()


def test_landmarks_are_eyes_above_nose_above_mouth(people):
    for person in people:
        left_eye, right_eye, nose, left_mouth, right_mouth = person.photo(2).faces[0].landmarks
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_drawn_faces_are_detected_at_their_boxes(people, detector):
    photos = [person.photo(0) for person in people]
    for photo, found in zip(photos, detector.detect([p.image for p in photos]), strict=True):
        (drawn,) = photo.faces
        best = max(found, key=lambda face: overlap(face.box, drawn.box))
        assert overlap(best.box, drawn.box) > 0.5
        width = drawn.box[2] - drawn.box[0]
        distance = np.asarray(best.landmarks).reshape(5, 2) - drawn.landmarks
        assert np.hypot(*distance.T).mean() < 0.12 * width


def test_all_faces_of_a_group_are_detected(people, detector):
    photo = samples.group_photo(people[:7])
    (found,) = detector.detect([photo.image])
    assert [face.person for face in photo.faces] == [person.name for person in people[:7]]
    for drawn in photo.faces:
        assert max(overlap(face.box, drawn.box) for face in found) > 0.5


def test_group_photo_stays_in_the_frame_with_many_people(people):
    photo = samples.group_photo([*people, *samples.people(7, seed=9)])
    height, width = photo.image.shape[:2]
    assert len(photo.faces) == 19
    for face in photo.faces:
        left, top, right, bottom = face.box
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height


def test_jpeg_has_the_photo_and_no_exif(people):
    photo = people[1].photo(0)
    with Image.open(io.BytesIO(photo.jpeg())) as image:
        assert image.format == "JPEG"
        assert image.size == photo.image.shape[1::-1]
        assert len(image.getexif()) == 0
        assert "exif" not in image.info
        shown = np.asarray(image.convert("RGB")).astype(float)
    assert np.abs(shown - photo.image).mean() < 8


def test_write_creates_the_photos_of_its_table(tmp_path: Path):
    rows = samples.write(tmp_path / "people", people=3, photos=2, groups=2, seed=5)
    with (tmp_path / "people" / "people.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["photo"] for row in table[:6]] == [
        f"person-{person:03d}/{number}.jpg" for person in range(3) for number in range(2)
    ]
    assert {row["photo"] for row in table[6:]} == {"groups/0.jpg", "groups/1.jpg"}
    assert rows == len(table)
    drawn = samples.people(3, seed=5)[1].photo(1)
    row = table[3]
    assert (tmp_path / "people" / row["photo"]).read_bytes() == drawn.jpeg()
    assert row["person"] == "person-001"
    told = [float(row[side]) for side in ("left", "top", "right", "bottom")]
    assert told == pytest.approx(drawn.faces[0].box, abs=0.01)


def test_write_refuses_a_folder_that_is_not_empty(tmp_path: Path):
    (tmp_path / "own.jpg").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="already contains files"):
        samples.write(tmp_path, people=1, photos=1, groups=0)
    assert (tmp_path / "own.jpg").read_bytes() == b"mine"


def test_write_refuses_negative_numbers(tmp_path: Path):
    with pytest.raises(SettingsError, match="photos must not be negative, but is -2"):
        samples.write(tmp_path / "new", photos=-2)
    assert not (tmp_path / "new").exists()


def test_people_of_count_zero_is_empty_and_negative_is_refused():
    assert samples.people(0) == []
    with pytest.raises(SettingsError, match="-1"):
        samples.people(-1)
    with pytest.raises(SettingsError, match="seed"):
        samples.people(1, seed=-5)
    with pytest.raises(SettingsError, match="at least one"):
        samples.group_photo([])


def test_model_file_is_small_and_needs_no_pickle():
    file = Path(samples.__file__).parent / "faces.npz"
    assert file.stat().st_size < 2 * 2**20
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["components"].dtype == np.int8
