"""Photos in which a user marks a face by hand."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from face2vec.errors import PhotoError, SettingsError
from face2vec.files import paths_to
from face2vec.gallery.reader import Snapshot
from face2vec.photos.formats import CHANGED, read_photo_bytes
from face2vec.photos.video import is_video
from face2vec.types import Box

LEAST_SIDE = 8
"""Least width and height in pixels of a box."""


class KnownFile(NamedTuple):
    """The file of a photo of the gallery, which is as it was indexed.

    Attributes:
        photo: its full path, as the gallery has it.
        data: its bytes.
        content: number of its content.
        size: width and height in pixels of the upright photo.
    """

    photo: str
    data: bytes
    content: int
    size: tuple[int, int]


def known_file(photo: str, box: Box, now: Snapshot) -> KnownFile:
    """Read a photo of the gallery in which a box is to be marked.

    Args:
        photo: any path to it.
        box: (left, top, right, bottom) in pixels of the upright photo.
        now: the gallery.

    Raises:
        SettingsError: the gallery does not have it, or has not read it; it is a video; or the box
            is not inside of it, or too small.
        PhotoError: it cannot be read, or has changed since it was indexed.
    """
    for path in paths_to(photo):
        content, size = now.content_at(path), now.size_of(path)
        if content is not None and size is not None:
            break
    else:
        raise SettingsError(f"{photo} is not in the gallery; index it first")
    width, height = size
    if not width or is_video(path):
        what = "could not be read" if not width else "is a video"
        raise SettingsError(f"{path} {what}; faces are marked by hand in photos only").coded(
            "only-photos-are-marked"
        )
    left, top, right, bottom = box
    inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    if not inside or min(right - left, bottom - top) < LEAST_SIDE:
        raise SettingsError(
            f"the box {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f} must be inside of the photo "
            f"of {width}×{height} pixels, and have sides of at least {LEAST_SIDE} pixels"
        ).coded("box", width=width, height=height, side=LEAST_SIDE)
    data = read_photo_bytes(path)
    if now.content_of(hashlib.sha256(data).digest()) != content:
        raise PhotoError(path, CHANGED, "it is not as it was indexed; index it again")
    return KnownFile(path, data, content, (width, height))
