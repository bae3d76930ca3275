from __future__ import annotations

import pytest

from face2vec.errors import SettingsError
from face2vec.index.policy import PQ_FACES_LEAST, choose_kind


@pytest.mark.parametrize(
    ("count", "dimension", "wanted", "expected"),
    [
        (0, 512, "auto", "flat"),
        (50_000, 512, "auto", "flat"),
        (50_001, 512, "auto", "pq"),
        (100_000, 256, "auto", "flat"),
        (100_001, 256, "auto", "pq"),
        (100_000_000, 512, "auto", "pq"),
        (99, 1_000_000, "auto", "flat"),
        (1_000_000, 512, "flat", "flat"),
        (PQ_FACES_LEAST - 1, 512, "pq", "flat"),
        (PQ_FACES_LEAST, 512, "pq", "pq"),
        (PQ_FACES_LEAST, 512, "hnsw", "pq"),
        (PQ_FACES_LEAST, 512, "ivf", "pq"),
        (PQ_FACES_LEAST, 512, "ivfpq", "pq"),
        (PQ_FACES_LEAST, 512, "exact", "flat"),
    ],
)
def test_choose_kind(count: int, dimension: int, wanted: str, expected: str) -> None:
    assert choose_kind(count, dimension, wanted) == expected


def test_choose_kind_refuses_an_unknown_kind() -> None:
    with pytest.raises(SettingsError, match=r"'flat8'; choose one of auto, flat, pq"):
        choose_kind(1, 1, "flat8")
