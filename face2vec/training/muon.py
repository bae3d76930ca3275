"""The Muon optimizer: updates of the same size in every direction of a kernel.

The momentum of a kernel, as a matrix from inputs to outputs, is orthogonalised: its singular values
are set to about 1 (Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024).
Biases, scales and depthwise kernels, which are not such matrices, use AdamW.
"""

from __future__ import annotations

import math
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
        learning_rate: the rate of AdamW; that of kernels is five times as high.
        weight_decay: decay of kernels at a rate of 1; other variables have none.
        half: orthogonalise in bfloat16, which is as good, and faster on processors with bfloat16
            matrix products.
    """

    def __init__(
        self, learning_rate: Any = 3e-3, weight_decay: float | None = None, half: bool = False
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name="muon")
        self._half = half

    def build(self, variables: list[Any]) -> None:
        """Create the momentum variables."""
        if self.built:
            return
        self.exclude_from_weight_decay(var_list=[v for v in variables if not _is_matrix(v)])
        super().build(variables)
        self._means = [self.add_variable_from_reference(v, "mean") for v in variables]
        self._squares = [
            None if _is_matrix(v) else self.add_variable_from_reference(v, "square")
            for v in variables
        ]

    def _backend_update_step(
        self, grads: list[Tensor], trainable_variables: list[Any], learning_rate: Tensor
    ) -> None:
        """One update of all variables; kernels of one shape at a time."""
        if keras.backend.backend() == "torch":
            self._step_on_torch(grads, trainable_variables, learning_rate)
            return
        alike: dict[tuple[int, int], list[tuple[Any, Tensor]]] = {}
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            place = self._get_variable_index(variable)
            gradient = ops.cast(gradient, variable.dtype)
            if self._squares[place] is not None:
                self._other(place, gradient, variable, learning_rate)
                continue
            mean = self._means[place]
            self.assign(mean, mean + (1 - MOMENTUM) * (gradient - mean))
            ahead = _matrix(gradient + MOMENTUM * (mean - gradient))
            alike.setdefault(tuple(ahead.shape), []).append((variable, ahead))
        for pairs in alike.values():
            turned = _directions(ops.stack([ahead for _, ahead in pairs]), self._half)
            for number, (variable, _) in enumerate(pairs):
                rate = ops.cast(learning_rate, variable.dtype)
                step = ops.reshape(turned[number], variable.shape)
                self.assign_sub(variable, RATE_OF_KERNELS * rate * step)

    def _step_on_torch(
        self, grads: list[Tensor], trainable_variables: list[Any], learning_rate: Tensor
    ) -> None:
        """The same update with one PyTorch call for all variables."""
        import torch

        with torch.no_grad():
            self._on_torch(torch, grads, trainable_variables, float(learning_rate))

    def _on_torch(
        self, torch: Any, grads: list[Tensor], trainable_variables: list[Any], rate: float
    ) -> None:
        steps = int(self.iterations) + 1
        places = [self._get_variable_index(variable) for variable in trainable_variables]
        others = [n for n, place in enumerate(places) if self._squares[place] is not None]
        kernels = [n for n, place in enumerate(places) if self._squares[place] is None]
        values = [variable.value for variable in trainable_variables]
        means = [self._means[place].value for place in places]
        if others:
            squares = [self._squares[places[n]].value for n in others]
            slopes, averages = [grads[n] for n in others], [means[n] for n in others]
            torch._foreach_lerp_(averages, slopes, 1 - BETA_1)
            torch._foreach_lerp_(squares, torch._foreach_mul(slopes, slopes), 1 - BETA_2)
            lengths = torch._foreach_sqrt(squares)
            torch._foreach_add_(lengths, EPSILON)
            unbiased = math.sqrt(1 - BETA_2**steps) / (1 - BETA_1**steps)
            torch._foreach_addcdiv_([values[n] for n in others], averages, lengths,
                                    value=-rate * unbiased)  # fmt: skip
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        if kernels:
            slopes, averages = [grads[n] for n in kernels], [means[n] for n in kernels]
            torch._foreach_lerp_(averages, slopes, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(slopes, averages, MOMENTUM)
            for n, one in zip(kernels, ahead, strict=True):
                matrix = one.reshape(-1, one.shape[-1])
                alike.setdefault(tuple(matrix.shape), []).append((values[n], matrix))
        for pairs in alike.values():
            turned = _directions(torch.stack([matrix for _, matrix in pairs]), self._half)
            torch._foreach_add_(
                [value for value, _ in pairs],
                [one.reshape(value.shape) for (value, _), one in zip(pairs, turned, strict=True)],
                alpha=-RATE_OF_KERNELS * rate,
            )

    def _other(self, place: int, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """One AdamW update of a variable that is not a kernel."""
        mean, square = self._means[place], self._squares[place]
        rate = ops.cast(learning_rate, variable.dtype)
        steps = ops.cast(self.iterations + 1, variable.dtype)
        self.assign(mean, mean + (1 - BETA_1) * (gradient - mean))
        self.assign(square, square + (1 - BETA_2) * (ops.square(gradient) - square))
        unbiased = ops.sqrt(1 - ops.power(BETA_2, steps)) / (1 - ops.power(BETA_1, steps))
        self.assign_sub(variable, rate * unbiased * mean / (ops.sqrt(square) + EPSILON))


def directions(kernel: Tensor, half: bool = False) -> Tensor:
    """The kernel with its singular values set to about 1.

    The matrix has one row per input and one column per output. Matrices with more outputs than
    inputs are scaled by √(outputs / inputs), so that outputs are as large as inputs.

    Args:
        kernel: (…, outputs).
        half: compute in bfloat16.
    """
    turned = _directions(ops.expand_dims(_matrix(kernel), 0), half)
    return ops.reshape(turned, kernel.shape)


def _directions(kernels: Tensor, half: bool) -> Tensor:
    """`directions` of matrices of one shape, (n, inputs, outputs)."""
    inputs, outputs = kernels.shape[1:]
    tall = inputs > outputs
    x = ops.transpose(kernels, (0, 2, 1)) if tall else kernels
    length = ops.sqrt(ops.sum(ops.square(x), axis=(1, 2), keepdims=True))
    x = ops.cast(x / (length + 1e-7), "bfloat16" if half else x.dtype)
    for _ in range(STEPS):
        squared = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        x = A * x + ops.matmul(B * squared + C * ops.matmul(squared, squared), x)
    x = ops.cast(x, kernels.dtype)
    if tall:
        x = ops.transpose(x, (0, 2, 1))
    return x * max(1.0, outputs / inputs) ** 0.5


def _matrix(kernel: Tensor) -> Tensor:
    """One row per input, one column per output."""
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


def _is_matrix(variable: Any) -> bool:
    """Whether each output depends on all inputs, unlike in depthwise kernels (h, w, c, 1)."""
    return len(variable.shape) > 1 and variable.shape[-1] > 1
