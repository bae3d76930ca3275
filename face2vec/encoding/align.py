"""Aligns faces: cuts each face of a photo to the square crop that a network expects.

A model's description names one of two alignments. ``"landmarks"`` applies the similarity
transform that maps the five landmarks to the model's template with least squared error
(Umeyama, Least-squares estimation of transformation parameters between two point patterns,
1991). ``"margin"`` enlarges the box by a margin and stretches it, as in the training of
FaceNet's published weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.encoding.quality import quality
from face2vec.models.description import ModelDescription
from face2vec.photos.decode import full_resolution
from face2vec.types import Box, Face, Photo

ImageArray = NDArray[np.uint8]


def cut_faces(
    photo: Photo, found: Sequence[Face], model: ModelDescription
) -> tuple[list[Face], ImageArray]:
    """Scale detected faces to the full photo, add their quality, and cut their crops.

    Args:
        photo: the photo with the faces.
        found: faces with boxes and landmarks in pixels of ``photo.image``.
        model: description of the model, which defines the alignment and the side of the crop.

    Returns:
        The faces in pixels of the full photo, and their crops, RGB uint8 (n, side, side, 3).

    Raises:
        PhotoError: a small face requires the photo at full resolution, and it cannot be read
            again.
    """
    return cut_known(photo, [full_size(face, photo) for face in found], model)


def cut_known(
    photo: Photo, faces: Sequence[Face], model: ModelDescription
) -> tuple[list[Face], ImageArray]:
    """Add to faces their quality for a model, and cut their crops.

    Args:
        photo: the photo with the faces.
        faces: faces with boxes and landmarks in pixels of the full photo.
        model: description of the model, which defines the alignment and the side of the crop.

    Returns:
        The faces, and their crops, RGB uint8 (n, side, side, 3).

    Raises:
        PhotoError: a small face requires the photo at full resolution, and it cannot be read
            again.
    """
    faces = [replace(face, quality=quality(face.parts, crop_detail(face, model))) for face in faces]
    return faces, cut_crops(photo, faces, model)


def cut_crops(photo: Photo, faces: Sequence[Face], model: ModelDescription) -> ImageArray:
    """Cut the crops of the faces of one photo.

    A photo that was read at reduced scale is read again at full resolution if a crop would
    otherwise be an enlargement.

    Args:
        photo: the photo with the faces.
        faces: faces with boxes and landmarks in pixels of the full photo.
        model: description of the model, which defines the alignment and the side of the crop.

    Returns:
        RGB uint8 (n, side, side, 3).
    """
    if photo.scale < 1 and any(crop_detail(face, model) * photo.scale < 1 for face in faces):
        windows = [_window(face, model, photo.width, photo.height) for face in faces]
        photo = full_resolution(photo, windows)
    crops = np.empty((len(faces), model.input_size, model.input_size, 3), np.uint8)
    for crop, face in zip(crops, faces, strict=True):
        if model.alignment == "margin":
            crop[:] = _margin_crop(photo, face.box, model)
        else:
            crop[:] = _landmark_crop(photo, face, model)
    return crops


def _window(face: Face, model: ModelDescription, width: int, height: int) -> Box:
    """The part of a photo that the crop of a face is made of, in pixels of the full photo.

    What is beyond a border is mirrored, so that it lies as far inside.
    """
    if model.alignment == "margin":
        low, high = _with_margin(face.box, model)
    else:
        reach = _reach(_to_photo(face, model), model.input_size)
        low, high = reach.min(axis=0), reach.max(axis=0)
    low, high = low - 3, high + 3
    size = np.array([width, height])
    left, top = np.minimum(low, np.where(high > size, 2 * size - 2 - high, low))
    right, bottom = np.maximum(high, np.where(low < 0, -low, high))
    return float(left), float(top), float(right), float(bottom)


def crop_detail(face: Face, model: ModelDescription) -> float:
    """Pixels of the full photo per pixel of the crop; below 1 the crop is an enlargement."""
    if model.alignment == "margin":
        shown = model.input_size * (model.margin_size - model.margin) / model.margin_size
        return min(face.width, face.height) / shown
    return float(np.linalg.norm(_to_photo(face, model)[:2, 0]))


def full_size(face: Face, photo: Photo) -> Face:
    """A face in pixels of the photo's image, in pixels of the full photo."""
    if photo.scale == 1:
        return face
    across = photo.width / photo.image.shape[1]
    down = photo.height / photo.image.shape[0]
    left, top, right, bottom = face.box
    points = [((x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5) for x, y in face.landmarks]
    return replace(
        face,
        box=(left * across, top * down, right * across, bottom * down),
        landmarks=(points[0], points[1], points[2], points[3], points[4]),
    )


def similarity_transform(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Least-squares rotation, uniform scale and translation from source points to target points.

    Umeyama 1991, equations 34 to 43, for two dimensions; never a reflection.

    Args:
        source: float32 or float64 (n, 2) points, not all equal.
        target: float32 or float64 (n, 2) points.

    Returns:
        float64 (2, 3) matrix M, so that target ≈ source @ M[:, :2].T + M[:, 2].
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    left, stretch, right = np.linalg.svd((target - target_mean).T @ centred)
    sign = np.array([1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    scale = (stretch * sign).sum() / (centred**2).sum()
    turn = scale * (left * sign) @ right
    return np.column_stack([turn, target_mean - turn @ source_mean])


def _to_photo(face: Face, model: ModelDescription) -> NDArray[np.float64]:
    """Matrix (2, 3) from pixels of the crop to pixels of the full photo."""
    assert model.template is not None
    template = np.asarray(model.template, np.float64) * model.input_size
    landmarks = np.asarray(face.landmarks, np.float64)
    onto = similarity_transform(landmarks, template)
    back = np.linalg.inv(onto[:, :2])
    return np.column_stack([back, -back @ onto[:, 2]])


def _landmark_crop(photo: Photo, face: Face, model: ModelDescription) -> ImageArray:
    side = model.input_size
    matrix = _to_photo(face, model)
    # Scale to pixels of the decoded image. The origin of landmarks is the centre of a pixel.
    matrix = photo.scale * matrix
    matrix[:, 2] += (photo.scale - 1) / 2
    reach = _reach(matrix, side)
    first = np.floor(reach.min(axis=0)).astype(int) - 1
    last = np.ceil(reach.max(axis=0)).astype(int) + 2
    region = Image.fromarray(_reflected(photo.image, first, last))
    matrix[:, 2] -= first
    # Average blocks first, because bilinear sampling would skip pixels.
    factor = int(np.linalg.norm(matrix[:, 0]))
    if factor >= 2:
        region = region.reduce(factor)
        matrix /= factor
        matrix[:, 2] += 0.5 / factor - 0.5
    # The origin of Pillow's coordinates is the corner of a pixel, in the input and the output.
    shift = matrix[:, 2] + 0.5 - 0.5 * matrix[:, :2].sum(axis=1)
    data = (*matrix[0, :2], shift[0], *matrix[1, :2], shift[1])
    crop = region.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(crop)


def _reach(matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Where the corners of a crop are in the photo, float64 (4, 2)."""
    corners = np.array([[-1, -1], [side, -1], [-1, side], [side, side]], np.float64)
    reach: NDArray[np.float64] = corners @ matrix[:, :2].T + matrix[:, 2]
    return reach


def _reflected(image: ImageArray, first: NDArray[np.int_], last: NDArray[np.int_]) -> ImageArray:
    """Pixels first ≤ (x, y) < last of an image, mirrored at its borders."""
    height, width = image.shape[:2]
    if (first >= 0).all() and last[0] <= width and last[1] <= height:
        return np.ascontiguousarray(image[first[1] : last[1], first[0] : last[0]])
    columns = _mirror(np.arange(first[0], last[0]), width)
    rows = _mirror(np.arange(first[1], last[1]), height)
    return image[rows[:, None], columns]


def _mirror(index: NDArray[np.int_], size: int) -> NDArray[np.int_]:
    if size == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * size - 2)
    return np.minimum(index, 2 * size - 2 - index)


def _with_margin(
    box: Box, model: ModelDescription
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first and the last corner of a box that is enlarged by the margin."""
    left, top, right, bottom = box
    grow = model.margin_size / (model.margin_size - model.margin)
    half = (right - left) * grow / 2, (bottom - top) * grow / 2
    centre = (left + right) / 2, (top + bottom) / 2
    low = centre[0] - half[0], centre[1] - half[1]
    return np.array(low), np.array((centre[0] + half[0], centre[1] + half[1]))


def _margin_crop(photo: Photo, box: Box, model: ModelDescription) -> ImageArray:
    """Enlarge the box by the margin, clip it to the photo, stretch it and cut out the centre."""
    height, width = photo.image.shape[:2]
    scaled = tuple(value * photo.scale for value in box)
    low, high = _with_margin((scaled[0], scaled[1], scaled[2], scaled[3]), model)
    left, right = max(float(low[0]), 0.0), min(float(high[0]), float(width))
    top, bottom = max(float(low[1]), 0.0), min(float(high[1]), float(height))
    trim = (1 - model.input_size / model.margin_size) / 2
    across, down = (right - left) * trim, (bottom - top) * trim
    inner = (left + across, top + down, right - across, bottom - down)
    # Only the visible region is copied for Pillow, so a large photo is not in memory twice.
    first_x, first_y = math.floor(inner[0]), math.floor(inner[1])
    last_x, last_y = math.ceil(inner[2]), math.ceil(inner[3])
    region = Image.fromarray(np.ascontiguousarray(photo.image[first_y:last_y, first_x:last_x]))
    shown = (inner[0] - first_x, inner[1] - first_y, inner[2] - first_x, inner[3] - first_y)
    size = (model.input_size, model.input_size)
    return np.asarray(region.resize(size, Image.Resampling.BILINEAR, box=shown))
