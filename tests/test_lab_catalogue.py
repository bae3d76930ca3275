"""The catalogue of degradations: order, steps, the paper's figures, and randomness."""

from __future__ import annotations

import numpy as np
import pytest

from face2vec.errors import SettingsError
from face2vec.lab.catalogue import DEGRADATIONS, HEADINGS, NAMES, Degradation, chosen
from face2vec.lab.portraits import Portrait

LANDMARKS = np.array([(60, 60), (100, 60), (80, 80), (65, 100), (95, 100)], np.float64)
each = pytest.mark.parametrize("kind", DEGRADATIONS, ids=NAMES)


def portrait() -> Portrait:
    image = np.random.default_rng(2).integers(30, 220, (20, 20, 3), np.uint8)
    return Portrait(image.repeat(8, 0).repeat(8, 1), LANDMARKS, (40.0, 25.0, 120.0, 130.0))


def test_headings_have_the_order_of_the_report() -> None:
    places = [HEADINGS.index(one.heading) for one in DEGRADATIONS]
    assert places == sorted(places)
    assert len(set(NAMES)) == len(NAMES)


@each
def test_stronger_steps_change_the_photo_more(kind: Degradation) -> None:
    given = portrait()
    clean = given.image.astype(float)
    images = [kind.image(given, strength, 0, 1) for strength in kind.steps]
    if kind.name == "size":
        areas = [image.shape[0] * image.shape[1] for image in images]
        assert areas == sorted(areas, reverse=True)
        assert areas[-1] < areas[0] == clean.shape[0] * clean.shape[1]
        return
    apart = [float(np.abs(image - clean).mean()) for image in images]
    assert apart[0] > 0
    if (
        kind.name != "rotation"
    ):  # a square mosaic rotated by 90° is no less similar than at other angles
        assert apart == sorted(apart)
    assert kind.ordinary in kind.steps
    assert {strength for strength, _ in kind.paper} <= set(kind.steps)


@each
def test_image_depends_only_on_seed_and_number(kind: Degradation) -> None:
    first = kind.image(portrait(), kind.ordinary, 3, 5)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, kind.image(portrait(), kind.ordinary, 3, 5))


def test_another_number_or_seed_gives_different_noise() -> None:
    (noise,) = chosen(["noise"])
    images = {noise.image(portrait(), 20, *how).tobytes() for how in ((0, 1), (0, 2), (1, 1))}
    assert len(images) == 3


def test_step_labels_have_units() -> None:
    labels = {one.name: [one.step_label(s) for s in one.steps[:2]] for one in DEGRADATIONS}
    assert labels["words"] == ["1 line", "2 lines"]
    assert labels["darker"] == ["−1 EV", "−2 EV"]
    assert labels["size"] == ["65,536 px", "25,600 px"]
    assert labels["jpeg"] == ["q90", "q70"]


def test_chosen_has_the_order_of_the_catalogue() -> None:
    assert [one.name for one in chosen(["noise", "mask"])] == ["mask", "noise"]
    assert chosen() == DEGRADATIONS
    with pytest.raises(
        SettingsError, match="there is no degradation fog; use any of rotation, darker"
    ):
        chosen(["mask", "fog"])
