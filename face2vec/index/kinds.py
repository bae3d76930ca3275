"""The seam for kinds of index: the `IndexKind` protocol and its implementations by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from face2vec.index.flat import Flat
from face2vec.index.parallel import Batches, Ids, Vectors
from face2vec.index.policy import Measured
from face2vec.index.pq import Pq


class IndexKind(Protocol):
    """Faces inside FAISS, in one way of storing and searching them.

    It is made with the FAISS indexes of ``parts``, which is also how it is loaded from a file.

    Attributes:
        dimension: length of an embedding.
        measured: what `settle` measured; None if the search is exact.
    """

    dimension: int
    measured: Measured | None

    def __init__(self, parts: Sequence[Any]) -> None: ...

    @classmethod
    def prepare(cls, dimension: int, count: int, batches: Batches) -> Self:
        """An index without faces, ready for ``count`` faces.

        Args:
            dimension: length of an embedding.
            count: how many faces will be added.
            batches: those faces, ids int64 (n,) and embeddings float32 (n, d), for kinds that
                learn from them.
        """
        ...

    @property
    def parts(self) -> Sequence[Any]:
        """The FAISS indexes that it consists of, to be saved."""
        ...

    def __len__(self) -> int: ...

    def settle(self) -> None:
        """Do what is to be done once after all faces of `prepare` have been added."""
        ...

    def proposals(self, k: int) -> int:
        """How many faces to propose for the k nearest; 0 if the similarities are exact."""
        ...

    def add(self, ids: Ids, embeddings: Vectors) -> None:
        """Add faces: ids int64 (n,), embeddings float32 (n, d)."""
        ...

    def remove(self, ids: Ids) -> None:
        """Remove faces by ids int64 (n,); unknown ids are ignored."""
        ...

    def search(self, queries: Vectors, wanted: int) -> tuple[Vectors, Ids]:
        """The k most similar faces of each query, best first.

        Args:
            queries: float32 (n, d).
            wanted: k.

        Returns:
            Cosines float32 (n, k) and ids int64 (n, k); −1 at the end where fewer are found.
        """
        ...


KINDS: dict[str, type[IndexKind]] = {"flat": Flat, "pq": Pq}
