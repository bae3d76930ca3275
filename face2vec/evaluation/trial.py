"""Tries on drawn people which description of an ONNX file tells people apart best.

A graph says its layout and size, but not how its crops are aligned, how their pixels are scaled
and in which order their channels are. `try_out` runs it with every usual combination, on faces
whose landmarks are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from face2vec import samples
from face2vec.encoding.align import cut_crops
from face2vec.errors import ModelError
from face2vec.files import write_json
from face2vec.models.description import (
    TEMPLATE_NAMES,
    Channels,
    ModelDescription,
    standardize,
)
from face2vec.models.graph import EmbeddingGraph
from face2vec.runtime.network import Network
from face2vec.runtime.select import Runtime
from face2vec.types import Face, Landmarks, Photo

PEOPLE, PHOTOS = 16, 3
BATCH = 16
AS_GOOD = 0.95
"""Share of the best d′ from which on the most common choice is preferred."""
CHANCE = 0.6
"""AUC at or below which a network does not tell people apart."""

USUAL_PIXELS: dict[str, dict[str, Any]] = {
    "(x - 127.5) / 127.5": {"mean": 127.5, "std": 127.5},
    "(x - 127.5) / 128": {"mean": 127.5, "std": 128.0},
    "0 to 1": {"mean": 0.0, "std": 255.0},
    "0 to 255": {"mean": 0.0, "std": 1.0},
    "ImageNet's mean and deviation": {
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
    },
    "each crop's mean and deviation": {"standardization": "per-image"},
}
"""Usual ways to scale pixels, the most common first."""
FULL_RANGE = "0 to 255"


@dataclass(frozen=True)
class Trial:
    """How well a network tells drawn people apart with one description.

    Attributes:
        description: the description.
        template: name of its template.
        pixels: its standardisation in words, a key of `USUAL_PIXELS`.
        d_prime: difference of the mean similarities of genuine and impostor pairs, divided by
            the root of the mean of their variances; 0 if the network gives no valid embeddings.
        auc: share of cases in which a genuine pair is more similar than an impostor pair, 0…1.
    """

    description: ModelDescription
    template: str
    pixels: str
    d_prime: float
    auc: float


def try_out(graph: EmbeddingGraph, *, people: int = PEOPLE, progress: bool = False) -> list[Trial]:
    """Try all usual descriptions of a graph on drawn people.

    Args:
        graph: the network.
        people: number of drawn people.
        progress: show a progress bar on standard error.

    Returns:
        The trials, the most common choice first.

    Raises:
        ModelError: the graph cannot be run.
    """
    from tqdm import tqdm

    drawn = list(_drawn(people))
    persons = np.array([person for person, _, _ in drawn])
    network = Runtime("onnxruntime").load(graph.path, few_sizes=True)
    templates = [name for name, _ in _templates(graph)]
    pixels = sorted(USUAL_PIXELS, key=lambda name: graph.scales_pixels and name != FULL_RANGE)
    crops = {}
    found = []
    choices = list(product(get_args(Channels), pixels, templates))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for channels, scaling, template in tqdm(choices, unit="trial", disable=not progress):
            described = _description(graph, channels, scaling, template)
            if template not in crops:
                crops[template] = np.concatenate(
                    [cut_crops(photo, [face], described) for _, photo, face in drawn]
                )
            parts = [crops[template][at : at + BATCH] for at in range(0, len(drawn), BATCH)]
            outputs = list(pool.map(lambda part, d=described: _run(network, part, d), parts))
            d_prime, auc = _separation(np.concatenate(outputs), persons)
            found.append(Trial(described, template, scaling, d_prime, auc))
    return found


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial to go by: the most common choice among those that are about as good as the best.

    The order of the channels is the one with the higher d′, averaged over the templates, at its
    best standardisation. Of the trials with this order, the first one is taken whose d′ is at
    least `AS_GOOD` times the best one.

    Args:
        trials: the trials, the most common choice first, as from `try_out`.

    Raises:
        ModelError: none of them tells people apart.
    """
    by_input: dict[tuple[Channels, str], list[float]] = {}
    for trial in trials:
        by_input.setdefault((trial.description.channels, trial.pixels), []).append(trial.d_prime)
    channels, _ = max(by_input, key=lambda key: float(np.mean(by_input[key])))
    left = [trial for trial in trials if trial.description.channels == channels]
    best = max(left, key=lambda trial: trial.d_prime)
    if best.auc <= CHANCE:
        raise ModelError(
            f"model {best.description.key!r} does not tell drawn people apart (AUC {best.auc:.2f} "
            "at best, chance is 0.5); is it an embedding network for faces?"
        )
    return next(trial for trial in left if trial.d_prime >= AS_GOOD * best.d_prime)


def write_description(trial: Trial, model: Path, out: Path) -> None:
    """Write a description that `load_model` reads.

    Args:
        trial: the description, and the name of its template.
        model: the ONNX file.
        out: the JSON file to write, atomically; beside another file than its own, it names the
            model in the entry ``file``.

    Raises:
        OSError: the file cannot be written.
    """
    described = trial.description
    values: dict[str, Any] = {
        "dimension": described.dimension,
        "input_size": described.input_size,
        "alignment": described.alignment,
        "template": trial.template,
        "standardization": described.standardization,
    }
    if described.standardization == "fixed":
        values |= {"mean": described.mean, "std": described.std}
    values |= {"channels": described.channels, "layout": described.layout}
    if out.absolute() != model.absolute().with_suffix(".json"):
        values["file"] = os.path.relpath(model.absolute(), out.absolute().parent)
    write_json(out, values)


def _templates(graph: EmbeddingGraph) -> list[tuple[str, Any]]:
    """The known templates by name, the likelier one for this size first."""
    usual = "insightface" if graph.input_size == 112 else "face2vec"
    return sorted(TEMPLATE_NAMES.items(), key=lambda item: item[0] != usual)


def _description(
    graph: EmbeddingGraph, channels: Channels, scaling: str, template: str
) -> ModelDescription:
    return ModelDescription(
        graph.path.stem,
        graph.dimension,
        graph.input_size,
        "landmarks",
        template=TEMPLATE_NAMES[template],
        channels=channels,
        layout=graph.layout,
        **USUAL_PIXELS[scaling],
    )


def _drawn(people: int) -> Iterator[tuple[int, Photo, Face]]:
    """Photos of drawn people: number of the person, photo, face."""
    for number, person in enumerate(samples.people(people)):
        for one in range(PHOTOS):
            photo = person.photo(one)
            (face,) = photo.faces
            height, width = photo.image.shape[:2]
            landmarks = cast("Landmarks", tuple((float(x), float(y)) for x, y in face.landmarks))
            yield (
                number,
                Photo("<array>", photo.image, width, height),
                Face(face.box, landmarks, confidence=1.0),
            )


def _run(
    network: Network, crops: NDArray[np.uint8], description: ModelDescription
) -> NDArray[np.float32]:
    output = network.run({network.input_name: standardize(crops, description)})[0]
    return output.reshape(len(crops), description.dimension)


def _separation(embeddings: NDArray[np.float32], persons: NDArray[np.int_]) -> tuple[float, float]:
    """d′ and AUC of all pairs; 0 and 0.5 for embeddings without a length."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        return 0.0, 0.5
    unit = embeddings / lengths
    pairs = np.triu_indices(len(unit), 1)
    similar, same = (unit @ unit.T)[pairs], (persons[:, None] == persons)[pairs]
    genuine, impostor = similar[same], similar[~same]
    spread = float(np.sqrt((genuine.var() + impostor.var()) / 2))
    if spread < 1e-9:
        return 0.0, 0.5
    higher = (genuine[:, None] > impostor).mean() + (genuine[:, None] == impostor).mean() / 2
    return float(genuine.mean() - impostor.mean()) / spread, float(higher)
