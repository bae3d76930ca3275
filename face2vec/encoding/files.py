"""Encodes photos and videos: a video is the photos of its frames, gathered into one result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from face2vec.encoding.encoder import Encoded, Item
from face2vec.encoding.seam import Workers
from face2vec.encoding.tracks import Tracks
from face2vec.errors import PhotoError
from face2vec.photos.video import Video, VideoFrame
from face2vec.types import Face, Photo, Unopened


class Gatherer(Protocol):
    """Takes the faces of a video frame by frame; `Tracks` is one."""

    def add(self, time: float, is_cut: bool, faces: Sequence[Face]) -> None:
        """Add the faces of the next frame, at this time in seconds."""
        ...

    def faces(self) -> tuple[Face, ...]:
        """The faces of the video."""
        ...


@dataclass(eq=False)
class _Part(Generic[Item]):
    """A photo, a frame of a video, or the end of a video.

    Attributes:
        item: what it belongs to.
        video: the video, or None for a photo.
        frame: the frame, or None at the end.
        error: why the video could not be opened or read.
    """

    item: Item
    video: Video | None = None
    frame: VideoFrame | None = None
    error: PhotoError | None = None


def stream_files(
    encoder: Workers,
    items: Iterable[Item],
    read: Callable[[Item], Photo | Unopened | None],
    video_of: Callable[[Item], Video | None],
    *,
    gatherer: Callable[[Item], Gatherer] = lambda _: Tracks(),
    known: Callable[[Item, float | None], Sequence[Face]] | None = None,
    on_frame: Callable[[Item, float], None] = lambda *_: None,
) -> Iterator[Encoded[Item]]:
    """As `Encoder.stream`, and with videos among the items: one `Encoded` per item, in order.

    The frames of a video are decoded in the calling thread, one after the other, and encoded in all
    threads like photos.

    Args:
        encoder: the encoder.
        items: see `Encoder.stream`.
        read: see `Encoder.stream`; for photos only.
        video_of: returns the video of an item, or None for a photo; called in the calling thread. A
            `PhotoError` becomes the error of the item.
        gatherer: returns what makes the faces of a video from those of its frames.
        known: see `Encoder.stream`; called with the time of a frame, or None for a photo.
        on_frame: called after each frame with its time in seconds.
    """

    def parts() -> Iterator[_Part[Item]]:
        for item in items:
            video: Video | None = None
            try:
                video = video_of(item)
                for frame in video or ():
                    yield _Part(item, video, frame)
            except PhotoError as error:
                yield _Part(item, video, error=error)
            else:
                yield _Part(item, video)

    def read_part(part: _Part[Item]) -> Photo | Unopened | None:
        if part.error is not None:
            raise part.error
        if part.frame is not None:
            assert part.video is not None
            return encoder.read(part.frame.image, part.video.name)
        return read(part.item) if part.video is None else None

    def known_in(part: _Part[Item]) -> Sequence[Face]:
        assert known is not None
        return known(part.item, None if part.frame is None else part.frame.time)

    stream = encoder.stream(
        parts(),
        read_part,
        None if known is None else known_in,
        lambda part: 0 if part.frame is None else part.frame.image.nbytes,
    )
    gathered: Gatherer | None = None
    size, failed = (0, 0), None
    for done in stream:
        part = done.item
        if part.video is None:
            result = done.faces, done.width, done.height, done.error, done.damage
            yield Encoded(part.item, *result)
            continue
        if part.frame is not None:
            gathered = gathered or gatherer(part.item)
            failed = failed or done.error
            size = done.width, done.height
            gathered.add(part.frame.time, part.frame.is_cut, done.faces)
            on_frame(part.item, part.frame.time)
            continue
        failed = done.error or failed
        faces = () if gathered is None or failed is not None else gathered.faces()
        yield Encoded(part.item, faces, *size, failed, part.video.damage)
        gathered, size, failed = None, (0, 0), None
