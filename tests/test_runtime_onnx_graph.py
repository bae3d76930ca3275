from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from face2vec.detection.graphs import crop_graph, onet_graph, pnet_graph, rnet_graph
from face2vec.runtime.onnx_graph import GraphBuilder
from face2vec.runtime.packages import import_onnxruntime

onnxruntime = import_onnxruntime()


def affine(producer: str = "") -> onnx.ModelProto:
    graph = GraphBuilder()
    factor = graph.constant(np.arange(6, dtype=np.float32).reshape(2, 3).T, "factor")
    product = graph.node("MatMul", ["x", factor], "product")
    shift = graph.constant(np.array(0.5, np.float32), "shift")
    graph.node("Add", [product, shift], "y", name="sum")
    graph.node("Softmax", ["y"], "p", axis=0)
    return graph.model("affine", {"x": ["n", 3]}, {"y": ["n", 2], "p": None}, producer)


def test_a_graph_computes_what_its_nodes_say() -> None:
    session = onnxruntime.InferenceSession(affine().SerializeToString())
    x = np.array([[1, 2, 3], [0, -1, 0]], np.float32)
    y, p = session.run(["y", "p"], {"x": x})
    wanted = x @ np.array([[0, 3], [1, 4], [2, 5]]) + 0.5
    shares = np.exp(wanted - wanted.max(axis=0))
    np.testing.assert_allclose(y, wanted)
    np.testing.assert_allclose(p, shares / shares.sum(axis=0), rtol=1e-5)


def test_a_model_says_what_it_is() -> None:
    model = affine("face2vec")
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert (model.producer_name, model.graph.name) == ("face2vec", "affine")
    assert [node.name for node in model.graph.node] == ["", "sum", ""]
    assert [array.name for array in model.graph.initializer] == ["factor", "shift"]
    assert list(model.graph.initializer[1].dims) == []
    assert not affine().producer_name


def test_the_same_calls_give_the_same_bytes() -> None:
    assert affine("me").SerializeToString() == affine("me").SerializeToString()


GRAPHS = {
    "pnet": (pnet_graph, "3177008ab9f018fb7ad1cfee4e4d090f108f6636acab96b37b9ef0fcb2d64a83"),
    "rnet": (rnet_graph, "d72189e06852c28abcd5a2f78d0632e02b71e271e48c9241db5a63f279e8ae8c"),
    "onet": (onet_graph, "c61190a7c4ced3ebaa47bc6ea69fb0818d0ebb3cf19901a0a4e132ef4a801519"),
    "crop": (
        lambda: crop_graph(24),
        "6aac7d7e5e96243f09ee766a7e0f438f4f2a03d19305d35cd7ccba9cc9e84afe",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_detection_graphs_are_the_same_bytes_as_ever(name: str) -> None:
    """They decide which faces are found: another graph asks for another CASCADE_VERSION."""
    graph, sha256 = GRAPHS[name]
    assert hashlib.sha256(graph()).hexdigest() == sha256
