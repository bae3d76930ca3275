"""What an ONNX file says about its input and output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from face2vec.errors import ModelError
from face2vec.models.graph import EmbeddingGraph, read_graph
from face2vec.models.store import SHIPPED

NCHW = ("n", 3, 8, 8)


def network(
    path: Path,
    shape: Sequence[Any] = NCHW,
    *,
    nodes: Sequence[onnx.NodeProto] | None = None,
    outputs: Sequence[str] = ("embedding",),
    more_inputs: Sequence[str] = (),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """An ONNX file that flattens its crops, or has other nodes."""
    nodes = nodes or [helper.make_node("Flatten", ["crops"], ["embedding"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("crops", kind, shape),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in more_inputs),
        ],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.float32([127.5]), "half")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_read_graph_of_the_package_s_own_model() -> None:
    path = SHIPPED / "mini.onnx"
    assert read_graph(path) == EmbeddingGraph(path, "NHWC", 96, 256, scales_pixels=False)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [(NCHW, "NCHW"), ((1, 3, 8, 8), "NCHW"), (("n", 8, 8, 3), "NHWC"), ((2, 8, 8, 3), "NHWC")],
)
def test_read_graph_gives_layout_size_and_dimension(
    tmp_path: Path, shape: tuple[Any, ...], layout: Any
) -> None:
    path = network(tmp_path / "net.onnx", shape)
    assert read_graph(path) == EmbeddingGraph(path, layout, 8, 192, scales_pixels=False)


def test_read_graph_sees_that_a_graph_scales_its_pixels(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sub", ["crops", "half"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["embedding"]),
    ]
    assert read_graph(network(tmp_path / "net.onnx", nodes=nodes)).scales_pixels


def test_read_graph_does_not_count_constants_as_inputs(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", more_inputs=["half"])
    assert read_graph(path).dimension == 192


def test_read_graph_accepts_an_output_with_axes_of_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["crops"], ["embedding"])]
    assert read_graph(network(tmp_path / "net.onnx", nodes=nodes)).dimension == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"more_inputs": ["landmarks"]}, r"has 2 inputs \(crops, landmarks\); .* has one"),
        ({"shape": ("n", 3, "h", "w")}, r"takes crops of any size, shape \(n, 3, h, w\)"),
        ({"shape": ("n", 3, None, None)}, r"takes crops of any size, shape \(n, 3, \?, \?\)"),
        ({"shape": ("n", 1, 8, 8)}, r"\(n, 1, 8, 8\), which has no axis of three channels"),
        ({"shape": ("n", 8, 8, 4)}, r"\(n, 8, 8, 4\), which has no axis of three channels"),
        ({"shape": ("n", 3, 8, 6)}, "takes crops of 6×8 pixels; face2vec cuts square crops"),
        ({"shape": ("n", 192)}, r"takes input of shape \(n, 192\); .* four axes"),
        ({"kind": TensorProto.UINT8}, "takes input of type UINT8; .* float32"),
        ({"kind": TensorProto.FLOAT16}, "takes input of type FLOAT16; .* float32"),
    ],
)
def test_read_graph_refuses_another_input(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = network(tmp_path / "net.onnx", **options)
    with pytest.raises(ModelError, match=message) as error:
        read_graph(path)
    assert str(path) in str(error.value)


def test_read_graph_refuses_several_outputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["crops"], ["boxes"]),
        helper.make_node("Flatten", ["crops"], ["scores"]),
    ]
    path = network(tmp_path / "net.onnx", nodes=nodes, outputs=["boxes", "scores"])
    with pytest.raises(ModelError, match=r"has 2 outputs \(boxes, scores\); .* has one"):
        read_graph(path)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (helper.make_node("Identity", ["crops"], ["embedding"]), r"\(2, 3, 8, 8\)"),
        (helper.make_node("ReduceMean", ["crops"], ["embedding"], keepdims=0), r"\(\)"),
        (helper.make_node("ReduceMean", ["crops"], ["embedding"], axes=[1, 2, 3]), r"\(2, 1, 1"),
    ],
)
def test_read_graph_refuses_an_output_that_is_no_vector(
    tmp_path: Path, node: onnx.NodeProto, shape: str
) -> None:
    path = network(tmp_path / "net.onnx", nodes=[node])
    with pytest.raises(ModelError, match=f"output of shape {shape}.* one vector for each crop"):
        read_graph(path)


def test_read_graph_refuses_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"net\.onnx is not an ONNX file"):
        read_graph(tmp_path / "net.onnx")
