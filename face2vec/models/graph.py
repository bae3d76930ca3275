"""Reads what an ONNX file says about its input and output, for a model without a description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from face2vec.errors import ModelError
from face2vec.models.description import Layout
from face2vec.runtime.select import Runtime

_BY_HAND = "write its description by hand (docs/guides/own-model.md)"
_SCALING = {"Sub", "Add", "Mul", "Div", "BatchNormalization"}


@dataclass(frozen=True)
class EmbeddingGraph:
    """Input and output of an embedding network.

    Attributes:
        path: the ONNX file.
        layout: order of the axes of the input.
        input_size: side in pixels of the square crop.
        dimension: dimension of an embedding.
        scales_pixels: whether the graph begins with a subtraction, a multiplication or the like,
            so that it probably takes pixels of 0…255.
    """

    path: Path
    layout: Layout
    input_size: int
    dimension: int
    scales_pixels: bool


def read_graph(path: Path) -> EmbeddingGraph:
    """Read an ONNX file, and run it once on black crops.

    Args:
        path: the ONNX file.

    Raises:
        ModelError: the file is not an ONNX file, or not that of an embedding network: one float32
            input of square crops with three channels and a fixed size, one output with one vector
            for each crop.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's errors; protobuf is a dependency of onnx, not ours
        raise ModelError(f"{path} is not an ONNX file: {error}") from error
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    _one(path, "inputs", "the crops", inputs)
    _one(path, "outputs", "the embedding", graph.output)
    layout, side = _crops(path, inputs[0])
    name = inputs[0].name
    network = Runtime("onnxruntime").load(path)
    shape = (2, side, side, 3) if layout == "NHWC" else (2, 3, side, side)
    (output,) = network.run({name: np.zeros(shape, np.float32)})
    vectors = output.shape[:1] == (2,) and output.size == max(output.shape[1:], default=0) * 2
    if not vectors or output.size < 4:
        raise ModelError(
            f"{path} gives an output of shape {output.shape} for two crops; an embedding network "
            "gives one vector for each crop; choose another file"
        )
    first = next((node for node in graph.node if name in node.input), None)
    scales = first is not None and first.op_type in _SCALING
    return EmbeddingGraph(path, layout, side, output.size // 2, scales)


def _one(path: Path, what: str, meant: str, values: Sequence[Any]) -> None:
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise ModelError(
            f"{path} has {len(values)} {what} ({names}); an embedding network has one, {meant}; "
            "choose another file, or export the network again with that one alone"
        )


def _crops(path: Path, value: Any) -> tuple[Layout, int]:
    """Layout and side of the input."""
    from onnx import TensorProto

    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type)
        raise ModelError(
            f"{path} takes input of type {name}; face2vec gives float32 (FLOAT); export the "
            "network again with float32 input"
        )
    shape = [axis.dim_value or axis.dim_param or "?" for axis in kind.shape.dim]
    words = f"({', '.join(map(str, shape))})"
    if len(shape) != 4:
        raise ModelError(
            f"{path} takes input of shape {words}; face2vec gives crops with four axes, such as "
            "(n, 3, 112, 112) or (n, 112, 112, 3); choose another file"
        )
    layout: Layout = "NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW"
    channels, *sides = (shape[3], *shape[1:3]) if layout == "NHWC" else shape[1:]
    if channels != 3:
        raise ModelError(
            f"{path} takes input of shape {words}, which has no axis of three channels; face2vec "
            "gives colour crops (n, 3, side, side) or (n, side, side, 3); choose another file"
        )
    if not all(isinstance(side, int) for side in sides):
        raise ModelError(
            f"{path} takes crops of any size, shape {words}; export it again with the size that it "
            f"was trained on, or {_BY_HAND}"
        )
    if sides[0] != sides[1]:
        raise ModelError(
            f"{path} takes crops of {sides[1]}×{sides[0]} pixels; face2vec cuts square crops; "
            "choose another file"
        )
    return layout, int(sides[0])
