from __future__ import annotations

import numpy as np
import pytest

from face2vec import products
from face2vec.products import product


@pytest.mark.parametrize("rows", [0, 1, 2, 11, 300])
@pytest.mark.parametrize("others", [0, 1, 7, 1000])
@pytest.mark.parametrize("large", [1, products.LARGE])
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


def test_small_product_is_made_of_parts_for_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    multiply = np.matmul

    def watched(left, right, out):  # type: ignore[no-untyped-def]
        sizes.append(left.shape[0] * left.shape[1] * right.shape[1])
        return multiply(left, right, out=out)

    monkeypatch.setattr(products.np, "matmul", watched)
    product(np.ones((11, 256), np.float32), np.ones((1000, 256), np.float32))
    assert max(sizes) <= products.ALONE
    assert sum(sizes) == 11 * 256 * 1000
