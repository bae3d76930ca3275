from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import needs, overlap
from PIL import Image

from face2vec.detection import pyramid
from face2vec.detection.mtcnn import (
    ONET_BLOCK,
    RNET_BLOCK,
    DetectorSettings,
    Mtcnn,
)
from face2vec.detection.nms import nms
from face2vec.detection.pyramid import area_level
from face2vec.errors import SettingsError
from face2vec.runtime.select import Runtime
from face2vec.types import Face, Point

RUNTIME = Runtime("onnxruntime")


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn(DetectorSettings(), RUNTIME)


@pytest.fixture(scope="module")
def images(astronaut: Image.Image, hopper: Image.Image) -> dict[str, np.ndarray]:
    one, other = np.asarray(astronaut), np.asarray(hopper)
    both = np.full((600, 1024, 3), 128, np.uint8)
    both[:512, :512], both[:, 512:] = one, other
    mosaic = np.block([[[one], [one[:, ::-1]]], [[other[:512]], [other[:512, ::-1]]]])
    return {"astronaut": one, "hopper": other, "both": both, "mosaic": mosaic}


def detect(image: np.ndarray, **settings: object) -> list[Face]:
    return Mtcnn(DetectorSettings(**settings), RUNTIME).detect([image])[0]  # type: ignore[arg-type]


def values(faces: list[Face]) -> list[tuple[object, ...]]:
    """All that a face says, to be compared bit for bit."""
    return [(face.box, face.landmarks, face.confidence) for face in faces]


# --- the pyramid ----------------------------------------------------------------------------


def slow_area(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mean over each cell of a height × width grid laid over the planes, pixel by pixel."""

    def shares(size: int, parts: int) -> np.ndarray:
        matrix = np.zeros((parts, size))
        pixel = np.arange(size)
        for part in range(parts):
            first, last = part * size / parts, (part + 1) * size / parts
            matrix[part] = np.clip(np.minimum(last, pixel + 1) - np.maximum(first, pixel), 0, 1)
        return matrix / matrix.sum(axis=1, keepdims=True)

    _, rows, columns = planes.shape
    return np.asarray(shares(rows, height) @ planes.astype(float) @ shares(columns, width).T)


@pytest.mark.parametrize(
    ("rows", "columns", "scale"),
    [
        (12, 12, 1.0),
        (40, 60, 0.5),
        (57, 31, 0.709),
        (33, 90, 1 / 3),
        (101, 64, 0.6 * 0.709**2),
        (20, 17, 1.7),
        (12, 300, 12 / 12.01),
        (25, 14, 3.0),
        (900, 14, 0.9),
        (14, 900, 0.9),
        (700, 650, 0.021),
    ],
)
def test_area_level_equals_the_slow_area_average(rows: int, columns: int, scale: float) -> None:
    planes = np.random.default_rng(rows).uniform(-127.5, 127.5, (3, rows, columns))
    level = area_level(planes.astype(np.float32), scale)
    assert level.shape == (3, int(rows * scale), int(columns * scale))
    np.testing.assert_allclose(level, slow_area(planes, *level.shape[1:]), atol=1e-3)


def test_area_level_of_random_sizes_and_scales_equals_the_slow_area_average() -> None:
    rng = np.random.default_rng(11)
    for _ in range(40):
        rows, columns = rng.integers(12, 130, 2)
        scale = float(rng.uniform(12 / min(rows, columns), 2.2))
        planes = rng.uniform(-127.5, 127.5, (3, rows, columns)).astype(np.float32)
        level = area_level(planes, scale)
        assert level.shape == (3, int(rows * scale), int(columns * scale))
        np.testing.assert_allclose(level, slow_area(planes, *level.shape[1:]), atol=1e-3)


def test_area_level_of_some_rows_gives_those_of_the_whole() -> None:
    planes = np.random.default_rng(5).uniform(-127.5, 127.5, (3, 333, 217)).astype(np.float32)
    whole = area_level(planes, 0.6)
    for rows in (slice(0, 26), slice(16, 199), slice(96, 97), slice(192, 199)):
        some = area_level(planes, 0.6, rows)
        assert some.shape == (3, rows.stop - rows.start, 130)
        np.testing.assert_allclose(some, whole[:, rows], atol=1e-4)


@pytest.mark.parametrize("size", [(1024, 600), (423, 301), (341, 199)])
def test_faces_do_not_show_where_the_tiles_were_cut(
    images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    image = np.asarray(Image.fromarray(images["both"]).resize(size))
    seen = {}
    for tile in (4, 17, 80, 10_000):
        monkeypatch.setattr(pyramid, "PNET_TILE", tile)
        seen[tile] = detect(image, thresholds=(0.3, 0.3, 0.3))
    assert len(seen[10_000]) > 0
    for faces in seen.values():
        assert len(faces) == len(seen[10_000])
        for face, whole in zip(faces, seen[10_000], strict=True):
            np.testing.assert_allclose(face.box, whole.box, atol=1e-2)
            np.testing.assert_allclose(face.landmarks, whole.landmarks, atol=1e-2)


# --- suppression ----------------------------------------------------------------------------


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, measure: str) -> np.ndarray:
    """Each box against each other one, in the numbers' own precision."""
    keep = np.ones(len(boxes), bool)
    zero = np.float32(0)
    rank = np.argsort(np.argsort(scores.astype(np.float64))[::-1])  # which says who wins a tie
    area = np.maximum(boxes[:, 2] - boxes[:, 0], zero) * np.maximum(boxes[:, 3] - boxes[:, 1], zero)
    for mine in range(len(boxes)):
        better = rank < rank[mine]
        first = np.maximum(boxes[:, :2], boxes[mine, :2])
        last = np.minimum(boxes[:, 2:], boxes[mine, 2:])
        shared = np.prod(np.maximum(last - first, zero), axis=1)
        smaller = np.minimum(area, area[mine])
        whole = smaller if measure == "smaller" else area[mine] + area - shared
        keep[mine] = not (better & (shared > np.float32(threshold) * whole)).any()
    return keep


@pytest.mark.parametrize("measure", ["union", "smaller"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [2, 3, 40, 255, 256, 257, 600, 1000])
def test_suppress_equals_brute_force(count: int, threshold: float, measure: str) -> None:
    rng = np.random.default_rng(count)
    first = rng.uniform(-20, 400, (count, 2))
    boxes = np.concatenate([first, first + rng.uniform(5, 90, (count, 2))], axis=1)
    boxes[rng.random(count) < 0.2] = boxes[0]  # the very same box, several times
    boxes = boxes.astype(np.float32)
    scores = rng.integers(0, 50, count).astype(np.float32) / 50  # many ties
    keep = nms(boxes, scores, threshold, measure)  # type: ignore[arg-type]
    wanted = slow_nms(boxes, scores, threshold, measure)
    np.testing.assert_array_equal(keep, wanted)
    assert keep.any()


@pytest.mark.parametrize("measure", ["union", "smaller"])
def test_suppress_equals_brute_force_on_small_boxes_in_large_ones(measure: str) -> None:
    rng = np.random.default_rng(2)
    side = np.repeat([10, 40, 200, 900], 150)
    first = rng.uniform(0, 1000 - side[:, None], (600, 2))
    boxes = np.concatenate([first, first + side[:, None]], axis=1).astype(np.float32)
    scores = rng.random(600).astype(np.float32)
    keep = nms(boxes, scores, 0.5, measure)  # type: ignore[arg-type]
    np.testing.assert_array_equal(keep, slow_nms(boxes, scores, 0.5, measure))
    assert 1 < keep.sum() < 600


@pytest.mark.parametrize("measure", ["union", "smaller"])
def test_suppress_leaves_boxes_turned_inside_out_alone(measure: str) -> None:
    rng = np.random.default_rng(4)
    boxes = rng.uniform(0, 300, (700, 4)).astype(np.float32)  # half the sides are negative
    scores = rng.random(700).astype(np.float32)
    keep = nms(boxes, scores, 0.3, measure)  # type: ignore[arg-type]
    np.testing.assert_array_equal(keep, slow_nms(boxes, scores, 0.3, measure))
    inside_out = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    assert keep[inside_out].all()


def test_suppress_keeps_one_of_equals_the_same_every_time() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    kept = [nms(boxes, np.full(3, 0.9, np.float32), 0.5).tolist() for _ in range(3)]
    assert sum(kept[0]) == 1
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize("count", [0, 1])
def test_suppress_keeps_one_or_none_as_they_are(count: int) -> None:
    boxes = np.array([[0, 0, 10, 10]] * count, np.float32).reshape(count, 4)
    assert nms(boxes, np.ones(count, np.float32), 0.5).tolist() == [True] * count


# --- faces ----------------------------------------------------------------------------------


def test_detect_finds_the_faces_where_they_are(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    (one,) = detector.detect([images["astronaut"]])[0]
    (other,) = detector.detect([images["hopper"]])[0]
    assert overlap(one.box, (182, 64, 265, 171)) > 0.9
    assert overlap(other.box, (178, 110, 351, 330)) > 0.9
    for face in (one, other):
        (lx, ly), (rx, ry), (nx, ny), (mlx, mly), (mrx, mry) = face.landmarks
        left, top, right, bottom = face.box
        assert left < lx < nx < rx < right  # as the viewer sees them
        assert left < mlx < mrx < right
        assert top < max(ly, ry) < ny < min(mly, mry) < bottom
    # Pupils and corners of the mouth as read off the photos by a person.
    eyes, mouth = [(203, 101), (246, 103)], [(203, 140), (244, 140)]
    np.testing.assert_allclose(one.landmarks[:2], eyes, atol=4)
    np.testing.assert_allclose(one.landmarks[3:], mouth, atol=4)
    eyes, mouth = [(222, 190), (307, 187)], [(226, 278), (306, 276)]
    np.testing.assert_allclose(other.landmarks[:2], eyes, atol=8)
    np.testing.assert_allclose(other.landmarks[3:], mouth, atol=8)


def test_detect_puts_the_most_confident_first_and_boxes_inside(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    (faces,) = detector.detect([images["mosaic"]])
    assert len(faces) == 4
    confidences = [face.confidence for face in faces]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0.8 < confidence <= 1 for confidence in confidences)
    places = sorted((face.box[0] > 512, face.box[1] > 512) for face in faces)
    assert places == [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("edge", ["left", "top", "right", "bottom"])
def test_boxes_of_faces_at_the_edge_are_cut_there(
    edge: str, detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    image = images["hopper"]  # its face is at (178, 110, 351, 330)
    cut = {
        "left": image[:, 205:],
        "top": image[150:],
        "right": image[:, :325],
        "bottom": image[:300],
    }[edge]
    (faces,) = detector.detect([cut])
    (face,) = faces
    height, width = cut.shape[:2]
    left, top, right, bottom = face.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    at_edge = {"left": left, "top": top, "right": right - width, "bottom": bottom - height}
    assert at_edge[edge] == pytest.approx(0, abs=6)


@pytest.mark.parametrize(
    "shape", [(1, 1), (11, 11), (5, 300), (300, 11), (12, 12), (13, 200), (200, 300)]
)
@pytest.mark.parametrize("value", [0, 255])
def test_images_with_nothing_in_them_have_no_faces(
    shape: tuple[int, int], value: int, detector: Mtcnn
) -> None:
    assert detector.detect([np.full((*shape, 3), value, np.uint8)]) == [[]]


def test_detect_of_no_images_gives_nothing(detector: Mtcnn) -> None:
    assert detector.detect([]) == []


def test_faces_are_the_same_bits_whatever_is_in_the_batch(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    small = np.zeros((7, 9, 3), np.uint8)
    cropped = np.ascontiguousarray(images["astronaut"][20:250, 120:330])
    batch = [images["mosaic"], small, images["hopper"], cropped, images["both"]]
    alone = [values(detector.detect([image])[0]) for image in batch]
    assert [len(faces) for faces in alone] == [4, 0, 1, 2, 2]
    assert [values(faces) for faces in detector.detect(batch)] == alone
    assert [values(faces) for faces in detector.detect(batch[::-1])] == alone[::-1]
    assert [values(faces) for faces in detector.detect([batch[2]] * 3)] == [alone[2]] * 3


def test_later_networks_only_ever_see_whole_blocks(
    images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits above may be the same by luck of one processor; a block of one size is no luck."""
    detector = Mtcnn(DetectorSettings(), RUNTIME)
    seen = set()
    for network in (detector._rnet, detector._onet):

        def run(inputs: Any, run: Callable[..., Any] = network.run) -> Any:
            seen.add(inputs["pixels"].shape)
            return run(inputs)

        monkeypatch.setattr(network, "run", run)
    detector.detect([images["mosaic"], images["astronaut"]])
    detector.detect([images["hopper"]])
    assert seen == {(RNET_BLOCK, 3, 24, 24), (ONET_BLOCK, 3, 48, 48)}


def test_faces_are_the_same_bits_from_many_threads(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    batch = [images["astronaut"], images["hopper"]] * 4
    alone = [values(detector.detect([image])[0]) for image in batch]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: values(detector.detect([image])[0]), batch))
    assert together == alone


def test_image_that_is_a_view_gives_the_same_bits(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    wide = np.concatenate([images["hopper"], images["hopper"]], axis=1)
    view = wide[:, :512]
    assert not view.flags.c_contiguous
    assert values(detector.detect([view])[0]) == values(detector.detect([images["hopper"]])[0])


# --- settings -------------------------------------------------------------------------------


def test_min_face_size_in_pixels_leaves_out_smaller_faces(images: dict[str, np.ndarray]) -> None:
    everyone = detect(images["both"])
    larger = detect(images["both"], min_face_size=240)
    assert sorted(round(face.width, -1) for face in everyone) == [90, 180]
    assert [round(face.width, -1) for face in larger] == [180]


def test_min_face_size_below_one_is_a_share_of_the_shorter_side(
    images: dict[str, np.ndarray],
) -> None:
    share = detect(images["both"], min_face_size=0.4)
    assert values(share) == values(detect(images["both"], min_face_size=240))
    assert len(share) == 1


def test_thresholds_decide_what_is_a_face(images: dict[str, np.ndarray]) -> None:
    (face,) = detect(images["hopper"])
    above = replace(DetectorSettings(), thresholds=(0.6, 0.7, face.confidence + 0.001))
    below = replace(DetectorSettings(), thresholds=(0.6, 0.7, face.confidence - 0.001))
    assert Mtcnn(above, RUNTIME).detect([images["hopper"]]) == [[]]
    assert values(Mtcnn(below, RUNTIME).detect([images["hopper"]])[0]) == values([face])


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_face_size": 0},
        {"min_face_size": -1},
        {"min_face_size": math.nan},
        {"min_face_size": math.inf},
        {"thresholds": (0.6, 0.7)},
        {"thresholds": (0.6, 0.7, 1.1)},
        {"thresholds": (-0.1, 0.7, 0.8)},
        {"thresholds": (0.6, math.nan, 0.8)},
        {"scale_factor": 1.0},
        {"scale_factor": 0.1},
        {"scale_factor": math.nan},
        {"max_side": 11},
        {"max_side": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(SettingsError, match=f"^{name} must be "):
        DetectorSettings(**wrong)  # type: ignore[arg-type]


def test_settings_survive_the_way_through_json_values() -> None:
    settings = DetectorSettings(0.1, (0.5, 0.6, 0.7), 0.8, None, True)
    assert settings.to_dict() == {
        "min_face_size": 0.1,
        "thresholds": [0.5, 0.6, 0.7],
        "scale_factor": 0.8,
        "max_side": None,
        "try_turned": True,
    }
    assert DetectorSettings(**settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("min_face_size", "max_side", "searched"),
    [
        (20, 2000, 2000),
        (20, None, None),
        (0.1, None, 960),
        (0.1, 500, 500),
        (0.04, 2000, 2000),
        (0.5, 2000, 192),
    ],
)
def test_searched_side_is_the_least_that_shows_the_smallest_face(
    min_face_size: float, max_side: int | None, searched: int | None
) -> None:
    settings = DetectorSettings(min_face_size=min_face_size, max_side=max_side)
    assert settings.searched_side() == searched


@pytest.mark.parametrize(
    ("min_face_size", "smallest"), [(40, 40), (0.1, 40), (1, 3), (1e-9, 3), (2.5, 3)]
)
def test_smallest_face_is_never_so_small_that_the_image_becomes_huge(
    min_face_size: float, smallest: float
) -> None:
    assert DetectorSettings(min_face_size=min_face_size).smallest_face(600, 400) == smallest


# --- turned photos --------------------------------------------------------------------------


def turned_point(point: Point, turns: int, width: float, height: float) -> Point:
    """Where a point goes when its image is turned counter-clockwise, one turn after another."""
    x, y = point
    for _ in range(turns):
        x, y = y, width - x
        width, height = height, width
    return x, y


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_try_turned_gives_faces_in_the_pixels_of_the_photo_as_it_is(
    turns: int, detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    upright = images["hopper"][:, 40:]  # neither square nor centred
    height, width = upright.shape[:2]
    turned = np.ascontiguousarray(np.rot90(upright, turns))
    assert detector.detect([turned]) == [[]]  # what the setting is for
    (wanted,) = detector.detect([upright])[0]
    (face,) = detect(turned, try_turned=True)
    left, top, right, bottom = wanted.box
    corners = [turned_point(p, turns, width, height) for p in ((left, top), (right, bottom))]
    box = (*np.min(corners, axis=0), *np.max(corners, axis=0))
    np.testing.assert_allclose(face.box, box, atol=1e-3)
    # Landmarks count from the centre of the first pixel: its corner is half a pixel away.
    points = [
        np.subtract(turned_point((x + 0.5, y + 0.5), turns, width, height), 0.5)
        for x, y in wanted.landmarks
    ]
    np.testing.assert_allclose(face.landmarks, points, atol=1e-3)
    assert face.confidence == wanted.confidence


def test_try_turned_points_at_the_same_pixels(images: dict[str, np.ndarray]) -> None:
    """What is seen at a landmark is the same, whichever way the photo lies."""
    upright = images["hopper"]
    (wanted,) = detect(upright)
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(upright, turns))
        (face,) = detect(turned, try_turned=True)
        for (x, y), (u, v) in zip(face.landmarks, wanted.landmarks, strict=True):
            np.testing.assert_array_equal(turned[round(y), round(x)], upright[round(v), round(u)])


def test_try_turned_leaves_upright_photos_and_the_rest_of_the_batch_alone(
    detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    turned = np.ascontiguousarray(np.rot90(images["hopper"]))
    nobody = np.zeros((60, 80, 3), np.uint8)
    batch = [images["both"], turned, nobody, images["astronaut"]]
    found = Mtcnn(DetectorSettings(try_turned=True), RUNTIME).detect(batch)
    assert values(found[0]) == values(detector.detect([batch[0]])[0])
    assert values(found[3]) == values(detector.detect([batch[3]])[0])
    assert [len(faces) for faces in found] == [2, 1, 0, 1]


# --- the reference --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> object:
    needs("keras", "tensorflow")
    from mtcnn import MTCNN

    return MTCNN(device="CPU:0")


@pytest.mark.keras
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["astronaut", "hopper", "both", "mosaic"])
def test_cascade_finds_the_faces_of_the_mtcnn_package(
    name: str, reference: object, detector: Mtcnn, images: dict[str, np.ndarray]
) -> None:
    sure = 0.9
    faces = [face for face in detector.detect([images[name]])[0] if face.confidence >= sure]
    theirs = [
        face
        for face in reference.detect_faces(images[name], box_format="xyxy")  # type: ignore[attr-defined]
        if face["confidence"] >= sure
    ]
    assert len(faces) == len(theirs)
    for other in theirs:
        face = max(faces, key=lambda face: overlap(face.box, other["box"]))
        assert overlap(face.box, other["box"]) >= 0.9
        points = [
            other["keypoints"][key]
            for key in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        ]
        away = np.linalg.norm(np.subtract(face.landmarks, points), axis=1)
        assert away.max() <= 0.02 * face.width
        faces.remove(face)
