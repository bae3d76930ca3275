"""Faces at any angle in the plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.detection.opinion import SecondOpinion
from face2vec.detection.turned import (
    SURE,
    faces_at_any_angle,
    stored_choice,
    tilt,
    with_turned,
)
from face2vec.errors import SettingsError
from face2vec.runtime.select import Runtime
from face2vec.types import Face

RUNTIME = Runtime("onnxruntime")
GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn(DetectorSettings(), RUNTIME)


@pytest.fixture(scope="module")
def opinion() -> SecondOpinion:
    return SecondOpinion(RUNTIME)


def turned_face(face: Face, degrees: float, size: tuple[int, int]) -> np.ndarray:
    """Landmarks of a face after its photo was turned counter-clockwise about its middle."""
    angle = math.radians(degrees)
    middle = np.array(size) / 2
    points = np.asarray(face.landmarks) + 0.5 - middle
    turn = np.array([(math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))])
    return points @ turn + middle - 0.5


@pytest.mark.parametrize("degrees", [0, 30, 75, 90, 140, 180, 250, 315])
def test_try_turned_finds_a_face_at_any_angle_upright(
    degrees: int, detector: Mtcnn, opinion: SecondOpinion, hopper: Image.Image
) -> None:
    (wanted,) = detector.detect([np.asarray(hopper)])[0]
    image = np.asarray(hopper.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=GREY))
    found = Mtcnn(DetectorSettings(try_turned="auto"), RUNTIME).detect([image])[0]
    face = max(found, key=lambda one: one.area)
    apart = math.remainder(tilt(face) - tilt(wanted) + math.radians(degrees), math.tau)
    assert abs(math.degrees(apart)) < 8
    points = turned_face(wanted, degrees, hopper.size)
    assert np.abs(np.asarray(face.landmarks) - points).max() < 0.12 * wanted.width


def test_auto_leaves_photos_with_a_sure_face_alone(
    detector: Mtcnn, opinion: SecondOpinion, astronaut: Image.Image
) -> None:
    image = np.asarray(astronaut)
    upright = detector.detect([image])[0]
    assert opinion(image, upright)[0].face >= SURE

    def never(view: np.ndarray) -> list[Face]:
        raise AssertionError("looked again")

    assert with_turned(image, upright, never, opinion, True) is upright
    assert with_turned(image, upright, never, opinion, False) is upright
    with pytest.raises(AssertionError, match="looked again"):
        with_turned(image, upright, never, opinion, "always")


def test_always_finds_upright_and_lying_faces_in_one_photo(
    detector: Mtcnn, astronaut: Image.Image, hopper: Image.Image
) -> None:
    photo = Image.new("RGB", (1124, 620), GREY)
    photo.paste(astronaut, (0, 0))
    photo.paste(hopper.transpose(Image.Transpose.ROTATE_90), (520, 0))
    image = np.asarray(photo)
    (upright,) = detector.detect([image])[0]
    found = Mtcnn(DetectorSettings(try_turned="always"), RUNTIME).detect([image])[0]
    tilts = sorted(round(math.degrees(tilt(face)), -1) for face in found)
    assert tilts == [-90, 0]
    assert any(np.allclose(face.box, upright.box) for face in found)


def test_mirrored_look_names_landmarks_as_the_viewer_sees_them(hopper: Image.Image) -> None:
    """A detector that only finds faces in the mirrored photo."""
    image = np.asarray(hopper)
    landmarks = ((100.0, 40.0), (140.0, 40.0), (120.0, 60.0), (105.0, 80.0), (135.0, 80.0))
    face = Face((90, 20, 150, 100), landmarks, 0.99)

    def only_mirrored(view: np.ndarray) -> list[Face]:
        return [face] if np.array_equal(view, image[:, ::-1]) else []

    (found,) = faces_at_any_angle(image, [], only_mirrored, lambda view, faces: [1.0] * len(faces))
    width = hopper.width
    assert found.box == (width - 150, 20, width - 90, 100)
    wanted = [landmarks[i] for i in (1, 0, 2, 4, 3)]
    np.testing.assert_allclose(found.landmarks, [(width - 1 - x, y) for x, y in wanted])


def test_tilt_is_the_angle_clockwise() -> None:
    upright = ((30.0, 40.0), (70.0, 40.0), (50.0, 60.0), (35.0, 80.0), (65.0, 80.0))
    for degrees in (-170, -90, -20, 0, 45, 135):
        angle = math.radians(degrees)
        turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
        points = tuple(map(tuple, np.asarray(upright) @ turn))
        face = Face((0, 0, 9, 9), points, 1.0)  # type: ignore[arg-type]
        assert math.degrees(tilt(face)) == pytest.approx(degrees)


def test_choices_are_stored_as_older_galleries_have_them() -> None:
    assert [stored_choice(c) for c in ("never", "auto", "always", True, False)] == [
        False, True, "always", True, False,
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="try_turned must be one of never, auto, always"):
        stored_choice("sometimes")  # type: ignore[arg-type]
    assert DetectorSettings(try_turned="auto") == DetectorSettings(try_turned=True)
