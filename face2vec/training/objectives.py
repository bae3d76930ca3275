"""What is asked of a network: to follow a teacher, or to tell people apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras
from keras import ops

from face2vec.training.layers import Tensor
from face2vec.training.losses import (
    TripletLoss,
    distillation,
    triplet_batch_hard,
    triplet_semi_hard,
)

Tensors = dict[str, Tensor]
TRIPLETS: dict[str, Callable[[Tensor, Tensor, float], TripletLoss]] = {
    "semi-hard": triplet_semi_hard,
    "batch-hard": triplet_batch_hard,
}


class Objective(Protocol):
    """A loss and what it is made of.

    Attributes:
        stages: layers of the network whose maps it looks at, beside the embedding.
        parts: names of the figures that it gives beside the loss.
    """

    stages: tuple[str, ...]
    parts: tuple[str, ...]

    def __call__(self, given: Tensors, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, and the parts by name, of a batch's outputs and targets."""


class FollowTeacher:
    """Embeddings, and maps on the way to them, like a teacher's.

    Args:
        stages: layers whose maps follow the teacher's hints.
        hint_weight: of the mean squared differences of maps, beside the loss of embeddings.
    """

    def __init__(self, stages: tuple[str, ...] = (), hint_weight: float = 1.0) -> None:
        self.stages = stages
        self.parts = ("embedding", *stages)
        self._hint_weight = hint_weight

    def __call__(self, given: Tensors, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, and that of the embedding and of each stage."""
        loss = distillation(given["embedding"], wanted["embedding"])
        parts = {"embedding": loss}
        for stage in self.stages:
            height, width = given[stage].shape[1:3]
            target = ops.image.resize(wanted[stage], (height, width), antialias=True)
            parts[stage] = ops.mean(ops.square(given[stage] - target))
            loss = loss + self._hint_weight * parts[stage]
        return loss, parts


class TellApart:
    """Triplets of a batch of people; see `losses`.

    Args:
        mining: ``"semi-hard"`` or ``"batch-hard"``.
        margin: in squared distance of unit vectors, the paper's α.
    """

    stages: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("active",)

    def __init__(self, mining: str = "semi-hard", margin: float = 0.2) -> None:
        self._loss, self._margin = TRIPLETS[mining], margin

    def __call__(self, given: Tensors, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, and the share of triplets that cost something."""
        loss, active = self._loss(given["embedding"], wanted["people"], self._margin)
        return loss, {"active": active}


class Learner(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A network with the outputs and the figures that its objective has.

    Args:
        network: from crops to embeddings.
        objective: what is asked of it.
    """

    def __init__(self, network: keras.Model, objective: Objective) -> None:
        outputs = {"embedding": network.output}
        outputs |= {stage: network.get_layer(stage).output for stage in objective.stages}
        super().__init__(network.input, outputs)
        self._objective = objective
        self._figures = {part: keras.metrics.Mean(part) for part in objective.parts}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The objective's loss; its parts go into the figures of the same names."""
        loss, parts = self._objective(y_pred, y)
        for name, value in parts.items():
            self._figures[name].update_state(value)
        return loss
