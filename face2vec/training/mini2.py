"""``mini2``, a network that follows several teachers.

Each block is a depthwise convolution and two 1×1 convolutions with many channels between them, as
in ConvNeXt (Liu et al., A ConvNet for the 2020s, 2022, section 2.6), with batch normalisation,
which a runtime folds into the convolutions. Two convolutions take the pixels instead of one with
large strides, because such networks learn faster (Xiao et al., Early convolutions help
transformers see better, 2021). The last blocks of the later stages have squeeze-and-excitation.

Its widths were chosen so that it takes as long as `mini` in ONNX Runtime and OpenVINO, and its
weights as int8 take less than 6 MB.
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
    Stage(40, 3, 3, False), Stage(80, 3, 5, False), Stage(160, 9, 5, False), Stage(288, 3, 3, True),
)  # fmt: skip
STEM = 24
"""Channels after the first convolution."""
WIDENED = 512
"""Channels after the last block, whose weighted positions make the embedding."""
Widths = tuple[tuple[int, int], ...]
BETWEEN: Widths = ((160, 160), (400, 400), (768, 768), (1152, 1152))
"""Channels in the middle of the first block of each stage, and of its others."""


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
    x = convolution(crops, "stem", STEM, 3, stride=2)
    x = convolution(x, "stem_2", PLAN[0].filters, 3, stride=2, active=False)
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
    x = convolution(x, "widen", WIDENED, 1)  # so that embeddings span all dimensions
    return keras.Model(crops, weighed_places(x, 3, dimension), name="mini2")


def _block(x: Tensor, name: str, stage: Stage, width: int, weighed: bool) -> Tensor:
    y = each_channel(x, f"{name}_each", stage.kernel, active=False)
    y = layers.Conv2D(width, 1, name=f"{name}_wide_conv")(y)
    y = activated(y, f"{name}_wide")
    y = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_narrow_conv")(y)
    y = normalized(y, f"{name}_narrow", scale="zeros")  # so that a block changes nothing at first
    if weighed:
        y = channels_weighed(y, f"{name}_weighed", stage.filters)
    return layers.Add(name=name)([x, y])
