"""What `train.py` makes small."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

SIMILARITIES = 8.0
LEAST_VARIANCE = 0.05, 1e-3
"""Of a channel, as shares of the median and of the mean over channels: one that hardly changes
teaches nothing."""


class Unexplained(torch.autograd.Function):
    """The share of the variance of maps that others do not explain, averaged over channels."""

    @staticmethod
    def forward(ctx: Any, given: Any, wanted: Any, variances: Any) -> Any:
        """The share of (…, channels) values."""
        off = (given - wanted).reshape(-1, wanted.shape[-1])
        ctx.save_for_backward(off, variances)
        ctx.like = given.shape, given.dtype
        return (off * off).sum(0).div(variances).mean() / len(off)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """The gradient of the first argument."""
        off, variances = ctx.saved_tensors
        shape, kind = ctx.like
        slope = off * (slopes[0] * 2 / (variances * off.numel()))
        return slope.reshape(shape).to(kind), None, None


def variances(maps: torch.Tensor) -> torch.Tensor:
    """Variance of each channel of maps (…, channels), not much less than those of the others."""
    found = maps.var(tuple(range(maps.ndim - 1)))
    shares = found.median() * LEAST_VARIANCE[0], found.mean() * LEAST_VARIANCE[1]
    return found.clamp(min=float(max(shares)) + 1e-12)


def away_from(embeddings: Any, targets: Any) -> Any:
    """``1 − cos`` and the squared differences of all similarities of the batch; and the first."""
    e, t = F.normalize(embeddings.float()), F.normalize(targets.float())
    away = (1 - (e * t).sum(1)).mean()
    return away + SIMILARITIES * (e @ e.T - t @ t.T).square().mean(), away
