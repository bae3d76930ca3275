"""OpenVINO, on the processor."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face2vec.errors import ModelError, RuntimeUnavailableError
from face2vec.forks import abandon, renew_after_fork, run_after_fork
from face2vec.runtime.network import (
    Graph,
    graph_name,
    input_refused,
    last_line,
    refuse_missing_tensors,
)
from face2vec.runtime.onnxruntime import OnnxNetwork
from face2vec.runtime.packages import import_openvino

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("face2vec")

_loading_openvino = threading.Lock()
_opened_by: int | None = None  # the process that opened OpenVINO


class OpenVinoNetwork:
    """A graph loaded by OpenVINO; see `Network`.

    The threads of OpenVINO are gone in a forked child, and it can hang there even if it is opened
    again (seen with openvino 2026.4.1), so ONNX Runtime takes its place.

    Args:
        graph: the graph's bytes, or the path of its file.
        outputs: names of inner tensors to return after the graph's own outputs.
        streams: how many threads run the network at the same time.
        precision: "f32" or "bf16".

    Raises:
        ModelError: the graph cannot be read, or has no such tensor.
    """

    def __init__(self, graph: Graph, streams: int, precision: str, outputs: Sequence[str]) -> None:
        openvino = import_openvino()
        self._made_of = graph, outputs
        self._loading = threading.Lock()
        self._in_child: OnnxNetwork | None = None
        self._process = os.getpid()
        # One stream with one thread for each caller, as in OnnxNetwork.
        config = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        core = _openvino_core()
        try:
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            for value in model.inputs:  # IR files often fix the batch size to 1
                value.get_node().set_partial_shape(
                    openvino.PartialShape([-1, *list(value.partial_shape)[1:]])
                )
            model.validate_nodes_and_infer_types()
            # ONNX names tensors, an IR file names the layers that produce them.
            inside = {
                name: output
                for layer in model.get_ops()
                for output in layer.outputs()
                for name in (layer.get_friendly_name(), *output.get_names())
            }
            refuse_missing_tensors(graph, outputs, inside)
            model.add_outputs([inside[name] for name in outputs])
            compiled = core.compile_model(model, "CPU", config)
        except ModelError:
            raise
        except Exception as error:  # openvino raises RuntimeError and pybind's own
            raise ModelError(
                f"{graph_name(graph)} cannot be loaded by OpenVINO: {last_line(error)}"
            ) from error
        self.input_name = str(compiled.input(0).get_any_name())
        self._takes = {
            name: value.get_partial_shape()
            for value in compiled.inputs
            for name in value.get_names()
        }
        self._shape_of = openvino.PartialShape
        self._mine = threading.local()
        self._compiled = compiled
        renew_after_fork(self._renew)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run one batch, see `Network.run`.

        Args:
            inputs: arrays by input name, (n, …) of any dtype, as the graph declares them.

        Returns:
            The outputs of the graph in order, float32 (n, …), as the graph declares them.

        Raises:
            ModelError: the graph does not accept this input.
            RuntimeUnavailableError: an IR file, in a forked child.
        """
        if self._process != os.getpid():
            return self._replacement().run(inputs)
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        try:
            # OpenVINO refuses a wrong shape, too, but the next network in the same thread can
            # then end the process with a segmentation fault (seen with openvino 2026.4.1).
            for name, array in inputs.items():
                if not self._takes[name].compatible(self._shape_of(array.shape)):
                    raise RuntimeError(f"{name} must be of shape {self._takes[name]}")
            results = self._mine.request.infer(dict(inputs))
        except RuntimeError as error:
            raise input_refused(inputs, error) from error
        return [results[output] for output in self._compiled.outputs]

    def _renew(self) -> None:
        abandon(self._compiled, self._mine, *vars(self._mine).values())
        self._loading = threading.Lock()

    def _replacement(self) -> OnnxNetwork:
        """The same graph in ONNX Runtime, for a forked child."""
        graph, outputs = self._made_of
        with self._loading:
            if self._in_child is None:
                if isinstance(graph, Path) and graph.suffix == ".xml":
                    raise RuntimeUnavailableError(
                        f"{graph} is an OpenVINO file, and OpenVINO was opened by process "
                        f"{self._process} and cannot be used after a fork; "
                        "open Face2Vec in the child only, or start the child with 'spawn'"
                    )
                log.warning(
                    "OpenVINO cannot be used after a fork: process %d runs the embedding "
                    "network on ONNX Runtime",
                    os.getpid(),
                )
                self._in_child = OnnxNetwork(graph, outputs, cuda=False, few_sizes=True)
            return self._in_child


def lost_by_fork() -> bool:
    """Whether OpenVINO was opened by a process from which this one was forked."""
    return _opened_by not in (None, os.getpid())


@run_after_fork
def _renew() -> None:
    global _loading_openvino
    _loading_openvino = threading.Lock()
    if lost_by_fork():
        abandon(_only_core())


def _openvino_core() -> Any:
    """The one `Core` of this process.

    Raises:
        RuntimeUnavailableError: it was opened before a fork.
    """
    global _opened_by
    if lost_by_fork():
        raise RuntimeUnavailableError(
            f"OpenVINO was opened by process {_opened_by}, and cannot be used after a fork; "
            "choose runtime='onnxruntime', open Face2Vec in the child only, or use 'spawn'"
        )
    with _loading_openvino:
        _opened_by = os.getpid()
        return _only_core()


@functools.cache
def _only_core() -> Any:
    """The one `Core`, created by one thread, once (both faults seen with openvino 2026.4.1).

    The bindings initialise NumPy at the first access to a tensor. If two threads do this at the
    same time, they can deadlock: one holds Python's lock and waits for the initialisation, the
    other initialises and waits for Python's lock.

    Each `Core` installs an alternate signal stack and removes it when it is deleted. When several
    are deleted in the order of their creation, the next Ctrl-C ends the process with a
    segmentation fault.
    """
    import numpy as np

    openvino = import_openvino()
    _ = openvino.Tensor(np.zeros(1, np.float32)).data
    return openvino.Core()


def has_bf16() -> bool:
    """Whether the processor computes in bf16."""
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
