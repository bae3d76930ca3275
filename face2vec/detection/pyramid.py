"""The image pyramid that P-Net scans, and the tiles in which it scans a level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from face2vec.runtime.network import Network

Array = NDArray[np.float32]

CELL = 12  # side in pixels of the window that one P-Net output sees
STRIDE = 2  # pixels between two windows
AREA_BLOCK, AREA_PRODUCT = 8, 250_000
PNET_TILE = 80  # cells per side of one run of P-Net, whose values then stay in a core's cache


def scales(shape: tuple[int, ...], smallest: float, factor: float) -> Iterator[float]:
    """Scales of the pyramid's levels, largest first, down to one P-Net cell."""
    scale = CELL / smallest
    while min(shape) * scale >= CELL:
        yield scale
        scale *= factor


def run_in_tiles(network: Network, planes: Array, scale: float) -> tuple[Array, Array]:
    """Run P-Net over one level of the pyramid in tiles of at most `PNET_TILE` cells per side.

    Args:
        network: P-Net.
        planes: float32 (3, height, width), the image.
        scale: scale of the level.

    Returns:
        logits float32 (rows, columns) and offsets float32 (rows, columns, 4) of the level's
        cells. Each is computed from all pixels of its window, so tiles leave no seams.
    """
    height, width = _level_size(planes, scale)
    rows, columns = (-(-(side - CELL) // STRIDE) + 1 for side in (height, width))
    logits = np.empty((rows, columns), np.float32)
    offsets = np.empty((rows, columns, 4), np.float32)
    for down in _tiles(rows):
        strip = area_level(planes, scale, _seen(down, height))[None]
        for across in _tiles(columns):
            there, moved = network.run({"pixels": strip[..., _seen(across, width)]})
            logits[down, across], offsets[down, across] = there[0, 0], moved[0]
    return logits, offsets


def _tiles(count: int) -> Iterator[slice]:
    """Cut ``count`` cells into the fewest nearly equal parts of at most `PNET_TILE`."""
    parts = -(-count // PNET_TILE)
    # A part begins where a block of `area_level` begins.
    step = AREA_BLOCK // STRIDE * -(-count * STRIDE // (parts * AREA_BLOCK))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _seen(cells: slice, side: int) -> slice:
    """The pixels of a level's ``side`` that these cells cover, clipped to the level."""
    return slice(STRIDE * cells.start, min(side, STRIDE * (cells.stop - 1) + CELL))


def area_level(planes: Array, scale: float, rows: slice | None = None) -> Array:
    """Scale an image down; each pixel is the exact mean of the area that it covers.

    Args:
        planes: float32 (3, height, width).
        scale: pixels of the result per pixel of the image, above 0.
        rows: which rows of the result to compute, starting at a multiple of ``AREA_BLOCK``; None
            for all.

    Returns:
        float32 (3, rows, columns) with ⌊height · scale⌋ rows, or only those asked for, and
        ⌊width · scale⌋ columns.
    """
    height, width = _level_size(planes, scale)
    rows = rows or slice(0, height)
    columns = planes.shape[2]
    band = np.empty((3, rows.stop - rows.start, columns), np.float32)
    for to, of, share in _shares(planes.shape[1], height):
        if rows.start <= to.start < rows.stop:
            here = slice(to.start - rows.start, min(to.stop, rows.stop) - rows.start)
            for part in _parts(columns, share.size):
                mine = share[:, : here.stop - here.start].T
                np.matmul(mine, planes[:, of, part], out=band[:, here, part])
    level = np.empty((3, band.shape[1], width), np.float32)
    for to, of, share in _shares(columns, width):
        for part in _parts(band.shape[1], share.size):
            np.matmul(band[:, part, of], share, out=level[:, part, to])
    return level


def _level_size(planes: Array, scale: float) -> tuple[int, int]:
    return int(planes.shape[1] * scale), int(planes.shape[2] * scale)


@lru_cache(maxsize=1024)
def _shares(size: int, parts: int) -> list[tuple[slice, slice, Array]]:
    """The matrix (pixels, parts) of each pixel's weight in each of ``parts`` equal parts.

    A part covers few pixels, so only blocks along the diagonal are returned: which parts, which
    pixels, and their weights.
    """
    edges = np.linspace(0, size, parts + 1)
    blocks = []
    for start in range(0, parts, AREA_BLOCK):
        edge = edges[start : start + AREA_BLOCK + 1]
        first, last = int(edge[0]), min(size, math.ceil(edge[-1]))
        pixel = np.arange(first, last)[:, None]
        share = np.minimum(edge[1:], pixel + 1) - np.maximum(edge[:-1], pixel)
        share = (np.maximum(share, 0) * (parts / size)).astype(np.float32)
        blocks.append((slice(start, start + len(edge) - 1), slice(first, last), share))
    return blocks


def _parts(length: int, cost: int) -> Iterator[slice]:
    """Cut a matrix product into parts so small that OpenBLAS uses the calling thread only.

    Otherwise each worker would wake one thread per core.
    """
    step = max(16, AREA_PRODUCT // cost)
    for start in range(0, length, step):
        yield slice(start, start + step)
