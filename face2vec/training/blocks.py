"""Parts of the small networks: convolutions with normalisation and activation, and the head."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from face2vec.training.layers import Tensor

SLOPE = 0.1
SQUEEZED = 8
"""Channels for each number that their weights are made of."""
EPSILON = 1e-5


def convolution(
    x: Tensor, name: str, filters: int, size: int, *, stride: int = 1, active: bool = True
) -> Tensor:
    """A convolution with normalisation and, if ``active``, activation."""
    x, padding = _bordered(x, name, stride)
    x = layers.Conv2D(
        filters, size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    return activated(normalized(x, name), name) if active else normalized(x, name)


def each_channel(
    x: Tensor, name: str, size: int, *, stride: int = 1, active: bool = True
) -> Tensor:
    """A depthwise convolution with normalisation and, if ``active``, activation."""
    x, padding = _bordered(x, name, stride)
    x = layers.DepthwiseConv2D(
        size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    return activated(normalized(x, name), name) if active else normalized(x, name)


def channels_weighed(x: Tensor, name: str, filters: int) -> Tensor:
    """Maps, each channel times a weight made of the means of all (squeeze-and-excitation)."""
    y = layers.GlobalAveragePooling2D(name=f"{name}_mean")(x)
    y = layers.Dense(filters // SQUEEZED, name=f"{name}_squeeze")(y)
    y = layers.LeakyReLU(SLOPE, name=f"{name}_relu")(y)
    y = layers.Dense(filters, activation="sigmoid", name=f"{name}_channels")(y)
    y = layers.Reshape((1, 1, filters), name=f"{name}_shape")(y)
    return layers.Multiply(name=name)([x, y])


def weighed_places(x: Tensor, side: int, dimension: int) -> Tensor:
    """Embeddings of maps: a weight for each position of each channel, then a dense layer."""
    x = layers.DepthwiseConv2D(side, use_bias=False, name="weigh_places")(x)
    x = normalized(x, "weigh_places")
    x = layers.Flatten(name="flatten")(x)
    return layers.Dense(dimension, name="embedding")(x)


def normalized(x: Tensor, name: str) -> Tensor:
    """Batch normalisation."""
    return layers.BatchNormalization(momentum=0.95, epsilon=EPSILON, name=f"{name}_norm")(x)


def activated(x: Tensor, name: str) -> Tensor:
    """The activation of all layers."""
    return layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)


def grown(network: keras.Model, wide: keras.Model) -> keras.Model:
    """Give a network with more channels in its blocks the weights of a narrower one.

    It gives the same embeddings at first, because the weights after the new channels are 0.

    Args:
        network: the narrower network.
        wide: the same network with more channels before layers called ``…_narrow_conv``.
    """
    for layer in network.layers:
        for narrow, variable in zip(layer.weights, wide.get_layer(layer.name).weights, strict=True):
            values = np.array(ops.convert_to_numpy(variable))
            if layer.name.endswith("_narrow_conv"):
                values[:] = 0
            values[tuple(slice(length) for length in narrow.shape)] = ops.convert_to_numpy(narrow)
            variable.assign(values)
    return wide


def _bordered(x: Tensor, name: str, stride: int) -> tuple[Tensor, str]:
    """Padding that centres a 3×3 convolution with stride 2 on positions of the larger map.

    With ``"same"`` it is centred between two positions.
    """
    if stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(1, name=f"{name}_border")(x), "valid"
