"""What is asked of a network: to follow a teacher, or to tell people apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

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
        parts: names of the figures that it gives beside the loss.
    """

    parts: tuple[str, ...]

    def __call__(self, given: Any, wanted: Tensors, /) -> tuple[Tensor, Tensors]:
        """Loss, and the parts by name, of what the network gives for a batch and its targets."""


class FollowTeacher:
    """Embeddings like a teacher's; see `losses.distillation`."""

    parts: tuple[str, ...] = ()

    def __call__(self, embeddings: Tensor, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, and nothing beside it."""
        return distillation(embeddings, wanted["embedding"]), {}


class TellApart:
    """Triplets of a batch of people; see `losses`.

    Args:
        mining: ``"semi-hard"`` or ``"batch-hard"``.
        margin: in squared distance of unit vectors, the paper's α.
    """

    parts: tuple[str, ...] = ("active",)

    def __init__(self, mining: str = "semi-hard", margin: float = 0.2) -> None:
        self._loss, self._margin = TRIPLETS[mining], margin

    def __call__(self, embeddings: Tensor, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """Loss, and the share of triplets that cost something."""
        loss, active = self._loss(embeddings, wanted["people"], self._margin)
        return loss, {"active": active}


class Learner(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A network with the loss and the figures of its objective.

    Args:
        network: from crops to embeddings, or its stages `stages.apart`.
        objective: what is asked of it.
        half: compute in bfloat16 while it learns, where Keras runs on PyTorch.
    """

    def __init__(self, network: keras.Model, objective: Objective, half: bool = False) -> None:
        super().__init__(network.input, network.output)
        self._objective, self._half = objective, half
        self._figures = {part: keras.metrics.Mean(part) for part in objective.parts}

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """What the network gives."""
        if training and keras.backend.backend() == "torch":
            from face2vec.training.on_torch import run

            return run(self, inputs, self._half)
        return super().call(inputs, training=training, mask=mask)

    def reached(self, share: float) -> None:
        """Tell the objective which share of the steps is done, 0…1."""
        reached = getattr(self._objective, "reached", None)
        if reached is not None:
            reached(share)

    @property
    def half(self) -> bool:
        """Whether it computes in bfloat16."""
        return self._half

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The objective's loss; its parts go into the figures of the same names."""
        wanted = keras.tree.map_structure(keras.ops.convert_to_tensor, y)
        loss, parts = self._objective(y_pred, wanted)
        for name, value in parts.items():
            self._figures[name].update_state(value)
        return loss
