"""The seam for formats of model files: the `ModelFormat` protocol and its implementations.

A format turns a model file into a graph that a runtime loads. Catalogue entries and files of users
go through the same formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from face2vec.errors import ModelError
from face2vec.models.cache import cached_graph
from face2vec.models.description import FormatName, ModelDescription, Precision


class ModelFormat(Protocol):
    """One format of model files.

    Attributes:
        name: name of the format, as in `ModelDescription.format`.
        suffixes: lower-case suffixes of its files.
        example: a description for a model of this format, as an example in error messages.
    """

    name: FormatName
    suffixes: tuple[str, ...]
    example: Mapping[str, object]

    def files(self, path: Path) -> list[Path]:
        """All files that hold a model: the file itself, and files beside it with weights.

        Raises:
            ModelError: one of them is missing, or the file has another format.
        """
        ...

    def graph(
        self,
        file: Callable[[], Path],
        name: str,
        sha256: str,
        description: ModelDescription,
        precision: Precision,
    ) -> Path:
        """The graph to run.

        Args:
            file: returns the verified model file; called only if it is needed.
            name: name of the model for the cache.
            sha256: SHA-256 of the model's files.
            description: describes the model.
            precision: how kernels are stored in a graph that is made here.

        Raises:
            ModelError: the description does not fit the format, or the file cannot be converted.
        """
        ...


_GRAPH_EXAMPLE = {
    "dimension": 512,
    "input_size": 112,
    "alignment": "landmarks",
    "template": "face2vec",
    "standardization": "fixed",
    "mean": 127.5,
    "std": 127.5,
    "channels": "RGB",
    "layout": "NCHW",
}


class OnnxFile:
    """An ONNX file, which a runtime loads as it is."""

    name: FormatName = "onnx"
    suffixes: tuple[str, ...] = (".onnx",)
    example: Mapping[str, object] = _GRAPH_EXAMPLE

    def files(self, path: Path) -> list[Path]:
        """The file, and the files with its external data.

        Raises:
            ModelError: one of them is missing, or the file is not an ONNX file.
        """
        # ONNX names external data by this key; most files have none.
        beside = _external_data(path) if b"location" in path.read_bytes() else []
        return [path, *_existing(path, beside)]

    def graph(self, file: Callable[[], Path], *_: Any) -> Path:
        """The file itself."""
        return file()


class OpenVinoFile:
    """An OpenVINO IR file, which only OpenVINO loads."""

    name: FormatName = "openvino"
    suffixes: tuple[str, ...] = (".xml",)
    example: Mapping[str, object] = _GRAPH_EXAMPLE

    def files(self, path: Path) -> list[Path]:
        """The file and its ``.bin``.

        Raises:
            ModelError: the ``.bin`` is missing.
        """
        return [path, *_existing(path, [path.with_suffix(".bin")])]

    def graph(self, file: Callable[[], Path], *_: Any) -> Path:
        """The file itself."""
        return file()


class KerasWeights:
    """Weights of FaceNet's network in HDF5, converted to ONNX once and cached."""

    name: FormatName = "keras"
    suffixes: tuple[str, ...] = (".h5", ".hdf5")
    example: Mapping[str, object] = {
        "dimension": 512,
        "input_size": 160,
        "alignment": "margin",
        "margin": 44,
        "margin_size": 182,
        "standardization": "fixed",
    }

    def files(self, path: Path) -> list[Path]:
        """The file."""
        return [path]

    def graph(
        self,
        file: Callable[[], Path],
        name: str,
        sha256: str,
        description: ModelDescription,
        precision: Precision,
    ) -> Path:
        """The cached ONNX graph, see `ModelFormat.graph`.

        Raises:
            ModelError: the description does not fit FaceNet's network, or the file cannot be
                converted.
        """
        if (description.input_size, description.layout) != (160, "NHWC"):
            raise ModelError(
                f"model {description.key!r} has input_size {description.input_size} and layout "
                f"{description.layout}; Keras weights of FaceNet need input_size 160 and layout "
                "NHWC"
            )
        return cached_graph(name, sha256, file, description.dimension, precision)


FORMATS: tuple[ModelFormat, ...] = (OnnxFile(), OpenVinoFile(), KerasWeights())
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)


def format_of(path: Path) -> ModelFormat:
    """The format of a model file by its suffix, one of ``SUFFIXES``."""
    return next(known for known in FORMATS if path.suffix.lower() in known.suffixes)


def format_named(name: FormatName) -> ModelFormat:
    """The format with this name."""
    return next(known for known in FORMATS if known.name == name)


def _existing(path: Path, files: list[Path]) -> list[Path]:
    for file in files:
        if not file.is_file():
            raise ModelError(f"{path} has its weights in {file}, which does not exist")
    return files


def _external_data(graph: Path) -> list[Path]:
    import onnx

    try:
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
    except Exception as error:  # protobuf's errors; protobuf is a dependency of onnx, not ours
        raise ModelError(f"{graph} is not an ONNX file: {error}") from error
    names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return [graph.parent / name for name in sorted(names)]
