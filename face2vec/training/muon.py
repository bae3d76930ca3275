"""Muon: steps of the same size in every direction of a kernel.

Of the running mean of a kernel's gradients, seen as a matrix from inputs to outputs, only the
directions are kept, not how far it reaches in each (Jordan et al., Muon: an optimizer for hidden
layers in neural networks, 2024). What is no such matrix, shifts and scales and depthwise
kernels, is left to AdamW.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from face2vec.training.layers import Tensor

MOMENTUM = 0.95
RATE_OF_KERNELS = 5.0
"""Muon's rate for one of AdamW's: about as far, where a kernel has some hundred inputs."""
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-8
STEPS, A, B, C = 5, 3.4445, -4.7750, 2.0315
"""Of the iteration that brings all singular values near 1, and its polynomial's coefficients."""


class Muon(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """Muon for kernels of convolutions and dense layers, AdamW for all others.

    Args:
        learning_rate: AdamW's; that of kernels is five times as high.
        weight_decay: of kernels, share of them for a rate of 1.
    """

    def __init__(self, learning_rate: Any = 3e-3, weight_decay: float | None = None) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name="muon")

    def build(self, variables: list[Any]) -> None:
        """Make room for the running means."""
        if self.built:
            return
        super().build(variables)
        self._means = [self.add_variable_from_reference(v, "mean") for v in variables]
        self._squares = [
            None if _is_matrix(v) else self.add_variable_from_reference(v, "square")
            for v in variables
        ]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One step of one variable."""
        place = self._get_variable_index(variable)
        mean, square = self._means[place], self._squares[place]
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        if square is None:
            self.assign(mean, mean + (1 - MOMENTUM) * (gradient - mean))
            ahead = gradient + MOMENTUM * (mean - gradient)
            self.assign_sub(variable, RATE_OF_KERNELS * rate * directions(ahead))
            return
        steps = ops.cast(self.iterations + 1, variable.dtype)
        self.assign(mean, mean + (1 - BETA_1) * (gradient - mean))
        self.assign(square, square + (1 - BETA_2) * (ops.square(gradient) - square))
        unbiased = ops.sqrt(1 - ops.power(BETA_2, steps)) / (1 - ops.power(BETA_1, steps))
        self.assign_sub(variable, rate * unbiased * mean / (ops.sqrt(square) + EPSILON))


def directions(kernel: Tensor) -> Tensor:
    """A kernel of about the same directions with all singular values near 1.

    Seen as a matrix of one row an input and one column an output; wide ones are larger by
    the root of outputs over inputs, so that what comes out is as large as what goes in.

    Args:
        kernel: (…, outputs).
    """
    outputs = kernel.shape[-1]
    x = ops.reshape(kernel, (-1, outputs))
    inputs = x.shape[0]
    tall = inputs > outputs
    if tall:
        x = ops.transpose(x)
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
    for _ in range(STEPS):
        squared = ops.matmul(x, ops.transpose(x))
        x = A * x + ops.matmul(B * squared + C * ops.matmul(squared, squared), x)
    if tall:
        x = ops.transpose(x)
    return ops.reshape(x, kernel.shape) * max(1.0, outputs / inputs) ** 0.5


def _is_matrix(variable: Any) -> bool:
    """Whether each output is made of all inputs; not so in depthwise kernels (h, w, c, 1)."""
    return len(variable.shape) > 1 and variable.shape[-1] > 1
