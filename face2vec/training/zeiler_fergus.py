"""NN1 of the FaceNet paper, a network after Zeiler and Fergus with 1×1 convolutions.

Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering"
(CVPR 2015, arXiv 1503.03832), table 1. Ten of its eleven convolutions come in pairs of a 1×1 and a
3×3 (Lin, Chen, Yan, "Network in network", 2013), and its two hidden layers are maxout with p = 2,
the larger of two linear layers (Goodfellow et al., "Maxout networks", 2013, section 2). Nearly all
of its 140 million parameters are in these.

One difference: batch normalisation after every convolution, in place of the paper's two local
response normalisations, as in ``inception.py``.
"""

from __future__ import annotations

import keras
from keras import layers

from face2vec.training.layers import Tensor, convolution, unit_length

HIDDEN = 4096  # the paper's 1×32×128
PAIRS = ((384, "3"), (256, "4"), (256, "5"), (256, "6"))
"""Filters of the 3×3 convolutions, each after a 1×1 that keeps the number of channels."""


def nn1(size: tuple[int, int], dimension: int) -> keras.Model:
    """Build the network with random weights.

    Args:
        size: (height, width) of a crop in pixels; (220, 220) in the paper.
        dimension: length of an embedding.

    Returns:
        A model from (n, height, width, 3), RGB standardised as (x − 127.5) / 127.5, to (n,
        dimension) of unit length.
    """
    crops = keras.Input((*size, 3), name="crops")
    x = convolution(crops, "1", 64, 7, stride=2)
    x = _pooled(x, "1_pool")
    x = convolution(x, "2a", 64, 1)
    x = _pooled(convolution(x, "2", 192, 3), "2_pool")
    for filters, name in PAIRS:
        x = convolution(x, f"{name}a", x.shape[-1], 1)
        x = convolution(x, name, filters, 3)
        if name == "3":
            x = _pooled(x, "3_pool")
    x = layers.Flatten(name="flatten")(_pooled(x, "4_pool"))
    x = _maxout(_maxout(x, "fc1"), "fc2")
    x = layers.Dense(dimension, name="embedding")(x)
    return keras.Model(crops, unit_length(x), name="nn1")


def _pooled(x: Tensor, name: str) -> Tensor:
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)


def _maxout(x: Tensor, name: str) -> Tensor:
    two = [layers.Dense(HIDDEN, name=f"{name}_{number}")(x) for number in (1, 2)]
    return layers.Maximum(name=name)(two)
