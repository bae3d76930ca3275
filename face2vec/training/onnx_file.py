"""Writes trained networks as ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from face2vec.errors import ModelError
from face2vec.files import written_whole
from face2vec.models.description import ModelDescription, Precision

SMALLEST_HALVED = 256
"""Arrays with fewer numbers stay float32: they weigh nothing."""


def write(
    graph: onnx.ModelProto,
    path: Path,
    description: ModelDescription,
    precision: Precision = "fp16",
) -> None:
    """Write a graph, with its description beside it.

    Args:
        graph: maps standardised crops to embeddings; its weights are float32. It is changed.
        path: the .onnx file; the description is written beside it with the suffix .json.
        description: how crops are cut and standardised for it.
        precision: ``"fp16"`` stores the weights as float16, which halves the file; the network
            computes in float32 either way.

    Raises:
        ModelError: weights are not finite or beyond float16's range.
    """
    if precision == "fp16":
        _halve(graph)
    onnx.checker.check_model(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in (
        (path, graph.SerializeToString()),
        (path.with_suffix(".json"), _described(description, path.name)),
    ):
        with written_whole(target) as stream:
            stream.write(content)


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


def _described(description: ModelDescription, file: str) -> bytes:
    values = {"file": file, **json.loads(description.to_json())}
    return json.dumps({k: v for k, v in values.items() if v is not None}, indent=2).encode()
