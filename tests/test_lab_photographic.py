"""Photographic degradations, compared with formulas and with Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from face2vec.lab import photographic
from face2vec.lab.portraits import Portrait

EYES = 40.0
Change = Callable[[Portrait, float, np.random.Generator], np.ndarray]
LANDMARKS = np.array([(60, 60), (100, 60), (80, 80), (65, 100), (95, 100)], np.float64)


def portrait(image: np.ndarray) -> Portrait:
    return Portrait(image, LANDMARKS, (40.0, 30.0, 120.0, 130.0))


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def flat(value: int) -> Portrait:
    return portrait(np.full((160, 160, 3), value, np.uint8))


def coloured() -> Portrait:
    return portrait(np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8))


def dot(value: int = 255) -> Portrait:
    image = np.zeros((160, 160, 3), np.uint8)
    image[80, 80] = value
    return portrait(image)


def spread(image: np.ndarray) -> np.ndarray:
    """Covariance of x and y, weighted by the first channel."""
    weights = image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.cov(np.stack([columns.ravel(), rows.ravel()]), aweights=weights.ravel(), ddof=0)


def test_compressed_equals_a_jpeg_file_of_that_quality() -> None:
    given = coloured()
    file = io.BytesIO()
    Image.fromarray(given.image).save(file, "JPEG", quality=30, subsampling=2)
    expected = np.asarray(Image.open(file))
    np.testing.assert_array_equal(photographic.compressed(given, 30, rng()), expected)


def test_small_reduces_the_box_to_the_area_and_keeps_smaller_faces() -> None:
    given = coloured()  # a box of 80 × 100
    image = photographic.small(given, 2000, rng())
    assert image.shape == (80, 80, 3)
    assert photographic.small(given, 8000, rng()) is given.image


def test_blurred_spreads_a_dot_by_its_standard_deviation() -> None:
    image = np.zeros((160, 160, 3), np.uint8)
    image[72:89, 72:89] = 255
    blurred = photographic.blurred(portrait(image), 0.15, rng())
    added = spread(blurred) - spread(image)
    assert np.sqrt(np.diag(added)) == pytest.approx([0.15 * EYES] * 2, rel=0.05)
    assert added[0, 1] == pytest.approx(0, abs=0.1)


def test_moved_spreads_along_one_line_by_its_length() -> None:
    image = np.zeros((160, 160, 3), np.uint8)
    image[77:84, 77:84] = 255
    changed = photographic.moved(portrait(image), 0.6, rng())
    along, across = np.linalg.eigvalsh(spread(changed) - spread(image))[::-1]
    assert along == pytest.approx((0.6 * EYES) ** 2 / 12, rel=0.1)  # variance of a line
    assert across == pytest.approx(0, abs=1.0)
    assert float(changed.sum()) == pytest.approx(float(image.sum()), rel=0.1)


def test_moved_does_not_change_a_single_colour() -> None:
    np.testing.assert_array_equal(photographic.moved(flat(90), 0.6, rng()), flat(90).image)


def test_noisy_has_the_given_standard_deviation() -> None:
    noise = photographic.noisy(flat(128), 20, rng()).astype(np.float64) - 128
    assert noise.std() == pytest.approx(20, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.3)
    one, other = noise[..., 0].ravel(), noise[..., 1].ravel()
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0, abs=0.03)


def test_turned_rotates_about_the_centre_of_the_face() -> None:
    given = dot()
    turned = photographic.turned(given, 90, rng())
    row, column = np.unravel_index(turned[..., 0].argmax(), turned.shape[:2])
    away = np.array([80, 80]) - LANDMARKS.mean(
        axis=0
    )  # (80, 80) relative to the centre of the face
    quarter = [np.array([away[1], -away[0]]), np.array([-away[1], away[0]])]
    seen = np.array([column, row]) - LANDMARKS.mean(axis=0)
    assert min(np.abs(seen - one).max() for one in quarter) <= 0.5


def test_turned_has_a_random_direction() -> None:
    given = coloured()
    ways = {
        photographic.turned(given, 20, np.random.default_rng(seed)).tobytes() for seed in range(8)
    }
    assert len(ways) == 2


@pytest.mark.parametrize(("stops", "value"), [(-1, 92), (1, 176), (-5, 19), (3, 255)])
def test_exposed_halves_and_doubles_the_light(stops: float, value: int) -> None:
    # sRGB 128 has linear light 0.2158: times 0.5, 2, 1/32 and 8, converted back to sRGB.
    assert photographic.exposed(flat(128), stops, rng())[0, 0, 0] == value


def test_lit_from_one_side_darkens_one_side_by_the_given_stops() -> None:
    image = photographic.lit_from_one_side(flat(200), 3, rng())[60, :, 0]
    ends = sorted((int(image[20]), int(image[140])))
    assert ends == [int(photographic.exposed(flat(200), -3, rng())[0, 0, 0]), 200]
    steps = np.diff(image.astype(int))
    assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize(
    ("change", "strength"),
    [
        (photographic.blurred, 0.0),
        (photographic.moved, 0.0),
        (photographic.noisy, 0.0),
        (photographic.turned, 0.0),
        (photographic.exposed, 0.0),
        (photographic.lit_from_one_side, 0.0),
    ],
)
def test_zero_strength_changes_nothing(change: Change, strength: float) -> None:
    given = coloured()
    np.testing.assert_array_equal(change(given, strength, rng()), given.image)
