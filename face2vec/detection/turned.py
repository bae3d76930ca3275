"""Finds faces at any angle in the plane with a detector that finds upright ones.

A photo is looked at again, turned in steps of 45 degrees and mirrored. Where several looks find the
same face, the one in which it is upright and most certain is kept, and its landmarks are taken from
a last look at the face alone, turned by what is left of the angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.detection import TURNED, TryTurned
from face2vec.detection.opinion import SecondOpinion
from face2vec.errors import SettingsError
from face2vec.types import Box, Face, Landmarks

ImageArray = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Find = Callable[[ImageArray], list[Face]]
"""Faces of one upright image."""
Certain = Callable[[ImageArray, Sequence[Face]], Sequence[float]]
"""How certain each face of an image is a face, 0…1."""
STORED: Mapping[TryTurned, TryTurned | bool] = {"never": False, "auto": True, "always": "always"}
"""The choices as galleries store them, which had two of them at first."""
SURE = 0.8
"""Second opinion from which a face ends the search of a photo."""
LEAST = 0.5
"""Second opinion from which a face of a turned photo counts."""

STEP = 45  # degrees between two looks
GREY = (128, 128, 128)
OVERLAP = 0.4  # intersection over the smaller box, from which two looks found the same face
PATCH, AROUND = 160, 2.5  # pixels of a side of the last look, and sides of a face that it shows
LAST_LOOKS = 2
STRAIGHT = math.radians(8)  # angle left in a view from which a last look is worth it


@dataclass(frozen=True, eq=False)
class _Look:
    """A view of an image, and the matrix (2, 3) from its pixels to those of the image."""

    image: ImageArray
    matrix: Matrix

    @property
    def is_mirrored(self) -> bool:
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    def in_image(self, face: Face) -> Face:
        """A face of the view in pixels of the image."""
        # Landmarks count from the centre of a pixel, boxes from its edge.
        points = _moved(self.matrix, np.asarray(face.landmarks) + 0.5) - 0.5
        if self.is_mirrored:
            points = points[[1, 0, 2, 4, 3]]
        landmarks: Landmarks = tuple((float(x), float(y)) for x, y in points)  # type: ignore[assignment]
        left, top, right, bottom = face.box
        (x, y), *_ = _moved(self.matrix, np.array([[(left + right) / 2, (top + bottom) / 2]]))
        scale = math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))
        # Neither side grows with the angle, as those of the corners' bounding box would.
        along = (self.matrix[0, 0] / scale) ** 2
        wide = (along * face.width + (1 - along) * face.height) * scale / 2
        high = (along * face.height + (1 - along) * face.width) * scale / 2
        return replace(face, box=(x - wide, y - high, x + wide, y + high), landmarks=landmarks)


def stored_choice(choice: TryTurned | bool) -> TryTurned | bool:
    """A choice as a gallery stores it: False for ``"never"``, True for ``"auto"``.

    Raises:
        SettingsError: there is no such choice.
    """
    if isinstance(choice, bool):
        return choice
    if choice not in STORED:
        raise SettingsError(f"try_turned must be one of {', '.join(TURNED)}, not {choice!r}")
    return STORED[choice]


def with_turned(
    image: ImageArray,
    upright: list[Face],
    find: Find,
    opinion: SecondOpinion,
    choice: TryTurned | bool,
) -> list[Face]:
    """The faces of an image, and those at other angles if they are wanted.

    Args:
        image: RGB uint8 (height, width, 3).
        upright: the faces that ``find`` finds in it.
        find: a detector of upright faces.
        opinion: the second opinion, which says whether a face is sure.
        choice: see `stored_choice`.
    """

    def certain(view: ImageArray, faces: Sequence[Face]) -> list[float]:
        return [one.face for one in opinion(view, faces)]

    if not choice or (choice is True and max(certain(image, upright), default=0.0) >= SURE):
        return upright
    return faces_at_any_angle(image, upright, find, certain)


def faces_at_any_angle(
    image: ImageArray, upright: Sequence[Face], find: Find, certain: Certain
) -> list[Face]:
    """The faces of an image at any angle in the plane, most confident first.

    Args:
        image: RGB uint8 (height, width, 3).
        upright: the faces that ``find`` finds in it.
        find: a detector of upright faces.
        certain: how certain each of its faces is a face.

    Returns:
        Faces in pixels of the image. Their landmarks are named as on an upright face.
    """
    height, width = image.shape[:2]
    seen = [(score, face, 0) for score, face in _rated(image, upright, certain)]
    views = [(turn, _turned(image, turn)) for turn in range(STEP, 360, STEP)]
    views.append((0, _Look(np.ascontiguousarray(image[:, ::-1]), _mirror(width))))
    for turn, look in views:
        # Nine looks see nine times as many false faces, so these have to be sure.
        seen += [
            (score, look.in_image(face), turn)
            for score, face in _rated(look.image, find(look.image), certain)
            if score >= LEAST
        ]
    best: list[Face] = []
    for _, face, turn in sorted(seen, key=lambda one: -one[0]):
        if all(_overlap(face.box, other.box) < OVERLAP for other in best):
            left = math.remainder(tilt(face) - math.radians(turn), math.tau)
            best.append(face if abs(left) < STRAIGHT else looked_at(image, face, find))
    inside = [_clipped(face, width, height) for face in best]
    return sorted((f for f in inside if f is not None), key=lambda face: -face.confidence)


def _rated(
    image: ImageArray, faces: Sequence[Face], certain: Certain
) -> Iterable[tuple[float, Face]]:
    """Faces of a view with their certainty, less for those that are not upright in it."""
    for face, score in zip(faces, certain(image, faces), strict=True):
        yield score * max(0.0, math.cos(tilt(face))), face


def tilt(face: Face) -> float:
    """Angle of a face in the plane in radians, −π…π: 0 upright, positive clockwise.

    The direction of the line from the middle between the mouth corners to the middle between the
    eyes, together with that from eye to eye.
    """
    left, right, _, left_mouth, right_mouth = np.asarray(face.landmarks, np.float64)
    across = (right - left) + (right_mouth - left_mouth)
    down = (left_mouth + right_mouth) - (left + right)
    x, y = across + np.array([down[1], -down[0]])
    return math.atan2(y, x)


def looked_at(image: ImageArray, face: Face, find: Find) -> Face:
    """The same face with the landmarks of a look at it alone, upright.

    Args:
        image: RGB uint8 (height, width, 3).
        face: a face in its pixels.
        find: a detector of upright faces.
    """
    for _ in range(LAST_LOOKS):
        left, top, right, bottom = face.box
        centre = (left + right) / 2, (top + bottom) / 2
        scale = PATCH / (AROUND * max(face.width, face.height))
        look = _turned(image, math.degrees(tilt(face)), centre, scale, (PATCH, PATCH))
        found = [look.in_image(one) for one in find(look.image)]
        same = [one for one in found if _overlap(one.box, face.box) >= OVERLAP]
        if not same:
            break
        face = replace(max(same, key=lambda one: one.confidence), confidence=face.confidence)
    return face


def _turned(
    image: ImageArray,
    degrees: float,
    centre: tuple[float, float] | None = None,
    scale: float = 1.0,
    size: tuple[int, int] | None = None,
) -> _Look:
    """A view in which what is turned clockwise by some degrees in the image is upright."""
    height, width = image.shape[:2]
    # Rounded, so that quarter turns move pixels and do not interpolate them.
    cosine = round(math.cos(math.radians(degrees)), 12)
    sine = round(math.sin(math.radians(degrees)), 12)
    if size is None:
        size = (
            math.ceil(abs(cosine) * width + abs(sine) * height - 1e-6),
            math.ceil(abs(sine) * width + abs(cosine) * height - 1e-6),
        )
    middle = np.array(centre or (width / 2, height / 2))
    turn = np.array([(cosine, -sine), (sine, cosine)]) / scale
    shift = middle - turn @ (np.array(size) / 2)
    matrix = np.column_stack([turn, shift])
    view = Image.fromarray(image).transform(
        size, Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR,
        fillcolor=GREY,
    )  # fmt: skip
    return _Look(np.asarray(view), matrix)


def _mirror(width: int) -> Matrix:
    return np.array([(-1.0, 0.0, width), (0.0, 1.0, 0.0)])


def _moved(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def _overlap(one: Box, other: Box) -> float:
    """Intersection over the smaller of two boxes, 0…1."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return across * down / smaller


def _clipped(face: Face, width: int, height: int) -> Face | None:
    left, top = max(0.0, face.box[0]), max(0.0, face.box[1])
    right, bottom = min(float(width), face.box[2]), min(float(height), face.box[3])
    if right - left < 1 or bottom - top < 1:
        return None
    return replace(face, box=(left, top, right, bottom))
