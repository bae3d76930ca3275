"""The network `mini2` in PyTorch; `face2vec.training.mini2` is the same in Keras.

Maps are (n, height, width, channels) between the layers, as 1×1 convolutions want them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SIDE = 112
DIMENSION = 512
STEM, WIDENED, SQUEEZED, SLOPE = 24, 512, 8, 0.1
PLAN = ((40, 3, 3, 160, False), (80, 3, 5, 400, False), (160, 9, 5, 768, False),
        (288, 3, 3, 1152, True))  # fmt: skip
"""Of each stage: channels, blocks, side of the depthwise kernels, channels in the middle of
blocks, whether all blocks weigh channels."""
MOMENTUM, EPSILON = 0.02, 1e-5


class Normalized(nn.Module):
    """Batch normalisation over the last axis."""

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), scale))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Values of the same shape."""
        return self.second(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def second(self, x: Tensor) -> Tensor:
        """The same over the second axis."""
        return F.batch_norm(
            x, self.mean, self.variance, self.gamma, self.beta, self.training, MOMENTUM, EPSILON
        )


class Convolution(nn.Module):
    """A convolution of maps (n, height, width, channels), normalised."""

    def __init__(self, given: int, made: int, size: int, stride: int, border: int) -> None:
        super().__init__()
        scale = math.sqrt(2 / (given * size * size))
        self.kernel = nn.Parameter(torch.randn(made, given, size, size) * scale)
        self.norm = Normalized(made)
        self.stride, self.border = stride, border

    def forward(self, x: Tensor) -> Tensor:
        """Maps of (n, height, width, channels)."""
        x = F.conv2d(x.permute(0, 3, 1, 2), self.kernel, None, self.stride, self.border)
        return self.norm(x.permute(0, 2, 3, 1))


class EachChannel(nn.Module):
    """A depthwise convolution as one matrix product a channel, normalised.

    The gradients of depthwise convolutions are slow on GPUs; these matrices are small.
    """

    def __init__(self, channels: int, size: int, side: int, whole: bool = False) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(channels, size, size) / size)
        self.norm = Normalized(channels)
        self.made = 1 if whole else side
        reach = 0 if whole else size // 2
        rows = np.arange(side)[:, None] - np.arange(self.made)[None] + reach  # (from, to)
        places = np.arange(size)
        one = (rows == places[:, None, None]).astype(np.float32)  # (place, from, to)
        # Where each number of the kernel is in the matrix from all positions to all.
        spread = np.einsum("apq,brs->prabqs", one, one)
        spread = spread.reshape(side * side, size * size, -1)
        self.register_buffer("spread", torch.from_numpy(spread), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of as many channels."""
        n, side, _, channels = x.shape
        # One product for each position: the gradient of a single one would add up over all of them.
        kernels = self.kernel.flatten(1).expand(side * side, -1, -1)
        matrices = torch.bmm(kernels, self.spread).permute(1, 0, 2)
        maps = x.reshape(n, -1, channels).permute(2, 0, 1).contiguous()
        y = self.norm.second(torch.bmm(maps, matrices).reshape(1, channels, -1))
        y = y.reshape(channels, n, -1).permute(1, 2, 0)
        return y.reshape(n, self.made, self.made, channels)


class Block(nn.Module):
    """A depthwise convolution and two 1×1 convolutions, added to what they are given."""

    def __init__(self, channels: int, size: int, side: int, middle: int, weighed: bool) -> None:
        super().__init__()
        self.each = EachChannel(channels, size, side)
        self.wide = nn.Linear(channels, middle)
        self.narrow = nn.Linear(middle, channels, bias=False)
        self.norm = Normalized(channels, 0.0)
        nn.init.normal_(self.wide.weight, std=math.sqrt(2 / channels))
        nn.init.zeros_(self.wide.bias)
        nn.init.normal_(self.narrow.weight, std=math.sqrt(2 / middle))
        self.squeeze = nn.Linear(channels, channels // SQUEEZED) if weighed else None
        self.channels = nn.Linear(channels // SQUEEZED, channels) if weighed else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        y = F.leaky_relu(self.wide(self.each(x)), SLOPE)
        y = self.norm(self.narrow(y))
        if self.squeeze is not None and self.channels is not None:
            weights = F.leaky_relu(self.squeeze(y.mean((1, 2))), SLOPE)
            y = y * torch.sigmoid(self.channels(weights))[:, None, None]
        return x + y


class Student(nn.Module):
    """The network, from (n, 3, 112, 112), −1…1, to (n, 512), with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2, 1)
        self.stem_2 = Convolution(STEM, PLAN[0][0], 3, 2, 1)
        self.reduce = nn.ModuleList()
        self.stages = nn.ModuleList()
        side, before = SIDE // 4, PLAN[0][0]
        for number, (channels, blocks, size, middle, weighed) in enumerate(PLAN, 1):
            if number > 1:
                last = number == len(PLAN)
                self.reduce.append(Convolution(before, channels, 3 if last else 2, 2, 0))
                side = (side - 3) // 2 + 1 if last else side // 2
            self.stages.append(nn.Sequential(*(
                Block(channels, size, side, middle,
                      weighed or (number > 1 and place == blocks))
                for place in range(1, blocks + 1)
            )))  # fmt: skip
            before = channels
        self.widen = Convolution(before, WIDENED, 1, 1, 0)
        self.places = EachChannel(WIDENED, side, side, whole=True)
        self.embedding = nn.Linear(WIDENED, DIMENSION)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, not normalised, float32."""
        x = F.leaky_relu(self.stem(x.permute(0, 2, 3, 1)), SLOPE)
        x = self.stem_2(x)
        for number, stage in enumerate(self.stages):
            if number:
                x = self.reduce[number - 1](x)
            x = stage(x)
        x = F.leaky_relu(self.widen(x), SLOPE)
        return self.embedding(self.places(x).flatten(1)).float()
