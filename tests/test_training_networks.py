from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy, gradients
from keras_weights import Layers, PlainFaceNet, convolve, write_keras_2
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from face2vec.errors import ModelError, SettingsError

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),  # Keras' calls of numpy
]

Array = NDArray[np.float32]

OF_THE_PAPER = ("nn1", "nn2", "nn3", "nn4", "nns1", "nns2")
UNIT_LENGTH = (*OF_THE_PAPER, "inception_resnet_v1")

PUBLISHED = {  # parameters, multiply-adds; None: not published
    "nn1": (140e6, 1.6e9),
    "nn2": (7.5e6, 1.6e9),
    "nn3": (7.5e6, None),
    "nn4": (6.6e6, 285e6),  # the smallest of "around 6.6M-7.5M"
    "nns1": (26e6, 220e6),
    "nns2": (4.3e6, 20e6),
}

TABLE_2 = {  # the layer at the end of each row, parameters, multiply-adds
    "1_pool": (9e3, 119e6),
    "2_pool": (115e3, 360e6),
    "3a": (164e3, 128e6),
    "3b": (228e3, 179e6),
    "3c": (398e3, 108e6),
    "4a": (545e3, 107e6),
    "4b": (595e3, 117e6),
    "4c": (654e3, 128e6),
    "4d": (722e3, 142e6),
    "4e": (717e3, 56e6),
    "5a": (1.6e6, 78e6),
    "5b": (1.6e6, 78e6),
    "embedding": (131e3, 0.1e6),
}


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    needs("train", "keras")
    from face2vec.training import networks

    return networks


@functools.cache
def built(name: str) -> Any:
    """One network each for all the tests that do not change its weights."""
    from face2vec.training import networks

    return networks.build(name)


def embed(network: Any, images: Array) -> Array:
    return as_numpy(network(images, training=False))


def crops(network: Any, n: int, *, seed: int = 0) -> Array:
    shape = (n, *network.input_shape[1:])
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# --- what they cost -------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_cost_is_what_the_paper_says(networks: ModuleType, name: str) -> None:
    parameters, multiply_adds = PUBLISHED[name]
    found = networks.cost(built(name))
    assert found.parameters == pytest.approx(parameters, rel=0.01)
    if multiply_adds is not None:
        assert found.multiply_adds == pytest.approx(multiply_adds, rel=0.015)


def test_every_row_of_table_2_costs_what_it_says(networks: ModuleType) -> None:
    import keras

    nn2 = built("nn2")
    before = networks.Cost(0, 0)
    for layer, (parameters, multiply_adds) in TABLE_2.items():
        until = networks.cost(keras.Model(nn2.inputs, nn2.get_layer(layer).output))
        row = [now - then for now, then in zip(until, before, strict=True)]
        assert row[0] == pytest.approx(parameters, rel=0.01, abs=500), layer
        assert row[1] == pytest.approx(multiply_adds, rel=0.01, abs=50e3), layer
        before = until
    assert before == networks.cost(nn2)


def test_table_of_costs(networks: ModuleType) -> None:
    """The figures themselves, so that no network changes unseen."""
    found = {name: tuple(networks.cost(built(name))) for name in (*UNIT_LENGTH, "mini")}
    assert found == {
        "nn1": (140_025_664, 1_605_944_064),
        "nn2": (7_456_304, 1_596_530_688),
        "nn3": (7_456_304, 814_620_672),
        "nn4": (6_607_888, 284_741_632),
        "nns1": (25_830_704, 221_321_824),
        "nns2": (4_308_480, 20_277_536),
        "inception_resnet_v1": (22_779_312, 1_416_974_176),
        "mini": (1_607_968, 201_661_440),
    }


def test_cost_counts_every_kind_of_layer(networks: ModuleType) -> None:
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((5, 4, 8)), layers.Conv2D(6, (1, 3), use_bias=False)])
    network = keras.Sequential(
        [
            keras.Input((10, 8, 4)),
            layers.Conv2D(8, 3, strides=2, padding="same", groups=2),
            layers.BatchNormalization(),
            layers.PReLU(shared_axes=[1, 2]),
            inner,
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.SeparableConv2D(7, 2),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    assert networks.cost(network) == networks.Cost(
        parameters=sum(
            (
                3 * 3 * 2 * 8 + 8,
                2 * 8,
                8,
                3 * 8 * 6,
                9 * 12 + 12,
                4 * 12 + 12 * 7 + 7,
                4 * 1 * 7 * 5 + 5,
            )
        ),
        multiply_adds=sum(
            (
                5 * 4 * (3 * 3 * 2 * 8),
                5 * 2 * (3 * 8 * 6),
                5 * 2 * (9 * 12),
                4 * 1 * (4 * 12 + 12 * 7),
                4 * 1 * 7 * 5,
            )
        ),
    )


def test_cost_refuses_what_it_cannot_count(networks: ModuleType) -> None:
    import keras
    from keras import layers

    up = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2DTranspose(3, 3, name="up")])
    with pytest.raises(SettingsError, match="layer 'up', a Conv2DTranspose"):
        networks.cost(up)
    any_size = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(3, 3)])
    with pytest.raises(SettingsError, match="has no fixed input size"):
        networks.cost(any_size)


# --- what they compute ----------------------------------------------------------------------


@pytest.mark.parametrize("name", UNIT_LENGTH)
def test_network_gives_finite_unit_vectors(networks: ModuleType, name: str) -> None:
    network = built(name)
    embeddings = embed(network, crops(network, 2))
    assert embeddings.shape == (2, 128)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-6


def test_mini_gives_embeddings_of_any_length(networks: ModuleType) -> None:
    network = built("mini")
    embeddings = embed(network, crops(network, 2))
    assert embeddings.shape == (2, 256)
    assert np.isfinite(embeddings).all()
    side = network.input_shape[1]
    assert networks.build("mini", 64, side).output_shape == (None, 64)
    with pytest.raises(
        SettingsError, match=rf"must be \({side}, {side}\) for mini, not \(96, 97\)"
    ):
        networks.build("mini", 64, (96, 97))


def test_stages_of_mini_are_where_its_teachers_are(networks: ModuleType) -> None:
    shapes = [built("mini").get_layer(name).output.shape[1:] for name in networks.stages("mini")]
    assert shapes == [(24, 24, 64)] * 3 + [(12, 12, 128)] * 4 + [(6, 6, 128)] * 2


@pytest.mark.parametrize("name", [*UNIT_LENGTH, "mini"])
def test_gradient_reaches_every_trainable_weight(networks: ModuleType, name: str) -> None:
    from keras import ops

    network = built(name)
    images = crops(network, 3)
    target = np.random.default_rng(1).standard_normal(network.output_shape[-1]).astype(np.float32)
    found = gradients(
        lambda: ops.mean(ops.square(ops.subtract(network(images, training=True), target))),
        network.trainable_variables,
    )
    for variable, slope in zip(network.trainable_variables, found, strict=True):
        assert np.isfinite(slope).all(), variable.path
        assert slope.any(), variable.path


def test_l2_pool_is_the_length_of_the_values_around_each_place(networks: ModuleType) -> None:
    import keras

    from face2vec.training.layers import l2_pool

    x = np.random.default_rng(4).standard_normal((2, 5, 4, 3)).astype(np.float32)
    expected = np.zeros_like(x)
    for row in range(5):
        for column in range(4):
            around = x[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected[:, row, column] = np.sqrt((around**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(as_numpy(l2_pool(x)), expected, atol=1e-5)

    zeros = keras.Variable(np.zeros((1, 3, 3, 2)))
    (slope,) = gradients(lambda: keras.ops.sum(l2_pool(zeros)), [zeros])
    assert np.isfinite(slope).all()


def test_inception_computes_what_the_paper_describes(networks: ModuleType) -> None:
    from face2vec.training.inception import Module, Plan, network

    plan = Plan(
        (4, 5, 6),
        (
            Module("a", 3, (4, 5), (2, 3), "l2", 4),
            Module("b", 0, (3, 4), (2, 5), "max", 0, stride=2),
            Module("c", 4, (3, 5), None, "max", 3),
        ),
    )
    for hidden in (0, 9):
        ours = network(plan._replace(hidden=hidden), "small", (44, 37), 7)
        plain = PlainInception(randomise(ours, seed=5))
        images = crops(ours, 3, seed=6)
        np.testing.assert_allclose(
            embed(ours, images), plain.embed(images, hidden=bool(hidden)), atol=1e-5
        )


class PlainInception:
    """The network of the test above, in numpy."""

    def __init__(self, weights: dict[str, dict[str, Array]]) -> None:
        self.weights = weights

    def embed(self, x: Array, *, hidden: bool) -> Array:
        x = max_pool(self.conv(x, "1_7x7", stride=2), stride=2)
        x = max_pool(self.conv(self.conv(x, "2_3x3_reduce"), "2_3x3"), stride=2)
        x = np.concatenate(
            [
                self.conv(x, "a_1x1"),
                self.conv(self.conv(x, "a_3x3_reduce"), "a_3x3"),
                self.conv(self.conv(x, "a_5x5_reduce"), "a_5x5"),
                self.conv(l2_pool(x), "a_project"),
            ],
            axis=-1,
        )
        x = np.concatenate(
            [
                self.conv(self.conv(x, "b_3x3_reduce"), "b_3x3", stride=2),
                self.conv(self.conv(x, "b_5x5_reduce"), "b_5x5", stride=2),
                max_pool(x, stride=2),
            ],
            axis=-1,
        )
        x = np.concatenate(
            [
                self.conv(x, "c_1x1"),
                self.conv(self.conv(x, "c_3x3_reduce"), "c_3x3"),
                self.conv(max_pool(x, stride=1), "c_project"),
            ],
            axis=-1,
        )
        if hidden:
            x = x.reshape(len(x), -1) @ self.weights["hidden"]["kernel"]
            x = np.maximum(self.normalised(x, "hidden"), 0)
        else:
            x = x.mean(axis=(1, 2))
        x = x @ self.weights["embedding"]["kernel"] + self.weights["embedding"]["bias"]
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def conv(self, x: Array, layer: str, stride: int = 1) -> Array:
        kernel = self.weights[layer]["kernel"]
        x = convolve(padded(x, kernel.shape[0], stride, 0), kernel, stride)
        return np.maximum(self.normalised(x, layer), 0)

    def normalised(self, x: Array, layer: str) -> Array:
        w = self.weights[f"{layer}_BatchNorm"]
        return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 0.001) + w["beta"]


def padded(x: Array, size: int, stride: int, value: float) -> Array:
    """Enough around ``x`` that a stride of s leaves ⌈n/s⌉ places, the odd one after."""
    widths = [(0, 0)]
    for n in x.shape[1:3]:
        missing = max((-(-n // stride) - 1) * stride + size - n, 0)
        widths.append((missing // 2, missing - missing // 2))
    return np.pad(x, [*widths, (0, 0)], constant_values=value)


def max_pool(x: Array, stride: int) -> Array:
    windows = sliding_window_view(padded(x, 3, stride, -np.inf), (3, 3), axis=(1, 2))
    return windows[:, ::stride, ::stride].max(axis=(-1, -2))


def l2_pool(x: Array) -> Array:
    windows = sliding_window_view(padded(x, 3, 1, 0), (3, 3), axis=(1, 2))
    return np.sqrt((windows**2).sum(axis=(-1, -2)) + 1e-6)


def randomise(network: Any, seed: int) -> Layers:
    """Give every weight a random value; returns them by layer and name."""
    drawn = PlainFaceNet(0, seed=seed)
    values: Layers = {}
    for layer in network.layers:
        if layer.weights:
            values[layer.name] = {w.name: drawn.draw(w.name, tuple(w.shape)) for w in layer.weights}
            for weight in layer.weights:
                weight.assign(values[layer.name][weight.name])
    return values


def test_nn4_and_nn3_differ_from_nn2_as_the_paper_says(networks: ModuleType) -> None:
    def names(network: Any) -> set[str]:
        return {layer.name for layer in network.layers if layer.weights}

    nn2 = names(built("nn2"))
    assert names(built("nn3")) == nn2
    assert nn2 - names(built("nn4")) == {
        f"{module}_5x5{part}"
        for module in ("4e", "5a", "5b")
        for part in ("", "_BatchNorm", "_reduce", "_reduce_BatchNorm")
    }
    assert not names(built("nn4")) - nn2


def test_nn2_pools_as_table_2_says(networks: ModuleType) -> None:
    assert {layer.name for layer in built("nn2").layers if layer.name.endswith("_pool")} == {
        "1_pool", "2_pool", "3a_pool", "3c_pool", "4e_pool", "5b_pool"
    }  # fmt: skip
    of_all_others = ["3b", "4a", "4b", "4c", "4d", "5a"]
    squares = [layer for layer in built("nn2").layers if type(layer).__name__ == "ZeroPadding2D"]
    assert len(squares) == len(of_all_others)


# --- Inception-ResNet-v1 --------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> Any:
    needs("keras", "tensorflow", "keras_facenet")
    from keras_facenet.inception_resnet_v1 import InceptionResNetV1

    return InceptionResNetV1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # keras-facenet's
def test_inception_resnet_gives_the_embeddings_of_keras_facenet(
    networks: ModuleType, reference: Any
) -> None:
    theirs = reference(classes=512)
    ours = networks.build("inception_resnet_v1", 512)
    values = randomise(ours, seed=11)
    for layer in theirs.layers:
        if layer.weights:
            of_layer = values.pop(layer.name)
            layer.set_weights([of_layer[w.name] for w in layer.weights])
    assert not values
    images = crops(ours, 3, seed=12)
    expected = embed(theirs, images)
    np.testing.assert_allclose(embed(ours, images), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.fixture(scope="module")
def small(networks: ModuleType) -> Any:
    return networks.build("inception_resnet_v1", 128, 80)


@pytest.fixture(scope="module")
def stored(small: Any) -> Layers:
    return randomise(small, seed=21)


@pytest.fixture(scope="module")
def weights(stored: Layers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_keras_2(tmp_path_factory.mktemp("weights") / "facenet.h5", stored)
    yield path
    path.unlink()  # 91 MB, and pytest keeps folders


@pytest.mark.slow
def test_facenet_weights_give_facenet_embeddings(
    networks: ModuleType, small: Any, stored: Layers, weights: Path, place: Path
) -> None:
    images = crops(small, 2, seed=22)
    expected = PlainFaceNet(128, layers=stored).embed(images)
    small.set_weights([np.zeros(w.shape) for w in small.weights])
    networks.load_facenet_weights(small, weights)
    np.testing.assert_allclose(embed(small, images), expected, atol=1e-5)

    small.save_weights(place)
    small.set_weights([np.zeros(w.shape) for w in small.weights])
    networks.load_facenet_weights(small, place)
    np.testing.assert_allclose(embed(small, images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "arrays", "message"),
    [
        ("Bottleneck", None, r"only one of the two has 'Bottleneck'$"),
        ("Neck", {"kernel": np.zeros((2, 2))}, r"only one of the two has 'Neck'$"),
        (
            "Conv2d_3b_1x1",
            {"kernel": np.zeros((1, 1, 64, 81))},
            r"'Conv2d_3b_1x1' has shape \(1, 1, 64, 81\), the network's has \(1, 1, 64, 80\)",
        ),
        (
            "Block8_6_Conv2d_1x1",
            {"kernel": np.zeros((1, 1, 384, 1792))},
            r"'Block8_6_Conv2d_1x1' holds kernel, expected bias, kernel",
        ),
        (
            "Bottleneck",
            {"kernel": np.full((1792, 128), np.nan)},
            r"kernel of layer 'Bottleneck' holds values that are not finite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    networks: ModuleType,
    small: Any,
    weights: Path,
    place: Path,
    layer: str,
    arrays: dict[str, Array] | None,
    message: str,
) -> None:
    shutil.copyfile(weights, place)
    with h5py.File(place, "r+") as file:
        others = [name for name in file.attrs["layer_names"] if name != layer]
        file.attrs["layer_names"] = others if arrays is None else [*others, layer]
        if arrays is not None:
            group = file.require_group(layer)
            group.attrs["weight_names"] = [f"changed/{name}:0" for name in arrays]
            for name, values in arrays.items():
                group[f"changed/{name}:0"] = values
    small.set_weights([np.full(w.shape, 0.5) for w in small.weights])
    with pytest.raises(ModelError, match=message):
        networks.load_facenet_weights(small, place)
    assert all((as_numpy(w) == 0.5).all() for w in small.weights)


def test_weights_of_another_network_or_no_weights_are_refused(
    networks: ModuleType, weights: Path, place: Path
) -> None:
    with pytest.raises(
        ModelError, match=r"differ from those of 'nns2'; only one of the two has .* more$"
    ):
        networks.load_facenet_weights(built("nns2"), weights)
    place.write_text("not HDF5")
    with pytest.raises(ModelError, match=r"cannot read .*w\.weights\.h5 as a Keras weights"):
        networks.load_facenet_weights(built("nns2"), place)


# --- building -------------------------------------------------------------------------------


def test_build_takes_dimension_and_size(networks: ModuleType) -> None:
    assert built("nns2").input_shape == (None, 140, 116, 3)
    other = networks.build("nns2", 64, (70, 58))
    assert (other.input_shape, other.output_shape) == ((None, 70, 58, 3), (None, 64))
    square = networks.build("nns2", input_size=64)
    assert (square.input_shape, square.output_shape) == ((None, 64, 64, 3), (None, 128))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nn9",), r"unknown network 'nn9'; choose one of nn1, nn2, nn3, nn4, nns1, nns2, "),
        (("nn2", 0), r"dimension must be at least 1, not 0"),
        (("nn2", 128, 31), r"input_size must be at least 32 for nn2, not 31"),
        (
            ("inception_resnet_v1", 128, (160, 79)),
            r"at least 80 for inception_resnet_v1, not \(160, 79\)",
        ),
    ],
)
def test_build_refuses_what_cannot_be(
    networks: ModuleType, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        networks.build(*arguments)


def test_build_refuses_channels_first(networks: ModuleType) -> None:
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(SettingsError, match="channels_first"):
            networks.build("nns2")
    finally:
        keras.config.set_image_data_format("channels_last")


def test_saved_network_gives_the_same_embeddings(networks: ModuleType, tmp_path: Path) -> None:
    import keras

    network = networks.build("nns2")
    randomise(network, seed=31)
    network.save(tmp_path / "nns2.keras")
    again = keras.models.load_model(tmp_path / "nns2.keras")
    images = crops(network, 2)
    np.testing.assert_array_equal(embed(again, images), embed(network, images))


def test_embeddings_are_float32_in_mixed_precision(networks: ModuleType) -> None:
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = networks.build("nns2")
    finally:
        keras.config.set_dtype_policy("float32")
    embeddings = embed(network, crops(network, 2))
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
