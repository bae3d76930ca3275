"""Two parts of this project beside what a library offers: loky's pool and FAISS's IndexShards.

Extraction in processes: photos a second of `ExtractorProcesses` and of a loky pool with the same
`Extractor`, and the time until a pool's first photos are done. Graphs of an HNSW index: one query
and a hundred, by `Hnsw` and by ``faiss.IndexShards`` over the same two graphs, in turn.

    pip install loky
    python benchmarks/alternatives.py LFW
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, publish, table

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding import workers
from face2vec.encoding.extract import Extractor, Wanted
from face2vec.models.store import load_model
from face2vec.runtime.select import Runtime
from face2vec.types import Unopened

PACKAGES = ("face2vec", "loky", "faiss-cpu", "numpy")
PHOTOS, CHUNK, THREADS, ROUNDS = 400, 8, 2, 5
FACES, DIMENSION, QUERIES = 60_000, 256, 200

_extractor: Extractor | None = None


def extract_here(chunk: list[Wanted]) -> int:
    """What a process of the loky pool does; its extractor is loaded once."""
    global _extractor
    if _extractor is None:
        _extractor = new_extractor()
    return len(_extractor.extract(chunk))


def new_extractor() -> Extractor:
    runtime = Runtime("onnxruntime", threads=THREADS)
    return Extractor(DetectorSettings(), load_model("mini").description, runtime)


def by_loky(chunks: list[list[Wanted]]) -> tuple[float, float]:
    """(seconds to the first chunk, seconds for all) with a new pool."""
    from loky import get_reusable_executor

    started = time.perf_counter()
    pool: Executor = get_reusable_executor(THREADS, reuse=False, env={"OPENBLAS_NUM_THREADS": "1"})
    results = pool.map(extract_here, chunks)
    next(results)
    first = time.perf_counter() - started
    for _ in results:
        pass
    seconds = time.perf_counter() - started
    pool.shutdown()
    return first, seconds


def by_face2vec(chunks: list[list[Wanted]]) -> tuple[float, float]:
    """The same with the processes of a stream, started at once."""
    from concurrent.futures import ThreadPoolExecutor

    here = new_extractor()
    started = time.perf_counter()
    with (
        workers.ExtractorProcesses(here, THREADS) as processes,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        results = pool.map(processes.extract, chunks)
        next(iter(results))
        first = time.perf_counter() - started
        for _ in results:
            pass
        seconds = time.perf_counter() - started
    return first, seconds


def processes_table(lfw: Path) -> str:
    photos = sorted(lfw.rglob("*.jpg"))[:PHOTOS]
    wanted = [Wanted(Unopened(path.read_bytes(), path.name)) for path in photos]
    chunks = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
    workers.START_AFTER = 0.0
    ways = {"face2vec": by_face2vec, "loky": by_loky}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(way(chunks))
    rows = [
        [name, f"{statistics.median(t[0] for t in taken):.2f} s",
         f"{len(photos) / statistics.median(t[1] for t in taken):.0f}"]
        for name, taken in times.items()
    ]  # fmt: skip
    return table((f"{THREADS} processes", "first photos after", "photos a second"), rows)


def graphs_table() -> str:
    import faiss

    from face2vec.index import hnsw

    hnsw.FACES_PER_GRAPH = FACES // 2
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((FACES + QUERIES, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    faces, queries = vectors[:FACES], vectors[FACES:]
    mine = hnsw.Hnsw.prepare(DIMENSION, FACES)
    mine.add(np.arange(FACES), faces)
    shards = faiss.IndexShards(DIMENSION, True, False)
    for part in mine.parts:
        faiss.downcast_index(part.index).hnsw.efSearch = hnsw.EF_SEARCH
        shards.add_shard(part)
    ways: dict[str, Any] = {
        "face2vec": partial(mine.search, wanted=10), "IndexShards": lambda q: shards.search(q, 10)
    }  # fmt: skip
    single: dict[str, list[float]] = {name: [] for name in ways}
    batch: dict[str, list[float]] = {name: [] for name in ways}
    for row in range(QUERIES):
        for name, search in ways.items():
            started = time.perf_counter()
            search(queries[row : row + 1])
            single[name].append(time.perf_counter() - started)
    for _ in range(20):
        for name, search in ways.items():
            started = time.perf_counter()
            search(queries[:100])
            batch[name].append(time.perf_counter() - started)
    same = np.mean([np.isin(a, b).mean() for a, b in zip(
        mine.search(queries, 10)[1], shards.search(queries, 10)[1], strict=True)])  # fmt: skip
    rows = [
        [name, f"{1e3 * statistics.median(single[name]):.2f} ms",
         f"{1e3 * statistics.median(batch[name]):.1f} ms"]
        for name in ways
    ]  # fmt: skip
    head = ("two graphs", "one query", "a hundred queries")
    return f"{table(head, rows)}\n\n{same:.1%} of the faces found are the same."


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("lfw", type=Path)
    given = parser.parse_args()
    body = f"{processes_table(given.lfw)}\n\n{graphs_table()}"
    publish(
        "alternatives",
        f"{PHOTOS} LFW photos in processes; {FACES:,} faces of dimension {DIMENSION} in two graphs",
        body,
        "python benchmarks/alternatives.py LFW",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
