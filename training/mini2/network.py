"""The plan of the network `mini2`, for `student.py`, which trains it, and `export.py`."""

from __future__ import annotations

from typing import NamedTuple

SIDE = 112
DIMENSION = 512
HEADS = 4
EPSILON = 1e-6
PATCH = 4  # pixels a side


class Stage(NamedTuple):
    """The blocks between two reductions of the maps' side."""

    channels: int
    blocks: int
    kernel: int
    """Side of the depthwise kernels."""
    middle: int
    """Channels in the middle of a block."""
    groups: int
    """Groups of channels in the last block, which mixes channels; 0 for a block like the others."""

    def mixes(self, place: int) -> bool:
        """Whether the block at a place, from 1, mixes channels."""
        return self.groups > 0 and place == self.blocks

    def sizes(self) -> list[int]:
        """Channels of each group."""
        size = -(-self.channels // self.groups)
        return [size] * (self.groups - 1) + [self.channels - size * (self.groups - 1)]


PLAN = (
    Stage(32, 3, 3, 160, 0),
    Stage(64, 3, 5, 320, 2),
    Stage(100, 9, 7, 600, 3),
    Stage(192, 2, 9, 1152, 0),
)
