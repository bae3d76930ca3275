"""Products of matrices without the threads of BLAS, which cost more than they save in small ones.

These threads keep spinning for some milliseconds after each product and keep the cores from what
follows. Where other work runs on the machine, they wait for each other: the product of 11 rows with
1,000 of dimension 256 took 14 ms instead of 0.08.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALONE = 1 << 18  # multiplications up to which OpenBLAS uses one thread
LARGE = 1 << 27  # multiplications that are worth its threads


def product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """All inner products of the rows of two matrices.

    Args:
        left: float32 (n, d).
        right: float32 (m, d).

    Returns:
        float32 (n, m).
    """
    rows, dimension = left.shape
    if rows * dimension * len(right) > LARGE or rows == 0:
        return left @ right.T
    if rows == 1:  # as a matrix and a vector, for which OpenBLAS uses threads much earlier
        return product(np.concatenate([left, left]), right)[:1]
    step = max(1, ALONE // (rows * dimension))
    result = np.empty((rows, len(right)), np.float32)
    for start in range(0, len(right), step):
        part = slice(start, start + step)
        np.matmul(left, right[part].T, out=result[:, part])
    return result
