"""MTCNN: from upright images to boxes and landmarks.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment using Multi-task
Cascaded Convolutional Networks, 2016. P-Net proposes on a pyramid of the
image, R-Net refines, O-Net decides and places five landmarks. The weights are
those of the ``mtcnn`` package; the cascade is this project's own.

An image's faces never depend on what else is in the batch: P-Net sees one
image at a time, and R-Net and O-Net, which see patches of many images at once,
run in blocks of one fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from face2vec.detection.graphs import PIXEL_MEAN, crop_graph, onet_graph, pnet_graph, rnet_graph
from face2vec.errors import SettingsError
from face2vec.runtime.select import Network, Runtime
from face2vec.types import Box, Face, Landmarks

Array = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

CASCADE_VERSION = 1  # raised whenever the same photo gives other faces

CELL = 12  # side in pixels of what one P-Net output sees
STRIDE = 2  # pixels between two of them
LEVEL_OVERLAP = 0.5  # IoU within one level of the pyramid
OVERLAP = 0.7  # IoU across levels, and after R-Net and O-Net
RNET_SIDE, ONET_SIDE = 24, 48
AREA_BLOCK, AREA_PRODUCT = 8, 250_000
# What stays in a core's cache: cells of P-Net a side in one run, patches in one run.
PNET_TILE = 80
RNET_BLOCK, ONET_BLOCK = 16, 4


@dataclass(frozen=True)
class DetectorSettings:
    """What counts as a face; part of what a gallery remembers of its making.

    Attributes:
        min_face_size: smallest face looked for: pixels of the photo as it is
            searched if 1 or more, a fraction of its shorter side if less than
            1. It sets where the search begins; some smaller faces are found too.
        thresholds: lowest probability to pass P-Net, R-Net and O-Net, 0…1.
        scale_factor: from one level of the pyramid to the next, 0…1.
        max_side: photos with a longer side than this many pixels are searched
            at this size; None to search every photo at full size. The default
            is half of what phones take, which JPEG decoders reach for free.
        try_turned: look again at photos without a face turned by 90, 270 and
            180 degrees.

    Raises:
        SettingsError: a value out of its range.
    """

    min_face_size: float = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8)
    scale_factor: float = 0.709
    max_side: int | None = 2000
    try_turned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        if not self.min_face_size > 0:
            raise SettingsError(f"min_face_size must be above 0, not {self.min_face_size}")
        if len(self.thresholds) != 3 or not all(0 <= t <= 1 for t in self.thresholds):
            raise SettingsError(f"thresholds must be three numbers 0…1, not {self.thresholds}")
        if not 0.2 <= self.scale_factor <= 0.95:
            raise SettingsError(f"scale_factor must be 0.2…0.95, not {self.scale_factor}")
        if self.max_side is not None and self.max_side < CELL:
            raise SettingsError(f"max_side must be at least {CELL}, not {self.max_side}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {**asdict(self), "thresholds": list(self.thresholds)}

    def searched_side(self) -> int | None:
        """Longest side at which a photo has to be read for its faces to be found.

        Where faces are wanted by their share of the photo, the smallest fills
        O-Net's patch at this side in photos up to twice as long as wide.
        """
        if self.min_face_size >= 1:
            return self.max_side
        enough = math.ceil(2 * ONET_SIDE / self.min_face_size)
        return enough if self.max_side is None else min(enough, self.max_side)

    def smallest_face(self, width: int, height: int) -> float:
        """Smallest face looked for in an image of this size, in its pixels."""
        if self.min_face_size >= 1:
            return float(self.min_face_size)
        return self.min_face_size * min(width, height)


@dataclass(frozen=True)
class _Candidates:
    """Boxes that are still in the race, of one image or of several."""

    boxes: Array  # (n, 4): left, top, right, bottom
    scores: Array  # (n,)
    owners: NDArray[np.intp]  # (n,): which image
    landmarks: Array | None = None  # (n, 10): five x, then five y

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[Any]) -> _Candidates:
        landmarks = None if self.landmarks is None else self.landmarks[rows]
        return _Candidates(self.boxes[rows], self.scores[rows], self.owners[rows], landmarks)

    @staticmethod
    def join(parts: Sequence[_Candidates]) -> _Candidates:
        if not parts:
            return _Candidates(
                np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.intp)
            )
        return _Candidates(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.owners for part in parts]),
        )


class Detector:
    """Finds faces. Safe to use from several threads at once.

    Args:
        settings: what counts as a face.
        runtime: where the networks run.
    """

    def __init__(self, settings: DetectorSettings, runtime: Runtime) -> None:
        self.settings = settings
        self._pnet = runtime.load(pnet_graph())
        self._rnet = runtime.load(rnet_graph())
        self._onet = runtime.load(onet_graph())
        self._cutters = {side: runtime.load(crop_graph(side)) for side in (RNET_SIDE, ONET_SIDE)}

    def detect(self, images: Sequence[ImageArray]) -> list[list[Face]]:
        """Faces of each image, most confident first, in pixels of the image.

        Args:
            images: RGB uint8 (height, width, 3), upright, of any sizes.
        """
        found = self._cascade(images)
        if self.settings.try_turned:
            for row, faces in enumerate(found):
                if not faces:
                    found[row] = self._turned(images[row])
        return found

    def _turned(self, image: ImageArray) -> list[Face]:
        height, width = image.shape[:2]
        for turns in (1, 3, 2):
            faces = self._cascade([np.ascontiguousarray(np.rot90(image, turns))])[0]
            if faces:
                return [_turn_back(face, turns, width, height) for face in faces]
        return []

    def _cascade(self, images: Sequence[ImageArray]) -> list[list[Face]]:
        planes = [_planes(image) for image in images]
        candidates = _Candidates.join(
            [self._propose(image, row) for row, image in enumerate(planes)]
        )
        candidates = self._refine(candidates, planes)
        candidates = self._decide(candidates, planes)
        return [
            _faces(candidates.take(candidates.owners == row), *image.shape[1::-1])
            for row, image in enumerate(images)
        ]

    def _propose(self, planes: Array, owner: int) -> _Candidates:
        height, width = planes.shape[2:]
        smallest = self.settings.smallest_face(width, height)
        levels = []
        for scale in _scales((height, width), smallest, self.settings.scale_factor):
            odds, offsets = _in_tiles(self._pnet, planes[0], scale)
            boxes, scores = _cells(odds, offsets, self.settings.thresholds[0])
            keep = suppress(boxes, scores, LEVEL_OVERLAP)
            levels.append((boxes[keep] / np.float32(scale), scores[keep]))
        if not levels:
            return _Candidates.join([])
        boxes = np.concatenate([boxes for boxes, _ in levels])
        scores = np.concatenate([scores for _, scores in levels])
        keep = suppress(boxes, scores, OVERLAP)
        owners = np.full(int(keep.sum()), owner, np.intp)
        return _Candidates(_squared(boxes[keep]), scores[keep], owners)

    def _refine(self, candidates: _Candidates, planes: list[Array]) -> _Candidates:
        patches = self._cut(candidates, planes, RNET_SIDE)
        odds, offsets = _in_blocks(self._rnet, patches, RNET_BLOCK, 1, 4)
        scores = _probability(odds[:, 0])
        refined = _Candidates(
            _regressed(candidates.boxes, offsets), scores, candidates.owners
        ).take(scores > self.settings.thresholds[1])
        kept = _per_image(refined, lambda boxes, scores: suppress(boxes, scores, OVERLAP))
        return _Candidates(_squared(kept.boxes), kept.scores, kept.owners)

    def _decide(self, candidates: _Candidates, planes: list[Array]) -> _Candidates:
        patches = self._cut(candidates, planes, ONET_SIDE)
        odds, offsets, points = _in_blocks(self._onet, patches, ONET_BLOCK, 1, 4, 10)
        scores = _probability(odds[:, 0])
        boxes = candidates.boxes
        # The weights count a box's pixels inclusively and from one.
        size = boxes[:, 2:] - boxes[:, :2] + 1
        points = points.reshape(-1, 2, 5) * size[:, :, None] + boxes[:, :2, None] - 1
        decided = _Candidates(
            _regressed(boxes, offsets), scores, candidates.owners, points.reshape(-1, 10)
        ).take(scores > self.settings.thresholds[2])
        return _per_image(
            decided, lambda boxes, scores: suppress(boxes, scores, OVERLAP, measure="smaller")
        )

    def _cut(self, candidates: _Candidates, planes: list[Array], side: int) -> Array:
        """Patches (n, 3, side, side) of the candidates, each cut from its own image."""
        patches = np.empty((len(candidates), 3, side, side), np.float32)
        for row, image in enumerate(planes):
            mine = candidates.owners == row
            if mine.any():
                patches[mine] = _patches(self._cutters[side], image, candidates.boxes[mine], side)
        return patches


def _patches(cutter: Network, image: Array, boxes: Array, side: int) -> Array:
    """Bilinear samples on a grid with its corners in the boxes' corners; outside is mid-grey."""
    last = np.array([image.shape[3] - 1, image.shape[2] - 1], np.float32)
    # Where the weights' own package samples: a box as fractions of the image, from the first
    # pixel's centre to the last one's.
    first = boxes[:, :2] * (last / (last + 1))
    step = (boxes[:, 2:] * (last / (last + 1)) - first) / np.float32(side - 1)
    cells = np.concatenate([first - step / 2, first + step * (side - 0.5)], axis=1)
    patches: Array = cutter.run({"planes": image, "boxes": cells.astype(np.float32)})[0]
    beyond = np.flatnonzero(
        (first < 0).any(axis=1) | (first + step * (side - 1) > last).any(axis=1)
    )
    points = first[beyond, :, None] + step[beyond, :, None] * np.arange(side, dtype=np.float32)
    outside = (points < 0) | (points > last[:, None])
    patches[beyond] *= ~(outside[:, 0, None, None, :] | outside[:, 1, None, :, None])
    return patches


def area_level(planes: Array, scale: float, rows: slice | None = None) -> Array:
    """An image at a smaller scale, each pixel the exact mean of the area that it covers.

    Args:
        planes: float32 (3, height, width).
        scale: pixels of the result for one of the image, above 0.
        rows: which rows of the result are wanted, from a multiple of ``AREA_BLOCK`` on; all.

    Returns:
        float32 (3, ⌊height · scale⌋, ⌊width · scale⌋), or of these rows those wanted.
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
    """Shares (pixels, parts) that ``size`` pixels have in ``parts`` equal parts of them.

    A part covers few of the pixels, so the matrix is given in blocks along its
    diagonal: which parts, which pixels, and their shares.
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
    """Cut a matrix product so small that OpenBLAS leaves it to the calling thread.

    Otherwise every worker would wake as many threads as there are cores.
    """
    step = max(16, AREA_PRODUCT // cost)
    for start in range(0, length, step):
        yield slice(start, start + step)


def _scales(shape: tuple[int, ...], smallest: float, factor: float) -> Iterator[float]:
    """Scales of the pyramid's levels, largest first, down to one P-Net cell."""
    scale = CELL / smallest
    while min(shape) * scale >= CELL:
        yield scale
        scale *= factor


def _planes(image: ImageArray) -> Array:
    """The image as the networks read it: float32 (1, 3, height, width), mid-grey is 0."""
    planes = image.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    planes -= PIXEL_MEAN
    return planes


def _probability(odds: Array) -> Array:
    """Probability of a face from the logarithm of its odds: of two classes, the softmax."""
    one = np.float32(1)
    probability: Array = one / (one + np.exp(-np.maximum(odds, np.float32(-80))))
    return probability


def _in_tiles(network: Network, planes: Array, scale: float) -> tuple[Array, Array]:
    """Run P-Net over one level of the pyramid in tiles of at most `PNET_TILE` cells a side.

    Returns:
        odds (rows, columns) and offsets (rows, columns, 4) of the level's cells, each computed
        from the pixels that it sees, so that the tiles do not show.
    """
    height, width = _level_size(planes, scale)
    rows, columns = (-(-(side - CELL) // STRIDE) + 1 for side in (height, width))
    odds = np.empty((rows, columns), np.float32)
    offsets = np.empty((rows, columns, 4), np.float32)
    for down in _tiles(rows):
        strip = area_level(planes, scale, _seen(down, height))[None]
        for across in _tiles(columns):
            there, moved = network.run({"pixels": strip[..., _seen(across, width)]})
            odds[down, across], offsets[down, across] = there[0, 0], moved[0]
    return odds, offsets


def _tiles(count: int) -> Iterator[slice]:
    """So many cells in as few parts of at most `PNET_TILE` as there can be, nearly equal."""
    parts = -(-count // PNET_TILE)
    # A part begins where `area_level` begins a block.
    step = AREA_BLOCK // STRIDE * -(-count * STRIDE // (parts * AREA_BLOCK))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _seen(cells: slice, side: int) -> slice:
    """The pixels of a level's ``side`` that these cells see; of an odd last one what there is."""
    return slice(STRIDE * cells.start, min(side, STRIDE * (cells.stop - 1) + CELL))


def _cells(odds: Array, offsets: Array, threshold: float) -> tuple[Array, Array]:
    """Boxes (n, 4) and scores (n,) of P-Net's cells above the threshold."""
    # The bound is a little low, so that the probability decides.
    bound = math.log(max(threshold, 1e-9) / max(1 - threshold, 1e-9)) - 1e-3
    rows, columns = np.nonzero(odds > bound)
    scores = _probability(odds[rows, columns])
    kept = scores > threshold
    rows, columns, scores = rows[kept], columns[kept], scores[kept]
    first = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE
    # The weights count a cell's pixels from one to twelve.
    boxes = np.concatenate([first + 1, first + CELL], axis=1)
    return boxes + offsets[rows, columns] * (CELL - 1), scores


def _regressed(boxes: Array, offsets: Array) -> Array:
    size = boxes[:, 2:] - boxes[:, :2] + 1
    moved: Array = boxes + offsets * np.concatenate([size, size], axis=1)
    return moved


def _squared(boxes: Array) -> Array:
    """Boxes grown about their centres to squares of their longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True, initial=0) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _in_blocks(network: Network, patches: Array, block: int, *widths: int) -> list[Array]:
    """Run the network over all patches in blocks of one size, the last one padded.

    A block of one size always takes the same path through the runtime, so that
    a patch gives the same bits whatever stands beside it.
    """
    outputs = [np.empty((len(patches), width), np.float32) for width in widths]
    for start in range(0, len(patches), block):
        part = patches[start : start + block]
        count = len(part)
        if count < block:
            part = np.concatenate([part, np.zeros((block - count, *part.shape[1:]), np.float32)])
        for output, values in zip(outputs, network.run({"pixels": part}), strict=True):
            output[start : start + count] = values[:count]
    return outputs


def _per_image(
    candidates: _Candidates, choose: Callable[[Array, Array], NDArray[np.bool_]]
) -> _Candidates:
    keep = np.zeros(len(candidates), bool)
    for owner in np.unique(candidates.owners):
        rows = np.flatnonzero(candidates.owners == owner)
        keep[rows] = choose(candidates.boxes[rows], candidates.scores[rows])
    return candidates.take(keep)


def suppress(
    boxes: Array, scores: Array, threshold: float, measure: Literal["union", "smaller"] = "union"
) -> NDArray[np.bool_]:
    """Non-maximum suppression: which boxes no better box overlaps by more than the threshold.

    A box falls to any better one, whether or not that one stays (Fast NMS,
    Bolya et al., YOLACT, 2019, section 3.3), which needs no loop over boxes.

    Args:
        boxes: (n, 4) left, top, right, bottom.
        scores: (n,), higher is better; of equal ones any, the same one every time.
        threshold: 0…1.
        measure: the intersection is compared with the union or with the smaller box.

    Returns:
        (n,) True for the boxes that stay.
    """
    count = len(boxes)
    keep = np.ones(count, bool)
    if count < 2:
        return keep
    rank = np.empty(count, np.intp)
    # Not a stable sort: many a score is 1 to the last bit, and this is how the weights' own
    # package happens to choose among them.
    rank[np.argsort(scores.astype(np.float64))[::-1]] = np.arange(count)
    # In order of their left edges, the boxes that a run of boxes can touch are a run too.
    order = np.argsort(boxes[:, 0], kind="stable")
    boxes, rank = boxes[order], rank[order]
    left, top, right, bottom = boxes.T
    # A box turned inside out has no area: it beats none and is beaten by none.
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


def _faces(candidates: _Candidates, width: int, height: int) -> list[Face]:
    """Faces of one image, most confident first, boxes cut at its edges."""
    assert candidates.landmarks is not None or not len(candidates)
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(candidates.boxes, 0, limit)
    faces = []
    for row in np.argsort(-candidates.scores, kind="stable"):
        box = boxes[row]
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            continue
        points = candidates.landmarks[row].reshape(2, 5)  # type: ignore[index]
        faces.append(
            Face(
                box=_floats(box),
                landmarks=tuple((float(x), float(y)) for x, y in points.T),  # type: ignore[arg-type]
                confidence=float(candidates.scores[row]),
            )
        )
    return faces


def _floats(box: Array) -> Box:
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


def _turn_back(face: Face, turns: int, width: int, height: int) -> Face:
    """A face found in ``np.rot90(image, turns)``, in the pixels of the image (width, height)."""
    size = (width, height)

    def back(x: float, y: float, inset: float) -> tuple[float, float]:
        for turn in range(turns, 0, -1):
            # One turn of rot90 takes (x, y) to (y, width before it − x).
            x, y = size[(turn - 1) % 2] - inset - y, x
        return x, y

    left, top, right, bottom = face.box
    (ax, ay), (bx, by) = back(left, top, 0), back(right, bottom, 0)
    # Landmarks count from the centre of the first pixel, boxes from its edge.
    points = [back(x, y, 1) for x, y in face.landmarks]
    landmarks: Landmarks = (points[0], points[1], points[2], points[3], points[4])
    box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
    return Face(box, landmarks, face.confidence)
