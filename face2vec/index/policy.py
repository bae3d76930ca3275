"""Which kind of index a gallery gets, by one rule; known without loading FAISS."""

from __future__ import annotations

import os
from pathlib import Path

from face2vec.errors import SettingsError

KINDS = ("exact", "hnsw", "ivf", "ivfpq")

# The largest gallery whose scan is quick: 100,000 faces of 512 numbers, read from memory
# in about 15 ms on two cores for one query, 7 ms a query in batches.
EXACT_BYTES = 100_000 * 512 * 4
# Of a million faces of 512 numbers IVF-PQ finds more of the ten nearest than HNSW (0.979, 0.924) in
# less time (2.9 ms a query, 6.9), and takes 146 MiB instead of 2,220; of 100,000 HNSW finds more
# (0.999, 0.994).
GRAPH_BYTES = 2 * EXACT_BYTES
HNSW_LINKS = 32
HNSW_BYTES = 8 * HNSW_LINKS + 32  # a face beside its vector: links, level and id
# FAISS asks for 39 examples a centroid, and there are 256 of them in each part of a code.
EXAMPLES_A_CENTROID = 40
IVF_FACES_LEAST = 256 * EXAMPLES_A_CENTROID

_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container on Linux


def choose_kind(count: int, dimension: int, memory_bytes: int, wanted: str = "auto") -> str:
    """The one rule by which the kind of an index is chosen.

    ``exact`` while the vectors take up to ``EXACT_BYTES``; above that ``hnsw`` up to
    ``GRAPH_BYTES``, if it takes no more than half of the memory; above that ``ivfpq``.
    Another kind can be asked for, but ``ivf`` and ``ivfpq`` learn from the faces and are
    ``exact`` while there are fewer than ``IVF_FACES_LEAST``.

    Args:
        count: number of faces.
        dimension: length of an embedding.
        memory_bytes: memory of the machine, see ``available_memory``.
        wanted: ``"auto"``, or the kind asked for.
    """
    if wanted not in ("auto", *KINDS):
        raise SettingsError(f"No index is called {wanted!r}. Choose auto, {', '.join(KINDS)}.")
    if wanted != "auto":
        return "exact" if wanted.startswith("ivf") and count < IVF_FACES_LEAST else wanted
    if count * dimension * 4 <= EXACT_BYTES:
        return "exact"
    graph = count * (dimension * 4 + HNSW_BYTES)
    if count * dimension * 4 <= GRAPH_BYTES and graph <= memory_bytes // 2:
        return "hnsw"
    return "ivfpq" if count >= IVF_FACES_LEAST else "exact"


def available_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's if less."""
    memory = 4 << 30  # where the system does not say
    # Windows has no sysconf, and not every system has these names.
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(_MEMORY_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or "max"
        return memory
