"""The seam for what finds the nearest faces of a gallery: `FaceSearch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from face2vec.gallery.reader import Snapshot
from face2vec.index.policy import Measured

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Nearest(NamedTuple):
    """The most similar faces of each query.

    Attributes:
        similarities: cosines float32 (m,), m ≤ k, of each query, most similar first.
        ids: numbers of the faces, int64 (m,), of each query.
        total: number of faces in the index.
        embeddings: float32 (m, d) of the ids that were found, each once and ascending, if they were
            read for this; otherwise None.
    """

    similarities: list[NDArray[np.float32]]
    ids: list[NDArray[np.int64]]
    total: int
    embeddings: NDArray[np.float32] | None = None


class IndexFacts(NamedTuple):
    """What `Face2Vec.info` tells of an index.

    Attributes:
        kind: the kind of index.
        bytes: its size on this machine, 0 if it is elsewhere.
        measured: how much it finds, None if its search is exact or elsewhere.
    """

    kind: str
    bytes: int
    measured: Measured | None = None


@runtime_checkable
class FaceSearch(Protocol):
    """Finds the nearest faces of one gallery; `GalleryIndex` and `ClusterSearch` do."""

    def nearest(self, now: Snapshot, queries: NDArray[np.float32], k: int) -> Nearest:
        """The most similar faces of each query, with their exact similarities.

        Args:
            now: the state of the gallery that is searched, or a newer one.
            queries: float32 (n, d) of unit length.
            k: maximum number of faces per query.
        """
        ...

    def save(self) -> None:
        """Bring the index up to date with the gallery, and store it."""
        ...

    def rebuild(self) -> None:
        """Build the index again from the embeddings of the gallery."""
        ...

    def recover(self) -> None:
        """Finish what a killed writer has left undone; the caller has the right to write."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with the index, one sentence each; empty if it is sound."""
        ...

    def facts(self, now: Snapshot) -> IndexFacts:
        """The kind and the size of the index for a state of the gallery."""
        ...
