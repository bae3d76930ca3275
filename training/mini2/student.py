"""The network `mini2` in PyTorch.

Its blocks are those of EdgeNeXt, of which EdgeFace consists (Maaz et al., EdgeNeXt: efficiently
amalgamated CNN-transformer architecture for mobile vision applications, 2022, section 3), with as
many channels between them, so that each block can learn from its counterpart in EdgeFace-XS. They
are wider in the middle, which makes that easier. EdgeFace's last block is left out, because it
changes hardly anything.

Maps are (n, height, width, channels) between the layers, float32; convolutions and matrix products
may run in bfloat16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from network import DIMENSION, EPSILON, HEADS, PATCH, PLAN, SIDE, Stage
from torch import Tensor, nn

SMALL_SIDE = 7
AT_FIRST = 0.02
"""Scale of the weights of layers that should change little at first."""


class Depthwise(nn.Module):
    """A depthwise convolution.

    Small maps are multiplied by one matrix a channel instead, from all places to all, because the
    gradients of depthwise convolutions are slow.

    Args:
        channels: of the maps.
        size: side of the kernels.
        side: side of the maps.
    """

    def __init__(self, channels: int, size: int, side: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(channels, 1, size, size) / size)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("spread", None, persistent=False)
        if side <= SMALL_SIDE:
            places = np.arange(side)
            apart = places[:, None] - places[None] + size // 2  # (from, to)
            one = (apart == np.arange(size)[:, None, None]).astype(np.float32)
            # Which number of the kernel is between each two places.
            spread = np.einsum("apq,brs->abprqs", one, one).reshape(size**2, side**4)
            self.spread = torch.from_numpy(spread)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        n, height, width, channels = x.shape
        if self.spread is None:
            reach = self.kernel.shape[-1] // 2
            with torch.autocast(x.device.type, enabled=False):  # faster than in bfloat16
                x = x.float().permute(0, 3, 1, 2)
                y = F.conv2d(x, self.kernel, self.bias, 1, reach, 1, channels)
            return y.permute(0, 2, 3, 1)
        matrices = (self.kernel.flatten(1) @ self.spread).reshape(channels, height * width, -1)
        y = torch.bmm(x.reshape(n, -1, channels).permute(2, 0, 1), matrices)
        return y.permute(1, 2, 0).reshape(x.shape) + self.bias


class Patches(nn.Module):
    """A convolution that takes each pixel once."""

    def __init__(self, given: int, made: int, side: int, scale: float) -> None:
        super().__init__()
        spread = scale / math.sqrt(given * side * side)
        self.kernel = nn.Parameter(torch.randn(made, given, side, side) * spread)
        self.bias = nn.Parameter(torch.zeros(made))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, height / side, width / side, channels) of maps (n, height, width, channels)."""
        side = self.kernel.shape[-1]
        x = x.permute(0, 3, 1, 2)
        return F.conv2d(x, self.kernel, self.bias, side).permute(0, 2, 3, 1)


class Middle(nn.Module):
    """Layer normalisation and two linear layers with many channels between them."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.wide = linear(channels, middle, 1.0)
        self.narrow = linear(middle, channels, AT_FIRST)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return self.narrow(F.gelu(self.wide(self.norm(x))))


class Block(nn.Module):
    """A depthwise convolution and `Middle`, added to what they are given."""

    def __init__(self, channels: int, kernel: int, middle: int, side: int) -> None:
        super().__init__()
        self.each = Depthwise(channels, kernel, side)
        self.middle = Middle(channels, middle)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return x + self.middle(self.each(x))

    def rescale(self) -> None:
        """Bring the kernels to a norm of 1 a channel, with the same results.

        The normalisation takes a common factor of kernels and biases away, so nothing else keeps
        the steps of an optimiser from making them grow.
        """
        kernel, bias = self.each.kernel, self.each.bias
        with torch.no_grad():
            factor = math.sqrt(len(kernel)) / kernel.norm()
            kernel.mul_(factor)
            bias.mul_(factor)


class Mixed(nn.Module):
    """Depthwise convolutions of groups of channels, and attention across channels.

    Each group but the last is convolved together with the result of the one before. The weights of
    the attention are the cosines between channels (Ali et al., XCiT: cross-covariance image
    transformers, 2021, section 3.1).
    """

    def __init__(self, stage: Stage, side: int) -> None:
        super().__init__()
        channels, self.sizes = stage.channels, stage.sizes()
        self.each = nn.ModuleList(Depthwise(size, 3, side) for size in self.sizes[:-1])
        self.places = nn.Parameter(torch.zeros(side * side, channels))
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.all_three = linear(channels, 3 * channels, 1.0)  # queries, keys and values
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.after = linear(channels, channels, AT_FIRST)

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, height · width, channels)."""
        n, height, width, channels = x.shape
        *first, last = x.split(self.sizes, 3)
        made: list[Any] = []
        for convolution, group in zip(self.each, first, strict=True):
            made.append(convolution(group + made[-1] if made else group))
        y = torch.cat([*made, last], 3).reshape(n, height * width, channels) + self.places
        three = self.all_three(self.norm(y)).float()
        heads = three.reshape(n, height * width, 3, HEADS, channels // HEADS)
        queries, keys, values = heads.permute(2, 0, 3, 4, 1)  # each (n, heads, channels, places)
        cosines = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).transpose(2, 3)
        mixed = (cosines * self.temperature).softmax(-1) @ values
        return y + self.after(mixed.permute(0, 3, 1, 2).reshape(n, height * width, channels))


class MixingBlock(nn.Module):
    """`Mixed` and `Middle`; what they give is added to what they are given."""

    def __init__(self, stage: Stage, side: int) -> None:
        super().__init__()
        self.mixed = Mixed(stage, side)
        self.middle = Middle(stage.channels, stage.middle)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return self.second(x, self.mixed(x))

    def second(self, x: Tensor, mixed: Tensor) -> Tensor:
        """What the block gives for maps ``x``, of which `Mixed` made ``mixed``."""
        return x + self.middle(mixed).reshape(x.shape)


class Stem(nn.Module):
    """The first convolution and its normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = Patches(3, channels, PATCH, 1.0)
        self.norm = nn.LayerNorm(channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, 28, 28, channels) of crops (n, 3, 112, 112)."""
        # The normalisation of flat patches would make rounding errors of bfloat16 large.
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.patches(x.permute(0, 2, 3, 1)))

    def settle(self, wanted: Tensor) -> None:
        """Begin with channels whose mean and spread are those of other maps, (…, channels)."""
        places = tuple(range(wanted.ndim - 1))
        with torch.no_grad():
            self.norm.bias.copy_(wanted.mean(places))
            self.norm.weight.copy_(wanted.std(places))


class Reduction(nn.Module):
    """Normalisation, and a convolution that halves the side of maps."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(given, EPSILON)
        self.patches = Patches(given, made, 2, AT_FIRST)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of half the side."""
        return self.patches(self.norm(x))


class Head(nn.Module):
    """The mean of all places, normalised, and a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.embedding = linear(channels, DIMENSION, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, not normalised, float32."""
        return self.embedding(self.norm(x.float().mean((1, 2)))).float()


class Student(nn.Module):
    """The network, from (n, 3, 112, 112), −1…1, to (n, 512), with random weights.

    Attributes:
        parts: the parts in order. Each takes what the one before gives.
    """

    def __init__(self) -> None:
        super().__init__()
        side = SIDE // PATCH
        parts: dict[str, nn.Module] = {"stem": Stem(PLAN[0].channels)}
        for number, stage in enumerate(PLAN, 1):
            if number > 1:
                parts[f"reduce_{number}"] = Reduction(PLAN[number - 2].channels, stage.channels)
                side //= 2
            for place in range(1, stage.blocks + 1):
                parts[f"stage_{number}_{place}"] = (
                    MixingBlock(stage, side)
                    if stage.mixes(place)
                    else Block(stage.channels, stage.kernel, stage.middle, side)
                )
        parts["head"] = Head(PLAN[-1].channels)
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, not normalised, float32."""
        for part in self.parts.values():
            x = part(x)
        return x


def linear(given: int, made: int, scale: float) -> nn.Linear:
    """A linear layer whose weights are drawn with a scale; its biases are 0."""
    layer = nn.Linear(given, made)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(given))
    nn.init.zeros_(layer.bias)
    return layer
