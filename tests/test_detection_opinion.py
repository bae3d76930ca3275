"""The second opinion on faces, and the quality that is made of it."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from face2vec import Face2Vec, open_photo
from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.detection.opinion import SecondOpinion
from face2vec.encoding.quality import quality, with_parts
from face2vec.runtime.select import Runtime
from face2vec.types import Face, QualityParts, largest_sure

RUNTIME = Runtime("onnxruntime")


@pytest.fixture(scope="module")
def opinion() -> SecondOpinion:
    return SecondOpinion(RUNTIME)


@pytest.fixture(scope="module")
def face(hopper: Image.Image) -> Face:
    return Mtcnn(DetectorSettings(), RUNTIME).detect([np.asarray(hopper)])[0][0]


def test_opinion_tells_faces_from_what_is_none(
    opinion: SecondOpinion, face: Face, hopper: Image.Image
) -> None:
    image = np.asarray(hopper)
    elsewhere = replace(face, landmarks=tuple((x, y + 250) for x, y in face.landmarks))  # type: ignore[arg-type]
    upside_down = replace(face, landmarks=tuple((x, 500 - y) for x, y in face.landmarks))  # type: ignore[arg-type]
    flat = np.full_like(image, 90)
    assert opinion(image, [face])[0].face > 0.9
    assert opinion(image, [elsewhere])[0].face < 0.3
    assert opinion(np.ascontiguousarray(image[::-1]), [upside_down])[0].face < 0.9
    assert opinion(np.ascontiguousarray(image[::-1, ::-1]), [face])[0].face < 0.3
    assert opinion(flat, [face])[0].face < 0.3
    assert opinion(image, []) == []


def test_opinion_sees_that_a_face_is_covered(
    opinion: SecondOpinion, face: Face, hopper: Image.Image
) -> None:
    masked = hopper.copy()
    left, _, right, bottom = face.box
    nose = face.landmarks[2][1]
    outline = [(left, nose - 12), (right, nose - 12), (right - 20, bottom), (left + 20, bottom)]
    ImageDraw.Draw(masked).polygon(outline, fill=(150, 190, 220))
    bare, covered = (opinion(np.asarray(photo), [face])[0] for photo in (hopper, masked))
    assert bare.covered < 0.2
    assert covered.covered > 0.3


def test_sharpness_falls_with_blur(opinion: SecondOpinion, face: Face, hopper: Image.Image) -> None:
    values = [
        opinion(np.asarray(hopper.filter(ImageFilter.GaussianBlur(radius))), [face])[0].sharpness
        for radius in (0, 4, 8, 16)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5 * values[0]


def test_parts_do_not_depend_on_the_scale_at_which_a_photo_was_read(
    opinion: SecondOpinion, hopper: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "large.jpg"
    hopper.resize((1536, 1800), Image.Resampling.LANCZOS).save(path, quality=95)
    whole, reduced = open_photo(path), open_photo(path, max_side=700)
    assert reduced.scale < 0.5
    (found,) = Mtcnn(DetectorSettings(min_face_size=100), RUNTIME).detect([whole.image])[0]
    one, other = (with_parts(photo, [found], opinion)[0].parts for photo in (whole, reduced))
    assert one is not None
    assert other is not None
    assert other.size == pytest.approx(one.size, rel=1e-3)
    assert other.face == pytest.approx(one.face, abs=0.1)
    assert (other.yaw, other.pitch, other.roll) == (one.yaw, one.pitch, one.roll)


def test_quality_falls_with_each_part() -> None:
    best = QualityParts(1.0, 200.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert quality(best, 1.5) == 1.0
    assert quality(best, 0.5) == 0.5
    assert quality(None, 0.5) == 0.5
    assert quality(replace(best, face=0.25), 1.0) == 0.25
    assert quality(replace(best, yaw=60.0), 1.0) == pytest.approx(0.25)
    assert quality(replace(best, covered=0.4), 1.0) == pytest.approx(0.6)


def test_largest_sure_leaves_out_what_is_hardly_a_face() -> None:
    parts = QualityParts(0.9, 200.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0)
    at = ((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0))
    small = Face((0, 0, 10, 10), at, 0.8, parts=parts)
    large = Face((0, 0, 90, 90), at, 0.99, parts=replace(parts, face=0.1))
    older = Face((0, 0, 50, 50), at, 0.7)
    assert largest_sure([small, large, older]) is small
    assert largest_sure([large, older]) is large
    assert [face.is_sure for face in (small, large, older)] == [True, False, False]


def test_gallery_keeps_the_parts_of_a_quality(
    tiny_model: Path, faces_folder: Path, tmp_path: Path
) -> None:
    photo = faces_folder / "hopper.jpg"
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        (face,) = engine.encode(photo)
        match = engine.search(photo, k=1)[0].matches[0]
    assert face.parts is not None
    assert match.face.parts is not None
    np.testing.assert_allclose(astuple(match.face.parts), astuple(face.parts), rtol=1e-5)
    assert match.face.quality == face.quality
