"""Readmits photos: lifts the blocks of forgotten and ignored faces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from face2vec.encoding.encoder import Encoder
from face2vec.gallery.rows import Readmitted
from face2vec.gallery.writer import Writer
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.formats import read_photo_bytes


def readmit(
    found: Iterable[FoundPhoto], writer: Writer, encoder: Callable[[], Encoder]
) -> Readmitted:
    """Lift the blocks of photos, and add their blocked faces if the gallery has the photo.

    A photo that the gallery does not have is only unblocked, and added when it is indexed.

    Args:
        found: the photos.
        writer: writes to the gallery.
        encoder: returns the encoder; called only if a photo must be encoded.

    Raises:
        PhotoError: a photo cannot be read.
    """
    photos = faces = 0
    for photo in found:
        data = read_photo_bytes(photo.full)
        sha256 = hashlib.sha256(data).digest()
        if not writer.people.readmit(sha256):
            continue
        photos += 1
        if writer.content_of(sha256) is not None:
            opened = encoder().read(data, str(photo.full))
            faces += writer.add_missing(sha256, encoder().encode(opened))
    return Readmitted(photos, faces)
