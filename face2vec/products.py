"""Products of matrices without the threads of BLAS, which cost more than they save in small ones.

These threads keep spinning for some milliseconds after each product and keep the cores from what
follows. Where other work runs on the machine, they wait for each other: the product of 11 rows with
1,000 of dimension 256 took 14 ms instead of 0.08.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ALONE = 1 << 18  # multiplications up to which OpenBLAS uses one thread
LARGE = 1 << 24  # multiplications that are worth its threads


def product(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """All inner products of the rows of two matrices.

    Args:
        left: float32 (n, d).
        right: float32 (m, d).

    Returns:
        float32 (n, m).
    """
    rows, columns, dimension = len(left), len(right), left.shape[1]
    if rows * columns == 0 or rows * columns * dimension > LARGE:
        return left @ right.T
    # A matrix and a vector are no case for BLAS, which uses threads for them much earlier.
    if columns == 1:
        return np.asarray(np.vecdot(left, right[0]))[:, None]
    if rows == 1:
        return np.asarray(np.vecdot(right, left[0]))[None]
    result = np.empty((rows, columns), np.float32)
    if rows > columns:
        for part in _parts(rows, ALONE // (columns * dimension)):
            np.matmul(left[part], right.T, out=result[part])
    else:
        for part in _parts(columns, ALONE // (rows * dimension)):
            np.matmul(left, right[part].T, out=result[:, part])
    return result


def even_parts(start: int, end: int, parts: int) -> list[tuple[int, int]]:
    """Cut a range into ``parts`` nearly equal parts; (start, end) of each."""
    ends = [start + (end - start) * part // parts for part in range(parts + 1)]
    return list(pairwise(ends))


def _parts(size: int, most: int) -> list[slice]:
    """Parts of a range of nearly equal sizes: two or more, and otherwise at most ``most``."""
    count = max(1, min(-(-size // max(most, 1)), size // 2))
    return [slice(start, end) for start, end in even_parts(0, size, count)]
