"""Networks by name, and their cost.

Each maps standardised RGB crops, float32 (n, height, width, 3), to one embedding per crop. Those of
the FaceNet paper and Inception-ResNet-v1 return unit vectors. The losses normalise embeddings, so
the length makes no difference.

| name | crop | as published: parameters, multiply-adds | source |
|---|---|---|---|
| ``nn1`` | 220×220 | 140 M, 1.6 G | FaceNet paper, table 1 |
| ``nn2`` | 224×224 | 7.5 M, 1.6 G | table 2 |
| ``nn3`` | 160×160 | 7.5 M | the same at 160 pixels |
| ``nn4`` | 96×96 | 285 M multiply-adds | the same at 96 pixels with fewer 5×5 convolutions |
| ``nns1`` | 165×165 | 26 M, 220 M | our interpretation of the paper's "mini Inception" |
| ``nns2`` | 140×116 | 4.3 M, 20 M | our interpretation of the paper's "tiny Inception" |
| ``inception_resnet_v1`` | 160×160 | 23.5 M | keras-facenet's; can load FaceNet's weights |
| ``mini`` | 96×96 | | the network of the included model of that name |

The paper counts a multiplication and an addition as one operation, and so does
:func:`cost`. ``inception.py`` explains the interpretations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import keras
from keras import layers

from face2vec.errors import SettingsError
from face2vec.training import NETWORKS, inception, inception_resnet, mini, zeiler_fergus
from face2vec.training.inception_resnet import load_facenet_weights

__all__ = ["Cost", "build", "cost", "load_facenet_weights"]

Widths = tuple[tuple[int, int], ...]
"""Channels in the middle of the first block of each stage, and of its others."""

_PLANS = {
    "nn2": (inception.NN2, (224, 224)),
    "nn3": (inception.NN2, (160, 160)),
    "nn4": (inception.NN4, (96, 96)),
    "nns1": (inception.NNS1, (165, 165)),
    "nns2": (inception.NNS2, (140, 116)),
}

NN1_SIZE = (220, 220)
SMALLEST_SIDE = {"inception_resnet_v1": 80}
SMALLEST_SIDE_OF_OTHERS = 32


class Cost(NamedTuple):
    """The cost of a network."""

    parameters: int
    """Numbers that are trained; not the running averages of batch normalisation."""
    multiply_adds: int
    """Multiplications, each with its addition, for one crop, in convolutions and dense layers."""


def build(
    name: str,
    dimension: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    widths: Widths = (),
) -> keras.Model:
    """Build a network with random weights.

    Args:
        name: one of :data:`face2vec.training.NETWORKS`.
        dimension: length of an embedding; 128 by default, 256 for ``mini``.
        input_size: side of a crop in pixels, or its (height, width); the default is in the table
            above. That of ``mini`` is fixed.
        widths: channels in the middle of blocks, for ``mini`` only; empty for the default.

    Returns:
        A model with random weights, from (n, height, width, 3) to (n, dimension).

    Raises:
        SettingsError: there is no such network, it does not support this size or dimension, or
            Keras is set to channels_first.
    """
    if name not in NETWORKS:
        raise SettingsError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    if dimension is not None and dimension < 1:
        raise SettingsError(f"dimension must be at least 1, not {dimension}")
    if keras.config.image_data_format() != "channels_last":
        raise SettingsError(
            "Keras is set to channels_first; face2vec's networks need "
            "keras.config.set_image_data_format('channels_last')"
        )
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    if name == "mini":
        return _mini(dimension, size, widths)
    if widths:
        raise SettingsError(f"{name} has fixed widths; only mini has variable ones")
    smallest = SMALLEST_SIDE.get(name, SMALLEST_SIDE_OF_OTHERS)
    if size is not None and min(size) < smallest:
        raise SettingsError(f"input_size must be at least {smallest} for {name}, not {input_size}")
    if name == "inception_resnet_v1":
        return inception_resnet.network(size or (160, 160), dimension or usual_dimension(name))
    if name == "nn1":
        return zeiler_fergus.nn1(size or NN1_SIZE, dimension or usual_dimension(name))
    plan, usual = _PLANS[name]
    return inception.network(plan, name, size or usual, dimension or usual_dimension(name))


def side(name: str) -> int:
    """Side in pixels of the square crops that a network is trained on.

    The published side; for ``nns2``, which takes 140×116, that of a square of the same area.
    """
    if name == "nns2":
        return 128
    if name == "mini":
        return mini.SIDE
    if name == "nn1":
        return NN1_SIZE[0]
    return 160 if name == "inception_resnet_v1" else _PLANS[name][1][0]


def usual_dimension(name: str) -> int:
    """Numbers in an embedding of a network, where no other dimension is asked for."""
    return 256 if name == "mini" else 128


def stages(name: str) -> tuple[str, ...]:
    """Names of a network's layers that can learn from a teacher's stages; often none."""
    return mini.STAGES if name == "mini" else ()


def cost(network: keras.Model) -> Cost:
    """Count a network's parameters and multiply-adds, layer by layer.

    Raises:
        SettingsError: the network has no fixed input size, or has a layer with weights that is not
            a convolution, dense or normalisation layer.
    """
    if None in network.input_shape[1:]:
        raise SettingsError(
            f"{network.name} has no fixed input size, {network.input_shape[1:]}; its cost "
            "depends on the size, so build it with one"
        )
    parameters = multiply_adds = 0
    for layer in _leaves(network):
        trained = [w for w in layer.weights if not w.name.startswith("moving_")]
        parameters += sum(math.prod(w.shape) for w in trained)
        multiply_adds += _multiply_adds(layer)
    return Cost(parameters, multiply_adds)


def wider(network: keras.Model, widths: Widths) -> keras.Model:
    """A ``mini`` with more channels in its blocks that gives the same embeddings."""
    return mini.wider(network, widths)


def _mini(dimension: int | None, size: tuple[int, int] | None, widths: Widths) -> keras.Model:
    fixed = (mini.SIDE, mini.SIDE)
    if size is not None and size != fixed:
        raise SettingsError(f"input_size must be {fixed} for mini, not {size}")
    return mini.mini(dimension or usual_dimension("mini"), widths or mini.BETWEEN)


def _leaves(network: keras.Model) -> Iterator[keras.Layer]:
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _multiply_adds(layer: keras.Layer) -> int:
    """Positions of the layer's output times the weights of all its kernels."""
    kernels = [w for w in layer.weights if len(w.shape) > 1]
    if not kernels or isinstance(layer, layers.PReLU):
        return 0
    counted = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)
    if not isinstance(layer, counted):
        raise SettingsError(
            f"the multiply-adds of layer {layer.name!r}, a {type(layer).__name__}, are unknown"
        )
    places: int = math.prod(layer.output.shape[1:-1])
    weights: int = sum(math.prod(kernel.shape) for kernel in kernels)
    return places * weights
