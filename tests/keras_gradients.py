"""Numbers and gradients for the tests of training, with Keras on TensorFlow or on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def as_numpy(tensor: Any) -> np.ndarray:
    """The values of a tensor or a Keras variable."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def gradients(loss: Callable[[], Any], variables: list[Any]) -> list[np.ndarray]:
    """Derivatives of ``loss()`` by each of the Keras variables."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        with tensorflow.GradientTape() as tape:
            value = loss()
        return [as_numpy(g) for g in tape.gradient(value, [v.value for v in variables])]
    assert keras.backend.backend() == "torch"
    for variable in variables:
        variable.value.grad = None
    loss().backward()
    return [as_numpy(variable.value.grad) for variable in variables]
