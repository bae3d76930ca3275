"""Portraits: the cut region, the landmarks in it, and face coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from face2vec import samples
from face2vec.lab.portraits import LARGEST_AREA, Portrait, frame_of, portrait_of, smaller
from face2vec.photos.decode import open_photo
from face2vec.types import Face


def marked(points: list[tuple[int, int]], height: int = 900, width: int = 1200) -> np.ndarray:
    """A black image with a white square of 9 pixels around each point."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in points:
        image[y - 4 : y + 5, x - 4 : x + 5] = 255
    return image


POINTS = [(500, 400), (600, 400), (550, 460), (510, 520), (590, 520)]
FACE = Face((430.0, 300.0, 670.0, 600.0), tuple((float(x), float(y)) for x, y in POINTS), 1.0)  # type: ignore[arg-type]


def brightest(portrait: Portrait) -> np.ndarray:
    """Centre of the white square nearest to each landmark."""
    rows, columns = np.nonzero(portrait.image[..., 0] > 127)
    seen = np.stack([columns, rows], axis=1)
    near = [np.abs(seen - point).max(axis=1) < 8 for point in portrait.landmarks]
    return np.stack([seen[one].mean(axis=0) for one in near])


def test_portrait_has_the_face_with_its_margin() -> None:
    portrait = portrait_of(open_photo(marked(POINTS)), FACE)
    shrink = np.sqrt(LARGEST_AREA / (240 * 300))
    assert portrait.image.shape[:2] == (round(600 * shrink), round(540 * shrink))
    assert portrait.area == pytest.approx(LARGEST_AREA, rel=0.01)
    np.testing.assert_allclose(brightest(portrait), portrait.landmarks, atol=0.5)
    assert portrait.middle == pytest.approx((0.5, 0.5), abs=0.01)


def test_portrait_is_clipped_to_the_photo() -> None:
    points = [(x - 430, y - 300) for x, y in POINTS]
    face = Face((0.0, 0.0, 240.0, 300.0), tuple((float(x), float(y)) for x, y in points), 1.0)  # type: ignore[arg-type]
    portrait = portrait_of(open_photo(marked(points, 320, 260)), face)
    height, width = portrait.image.shape[:2]
    assert height / width == pytest.approx(320 / 260, rel=0.01)
    np.testing.assert_allclose(brightest(portrait), portrait.landmarks, atol=0.5)


def test_reduced_photo_is_read_again_for_a_small_face() -> None:
    image = marked(POINTS)
    whole = portrait_of(open_photo(image), FACE)
    reduced = open_photo(image, max_side=300)
    np.testing.assert_array_equal(portrait_of(reduced, FACE).image, whole.image)


def test_smaller_keeps_small_portraits_and_scales_landmarks() -> None:
    portrait = portrait_of(open_photo(marked(POINTS)), FACE)
    assert smaller(portrait, 1e6) is portrait
    small = smaller(portrait, 10_000)
    assert small.area == pytest.approx(10_000, rel=0.02)
    np.testing.assert_allclose(brightest(small), small.landmarks, atol=0.6)


def test_frame_maps_landmarks_to_pixels() -> None:
    photo = samples.people(1, seed=9)[0].photo()
    landmarks = photo.faces[0].landmarks.astype(np.float64)
    frame = frame_of(landmarks)
    left, right, _, mouth_left, mouth_right = landmarks
    apart = np.linalg.norm(right - left)
    below = np.linalg.norm((mouth_left + mouth_right) / 2 - (left + right) / 2)
    assert frame.unit == pytest.approx(max(apart, below))
    half = apart / frame.unit / 2
    placed = frame.place([(-half, 0.0), (half, 0.0), (0.0, frame.mouth)])
    expected = [left, right, (mouth_left + mouth_right) / 2]
    np.testing.assert_allclose(placed, expected, atol=1e-9)


def test_frame_of_a_face_from_the_side_uses_its_height() -> None:
    profile = np.array([(70, 60), (80, 60), (60, 80), (66, 100), (74, 100)], np.float64)
    assert frame_of(profile).unit == pytest.approx(np.hypot(5, 40))
