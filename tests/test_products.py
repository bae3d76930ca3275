from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from face2vec import products
from face2vec.products import product


@pytest.mark.parametrize("rows", [0, 1, 2, 11, 300])
@pytest.mark.parametrize("others", [0, 1, 7, 1000])
@pytest.mark.parametrize("large", [1, products.LARGE, 1 << 40])
def test_product_is_that_of_blas(
    rows: int, others: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE", large)
    rng = np.random.default_rng(rows)
    left = rng.standard_normal((rows, 96), np.float32)
    right = rng.standard_normal((others, 96), np.float32)
    found = product(left, right)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, left @ right.T, atol=1e-4)


@pytest.mark.parametrize(("rows", "others"), [(11, 1000), (1000, 11), (2, 3), (47, 48), (3, 1001)])
def test_small_product_is_made_of_parts_for_one_thread(
    rows: int, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []
    multiply = np.matmul

    def watched(
        left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        shapes.append(out.shape)  # type: ignore[arg-type]
        return multiply(left, right, out=out)

    monkeypatch.setattr(products.np, "matmul", watched)
    product(np.ones((rows, 256), np.float32), np.ones((others, 256), np.float32))
    assert all(n >= 2 and m >= 2 and n * m * 256 <= products.ALONE for n, m in shapes)
    assert sum(n * m for n, m in shapes) == rows * others
