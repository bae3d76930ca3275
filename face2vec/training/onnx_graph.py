"""Converts a trained Keras network to an ONNX graph, on any backend of Keras.

Maps are channels first in the graph, as in runtimes, with one transposition at the beginning. Batch
normalisation is folded into the convolution or dense layer before it, and padding into the
convolution after it, so that a runtime can fuse each convolution with its activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx
from keras import ops
from numpy.typing import NDArray

from face2vec.errors import ModelError
from face2vec.runtime.onnx_graph import GraphBuilder

Operation = Any
"""A layer or another operation of a Keras network."""
Array = NDArray[np.float32]

ACTIVATIONS = {"linear": "", "relu": "Relu", "sigmoid": "Sigmoid"}


def onnx_graph(network: keras.Model) -> onnx.ModelProto:
    """The network with its weights, float32.

    Args:
        network: functional, from maps (n, height, width, channels) to embeddings (n, d), with the
            layers and operations of this project's networks.

    Returns:
        A model from ``crops`` to ``embeddings``, of the same shapes.

    Raises:
        ModelError: the network has an unsupported layer.
    """
    return _Writer(network).written()


class _Writer:
    """Converts a network's operations in topological order."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._builder = GraphBuilder()
        self._names: dict[int, str] = {}  # of what was written, by the Keras tensor's id
        self._borders: dict[str, tuple[str, list[int]]] = {}  # of what is still to be padded
        self._norms = _norms_to_fold(network)

    def written(self) -> onnx.ModelProto:
        for operation in self._network.operations:
            self._write(operation)
        height, width, channels = self._network.input_shape[1:]
        given = self._name(self._network.output)
        self._node("Identity", [given], "embeddings")
        return self._builder.model(
            self._network.name,
            {"crops": ["faces", height, width, channels]},
            {"embeddings": ["faces", *self._network.output_shape[1:]]},
            producer="face2vec",
        )

    def _write(self, operation: Operation) -> None:
        kind = type(operation).__name__
        if isinstance(operation, keras.layers.InputLayer):
            name = self._node("Transpose", ["crops"], "channels_first", perm=[0, 3, 1, 2])
        elif kind in WRITERS:
            name = WRITERS[kind](self, operation, _arguments(operation))
        else:
            raise ModelError(
                f"{operation.name!r}, a {kind}, of the network {self._network.name!r} cannot be "
                f"exported to ONNX; supported are {', '.join(sorted(WRITERS))}"
            )
        self._names[id(operation.output)] = name

    # The writers; each returns the name of its output

    def _convolution(self, layer: Operation, given: Sequence[Any]) -> str:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel, shift = self._folded(layer)
        # Keras stores (height, width, in, out), and (height, width, channel, 1) for depthwise.
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        source, borders = self._padded(layer, given[0])
        output = self._node(
            "Conv",
            [source, self._array(f"{layer.name}_kernel", kernel),
             self._array(f"{layer.name}_shift", shift)],
            layer.name,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.strides),
            pads=borders,
            group=len(kernel) if depthwise else 1,
        )  # fmt: skip
        return self._activated(output, layer)

    def _dense(self, layer: Operation, given: Sequence[Any]) -> str:
        kernel, shift = self._folded(layer)
        inputs = [self._name(given[0]), self._array(f"{layer.name}_kernel", kernel),
                  self._array(f"{layer.name}_shift", shift)]  # fmt: skip
        return self._activated(self._node("Gemm", inputs, layer.name), layer)

    def _activated(self, name: str, layer: Operation) -> str:
        activation = ACTIVATIONS.get(layer.activation.__name__)
        if activation is None:
            raise ModelError(
                f"layer {layer.name!r} has the activation {layer.activation.__name__!r}, which "
                f"cannot be exported to ONNX; supported are {', '.join(ACTIVATIONS)}"
            )
        return self._node(activation, [name], f"{layer.name}_active") if activation else name

    def _normalized(self, layer: Operation, given: Sequence[Any]) -> str:
        """Folded into the layer before it, so its input is returned."""
        if layer.name not in self._norms.values():
            raise ModelError(
                f"the batch normalisation {layer.name!r} does not follow a convolution or a dense "
                "layer, alone; it cannot be exported to ONNX"
            )
        return self._name(given[0])

    def _leaky_relu(self, layer: Operation, given: Sequence[Any]) -> str:
        inputs = [self._name(given[0])]
        return self._node("LeakyRelu", inputs, layer.name, alpha=float(layer.negative_slope))

    def _border(self, layer: Operation, given: Sequence[Any]) -> str:
        (top, bottom), (left, right) = layer.padding
        name = f"{layer.name}_bordered"
        self._borders[name] = (self._name(given[0]), [top, left, bottom, right])
        return name

    def _pooled(self, layer: Operation, given: Sequence[Any]) -> str:
        source, borders = self._padded(layer, given[0])
        largest = isinstance(layer, keras.layers.MaxPooling2D)
        if largest:
            self._name(given[0])  # refuses zero padding, which ONNX does not take as a maximum
        # A mean in Keras leaves out padding of its own, and includes that of a layer before it.
        counted = {} if largest else {"count_include_pad": int(layer.padding == "valid")}
        return self._node(
            "MaxPool" if largest else "AveragePool",
            [source],
            layer.name,
            kernel_shape=list(layer.pool_size),
            strides=list(layer.strides),
            pads=borders,
            **counted,
        )

    def _mean(self, layer: Operation, given: Sequence[Any]) -> str:
        mean = self._node("GlobalAveragePool", [self._name(given[0])], f"{layer.name}_mean")
        return self._node("Flatten", [mean], layer.name)

    def _flat(self, layer: Operation, given: Sequence[Any]) -> str:
        name, shape = self._name(given[0]), given[0].shape
        if len(shape) == 4 and shape[1:3] != (1, 1):
            name = self._node("Transpose", [name], f"{layer.name}_last", perm=[0, 2, 3, 1])
        return self._node("Flatten", [name], layer.name)

    def _shaped(self, layer: Operation, given: Sequence[Any]) -> str:
        if len(given[0].shape) != 2 or tuple(layer.target_shape[:2]) != (1, 1):
            raise ModelError(
                f"layer {layer.name!r} has the output shape {layer.target_shape}, which "
                "cannot be exported to ONNX; supported is (channels,) to (1, 1, channels)"
            )
        shape = self._array(f"{layer.name}_shape", np.array([0, -1, 1, 1], np.int64))
        return self._node("Reshape", [self._name(given[0]), shape], layer.name)

    def _joined(self, layer: Operation, given: Sequence[Any]) -> str:
        return self._node("Concat", [self._name(one) for one in given], layer.name, axis=1)

    def _same(self, operation: Operation, given: Sequence[Any]) -> str:
        return self._name(given[0])

    def _sum(self, operation: Operation, given: Sequence[Any]) -> str:
        if operation.axis not in (-1, [-1], (-1,)) or not operation.keepdims:
            raise ModelError(f"{operation.name!r} is not a sum over embeddings; it cannot be "
                             "exported to ONNX")  # fmt: skip
        axes = self._array(f"{operation.name}_axes", np.array([1], np.int64))
        return self._node("ReduceSum", [self._name(given[0]), axes], operation.name)

    def _square(self, operation: Operation, given: Sequence[Any]) -> str:
        name = self._name(given[0])
        return self._node("Mul", [name, name], operation.name)

    # Inside

    def _node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        return self._builder.node(kind, inputs, name, name, **attributes)

    def _array(self, name: str, values: NDArray[Any]) -> str:
        return self._builder.constant(np.atleast_1d(values), name)

    def _name(self, value: Any) -> str:
        """The name of a value in the graph; a number becomes a constant."""
        if isinstance(value, int | float):
            name = f"number_{value!r}"
            if name not in {one.name for one in self._builder.constants}:
                self._array(name, np.array(value, np.float32))
            return name
        name = self._names[id(value)]
        if name in self._borders:
            source, borders = self._borders[name]
            raise ModelError(
                f"padding of {borders} around {source!r} is not followed by a convolution or a "
                "mean of positions; it cannot be exported to ONNX"
            )
        return name

    def _padded(self, layer: Operation, value: Any) -> tuple[str, list[int]]:
        """The input of a convolution or pooling, and its own padding."""
        name = self._names[id(value)]
        source, borders = self._borders.get(name, (name, [0, 0, 0, 0]))
        if layer.padding == "valid":
            return source, borders
        size = getattr(layer, "kernel_size", None) or layer.pool_size
        before, after = [], []
        for length, steps, reach in zip(value.shape[1:3], layer.strides, size, strict=True):
            added = max((-(-length // steps) - 1) * steps + reach - length, 0)
            before.append(added // 2)
            after.append(added - added // 2)
        return self._name(value), [*before, *after]

    def _folded(self, layer: Operation) -> tuple[Array, Array]:
        """A layer's kernel in Keras' layout and its bias, including the normalisation after it."""
        kernel = _numbers(layer.kernel)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        channels = kernel.shape[2] if depthwise else kernel.shape[-1]
        if depthwise and kernel.shape[3] != 1:
            raise ModelError(
                f"layer {layer.name!r} has several filters per channel, which cannot be exported "
                "to ONNX"
            )
        shift = np.zeros(channels) if layer.bias is None else _numbers(layer.bias)
        if layer.name in self._norms:
            norm = self._network.get_layer(self._norms[layer.name])
            factor = 1 / np.sqrt(_numbers(norm.moving_variance) + norm.epsilon)
            if norm.scale:
                factor = factor * _numbers(norm.gamma)
            shift = (shift - _numbers(norm.moving_mean)) * factor
            if norm.center:
                shift = shift + _numbers(norm.beta)
            kernel = kernel * (factor[:, None] if depthwise else factor)
        return kernel.astype(np.float32), shift.astype(np.float32)


def _two(kind: str) -> Callable[[_Writer, Operation, Sequence[Any]], str]:
    """A writer of an operation with two inputs, arrays or numbers."""

    def write(writer: _Writer, operation: Operation, given: Sequence[Any]) -> str:
        return writer._node(kind, [writer._name(one) for one in given], operation.name)

    return write


def _one(kind: str) -> Callable[[_Writer, Operation, Sequence[Any]], str]:
    def write(writer: _Writer, operation: Operation, given: Sequence[Any]) -> str:
        return writer._node(kind, [writer._name(given[0])], operation.name)

    return write


WRITERS: Mapping[str, Callable[[_Writer, Operation, Sequence[Any]], str]] = {
    "Conv2D": _Writer._convolution,
    "DepthwiseConv2D": _Writer._convolution,
    "Dense": _Writer._dense,
    "BatchNormalization": _Writer._normalized,
    "ReLU": _one("Relu"),
    "LeakyReLU": _Writer._leaky_relu,
    "ZeroPadding2D": _Writer._border,
    "MaxPooling2D": _Writer._pooled,
    "AveragePooling2D": _Writer._pooled,
    "GlobalAveragePooling2D": _Writer._mean,
    "Flatten": _Writer._flat,
    "Reshape": _Writer._shaped,
    "Concatenate": _Writer._joined,
    "Identity": _Writer._same,
    "Dropout": _Writer._same,
    "Cast": _Writer._same,
    "Add": _two("Add"),
    "Multiply": _two("Mul"),
    "Divide": _two("Div"),
    "TrueDivide": _two("Div"),
    "Maximum": _two("Max"),
    "Sqrt": _one("Sqrt"),
    "Square": _Writer._square,
    "Sum": _Writer._sum,
}
"""By the name of the layer's or the operation's class."""


def _norms_to_fold(network: keras.Model) -> dict[str, str]:
    """Names of batch normalisations by the name of the layer whose only consumer they are."""
    taken = Counter(
        id(value) for operation in network.operations for value in _arguments(operation)
    )
    makers = {id(layer.output): layer for layer in network.layers}
    folded = {}
    for norm in network.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            (value,) = _arguments(norm)
            maker: Operation = makers.get(id(value))
            if not hasattr(maker, "kernel") or maker.activation.__name__ != "linear":
                continue
            if taken[id(value)] == 1:
                folded[maker.name] = norm.name
    return folded


def _arguments(operation: Operation) -> list[Any]:
    """The inputs of an operation: tensors and numbers, lists flattened."""
    if isinstance(operation, keras.layers.InputLayer):
        return []
    arguments = operation._inbound_nodes[0].arguments.args
    flat = [one for given in arguments
            for one in (given if isinstance(given, list | tuple) else [given])]  # fmt: skip
    return [one for one in flat if isinstance(one, keras.KerasTensor | int | float)]


def _numbers(variable: Any) -> NDArray[np.float64]:
    return np.asarray(ops.convert_to_numpy(variable), np.float64)
