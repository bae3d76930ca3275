"""Inception-ResNet-v1 as in keras-facenet, for fine-tuning the published weights.

Layer names, shapes and arithmetic are those of keras-facenet's network, which
``face2vec.models.facenet`` turns into ONNX without Keras.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from face2vec.errors import ModelError
from face2vec.models.facenet import weights_by_layer
from face2vec.training.layers import Tensor, convolution, unit_length

DROPOUT = 0.2  # before the embedding, while training


def network(input_size: tuple[int, int], dimension: int) -> keras.Model:
    """Build the network.

    Args:
        input_size: height and width of a crop in pixels, each 80 or more; the
            published weights were trained on (160, 160).
        dimension: length of an embedding; the published weights have 512 or 128.

    Returns:
        A model from standardised RGB crops, float32 (n, height, width, 3), to
        unit vectors, float32 (n, dimension).
    """
    inputs = keras.Input((*input_size, 3), name="crops")
    x = _halving(inputs, "Conv2d_1a_3x3", 32)
    x = convolution(x, "Conv2d_2a_3x3", 32, 3, padding="valid")
    x = convolution(x, "Conv2d_2b_3x3", 64, 3)
    x = layers.MaxPooling2D(3, 2, name="MaxPool_3a_3x3")(x)
    x = convolution(x, "Conv2d_3b_1x1", 80, 1)
    x = convolution(x, "Conv2d_4a_3x3", 192, 3, padding="valid")
    x = _halving(x, "Conv2d_4b_3x3", 256)

    for i in range(1, 6):
        x = _block_35(x, f"Block35_{i}")
    x = _mixed_6a(x, "Mixed_6a")
    for i in range(1, 11):
        x = _block_17(x, f"Block17_{i}")
    x = _mixed_7a(x, "Mixed_7a")
    for i in range(1, 6):
        x = _block_8(x, f"Block8_{i}", scale=0.2)
    x = _block_8(x, "Block8_6", scale=1.0, relu=False)

    x = layers.GlobalAveragePooling2D(name="AvgPool")(x)
    x = layers.Dropout(DROPOUT, name="Dropout")(x)
    x = layers.Dense(dimension, use_bias=False, name="Bottleneck")(x)
    x = layers.BatchNormalization(scale=False, name="Bottleneck_BatchNorm")(x)
    return keras.Model(inputs, unit_length(x), name="inception_resnet_v1")


def load_facenet_weights(network: keras.Model, path: Path) -> None:
    """Load FaceNet's published weights into the network for fine-tuning.

    Args:
        network: ``build("inception_resnet_v1", dimension)`` with the dimension of the weights. It
            is unchanged if the file does not match.
        path: HDF5 file of keras-facenet's network: the Keras 2 layout (as
            published), a whole model saved as HDF5, or Keras 3's ``.weights.h5``.

    Raises:
        ModelError: the file cannot be read, or its layers differ from the network's.
    """
    try:
        with h5py.File(path, "r") as file:
            stored = {name: dict(arrays) for name, arrays in weights_by_layer(file)}
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot read {path} as a Keras weights file: {error}") from error
    stored = {name: arrays for name, arrays in stored.items() if arrays}
    own = {layer.name: {w.name: w for w in layer.weights} for layer in network.layers}
    own = {name: weights for name, weights in own.items() if weights}
    if stored.keys() != own.keys():
        odd = sorted(stored.keys() ^ own.keys())
        raise ModelError(
            f"{path}: its layers differ from those of {network.name!r}; only one of the two has "
            f"{', '.join(map(repr, odd[:3]))}" + (f" and {len(odd) - 3} more" if odd[3:] else "")
        )
    values = []
    for layer, weights in own.items():
        if stored[layer].keys() != weights.keys():
            raise ModelError(
                f"{path}: layer {layer!r} holds {', '.join(sorted(stored[layer]))}, "
                f"expected {', '.join(sorted(weights))}"
            )
        for name, weight in weights.items():
            array = stored[layer][name]
            if array.shape != tuple(weight.shape):
                raise ModelError(
                    f"{path}: {name} of layer {layer!r} has shape {array.shape}, "
                    f"the network's has {tuple(weight.shape)}"
                )
            if not np.isfinite(array).all():
                raise ModelError(
                    f"{path}: {name} of layer {layer!r} holds values that are not finite "
                    "numbers; the file is damaged or its training diverged"
                )
            values.append((weight, array))
    for weight, array in values:
        weight.assign(array)


def _halving(x: Tensor, name: str, filters: int) -> Tensor:
    """A 3×3 convolution with stride 2."""
    return convolution(x, name, filters, 3, stride=2, padding="valid")


def _block_35(x: Tensor, block: str) -> Tensor:
    a = convolution(x, f"{block}_Branch_0_Conv2d_1x1", 32, 1)
    b = convolution(x, f"{block}_Branch_1_Conv2d_0a_1x1", 32, 1)
    b = convolution(b, f"{block}_Branch_1_Conv2d_0b_3x3", 32, 3)
    c = convolution(x, f"{block}_Branch_2_Conv2d_0a_1x1", 32, 1)
    c = convolution(c, f"{block}_Branch_2_Conv2d_0b_3x3", 32, 3)
    c = convolution(c, f"{block}_Branch_2_Conv2d_0c_3x3", 32, 3)
    return _residual(x, [a, b, c], block, scale=0.17)


def _block_17(x: Tensor, block: str) -> Tensor:
    a = convolution(x, f"{block}_Branch_0_Conv2d_1x1", 128, 1)
    b = convolution(x, f"{block}_Branch_1_Conv2d_0a_1x1", 128, 1)
    b = convolution(b, f"{block}_Branch_1_Conv2d_0b_1x7", 128, (1, 7))
    b = convolution(b, f"{block}_Branch_1_Conv2d_0c_7x1", 128, (7, 1))
    return _residual(x, [a, b], block, scale=0.1)


def _block_8(x: Tensor, block: str, *, scale: float, relu: bool = True) -> Tensor:
    a = convolution(x, f"{block}_Branch_0_Conv2d_1x1", 192, 1)
    b = convolution(x, f"{block}_Branch_1_Conv2d_0a_1x1", 192, 1)
    b = convolution(b, f"{block}_Branch_1_Conv2d_0b_1x3", 192, (1, 3))
    b = convolution(b, f"{block}_Branch_1_Conv2d_0c_3x1", 192, (3, 1))
    return _residual(x, [a, b], block, scale=scale, relu=relu)


def _residual(
    x: Tensor, branches: list[Tensor], block: str, *, scale: float, relu: bool = True
) -> Tensor:
    """``x`` plus ``scale`` times a 1×1 convolution of the joined branches."""
    mixed = layers.Concatenate(name=f"{block}_Concatenate")(branches)
    up = layers.Conv2D(x.shape[-1], 1, name=f"{block}_Conv2d_1x1")(mixed)
    total = x + scale * up
    return layers.ReLU(name=f"{block}_Activation")(total) if relu else total


def _mixed_6a(x: Tensor, block: str) -> Tensor:
    a = _halving(x, f"{block}_Branch_0_Conv2d_1a_3x3", 384)
    b = convolution(x, f"{block}_Branch_1_Conv2d_0a_1x1", 192, 1)
    b = convolution(b, f"{block}_Branch_1_Conv2d_0b_3x3", 192, 3)
    b = _halving(b, f"{block}_Branch_1_Conv2d_1a_3x3", 256)
    pooled = layers.MaxPooling2D(3, 2, name=f"{block}_Branch_2_MaxPool_1a_3x3")(x)
    return layers.Concatenate(name=block)([a, b, pooled])


def _mixed_7a(x: Tensor, block: str) -> Tensor:
    a = convolution(x, f"{block}_Branch_0_Conv2d_0a_1x1", 256, 1)
    a = _halving(a, f"{block}_Branch_0_Conv2d_1a_3x3", 384)
    b = convolution(x, f"{block}_Branch_1_Conv2d_0a_1x1", 256, 1)
    b = _halving(b, f"{block}_Branch_1_Conv2d_1a_3x3", 256)
    c = convolution(x, f"{block}_Branch_2_Conv2d_0a_1x1", 256, 1)
    c = convolution(c, f"{block}_Branch_2_Conv2d_0b_3x3", 256, 3)
    c = _halving(c, f"{block}_Branch_2_Conv2d_1a_3x3", 256)
    pooled = layers.MaxPooling2D(3, 2, name=f"{block}_Branch_3_MaxPool_1a_3x3")(x)
    return layers.Concatenate(name=block)([a, b, c, pooled])
