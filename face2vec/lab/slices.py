"""Figures of some of the photos: those of one slice, beside the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.lab.rates import Counts, Draws, Embeddings, Numbers, Rate, counted

FEWEST_PEOPLE, FEWEST_PAIRS = 10, 30
"""With fewer people or fewer pairs of one person a slice says nothing."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice.

    Attributes:
        attribute: what the photos were divided by.
        value: of this slice.
        photos: in it.
        people: who have a pair with one of its photos.
        pairs: genuine pairs with one of its photos.
        tar: share of the genuine pairs that are accepted.
        recall: share of the slice's photos whose most similar photo is of the same person.
        far: share of the pairs of two people, both photos of the slice, that are accepted.
        weak: whether its figures are worse than those of the whole, beyond chance: TAR's interval
            is wholly below the TAR of the whole, or FAR's wholly above the FAR of the whole.
        small: whether there is too little of it to say.
    """

    attribute: str
    value: str
    photos: int
    people: int
    pairs: int
    tar: Rate
    recall: Rate
    far: Rate
    weak: bool
    small: bool

    @property
    def remark(self) -> str:
        """What to mind, in a few words, or nothing."""
        return "too small to say" if self.small else "weak" if self.weak else ""

    def figures(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "attribute": self.attribute,
            "value": self.value,
            "photos": self.photos,
            "people": self.people,
            "genuine_pairs": self.pairs,
            "tar": self.tar.figures(),
            "recall_at_1": self.recall.figures(),
            "far": self.far.figures(),
            "weak": self.weak,
            "too_small": self.small,
        }


def sliced(
    embeddings: Embeddings,
    people: Numbers,
    threshold: float,
    far: float,
    slices: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    draws: Draws,
) -> tuple[Slice, ...]:
    """Compare the photos of each slice with all photos, at one threshold.

    Args:
        embeddings: float32 (n, d) of unit length; a row of NaN where no face was found.
        people: int64 (n,), 0…people − 1.
        threshold: lowest similarity that is accepted, the same for all.
        far: of the whole at the threshold.
        slices: for each attribute, its values and which photos, bool (n,), have them; what no
            photo has is left out.
        draws: of the people.
    """
    everybody = draws.tar(counted(embeddings, embeddings, people, threshold)).value
    found = []
    for attribute, values in slices.items():
        for value, some in values.items():
            if not some.any():
                continue
            counts = counted(embeddings, embeddings, people, threshold, some)
            within = counted(embeddings, embeddings, people, threshold, some, some)
            found.append(_slice(attribute, value, counts, within, draws, everybody, far))
    return tuple(found)


def _slice(
    attribute: str,
    value: str,
    counts: Counts,
    within: Counts,
    draws: Draws,
    everybody: float,
    far: float,
) -> Slice:
    tar, among = draws.tar(counts), draws.far(within)
    pairs = int(counts.genuine.sum())
    small = counts.people < FEWEST_PEOPLE or pairs < FEWEST_PAIRS
    return Slice(
        attribute,
        value,
        int(counts.queries.sum()) + counts.missed,
        counts.people,
        pairs,
        tar,
        draws.recall(counts),
        among,
        weak=not small and (tar.high < everybody or among.low > far),
        small=small,
    )
