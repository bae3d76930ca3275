"""The small FaceNet that ships inside the package.

Bottleneck residuals (He et al., Deep residual learning, 2015, figure 5) with ordinary
convolutions, which processors run near their peak where depthwise ones wait for memory.
Most of the width is where a map is small. The end is MobileFaceNet's: a weight for each
place of the last maps instead of their mean, for a mouth is not worth as much as a corner
(Chen et al., MobileFaceNets, 2018, section 3.2).
"""

from __future__ import annotations

import keras
from keras import layers

from face2vec.training.layers import Tensor

SIDE = 112
SLOPE = 0.1
STAGES = ("stage_1", "stage_2", "stage_3")
"""Layers whose output can follow another network's: (28, 28, 64), (14, 14, 128), (7, 7, 128)."""


def mini(dimension: int = 256) -> keras.Model:
    """The network, with random weights.

    Returns:
        A model from (n, 112, 112, 3), RGB standardised as (x − 127.5) / 127.5, to
        (n, dimension) of any length.
    """
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = _convolution(crops, "stem_1", 16, 3, stride=2)
    x = _convolution(x, "stem_2", 64, 3, stride=2)
    x = _stage(x, STAGES[0], 64, 32, blocks=2)
    x = _halving(x, "down_2", 128, 96)
    x = _stage(x, STAGES[1], 128, 64, blocks=5)
    x = _halving(x, "down_3", 128, 128)
    x = _stage(x, STAGES[2], 128, 96, blocks=4)
    x = _convolution(x, "widen", 512, 1)
    x = layers.DepthwiseConv2D(SIDE // 16, use_bias=False, name="weigh_places")(x)
    x = layers.BatchNormalization(name="weigh_places_norm")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dimension, use_bias=False, name="embedding")(x)
    return keras.Model(crops, x, name="mini")


def _stage(x: Tensor, name: str, filters: int, narrow: int, *, blocks: int) -> Tensor:
    for number in range(1, blocks + 1):
        block = name if number == blocks else f"{name}_{number}"
        y = _convolution(x, f"{block}_a", narrow, 1)
        y = _convolution(y, f"{block}_b", narrow, 3)
        y = _convolution(y, f"{block}_c", filters, 1, active=False)
        x = layers.Add(name=block)([x, y])
    return x


def _halving(x: Tensor, name: str, filters: int, narrow: int) -> Tensor:
    x = _convolution(x, f"{name}_a", narrow, 3, stride=2)
    return _convolution(x, f"{name}_b", filters, 1, active=False)


def _convolution(
    x: Tensor, name: str, filters: int, size: int, *, stride: int = 1, active: bool = True
) -> Tensor:
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=0.98, name=f"{name}_norm")(x)
    return layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x) if active else x
