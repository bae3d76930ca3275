from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from helpers import needs
from keras_weights import (
    Layers,
    PlainFaceNet,
    random_crops,
    random_layers,
    write_keras_2,
    write_keras_3,
)
from numpy.typing import NDArray

from face2vec.errors import ModelError, SettingsError
from face2vec.models.catalogue import CATALOGUE
from face2vec.models.description import ModelDescription, standardize
from face2vec.models.facenet import facenet_graph
from face2vec.runtime.packages import import_onnxruntime

onnxruntime = import_onnxruntime()


FIXED, PER_IMAGE = CATALOGUE["20180402-114759"], CATALOGUE["20170512-110547"]


@pytest.fixture(scope="module")
def layers() -> Layers:
    return random_layers(512)


@pytest.fixture(scope="module")
def weights(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_keras_2(tmp_path_factory.mktemp("weights") / "facenet.h5", layers)
    yield path
    path.unlink()  # 94 MB, and pytest keeps temporary folders


@pytest.fixture(scope="module")
def graph(weights: Path) -> onnx.ModelProto:
    return facenet_graph(weights, 512)


def with_bottleneck(layers: Layers, dimension: int) -> Layers:
    """Description of the same network with another dimension."""
    kernel = layers["Bottleneck"]["kernel"][:, :dimension]
    norm = {name: v[:dimension] for name, v in layers["Bottleneck_BatchNorm"].items()}
    return {**layers, "Bottleneck": {"kernel": kernel}, "Bottleneck_BatchNorm": norm}


def run(graph: onnx.ModelProto, crops: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["embeddings"], {"crops": crops})[0]


@pytest.mark.parametrize("model", [FIXED, PER_IMAGE], ids=["512 fixed", "128 per image"])
def test_graph_equals_a_plain_implementation_of_the_network(
    layers: Layers, place: Path, model: ModelDescription
) -> None:
    dimension = model.dimension
    chosen = with_bottleneck(layers, dimension)
    crops = standardize(random_crops(2), model)
    graph = facenet_graph(write_keras_2(place, chosen), dimension)

    expected = PlainFaceNet(dimension, layers=chosen).embed(crops)
    found = run(graph, crops)

    assert found.shape == (2, dimension)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.01, "the weights must tell crops apart"


def test_graph_gives_unit_vectors_for_any_batch_size(graph: onnx.ModelProto) -> None:
    crops = standardize(random_crops(5, seed=1), FIXED)
    together = run(graph, crops)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(run(graph, crops[3:4]), together[3:4], atol=1e-5)


def test_graph_of_a_zero_embedding_gives_zero_not_nan(layers: Layers, place: Path) -> None:
    silent = dict(layers)
    silent["Bottleneck"] = {"kernel": np.zeros((1792, 512), np.float32)}
    silent["Bottleneck_BatchNorm"] = {
        "beta": np.zeros(512, np.float32),
        "moving_mean": np.zeros(512, np.float32),
        "moving_variance": np.ones(512, np.float32),
    }
    graph = facenet_graph(write_keras_2(place, silent), 512)
    assert np.array_equal(run(graph, standardize(random_crops(1), FIXED)), np.zeros((1, 512)))


def test_graph_is_valid_and_has_no_foldable_nodes(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    operators = {node.op_type for node in graph.graph.node}
    assert operators.isdisjoint({"BatchNormalization", "Mul", "Cast"})
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
    assert dimensions(graph.graph.input[0]) == ["faces", 160, 160, 3]
    assert dimensions(graph.graph.output[0]) == ["faces", 512]


def dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_graph_of_equal_weights_has_equal_bytes(weights: Path) -> None:
    first, second = (facenet_graph(weights, 512).SerializeToString() for _ in range(2))
    assert first == second


def test_fp16_graph_is_half_the_size_and_close(weights: Path, graph: onnx.ModelProto) -> None:
    half = facenet_graph(weights, 512, "fp16")
    assert half.ByteSize() < 0.52 * graph.ByteSize()
    kernels = [t for t in half.graph.initializer if t.name.endswith("_kernel_fp16")]
    assert {t.data_type for t in kernels} == {onnx.TensorProto.FLOAT16}
    crops = standardize(random_crops(2), FIXED)
    np.testing.assert_allclose(run(half, crops), run(graph, crops), atol=2e-3)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, layers: write_keras_2(path, layers, suffix=""),
        lambda path, layers: write_keras_2(path, layers, group="model_weights"),
        write_keras_3,
    ],
    ids=["legacy file of keras 3", "whole model", "weights.h5 of keras 3"],
)
def test_graph_is_equal_for_every_file_layout(
    layers: Layers, graph: onnx.ModelProto, place: Path, write: Any
) -> None:
    again = facenet_graph(write(place, layers), 512)
    assert again.SerializeToString() == graph.SerializeToString()


def test_graph_refuses_another_dimension(weights: Path) -> None:
    with pytest.raises(ModelError, match="'Bottleneck'") as error:
        facenet_graph(weights, 128)
    assert "(1792, 512)" in str(error.value)
    assert "(1792, 128)" in str(error.value)
    assert str(weights) in str(error.value)


def test_graph_refuses_an_unknown_precision(weights: Path) -> None:
    with pytest.raises(SettingsError, match="'int8' must be one of fp32, fp16"):
        facenet_graph(weights, 512, "int8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "arrays", "message"),
    [
        ("Conv2d_4a_3x3", None, "'Conv2d_4a_3x3' is missing"),
        ("Block35_2_Conv2d_1x1", ["kernel"], "'Block35_2_Conv2d_1x1' has kernel, expected bias"),
        ("Bottleneck_BatchNorm", ["beta", "moving_mean"], "'Bottleneck_BatchNorm' has beta, mov"),
    ],
)
def test_graph_names_a_missing_layer_or_array(
    layers: Layers, place: Path, layer: str, arrays: list[str] | None, message: str
) -> None:
    broken = dict(layers)
    kept = broken.pop(layer)
    if arrays is not None:
        broken[layer] = {name: kept[name] for name in arrays}
    path = write_keras_2(place, broken)
    with pytest.raises(ModelError, match=message):
        facenet_graph(path, 512)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("moving_variance", -1.0, "moving_variance of -1"),
        ("moving_mean", np.nan, "not finite"),
    ],
)
def test_graph_refuses_invalid_values(
    layers: Layers, place: Path, name: str, value: float, message: str
) -> None:
    layer = "Conv2d_1a_3x3_BatchNorm"
    values = layers[layer][name].copy()
    values[3] = value
    broken = {**layers, layer: {**layers[layer], name: values}}
    path = write_keras_2(place, broken)
    with pytest.raises(ModelError, match=message):
        facenet_graph(path, 512)


def test_fp16_graph_refuses_values_beyond_float16(layers: Layers, place: Path) -> None:
    large = {"kernel": layers["Bottleneck"]["kernel"] + np.float32(1e6)}
    path = write_keras_2(place, {**layers, "Bottleneck": large})
    with pytest.raises(ModelError, match="'Bottleneck' has values beyond float16's range"):
        facenet_graph(path, 512, "fp16")


def test_graph_refuses_a_file_that_is_not_a_weights_file(tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(ModelError, match=r"cannot read .*text\.h5 as a Keras weights file"):
        facenet_graph(text, 512)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["table"] = [1, 2, 3]
    with pytest.raises(ModelError, match=r"other\.h5 is not a supported Keras weights file"):
        facenet_graph(other, 512)


def test_graph_refuses_a_truncated_weights_file(weights: Path, place: Path) -> None:
    cut = place
    cut.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(ModelError, match=r"cannot read .*w\.weights\.h5"):
        facenet_graph(cut, 512)


@pytest.fixture(scope="module")
def keras_facenet() -> Any:
    needs("keras", "tensorflow", "keras_facenet")
    import keras_facenet

    return keras_facenet


def randomised(model: Any, seed: int) -> Layers:
    """Give every weight of a Keras model a random value; return the weights by layer."""
    drawn = PlainFaceNet(0, seed=seed)
    layers: Layers = {}
    for layer in model.layers:
        names = [weight.path.rsplit("/", 1)[-1] for weight in layer.weights]
        values = [drawn.draw(n, tuple(w.shape)) for n, w in zip(names, layer.weights, strict=True)]
        layer.set_weights(values)
        if names:
            layers[layer.name] = dict(zip(names, values, strict=True))
    return layers


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dimension", [512, 128])
def test_graph_equals_keras_facenet(keras_facenet: Any, place: Path, dimension: int) -> None:
    from keras.src.legacy.saving.legacy_h5_format import load_weights_from_hdf5_group
    from keras_facenet.inception_resnet_v1 import InceptionResNetV1

    model = InceptionResNetV1(classes=dimension)
    path = write_keras_2(place, randomised(model, seed=dimension))
    randomised(model, seed=0)
    with h5py.File(path) as file:
        load_weights_from_hdf5_group(file, model)  # Keras itself reads the file that we wrote
    graph = facenet_graph(path, dimension)

    images = random_crops(4, seed=2)
    for description in (FIXED, PER_IMAGE):
        fixed = {"fixed_image_standardization": description is FIXED}
        normalize = keras_facenet.FaceNet._normalize
        crops = np.float32([normalize(SimpleNamespace(metadata=fixed), i) for i in images])
        expected = model.predict(crops, verbose=0)
        found = run(graph, standardize(images, description))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(
            PlainFaceNet(dimension, layers=randomised(model, seed=dimension)).embed(crops),
            expected,
            atol=1e-4,
        )

    model.save_weights(place)
    again = facenet_graph(place, dimension)
    assert again.SerializeToString() == graph.SerializeToString()


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
def test_catalogue_matches_keras_facenet(keras_facenet: Any) -> None:
    published = keras_facenet.metadata.MODEL_METADATA
    assert {key for key, m in CATALOGUE.items() if m.format == "keras"} == set(published)
    for key, facts in published.items():
        model = CATALOGUE[key]
        assert model.dimension == facts["dimensions"]
        assert model.input_size == facts["image_size"]
        assert model.url == facts["keras_weights_url"]
        assert model.sha256 == facts["keras_weights_sha256"]
        assert (model.standardization == "fixed") == facts["fixed_image_standardization"]
