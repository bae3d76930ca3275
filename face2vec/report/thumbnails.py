"""Thumbnails: pictures of faces to look at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from face2vec.errors import AddressNotAllowedError, PhotoError
from face2vec.photos.allowed import warn_once
from face2vec.photos.formats import IS_VIDEO

if TYPE_CHECKING:
    from PIL import Image

    from face2vec.photos.sources import PhotoLike
    from face2vec.types import Box

MARGIN = 0.3  # of the box's longer side, added on each side to show hair and chin
THUMBNAIL_SIDE = 144  # pixels
READ_SIDE = 1600  # photos are decoded at this size, which is enough for all but small faces
GREY = (200, 200, 200)


def thumbnail(
    photo: PhotoLike, box: Box, side: int = THUMBNAIL_SIDE, time: float | None = None
) -> Image.Image:
    """The face at ``box`` of ``photo`` with a margin, as an RGB picture.

    It shows a square around the box with ``MARGIN`` on each side; outside the photo it is grey. If
    the photo cannot be read or does not contain the box, it is grey and says "photo not found"; if
    its address is not allowed, it says that.

    Args:
        photo: a path, bytes, or an image.
        box: (left, top, right, bottom) in pixels of the upright photo.
        side: side of the thumbnail in pixels.
        time: of a video, the time of the frame in seconds.
    """
    from PIL import Image, ImageOps

    from face2vec.photos.decode import full_resolution, open_photo

    try:
        if time is not None:
            photo = frame_of(photo, time)
        opened = open_photo(photo, max_side=READ_SIDE)
        cut_side = (1 + 2 * MARGIN) * max(box[2] - box[0], box[3] - box[1])
        if opened.scale < 1 and cut_side * opened.scale < side:
            opened = full_resolution(opened)
    except PhotoError:
        return placeholder("photo not found", side)
    except AddressNotAllowedError as error:
        warn_once(error)
        return placeholder("address not allowed", side)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if not (0 <= x < opened.width and 0 <= y < opened.height):
        return placeholder("photo not found", side)
    left, top, right, bottom = (
        round(min(max(edge, 0), length) * opened.scale)
        for edge, length in (
            (x - cut_side / 2, opened.width),
            (y - cut_side / 2, opened.height),
            (x + cut_side / 2, opened.width),
            (y + cut_side / 2, opened.height),
        )
    )
    cut = opened.image[top : max(bottom, top + 1), left : max(right, left + 1)]
    return ImageOps.pad(Image.fromarray(cut), (side, side), color=GREY)


def frame_of(video: PhotoLike, time: float) -> PhotoLike:
    """The frame of a video at a time in seconds.

    Raises:
        PhotoError: the video cannot be read, or has no such frame.
    """
    from face2vec.photos.sources import plain
    from face2vec.photos.video import Video

    path, name = plain(video)
    if not isinstance(path, str | os.PathLike):
        raise PhotoError(name, IS_VIDEO, "give the path of its file")
    return Video(path).frame_at(time).image


def placeholder(words: str, side: int) -> Image.Image:
    """A grey square of ``side`` pixels with words on it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (side, side), GREY)
    ImageDraw.Draw(image).multiline_text(
        (side / 2, side / 2),
        words.replace(" ", "\n"),
        fill=(60, 60, 60),
        font=ImageFont.load_default(max(side // 7, 8)),
        anchor="mm",
        align="center",
    )
    return image


def whole_photo(photo: PhotoLike) -> Image.Image:
    """A whole photo on a grey square.

    Raises:
        PhotoError: the photo cannot be read.
    """
    from PIL import Image, ImageOps

    from face2vec.photos.decode import open_photo

    image = Image.fromarray(open_photo(photo, max_side=READ_SIDE).image)
    return ImageOps.pad(image, (THUMBNAIL_SIDE * 2, THUMBNAIL_SIDE * 2), color=GREY)
