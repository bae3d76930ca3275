"""The landmarks of a face that a user has marked by hand, where the detector missed it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.detection.detector import detected
from face2vec.detection.mtcnn import DetectorSettings
from face2vec.detection.select import AnyDetector, open_detector
from face2vec.detection.yunet import MAYBE, YunetSettings
from face2vec.encoding.align import full_size
from face2vec.photos.decode import open_photo
from face2vec.photos.sources import PhotoLike
from face2vec.runtime.select import Runtime
from face2vec.types import Box, Face, Photo, overlap

LOWER = (0.4, 0.4, 0.3)
"""Thresholds of MTCNN inside a box that a user has drawn: somebody says that a face is there."""
AROUND = 0.5
"""How much is searched around the box, as a share of its sides."""
SEARCHED_SIDE = 160
"""Pixels of the shorter side of the box when it is searched; small faces are enlarged."""
SMALLEST = 0.4
"""Smallest face that is searched, as a share of the box's shorter side."""
MOST_ENLARGED = 8.0
LEAST_OVERLAP = 0.25
"""Least overlap of a found face with the box."""


def face_in_box(
    photo: PhotoLike,
    size: tuple[int, int],
    box: Box,
    detector: AnyDetector,
    runtime: Runtime,
    max_pixels: int,
) -> tuple[Photo, Face | None]:
    """A photo, and the face that is found in a box of it, without embedding, or None.

    A detector of the package searches the enlarged box with lower thresholds, at all angles;
    another detector with its own settings.

    Args:
        photo: the photo.
        size: width and height in pixels of the upright photo.
        box: (left, top, right, bottom) in pixels of the upright photo, inside of it.
        detector: the detector of the gallery, or its settings.
        runtime: where its networks run, see `detector_runtime`.
        max_pixels: photos with more pixels are refused.

    Raises:
        PhotoError: the photo cannot be read.
    """
    shorter = min(box[2] - box[0], box[3] - box[1])
    side = math.ceil(max(size) * min(SEARCHED_SIDE / shorter, 1))
    opened = open_photo(photo, max_side=side, max_pixels=max_pixels)
    height, width = opened.image.shape[:2]
    left, right = (value * width / opened.width for value in box[::2])
    top, bottom = (value * height / opened.height for value in box[1::2])
    across, down = (right - left) * AROUND, (bottom - top) * AROUND
    first = max(int(left - across), 0), max(int(top - down), 0)
    last = min(math.ceil(right + across), width), min(math.ceil(bottom + down), height)
    region = opened.image[first[1] : last[1], first[0] : last[0]]
    shorter = min(right - left, bottom - top)
    image = _resized(region, min(SEARCHED_SIDE / shorter, MOST_ENLARGED))
    scale = image.shape[1] / region.shape[1]
    (found,) = detected(
        open_detector(lowered(detector, SMALLEST * shorter * scale), runtime), [image]
    )
    view = Photo("", image, region.shape[1], region.shape[0], scale)
    faces = [full_size(_moved(full_size(face, view), *first), opened) for face in found]
    likely = [face for face in faces if overlap(face.box, box) >= LEAST_OVERLAP]
    return opened, max(likely, key=lambda face: overlap(face.box, box), default=None)


def lowered(detector: AnyDetector, smallest: float) -> AnyDetector:
    """A detector of the package that finds more; any other as it is.

    Args:
        detector: the detector, or its settings.
        smallest: smallest face to find, in pixels of the image.
    """
    smallest = max(smallest, 1.0)
    if isinstance(detector, DetectorSettings):
        return replace(
            detector, thresholds=LOWER, min_face_size=smallest, max_side=None, try_turned="always"
        )
    if isinstance(detector, YunetSettings):
        return replace(
            detector, threshold=MAYBE, min_face_size=smallest, max_side=None, try_turned="always"
        )
    return detector


def _resized(region: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = region.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = Image.fromarray(np.ascontiguousarray(region)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _moved(face: Face, across: float, down: float) -> Face:
    """A face with box and landmarks moved by some pixels."""
    left, top, right, bottom = face.box
    points: Any = tuple((x + across, y + down) for x, y in face.landmarks)
    return replace(
        face, box=(left + across, top + down, right + across, bottom + down), landmarks=points
    )
