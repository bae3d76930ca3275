"""Augmentation: what it moves, what it keeps, and that a generator decides everything."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from face2vec.training.augment import Augmentation


@pytest.fixture
def crop() -> np.ndarray:
    """A crop without symmetry: a bright square in the upper left quarter of a slope."""
    rows, columns = np.mgrid[0:64, 0:64]
    image = np.stack([rows + 40, columns + 40, np.full_like(rows, 90)], axis=2).astype(np.uint8)
    image[8:24, 8:24] = 255
    return image


def drawn(how: Augmentation, crop: np.ndarray, seed: int = 0, side: int = 64) -> np.ndarray:
    return how.apply(crop, side, np.random.default_rng(seed))


def test_augmentation_none_keeps_every_pixel(crop: np.ndarray) -> None:
    assert np.array_equal(drawn(Augmentation.none(), crop), crop)


@pytest.mark.parametrize("side", [32, 48, 112])
def test_augmentation_gives_the_side_asked_for(crop: np.ndarray, side: int) -> None:
    image = drawn(Augmentation.none(), crop, side=side)
    assert image.shape == (side, side, 3)
    # The bright square is where it was, as a share of the side.
    bright = np.argwhere((image > 250).all(axis=2)) / side
    assert np.abs(bright.mean(axis=0) - 0.25).max() < 0.02


def test_augmentation_same_generator_same_pixels(crop: np.ndarray) -> None:
    how = Augmentation()
    for seed in range(20):
        assert np.array_equal(drawn(how, crop, seed), drawn(how, crop, seed))
    assert not np.array_equal(drawn(how, crop, 1), drawn(how, crop, 2))


@pytest.mark.parametrize(
    ("what", "changed"), [("mask", (0.1, 0.5)), ("misaligned", (0.02, 1.0)), ("dark", (0.6, 1.0))]
)
def test_augmentation_of_hard_crops_changes_what_it_says(
    what: str, changed: tuple[float, float], crop: np.ndarray
) -> None:
    how = Augmentation(**{name: float(name == what) for name in NAMES})
    for seed in range(20):
        image = drawn(how, crop, seed)
        away = np.abs(image.astype(int) - crop).max(axis=2) > 4
        assert changed[0] < away.mean() <= changed[1]
        if what == "mask":
            assert not away[:32].any()  # eyes and forehead
        if what == "dark":
            assert image.mean() < crop.mean()


def test_augmentation_flip_mirrors(crop: np.ndarray) -> None:
    how = Augmentation(flip=1.0, **{name: 0.0 for name in NAMES if name != "flip"})
    assert np.abs(drawn(how, crop).astype(int) - crop[:, ::-1]).max() <= 1


def test_augmentation_moves_no_farther_than_told(crop: np.ndarray) -> None:
    how = Augmentation(shift=0.1, **{name: 0.0 for name in NAMES if name != "shift"})
    centres = []
    for seed in range(60):
        bright = np.argwhere((drawn(how, crop, seed) > 250).all(axis=2))
        centres.append(bright.mean(axis=0) - 15.5)
    moved = np.abs(centres)
    assert moved.max() <= 0.1 * 64 + 0.6
    assert moved.max() > 0.07 * 64  # and it does go that far


def test_augmentation_turns_no_farther_than_told() -> None:
    line = np.zeros((64, 64, 3), np.uint8)
    line[31:33] = 255  # horizontal, through the middle
    how = Augmentation(turn=10.0, **{name: 0.0 for name in NAMES if name != "turn"})
    angles = []
    for seed in range(60):
        rows, columns = np.nonzero(drawn(how, line, seed)[..., 0] > 128)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert np.abs(angles).max() <= 10.5
    assert np.abs(angles).max() > 7


def test_augmentation_borders_are_reflected_not_black() -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    moved = {"flip": 0.5, "shift": 0.1, "scale": 0.2, "turn": 20.0}
    how = Augmentation(**dict.fromkeys(NAMES, 0.0) | moved)
    for seed in range(40):
        assert drawn(how, white, seed).min() == 255


@pytest.mark.parametrize("name", ["light", "blur", "low_resolution", "jpeg", "noise", "occlusion"])
def test_augmentation_each_way_changes_pixels_when_certain(crop: np.ndarray, name: str) -> None:
    how = Augmentation(**dict.fromkeys(NAMES, 0.0) | {name: 1.0})
    image = drawn(how, crop, 5)
    assert image.dtype == np.uint8
    assert not np.array_equal(image, crop)


def test_augmentation_grey_has_no_colour(crop: np.ndarray) -> None:
    image = drawn(Augmentation(**dict.fromkeys(NAMES, 0.0) | {"grey": 1.0}), crop)
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])


def test_augmentation_occlusion_leaves_most_of_the_face(crop: np.ndarray) -> None:
    how = Augmentation(**dict.fromkeys(NAMES, 0.0) | {"occlusion": 1.0})
    hidden = [(drawn(how, crop, seed) != crop).any(axis=2).mean() for seed in range(60)]
    assert max(hidden) <= 0.4 * 0.4
    assert max(hidden) > 0.08


NAMES = tuple(one.name for one in fields(Augmentation))
