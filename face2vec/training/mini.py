"""``mini``, the small network that is included in the package.

Inverted residual blocks with a depthwise convolution (Sandler et al., MobileNetV2, 2018, section
3.3), with squeeze-and-excitation where the maps are small enough for it to cost little (Hu et al.,
Squeeze-and-excitation networks, 2018). It ends with MobileFaceNet's global depthwise convolution:
one weight for each position of the last maps instead of their mean (Chen et al., MobileFaceNets,
2018, section 3.2).

It has as many blocks as its teacher, with the same widths at both ends, so that each block can
learn from its counterpart. It is wider in the middle of blocks where maps are small, takes three
quarters of the pixels per side, and has activations that a runtime fuses with the convolution
before them.
"""

from __future__ import annotations

import keras
from keras import layers

from face2vec.training.blocks import (
    channels_weighed,
    convolution,
    each_channel,
    grown,
    weighed_places,
)
from face2vec.training.layers import Tensor

SIDE = 96
BLOCKS = (5, 7, 3)
"""In each stage; the first halves the side of the maps."""
Widths = tuple[tuple[int, int], ...]
BETWEEN: Widths = ((128, 128), (256, 448), (512, 640))
"""Channels in the middle of the first block of each stage, and of its others."""
STAGES = (
    "stage_1_1", "stage_1_3", "stage_1_5",
    "stage_2_1", "stage_2_3", "stage_2_5", "stage_2_7",
    "stage_3_1", "stage_3_3",
)  # fmt: skip
"""Blocks that can learn what another network's do: three times (24, 24, 64), four times
(12, 12, 128), twice (6, 6, 128)."""


def mini(dimension: int = 256, between: Widths = BETWEEN) -> keras.Model:
    """Build the network with random weights.

    Args:
        dimension: length of an embedding.
        between: channels in the middle of blocks, in the form of `BETWEEN`.

    Returns:
        A model from (n, 96, 96, 3), RGB standardised as (x − 127.5) / 127.5, to (n, dimension), not
        normalised.
    """
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = convolution(crops, "stem", 32, 3, stride=2)
    x = each_channel(x, "stem_each", 3)
    x = _stage(x, 1, 64, between[0], weighed=False)
    x = _stage(x, 2, 128, between[1])
    x = _stage(x, 3, 128, between[2])
    x = convolution(x, "widen", 512, 1)
    x = weighed_places(x, SIDE // 16, dimension)
    return keras.Model(crops, x, name="mini")


def wider(network: keras.Model, between: Widths) -> keras.Model:
    """The same network with more channels in the middle of its blocks.

    It gives the same embeddings at first, because the weights after the new channels are 0.

    Args:
        network: a `mini`.
        between: the new widths; none below the present one.
    """
    if between == widths(network):
        return network
    return grown(network, mini(network.output_shape[-1], between))


def widths(network: keras.Model) -> Widths:
    """Channels in the middle of the blocks of a `mini`, in the form of `BETWEEN`."""
    return tuple(
        tuple(network.get_layer(f"stage_{stage}_{place}_wide_conv").filters for place in (1, 2))
        for stage in (1, 2, 3)
    )


def _stage(
    x: Tensor, number: int, filters: int, between: tuple[int, int], *, weighed: bool = True
) -> Tensor:
    """Halve the side of the maps."""
    for place in range(1, BLOCKS[number - 1] + 1):
        first, name = place == 1, f"stage_{number}_{place}"
        y = convolution(x, f"{name}_wide", between[not first], 1)
        y = each_channel(y, f"{name}_each", 3, stride=2 if first else 1)
        y = convolution(y, f"{name}_narrow", filters, 1, active=False)
        if weighed:
            y = channels_weighed(y, f"{name}_weighed", filters)
        x = layers.Identity(name=name)(y) if first else layers.Add(name=name)([x, y])
    return x
