from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy
from numpy.typing import NDArray

from face2vec.errors import ModelError
from face2vec.runtime.packages import import_onnxruntime

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),  # Keras' calls of numpy
]

Array = NDArray[np.float32]
SIZES = {"nn2": 64, "nn3": 80, "nn4": 75, "nns1": 65, "nns2": (70, 58), "inception_resnet_v1": 80,
         "mini": None}  # fmt: skip


@pytest.fixture(scope="module")
def graphs() -> ModuleType:
    needs("train", "keras")
    from face2vec.training import onnx_graph

    return onnx_graph


def varied(network: Any, seed: int) -> Any:
    """The network with biases and normalisations as if it had been trained."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        for weight in layer.weights:
            if len(weight.shape) == 1:
                positive = weight.name in ("moving_variance", "gamma")
                low, high = (0.5, 2.0) if positive else (-0.3, 0.3)
                weight.assign(rng.uniform(low, high, weight.shape).astype(np.float32))
            elif "Depthwise" in type(layer).__name__:  # Keras draws these so that all goes to 0
                weight.assign(0.4 * rng.standard_normal(weight.shape, np.float32))
    return network


def both(graphs: ModuleType, network: Any) -> tuple[Array, Array]:
    """What Keras and what ONNX Runtime give for the same random crops."""
    import onnx

    onnxruntime = import_onnxruntime()

    images = np.random.default_rng(1).standard_normal((3, *network.input_shape[1:]), np.float32)
    model = graphs.onnx_graph(network)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.run(["embeddings"], {"crops": images})
    return as_numpy(network(images, training=False)), given


@pytest.mark.parametrize("name", SIZES)
def test_graph_of_each_network_gives_what_keras_gives(graphs: ModuleType, name: str) -> None:
    from face2vec.training import networks

    network = varied(networks.build(name, 48, SIZES[name]), seed=2)
    wanted, given = both(graphs, network)
    spread = wanted.std(axis=0).mean()  # between crops, which is what an embedding is for
    assert spread > 1e-4
    assert np.abs(given - wanted).max() < 1e-3 * spread + 1e-6


def test_graph_is_the_same_bytes_each_time(graphs: ModuleType) -> None:
    from face2vec.training import networks

    network = networks.build("nns2", 16, 48)
    first, second = (graphs.onnx_graph(network).SerializeToString() for _ in range(2))
    assert first == second


def test_graph_leaves_nothing_between_convolution_and_activation(graphs: ModuleType) -> None:
    from face2vec.training import networks

    kinds = [node.op_type for node in graphs.onnx_graph(networks.build("mini")).graph.node]
    assert not {"BatchNormalization", "Pad"} & set(kinds)
    assert kinds.count("Transpose") == 1
    assert all(
        after in ("LeakyRelu", "GlobalAveragePool", "Add", "Conv", "Flatten")
        for before, after in pairwise(kinds)
        if before == "Conv"
    )


def layers_in_a_row(*parts: Any, size: tuple[int, int] = (9, 12)) -> Any:
    import keras

    crops = keras.Input((*size, 3))
    x = crops
    for part in parts:
        x = part(x)
    return keras.Model(crops, x, name="row")


def test_borders_are_where_keras_has_them(graphs: ModuleType) -> None:
    from keras import layers

    network = layers_in_a_row(
        layers.Conv2D(5, (3, 2), strides=2, padding="same"),  # odd and even lengths
        layers.ZeroPadding2D(((1, 2), (3, 0))),
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.AveragePooling2D(2, strides=1, padding="same"),
        layers.MaxPooling2D(3, 2, padding="same"),
        layers.Flatten(),
        layers.Dense(7, activation="sigmoid"),
    )
    wanted, given = both(graphs, varied(network, seed=3))
    assert wanted.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(given, wanted, atol=1e-6)


def cannot_be_written() -> dict[str, tuple[Callable[[Any], list[Any]], str]]:
    return {
        "layer": (lambda k: [k.PReLU(name="odd"), k.Flatten()], "'odd', a PReLU, of the network"),
        "activation": (lambda k: [k.Flatten(), k.Dense(2, "tanh", name="odd")], "'tanh'"),
        "norm": (lambda k: [k.BatchNormalization(name="odd"), k.Flatten()], "'odd' does not"),
        "norm after activation": (
            lambda k: [k.Conv2D(2, 1, activation="relu"), k.BatchNormalization(name="odd")],
            "'odd' does not follow",
        ),
        "border": (lambda k: [k.ZeroPadding2D(1), k.ReLU(), k.Flatten()], "padding of"),
        "zeros in a maximum": (lambda k: [k.ZeroPadding2D(1), k.MaxPooling2D()], "padding of"),
        "shape": (lambda k: [k.Reshape((12, 9, 3), name="odd"), k.Flatten()], "output shape"),
        "filters": (lambda k: [k.DepthwiseConv2D(3, depth_multiplier=2, name="odd")], "several"),
    }  # fmt: skip


@pytest.mark.parametrize("what", cannot_be_written())
def test_what_cannot_be_written_is_refused_in_words(graphs: ModuleType, what: str) -> None:
    from keras import layers

    parts, words = cannot_be_written()[what]
    with pytest.raises(ModelError, match=words):
        graphs.onnx_graph(layers_in_a_row(*parts(layers)))
