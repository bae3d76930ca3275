"""Builds ONNX graphs from nodes and constants.

All graphs of this project are built with it: detection, cropping, FaceNet, and exported networks.
The same calls give the same bytes, so the hash of a file identifies its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # belongs to opset 17

Shape = Sequence[str | int]
"""Shape of an input or output; a name stands for an axis of any length."""


class GraphBuilder:
    """A graph under construction.

    Attributes:
        nodes: the operators so far, in execution order.
        constants: the arrays so far.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add one operator.

        Args:
            operator: an ONNX operator, such as "Conv".
            inputs: names of its inputs.
            output: name of its output.
            name: name of the node; optional.
            attributes: attributes of the operator.

        Returns:
            ``output``.
        """
        self.several(operator, inputs, [output], name, **attributes)
        return output

    def several(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str | None = None,
        **attributes: Any,
    ) -> None:
        """Add one operator with several outputs, see `node`."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))

    def constant(self, values: NDArray[Any], name: str) -> str:
        """Add an array of any dtype and any shape; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def model(
        self,
        name: str,
        inputs: dict[str, Shape],
        outputs: dict[str, Shape | None],
        producer: str = "",
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
            name: name of the graph.
            inputs: shape of each input by name; all are float32.
            outputs: shape of each output by name, or None if the runtime infers it; all are
                float32.
            producer: producer name in the file.
        """
        given, made = (
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends.items()]
            for ends in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, given, made, self.constants)
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        if producer:
            model.producer_name = producer
        return model
