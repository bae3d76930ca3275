"""FAISS, and the threads that share one query.

FAISS parallelises over queries: one query runs on one core. The kinds of index cut a query into
parts instead and run them here. The threads are this project's own. Those of OpenMP and BLAS keep
spinning for some milliseconds after each task and would take the cores from the next step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from face2vec.forks import abandon, run_after_fork

faiss: Any = _faiss  # its type hints are incomplete
Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Batches = Iterable[tuple[Ids, Vectors]]


def check_type(index: Any, outer: Any, inner: Any = None) -> None:
    """Check the type of a FAISS index, which may come from a file, and of the one inside it.

    Args:
        index: the index.
        outer: the class that it must have.
        inner: the class that the index inside it must have; None if there is none.

    Raises:
        TypeError: it has another class.
    """
    if not isinstance(index, outer):
        raise TypeError(f"a {type(index).__name__} is not a {outer.__name__}")
    if inner is not None:
        check_type(faiss.downcast_index(index.index), inner)


def run_parts(work: Callable[..., None], parts: Sequence[tuple[int, ...]]) -> None:
    """Call ``work`` with each tuple of arguments, each in a thread of its own.

    Inside these threads FAISS uses no further threads.
    """
    if len(parts) == 1:
        work(*parts[0])
        return
    others = [_workers().submit(work, *part) for part in parts[1:]]
    try:
        with one_thread():
            work(*parts[0])
    finally:
        for other in others:
            other.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS uses no further threads in a `with` block, which holds for the calling thread only."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "search", partial(faiss.omp_set_num_threads, 1))


@run_after_fork
def _renew() -> None:
    """Use new threads, and none of OpenMP, whose threads in the parent this one would wait for."""
    if _workers.cache_info().currsize:
        abandon(_workers())  # deleting it would wake threads that are not there
    _workers.cache_clear()
    faiss.omp_set_num_threads(1)


def merge_best(
    similarities: Sequence[Vectors], ids: Sequence[Ids], wanted: int
) -> tuple[Vectors, Ids]:
    """The best of several searches, most similar first; of equal ones those of the first search.

    Args:
        similarities: float32 (n, k) of each search; k may differ.
        ids: int64 (n, k) of each, −1 for missing faces.
        wanted: how many to keep.

    Returns:
        float32 (n, wanted) and int64 (n, wanted), or fewer columns if there are no more; missing
        faces at the end.
    """
    every, numbers = np.concatenate(similarities, axis=1), np.concatenate(ids, axis=1)
    every[numbers < 0] = -np.inf
    if wanted < every.shape[1]:  # sorting all of them would take several times as long
        some = np.sort(np.argpartition(every, -wanted, axis=1)[:, -wanted:], axis=1)
        every = np.take_along_axis(every, some, axis=1)
        numbers = np.take_along_axis(numbers, some, axis=1)
    order = np.argsort(-every, axis=1, kind="stable")
    return np.take_along_axis(every, order, axis=1), np.take_along_axis(numbers, order, axis=1)
