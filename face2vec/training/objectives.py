"""Training objectives: follow a teacher, or separate people."""

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
    """A loss and its parts.

    Attributes:
        parts: names of the values that it returns besides the loss.
    """

    parts: tuple[str, ...]

    def __call__(self, given: Any, wanted: Tensors, /) -> tuple[Tensor, Tensors]:
        """The loss and its parts by name, for a network's outputs and the targets of a batch."""


class FollowTeacher:
    """Follow a teacher's embeddings; see `losses.distillation`."""

    parts: tuple[str, ...] = ()

    def __call__(self, embeddings: Tensor, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """The loss, without parts."""
        return distillation(embeddings, wanted["embedding"]), {}


class TellApart:
    """A triplet loss over a batch of people; see `losses`.

    Args:
        mining: ``"semi-hard"`` or ``"batch-hard"``.
        margin: in squared distance of unit vectors, the paper's α.
    """

    parts: tuple[str, ...] = ("active",)

    def __init__(self, mining: str = "semi-hard", margin: float = 0.2) -> None:
        self._loss, self._margin = TRIPLETS[mining], margin

    def __call__(self, embeddings: Tensor, wanted: Tensors) -> tuple[Tensor, Tensors]:
        """The loss, and the share of active triplets."""
        loss, active = self._loss(embeddings, wanted["people"], self._margin)
        return loss, {"active": active}


class Learner(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A network with the loss and the metrics of its objective.

    Args:
        network: maps crops to embeddings, or its stages side by side, see `stages.apart`.
        objective: the objective.
        half: train in bfloat16; needs Keras on PyTorch.
    """

    def __init__(self, network: keras.Model, objective: Objective, half: bool = False) -> None:
        super().__init__(network.input, network.output)
        self._objective, self._half = objective, half
        self._figures = {part: keras.metrics.Mean(part) for part in objective.parts}

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs of the network."""
        if training and keras.backend.backend() == "torch":
            from face2vec.training.on_torch import run

            return run(self, inputs, self._half)
        return super().call(inputs, training=training, mask=mask)

    def reached(self, share: float) -> None:
        """Set the share of the steps that are done, 0…1."""
        reached = getattr(self._objective, "reached", None)
        if reached is not None:
            reached(share)

    @property
    def half(self) -> bool:
        """Whether it trains in bfloat16."""
        return self._half

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The objective's loss; its parts update the metrics of the same names."""
        wanted = keras.tree.map_structure(keras.ops.convert_to_tensor, y)
        loss, parts = self._objective(y_pred, wanted)
        for name, value in parts.items():
            self._figures[name].update_state(value)
        return loss
