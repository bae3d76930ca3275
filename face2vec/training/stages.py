"""Each stage of a network learns what the same stage of a teacher does, all at the same time.

A stage is given the teacher's maps and asked for its next ones (Li et al., Blockwisely
supervised neural architecture search with knowledge distillation, 2020, section 3.1). Every
place of a map is an example, where an embedding is one for the whole crop, and no stage waits
for those before it: some thousand faces bring a network to where following embeddings alone
takes hundreds of thousands.
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
from face2vec.training.batches import Batch, Rows, ShuffledBatches, augmented, resized
from face2vec.training.faces import Faces
from face2vec.training.layers import Tensor
from face2vec.training.losses import distillation
from face2vec.training.trainer import CROPS

EMBEDDING = "embedding"
LEAST_VARIANCE = 1e-3
"""Of a channel, as a share of the mean over channels: one that never changes teaches nothing."""


def apart(network: keras.Model, stages: Sequence[str]) -> keras.Model:
    """The stages of a network side by side, sharing its weights.

    Args:
        network: from crops to embeddings.
        stages: names of the layers at which it is cut.

    Returns:
        A model from a dictionary of crops and, by the layers' names, the maps that go into
        each stage, to a dictionary of what each gives, the last under ``"embedding"``.
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
    """Of what the teacher's stages give, the share that the network's do not explain.

    The loss is the sum over stages of the mean square error of a channel over its variance in
    the batch, averaged over channels: 1 for a stage that gives the means, 0 for one that gives
    what the teacher does.

    Args:
        stages: names of the layers at which the network is cut.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.parts = (*stages, EMBEDDING)

    def __call__(
        self, given: dict[str, Tensor], wanted: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and the share that each stage does not explain."""
        shares = {name: _unexplained(given[name], wanted[name]) for name in self.parts}
        return sum(shares.values()), shares


def on_the_way(network: keras.Model, stages: Sequence[str]) -> keras.Model:
    """A network that gives, beside its embedding, its maps at some layers.

    Args:
        network: from crops to embeddings.
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
    """Embeddings like a teacher's and, less and less, maps like its stages'.

    The loss is `losses.distillation` plus ``weight`` times the mean share of the maps that is not
    explained, as `FollowStages` has it; the weight falls to 0 along the steps.

    Args:
        stages: names of the layers that give the maps.
        weight: at the first step.
    """

    def __init__(self, stages: Sequence[str], weight: float) -> None:
        self._stages, self._weight = tuple(stages), weight
        self._left = keras.Variable(1.0, trainable=False, name="hints_left")
        self.parts: tuple[str, ...] = ("follow", "hints")

    def reached(self, share: float) -> None:
        """Say which share of the steps is done, 0…1."""
        self._left.assign(max(0.0, 1.0 - share))

    def __call__(
        self, given: dict[str, Tensor], wanted: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its two parts: following the embedding, and the mean share not explained."""
        follow = distillation(given[EMBEDDING], wanted[EMBEDDING])
        shares = [_unexplained(given[name], wanted[name]) for name in self._stages]
        hints = sum(shares) / len(shares)
        loss = follow + self._weight * self._left * hints
        return loss, {"follow": follow, "hints": hints}


class StageTeacher:
    """A network that says what it computes on the way to its embedding.

    Args:
        model: the network.
        runtime: where it runs.
        tensors: names of the maps in its graph, in order.
        shapes: (height, width, channels) of the maps that the student gives. The teacher's are
            brought to that size where they have another.

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
        """Maps float32 (n, height, width, channels) and embeddings (n, d) of any length.

        Args:
            crops: RGB uint8 (n, side, side, 3), cut as the model wants them.

        Raises:
            SettingsError: a map does not have the channels of the student's.
        """
        pixels = standardize(crops, self.description)
        embeddings, *maps = self._network.run({self._network.input_name: pixels})
        side = self.description.input_size
        fitting = [
            _at_places(_channels_last(*one), one[1], side)
            for one in zip(maps, self._shapes, self._tensors, strict=True)
        ]
        return [*fitting, embeddings.reshape(len(crops), -1)]


class StageBatches(ShuffledBatches):
    """Crops, and what each stage of the teacher gives for the very same ones.

    Attributes:
        in_turn: that none should be made while the network learns.

    Args:
        teacher: says it.
        stages: names of the layers of the student that learn it.
        faces: what it is asked about.
        how: the augmentation.
        side: of the student's crops.
        size: crops a batch.
        seed: decides order and augmentation.
    """

    in_turn = True

    def __init__(
        self,
        teacher: StageTeacher,
        stages: Sequence[str],
        faces: Faces,
        how: Augmentation,
        *,
        side: int,
        size: int,
        seed: int,
    ) -> None:
        super().__init__(faces, how, side=side, size=size, seed=seed)
        self._teacher, self._stages = teacher, tuple(stages)

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        crops, told = self._told(epoch, rows)
        maps = {name: told[name] for name in self._stages}
        return Batch(crops, told, maps)

    def _told(
        self, epoch: int, rows: Rows
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
        """The student's crops, and what the teacher gives for them by the stages' names."""
        key = (self._seed, epoch)
        crops = augmented(self._faces, rows, self._teacher.description.input_size, self._how, key)
        told = dict(zip((*self._stages, EMBEDDING), self._teacher(crops), strict=True))
        return resized(crops, self._side), told


class HintBatches(StageBatches):
    """Crops, the maps of the teacher's stages for them, and its embeddings of the clean crops.

    Args:
        targets: the teacher's embeddings of the clean crops, float32 (n, d).
        teacher: gives the maps.
        stages: names of the layers of the student that learn it.
        faces: what it is asked about.
        how: the augmentation.
        side: of the student's crops.
        size: crops a batch.
        seed: decides order and augmentation.
    """

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
    ) -> None:
        super().__init__(teacher, stages, faces, how, side=side, size=size, seed=seed)
        self._targets = targets

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        crops, told = self._told(epoch, rows)
        return Batch(crops, told | {EMBEDDING: self._targets[rows]})


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
    """Maps at the places of the crop that those of another shape stand for."""
    if maps.shape[1:3] == shape[:2]:
        return maps
    down, across = (
        _places(there, here, side / there)
        for there, here in zip(maps.shape[1:3], shape[:2], strict=True)
    )
    # One axis at a time: the matrices are small and the maps are not.
    narrower = np.matmul(across, maps)
    rows = narrower.reshape(*narrower.shape[:2], -1)
    fitting: NDArray[np.float32] = np.matmul(down, rows).reshape(len(maps), *shape)
    return fitting


def _places(there: int, here: int, step: float) -> NDArray[np.float32]:
    """Weights of values at ``there`` places for each of ``here``, float32 (here, there).

    A value stands for the middle of the first pixel of its step, as a convolution with borders
    of half its size leaves it; each of the new ones is the triangle of the old ones around it,
    as wide as its own step.

    Args:
        there: places along a side of the teacher's map.
        here: places along the same side of the student's.
        step: pixels of the teacher's crop from one of its places to the next.
    """
    ratio = there / here
    middles = ((step * np.arange(here) + 0.5) * ratio - 0.5) / step
    away = np.abs(np.arange(there) - middles[:, None]) / max(ratio, 1.0)
    weights = np.maximum(0.0, 1.0 - away)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
