"""Building blocks of the networks and losses beyond Keras' own layers.

Everything here is composed of Keras' own operations, so that a saved network
loads without this package.
"""

from __future__ import annotations

from typing import Any

from keras import layers, ops

Tensor = Any
"""A tensor of Keras' backend, or a symbolic one while a network is being built."""

SMALLEST_SQUARED_LENGTH = 1e-12  # as in keras-facenet
SMALLEST_SQUARED_SUM = 1e-6  # not 0 in float16 either


def unit_length(x: Tensor) -> Tensor:
    """``x / √max(Σx², 1e-12)`` along the last axis, in float32 for any dtype of ``x``.

    Unlike ``keras.ops.normalize`` it has a finite gradient at ``x = 0``.
    """
    x = ops.cast(x, "float32")
    squared_length = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x / ops.sqrt(ops.maximum(squared_length, SMALLEST_SQUARED_LENGTH))


def l2_pool(x: Tensor) -> Tensor:
    """L2 norm of the 3×3 values around each position, per channel: ``√(Σx² + 1e-6)``.

    Args:
        x: maps, (n, height, width, channels); beyond their edges they are 0.

    Returns:
        Maps of the same shape.
    """
    squares = layers.ZeroPadding2D(1)(ops.square(x))
    mean = layers.AveragePooling2D(3, strides=1, padding="valid")(squares)
    return ops.sqrt(9.0 * mean + SMALLEST_SQUARED_SUM)


def convolution(
    x: Tensor,
    name: str,
    filters: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: str = "same",
) -> Tensor:
    """Convolution, batch normalisation and ReLU.

    The normalisation has no scale: a positive scale passes through the ReLU, and the next
    convolution can absorb it.
    """
    x = layers.Conv2D(filters, size, strides=stride, padding=padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(scale=False, name=f"{name}_BatchNorm")(x)
    return layers.ReLU(name=f"{name}_Activation")(x)
