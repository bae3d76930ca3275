"""FaceNet's Inception-ResNet-v1 as an ONNX graph, built from a Keras weights file.

The network is that of Szegedy et al., "Inception-v4, Inception-ResNet and
the Impact of Residual Connections on Learning" (2016), in the variant for which
keras-facenet publishes weights. Batch normalisation is folded into the
convolutions, and residual scales into the 1×1 convolutions before them.
Only convolutions, sums, ReLUs and pooling remain.

A change of the resulting graph requires a higher BUILDER_VERSION in store.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from face2vec.errors import ModelError
from face2vec.models.description import Precision, check_precision
from face2vec.runtime.onnx_graph import GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INPUT_SIZE = 160
BATCH_NORM_EPSILON = 1e-3
NORMALIZE_EPSILON = 1e-12  # of the squared length, as in Keras' l2_normalize

Array = NDArray[np.float32]


class _Tensor(NamedTuple):
    """A value in the graph: its name and its number of channels."""

    name: str
    channels: int


def facenet_graph(weights: Path, dimension: int, precision: Precision = "fp32") -> onnx.ModelProto:
    """Build the network's ONNX graph from a Keras weights file.

    Args:
        weights: HDF5 file of keras-facenet's network: the Keras 2 layout (as
            published), a whole model saved as HDF5, or Keras 3's ``.weights.h5``.
        dimension: dimension of an embedding.
        precision: ``"fp16"`` stores the kernels as float16, which halves the
            file; the computation is float32 either way.

    Returns:
        A model with the input ``crops``, float32 (n, 160, 160, 3), standardised
        RGB, and the output ``embeddings``, float32 (n, dimension), unit vectors.

    Raises:
        ModelError: the file cannot be read, or a layer is missing or has an unexpected shape.
        SettingsError: the precision is not supported.
    """
    check_precision(precision)
    graph = _Graph(_Weights(weights), precision)
    embeddings = _network(graph, dimension)
    return graph.to_model(embeddings)


def _network(graph: _Graph, dimension: int) -> _Tensor:
    """Add Inception-ResNet-v1, from standardised crops to unit vectors."""
    x = graph.node("Transpose", [_Tensor("crops", 3)], 3, perm=[0, 3, 1, 2])

    x = graph.conv(x, "Conv2d_1a_3x3", 32, (3, 3), stride=2)
    x = graph.conv(x, "Conv2d_2a_3x3", 32, (3, 3), same=False)
    x = graph.conv(x, "Conv2d_2b_3x3", 64, (3, 3))
    x = graph.max_pool(x)
    x = graph.conv(x, "Conv2d_3b_1x1", 80, (1, 1))
    x = graph.conv(x, "Conv2d_4a_3x3", 192, (3, 3), same=False)
    x = graph.conv(x, "Conv2d_4b_3x3", 256, (3, 3), stride=2)

    for i in range(1, 6):
        x = _block35(graph, x, f"Block35_{i}")
    x = _mixed_6a(graph, x)
    for i in range(1, 11):
        x = _block17(graph, x, f"Block17_{i}")
    x = _mixed_7a(graph, x)
    for i in range(1, 6):
        x = _block8(graph, x, f"Block8_{i}", scale=0.20)
    x = _block8(graph, x, "Block8_6", scale=1.0, relu=False)

    x = graph.node("GlobalAveragePool", [x], x.channels)
    x = graph.node("Flatten", [x], x.channels)
    x = graph.dense(x, "Bottleneck", dimension)
    return graph.unit_length(x)


def _block35(graph: _Graph, x: _Tensor, block: str) -> _Tensor:
    a = graph.conv(x, f"{block}_Branch_0_Conv2d_1x1", 32, (1, 1))
    b = graph.conv(x, f"{block}_Branch_1_Conv2d_0a_1x1", 32, (1, 1))
    b = graph.conv(b, f"{block}_Branch_1_Conv2d_0b_3x3", 32, (3, 3))
    c = graph.conv(x, f"{block}_Branch_2_Conv2d_0a_1x1", 32, (1, 1))
    c = graph.conv(c, f"{block}_Branch_2_Conv2d_0b_3x3", 32, (3, 3))
    c = graph.conv(c, f"{block}_Branch_2_Conv2d_0c_3x3", 32, (3, 3))
    return graph.residual(x, [a, b, c], f"{block}_Conv2d_1x1", scale=0.17)


def _block17(graph: _Graph, x: _Tensor, block: str) -> _Tensor:
    a = graph.conv(x, f"{block}_Branch_0_Conv2d_1x1", 128, (1, 1))
    b = graph.conv(x, f"{block}_Branch_1_Conv2d_0a_1x1", 128, (1, 1))
    b = graph.conv(b, f"{block}_Branch_1_Conv2d_0b_1x7", 128, (1, 7))
    b = graph.conv(b, f"{block}_Branch_1_Conv2d_0c_7x1", 128, (7, 1))
    return graph.residual(x, [a, b], f"{block}_Conv2d_1x1", scale=0.10)


def _block8(graph: _Graph, x: _Tensor, block: str, *, scale: float, relu: bool = True) -> _Tensor:
    a = graph.conv(x, f"{block}_Branch_0_Conv2d_1x1", 192, (1, 1))
    b = graph.conv(x, f"{block}_Branch_1_Conv2d_0a_1x1", 192, (1, 1))
    b = graph.conv(b, f"{block}_Branch_1_Conv2d_0b_1x3", 192, (1, 3))
    b = graph.conv(b, f"{block}_Branch_1_Conv2d_0c_3x1", 192, (3, 1))
    return graph.residual(x, [a, b], f"{block}_Conv2d_1x1", scale=scale, relu=relu)


def _mixed_6a(graph: _Graph, x: _Tensor) -> _Tensor:
    a = graph.conv(x, "Mixed_6a_Branch_0_Conv2d_1a_3x3", 384, (3, 3), stride=2)
    b = graph.conv(x, "Mixed_6a_Branch_1_Conv2d_0a_1x1", 192, (1, 1))
    b = graph.conv(b, "Mixed_6a_Branch_1_Conv2d_0b_3x3", 192, (3, 3))
    b = graph.conv(b, "Mixed_6a_Branch_1_Conv2d_1a_3x3", 256, (3, 3), stride=2)
    return graph.concat([a, b, graph.max_pool(x)])


def _mixed_7a(graph: _Graph, x: _Tensor) -> _Tensor:
    a = graph.conv(x, "Mixed_7a_Branch_0_Conv2d_0a_1x1", 256, (1, 1))
    a = graph.conv(a, "Mixed_7a_Branch_0_Conv2d_1a_3x3", 384, (3, 3), stride=2)
    b = graph.conv(x, "Mixed_7a_Branch_1_Conv2d_0a_1x1", 256, (1, 1))
    b = graph.conv(b, "Mixed_7a_Branch_1_Conv2d_1a_3x3", 256, (3, 3), stride=2)
    c = graph.conv(x, "Mixed_7a_Branch_2_Conv2d_0a_1x1", 256, (1, 1))
    c = graph.conv(c, "Mixed_7a_Branch_2_Conv2d_0b_3x3", 256, (3, 3))
    c = graph.conv(c, "Mixed_7a_Branch_2_Conv2d_1a_3x3", 256, (3, 3), stride=2)
    return graph.concat([a, b, c, graph.max_pool(x)])


class _Graph:
    """An ONNX graph under construction, with methods for the layers of the network."""

    def __init__(self, weights: _Weights, precision: Precision) -> None:
        self._weights = weights
        self._precision = precision
        self._builder = GraphBuilder()

    def conv(
        self,
        x: _Tensor,
        layer: str,
        filters: int,
        size: tuple[int, int],
        *,
        stride: int = 1,
        same: bool = True,
    ) -> _Tensor:
        """Add a convolution, batch normalisation and ReLU; a stride of 2 has no padding."""
        kernel = self._weights.kernel(layer, (*size, x.channels, filters))
        scale, shift = self._weights.batch_norm(f"{layer}_BatchNorm", filters)
        pad = [(n - 1) // 2 for n in size] if same and stride == 1 else [0, 0]
        return self._relu(self._conv(x, layer, kernel * scale, shift, stride, pad))

    def residual(
        self, x: _Tensor, branches: list[_Tensor], layer: str, *, scale: float, relu: bool = True
    ) -> _Tensor:
        """Add ``x`` plus ``scale`` times a 1×1 convolution of the concatenated branches."""
        mixed = self.concat(branches)
        kernel = self._weights.kernel(layer, (1, 1, mixed.channels, x.channels), bias=True)
        bias = self._weights.bias(layer, x.channels)
        up = self._conv(mixed, layer, kernel * scale, bias * scale, 1, [0, 0])
        total = self.node("Add", [x, up], x.channels)
        return self._relu(total) if relu else total

    def dense(self, x: _Tensor, layer: str, dimension: int) -> _Tensor:
        """Add a matrix product without bias, then batch normalisation."""
        kernel = self._weights.kernel(layer, (x.channels, dimension))
        scale, shift = self._weights.batch_norm(f"{layer}_BatchNorm", dimension)
        inputs = [x, *self._parameters(layer, kernel * scale, shift)]
        return self.node("Gemm", inputs, dimension)

    def max_pool(self, x: _Tensor) -> _Tensor:
        """Add max pooling of 3×3 with a stride of 2 and no padding."""
        return self.node("MaxPool", [x], x.channels, kernel_shape=[3, 3], strides=[2, 2])

    def concat(self, parts: list[_Tensor]) -> _Tensor:
        """Concatenate along the channels."""
        return self.node("Concat", parts, sum(p.channels for p in parts), axis=1)

    def unit_length(self, x: _Tensor) -> _Tensor:
        """Normalise each row: ``x / √max(Σx², ε)``."""
        epsilon = self._constant("epsilon", np.array(NORMALIZE_EPSILON, np.float32))
        square = self.node("ReduceSumSquare", [x], 1, axes=[1], keepdims=1)
        length = self.node("Sqrt", [self.node("Max", [square, epsilon], 1)], 1)
        return self.node("Div", [x, length], x.channels, output="embeddings")

    def node(
        self,
        operator: str,
        inputs: list[_Tensor],
        channels: int,
        *,
        output: str = "",
        **attributes: Any,
    ) -> _Tensor:
        """Add one ONNX operator and return its output."""
        output = output or f"{operator}_{len(self._builder.nodes)}"
        names = [tensor.name for tensor in inputs]
        self._builder.node(operator, names, output, output, **attributes)
        return _Tensor(output, channels)

    def to_model(self, embeddings: _Tensor) -> onnx.ModelProto:
        """Build the model from the nodes added so far."""
        return self._builder.model(
            "inception_resnet_v1",
            {"crops": ["faces", INPUT_SIZE, INPUT_SIZE, 3]},
            {embeddings.name: ["faces", embeddings.channels]},
            producer="face2vec",
        )

    def _conv(
        self, x: _Tensor, layer: str, kernel: Array, bias: Array, stride: int, pad: list[int]
    ) -> _Tensor:
        """Add a convolution; ``kernel`` has Keras' order (height, width, in, out)."""
        inputs = [x, *self._parameters(layer, kernel.transpose(3, 2, 0, 1), bias)]
        return self.node(
            "Conv",
            inputs,
            len(bias),
            kernel_shape=list(kernel.shape[:2]),
            strides=[stride, stride],
            pads=pad * 2,
        )

    def _relu(self, x: _Tensor) -> _Tensor:
        return self.node("Relu", [x], x.channels)

    def _parameters(self, layer: str, kernel: Array, bias: Array) -> list[_Tensor]:
        """Add the kernel of a layer, in the requested precision, and its bias."""
        kernel = np.ascontiguousarray(kernel, np.float32)
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ModelError(
                f"{self._weights.path}: layer {layer!r} has values that are not finite numbers; "
                "the file is damaged or its training diverged"
            )
        if self._precision == "fp32":
            stored = self._constant(f"{layer}_kernel", kernel)
        else:
            if np.abs(kernel).max() > np.finfo(np.float16).max:
                raise ModelError(
                    f"{self._weights.path}: layer {layer!r} has values beyond float16's range; "
                    "use precision 'fp32'"
                )
            half = self._constant(f"{layer}_kernel_fp16", kernel.astype(np.float16))
            stored = self.node("Cast", [half], 0, output=f"{layer}_kernel", to=TensorProto.FLOAT)
        return [stored, self._constant(f"{layer}_bias", bias.astype(np.float32))]

    def _constant(self, name: str, values: NDArray[np.floating[Any]]) -> _Tensor:
        return _Tensor(self._builder.constant(values, name), 0)


class _Weights:
    """The weights of a Keras file by layer, checked on access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                self._layers = {name: dict(arrays) for name, arrays in weights_by_layer(file)}
        except (OSError, KeyError, RuntimeError) as error:
            raise ModelError(f"cannot read {path} as a Keras weights file: {error}") from error
        if not self._layers:
            raise ModelError(
                f"{path} is not a supported Keras weights file; it must be HDF5 with a "
                "'layer_names' attribute (Keras 2's save_weights('x.h5'), or a model saved as "
                "'x.h5'), or written by save_weights('x.weights.h5') of a recent Keras 3"
            )

    def kernel(self, layer: str, shape: tuple[int, ...], *, bias: bool = False) -> Array:
        """Kernel of a layer, in Keras' order of axes."""
        self._expect(layer, {"kernel", "bias"} if bias else {"kernel"})
        return self._array(layer, "kernel", shape)

    def bias(self, layer: str, filters: int) -> Array:
        """Bias of a layer."""
        return self._array(layer, "bias", (filters,))

    def batch_norm(self, layer: str, filters: int) -> tuple[Array, Array]:
        """Scale and shift that are equivalent to a trained batch normalisation."""
        self._expect(layer, {"beta", "moving_mean", "moving_variance"})
        beta, mean, variance = (
            self._array(layer, name, (filters,)).astype(np.float64)
            for name in ("beta", "moving_mean", "moving_variance")
        )
        if not (variance >= 0).all():
            raise ModelError(
                f"{self.path}: layer {layer!r} has a moving_variance of {variance.min():g}; "
                "variances are never below 0, so the file is damaged"
            )
        scale = 1 / np.sqrt(variance + BATCH_NORM_EPSILON)
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _expect(self, layer: str, names: set[str]) -> None:
        if layer not in self._layers:
            raise ModelError(
                f"{self.path}: layer {layer!r} is missing; these are not the weights of "
                "keras-facenet's Inception-ResNet-v1"
            )
        found = set(self._layers[layer])
        if found != names:
            raise ModelError(
                f"{self.path}: layer {layer!r} has {', '.join(sorted(found)) or 'no arrays'}, "
                f"expected {', '.join(sorted(names))}"
            )

    def _array(self, layer: str, name: str, shape: tuple[int, ...]) -> Array:
        array = self._layers[layer][name]
        if array.shape != shape:
            raise ModelError(
                f"{self.path}: {name} of layer {layer!r} has shape {array.shape}, expected {shape}"
            )
        return array


def weights_by_layer(file: Any) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """Read the weights of a Keras file in the Keras 2 or Keras 3 layout.

    Yields:
        Name of a layer, and its float32 arrays by name; a kernel is (height, width, inputs,
        outputs) or (inputs, outputs), a bias (outputs,).
    """
    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        yield from _keras_2_layers(root)
    elif "layers" in root:
        yield from _keras_3_layers(root["layers"])


def _keras_2_layers(root: Any) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """One group per layer, with an attribute that lists datasets: ``Bottleneck/kernel:0``."""
    for layer in map(_text, root.attrs["layer_names"]):
        group = root[layer]
        names = map(_text, group.attrs["weight_names"])
        yield layer, {n.rsplit("/", 1)[-1].removesuffix(":0"): _read(group[n]) for n in names}


def _keras_3_layers(layers: Any) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """One group per layer, whose ``vars`` are numbered in order of creation."""
    for group in layers.values():
        variables = group.get("vars", {})
        if len(variables) == 0 or "name" not in variables.attrs:
            continue
        layer = _text(variables.attrs["name"])
        batch_norm = layer.endswith("_BatchNorm")
        names = ("beta", "moving_mean", "moving_variance") if batch_norm else ("kernel", "bias")
        arrays = [_read(variables[str(i)]) for i in range(len(variables))]
        yield layer, dict(zip(names, arrays, strict=False))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _read(dataset: Any) -> Array:
    return np.asarray(dataset, np.float32)
