"""Runs Keras networks in training with PyTorch's own functions, if Keras runs on PyTorch.

Keras computes a batch normalisation in many passes over its maps, which on a processor takes longer
than the convolutions. Here each layer becomes one PyTorch call, in bfloat16 on request. The weights
are those of the Keras layers. Unknown layers run in Keras.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras
import torch
import torch.nn.functional as F  # noqa: N812

Layer = Any
"""A layer or another operation of a Keras network."""
Tensor = Any
"""One of PyTorch; maps are (n, height, width, channels), as Keras has them."""


@dataclass(frozen=True, eq=False)
class Bordered:
    """Maps with a pending border of zeros, which a convolution can add itself."""

    maps: Tensor
    borders: Sequence[tuple[int, int]]

    def whole(self) -> Tensor:
        """The maps with the border."""
        (top, bottom), (left, right) = self.borders
        return F.pad(self.maps, (0, 0, left, right, top, bottom))


def run(network: keras.Model, inputs: Any, half: bool) -> Any:
    """The outputs of a functional network in training mode.

    Args:
        network: the network.
        inputs: float32 arrays or tensors in the structure of the network's inputs.
        half: compute in bfloat16; normalisations keep their sums in float32.

    Returns:
        Tensors in the structure of the network's output, bfloat16 if they were computed in it.
    """
    given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return _through(network, given)


def _through(network: keras.Model, inputs: Any) -> Any:
    # The only hook of a functional network to replace what its layers compute.
    return network._run_through_graph(inputs, operation_fn=_quick)


def _quick(layer: Layer) -> Callable[..., Any]:
    known = RUN.get(type(layer).__name__)
    if known is not None:
        return lambda *given, **_: known(layer, *given)
    if isinstance(layer, keras.Model) and hasattr(layer, "_run_through_graph"):
        return lambda *given, **_: _through(layer, list(given))

    def as_it_is(*given: Any, **named: Any) -> Any:
        whole = [one.whole() if isinstance(one, Bordered) else one for one in given]
        if isinstance(layer, keras.layers.BatchNormalization | keras.layers.Dropout):
            named["training"] = True
        return layer(*whole, **named)

    return as_it_is


def _convolution(layer: Layer, given: Tensor) -> Tensor:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = layer.kernel.value.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    maps: Tensor = given
    borders: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    if isinstance(given, Bordered):
        maps, borders = given.maps, given.borders
    if layer.padding == "same":
        maps = given.whole() if isinstance(given, Bordered) else given
        axes = zip(maps.shape[1:3], layer.strides, layer.kernel_size, strict=True)
        borders = [_same(*axis) for axis in axes]
    if any(before != after for before, after in borders):
        maps, borders = Bordered(maps, borders).whole(), ((0, 0), (0, 0))
    padding = [before for before, _ in borders]
    bias = None if layer.bias is None else layer.bias.value
    if layer.kernel_size == (1, 1) and layer.strides == (1, 1) and not any(padding):
        # As one matrix product its gradients take half the time of those of a convolution.
        return _activated(layer, F.linear(maps, kernel[:, :, 0, 0], bias))
    groups = len(kernel) if depthwise else 1
    x = maps.permute(0, 3, 1, 2)
    down, across = layer.strides
    if depthwise and max(layer.kernel_size) > 3:
        # Gradients of large depthwise kernels take three to five times as long in bfloat16.
        with torch.autocast("cpu", enabled=False):
            x = F.conv2d(x.float(), kernel, bias, layer.strides, padding, groups=groups)
        return _activated(layer, x.permute(0, 2, 3, 1))
    if depthwise and (down, across) != (1, 1):
        # oneDNN has no fast gradient for strided ones in bfloat16.
        x = F.conv2d(x, kernel, bias, 1, padding, groups=groups)
        x = x[:, :, ::down, ::across].contiguous(memory_format=torch.channels_last)
    else:
        x = F.conv2d(x, kernel, bias, layer.strides, padding, groups=groups)
    return _activated(layer, x.permute(0, 2, 3, 1))


def _same(length: int, step: int, reach: int) -> tuple[int, int]:
    """Values that Keras pads before and after an axis with "same"."""
    added = max((-(-length // step) - 1) * step + reach - length, 0)
    return added // 2, added - added // 2


def _dense(layer: Layer, given: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.value
    return _activated(layer, F.linear(given, layer.kernel.value.T, bias))


def _activated(layer: Layer, x: Tensor) -> Tensor:
    return x if layer.activation is keras.activations.linear else layer.activation(x)


def _normalized(layer: Layer, given: Tensor) -> Tensor:
    maps = given.ndim == 4
    x = F.batch_norm(
        given.permute(0, 3, 1, 2) if maps else given,
        layer.moving_mean.value,
        layer.moving_variance.value,
        layer.gamma.value if layer.scale else None,
        layer.beta.value if layer.center else None,
        layer.trainable,
        1 - layer.momentum,
        layer.epsilon,
    )
    return x.permute(0, 2, 3, 1) if maps else x


def _several(given: tuple[Any, ...]) -> Sequence[Any]:
    """The inputs of a layer or an operation."""
    several: Sequence[Any] = given[0] if len(given) == 1 else given
    return several


RUN: Mapping[str, Callable[..., Any]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "Dense": _dense,
    "BatchNormalization": _normalized,
    "ZeroPadding2D": lambda layer, x: Bordered(x, layer.padding),
    "LeakyReLU": lambda layer, x: F.leaky_relu(x, layer.negative_slope),
    "ReLU": lambda layer, x: F.relu(x),
    "Add": lambda layer, *given: reduce(operator.add, _several(given)),
    "Multiply": lambda layer, *given: reduce(operator.mul, _several(given)),
    "Identity": lambda layer, x: x,
    "GlobalAveragePooling2D": lambda layer, x: x.mean((1, 2)),
    "Reshape": lambda layer, x: x.reshape(-1, *layer.target_shape),
    "Flatten": lambda layer, x: x.reshape(len(x), -1),
}
"""By the name of the layer's or the operation's class."""
