"""``mini``, the small network that is included in the package.

Inverted residual blocks with a depthwise convolution (Sandler et al., MobileNetV2, 2018, section
3.3), with squeeze-and-excitation where the maps are small enough for it to cost little (Hu et al.,
Squeeze-and-excitation networks, 2018). It ends with MobileFaceNet's global depthwise convolution:
one weight for each position of the last maps instead of their mean (Chen et al., MobileFaceNets,
2018, section 3.2).

It has as many blocks as its teacher, with the same widths at both ends, so that each block can
learn from its counterpart. It is wider in the middle of blocks where maps are small, takes three
quarters of the pixels per side, and has activations that a runtime fuses with the convolution
before them.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from face2vec.training.layers import Tensor

SIDE = 96
SLOPE = 0.1
SQUEEZED = 8
"""Channels for each number that their weights are made of."""
EPSILON = 1e-5
BLOCKS = (5, 7, 3)
"""In each stage; the first halves the side of the maps."""
Widths = tuple[tuple[int, int], ...]
BETWEEN: Widths = ((128, 128), (256, 448), (512, 640))
"""Channels in the middle of the first block of each stage, and of its others."""
STAGES = (
    "stage_1_1", "stage_1_3", "stage_1_5",
    "stage_2_1", "stage_2_3", "stage_2_5", "stage_2_7",
    "stage_3_1", "stage_3_3",
)  # fmt: skip
"""Blocks that can learn what another network's do: three times (24, 24, 64), four times
(12, 12, 128), twice (6, 6, 128)."""


def mini(dimension: int = 256, between: Widths = BETWEEN) -> keras.Model:
    """Build the network with random weights.

    Args:
        dimension: length of an embedding.
        between: channels in the middle of blocks, in the form of `BETWEEN`.

    Returns:
        A model from (n, 96, 96, 3), RGB standardised as (x − 127.5) / 127.5, to (n, dimension), not
        normalised.
    """
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = _convolution(crops, "stem", 32, 3, stride=2)
    x = _each_channel(x, "stem_each", 3)
    x = _stage(x, 1, 64, between[0], weighed=False)
    x = _stage(x, 2, 128, between[1])
    x = _stage(x, 3, 128, between[2])
    x = _convolution(x, "widen", 512, 1)
    x = layers.DepthwiseConv2D(SIDE // 16, use_bias=False, name="weigh_places")(x)
    x = _normalized(x, "weigh_places")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dimension, name="embedding")(x)
    return keras.Model(crops, x, name="mini")


def wider(network: keras.Model, between: Widths) -> keras.Model:
    """The same network with more channels in the middle of its blocks.

    It gives the same embeddings at first, because the weights after the new channels are 0.

    Args:
        network: a `mini`.
        between: the new widths; none below the present one.
    """
    if between == widths(network):
        return network
    wide = mini(network.output_shape[-1], between)
    for layer in network.layers:
        for narrow, variable in zip(layer.weights, wide.get_layer(layer.name).weights, strict=True):
            values = np.array(ops.convert_to_numpy(variable))
            if layer.name.endswith("_narrow_conv"):
                values[:] = 0
            values[tuple(slice(length) for length in narrow.shape)] = ops.convert_to_numpy(narrow)
            variable.assign(values)
    return wide


def widths(network: keras.Model) -> Widths:
    """Channels in the middle of the blocks of a `mini`, in the form of `BETWEEN`."""
    return tuple(
        tuple(network.get_layer(f"stage_{stage}_{place}_wide_conv").filters for place in (1, 2))
        for stage in (1, 2, 3)
    )


def _stage(
    x: Tensor, number: int, filters: int, between: tuple[int, int], *, weighed: bool = True
) -> Tensor:
    """Halve the side of the maps."""
    for place in range(1, BLOCKS[number - 1] + 1):
        first, name = place == 1, f"stage_{number}_{place}"
        y = _convolution(x, f"{name}_wide", between[not first], 1)
        y = _each_channel(y, f"{name}_each", 3, stride=2 if first else 1)
        y = _convolution(y, f"{name}_narrow", filters, 1, active=False)
        if weighed:
            y = _weighed(y, f"{name}_weighed", filters)
        x = layers.Identity(name=name)(y) if first else layers.Add(name=name)([x, y])
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
    x, padding = _bordered(x, name, stride)
    x = layers.Conv2D(
        filters, size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    return _active(_normalized(x, name), name) if active else _normalized(x, name)


def _each_channel(x: Tensor, name: str, size: int, *, stride: int = 1) -> Tensor:
    x, padding = _bordered(x, name, stride)
    x = layers.DepthwiseConv2D(
        size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    return _active(_normalized(x, name), name)


def _bordered(x: Tensor, name: str, stride: int) -> tuple[Tensor, str]:
    """Padding that centres a 3×3 convolution with stride 2 on positions of the larger map.

    With ``"same"`` it is centred between two positions.
    """
    if stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(1, name=f"{name}_border")(x), "valid"


def _normalized(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(momentum=0.95, epsilon=EPSILON, name=f"{name}_norm")(x)


def _active(x: Tensor, name: str) -> Tensor:
    return layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)
