"""The user's cache directory: downloaded weights, and ONNX graphs made from Keras weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from face2vec.errors import ModelError
from face2vec.files import expanded, write_json, written_whole
from face2vec.models.description import Precision

CACHE_VARIABLE = "FACE2VEC_CACHE"

BUILDER_VERSION = 1
"""Raised whenever ``facenet_graph`` gives another graph for the same weights."""


def cache_dir() -> Path:
    """The cache directory: ``$FACE2VEC_CACHE``, or that of the system's user."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(expanded(chosen)).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("face2vec")


def sha256_of(files: Iterable[Path]) -> str:
    """SHA-256 in hexadecimal of the bytes of several files, one after another."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def cached_graph(
    name: str, sha256: str, weights: Callable[[], Path], dimension: int, precision: Precision
) -> Path:
    """The ONNX graph of Keras weights, built unless the cache has it.

    Args:
        name: name of the model, part of the file name.
        sha256: SHA-256 of the weights file.
        weights: returns the verified weights file; called only to build.
        dimension: length of an embedding.
        precision: how the kernels are stored.

    Raises:
        ModelError: the cache cannot be written, or the weights cannot be converted.
    """
    graph = cache_dir() / "onnx" / f"{name}-{precision}-v{BUILDER_VERSION}.onnx"
    if is_intact(graph, sha256):
        return graph
    from filelock import FileLock

    try:
        graph.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{graph}.lock"):
            if not is_intact(graph, sha256):
                _build(graph, sha256, weights(), dimension, precision)
    except OSError as error:
        raise ModelError(
            f"cannot write {graph}: {error}; set {CACHE_VARIABLE} to a writable folder with 200 MB "
            "of space"
        ) from error
    return graph


def _build(graph: Path, sha256: str, weights: Path, dimension: int, precision: Precision) -> None:
    from face2vec.models.facenet import facenet_graph

    content = facenet_graph(weights, dimension, precision).SerializeToString()
    with written_whole(graph) as stream:
        stream.write(content)
    write_record(graph, hashlib.sha256(content).hexdigest(), sha256)


def is_intact(graph: Path, weights_sha256: str) -> bool:
    """Whether a cached graph is complete and was made from these weights by this version.

    Hashing takes a quarter of the time that loading the graph takes. So a file with the recorded
    size and time of change is trusted, and any other is hashed.
    """
    try:
        record = json.loads(_record_of(graph).read_text(encoding="utf-8"))
        stat = graph.stat()
        made_from = (record["weights_sha256"], record["builder"])
        if made_from != (weights_sha256, BUILDER_VERSION):
            return False
        if (record["size"], record["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return True
        if record["sha256"] != sha256_of([graph]):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with suppress(OSError):  # a read-only cache works, too, only more slowly
        write_record(graph, record["sha256"], weights_sha256)
    return True


def write_record(graph: Path, sha256: str, weights_sha256: str) -> None:
    """Write the expected content of a graph to a file beside it.

    Args:
        graph: the graph.
        sha256: SHA-256 of the graph.
        weights_sha256: SHA-256 of the weights that it was made from.
    """
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
