"""Muon's steps, against the singular value decomposition and Keras' own AdamW."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),  # Keras' calls of numpy
]


@pytest.fixture(scope="module")
def muon() -> ModuleType:
    needs("train", "keras")
    from face2vec.training import muon

    return muon


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (3, 3, 4, 24), (1, 1, 48, 16), (20, 20)])
def test_directions_have_singular_values_near_one(muon: ModuleType, shape: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = as_numpy(muon.directions(kernel))
    assert found.shape == shape
    inputs, outputs = kernel.size // shape[-1], shape[-1]
    left, _, right = np.linalg.svd(kernel.reshape(inputs, outputs), full_matrices=False)
    scaled = found.reshape(inputs, outputs) / max(1, outputs / inputs) ** 0.5
    values = np.diag(left.T @ scaled @ right.T)
    assert values.min() > 0.3
    assert values.max() < 1.3
    np.testing.assert_allclose(left @ np.diag(values) @ right, scaled, atol=2e-3)


def variables(*shapes: tuple[int, ...]) -> list[Any]:
    import keras

    rng = np.random.default_rng(1)
    return [keras.Variable(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def test_what_is_no_kernel_steps_as_with_adam(muon: ModuleType) -> None:
    import keras

    shapes = ((6,), (5, 5, 4, 1))  # a shift, and a depthwise kernel
    ours, theirs = variables(*shapes), variables(*shapes)
    mine = muon.Muon(1e-2)
    reference = keras.optimizers.Adam(1e-2, beta_1=muon.BETA_1, beta_2=muon.BETA_2, epsilon=1e-8)
    rng = np.random.default_rng(2)
    for _ in range(5):
        slopes = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        for optimizer, some in ((mine, ours), (reference, theirs)):
            tensors = [keras.ops.convert_to_tensor(slope) for slope in slopes]
            optimizer.apply(tensors, some)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(as_numpy(one), as_numpy(other), atol=2e-5)


def test_kernel_steps_are_as_long_whatever_the_slope(muon: ModuleType) -> None:
    import keras

    moved = []
    for size in (1e-3, 1e3):
        (kernel,) = variables((16, 8))
        before = as_numpy(kernel).copy()
        slope = size * np.random.default_rng(3).standard_normal((16, 8)).astype(np.float32)
        muon.Muon(1e-2).apply([keras.ops.convert_to_tensor(slope)], [kernel])
        moved.append(as_numpy(kernel) - before)
    np.testing.assert_allclose(moved[0], moved[1], rtol=0, atol=1e-3)
    assert np.linalg.norm(moved[0], 2) == pytest.approx(muon.RATE_OF_KERNELS * 1e-2, rel=0.35)
