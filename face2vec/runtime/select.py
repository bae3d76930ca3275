"""Chooses where networks run and loads them there.

ONNX Runtime is always installed. OpenVINO runs the embedding network where it is installed, CUDA
where ONNX Runtime offers it. If a runtime is named and is not available, that is an error: there
is no silent fallback.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face2vec.errors import MissingExtraError, RuntimeUnavailableError, SettingsError
from face2vec.runtime.network import Graph, Network
from face2vec.runtime.onnxruntime import OnnxNetwork, has_cuda
from face2vec.runtime.openvino import OpenVinoNetwork, has_bf16, lost_by_fork

log = logging.getLogger("face2vec")

RUNTIMES = ("auto", "onnxruntime", "openvino", "cuda")


@dataclass(frozen=True)
class Runtime:
    """Where networks run.

    Attributes:
        name: "onnxruntime", "openvino" or "cuda".
        precision: "f32"; "bf16" with OpenVINO on a processor that supports it.
        threads: how many threads run a network at the same time.
    """

    name: str
    precision: str = "f32"
    threads: int = 1

    def load(
        self, graph: Graph, outputs: Sequence[str] = (), *, few_sizes: bool = False
    ) -> Network:
        """Load an ONNX graph (bytes or file) or, with OpenVINO, an IR ``.xml`` file.

        Args:
            graph: the graph's bytes, or the path of its file.
            outputs: names of tensors inside the graph (of layers, in an IR file) to return after
                the graph's own outputs.
            few_sizes: the inputs have only a few different sizes.

        Raises:
            ModelError: the graph cannot be read, or has no such tensor.
            RuntimeUnavailableError: an IR file without OpenVINO as the runtime.
        """
        if self.name == "openvino":
            return OpenVinoNetwork(graph, self.threads, self.precision, outputs)
        if isinstance(graph, Path) and graph.suffix == ".xml":
            raise RuntimeUnavailableError(
                f"{graph} is an OpenVINO file and the runtime is {self.name}; "
                "choose runtime='openvino' (pip install 'face2vec[openvino]')"
            )
        return OnnxNetwork(graph, outputs, cuda=self.name == "cuda", few_sizes=few_sizes)

    def describe(self) -> dict[str, Any]:
        """Name, precision and threads as JSON-able values, for ``info``."""
        return {"name": self.name, "precision": self.precision, "threads": self.threads}


def choose_runtime(wish: str = "auto", threads: int | None = None) -> Runtime:
    """The runtime for the embedding network.

    ``"auto"`` prefers CUDA where ONNX Runtime offers it, then OpenVINO where it is installed (and
    was not used before a fork), then ONNX Runtime on the processor.

    Args:
        wish: one of ``RUNTIMES``.
        threads: threads a network may use; None for all cores.

    Raises:
        SettingsError: an unknown name, or fewer threads than one.
        MissingExtraError: OpenVINO was asked for and is not installed.
        RuntimeUnavailableError: CUDA was asked for and is not there, or OpenVINO in a process that
            was forked from one that used it.
    """
    if wish not in RUNTIMES:
        raise SettingsError(f"unknown runtime {wish!r}; choose one of {', '.join(RUNTIMES)}")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads must be at least 1, not {threads}")
    count = threads or os.cpu_count() or 1
    name = wish
    if wish == "auto":
        name = "onnxruntime"
        if has_cuda():
            name = "cuda"
        elif importlib.util.find_spec("openvino") and not lost_by_fork():
            name = "openvino"
    elif wish == "cuda" and not has_cuda():
        raise RuntimeUnavailableError(
            "runtime 'cuda' was asked for, but this ONNX Runtime offers no CUDA device; "
            "install onnxruntime-gpu instead of onnxruntime (see docs/gpu.md), "
            "or choose runtime='auto'"
        )
    elif wish == "openvino" and not importlib.util.find_spec("openvino"):
        raise MissingExtraError("runtime 'openvino'", "openvino", "openvino")
    precision = "bf16" if name == "openvino" and has_bf16() else "f32"
    runtime = Runtime(name, precision, count)
    log.info("embedding network: %s, %s, %d threads", name, precision, count)
    return runtime


def detector_runtime(embedding_runtime: Runtime) -> Runtime:
    """The runtime for the detector: always ONNX Runtime on the processor, in float32.

    The detector's input changes size with every photo, and OpenVINO and cuDNN recompile for each
    new size. bf16 would move boxes and landmarks.
    """
    return Runtime("onnxruntime", "f32", embedding_runtime.threads)
