"""Blockwise distillation: each stage of a network learns the same stage of a teacher, all at once.

A stage gets the teacher's maps and learns its next maps (Li et al., Blockwisely supervised neural
architecture search with knowledge distillation, 2020, section 3.1). Every position of a map is an
example, whereas an embedding is one example per crop, and no stage waits for those before it. A few
thousand faces train a network as far as hundreds of thousands do with embeddings alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from face2vec.errors import SettingsError
from face2vec.models import LoadedModel, standardize
from face2vec.runtime.select import Runtime
from face2vec.training.augment import Augmentation
from face2vec.training.batches import Batch, Rows, ShuffledBatches, augmented
from face2vec.training.faces import Faces
from face2vec.training.layers import Tensor
from face2vec.training.losses import distillation
from face2vec.training.teachers import resized
from face2vec.training.trainer import CROPS

EMBEDDING = "embedding"
LEAST_VARIANCE = 1e-3
"""Of a channel, as a share of the mean over channels: one that never changes teaches nothing."""


def apart(network: keras.Model, stages: Sequence[str]) -> keras.Model:
    """The stages of a network side by side, sharing its weights.

    Args:
        network: maps crops to embeddings.
        stages: names of the layers that end a stage.

    Returns:
        A model from a dictionary of the crops and each stage's input maps, by layer name, to a
        dictionary of each stage's output, the last one under ``"embedding"``.
    """
    cuts = [network.input, *(network.get_layer(name).output for name in stages), network.output]
    names = [CROPS, *stages, EMBEDDING]
    given = {
        name: keras.Input(cut.shape[1:], name=name)
        for name, cut in zip(names[:-1], cuts[:-1], strict=True)
    }
    gives = {
        after: keras.Model(start, end, name=f"to_{after}")(given[before])
        for before, after, start, end in zip(names, names[1:], cuts, cuts[1:], strict=False)
    }
    return keras.Model(given, gives, name=f"{network.name}_apart")


class FollowStages:
    """The share of the variance of the teacher's maps that the network's stages do not explain.

    The loss is the sum over stages of the mean square error of a channel over its variance in the
    batch, averaged over channels: 1 for a stage that returns the means, 0 for one that equals the
    teacher's.

    Args:
        stages: names of the layers that end a stage.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.parts = (*stages, EMBEDDING)

    def __call__(
        self, given: dict[str, Tensor], wanted: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the unexplained share of each stage."""
        shares = {name: _unexplained(given[name], wanted[name]) for name in self.parts}
        return sum(shares.values()), shares


def on_the_way(network: keras.Model, stages: Sequence[str]) -> keras.Model:
    """A network that returns the maps of some layers besides its embedding.

    Args:
        network: maps crops to embeddings.
        stages: names of the layers.

    Returns:
        A model from crops to a dictionary of the maps by the layers' names, and of the embedding
        under ``"embedding"``.
    """
    gives = {name: network.get_layer(name).output for name in stages}
    return keras.Model(
        network.input, {**gives, EMBEDDING: network.output}, name=f"{network.name}_on_the_way"
    )


class FollowHints:
    """Follow a teacher's embeddings and, with falling weight, the maps of its stages.

    The loss is `losses.distillation` plus ``weight`` times the mean unexplained share of the maps,
    see `FollowStages`; the weight falls to 0 during the training.

    Args:
        stages: names of the layers whose maps are compared.
        weight: weight at the first step.
    """

    def __init__(self, stages: Sequence[str], weight: float) -> None:
        self._stages, self._weight = tuple(stages), weight
        self._left = keras.Variable(1.0, trainable=False, name="hints_left")
        self.parts: tuple[str, ...] = ("follow", "hints")

    def reached(self, share: float) -> None:
        """Set the share of the steps that are done, 0…1."""
        self._left.assign(max(0.0, 1.0 - share))

    def __call__(
        self, given: dict[str, Tensor], wanted: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its two parts: that of the embedding, and the mean unexplained share."""
        follow = distillation(given[EMBEDDING], wanted[EMBEDDING])
        shares = [_unexplained(given[name], wanted[name]) for name in self._stages]
        hints = sum(shares) / len(shares)
        loss = follow + self._weight * self._left * hints
        return loss, {"follow": follow, "hints": hints}


class StageTeacher:
    """A teacher network that returns inner maps.

    Args:
        model: the network.
        runtime: the runtime to run it with.
        tensors: names of the maps in its graph, in order.
        shapes: (height, width, channels) of the student's maps. The teacher's maps are resized to
            them.

    Raises:
        ModelError: the graph has no such tensor.
    """

    def __init__(
        self,
        model: LoadedModel,
        runtime: Runtime,
        tensors: Sequence[str],
        shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        self.description = model.description
        self._tensors, self._shapes = tensors, shapes
        self._network = runtime.load(model.path, tensors)

    def __call__(self, crops: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Maps float32 (n, height, width, channels).

        Args:
            crops: RGB uint8 (n, side, side, 3), aligned as the model requires.

        Raises:
            SettingsError: a map has another number of channels than the student's.
        """
        pixels = standardize(crops, self.description)
        _, *maps = self._network.run({self._network.input_name: pixels})
        side = self.description.input_size
        return [
            _at_places(_channels_last(*one), one[1], side)
            for one in zip(maps, self._shapes, self._tensors, strict=True)
        ]


class StageBatches(ShuffledBatches):
    """Crops, the maps of the teacher's stages for them, and the targets of the clean crops.

    Attributes:
        in_turn: True, because no batch should be made while the network trains.

    Args:
        targets: the embeddings to learn, of the clean crops, float32 (n, d).
        teacher: gives the maps.
        stages: names of the student's layers that learn them.
        faces: the faces to train on.
        how: the augmentation.
        side: side of the student's crops in pixels.
        size: crops per batch.
        seed: seed of order and augmentation.
        given: whether the maps are inputs of the network as well, see `apart`.
    """

    in_turn = True

    def __init__(
        self,
        targets: NDArray[np.float32],
        teacher: StageTeacher,
        stages: Sequence[str],
        faces: Faces,
        how: Augmentation,
        *,
        side: int,
        size: int,
        seed: int,
        given: bool,
    ) -> None:
        super().__init__(faces, how, side=side, size=size, seed=seed)
        self._targets, self._given = targets, given
        self._teacher, self._stages = teacher, tuple(stages)

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        key = (self._seed, epoch)
        crops = augmented(self._faces, rows, self._teacher.description.input_size, self._how, key)
        maps = dict(zip(self._stages, self._teacher(crops), strict=True))
        told = {**maps, EMBEDDING: self._targets[rows]}
        return Batch(resized(crops, self._side), told, maps if self._given else {})


def _unexplained(given: Tensor, wanted: Tensor) -> Tensor:
    axes = tuple(range(len(wanted.shape) - 1))
    variance = ops.var(wanted, axis=axes)
    variance = ops.maximum(variance, LEAST_VARIANCE * ops.mean(variance))
    return ops.mean(ops.mean(ops.square(given - wanted), axis=axes) / variance)


def _channels_last(
    maps: NDArray[np.float32], shape: tuple[int, int, int], tensor: str
) -> NDArray[np.float32]:
    channels = shape[2]
    if maps.shape[1:] == shape or maps.shape[1] != channels == maps.shape[3]:
        return maps
    if maps.shape[1] == channels:
        return maps.transpose(0, 2, 3, 1)
    raise SettingsError(
        f"the teacher's tensor {tensor!r} has the shape {maps.shape[1:]}; the student's stage "
        f"gives {shape}, so it cannot learn it"
    )


def _at_places(
    maps: NDArray[np.float32], shape: tuple[int, int, int], side: int
) -> NDArray[np.float32]:
    """Maps resampled to the positions of maps of another shape."""
    if maps.shape[1:3] == shape[:2]:
        return maps
    down, across = (
        _places(there, here, side / there)
        for there, here in zip(maps.shape[1:3], shape[:2], strict=True)
    )
    # One axis at a time, because the matrices are small and the maps are large.
    narrower = np.matmul(across, maps)
    rows = narrower.reshape(*narrower.shape[:2], -1)
    fitting: NDArray[np.float32] = np.matmul(down, rows).reshape(len(maps), *shape)
    return fitting


def _places(there: int, here: int, step: float) -> NDArray[np.float32]:
    """Resampling weights from ``there`` positions to ``here`` positions, float32 (here, there).

    A value represents the centre of the first pixel of its step, as after a convolution with
    padding of half its size. Each new value is a triangle-filtered mean of the old ones around it,
    as wide as its own step.

    Args:
        there: positions along a side of the teacher's map.
        here: positions along the same side of the student's map.
        step: pixels of the teacher's crop between two of its positions.
    """
    ratio = there / here
    middles = ((step * np.arange(here) + 0.5) * ratio - 0.5) / step
    away = np.abs(np.arange(there) - middles[:, None]) / max(ratio, 1.0)
    weights = np.maximum(0.0, 1.0 - away)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
