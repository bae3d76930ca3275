"""Makes a model of the weights that `train.py` wrote.

    python training/mini2/export.py work/out/weights.npz --out mini2.onnx

Needs NumPy, onnx and face2vec.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from network import DIMENSION, EPSILON, HEADS, PATCH, PLAN, SIDE, Stage

from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.runtime.onnx_graph import GraphBuilder
from face2vec.training.onnx_file import write

SMALLEST_LENGTH = 1e-12
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""Orders of axes: channels become the first ones after the faces, or the last ones."""
AFTER_NORM = ("wide", "all_three", "patches", "embedding")
"""The layers that follow a normalisation."""


class Writer:
    """Writes the network as a graph; maps are (n, channels, height, width) between the parts.

    Args:
        weights: arrays by the names of PyTorch.
    """

    def __init__(self, weights: dict[str, Any]) -> None:
        named = {name.removeprefix("parts."): one for name, one in weights.items()}
        self._weights = without_scales(named)
        self._builder = GraphBuilder()

    def written(self) -> Any:
        """The model, from ``crops``, (n, 112, 112, 3), −1…1, to ``embeddings``, (n, 512)."""
        x = self._node("Transpose", ["crops"], "channels_first", perm=TO_FIRST)
        side = SIDE // PATCH
        x = self._norm("stem.norm", self._patches("stem.patches", x, PATCH), side)
        for number, stage in enumerate(PLAN, 1):
            if number > 1:
                name = f"reduce_{number}"
                x = self._patches(f"{name}.patches", self._norm(f"{name}.norm", x, side), 2)
                side //= 2
            for place in range(1, stage.blocks + 1):
                name = f"stage_{number}_{place}"
                if stage.mixes(place):
                    y = self._mixed(f"{name}.mixed", x, stage, side)
                else:
                    y = self._each(f"{name}.each", x)
                y = self._middle(f"{name}.middle", y, side)
                x = self._node("Add", [x, y], name)
        x = self._node("GlobalAveragePool", [x], "mean")
        x = self._linear("head.embedding", self._norm("head.norm", x, 1))
        self._node("Flatten", [x], "embeddings")
        return self._builder.model(
            "mini2",
            {"crops": ["faces", SIDE, SIDE, 3]},
            {"embeddings": ["faces", DIMENSION]},
            producer="face2vec",
        )

    # Parts; each returns the name of its output

    def _patches(self, name: str, x: str, side: int) -> str:
        return self._node("Conv", [x, *self._kernel_and_bias(name)], name, strides=[side, side])

    def _each(self, name: str, x: str) -> str:
        channels, _, side, _ = self._weights[f"{name}.kernel"].shape
        inputs = [x, *self._kernel_and_bias(name)]
        return self._node("Conv", inputs, name, group=channels, pads=[side // 2] * 4)

    def _middle(self, name: str, x: str, side: int) -> str:
        y = self._linear(f"{name}.wide", self._norm(f"{name}.norm", x, side))
        return self._linear(f"{name}.narrow", self._gelu(f"{name}.active", y))

    def _mixed(self, name: str, x: str, stage: Stage, side: int) -> str:
        """Maps of what `student.Mixed` gives."""
        channels, places = stage.channels, side * side
        split = self._array(f"{name}.sizes", np.array(stage.sizes(), np.int64))
        parts = [f"{name}.group_{number}" for number in range(stage.groups)]
        self._builder.several("Split", [x, split], parts, axis=1)
        made: list[str] = []
        for number, part in enumerate(parts[:-1]):
            given = self._node("Add", [part, made[-1]], f"{name}.sum_{number}") if made else part
            made.append(self._each(f"{name}.each.{number}", given))
        y = self._node("Concat", [*made, parts[-1]], f"{name}.joined", axis=1)
        at = self._weights[f"{name}.places"].T.reshape(1, channels, side, side)
        y = self._node("Add", [y, self._array(f"{name}.places", at)], f"{name}.placed")
        three = self._linear(f"{name}.all_three", self._norm(f"{name}.norm", y, side))
        three = self._shaped(f"{name}.heads", three, [0, 3 * HEADS, channels // HEADS, places])
        heads = self._array(f"{name}.thirds", np.array([HEADS] * 3, np.int64))
        queries, keys, values = (f"{name}.{kind}" for kind in ("queries", "keys", "values"))
        self._builder.several("Split", [three, heads], [queries, keys, values], axis=1)
        cosines = self._cosines(name, queries, keys)
        sharp = [cosines, self._weight(f"{name}.temperature")]
        weights = self._node("Mul", sharp, f"{name}.sharp")
        weights = self._node("Softmax", [weights], f"{name}.weights", axis=-1)
        mixed = self._node("MatMul", [weights, values], f"{name}.mixed")
        mixed = self._shaped(f"{name}.mixed_flat", mixed, [0, channels, side, side])
        return self._node("Add", [y, self._linear(f"{name}.after", mixed)], name)

    # Single operators

    def _gelu(self, name: str, x: str) -> str:
        # In the steps that the runtimes know and replace by one: the operator is of opset 20.
        root, one, half = (
            self._array(f"{name}_{word}", np.array(value, np.float32))
            for word, value in (("root", math.sqrt(2)), ("one", 1), ("half", 0.5))
        )
        y = self._node("Div", [x, root], f"{name}_scaled")
        y = self._node("Add", [self._node("Erf", [y], f"{name}_erf"), one], f"{name}_twice")
        y = self._node("Mul", [x, y], f"{name}_double")
        return self._node("Mul", [y, half], name)

    def _cosines(self, name: str, a: str, b: str) -> str:
        """Of all rows of the last axis of two arrays; the products are divided, which are fewer."""
        turned = self._turned(b)
        products = self._node("MatMul", [a, turned], f"{name}.products")
        lengths = [self._node("ReduceL2", [x], f"{x}_length", axes=[3], keepdims=1) for x in (a, b)]
        both = self._node("Mul", [lengths[0], self._turned(lengths[1])], f"{name}.lengths")
        least = self._array(f"{name}.least", np.array(SMALLEST_LENGTH, np.float32))
        return self._node(
            "Div", [products, self._node("Max", [both, least], f"{name}.safe")], f"{name}.cosines"
        )

    def _turned(self, x: str) -> str:
        return self._node("Transpose", [x], f"{x}_turned", perm=[0, 1, 3, 2])

    def _norm(self, name: str, x: str, side: int) -> str:
        # Of three axes, because OpenVINO normalises four in several steps, which take long.
        channels = len(self._weights[f"{name}.weight"])
        x = self._node("Transpose", [x], f"{name}_last", perm=TO_LAST)
        x = self._shaped(f"{name}_flat", x, [0, side * side, channels])
        inputs = [x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        x = self._node("LayerNormalization", inputs, f"{name}_normed", axis=-1, epsilon=EPSILON)
        x = self._shaped(f"{name}_whole", x, [0, side, side, channels])
        return self._node("Transpose", [x], name, perm=TO_FIRST)

    def _linear(self, name: str, x: str) -> str:
        # As a convolution: a product of all faces at once may give a face other bits in another
        # place of the batch.
        kernel = self._array(f"{name}.weight", self._weights[f"{name}.weight"][:, :, None, None])
        return self._node("Conv", [x, kernel, self._weight(f"{name}.bias")], name)

    def _shaped(self, name: str, x: str, shape: list[int]) -> str:
        return self._node(
            "Reshape", [x, self._array(f"{name}_shape", np.array(shape, np.int64))], name
        )

    def _kernel_and_bias(self, name: str) -> list[str]:
        return [self._weight(f"{name}.kernel"), self._weight(f"{name}.bias")]

    def _weight(self, name: str) -> str:
        return self._array(name, self._weights[name])

    def _array(self, name: str, values: Any) -> str:
        return self._builder.constant(values, name)

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return self._builder.node(kind, inputs, name, name, **attributes)


def without_scales(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights whose normalisations scale and shift nothing, if a layer follows that can do it."""
    weights = dict(weights)
    for scale in [name for name in weights if name.endswith(".norm.weight")]:
        part = scale.removesuffix(".norm.weight")
        if part == "stem":  # what follows takes its values as they are, too
            continue
        (layer,) = (f"{part}.{name}" for name in AFTER_NORM if f"{part}.{name}.bias" in weights)
        numbers = f"{layer}.weight" if f"{layer}.weight" in weights else f"{layer}.kernel"
        kernel, by = weights[numbers], weights[scale]
        spread = (slice(None), *[None] * (kernel.ndim - 2))
        shift = kernel * weights[f"{part}.norm.bias"][spread]
        weights[f"{layer}.bias"] = weights[f"{layer}.bias"] + shift.sum(
            tuple(range(1, kernel.ndim))
        )
        weights[numbers] = kernel * by[spread]
        weights[scale], weights[f"{part}.norm.bias"] = np.ones_like(by), np.zeros_like(by)
    return weights


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with np.load(given.weights) as stored:
        graph = Writer(dict(stored)).written()
    description = ModelDescription("mini2", DIMENSION, SIDE, "landmarks", template=FIVE_POINTS)
    write(graph, given.out, description)
    sys.stdout.write(f"{given.out}: {given.out.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
