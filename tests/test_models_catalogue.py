"""The catalogue: what is published about each model, and the calibrations of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from face2vec.calibration import Calibration
from face2vec.errors import Face2VecError, UnknownModelError
from face2vec.models import CATALOGUE, DEFAULT_MODEL, find_model
from face2vec.models.catalogue import size_in_words, terms_in_words
from face2vec.models.description import INSIGHTFACE
from face2vec.models.store import SHIPPED, shipped_calibration

ONNX_FILES = {
    "arcface-mobilefacenet": ("w600k_mbf.onnx", 512, "RGB", 127.5, 127.5, "0.9970"),
    "arcface-r50": ("w600k_r50.onnx", 512, "RGB", 127.5, 127.5, "0.9983"),
    "adaface-ir18": ("adaface_ir_18.onnx", 512, "BGR", 127.5, 127.5, "0.9953"),
    "adaface-ir101": ("adaface_ir_101.onnx", 512, "BGR", 127.5, 127.5, "0.9982"),
    "edgeface-xxs": ("edgeface_xxs.onnx", 512, "RGB", 127.5, 127.5, "0.9957"),
    "edgeface-xs": ("edgeface_xs_gamma_06.onnx", 512, "RGB", 127.5, 127.5, "0.9973"),
    "edgeface-s": ("edgeface_s_gamma_05.onnx", 512, "RGB", 127.5, 127.5, "0.9978"),
    "edgeface-base": ("edgeface_base.onnx", 512, "RGB", 127.5, 127.5, "0.9983"),
    "sface": ("face_recognition_sface_2021dec.onnx", 128, "RGB", 0.0, 1.0, "0.9940"),
}
"""File, dimension, channels, mean, deviation and LFW accuracy as their makers publish them."""


@pytest.mark.parametrize("key", ONNX_FILES)
def test_catalogue_matches_a_published_onnx_file(key: str) -> None:
    model = CATALOGUE[key]
    file, dimension, channels, mean, std, lfw = ONNX_FILES[key]
    assert model.key == key
    assert (model.url or "").endswith(f"/{file}")
    assert (model.url or "").startswith("https://")
    assert (model.format, model.layout, model.input_size) == ("onnx", "NCHW", 112)
    assert (model.alignment, model.template) == ("landmarks", INSIGHTFACE)
    assert (model.dimension, model.channels, model.mean, model.std) == (
        dimension,
        channels,
        mean,
        std,
    )
    assert (model.standardization, model.mirror) == ("fixed", False)
    assert (model.lfw or "").startswith(f"{lfw}, published in the README of ")


def test_catalogue_has_these_models_and_no_file_twice() -> None:
    keras = [key for key, model in CATALOGUE.items() if model.format == "keras"]
    assert list(CATALOGUE) == [DEFAULT_MODEL, "mini", *keras, *ONNX_FILES]
    assert len({model.sha256 for model in CATALOGUE.values()}) == len(CATALOGUE)
    files = [model.url.rpartition("/")[2] for model in CATALOGUE.values() if model.url]
    assert len(set(files)) == len(files)  # they lie in one folder


@pytest.mark.parametrize("key", CATALOGUE)
def test_catalogue_states_terms_and_the_source_of_a_figure(key: str) -> None:
    model = CATALOGUE[key]
    assert model.sha256 is not None
    for text in (model.licence, model.commercial_use, model.lfw):
        assert text != "not stated"
    figure, _, source = (model.lfw or "").partition(", ")
    assert 0.98 < float(figure) < 1
    assert source.startswith(("published ", "measured by this project"))
    terms = terms_in_words(model)
    for part in (key, model.licence, model.trained_on, model.commercial_use):
        assert part in terms
    assert "\n" not in terms


def test_size_in_words_marks_estimates() -> None:
    sizes = {key: size_in_words(model) for key, model in CATALOGUE.items()}
    assert sizes["mini"] == "3.2 MB"
    assert sizes["arcface-r50"] == "174.4 MB"
    assert sizes["20180402-114759"] == "~94 MB"
    assert sizes["adaface-ir18"] == "~92 MB"
    for key, words in sizes.items():
        assert words.startswith("~") == (CATALOGUE[key].size_bytes is None)


def test_shipped_calibrations_were_fitted_on_the_weights_of_the_catalogue() -> None:
    keys = [path.name.removesuffix(".calibration.json") for path in calibrations()]
    assert set(keys) == {DEFAULT_MODEL, "mini"}
    for key in keys:
        fitted = shipped_calibration(key)
        assert isinstance(fitted, Calibration)
        assert (fitted.model, fitted.weights) == (key, CATALOGUE[key].sha256)
    assert shipped_calibration("edgeface-xs") is None
    assert shipped_calibration("no such model") is None


def calibrations() -> list[Path]:
    return sorted(SHIPPED.glob("*.calibration.json"))


def test_catalogue_matches_the_weights_of_keras_facenet() -> None:
    published = {key: m for key, m in CATALOGUE.items() if m.format == "keras"}
    assert {key: (m.dimension, m.standardization) for key, m in published.items()} == {
        "20180402-114759": (512, "fixed"),
        "20180408-102900": (512, "fixed"),
        "20170511-185253": (128, "per-image"),
        "20170512-110547": (128, "per-image"),
    }
    for key, model in published.items():
        assert model.key == key
        assert model.url is not None
        assert model.url.endswith(f"/v0.3.1/{key}-weights.h5")
        assert (model.input_size, model.alignment) == (160, "margin")
        assert (model.margin, model.margin_size) == (44, 182)
        assert (model.mean, model.std, model.channels, model.layout) == (
            127.5,
            127.5,
            "RGB",
            "NHWC",
        )
        assert model.trained_on in model.commercial_use


def test_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOGUE["mine"] = CATALOGUE["mini"]  # type: ignore[index]


def test_find_model_returns_the_description_of_a_key() -> None:
    assert find_model("20180402-114759") is CATALOGUE["20180402-114759"]


def test_default_model_needs_no_download() -> None:
    assert find_model(DEFAULT_MODEL).url is None


def test_find_model_lists_the_keys_and_suggests_one() -> None:
    with pytest.raises(UnknownModelError, match="did you mean '20180402-114759'") as error:
        find_model("20180402-114795")
    assert all(key in str(error.value) for key in CATALOGUE)
    with pytest.raises(UnknownModelError) as error:
        find_model("resnet")
    assert "did you mean" not in str(error.value)
    assert isinstance(error.value, Face2VecError)
