"""The Inception networks of the FaceNet paper: NN2, NN3, NN4, NNS1 and NNS2.

Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face
Recognition and Clustering" (CVPR 2015, arXiv 1503.03832), table 2 and section
3.3. They have in common: Inception modules (Szegedy et al., "Going Deeper with Convolutions"), L2
pooling in place of max pooling where table 2 says so, an average over the last maps, a fully
connected layer and vectors of length 1.

Differences and interpretations:

- Batch normalisation after every convolution. The paper has none, and
  normalises local responses after the first and before the second pooling;
  those two are left out.
- NN4: the paper says that it has no 5×5 convolutions "in the higher layers",
  and that its Inception networks have 6.6 to 7.5 million parameters. Without
  those of 4e, 5a and 5b there are 6.6 million parameters and 285 million
  multiply-adds, both as published.
- NNS1 and NNS2: the paper gives their input sizes, parameters and
  multiply-adds, but not their layers. So many parameters for so few multiply-adds (one for 8 and
  one for 5; NN2 has one for 210) must lie in fully connected layers, as in the paper's NN1. This
  implementation is NN2's plan with fewer filters and modules, with a hidden layer instead of an
  average after the last maps; the widths are chosen to meet the published figures.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import keras
from keras import layers

from face2vec.training.layers import Tensor, convolution, l2_pool, unit_length


class Module(NamedTuple):
    """One Inception module: a row of the paper's table 2."""

    name: str
    one: int  # 1×1 filters; 0: no such branch
    three: tuple[int, int]  # 3×3: filters of the 1×1 before it, filters
    five: tuple[int, int] | None  # 5×5 likewise; None: no such branch
    pool: Literal["max", "l2"]
    project: int  # 1×1 filters after the pooling; 0: none
    stride: int = 1


class Plan(NamedTuple):
    """A whole network: the first three convolutions, the modules, and what follows."""

    stem: tuple[int, int, int]  # filters of 7×7 with a stride of 2, of 1×1, of 3×3
    modules: tuple[Module, ...]
    hidden: int = 0  # units between the last maps and the embedding; 0: an average instead


NN2 = Plan(
    (64, 64, 192),
    (
        Module("3a", 64, (96, 128), (16, 32), "max", 32),
        Module("3b", 64, (96, 128), (32, 64), "l2", 64),
        Module("3c", 0, (128, 256), (32, 64), "max", 0, stride=2),
        Module("4a", 256, (96, 192), (32, 64), "l2", 128),
        Module("4b", 224, (112, 224), (32, 64), "l2", 128),
        Module("4c", 192, (128, 256), (32, 64), "l2", 128),
        Module("4d", 160, (144, 288), (32, 64), "l2", 128),
        Module("4e", 0, (160, 256), (64, 128), "max", 0, stride=2),
        Module("5a", 384, (192, 384), (48, 128), "l2", 128),
        Module("5b", 384, (192, 384), (48, 128), "max", 128),
    ),
)
"""Table 2; also NN3, which takes a smaller crop."""

NN4 = Plan(
    NN2.stem,
    tuple(m._replace(five=None) if m.name in ("4e", "5a", "5b") else m for m in NN2.modules),
)
"""NN2 without 5×5 convolutions in its highest three modules."""

NNS1 = Plan(
    (32, 32, 64),
    (
        Module("3a", 32, (48, 64), (8, 16), "max", 16),
        Module("3b", 32, (48, 64), (16, 32), "l2", 32),
        Module("3c", 0, (64, 128), (16, 32), "max", 0, stride=2),
        Module("4a", 128, (48, 96), (16, 32), "l2", 64),
        Module("4b", 112, (56, 112), (16, 32), "l2", 64),
        Module("4e", 0, (80, 128), (32, 64), "max", 0, stride=2),
        Module("5a", 192, (96, 192), (24, 64), "l2", 64),
        Module("5b", 192, (96, 192), (24, 64), "max", 64),
    ),
    hidden=1312,
)
"""Half of NN2's filters, without 4c and 4d, and a hidden layer: our reading."""

NNS2 = Plan(
    (12, 12, 32),
    (
        Module("3a", 12, (16, 24), None, "max", 8),
        Module("3c", 0, (24, 48), None, "max", 0, stride=2),
        Module("4a", 48, (24, 40), None, "l2", 24),
        Module("4e", 0, (32, 64), None, "max", 0, stride=2),
        Module("5a", 80, (40, 80), None, "max", 32),
    ),
    hidden=1056,
)
"""About a fifth of NN2's filters, half of its modules, no 5×5, and a hidden layer: our reading."""


def network(plan: Plan, name: str, input_size: tuple[int, int], dimension: int) -> keras.Model:
    """Build one of the networks.

    Args:
        plan: its layers.
        name: the model's name.
        input_size: height and width of a crop in pixels.
        dimension: length of an embedding.

    Returns:
        A model from standardised RGB crops, float32 (n, height, width, 3), to
        unit vectors, float32 (n, dimension).
    """
    inputs = keras.Input((*input_size, 3), name="crops")
    x = _stem(inputs, plan.stem)
    for module in plan.modules:
        x = _module(x, module)
    if plan.hidden:
        x = layers.Flatten(name="flat")(x)
        x = layers.Dense(plan.hidden, use_bias=False, name="hidden")(x)
        x = layers.BatchNormalization(scale=False, name="hidden_BatchNorm")(x)
        x = layers.ReLU(name="hidden_Activation")(x)
    else:
        x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(dimension, name="embedding")(x)
    return keras.Model(inputs, unit_length(x), name=name)


def _stem(x: Tensor, filters: tuple[int, int, int]) -> Tensor:
    """The three convolutions before the modules; they divide each side by 8."""
    x = convolution(x, "1_7x7", filters[0], 7, stride=2)
    x = layers.MaxPooling2D(3, 2, padding="same", name="1_pool")(x)
    x = convolution(x, "2_3x3_reduce", filters[1], 1)
    x = convolution(x, "2_3x3", filters[2], 3)
    return layers.MaxPooling2D(3, 2, padding="same", name="2_pool")(x)


def _module(x: Tensor, module: Module) -> Tensor:
    """Convolutions of several sizes and a pooling side by side, joined along the channels."""
    name, stride = module.name, module.stride
    branches = []
    if module.one:
        branches.append(convolution(x, f"{name}_1x1", module.one, 1))
    reduced = convolution(x, f"{name}_3x3_reduce", module.three[0], 1)
    branches.append(convolution(reduced, f"{name}_3x3", module.three[1], 3, stride=stride))
    if module.five:
        reduced = convolution(x, f"{name}_5x5_reduce", module.five[0], 1)
        branches.append(convolution(reduced, f"{name}_5x5", module.five[1], 5, stride=stride))
    if module.pool == "l2":
        pooled = l2_pool(x)
    else:
        pooled = layers.MaxPooling2D(3, stride, padding="same", name=f"{name}_pool")(x)
    if module.project:
        pooled = convolution(pooled, f"{name}_project", module.project, 1)
    return layers.Concatenate(name=name)([*branches, pooled])
