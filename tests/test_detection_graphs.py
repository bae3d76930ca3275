"""The graphs against a slow, obvious forward in numpy, with the semantics of Keras."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import joblib
import numpy as np
import pytest

from face2vec.detection.graphs import (
    PIXEL_MEAN,
    crop_graph,
    onet_graph,
    pnet_graph,
    read_weights,
    rnet_graph,
)
from face2vec.errors import ModelError
from face2vec.runtime.select import Runtime

Array = np.ndarray


def conv(image: Array, kernel: Array, bias: Array) -> Array:
    """Convolution without padding: image (height, width, in), kernel (kh, kw, in, out)."""
    kh, kw = kernel.shape[:2]
    height, width = image.shape[0] - kh + 1, image.shape[1] - kw + 1
    out = np.zeros((height, width, kernel.shape[3]))
    for y in range(kh):
        for x in range(kw):
            out += image[y : y + height, x : x + width] @ kernel[y, x]
    return out + bias


def prelu(values: Array, slope: Array) -> Array:
    return np.where(values > 0, values, slope * values)


def pool(image: Array, side: int, padding: str) -> Array:
    """Max pooling at a stride of 2; "same" pads half, rounded down, before and the rest after."""
    if padding == "same":
        pads = []
        for length in image.shape[:2]:
            total = max((math.ceil(length / 2) - 1) * 2 + side - length, 0)
            pads.append((total // 2, total - total // 2))
        image = np.pad(image, [*pads, (0, 0)], constant_values=-np.inf)
    height, width = ((length - side) // 2 + 1 for length in image.shape[:2])
    out = np.empty((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            out[y, x] = image[2 * y : 2 * y + side, 2 * x : 2 * x + side].max(axis=(0, 1))
    return out


def face_probability(logits: Array) -> Array:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shares / shares.sum(axis=-1, keepdims=True))[..., 1]


def flat(maps: Array) -> Array:
    """Permute((2, 1, 3)), then Flatten."""
    return maps.transpose(1, 0, 2).reshape(-1)


def pnet(image: Array) -> tuple[Array, ...]:
    w = read_weights("pnet")
    x = pool(prelu(conv(image, w[0], w[1]), w[2]), 2, "same")
    x = prelu(conv(x, w[3], w[4]), w[5])
    x = prelu(conv(x, w[6], w[7]), w[8])
    return face_probability(conv(x, w[11], w[12])), conv(x, w[9], w[10])


def rnet(image: Array) -> tuple[Array, ...]:
    w = read_weights("rnet")
    x = pool(prelu(conv(image, w[0], w[1]), w[2]), 3, "same")
    x = pool(prelu(conv(x, w[3], w[4]), w[5]), 3, "valid")
    x = prelu(conv(x, w[6], w[7]), w[8])
    x = prelu(flat(x) @ w[9] + w[10], w[11])
    return face_probability(x @ w[14] + w[15]), x @ w[12] + w[13]


def onet(image: Array) -> tuple[Array, ...]:
    w = read_weights("onet")
    x = pool(prelu(conv(image, w[0], w[1]), w[2]), 3, "same")
    x = pool(prelu(conv(x, w[3], w[4]), w[5]), 3, "valid")
    x = pool(prelu(conv(x, w[6], w[7]), w[8]), 2, "same")
    x = prelu(conv(x, w[9], w[10]), w[11])
    x = prelu(flat(x) @ w[12] + w[13], w[14])
    return face_probability(x @ w[19] + w[20]), x @ w[15] + w[16], x @ w[17] + w[18]


def photos(count: int, height: int, width: int) -> Array:
    """Coarse random images 0…255, so that not all units say the same: (n, height, width, 3)."""
    rng = np.random.default_rng(height)
    coarse = rng.uniform(0, 255, (count, -(-height // 6), -(-width // 6), 3))
    fine = coarse.repeat(6, axis=1).repeat(6, axis=2)[:, :height, :width]
    return np.asarray(0.7 * fine + 0.3 * rng.uniform(0, 255, fine.shape))


def run(graph: bytes, images: Array) -> list[Array]:
    planes = (images - PIXEL_MEAN).transpose(0, 3, 1, 2).astype(np.float32)
    return Runtime("onnxruntime").load(graph).run({"pixels": planes})


@pytest.mark.parametrize(
    ("height", "width"), [(12, 12), (13, 12), (12, 15), (31, 44), (40, 57), (33, 21)]
)
def test_pnet_graph_equals_the_slow_forward(height: int, width: int) -> None:
    image = photos(1, height, width)
    logits, offsets = run(pnet_graph(), image)
    wanted_scores, wanted_offsets = pnet((image[0] - 127.5) / 128)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[0, 0])), wanted_scores, atol=1e-4)
    np.testing.assert_allclose(offsets[0], wanted_offsets, atol=1e-4)


@pytest.mark.parametrize(
    ("graph", "slow", "side"), [(rnet_graph, rnet, 24), (onet_graph, onet, 48)], ids=["r", "o"]
)
def test_rnet_and_onet_graph_equal_the_slow_forward(
    graph: Callable[[], bytes], slow: Callable[[Array], tuple[Array, ...]], side: int
) -> None:
    images = photos(5, side, side)
    outputs = run(graph(), images)
    for row, image in enumerate(images):
        scores, *others = slow((image - 127.5) / 128)
        np.testing.assert_allclose(1 / (1 + np.exp(-outputs[0][row])), [scores], atol=1e-4)
        for output, wanted in zip(outputs[1:], others, strict=True):
            np.testing.assert_allclose(output[row], wanted, atol=1e-4)


@pytest.mark.parametrize("side", [24, 48])
def test_crop_graph_equals_slow_bilinear_sampling(side: int) -> None:
    rng = np.random.default_rng(3)
    image = rng.uniform(-127, 127, (3, 70, 90)).astype(np.float32)
    boxes = np.array([[3, 4, 60, 61], [10.25, 7.5, 22.75, 20], [0, 0, 89, 69]], np.float32)
    (patches,) = (
        Runtime("onnxruntime").load(crop_graph(side)).run({"planes": image[None], "boxes": boxes})
    )
    for box, patch in zip(boxes.astype(float), patches, strict=True):
        for row in range(side):
            for column in range(side):
                x = box[0] + (column + 0.5) * (box[2] - box[0]) / side
                y = box[1] + (row + 0.5) * (box[3] - box[1]) / side
                first_x, first_y = min(max(int(x), 0), 88), min(max(int(y), 0), 68)
                dx, dy = x - first_x, y - first_y
                four = image[:, first_y : first_y + 2, first_x : first_x + 2].astype(float)
                wanted = four @ [1 - dx, dx] @ [1 - dy, dy]
                np.testing.assert_allclose(patch[:, row, column], wanted, atol=5e-3)


def test_weights_are_read_without_tensorflow_or_the_code_of_mtcnn() -> None:
    code = (
        "import sys\n"
        "from face2vec.detection.graphs import read_weights\n"
        "read_weights('onet')\n"
        "print([name for name in ('tensorflow', 'keras', 'mtcnn') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "[]\n"


def test_reading_weights_says_nothing_on_standard_error() -> None:
    """On Python 3.13 the file object of the package lz4 complained there that it was closed."""
    code = "import gc, face2vec.detection.graphs as g; g.read_weights('onet'); gc.collect()"
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=root)
    assert done.stderr == ""


def test_missing_package_error_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"'mtcnn'.* is not installed; install it: pip install mtcnn"
    ):
        read_weights("pnet")


def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package mtcnn lie in a folder; returns where its weights go."""
    spec = ModuleSpec("mtcnn", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    weights = folder / "assets" / "weights"
    weights.mkdir(parents=True)
    return weights


def test_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = at(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match="is missing") as caught:
        read_weights("rnet")
    assert str(weights / "rnet.lz4") in str(caught.value)


def test_weights_of_other_shapes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = read_weights("pnet")
    weights = at(tmp_path, monkeypatch)
    joblib.dump([*arrays[:-1], np.zeros(3, np.float32)], weights / "pnet.lz4")
    with pytest.raises(ModelError, match="has arrays of shapes") as caught:
        pnet_graph()
    assert str(weights / "pnet.lz4") in str(caught.value)
    assert "(3,)], expected [" in str(caught.value)
