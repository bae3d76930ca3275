"""Non-maximum suppression."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def nms(
    boxes: Array, scores: Array, threshold: float, measure: Literal["union", "smaller"] = "union"
) -> NDArray[np.bool_]:
    """Fast NMS (Bolya et al., YOLACT, 2019, section 3.3): which boxes to keep.

    A box is suppressed by any better box that overlaps it by more than the threshold, even if that
    box is suppressed itself. This needs no loop over boxes.

    Args:
        boxes: float32 (n, 4): left, top, right, bottom.
        scores: float32 (n,), higher is better. Ties are broken arbitrarily but reproducibly.
        threshold: 0…1.
        measure: what the intersection is divided by: the union, or the area of the smaller box.

    Returns:
        bool (n,), True for the boxes to keep.
    """
    count = len(boxes)
    keep = np.ones(count, bool)
    if count < 2:
        return keep
    rank = np.empty(count, np.intp)
    # Not a stable sort: many scores are exactly 1, and this order is that of the mtcnn package.
    rank[np.argsort(scores.astype(np.float64))[::-1]] = np.arange(count)
    # Sorted by left edge, the boxes that a run of boxes can overlap are a run, too.
    order = np.argsort(boxes[:, 0], kind="stable")
    boxes, rank = boxes[order], rank[order]
    left, top, right, bottom = boxes.T
    # An inverted box has no area: it suppresses none and is suppressed by none.
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    reach = np.maximum.accumulate(right)
    step = 256
    for start in range(0, count, step):
        mine = slice(start, min(start + step, count))
        others = slice(
            int(np.searchsorted(reach, left[start])),
            int(np.searchsorted(left, right[mine].max())),
        )
        across = np.minimum(right[mine, None], right[others]) - np.maximum(
            left[mine, None], left[others]
        )
        down = np.minimum(bottom[mine, None], bottom[others]) - np.maximum(
            top[mine, None], top[others]
        )
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        if measure == "union":
            whole = area[mine, None] + area[others] - shared
        else:
            whole = np.minimum(area[mine, None], area[others])
        beaten = (shared > threshold * whole) & (rank[others] < rank[mine, None])
        keep[order[mine]] = ~beaten.any(axis=1)
    return keep
