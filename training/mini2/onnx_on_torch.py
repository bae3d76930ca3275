"""Runs an ONNX graph in PyTorch, for teachers on a GPU.

Only the operations that the teachers of `mini2` consist of are supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper
from torch.fx.experimental.proxy_tensor import make_fx

Values = list[Any]


def traced(path: Path, example: torch.Tensor, tensors: Sequence[str] = ()) -> torch.fx.GraphModule:
    """The graph of a file as a PyTorch module for batches of one size.

    It returns a list of the graph's output, (n, d), and of other values.

    Args:
        path: the ONNX file.
        example: an input, float32 (n, 3, side, side), on the device to run on; n stays fixed.
        tensors: names of the other values.
    """
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept: dict[str, torch.Tensor] = {}

    def run(crops: torch.Tensor) -> list[torch.Tensor]:
        known: dict[str, Any] = dict(constants)
        known[graph.input[0].name] = crops
        for node in graph.node:
            given = [known[name] if name else None for name in node.input]
            on_torch = node.op_type == "Conv" or any(isinstance(one, torch.Tensor) for one in given)
            if on_torch and node.op_type != "Shape":
                given = [
                    _tensor(kept, name, one, crops)
                    if isinstance(one, np.ndarray) and place not in NUMBERS.get(node.op_type, ())
                    else one
                    for place, (name, one) in enumerate(zip(node.input, given, strict=True))
                ]
            made = RUN[node.op_type](given, _attributes(node))
            several = made if isinstance(made, list | tuple) else [made]
            several = [np.asarray(one) if isinstance(one, np.generic) else one for one in several]
            known.update(zip(node.output, several, strict=True))
        return [known[graph.output[0].name].flatten(1), *(known[name] for name in tensors)]

    with torch.no_grad():
        run(example)  # so that constants are on the device before the trace
        return make_fx(run)(example)


def _tensor(
    kept: dict[str, torch.Tensor], name: str, array: Any, like: torch.Tensor
) -> torch.Tensor:
    if name not in kept:
        value = torch.from_numpy(np.array(array)).to(like.device)
        kept[name] = value.to(like.dtype) if value.is_floating_point() else value
    return kept[name]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def _conv(given: Values, how: Mapping[str, Any]) -> Any:
    pads = how.get("pads", [0, 0, 0, 0])
    x, kernel, *bias = given
    if pads[:2] != pads[2:]:
        x, pads = F.pad(x, (pads[1], pads[3], pads[0], pads[2])), [0, 0]
    return F.conv2d(
        x, kernel, bias[0] if bias else None, tuple(how.get("strides", (1, 1))),
        tuple(pads[:2]), tuple(how.get("dilations", (1, 1))), how.get("group", 1),
    )  # fmt: skip


def _cast(given: Values, how: Mapping[str, Any]) -> Any:
    kind = onnx.helper.tensor_dtype_to_np_dtype(how["to"])
    if isinstance(given[0], np.ndarray):
        return given[0].astype(np.float32 if kind.kind == "f" else kind)
    return given[0] if kind.kind == "f" else given[0].to(getattr(torch, kind.name))


def _shape(given: Values, how: Mapping[str, Any]) -> Any:
    return np.array(given[0].shape, np.int64)


def _gather(given: Values, how: Mapping[str, Any]) -> Any:
    x, places = given
    axis = how.get("axis", 0)
    if isinstance(x, np.ndarray):
        return np.take(x, places, axis=axis)
    if np.ndim(places) == 0:
        return x.select(axis, int(places))
    return x.index_select(axis, torch.as_tensor(np.asarray(places), device=x.device).flatten())


def _sliced(given: Values, how: Mapping[str, Any]) -> Any:
    x, starts, ends, *rest = given
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where = [slice(None)] * len(x.shape)
        where[int(axis)] = slice(int(start), None if end > 2**40 else int(end), int(step))
        x = x[tuple(where)]
    return x


def _reshaped(given: Values, how: Mapping[str, Any]) -> Any:
    x, wanted = given
    sides = [x.shape[i] if side == 0 else int(side) for i, side in enumerate(wanted)]
    return x.reshape(sides)


def _unsqueezed(given: Values, how: Mapping[str, Any]) -> Any:
    x, axes = given
    for axis in sorted(int(axis) for axis in np.atleast_1d(axes)):
        x = np.expand_dims(x, axis) if isinstance(x, np.ndarray) else x.unsqueeze(axis)
    return x


def _squeezed(given: Values, how: Mapping[str, Any]) -> Any:
    x, *axes = given
    places = tuple(int(axis) for axis in np.atleast_1d(axes[0])) if axes else None
    if isinstance(x, np.ndarray):
        return np.squeeze(x, places)
    return x.squeeze() if places is None else x.squeeze(places)


def _constant(given: Values, how: Mapping[str, Any]) -> Any:
    return numpy_helper.to_array(how["value"])


def _joined(given: Values, how: Mapping[str, Any]) -> Any:
    if all(isinstance(one, np.ndarray) for one in given):
        return np.concatenate(given, axis=how["axis"])
    return torch.cat(given, how["axis"])


def _gemm(given: Values, how: Mapping[str, Any]) -> Any:
    x, kernel, *bias = given
    kernel = kernel.T if how.get("transB") else kernel
    return x @ kernel + (bias[0] if bias else 0)


def _layer_norm(given: Values, how: Mapping[str, Any]) -> Any:
    x, scale, *bias = given
    axis = how.get("axis", -1) % x.ndim
    return F.layer_norm(
        x, x.shape[axis:], scale, bias[0] if bias else None, how.get("epsilon", 1e-5)
    )


def _split(given: Values, how: Mapping[str, Any]) -> Any:
    x, *sizes = given
    axis = how.get("axis", 0)
    if sizes:
        return list(x.split([int(size) for size in np.asarray(sizes[0])], axis))
    return list(x.chunk(how["num_outputs"], axis))


def _sum(given: Values, how: Mapping[str, Any]) -> Any:
    x, *axes = given
    places = tuple(int(axis) for axis in (axes[0] if axes else how["axes"]))
    return x.sum(places, keepdim=bool(how.get("keepdims", 1)))


def _mean(given: Values, how: Mapping[str, Any]) -> Any:
    x, *axes = given
    places = tuple(int(axis) for axis in (axes[0] if axes else how["axes"]))
    return x.mean(places, keepdim=bool(how.get("keepdims", 1)))


def _prelu(given: Values, how: Mapping[str, Any]) -> Any:
    return F.prelu(given[0], given[1].flatten())


def _flat(given: Values, how: Mapping[str, Any]) -> Any:
    axis, x = how.get("axis", 1), given[0]
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _transposed(given: Values, how: Mapping[str, Any]) -> Any:
    x = given[0]
    return x.transpose(how["perm"]) if isinstance(x, np.ndarray) else x.permute(*how["perm"])


def _range(given: Values, how: Mapping[str, Any]) -> Any:
    return np.arange(*(one.item() for one in given), dtype=given[0].dtype)


def _filled(given: Values, how: Mapping[str, Any]) -> Any:
    value = numpy_helper.to_array(how["value"])
    return np.full([int(side) for side in given[0]], value.item(), value.dtype)


def _expanded(given: Values, how: Mapping[str, Any]) -> Any:
    x, sides = given
    if isinstance(x, np.ndarray):
        return x * np.ones([int(side) for side in sides], x.dtype)
    shape = np.broadcast_shapes(tuple(x.shape), tuple(int(side) for side in sides))
    return x.expand(shape)


def _either(numeric: Callable[..., Any], on_torch: Callable[..., Any]) -> Any:
    def run(given: Values, how: Mapping[str, Any]) -> Any:
        arrays = all(isinstance(one, np.ndarray | np.generic) for one in given)
        return np.asarray(numeric(*given)) if arrays else on_torch(*given)

    return run


def _divided(a: Any, b: Any) -> Any:
    return a // b if np.asarray(a).dtype.kind == "i" else a / b


RUN: Mapping[str, Callable[[Values, Mapping[str, Any]], Any]] = {
    "Conv": _conv, "Cast": _cast, "Shape": _shape, "Gather": _gather, "Slice": _sliced,
    "Reshape": _reshaped, "Unsqueeze": _unsqueezed, "Squeeze": _squeezed, "Constant": _constant,
    "Concat": _joined, "Gemm": _gemm, "LayerNormalization": _layer_norm, "Split": _split,
    "ReduceSum": _sum, "ReduceMean": _mean, "PRelu": _prelu, "Flatten": _flat,
    "Transpose": _transposed, "Range": _range, "ConstantOfShape": _filled, "Expand": _expanded,
    "Identity": lambda given, how: given[0],
    "Softmax": lambda given, how: given[0].softmax(how.get("axis", -1)),
    "Add": _either(np.add, torch.add), "Mul": _either(np.multiply, torch.mul),
    "Div": _either(_divided, torch.div), "MatMul": _either(np.matmul, torch.matmul),
    "Sqrt": _either(np.sqrt, torch.sqrt), "Erf": _either(None, torch.erf),
    "Sin": _either(np.sin, torch.sin), "Cos": _either(np.cos, torch.cos),
    "Equal": _either(np.equal, torch.eq), "Where": _either(np.where, torch.where),
}  # fmt: skip
NUMBERS: Mapping[str, Sequence[int]] = {
    "Gather": (1,), "Slice": (1, 2, 3, 4), "Reshape": (1,), "Unsqueeze": (1,), "Squeeze": (1,),
    "Split": (1,), "ReduceSum": (1,), "ReduceMean": (1,), "Expand": (1,),
}  # fmt: skip
"""Inputs that describe shapes and places."""
