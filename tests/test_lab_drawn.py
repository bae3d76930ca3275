"""Degradations that are drawn on a face: which pixels they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from face2vec.lab import drawn
from face2vec.lab.portraits import Portrait

# Eyes 40 pixels apart at (60, 60) and (100, 60), the mouth 40 below them.
UPRIGHT = np.array([(60, 60), (100, 60), (80, 80), (66, 100), (94, 100)], np.float64)
MIDDLE = np.array([80.0, 75.0])
SIDE = 160
SKIN = 180


def portrait(degrees: float = 0.0) -> Portrait:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    landmarks = (UPRIGHT - MIDDLE) @ np.array([[cosine, sine], [-sine, cosine]]) + MIDDLE
    image = np.full((SIDE, SIDE, 3), SKIN, np.uint8)
    return Portrait(image, landmarks, (30.0, 20.0, 130.0, 145.0))


def changed(image: np.ndarray) -> np.ndarray:
    return (image != SKIN).any(axis=2)


def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def at(image: np.ndarray, point: np.ndarray) -> list[int]:
    x, y = np.rint(point).astype(int)
    return image[y, x].tolist()


def test_left_and_right_hidden_cover_one_eye_each() -> None:
    given = portrait()
    left = drawn.left_hidden(given, 0.5, rng())
    right = drawn.right_hidden(given, 0.5, rng())
    assert at(left, UPRIGHT[0]) == at(right, UPRIGHT[1]) == list(drawn.GREY)
    assert at(left, UPRIGHT[1]) == at(right, UPRIGHT[0]) == [SKIN] * 3
    # Together they cover the face from cheek to cheek, each on its own side of the centre line.
    columns = np.flatnonzero(changed(left).any(axis=0))
    assert columns[0] == pytest.approx(80 - 1.15 * 40, abs=1)
    assert columns[-1] == pytest.approx(80, abs=1)
    np.testing.assert_array_equal(changed(right)[:, 82:121], changed(left)[:, 78:39:-1])


def test_hidden_share_is_the_share_of_the_width() -> None:
    widths = [
        changed(drawn.left_hidden(portrait(), share, rng())).any(axis=0).sum()
        for share in (0.25, 0.5)
    ]
    assert widths[1] == pytest.approx(2 * widths[0], abs=2)


@pytest.mark.parametrize("degrees", [0, 35, -70])
def test_sunglasses_follow_the_rotation_of_the_head(degrees: float) -> None:
    given = portrait(degrees)
    image = drawn.in_sunglasses(given, 1.0, rng())
    dark = (image < 60).all(axis=2)
    for eye in given.landmarks[:2]:
        assert at(image, eye) == list(drawn.LENS)
    rows, columns = np.nonzero(dark)
    middle = given.landmarks[:2].mean(axis=0)
    assert np.hypot(columns.mean() - middle[0], rows.mean() - middle[1]) < 0.1 * 40
    assert at(image, given.landmarks[3]) == at(image, given.landmarks[4]) == [SKIN] * 3


def test_lenses_absorb_the_given_share_of_light() -> None:
    for opacity in (0.0, 0.6):
        image = drawn.in_sunglasses(portrait(), opacity, rng())
        expected = [round(SKIN + opacity * (lens - SKIN)) for lens in drawn.LENS]
        assert at(image, UPRIGHT[0]) == expected


def test_mask_covers_the_mouth_and_a_high_mask_the_nose() -> None:
    low, high = (drawn.in_mask(portrait(), share, rng()) for share in (0.3, 0.65))
    for image in (low, high):
        assert changed(image)[100, 66]
        assert changed(image)[100, 94]
        assert at(image, UPRIGHT[0]) == at(image, UPRIGHT[1]) == [SKIN] * 3
    assert not changed(low)[80, 80]
    assert changed(high)[80, 80]
    cloth = (np.abs(high.astype(int) - drawn.CLOTH) < 3).all(axis=2)
    assert np.flatnonzero(cloth[:, 80])[0] == pytest.approx(100 - 0.65 * 40, abs=1)


def test_printed_words_are_white_lines_over_the_face() -> None:
    for lines in (1, 2, 3):
        image = drawn.printed(portrait(), lines, rng())
        assert image.min() == SKIN
        assert image.max() > 225
        rows = changed(image).any(axis=1)
        assert (np.diff(rows.astype(int)) == 1).sum() == lines


def test_printed_words_rotate_with_the_head() -> None:
    upright = changed(drawn.printed(portrait(), 1, rng()))
    lying = changed(drawn.printed(portrait(90), 1, rng()))
    assert np.ptp(np.nonzero(upright)[1]) > 2 * np.ptp(np.nonzero(upright)[0])
    assert np.ptp(np.nonzero(lying)[0]) > 2 * np.ptp(np.nonzero(lying)[1])


def test_marks_are_on_the_face_and_larger_counts_include_smaller() -> None:
    few, many = (changed(drawn.marked(portrait(), count, rng())) for count in (3, 12))
    assert few.sum() > 0
    assert many.sum() > 2 * few.sum()
    assert not (few & ~many).any()
    rows, columns = np.nonzero(many)
    assert columns.min() > 80 - 1.15 * 40
    assert columns.max() < 80 + 1.15 * 40
    assert rows.min() > 60 - 1.3 * 40
    assert rows.max() < 60 + 1.95 * 40
