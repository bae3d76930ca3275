"""``mini2``, the network of the included model of that name.

Each block is a depthwise convolution and two 1×1 convolutions with many channels between them, as
in ConvNeXt (Liu et al., A ConvNet for the 2020s, 2022, section 2.6), with batch normalisation,
which a runtime folds into the convolutions. The number of blocks, their kernel sizes and the
channels between them are those of EdgeFace-XS (George et al., EdgeFace: efficient face recognition
model for edge devices, 2023), so that each block can learn from its counterpart. Where EdgeFace has
attention over channels, blocks have squeeze-and-excitation, and all are wider inside.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from face2vec.training.blocks import (
    activated,
    channels_weighed,
    convolution,
    each_channel,
    grown,
    normalized,
    weighed_places,
)
from face2vec.training.layers import Tensor

SIDE = 112


class Stage(NamedTuple):
    """The blocks between two reductions of the maps' side."""

    filters: int
    """Channels between blocks."""
    blocks: int
    kernel: int
    """Side of the depthwise kernels."""
    weighed: bool
    """Whether blocks have squeeze-and-excitation; the last one of stages 2 to 4 always has."""


PLAN = (
    Stage(32, 3, 3, False), Stage(64, 3, 5, False), Stage(100, 9, 7, False), Stage(192, 3, 3, True),
)  # fmt: skip
WIDENED = 384
"""Channels after the last block, whose weighted positions make the embedding."""
Widths = tuple[tuple[int, int], ...]
BETWEEN: Widths = ((192, 192), (448, 448), (704, 704), (768, 768))
"""Channels in the middle of the first block of each stage, and of its others."""
STAGES = tuple(
    f"stage_{number}_{place}"
    for number, stage in enumerate(PLAN, 1)
    for place in range(1, stage.blocks + 1)
)
"""Blocks that can learn what another network's do: three times (28, 28, 32), three times
(14, 14, 64), nine times (7, 7, 100), three times (3, 3, 192)."""


def mini2(dimension: int = 512, between: Widths = BETWEEN) -> keras.Model:
    """Build the network with random weights.

    Args:
        dimension: length of an embedding.
        between: channels in the middle of blocks, in the form of `BETWEEN`.

    Returns:
        A model from (n, 112, 112, 3), RGB standardised as (x − 127.5) / 127.5, to (n, dimension),
        not normalised.
    """
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = layers.Conv2D(PLAN[0].filters, 4, strides=4, use_bias=False, name="stem_conv")(crops)
    x = normalized(x, "stem")
    for number, stage in enumerate(PLAN, 1):
        if number > 1:
            # With three pixels a side the last row and column of (7, 7) count, too.
            size = 3 if number == len(PLAN) else 2
            x = layers.Conv2D(
                stage.filters, size, strides=2, use_bias=False, name=f"reduce_{number}_conv"
            )(x)
            x = normalized(x, f"reduce_{number}")
        for place in range(1, stage.blocks + 1):
            last = number > 1 and place == stage.blocks
            width = between[number - 1][place > 1]
            x = _block(x, f"stage_{number}_{place}", stage, width, stage.weighed or last)
    x = convolution(x, "widen", WIDENED, 1)  # so that embeddings span more than 192 dimensions
    return keras.Model(crops, weighed_places(x, 3, dimension), name="mini2")


def wider(network: keras.Model, between: Widths) -> keras.Model:
    """The same network with more channels in the middle of its blocks.

    It gives the same embeddings at first, because the weights after the new channels are 0.

    Args:
        network: a `mini2`.
        between: the new widths; none below the present one.
    """
    present = tuple(
        tuple(network.get_layer(f"stage_{n}_{place}_wide_conv").filters for place in (1, 2))
        for n in range(1, len(PLAN) + 1)
    )
    if between == present:
        return network
    return grown(network, mini2(network.output_shape[-1], between))


def _block(x: Tensor, name: str, stage: Stage, width: int, weighed: bool) -> Tensor:
    y = each_channel(x, f"{name}_each", stage.kernel, active=False)
    y = layers.Conv2D(width, 1, name=f"{name}_wide_conv")(y)
    y = activated(y, f"{name}_wide")
    y = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_narrow_conv")(y)
    y = normalized(y, f"{name}_narrow", scale="zeros")  # so that a block changes nothing at first
    if weighed:
        y = channels_weighed(y, f"{name}_weighed", stage.filters)
    return layers.Add(name=name)([x, y])
