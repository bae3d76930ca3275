"""Descriptions of models, their JSON form, and standardisation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from face2vec.errors import ModelError
from face2vec.models import CATALOGUE
from face2vec.models.description import (
    FIVE_POINTS,
    INSIGHTFACE,
    ModelDescription,
    standardize,
)

LANDMARKS = ModelDescription("mine", 64, 12, "landmarks", template=FIVE_POINTS)
MARGIN = ModelDescription("box", 128, 16, "margin", margin=4, margin_size=18)


@pytest.mark.parametrize("model", [LANDMARKS, MARGIN, *CATALOGUE.values()], ids=lambda m: m.key)
def test_description_is_equal_after_json(model: ModelDescription) -> None:
    assert ModelDescription.from_json(model.to_json()) == model


@settings(deadline=None, max_examples=50)
@given(
    dimension=st.integers(1, 4096),
    size=st.integers(1, 1000),
    mean=st.floats(-1e6, 1e6),
    std=st.floats(1e-6, 1e6),
    points=st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=5, max_size=5, unique=True),
    channels=st.sampled_from(["RGB", "BGR"]),
    words=st.text(min_size=1).filter(str.strip),
)
def test_any_description_is_equal_after_json(
    dimension: int,
    size: int,
    mean: float,
    std: float,
    points: list[tuple[float, float]],
    channels: Any,
    words: str,
) -> None:
    model = ModelDescription(
        words,
        dimension,
        size,
        "landmarks",
        template=tuple(points),
        mean=mean,
        std=std,
        channels=channels,
        trained_on=words,
    )
    assert ModelDescription.from_json(model.to_json()) == model


def test_description_has_defaults_for_optional_entries() -> None:
    text = '{"dimension": 8, "input_size": 12, "alignment": "landmarks", "template": "face2vec"}'
    model = ModelDescription.from_json(text, key="small")
    assert model == ModelDescription("small", 8, 12, "landmarks", template=FIVE_POINTS)


def test_description_knows_the_template_of_insightface() -> None:
    text = json.dumps({**asdict(LANDMARKS), "template": "insightface"})
    assert ModelDescription.from_json(text).template == INSIGHTFACE
    pixels = [(round(x * 112, 4), round(y * 112, 4)) for x, y in INSIGHTFACE]
    assert pixels[0] == (38.2946, 51.6963)
    assert pixels[4] == (70.7299, 92.2041)


def test_description_takes_mean_and_deviation_of_each_channel_from_json() -> None:
    text = json.dumps({**asdict(LANDMARKS), "mean": [1, 2.5, 3], "std": [4, 5, 6]})
    model = ModelDescription.from_json(text)
    assert (model.mean, model.std) == ((1, 2.5, 3), (4, 5, 6))
    assert ModelDescription.from_json(model.to_json()) == model
    assert hash(model) == hash(replace(model))


def test_description_accepts_a_template_of_lists() -> None:
    points = [[round(x, 2), round(y, 2)] for x, y in FIVE_POINTS]
    text = json.dumps({**asdict(LANDMARKS), "template": points})
    model = ModelDescription.from_json(text)
    assert model.template == tuple((x, y) for x, y in points)
    assert hash(model) == hash(replace(model))


def test_description_ignores_the_entry_file() -> None:
    text = json.dumps({**asdict(LANDMARKS), "file": "net.onnx"})
    assert ModelDescription.from_json(text) == LANDMARKS


def test_description_names_unknown_entries_and_lists_the_allowed() -> None:
    text = json.dumps({**asdict(LANDMARKS), "colour": "RGB", "imput_size": 3})
    with pytest.raises(ModelError, match="colour, imput_size; allowed are: file,"):
        ModelDescription.from_json(text)


@pytest.mark.parametrize("name", ["dimension", "input_size", "alignment"])
def test_description_names_a_missing_entry(name: str) -> None:
    values = asdict(LANDMARKS)
    del values[name]
    with pytest.raises(ModelError, match=f"lacks: {name}; required are: dimension, input_size"):
        ModelDescription.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "model 'mine' is not JSON"),
        ("[1]", "model 'mine' must be a JSON object"),
        (
            '{"dimension": 8, "input_size": 12, "alignment": "landmarks", "template": "arc"}',
            "template 'arc' of model 'mine' is unknown",
        ),
    ],
)
def test_description_refuses_invalid_json(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelDescription.from_json(text, key="mine")


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("key", "", "a non-empty text"),
        ("dimension", 0, "above 0"),
        ("dimension", 128.0, "whole number"),
        ("dimension", True, "whole number"),
        ("input_size", -160, "above 0"),
        ("alignment", "none", "one of landmarks, margin"),
        ("alignment", ["margin"], "one of landmarks, margin"),
        ("standardization", "whiten", "one of fixed, per-image"),
        ("channels", "rgb", "one of RGB, BGR"),
        ("layout", "CHW", "one of NHWC, NCHW"),
        ("mean", float("nan"), "finite"),
        ("mean", "127.5", "finite"),
        ("mean", (1.0, 2.0), "three for R, G and B"),
        ("std", (1.0, 2.0, 0.0), "three for R, G and B"),
        ("std", 0, "above 0"),
        ("std", float("inf"), "finite"),
        ("mirror", 1, "true or false"),
        ("url", "file:///etc/passwd", "http"),
        ("sha256", "ABC", "64 lower-case"),
        ("size_bytes", 0, "above 0"),
        ("licence", " ", "a non-empty text"),
        ("lfw", 0.99, "a non-empty text"),
        ("template", FIVE_POINTS[:4], "five"),
        ("template", tuple((x * 160, y * 160) for x, y in FIVE_POINTS), "fractions"),
        ("template", ((0.5, 0.5, 0.5),) * 5, "five"),
        ("template", 5, "five"),
        ("template", (*FIVE_POINTS[:4], FIVE_POINTS[0]), "equal points"),
        ("template", None, "has no template"),
        ("margin", 3, "belong to alignment 'margin'"),
    ],
)
def test_description_refuses_an_invalid_value_and_shows_it(
    name: str, value: Any, must_be: str
) -> None:
    with pytest.raises(ModelError, match=must_be) as error:
        replace(LANDMARKS, **{name: value})
    assert name in str(error.value)
    if name != "template" or isinstance(value, int):
        assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("margin", 18, "0 to margin_size 18"),
        ("margin", -1, "0 to margin_size 18"),
        ("margin", 4.0, "whole number"),
        ("margin_size", 0, "above 0"),
        ("margin_size", 15, "at least input_size 16"),
        ("template", FIVE_POINTS, "belongs to alignment 'landmarks'"),
    ],
)
def test_margin_description_refuses_invalid_values(name: str, value: Any, must_be: str) -> None:
    with pytest.raises(ModelError, match=must_be):
        replace(MARGIN, **{name: value})


def by_the_book(image: NDArray[np.uint8], model: ModelDescription) -> NDArray[np.float64]:
    """A simple implementation of standardisation for one crop."""
    x = image.astype(np.float64)
    if model.standardization == "fixed":
        x = (x - model.mean) / model.std
    else:
        x = (x - np.mean(x)) / np.maximum(np.std(x), 1.0 / np.sqrt(x.size))
    if model.channels == "BGR":
        x = np.dstack([x[..., 2], x[..., 1], x[..., 0]])
    return np.moveaxis(x, -1, 0) if model.layout == "NCHW" else x


@pytest.mark.parametrize("standardization", ["fixed", "per-image"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_standardize_equals_a_simple_implementation(
    standardization: Any, layout: Any, channels: Any
) -> None:
    model = replace(
        LANDMARKS,
        standardization=standardization,
        layout=layout,
        channels=channels,
        mean=110.0,
        std=60.0,
    )
    crops = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), np.uint8)
    crops[1] //= 8
    kept = crops.copy()

    found = standardize(crops, model)

    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    expected = np.stack([by_the_book(crop, model) for crop in crops])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.array_equal(crops, kept)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_standardize_takes_mean_and_deviation_of_each_channel_as_rgb(
    layout: Any, channels: Any
) -> None:
    mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
    model = replace(LANDMARKS, layout=layout, channels=channels, mean=mean, std=std)
    crops = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)
    expected = (crops - np.array(mean)) / np.array(std)
    if channels == "BGR":
        expected = expected[..., ::-1]
    if layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(standardize(crops, model), expected, atol=2e-6)


def test_standardize_of_one_colour_is_zero() -> None:
    model = replace(LANDMARKS, standardization="per-image")
    crops = np.full((2, 12, 12, 3), 200, np.uint8)
    assert np.array_equal(standardize(crops, model), np.zeros((2, 12, 12, 3)))


def test_standardize_bounds_the_deviation_of_almost_one_colour() -> None:
    model = replace(LANDMARKS, standardization="per-image")
    crops = np.full((1, 12, 12, 3), 200, np.uint8)
    crops[0, 5, 5, 1] += 1
    highest = (1 - 1 / 432) * np.sqrt(432)
    np.testing.assert_allclose(standardize(crops, model).max(), highest, atol=1e-3)


def test_standardize_with_mean_0_and_std_1_keeps_pixel_values() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    model = replace(LANDMARKS, mean=0, std=1)
    assert np.array_equal(standardize(crops, model), crops)


@pytest.mark.parametrize("model", [LANDMARKS, replace(LANDMARKS, standardization="per-image")])
def test_standardize_accepts_zero_crops(model: ModelDescription) -> None:
    assert standardize(np.zeros((0, 12, 12, 3), np.uint8), model).shape == (0, 12, 12, 3)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((12, 12, 3), np.uint8),
        np.zeros((1, 13, 12, 3), np.uint8),
        np.zeros((1, 3, 12, 12), np.uint8),
        np.zeros((1, 12, 12, 3), np.float32),
    ],
)
def test_standardize_refuses_another_shape_or_dtype(crops: Any) -> None:
    with pytest.raises(ModelError, match=r"takes crops of shape \(n, 12, 12, 3\)") as error:
        standardize(crops, LANDMARKS)
    assert str(crops.shape) in str(error.value)


def test_package_exports_are_sorted_and_exist() -> None:
    import face2vec.models as package

    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
