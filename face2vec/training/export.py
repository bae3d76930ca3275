"""Exports a trained network as an ONNX file, and loads one for fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import onnx
from keras import layers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from face2vec.errors import ModelError
from face2vec.files import written_whole
from face2vec.models.description import ModelDescription
from face2vec.training.onnx_graph import onnx_graph

Stored = Literal["fp32", "fp16", "int8"]
LARGEST_INT8 = 127
SMALLEST_HALVED = 256
"""Arrays with fewer numbers stay float32: they weigh nothing."""


def export(
    network: keras.Model, path: Path, description: ModelDescription, stored: Stored = "fp16"
) -> None:
    """Write a network as ONNX, with its description beside it.

    Args:
        network: maps standardised crops, NHWC, to embeddings.
        path: the .onnx file; the description is written beside it with the suffix .json.
        description: how crops are cut and standardised for it.
        stored: how weights are stored; the network computes in float32 either way. ``"fp16"``
            halves the file. ``"int8"`` halves it again: kernels are whole numbers from −127 to 127
            times one scale for each output, except depthwise ones, which are float16.

    Raises:
        ModelError: weights are not finite or beyond float16's range, or `onnx_graph` does not
            support a layer.
    """
    graph = onnx_graph(network)
    if stored == "int8":
        _quantize(graph)
    if stored != "fp32":
        _halve(graph)
    onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in (
        (path, graph.SerializeToString()),
        (path.with_suffix(".json"), _described(description, path.name)),
    ):
        with written_whole(target) as stream:
            stream.write(content)


def load_exported(network: keras.Model, path: Path) -> None:
    """Load the weights of an exported graph into its network, to continue training.

    Batch normalisation was folded into the convolutions: each becomes an identity with the folded
    shift, so the outputs are the same.

    Args:
        network: built like the exported one.
        path: the .onnx file.

    Raises:
        ModelError: the graph is of another network.
    """
    graph = onnx.load(path).graph
    arrays = _arrays(graph)
    folded = [
        [arrays[name] for name in node.input[1:] if name in arrays]
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    ]
    ours = [
        layer
        for layer in network.layers
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense)
    ]
    fits = len(ours) == len(folded) and all(
        len(both) == 2 and _as_keras(layer, both[0]).shape == tuple(layer.kernel.shape)
        for layer, both in zip(ours, folded, strict=True)
    )
    if not fits:
        raise ModelError(f"{path} is not an exported {network.name}; its layers differ")
    norms = {_only_input(layer): layer for layer in network.layers if _is_norm(layer)}
    for layer, (kernel, shift) in zip(ours, folded, strict=True):
        layer.kernel.assign(_as_keras(layer, kernel))
        norm = norms.get(layer.name)
        if norm is not None:
            _become_identity(norm, shift)
        elif layer.bias is not None:
            layer.bias.assign(shift)


def settle(network: keras.Model, pixels: NDArray[np.float32]) -> None:
    """Set the means and variances of identity normalisations from their inputs.

    The embeddings do not change. In training, however, each batch is normalised by its own
    statistics, which would turn an identity into a different function.

    Args:
        network: a network after `load_exported`; normalisations without a scale are unchanged.
        pixels: standardised crops like the training crops, float32 (n, side, side, 3).
    """
    norms = [
        layer
        for layer in network.layers
        if _is_norm(layer) and layer.scale and not np.any(layer.moving_mean)
    ]
    if not norms:
        return
    inputs = keras.Model(network.input, [norm.input for norm in norms])(pixels, training=False)
    for norm, given in zip(norms, map(keras.ops.convert_to_numpy, inputs), strict=True):
        places = tuple(range(given.ndim - 1))
        mean, variance = given.mean(places), given.var(places)
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
        norm.gamma.assign(np.sqrt(variance + norm.epsilon))
        norm.beta.assign(keras.ops.convert_to_numpy(norm.beta) + mean)


def _halve(model: onnx.ModelProto) -> None:
    """Store large arrays as float16, each followed by a cast back to float32."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALLEST_HALVED:
            continue
        if not np.abs(values).max() <= np.finfo(np.float16).max:  # also finds NaN
            raise ModelError(
                f"{tensor.name} has values that are not finite or beyond float16's range; the "
                "training diverged, or store it as 'fp32'"
            )
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(helper.make_node("Cast", [f"{name}_fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantize(model: onnx.ModelProto) -> None:
    """Store kernels as int8, each followed by a cast to float32 and the scales of its outputs.

    Runtimes compute the float32 kernels once, when they load the graph.
    """
    outputs = {
        node.input[1]: 0 if node.op_type == "Conv" else 1
        for node in model.graph.node
        if node.op_type == "Gemm" or (node.op_type == "Conv" and _groups(node) == 1)
    }
    expanded, added = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in outputs or values.size < SMALLEST_HALVED:
            continue
        if not np.isfinite(values).all():
            raise ModelError(f"{tensor.name} has values that are not finite; the training diverged")
        name, axis = tensor.name, outputs[tensor.name]
        others = tuple(place for place in range(values.ndim) if place != axis)
        scales = np.maximum(np.abs(values).max(others, keepdims=True), 1e-12) / LARGEST_INT8
        whole = np.rint(values / scales).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}_int8"))
        added.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
        expanded += [
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_whole"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_whole", f"{name}_scales"], [name]),
        ]
    model.graph.initializer.extend(added)
    nodes = [*expanded, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _groups(node: onnx.NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "group"), 1)


def _described(description: ModelDescription, file: str) -> bytes:
    values = {"file": file, **json.loads(description.to_json())}
    return json.dumps({k: v for k, v in values.items() if v is not None}, indent=2).encode()


def _arrays(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """The constants of a graph by name, and as float32 those that are stored as another type."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if not all(name in arrays for name in node.input):
            continue
        if node.op_type == "Cast":
            arrays[node.output[0]] = arrays[node.input[0]].astype(np.float32)
        elif node.op_type == "Mul":
            arrays[node.output[0]] = arrays[node.input[0]] * arrays[node.input[1]]
    return arrays


def _as_keras(layer: keras.Layer, kernel: NDArray[Any]) -> NDArray[Any]:
    if kernel.ndim != 4:
        return kernel
    if isinstance(layer, layers.DepthwiseConv2D):
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(2, 3, 1, 0)


def _is_norm(layer: keras.Layer) -> bool:
    return isinstance(layer, layers.BatchNormalization)


def _only_input(layer: keras.Layer) -> str:
    """Name of the layer that feeds this one."""
    name: str = layer.input._keras_history.operation.name
    return name


def _become_identity(norm: keras.Layer, shift: NDArray[Any]) -> None:
    norm.moving_mean.assign(np.zeros_like(shift))
    norm.moving_variance.assign(np.ones_like(shift) - norm.epsilon)
    norm.beta.assign(shift)
    if norm.scale:
        norm.gamma.assign(np.ones_like(shift))
