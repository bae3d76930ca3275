"""Exports a trained network as an ONNX file, and loads one for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from numpy.typing import NDArray
from onnx import numpy_helper

from face2vec.errors import ModelError
from face2vec.models.description import ModelDescription, Precision
from face2vec.training.onnx_file import write
from face2vec.training.onnx_graph import onnx_graph


def export(
    network: keras.Model, path: Path, description: ModelDescription, precision: Precision = "fp16"
) -> None:
    """Write a network as ONNX, with its description beside it.

    Args:
        network: maps standardised crops, NHWC, to embeddings.
        path: the .onnx file; the description is written beside it with the suffix .json.
        description: how crops are cut and standardised for it.
        precision: how weights are stored, see `onnx_file.write`.

    Raises:
        ModelError: weights are not finite or beyond float16's range, or `onnx_graph` does not
            support a layer.
    """
    write(onnx_graph(network), path, description, precision)


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


def _arrays(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """The constants of a graph by name, and as float32 those that are stored as float16."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]].astype(np.float32)
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
