"""A table of faces, one row each: the columns and the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from face2vec.report.matches import LANDMARK_NAMES
from face2vec.types import QualityParts

Kind = Literal["whole", "number", "text", "texts", "flag"]
"""What a column holds: whole numbers, numbers, texts, lists of texts, true and false."""

BOX = ("left", "top", "right", "bottom")
LANDMARKS = tuple(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy")
PARTS = tuple(f"part_{field.name}" for field in fields(QualityParts))
TRACK = ("track_begin", "track_end")
NUMBERS = (*BOX, *LANDMARKS, "confidence", "quality", *PARTS, "time", *TRACK)
COLUMNS: Mapping[str, Kind] = {
    "face_id": "whole",
    "photo": "text",
    "copies": "texts",
    "sha256": "text",
    "width": "whole",
    "height": "whole",
    **dict.fromkeys(NUMBERS, "number"),
    "person": "whole",
    "name": "text",
    "confirmed": "flag",
    "mark": "whole",
}
"""The columns of an exported table besides the embedding. An imported one may lack any of them.

A row with a mark is a face that was marked by hand. It has no embedding, so its numbers are NaN.
"""

EMBEDDING = "embedding"


@dataclass(frozen=True, eq=False)
class Table:
    """Faces and their embeddings.

    Attributes:
        columns: some of ``COLUMNS`` with n values each; None stands for an unknown value.
        embeddings: float32 (n, d); NaN for a face that was marked by hand.
    """

    columns: dict[str, list[Any]]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.embeddings)

    def values(self, name: str) -> list[Any]:
        """The values of a column; None for each face if the table does not have it."""
        return self.columns.get(name, [None] * len(self))

    def without_marks(self) -> Table:
        """The rows that have an embedding, or should have one."""
        kept = [row for row, mark in enumerate(self.values("mark")) if mark is None]
        columns = {name: [values[row] for row in kept] for name, values in self.columns.items()}
        return Table(columns, self.embeddings[kept])

    def rows(self, names: Sequence[str]) -> list[tuple[Any, ...] | None]:
        """For each face the values of several columns; None if one of them is unknown."""
        rows = zip(*(self.values(name) for name in names), strict=True)
        return [None if None in row else row for row in rows]
