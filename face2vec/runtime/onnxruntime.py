"""ONNX Runtime, on the processor or on CUDA."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from face2vec.errors import ModelError, RuntimeUnavailableError
from face2vec.runtime.network import (
    Graph,
    graph_name,
    input_refused,
    last_line,
    refuse_missing_tensors,
)
from face2vec.runtime.packages import import_onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# TF32, which keeps ten bits of each factor, is off, and the algorithm is chosen by a rule and not
# by timing: so results match those of the processor and do not change between processes.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


class OnnxNetwork:
    """A graph loaded by ONNX Runtime; see `Network`.

    A graph that declares one size of its batch is run as often as necessary, the last batch padded.

    Args:
        graph: the graph's bytes, or the path of its file.
        outputs: names of inner tensors to return after the graph's own outputs.
        cuda: run on CUDA.
        few_sizes: the inputs have only a few different sizes.

    Raises:
        ModelError: the graph cannot be read, or has no such tensor.
        RuntimeUnavailableError: CUDA was asked for and does not start.
    """

    def __init__(
        self, graph: Graph, outputs: Sequence[str] = (), *, cuda: bool, few_sizes: bool
    ) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Parallelism comes from running many batches at once, one thread each.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A plan of the memory is made for each size of the inputs, and kept.
        options.enable_mem_pattern = few_sizes
        providers: list[Any] = [("CUDAExecutionProvider", CUDA_OPTIONS)] if cuda else []
        graph = _with_outputs(graph, outputs)
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = onnxruntime.InferenceSession(
                source, options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise ModelError(
                f"{graph_name(graph)} cannot be loaded by ONNX Runtime: {last_line(error)}"
            ) from error
        if cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeUnavailableError(
                "ONNX Runtime offers CUDA but could not start it (are its CUDA libraries "
                "installed? see docs/gpu.md); choose runtime='onnxruntime' to use the processor"
            )

        takes = self._session.get_inputs()
        self.input_name = str(takes[0].name)
        first = {one.shape[0] if one.shape else None for one in takes}
        batch = first.pop() if len(first) == 1 else None
        self._batch = batch if isinstance(batch, int) and batch > 0 else None
        self._cuda_of = os.getpid() if cuda else None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run one batch, see `Network.run`.

        Args:
            inputs: arrays by input name, (n, …) of any dtype, as the graph declares them.

        Returns:
            The outputs of the graph in order, float32 (n, …), as the graph declares them.

        Raises:
            ModelError: the graph does not accept this input.
            RuntimeUnavailableError: CUDA was opened by a process from which this one was forked.
        """
        if self._cuda_of not in (None, os.getpid()):
            raise RuntimeUnavailableError(
                f"CUDA was opened by process {self._cuda_of}, and cannot be used after a fork; "
                "open Face2Vec in the child, or start the child with 'spawn'"
            )
        import numpy as np

        batch, counts = self._batch, {len(array) for array in inputs.values()}
        count = counts.pop() if len(counts) == 1 else 0
        if batch is None or count in (0, batch):
            return self._run(inputs)
        # Many published graphs take batches of one size only, mostly 1.
        pieces = []
        for start in range(0, count, batch):
            piece = {name: array[start : start + batch] for name, array in inputs.items()}
            short = batch - min(batch, count - start)
            if short:
                piece = {
                    name: np.pad(array, [(0, short), *[(0, 0)] * (array.ndim - 1)])
                    for name, array in piece.items()
                }
            pieces.append([np.atleast_1d(o)[: batch - short] for o in self._run(piece)])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run a batch of the size that the graph declares."""
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise input_refused(inputs, error) from error
        return outputs


def has_cuda() -> bool:
    """Whether a network runs on CUDA. The list of built-in providers alone does not tell."""
    onnxruntime = import_onnxruntime()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    from face2vec.runtime.onnx_graph import GraphBuilder

    onnxruntime.preload_dlls()  # loads the CUDA libraries that pip installed
    graph = GraphBuilder()
    graph.node("Relu", ["x"], "y")
    model = graph.model("try", {"x": [1]}, {"y": [1]})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CUDAExecutionProvider"]
    )
    return "CUDAExecutionProvider" in session.get_providers()


def _with_outputs(graph: Graph, outputs: Sequence[str]) -> Graph:
    """The graph with some of its inner tensors as additional outputs."""
    if not outputs:
        return graph
    import onnx

    model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    refuse_missing_tensors(
        graph, outputs, {name for node in model.graph.node for name in node.output}
    )
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return bytes(model.SerializeToString())
