"""Trials of descriptions on drawn people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from face2vec.errors import ModelError
from face2vec.evaluation.trial import Trial, _separation, best_of, try_out, write_description
from face2vec.models import CATALOGUE, load_model
from face2vec.models.graph import read_graph
from face2vec.models.store import SHIPPED

MINI = CATALOGUE["mini"]


def wrapped(path: Path, nodes: Sequence[onnx.NodeProto], **constants: Any) -> Path:
    """The package's model with other operators between its input and itself.

    The last node's output takes the place of the input.
    """
    model = onnx.load(SHIPPED / "mini.onnx")
    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        for place, value in enumerate(node.input):
            if value == name:
                node.input[place] = nodes[-1].output[0]
    for node in nodes:
        for place, value in enumerate(node.input):
            if value == "input":
                node.input[place] = name
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()
    )
    onnx.save(model, path)
    return path


def as_trained(path: Path) -> Path:
    return wrapped(path, [helper.make_node("Identity", ["input"], ["same"])])


def with_blue_first(path: Path) -> Path:
    swap = helper.make_node("Gather", ["input", "order"], ["swapped"], axis=-1)
    return wrapped(path, [swap], order=np.array([2, 1, 0]))


def with_bytes(path: Path) -> Path:
    """It takes 0 to 255, and does not show it by its first operator."""
    nodes = [
        helper.make_node("Identity", ["input"], ["same"]),
        helper.make_node("Sub", ["same", "half"], ["centred"]),
        helper.make_node("Div", ["centred", "half"], ["scaled"]),
    ]
    return wrapped(path, nodes, half=np.float32(127.5))


@pytest.mark.parametrize(
    ("made", "channels", "mean", "std"),
    [
        (as_trained, "RGB", 127.5, 127.5),
        (with_blue_first, "BGR", 127.5, 127.5),
        (with_bytes, "RGB", 0.0, 1.0),
    ],
)
def test_trial_finds_how_the_pixels_go_in(
    made: Any, channels: str, mean: float, std: float, tmp_path: Path
) -> None:
    graph = read_graph(made(tmp_path / "net.onnx"))
    trials = try_out(graph)
    assert len(trials) == 24
    chosen = best_of(trials)
    found = chosen.description
    assert found == replace(
        MINI,
        key="net",
        channels=channels,
        mean=mean,
        std=std,
        sha256=None,
        size_bytes=None,
        lfw=None,
        **dict.fromkeys(("licence", "trained_on", "commercial_use"), "not stated"),
    )
    assert chosen.template == "face2vec"
    assert chosen.auc > 0.99
    assert chosen.d_prime > 4


def test_trial_of_a_graph_that_scales_pixels_begins_with_full_range(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    nodes = [helper.make_node("Sub", ["input", "none"], ["same"])]
    graph = read_graph(wrapped(path, nodes, none=np.float32(0)))
    assert graph.scales_pixels
    trials = try_out(graph, people=2)
    assert [trial.pixels for trial in trials[:3:2]] == ["0 to 255", "(x - 127.5) / 127.5"]


def trial(d_prime: float, channels: Any = "RGB", pixels: str = "a", auc: float = 0.9) -> Trial:
    return Trial(replace(MINI, channels=channels), "face2vec", pixels, d_prime, auc)


def test_best_of_takes_the_most_common_of_those_that_are_as_good() -> None:
    trials = [trial(3.0), trial(3.81, pixels="b"), trial(4.0, pixels="c"), trial(3.9, pixels="d")]
    assert best_of(trials) is trials[1]


def test_best_of_takes_the_order_of_channels_that_is_better_on_average() -> None:
    rgb = [trial(4.0), trial(3.0)]
    bgr = [trial(3.9, "BGR"), trial(3.8, "BGR")]
    assert best_of([*rgb, *bgr]) is bgr[0]


def test_best_of_refuses_a_network_that_does_not_tell_people_apart() -> None:
    with pytest.raises(ModelError, match=r"'mini' does not tell .*AUC 0\.55 at best"):
        best_of([trial(0.1, auc=0.55), trial(0.0, auc=0.5)])


def test_separation_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(4), 3)
    vectors = rng.standard_normal((4, 8))[persons] + rng.standard_normal((12, 8))
    genuine, impostor = [], []
    for one in range(12):
        for other in range(one):
            a, b = vectors[one], vectors[other]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            (genuine if persons[one] == persons[other] else impostor).append(cosine)
    spread = np.sqrt((np.var(genuine) + np.var(impostor)) / 2)
    wins = [(g > i) + 0.5 * (g == i) for g in genuine for i in impostor]
    d_prime, auc = _separation(vectors.astype(np.float32), persons)
    assert d_prime == pytest.approx((np.mean(genuine) - np.mean(impostor)) / spread, abs=1e-5)
    assert auc == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1.0])
def test_separation_of_embeddings_without_meaning_is_chance(value: float) -> None:
    vectors = np.full((4, 8), value, np.float32)
    assert _separation(vectors, np.array([0, 0, 1, 1])) == (0.0, 0.5)


@pytest.mark.parametrize("place", ["net.json", "other.json", "deeper/other.json"])
def test_write_description_is_read_by_load_model(place: str, tmp_path: Path) -> None:
    model = Path(shutil.copy(SHIPPED / "mini.onnx", tmp_path / "net.onnx"))
    out = tmp_path / place
    out.parent.mkdir(exist_ok=True)
    described = replace(
        read_trial().description, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    )
    write_description(replace(read_trial(), description=described), model, out)
    loaded = load_model(model if place == "net.json" else out)
    assert loaded.path.samefile(model)
    assert loaded.description == replace(described, key=out.stem)
    assert json.loads(out.read_text(encoding="utf-8"))["template"] == "face2vec"


def read_trial() -> Trial:
    text = json.dumps(
        {"dimension": 256, "input_size": 96, "alignment": "landmarks", "template": "face2vec"}
    )
    return Trial(type(MINI).from_json(text, key="net"), "face2vec", "a", 1.0, 0.9)
