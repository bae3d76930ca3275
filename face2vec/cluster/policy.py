"""Which index a collection of Milvus has, and how it is searched: one rule."""

from __future__ import annotations

from typing import Any, NamedTuple

EXACT_BELOW = 50_000
"""A collection with fewer faces has no lists: a scan takes some milliseconds."""
CLUSTERS = 1024
"""Lists of a segment. Milvus builds an index for each segment, of 250,000 faces or so."""
PROBED = 614
"""Lists that a search looks at.

Photos of one person are spread over many lists. Of the nearest faces in a segment of half a million
with the spectrum of `mini`, 256 lists hold 95 %, 410 hold 98 %, and these hold 99.6 %.
"""
NARROW_SHARE = 0.05
"""A filter that leaves a smaller share of the faces has more lists looked at."""
EXACT_FACES = 200_000
"""A filter that leaves no more faces than this is searched without the index."""
RERANKED = 4
"""Proposals for each match that is asked for; their exact cosines decide."""


class IndexRule(NamedTuple):
    """An index of a collection.

    Attributes:
        kind: its name in Milvus: ``"FLAT"``, or ``"IVF_SQ8"`` with one byte per value.
        clusters: its number of lists; 0 for ``"FLAT"``.
    """

    kind: str
    clusters: int = 0

    @property
    def built_with(self) -> dict[str, Any]:
        """The parameters that it is built with."""
        return {"nlist": self.clusters} if self.clusters else {}

    def searched_with(self, share: float = 1.0) -> dict[str, Any]:
        """The parameters that it is searched with.

        Args:
            share: of the faces that a filter leaves, 0…1.
        """
        if not self.clusters:
            return {}
        return {"nprobe": self.clusters if share < NARROW_SHARE else min(PROBED, self.clusters)}


def index_rule(faces: int) -> IndexRule:
    """The index for a number of faces."""
    return IndexRule("FLAT") if faces < EXACT_BELOW else IndexRule("IVF_SQ8", CLUSTERS)


def scans_exactly(remaining: int, share: float) -> bool:
    """Whether what a filter leaves is compared without the index.

    Args:
        remaining: number of faces that it leaves.
        share: of all faces, 0…1.
    """
    return share < NARROW_SHARE and remaining <= EXACT_FACES
