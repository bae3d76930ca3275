"""Which kind of index a gallery gets, by one rule. Does not load FAISS."""

from __future__ import annotations

from typing import NamedTuple

from face2vec.errors import SettingsError

KIND_NAMES = ("flat", "pq")
CHOICES = ("auto", *KIND_NAMES)
FORMER_KINDS = ("hnsw", "ivf", "ivfpq")
FORMER_NAMES = {"exact": "flat", **dict.fromkeys(FORMER_KINDS, "pq")}

# The largest gallery whose scan is fast: 50,000 faces of dimension 512, which take about 3 ms on
# two cores for one query, 1.5 ms per query in batches.
FLAT_BYTES = 50_000 * 512 * 4
PQ_FACES_LEAST = 2048  # ``pq`` learns from them
OUTGROWN = 2
"""A gallery that has grown this many times gets codes that are learned again."""


class Measured(NamedTuple):
    """What was measured of an approximate index when it was built.

    Attributes:
        recall: share of the ten most similar other faces that a search of the gallery finds.
        queries: how many of the gallery's faces were searched for that.
        proposals: how many faces are proposed for the ten most similar: their embeddings are read.
        candidates: how many faces of each shard are compared by their long codes for that.
        faces: how many faces the index had.
    """

    recall: float
    queries: int
    proposals: int
    candidates: int
    faces: int

    def is_outgrown(self, count: int) -> bool:
        """Whether an index of now ``count`` faces should be built again."""
        return count >= OUTGROWN * self.faces


def canonical(kind: str) -> str:
    """The name of a kind of index, or ``"auto"``; a former name becomes the present one.

    Raises:
        SettingsError: there is no such kind.
    """
    kind = FORMER_NAMES.get(kind, kind)
    if kind not in CHOICES:
        raise SettingsError(f"unknown kind of index {kind!r}; choose one of {', '.join(CHOICES)}")
    return kind


def choose_kind(count: int, dimension: int, wanted: str = "auto") -> str:
    """The kind of index for a gallery.

    ``flat`` while the vectors take up to ``FLAT_BYTES``, and ``pq`` above that. ``pq`` learns from
    the faces and is replaced by ``flat`` below ``PQ_FACES_LEAST`` faces.

    Args:
        count: number of faces.
        dimension: length of an embedding.
        wanted: ``"auto"``, or the kind asked for.

    Raises:
        SettingsError: there is no such kind.
    """
    wanted = canonical(wanted)
    if wanted == "auto":
        wanted = "flat" if count * dimension * 4 <= FLAT_BYTES else "pq"
    return "flat" if count < PQ_FACES_LEAST else wanted
