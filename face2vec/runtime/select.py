"""Runs networks: load an ONNX graph, run a batch. Nothing else knows which runtime it is.

ONNX Runtime is always there. OpenVINO is used for the embedding network where
it is installed, CUDA where ONNX Runtime finds it. A runtime asked for by name
that cannot be had is an error, never a silent fall back.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from face2vec.errors import MissingExtraError, ModelError, RuntimeUnavailableError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("face2vec")

RUNTIMES = ("auto", "onnxruntime", "openvino", "cuda")

# As on the processor: products in full precision (TF32 keeps ten bits), and an algorithm that
# is the same in each process, which the quickest of a trial is not.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

Graph = bytes | Path

_loading_openvino = threading.Lock()


class Network(Protocol):
    """A loaded graph. Many threads may run it at once; each run computes in its caller's thread.

    Attributes:
        input_name: name of the graph's first input.
    """

    input_name: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run one batch: arrays by input name in, the graph's outputs in order out.

        Raises:
            ModelError: the graph does not take such input.
        """
        ...


@dataclass(frozen=True)
class Runtime:
    """Where networks run.

    Attributes:
        name: "onnxruntime", "openvino" or "cuda".
        precision: "f32", or "bf16" where OpenVINO has a processor that computes in it.
        threads: how many threads will run a network at once.
    """

    name: str
    precision: str = "f32"
    threads: int = 1

    def load(self, graph: Graph, also: Sequence[str] = (), *, few_sizes: bool = False) -> Network:
        """Load an ONNX graph (bytes or file) or, with OpenVINO, an IR ``.xml`` file.

        Args:
            graph: what to load.
            also: names of tensors inside the graph (of layers, in an IR file) that a run gives
                after its outputs.
            few_sizes: whether its inputs are of a few sizes, so that the memory of one run may be
                kept for the next.

        Raises:
            ModelError: the graph cannot be read, or has no such tensor.
            RuntimeUnavailableError: an IR file without OpenVINO as the runtime.
        """
        if self.name == "openvino":
            return _OpenVinoNetwork(graph, self.threads, self.precision, also)
        if isinstance(graph, Path) and graph.suffix == ".xml":
            raise RuntimeUnavailableError(
                f"{graph} is an OpenVINO file and the runtime is {self.name}. "
                "Choose runtime='openvino' (pip install 'face2vec[openvino]')."
            )
        return _OnnxNetwork(
            _also_giving(graph, also), cuda=self.name == "cuda", keep_memory=few_sizes
        )

    def describe(self) -> dict[str, Any]:
        """What ``info`` says of the runtime."""
        return {"name": self.name, "precision": self.precision, "threads": self.threads}


def choose_runtime(wish: str = "auto", threads: int | None = None) -> Runtime:
    """The runtime for the embedding network.

    ``"auto"`` takes CUDA where ONNX Runtime offers it, then OpenVINO where it
    is installed, then ONNX Runtime on the processor.

    Args:
        wish: one of ``RUNTIMES``.
        threads: threads a network may use; None for all cores.

    Raises:
        SettingsError: an unknown name, or fewer threads than one.
        MissingExtraError: OpenVINO was asked for and is not installed.
        RuntimeUnavailableError: CUDA was asked for and is not there.
    """
    if wish not in RUNTIMES:
        raise SettingsError(f"unknown runtime {wish!r}; choose one of {', '.join(RUNTIMES)}")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads must be at least 1, not {threads}")
    count = threads or os.cpu_count() or 1
    name = wish
    if wish == "auto":
        if _has_cuda():
            name = "cuda"
        else:
            name = "openvino" if importlib.util.find_spec("openvino") else "onnxruntime"
    elif wish == "cuda" and not _has_cuda():
        raise RuntimeUnavailableError(
            "runtime 'cuda' was asked for, but this ONNX Runtime offers no CUDA device. "
            "Install onnxruntime-gpu instead of onnxruntime (see docs/gpu.md), "
            "or choose runtime='auto'."
        )
    elif wish == "openvino" and not importlib.util.find_spec("openvino"):
        raise MissingExtraError("runtime 'openvino'", "openvino", "openvino")
    precision = "bf16" if name == "openvino" and _has_bf16() else "f32"
    runtime = Runtime(name, precision, count)
    log.info("embedding network: %s, %s, %d threads", name, precision, count)
    return runtime


def detector_runtime(embedding_runtime: Runtime) -> Runtime:
    """The runtime for the detection cascade.

    Always ONNX Runtime on the processor, in full precision: the cascade's input
    changes its size all the time, for which OpenVINO and cuDNN prepare anew,
    and bf16 would move boxes and landmarks.
    """
    return Runtime("onnxruntime", "f32", embedding_runtime.threads)


def _has_cuda() -> bool:
    """Whether a network really starts on CUDA; what ONNX Runtime was built with is not enough."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    from face2vec.runtime.onnx_graph import GraphBuilder

    onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
    graph = GraphBuilder()
    graph.node("Relu", ["x"], "y")
    model = graph.model("try", {"x": [1]}, {"y": [1]})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CUDAExecutionProvider"]
    )
    return "CUDAExecutionProvider" in session.get_providers()


def _openvino_core() -> Any:
    """OpenVINO's one `Core` of this process."""
    with _loading_openvino:
        return _first_core()


@functools.cache
def _first_core() -> Any:
    """What the first user of OpenVINO sets up, done by one thread alone and once.

    Its bindings set up their use of NumPy at the first look into a tensor. Two threads that
    look for the first time at once can wait for each other for ever: one holds Python's lock
    and waits for the set-up, the other does the set-up and waits for Python's lock.

    Each further `Core` would give its thread another stack to handle signals on, and take it
    away when it is dropped. Dropped in the order in which they came, the first takes away the
    stack that the second goes back to, and the next Ctrl-C ends the process with a segmentation
    fault (both seen with openvino 2026.4.1).
    """
    import numpy as np
    import openvino

    _ = openvino.Tensor(np.zeros(1, np.float32)).data
    return openvino.Core()


def _has_bf16() -> bool:
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _OnnxNetwork:
    def __init__(self, graph: Graph, *, cuda: bool, keep_memory: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # One thread a run and many runs at once: no core waits for another at each layer.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Photos differ in size; what is kept for the largest so far would never be given back,
        # and detection takes as long without.
        options.enable_mem_pattern = keep_memory
        options.enable_cpu_mem_arena = keep_memory
        providers: list[Any] = [("CUDAExecutionProvider", CUDA_OPTIONS)] if cuda else []
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = onnxruntime.InferenceSession(
                source, options, providers=[*providers, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise ModelError(
                f"{_name(graph)} cannot be loaded by ONNX Runtime: {_line(error)}"
            ) from error
        if cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeUnavailableError(
                "ONNX Runtime offers CUDA but could not start it (are its CUDA libraries "
                "installed? see docs/gpu.md). Choose runtime='onnxruntime' to use the processor."
            )

        self.input_name = str(self._session.get_inputs()[0].name)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise _cannot_take(inputs, error) from error
        return outputs


class _OpenVinoNetwork:
    def __init__(self, graph: Graph, streams: int, precision: str, also: Sequence[str]) -> None:
        import openvino

        # As many streams as callers, one thread each, as ONNX Runtime is used here.
        config = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        core = _openvino_core()
        try:
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            for value in model.inputs:  # IR files often fix the batch to one
                value.get_node().set_partial_shape(
                    openvino.PartialShape([-1, *list(value.partial_shape)[1:]])
                )
            model.validate_nodes_and_infer_types()
            # ONNX names tensors, an IR file the layers that give them.
            inside = {
                name: output
                for layer in model.get_ops()
                for output in layer.outputs()
                for name in (layer.get_friendly_name(), *output.get_names())
            }
            _refuse_missing(graph, also, inside)
            model.add_outputs([inside[name] for name in also])
            self._compiled = core.compile_model(model, "CPU", config)
        except ModelError:
            raise
        except Exception as error:  # openvino raises RuntimeError and pybind's own
            raise ModelError(
                f"{_name(graph)} cannot be loaded by OpenVINO: {_line(error)}"
            ) from error
        self.input_name = str(self._compiled.input(0).get_any_name())
        self._takes = {
            name: value.get_partial_shape()
            for value in self._compiled.inputs
            for name in value.get_names()
        }
        self._mine = threading.local()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        from openvino import PartialShape

        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        try:
            # OpenVINO would refuse it, too, but the next network that is run in its thread can
            # then end the process with a segmentation fault (seen with openvino 2026.4.1).
            for name, array in inputs.items():
                if not self._takes[name].compatible(PartialShape(array.shape)):
                    raise RuntimeError(f"{name} must be of shape {self._takes[name]}")
            results = self._mine.request.infer(dict(inputs))
        except RuntimeError as error:
            raise _cannot_take(inputs, error) from error
        return [results[output] for output in self._compiled.outputs]


def _also_giving(graph: Graph, also: Sequence[str]) -> Graph:
    """The graph with some of its tensors as outputs after its own."""
    if not also:
        return graph
    import onnx

    model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(graph)
    _refuse_missing(graph, also, {name for node in model.graph.node for name in node.output})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also)
    return bytes(model.SerializeToString())


def _refuse_missing(graph: Graph, also: Sequence[str], inside: Container[str]) -> None:
    for name in also:
        if name not in inside:
            raise ModelError(f"{_name(graph)} has no tensor {name!r}; look at it with Netron")


def _name(graph: Graph) -> str:
    return "the graph" if isinstance(graph, bytes) else str(graph)


def _cannot_take(inputs: Mapping[str, NDArray[Any]], error: Exception) -> ModelError:
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    words = " ".join(str(error).split())[:300]
    return ModelError(f"the network cannot be run on the input {shapes}: {words}")


def _line(error: Exception) -> str:
    """The last line with words of a runtime's message, which is where it says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
