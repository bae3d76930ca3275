"""The small FaceNet that ships inside the package.

Pairs of ordinary 3×3 convolutions with a way around them (He et al., Deep residual learning,
2015, section 3.3), narrow in between: on processors they do more work a second than 1×1 or
depthwise ones, which wait for memory. Each pair weighs its channels by what the whole map shows
(Hu et al., Squeeze-and-excitation networks, 2018). The end is MobileFaceNet's: a weight for each
place of the last maps instead of their mean, for a mouth is not worth as much as a corner (Chen
et al., MobileFaceNets, 2018, section 3.2).
"""

from __future__ import annotations

import keras
from keras import layers

from face2vec.training.layers import Tensor

SIDE = 128
SLOPE = 0.1
SQUEEZED = 8
"""Channels for each number that their weights are made of."""
STAGES = ("stage_1", "stage_2", "stage_3")
"""Layers that can learn what another network's do: (32, 32, 64), (16, 16, 128), (8, 8, 128)."""


def mini(dimension: int = 256) -> keras.Model:
    """The network, with random weights.

    Returns:
        A model from (n, 128, 128, 3), RGB standardised as (x − 127.5) / 127.5, to
        (n, dimension) of any length.
    """
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = _convolution(crops, "stem", 16, 3, stride=2)
    x = _stage(x, STAGES[0], 64, 32, pairs=2)
    x = _stage(x, STAGES[1], 128, 48, pairs=3)
    x = _stage(x, STAGES[2], 128, 64, pairs=4)
    x = _convolution(x, "widen", 512, 1)
    x = layers.DepthwiseConv2D(SIDE // 16, use_bias=False, name="weigh_places")(x)
    x = layers.BatchNormalization(momentum=0.95, name="weigh_places_norm")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dimension, name="embedding")(x)
    return keras.Model(crops, x, name="mini")


def _stage(x: Tensor, name: str, filters: int, narrow: int, *, pairs: int) -> Tensor:
    """Maps of half the side."""
    x = _convolution(x, f"{name}_half", filters, 3, stride=2, active=False)
    for number in range(1, pairs + 1):
        pair = name if number == pairs else f"{name}_{number}"
        y = _convolution(x, f"{pair}_a", narrow, 3)
        y = _convolution(y, f"{pair}_b", filters, 3, active=False)
        x = layers.Add(name=pair)([x, _weighed(y, f"{pair}_weigh", filters)])
    return x


def _weighed(x: Tensor, name: str, filters: int) -> Tensor:
    y = layers.GlobalAveragePooling2D(name=f"{name}_mean")(x)
    y = layers.Dense(filters // SQUEEZED, name=f"{name}_squeeze")(y)
    y = layers.LeakyReLU(SLOPE, name=f"{name}_relu")(y)
    y = layers.Dense(filters, activation="sigmoid", name=f"{name}_channels")(y)
    y = layers.Reshape((1, 1, filters), name=f"{name}_shape")(y)
    return layers.Multiply(name=name)([x, y])


def _convolution(
    x: Tensor, name: str, filters: int, size: int, *, stride: int = 1, active: bool = True
) -> Tensor:
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(x)
    return layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x) if active else x
