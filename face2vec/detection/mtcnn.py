"""MTCNN: from upright images to boxes and landmarks.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks, 2016. P-Net proposes boxes on an image pyramid, R-Net refines them, O-Net makes the final
decision and places five landmarks. The weights are those of the ``mtcnn`` package; the cascade is
this project's own.

The faces of an image do not depend on the other images in a batch: P-Net processes one image at a
time, and R-Net and O-Net, which process patches of several images together, run in blocks of a
fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.detection import TryTurned
from face2vec.detection.graphs import PIXEL_MEAN, crop_graph, onet_graph, pnet_graph, rnet_graph
from face2vec.detection.nms import nms
from face2vec.detection.opinion import SecondOpinion
from face2vec.detection.pyramid import CELL, STRIDE, run_in_tiles, scales
from face2vec.detection.turned import stored_choice, with_turned
from face2vec.errors import SettingsError
from face2vec.fingerprint import MTCNN
from face2vec.runtime.network import Network
from face2vec.runtime.select import Runtime
from face2vec.types import Box, Face

Array = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

CASCADE_VERSION = 1  # raised whenever the same photo gives other faces

LEVEL_IOU = 0.5  # NMS within one level of the pyramid
IOU = 0.7  # NMS across levels, and after R-Net and O-Net
RNET_SIDE, ONET_SIDE = 24, 48
SMALLEST_FACE = CELL / 4  # pixels of the image, which is then enlarged four times
RNET_BLOCK, ONET_BLOCK = 16, 4  # patches in one run; their values then stay in a core's cache


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of MTCNN: what counts as a face. A gallery stores them in its fingerprint.

    Attributes:
        min_face_size: smallest face to detect. Values of 1 or more are pixels of the image
            that is searched; values below 1 are a fraction of its shorter side. It sets the
            first scale of the pyramid; some smaller faces are found, too.
        thresholds: lowest probability to pass P-Net, R-Net and O-Net, 0…1.
        scale_factor: ratio between two levels of the pyramid, 0.2…0.95.
        max_side: photos with a longer side, in pixels, are scaled down to it for detection;
            None to search at full size. The default is half of a typical phone photo, which
            JPEG decoders produce at no cost.
        try_turned: search a photo again, turned in steps of 45 degrees and mirrored: ``"never"``,
            ``"auto"`` if it has no sure face, or ``"always"``. In older galleries True stands for
            ``"auto"`` and False for ``"never"``.

    Raises:
        SettingsError: a value is out of range.
    """

    min_face_size: float = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8)
    scale_factor: float = 0.709
    max_side: int | None = 2000
    try_turned: TryTurned | bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        object.__setattr__(self, "try_turned", stored_choice(self.try_turned))
        if not 0 < self.min_face_size < math.inf:
            raise SettingsError(
                f"min_face_size must be above 0 and finite, not {self.min_face_size}"
            )
        if len(self.thresholds) != 3 or not all(0 <= t <= 1 for t in self.thresholds):
            raise SettingsError(f"thresholds must be three numbers 0…1, not {self.thresholds}")
        if not 0.2 <= self.scale_factor <= 0.95:
            raise SettingsError(f"scale_factor must be 0.2…0.95, not {self.scale_factor}")
        if self.max_side is not None and self.max_side < CELL:
            raise SettingsError(f"max_side must be at least {CELL}, not {self.max_side}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-able values."""
        return {**asdict(self), "thresholds": list(self.thresholds)}

    def searched_side(self) -> int | None:
        """Longest side in pixels that a photo needs for detection; None for full size.

        With a relative ``min_face_size`` the smallest face fills O-Net's input at this size, in
        photos up to twice as long as wide.
        """
        if self.min_face_size >= 1:
            return self.max_side
        enough = math.ceil(2 * ONET_SIDE / self.min_face_size)
        return enough if self.max_side is None else min(enough, self.max_side)

    def smallest_face(self, width: int, height: int) -> float:
        """Smallest face to detect in an image of this size, in its pixels; `SMALLEST_FACE` or more.

        The image is enlarged for smaller faces than P-Net's window, and must fit in memory.
        """
        smallest = self.min_face_size
        if smallest < 1:
            smallest *= min(width, height)
        return max(float(smallest), SMALLEST_FACE)


@dataclass(frozen=True)
class _Candidates:
    """Boxes that have passed the stages so far, of one image or of several."""

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


class Mtcnn:
    """The MTCNN detector; see `Detector`. Safe to use from several threads.

    Args:
        options: what counts as a face.
        runtime: where the networks run.
    """

    name = MTCNN
    version = CASCADE_VERSION

    def __init__(self, options: DetectorSettings, runtime: Runtime) -> None:
        self.options = options
        self._pnet = runtime.load(pnet_graph())
        self._rnet = runtime.load(rnet_graph())
        self._onet = runtime.load(onet_graph())
        self._opinion = SecondOpinion(runtime) if options.try_turned else None
        self._cutters = {side: runtime.load(crop_graph(side)) for side in (RNET_SIDE, ONET_SIDE)}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options as JSON-able values."""
        return self.options.to_dict()

    @property
    def max_side(self) -> int | None:
        """Longest side in pixels that a photo needs for detection; None for full size."""
        return self.options.searched_side()

    def detect(self, images: Sequence[ImageArray]) -> list[list[Face]]:
        """Faces of each image, most confident first, in pixels of that image.

        Args:
            images: RGB uint8 (height, width, 3), upright, of any sizes.
        """
        found = self._cascade(images)
        if self._opinion is not None:
            choice = self.options.try_turned
            for row, image in enumerate(images):
                found[row] = with_turned(
                    image, found[row], lambda one: self._cascade([one])[0], self._opinion, choice
                )
        return found

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
        smallest = self.options.smallest_face(width, height)
        levels = []
        for scale in scales((height, width), smallest, self.options.scale_factor):
            logits, offsets = run_in_tiles(self._pnet, planes[0], scale)
            boxes, scores = _cells(logits, offsets, self.options.thresholds[0])
            keep = nms(boxes, scores, LEVEL_IOU)
            levels.append((boxes[keep] / np.float32(scale), scores[keep]))
        if not levels:
            return _Candidates.join([])
        boxes = np.concatenate([boxes for boxes, _ in levels])
        scores = np.concatenate([scores for _, scores in levels])
        keep = nms(boxes, scores, IOU)
        owners = np.full(int(keep.sum()), owner, np.intp)
        return _Candidates(_squared(boxes[keep]), scores[keep], owners)

    def _refine(self, candidates: _Candidates, planes: list[Array]) -> _Candidates:
        patches = self._cut(candidates, planes, RNET_SIDE)
        logits, offsets = _in_blocks(self._rnet, patches, RNET_BLOCK, 1, 4)
        scores = _probability(logits[:, 0])
        refined = _Candidates(
            _regressed(candidates.boxes, offsets), scores, candidates.owners
        ).take(scores > self.options.thresholds[1])
        kept = _per_image(refined, lambda boxes, scores: nms(boxes, scores, IOU))
        return _Candidates(_squared(kept.boxes), kept.scores, kept.owners)

    def _decide(self, candidates: _Candidates, planes: list[Array]) -> _Candidates:
        patches = self._cut(candidates, planes, ONET_SIDE)
        logits, offsets, points = _in_blocks(self._onet, patches, ONET_BLOCK, 1, 4, 10)
        scores = _probability(logits[:, 0])
        boxes = candidates.boxes
        # The weights count a box's pixels inclusively and from one.
        size = boxes[:, 2:] - boxes[:, :2] + 1
        points = points.reshape(-1, 2, 5) * size[:, :, None] + boxes[:, :2, None] - 1
        decided = _Candidates(
            _regressed(boxes, offsets), scores, candidates.owners, points.reshape(-1, 10)
        ).take(scores > self.options.thresholds[2])
        return _per_image(decided, lambda boxes, scores: nms(boxes, scores, IOU, measure="smaller"))

    def _cut(self, candidates: _Candidates, planes: list[Array], side: int) -> Array:
        """Patches (n, 3, side, side) of the candidates, each cut from its own image."""
        patches = np.empty((len(candidates), 3, side, side), np.float32)
        for row, image in enumerate(planes):
            mine = candidates.owners == row
            if mine.any():
                patches[mine] = _patches(self._cutters[side], image, candidates.boxes[mine], side)
        return patches


def _patches(cutter: Network, image: Array, boxes: Array, side: int) -> Array:
    """Bilinear samples on a grid between the boxes' corners; outside the image is mid-grey."""
    last = np.array([image.shape[3] - 1, image.shape[2] - 1], np.float32)
    # The mtcnn package samples here: a box is given in fractions of the image, from the centre of
    # the first pixel to the centre of the last.
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


def _planes(image: ImageArray) -> Array:
    """The input of the networks: float32 (1, 3, height, width), mid-grey is 0."""
    planes = image.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    planes -= PIXEL_MEAN
    return planes


def _probability(logits: Array) -> Array:
    """Probability of a face, the sigmoid of the difference of the two classes' logits."""
    one = np.float32(1)
    probability: Array = one / (one + np.exp(-np.maximum(logits, np.float32(-80))))
    return probability


def _cells(logits: Array, offsets: Array, threshold: float) -> tuple[Array, Array]:
    """Boxes (n, 4) and scores (n,) of P-Net's cells above the threshold."""
    # The bound is slightly low, so that the exact comparison is the one of probabilities.
    bound = math.log(max(threshold, 1e-9) / max(1 - threshold, 1e-9)) - 1e-3
    rows, columns = np.nonzero(logits > bound)
    scores = _probability(logits[rows, columns])
    kept = scores > threshold
    rows, columns, scores = rows[kept], columns[kept], scores[kept]
    first = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE
    # The weights number the pixels of a cell from 1 to 12.
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

    Runtimes choose their kernels by batch size. With one batch size a patch gives the same bits
    whatever the other patches are.
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


def _faces(candidates: _Candidates, width: int, height: int) -> list[Face]:
    """Faces of one image, most confident first, boxes clipped to it."""
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
