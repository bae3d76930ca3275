"""Which kind of index a gallery gets, by one rule. Does not load FAISS."""

from __future__ import annotations

import os
from pathlib import Path

from face2vec.errors import SettingsError

KIND_NAMES = ("flat", "hnsw", "ivf", "ivfpq")
CHOICES = ("auto", *KIND_NAMES)
FORMER_NAMES = {"exact": "flat"}
LEARNED = ("ivf", "ivfpq")
"""Kinds that learn from the faces."""

# The largest gallery whose scan is fast: 100,000 faces of dimension 512, which take about 15 ms on
# two cores for one query, 7 ms per query in batches.
FLAT_BYTES = 100_000 * 512 * 4
# Among a million faces of dimension 512, IVF-PQ has a higher recall@10 than HNSW (0.979, 0.924), is
# faster (2.9 ms a query, 6.9) and takes 146 MiB instead of 2,220. Among 100,000, HNSW has the
# higher recall (0.999, 0.994).
HNSW_TOTAL_BYTES = 2 * FLAT_BYTES
HNSW_LINKS = 32
HNSW_BYTES = 8 * HNSW_LINKS + 32  # per face, besides its vector: links, level and id
# FAISS asks for 39 examples per centroid, and a part of a code has 256 centroids.
EXAMPLES_PER_CENTROID = 40
IVF_FACES_LEAST = 256 * EXAMPLES_PER_CENTROID

_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container on Linux


def canonical(kind: str) -> str:
    """The name of a kind of index, or ``"auto"``; a former name becomes the present one.

    Raises:
        SettingsError: there is no such kind.
    """
    kind = FORMER_NAMES.get(kind, kind)
    if kind not in CHOICES:
        raise SettingsError(f"unknown kind of index {kind!r}; choose one of {', '.join(CHOICES)}")
    return kind


def choose_kind(count: int, dimension: int, memory_bytes: int, wanted: str = "auto") -> str:
    """The kind of index for a gallery.

    ``flat`` while the vectors take up to ``FLAT_BYTES``; above that ``hnsw`` up to
    ``HNSW_TOTAL_BYTES``, if it takes at most half of the memory; above that ``ivfpq``. ``ivf`` and
    ``ivfpq`` learn from the faces and are replaced by ``flat`` below ``IVF_FACES_LEAST`` faces.

    Args:
        count: number of faces.
        dimension: length of an embedding.
        memory_bytes: memory of the machine, see `available_memory`.
        wanted: ``"auto"``, or the kind asked for.

    Raises:
        SettingsError: there is no such kind.
    """
    wanted = canonical(wanted)
    vectors = count * dimension * 4
    if wanted == "auto":
        fits = vectors + count * HNSW_BYTES <= memory_bytes // 2
        if vectors <= FLAT_BYTES:
            wanted = "flat"
        else:
            wanted = "hnsw" if vectors <= HNSW_TOTAL_BYTES and fits else "ivfpq"
    return "flat" if wanted in LEARNED and count < IVF_FACES_LEAST else wanted


def available_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the container's if less."""
    memory = 4 << 30  # if the system does not say
    # Windows has no sysconf, and not every system has these names.
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(_MEMORY_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or "max"
        return memory
