"""Extraction in processes beside what a library offers: loky's pool.

Photos a second of `ExtractorProcesses` and of a loky pool with the same `Extractor`, and the time
until a pool's first photos are done.

    pip install loky
    python benchmarks/alternatives.py LFW
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor
from pathlib import Path

from common import arguments, publish, table

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding import workers
from face2vec.encoding.extract import Extractor, Wanted
from face2vec.models.store import load_model
from face2vec.runtime.select import Runtime
from face2vec.types import Unopened

PACKAGES = ("face2vec", "loky", "numpy")
PHOTOS, CHUNK, THREADS, ROUNDS = 400, 8, 2, 5

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


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("lfw", type=Path)
    given = parser.parse_args()
    publish(
        "alternatives",
        f"{PHOTOS} LFW photos in processes",
        processes_table(given.lfw),
        "python benchmarks/alternatives.py LFW",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
