"""The seam for what encodes photos: `Workers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from face2vec.encoding.encoder import Encoded, Item
from face2vec.models import LoadedModel
from face2vec.photos.sources import PhotoLike
from face2vec.types import Face, Photo, Unopened


@runtime_checkable
class Workers(Protocol):
    """Encodes photos: `Encoder` in threads and processes, `RayWorkers` on other machines.

    Attributes:
        model: the embedding network.
        max_pixels: photos with more pixels are refused.
    """

    model: LoadedModel
    max_pixels: int

    def read(self, photo: PhotoLike, name: str | None = None) -> Photo:
        """Decode a photo at the scale that the detector needs.

        Raises:
            PhotoError: the photo cannot be read.
        """
        ...

    def stream(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Photo | Unopened | None],
        known: Callable[[Item], Sequence[Face]] | None = None,
        held: Callable[[Item], int] | None = None,
    ) -> Iterator[Encoded[Item]]:
        """Encode many photos, with one `Encoded` per item, in order; see `Encoder.stream`."""
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...
