"""The seam between face2vec and what runs its networks: the `Network` protocol and its errors."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from face2vec.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Graph = bytes | Path
"""An ONNX graph as bytes, or the path of an ONNX or OpenVINO IR file."""


class Network(Protocol):
    """A loaded graph. Safe to run from several threads; each run computes in the calling thread.

    Attributes:
        input_name: name of the graph's first input.
    """

    input_name: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run one batch.

        Args:
            inputs: arrays by input name, (n, …) of any dtype, as the graph declares them.

        Returns:
            The outputs of the graph in order, float32 (n, …), as the graph declares them.

        Raises:
            ModelError: the graph does not accept this input.
        """
        ...


def refuse_missing_tensors(graph: Graph, wanted: Sequence[str], inside: Container[str]) -> None:
    """Check that a graph has all tensors that were asked for.

    Raises:
        ModelError: the graph has no tensor of one of these names.
    """
    for name in wanted:
        if name not in inside:
            raise ModelError(f"{graph_name(graph)} has no tensor {name!r}; look at it with Netron")


def graph_name(graph: Graph) -> str:
    """What an error message calls a graph."""
    return "the graph" if isinstance(graph, bytes) else str(graph)


def input_refused(inputs: Mapping[str, NDArray[Any]], error: Exception) -> ModelError:
    """The error for input that a network does not accept.

    Args:
        inputs: arrays of any shape and any dtype, by input name.
        error: what the runtime raised.
    """
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    words = " ".join(str(error).split())[:300]
    return ModelError(f"the network cannot be run on the input {shapes}: {words}")


def last_line(error: Exception) -> str:
    """The last non-empty line of a runtime's message, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
