"""From what a user calls a model to a file that a runtime can run.

A model may be a key of the catalogue, a Keras weights file of the same
network, or an ONNX or OpenVINO IR file with a JSON description beside it.
Weights become an ONNX graph once; it is kept in the cache directory and
checked whenever it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from face2vec.calibration import Calibration
from face2vec.errors import CalibrationError, ModelError
from face2vec.files import write_json, written_whole
from face2vec.fingerprint import ModelFingerprint
from face2vec.models.catalogue import CATALOGUE, find_model
from face2vec.models.description import ModelDescription, Precision, check_precision

CACHE_VARIABLE = "FACE2VEC_CACHE"

BUILDER_VERSION = 1
"""Raised whenever ``facenet_graph`` gives another graph for the same weights."""

SHIPPED = Path(__file__).parent
"""Where the models lie that come with the package."""

GRAPHS = (".onnx", ".xml")
WEIGHTS = (".h5", ".hdf5")

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
_WEIGHTS_EXAMPLE = {
    "dimension": 512,
    "input_size": 160,
    "alignment": "margin",
    "margin": 44,
    "margin_size": 182,
    "standardization": "fixed",
}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be run.

    Attributes:
        description: how to feed it.
        path: the .onnx or .xml file for the runtime.
        weights_sha256: SHA-256 in hexadecimal of what the embeddings depend on:
            the weights file of a catalogue model or a Keras file; the bytes of
            a user's own graph followed by those of its .bin or external data.
        origin: what the user asked for: a key, or an absolute path.
    """

    description: ModelDescription
    path: Path
    weights_sha256: str
    origin: str

    def files(self) -> list[Path]:
        """The graph, and the files beside it that hold its weights."""
        return [self.path, *_weight_files(self.path)]

    @cached_property
    def fingerprint(self) -> ModelFingerprint:
        """All that an embedding depends on, and where the model was found."""
        description = self.description
        template = description.template
        return ModelFingerprint(
            key=description.key,
            origin=self.origin,
            weights=self.weights_sha256,
            dimension=description.dimension,
            input_size=description.input_size,
            alignment=description.alignment,
            template=None if template is None else [*map(list, template)],
            margin=[description.margin, description.margin_size],
            standardization=[description.standardization, description.mean, description.std],
            channels=description.channels,
            mirror=description.mirror,
        )


def calibration_of(key: str, weights: str, origin: str) -> Calibration | None:
    """What similarities of a model mean: ``NAME.calibration.json`` beside its file, or shipped.

    Args:
        key: of the model.
        weights: its `LoadedModel.weights_sha256`.
        origin: its `LoadedModel.origin`.

    Raises:
        CalibrationError: it is damaged, or what lies beside the file is of other weights.
    """
    beside = Path(origin).with_suffix(".calibration.json")
    if Path(origin).is_absolute() and beside.is_file():
        calibration = Calibration.from_json(beside.read_text(encoding="utf-8"))
        if calibration.weights != weights:
            raise CalibrationError(
                f"{beside} is of other weights of {calibration.model!r}; fit it again: "
                "face2vec calibrate"
            )
        return calibration
    shipped = Path(__file__).with_name(f"{key}.calibration.json") if key in CATALOGUE else None
    if shipped is None or not shipped.is_file():
        return None
    calibration = Calibration.from_json(shipped.read_text(encoding="utf-8"))
    # A model that somebody trained may have the name of one that is shipped.
    return calibration if calibration.weights == weights else None


def cache_dir() -> Path:
    """Where weights and graphs are kept: ``$FACE2VEC_CACHE``, or the user's cache directory."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("face2vec")


def is_on_this_machine(model: ModelDescription) -> bool:
    """Whether a catalogue model can be used without a network."""
    if model.url is None:
        return True
    cache = cache_dir()
    weights = cache / "weights" / model.url.rpartition("/")[2]
    return weights.is_file() or any((cache / "onnx").glob(f"{model.key}-*.onnx"))


def catalogue_fingerprint(model: str | os.PathLike[str]) -> ModelFingerprint | None:
    """The fingerprint of a catalogue model, without downloading it; None for any other model."""
    known = CATALOGUE.get(os.fspath(model))
    if known is None or known.sha256 is None:
        return None
    return LoadedModel(known, Path(), known.sha256, known.key).fingerprint


def load_model(
    model: str | os.PathLike[str], *, precision: Precision = "fp32", progress: bool = True
) -> LoadedModel:
    """Make a model ready to be run, fetching and converting it where that is needed.

    Args:
        model: a key of the catalogue; or the path of a Keras weights file
            (.h5), of an ONNX file or of an OpenVINO IR file (.xml), with its
            description beside it as ``<stem>.json``; or the path of such a
            description, whose entry ``file`` names the graph. A catalogue
            model's weights file needs no description, wherever it lies.
        precision: how the kernels are stored in a graph made from Keras
            weights; a user's own graph is taken as it is.
        progress: whether to show a bar while downloading.

    Raises:
        UnknownModelError: neither a key nor the path of a model.
        DownloadError: the weights are not there and could not be fetched.
        ModelError: a file is missing, damaged or not described.
        SettingsError: there is no such precision.
    """
    check_precision(precision)
    name = os.fspath(model)
    path = Path(name).expanduser().absolute()
    suffix = path.suffix.lower()
    if suffix not in (*GRAPHS, *WEIGHTS, ".json"):
        return _from_catalogue(find_model(name), precision, progress)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    described = path.with_suffix(".json")
    file = _file_of(described) if suffix == ".json" else path
    if file.suffix.lower() in WEIGHTS:
        return _from_weights(file, described, precision, origin=str(path))
    return _from_graph(file, described, origin=str(path))


def _from_catalogue(
    description: ModelDescription, precision: Precision, progress: bool
) -> LoadedModel:
    sha256 = description.sha256
    if sha256 is None:
        raise ModelError(f"model {description.key!r} has no check sum in the catalogue")
    if description.url is None:
        graph = SHIPPED / f"{description.key}.onnx"
        if not graph.is_file():
            raise ModelError(f"{graph} is missing, which belongs to face2vec; install it again")
        _check_sha256(description, _sha256_of([graph]), [graph])
        return LoadedModel(description, graph, sha256, origin=description.key)
    graph = _cached_graph(
        description.key, sha256, lambda: weights_of(description.key, progress=progress),
        description.dimension, precision,
    )  # fmt: skip
    return LoadedModel(description, graph, sha256, origin=description.key)


def weights_of(key: str, *, progress: bool = True) -> Path:
    """The weights file of a catalogue model that is not shipped, fetched where it is missing.

    Raises:
        UnknownModelError: no such key.
        DownloadError: it could not be fetched.
        ModelError: the model is shipped as a graph.
    """
    from face2vec.models.download import download

    description = find_model(key)
    url, sha256 = description.url, description.sha256
    if url is None or sha256 is None:
        raise ModelError(f"model {key!r} has no weights file of its own")
    place = cache_dir() / "weights" / url.rsplit("/", 1)[-1]
    size = description.size_bytes
    return download(url, place, sha256=sha256, size=size, progress=progress)


def _from_weights(
    weights: Path, described: Path, precision: Precision, *, origin: str
) -> LoadedModel:
    """A Keras weights file: one of the catalogue's, or the user's own."""
    sha256 = _sha256_of([weights])
    published = next((m for m in CATALOGUE.values() if m.sha256 == sha256), None)
    if published is not None and not described.is_file():
        description, name = published, published.key
    else:
        description, name = _description(described, weights, _WEIGHTS_EXAMPLE), sha256[:16]
        _check_sha256(description, sha256, [weights])
    if (description.input_size, description.layout) != (160, "NHWC"):
        raise ModelError(
            f"{described} gives input_size {description.input_size} and layout "
            f"{description.layout}; Keras weights of FaceNet take input_size 160 and layout NHWC"
        )
    graph = _cached_graph(name, sha256, lambda: weights, description.dimension, precision)
    return LoadedModel(description, graph, sha256, origin)


def _from_graph(graph: Path, described: Path, *, origin: str) -> LoadedModel:
    """A user's own ONNX or OpenVINO IR file."""
    description = _description(described, graph, _GRAPH_EXAMPLE)
    parts = [graph, *_weight_files(graph)]
    sha256 = _sha256_of(parts)
    _check_sha256(description, sha256, parts)
    return LoadedModel(description, graph, sha256, origin)


def _file_of(described: Path) -> Path:
    """The graph or weights that a description is of: its ``file``, or that of the same stem."""
    values = _json(described)
    if "file" in values:
        file = described.parent / str(values["file"])
        if file.suffix.lower() not in (*GRAPHS, *WEIGHTS):
            raise ModelError(
                f"{described}: file {values['file']!r} must end in one of "
                f"{', '.join((*GRAPHS, *WEIGHTS))}"
            )
        if not file.is_file():
            raise ModelError(f"{described}: there is no file {file}")
        return file
    found = [f for f in map(described.with_suffix, (*GRAPHS, *WEIGHTS)) if f.is_file()]
    if len(found) != 1:
        raise ModelError(
            f"{described}: {len(found)} models lie beside it under its name; "
            'name the one that is meant in the entry "file"'
        )
    return found[0]


def _description(described: Path, model: Path, example: dict[str, object]) -> ModelDescription:
    """Read the description of a user's model."""
    if not described.is_file():
        raise ModelError(
            f"{model} has no description. Write one to {described}, for example: "
            f"{json.dumps(example)}"
        )
    try:
        return ModelDescription.from_json(described.read_text(encoding="utf-8"), key=described.stem)
    except (ModelError, UnicodeDecodeError) as error:
        raise ModelError(f"{described}: {error}") from error


def _json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} must be a JSON object: {{...}}")
    return values


def _weight_files(graph: Path) -> list[Path]:
    """The files beside a graph that hold its weights; an ONNX file mostly holds its own."""
    if graph.suffix.lower() == ".xml":
        files = [graph.with_suffix(".bin")]
    elif b"location" in graph.read_bytes():  # the key by which ONNX names external data
        files = _external_data(graph)
    else:
        files = []
    for file in files:
        if not file.is_file():
            raise ModelError(f"{graph} keeps its weights in {file}, which is not there")
    return files


def _external_data(graph: Path) -> list[Path]:
    import onnx

    try:
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
    except Exception as error:  # what it raises is protobuf's, a dependency of onnx and not ours
        raise ModelError(f"{graph} is not an ONNX file: {error}") from error
    names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return [graph.parent / name for name in sorted(names)]


def _sha256_of(files: Iterable[Path]) -> str:
    """SHA-256 of several files' bytes one after another."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def _check_sha256(description: ModelDescription, found: str, files: Iterable[Path]) -> None:
    if description.sha256 not in (None, found):
        raise ModelError(
            f"the description of model {description.key!r} gives sha256 {description.sha256}, "
            f"but {' + '.join(map(str, files))} has {found}"
        )


def _cached_graph(
    name: str, sha256: str, weights: Callable[[], Path], dimension: int, precision: Precision
) -> Path:
    """The ONNX graph of Keras weights, built unless the cache has it whole.

    Args:
        name: of the model, part of the file's name.
        sha256: of the weights file.
        weights: gives the verified weights file; called only to build.
        dimension: numbers in an embedding.
        precision: how the kernels are stored.
    """
    graph = cache_dir() / "onnx" / f"{name}-{precision}-v{BUILDER_VERSION}.onnx"
    if _is_whole(graph, sha256):
        return graph
    from filelock import FileLock

    try:
        graph.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{graph}.lock"):
            if not _is_whole(graph, sha256):
                _build(graph, sha256, weights(), dimension, precision)
    except OSError as error:
        raise ModelError(
            f"{graph} could not be written: {error}. Set {CACHE_VARIABLE} to a folder with "
            "200 MB of space that may be written to"
        ) from error
    return graph


def _build(graph: Path, sha256: str, weights: Path, dimension: int, precision: Precision) -> None:
    from face2vec.models.facenet import facenet_graph

    content = facenet_graph(weights, dimension, precision).SerializeToString()
    with written_whole(graph) as stream:
        stream.write(content)
    _write_record(graph, hashlib.sha256(content).hexdigest(), sha256)


def _is_whole(graph: Path, weights_sha256: str) -> bool:
    """Whether a cached graph is what was written, from these weights by this builder.

    Hashing takes as long as a quarter of loading the graph, so a file of the
    recorded size and time of change is trusted; any other is hashed.
    """
    try:
        record = json.loads(_record_of(graph).read_text(encoding="utf-8"))
        stat = graph.stat()
        made_from = (record["weights_sha256"], record["builder"])
        if made_from != (weights_sha256, BUILDER_VERSION):
            return False
        if (record["size"], record["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return True
        if record["sha256"] != _sha256_of([graph]):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with suppress(OSError):  # a cache that may only be read is as good, only slower
        _write_record(graph, record["sha256"], weights_sha256)
    return True


def _write_record(graph: Path, sha256: str, weights_sha256: str) -> None:
    """Write down beside a graph what it has to be."""
    stat = graph.stat()
    record = {
        "sha256": sha256,
        "weights_sha256": weights_sha256,
        "builder": BUILDER_VERSION,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    write_json(_record_of(graph), record)


def _record_of(graph: Path) -> Path:
    return graph.with_suffix(".json")
