"""Portraits: the part of a photo around a face, which the laboratory degrades and encodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.photos.decode import full_resolution
from face2vec.types import Box, Face, Photo

ImageArray = NDArray[np.uint8]
Points = NDArray[np.float64]

MARGIN = 0.5
"""Margin around the box, as a fraction of its longer side."""
LARGEST_AREA = 65_536
"""Largest area of a face's box in square pixels; larger portraits are reduced."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """One face with its surroundings.

    Attributes:
        image: RGB uint8 (height, width, 3).
        landmarks: float64 (5, 2), left eye, right eye, nose, left and right mouth corner as the
            viewer sees them, in pixels of the image.
        box: (left, top, right, bottom) in pixels of the image.
    """

    image: ImageArray
    landmarks: Points
    box: Box

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def middle(self) -> tuple[float, float]:
        """Centre of the box, as fractions of the image's width and height."""
        height, width = self.image.shape[:2]
        left, top, right, bottom = self.box
        return (left + right) / 2 / width, (top + bottom) / 2 / height


class Frame(NamedTuple):
    """Face coordinates: (0, 0) is between the eyes, (0, about 1) between the mouth corners.

    The unit is the *eye distance*: the distance between the eyes, or the distance from their
    midpoint to that of the mouth corners if it is longer, as in a face seen from the side. Both
    are about equal in a frontal face.
    """

    middle: Points
    """float64 (2,), midpoint of the eyes, in pixels."""
    across: Points
    """float64 (2,), one eye distance along the eyes, to the viewer's right, in pixels."""
    down: Points
    """float64 (2,), one eye distance towards the mouth, in pixels."""
    mouth: float
    """Distance of the mouth from the eyes, in eye distances."""

    @property
    def unit(self) -> float:
        """The eye distance in pixels."""
        return math.hypot(*self.across)

    def place(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Convert points from face coordinates to (x, y) in pixels of the image."""
        given = np.asarray(points, np.float64)
        at = self.middle + given[:, :1] * self.across + given[:, 1:] * self.down
        return [(float(x), float(y)) for x, y in at]


def frame_of(landmarks: Points) -> Frame:
    """The frame of a face.

    Args:
        landmarks: float64 (5, 2), in pixels.
    """
    left, right, _, mouth_left, mouth_right = np.asarray(landmarks, np.float64)
    eyes = (left + right) / 2
    along, towards = right - left, (mouth_left + mouth_right) / 2 - eyes
    apart, below = float(np.linalg.norm(along)), float(np.linalg.norm(towards))
    unit = max(apart, below, 1e-6)
    across = along / max(apart, 1e-6) * unit
    down = towards / max(below, 1e-6) * unit
    return Frame(eyes, across, down, below / unit)


def portrait_of(photo: Photo, face: Face) -> Portrait:
    """Cut a face with its surroundings out of a photo.

    A face with more than ``LARGEST_AREA`` square pixels is reduced to that size.

    Args:
        photo: the photo at any scale; it is read again at full resolution for a small face.
        face: the face in pixels of the full photo.

    Raises:
        PhotoError: the photo must be read again and cannot be.
    """
    if photo.scale < 1 and face.area * photo.scale**2 < LARGEST_AREA:
        photo = full_resolution(photo)
    scale = photo.scale
    left, top, right, bottom = (side * scale for side in face.box)
    border = MARGIN * max(right - left, bottom - top)
    height, width = photo.image.shape[:2]
    first_x, first_y = max(math.floor(left - border), 0), max(math.floor(top - border), 0)
    last_x, last_y = min(math.ceil(right + border), width), min(math.ceil(bottom + border), height)
    image = np.ascontiguousarray(photo.image[first_y:last_y, first_x:last_x])
    # The origin of landmarks is the centre of a pixel.
    points = (np.asarray(face.landmarks, np.float64) + 0.5) * scale - 0.5 - (first_x, first_y)
    box = (left - first_x, top - first_y, right - first_x, bottom - first_y)
    whole = Portrait(image, points, box)
    return smaller(whole, LARGEST_AREA)


def smaller(portrait: Portrait, area: float) -> Portrait:
    """Reduce a portrait to a given area of the face's box; a smaller one is returned unchanged."""
    if portrait.area <= area:
        return portrait
    height, width = portrait.image.shape[:2]
    scale = math.sqrt(area / portrait.area)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = np.asarray(Image.fromarray(portrait.image).resize(size, Image.Resampling.BICUBIC))
    by = np.array([size[0] / width, size[1] / height])
    left, top, right, bottom = portrait.box
    box = (left * by[0], top * by[1], right * by[0], bottom * by[1])
    return Portrait(image, (portrait.landmarks + 0.5) * by - 0.5, box)
