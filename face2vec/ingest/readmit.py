"""Readmits photos and videos: lifts the blocks of forgotten and ignored faces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from face2vec.encoding.encoder import Encoder
from face2vec.encoding.files import stream_files
from face2vec.gallery.rows import Readmitted
from face2vec.gallery.writer import Writer
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.formats import file_sha256
from face2vec.photos.video import Video, is_video
from face2vec.types import Face, Unopened


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
        sha256 = file_sha256(photo.place)
        if not writer.people.readmit(sha256):
            continue
        photos += 1
        if writer.content_of(sha256) is not None:
            faces += writer.add_missing(sha256, _encoded(photo, encoder()))
    return Readmitted(photos, faces)


def _encoded(found: FoundPhoto, encoder: Encoder) -> Sequence[Face]:
    path = found.place
    (done,) = stream_files(
        encoder,
        [found],
        lambda _: Unopened(path),
        lambda _: Video(path, max_pixels=encoder.max_pixels) if is_video(path) else None,
    )
    if done.error is not None:
        raise done.error
    return done.faces
