"""The optimiser of `train.py`."""

from __future__ import annotations

import math
from typing import Any

import torch

RATE_OF_KERNELS, DECAY = 5.0, 1e-2
LEAST_SIZE, LEAST_SIZE_OF_KERNELS = 0.02, 1e-3
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.99), 1e-8


class Muon:
    """Muon for kernels, Adam for all others.

    Steps are relative to the numbers that they change, because the teacher's maps are of very
    different sizes (You et al., Large batch training of convolutional networks, 2017, section 4).
    """

    def __init__(self, network: Any) -> None:
        named = list(network.named_parameters())
        kernels = {n for n, p in named if p.ndim > 1 and n.endswith(("weight", "kernel"))}
        self.matrices = [p for n, p in named if n in kernels]
        self.others = [p for n, p in named if n not in kernels]
        self.means = [torch.zeros_like(p) for p in (*self.matrices, *self.others)]
        self.squares = [torch.zeros_like(p) for p in self.others]
        self.steps = 0

    def step(self, rate: float) -> None:
        """Update all numbers from their gradients."""
        self.steps += 1
        with torch.no_grad():
            count = len(self.matrices)
            slopes = [p.grad for p in (*self.matrices, *self.others)]
            means, averages = self.means[:count], self.means[count:]
            torch._foreach_lerp_(averages, slopes[count:], 1 - BETAS[0])
            torch._foreach_lerp_(
                self.squares, torch._foreach_mul(slopes[count:], slopes[count:]), 1 - BETAS[1]
            )
            lengths = torch._foreach_sqrt(self.squares)
            torch._foreach_add_(lengths, EPSILON)
            unbiased = math.sqrt(1 - BETAS[1] ** self.steps) / (1 - BETAS[0] ** self.steps)
            torch._foreach_div_(lengths, [size(p, p.numel(), LEAST_SIZE) for p in self.others])
            torch._foreach_addcdiv_(self.others, averages, lengths, value=-rate * unbiased)
            torch._foreach_lerp_(means, slopes[:count], 1 - MOMENTUM)
            ahead = torch._foreach_lerp(slopes[:count], means, MOMENTUM)
            alike: dict[tuple[int, int], list[Any]] = {}
            for p, one in zip(self.matrices, ahead, strict=True):
                matrix = one.reshape(len(one), -1)  # (outputs, inputs)
                tall = matrix.shape[0] > matrix.shape[1]
                lying = matrix.T if tall else matrix
                alike.setdefault(tuple(lying.shape), []).append((p, lying, tall))
            torch._foreach_mul_(self.matrices, 1 - DECAY * rate)
            for same in alike.values():
                turned = directions(torch.stack([lying for _, lying, _ in same]))
                for (p, lying, tall), one in zip(same, turned, strict=True):
                    step = (one.T if tall else one).reshape(p.shape)
                    step = step * size(p, len(lying), LEAST_SIZE_OF_KERNELS)
                    p.add_(step, alpha=-RATE_OF_KERNELS * rate)

    def state(self) -> dict[str, Any]:
        """What `load` takes, to go on."""
        return {"steps": self.steps, "means": self.means, "squares": self.squares}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.steps, self.means, self.squares = state["steps"], state["means"], state["squares"]


def size(x: torch.Tensor, count: int, least: float) -> torch.Tensor:
    """The root of the sum of squares over ``count``, but not less than ``least``."""
    return (x.norm() / math.sqrt(count)).clamp(min=least)


def directions(x: torch.Tensor) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values set to about 1."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16()
    for _ in range(5):
        squared = torch.bmm(x, x.mT)
        squared = torch.baddbmm(squared, squared, squared, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, squared, x, beta=3.4445)
    return x.float()


def rising_and_falling(reached: float, rising: float, flat: float) -> float:
    """The share of the highest learning rate after a share of the time.

    Args:
        reached: share of the time that is over, 0…1.
        rising: share in which the rate rises.
        flat: share until which it stays the highest. Then it falls to 0.
    """
    return min(1.0, reached / rising, (1 - reached) / (1 - flat))
