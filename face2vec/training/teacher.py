"""What another network says of the same crops: the targets of distillation.

The teacher sees the very crops that the student sees, changed in the same way (Beyer et
al., Knowledge distillation: a good teacher is patient and consistent, 2022), and can also
say what its maps are half-way, which the student's maps then follow (Romero et al.,
FitNets, 2015): a photo then teaches at every place and not by one embedding alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import MissingExtraError, SettingsError
from face2vec.models import load_model, standardize
from face2vec.models.store import LoadedModel

Maps = NDArray[np.float32]


class Teacher:
    """A model that is asked for embeddings, and for maps inside it.

    Args:
        model: key or file, as `Face2Vec` takes it.
        hints: names of operations inside the network whose maps are wanted, too; this
            needs a model in OpenVINO's format or an ONNX file, and OpenVINO.
        threads: that it may use.

    Attributes:
        dimension: numbers in an embedding.
        input_size: side of the crops that it takes.
    """

    def __init__(self, model: str | Path, hints: Sequence[str] = (), threads: int = 0) -> None:
        self._model: LoadedModel = load_model(model)
        self._hints = tuple(hints)
        self._thread = threading.local()
        self._network = _with_outputs(self._model.path, self._hints, threads)
        self.dimension = self._model.description.dimension
        self.input_size = self._model.description.input_size

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[Maps]]:
        """Embeddings of unit length, and the maps of the hints.

        Args:
            crops: RGB uint8 (n, input_size, input_size, 3).

        Returns:
            float32 (n, d); for each hint float32 (n, height, width, channels).
        """
        embeddings, *maps = self._run(crops)
        if self._model.description.mirror:
            embeddings = embeddings + self._run(np.ascontiguousarray(crops[:, :, ::-1]))[0]
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        # Convolutions of ONNX and OpenVINO are channels first, whatever the network takes.
        return embeddings, [np.ascontiguousarray(v.transpose(0, 2, 3, 1)) for v in maps]

    def _run(self, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        pixels = standardize(crops, self._model.description)
        if not hasattr(self._thread, "request"):  # one can be in use once at a time
            self._thread.request = self._network.create_infer_request()
        results = self._thread.request.infer([pixels])
        outputs = [np.array(results[n]) for n in range(1 + len(self._hints))]
        outputs[0] = outputs[0].reshape(len(crops), self.dimension)
        return outputs


def _with_outputs(path: Path, names: Sequence[str], threads: int):  # type: ignore[no-untyped-def]
    """The network compiled, its embedding as output 0 and the named operations after it."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("distillation", "openvino", "train") from error
    core = openvino.Core()
    network = core.read_model(path)
    operations = {op.get_friendly_name(): op for op in network.get_ops()}
    if missing := [name for name in names if name not in operations]:
        raise SettingsError(f"{path} has no operation called {', '.join(missing)}")
    if names:
        network.add_outputs([operations[name].output(0) for name in names])
    first = network.inputs[0].partial_shape
    first[0] = -1
    network.reshape(first)
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 1}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(network, "CPU", settings)
