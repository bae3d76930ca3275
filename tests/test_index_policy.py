from __future__ import annotations

import os
from pathlib import Path

import pytest

from face2vec.errors import SettingsError
from face2vec.index import policy as index_kind
from face2vec.index.policy import FLAT_BYTES, IVF_FACES_LEAST, available_memory, choose_kind


@pytest.mark.parametrize(
    ("count", "dimension", "gib", "wanted", "expected"),
    [
        (0, 512, 8, "auto", "flat"),
        (100_000, 512, 8, "auto", "flat"),
        (100_001, 512, 8, "auto", "hnsw"),
        (400_000, 128, 8, "auto", "flat"),
        (200_000, 512, 8, "auto", "hnsw"),
        (200_000, 512, 0.8, "auto", "ivfpq"),
        (200_001, 512, 8, "auto", "ivfpq"),
        (800_000, 128, 2, "auto", "hnsw"),
        (800_000, 128, 1, "auto", "ivfpq"),
        (100_000_000, 512, 64, "auto", "ivfpq"),
        (1_000_000, 512, 8, "flat", "flat"),
        (10, 512, 8, "hnsw", "hnsw"),
        (10, 512, 8, "ivf", "flat"),
        (IVF_FACES_LEAST - 1, 512, 8, "ivfpq", "flat"),
        (IVF_FACES_LEAST, 512, 8, "ivfpq", "ivfpq"),
        (IVF_FACES_LEAST, 512, 8, "ivf", "ivf"),
    ],
)
def test_choose_kind(count: int, dimension: int, gib: float, wanted: str, expected: str) -> None:
    assert choose_kind(count, dimension, int(gib * 2**30), wanted) == expected


def test_choose_kind_chooses_only_kinds_that_can_be_built() -> None:
    dimension = FLAT_BYTES // 4 // 100
    assert choose_kind(101, dimension, 1, "auto") == "flat"


def test_choose_kind_refuses_an_unknown_kind() -> None:
    with pytest.raises(SettingsError, match=r"'flat8'; choose one of auto, flat, hnsw, ivf, ivfpq"):
        choose_kind(1, 1, 1, "flat8")


def test_available_memory_is_no_more_than_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = available_memory()
    if hasattr(os, "sysconf"):
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= machine
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(index_kind, "_MEMORY_LIMIT", limit)
    assert available_memory() == machine
    limit.write_text("max\n")
    assert available_memory() == machine
    limit.write_text("1000000\n")
    assert available_memory() == 1_000_000


@pytest.mark.parametrize("names", [None, {"SC_PAGE_SIZE": 30}])
def test_available_memory_is_assumed_where_the_system_does_not_say(
    names: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(index_kind, "_MEMORY_LIMIT", tmp_path / "none")
    if names is None:  # Windows
        monkeypatch.delattr(os, "sysconf_names", raising=False)
    else:
        monkeypatch.setattr(os, "sysconf_names", names, raising=False)
    assert available_memory() == 4 << 30
