"""Search: face2vec by embedding against bare FAISS of the same kind; recall, memory, build.

    python benchmarks/search.py --sizes 10000 100000 1000000

Embeddings are synthetic: each person a random unit vector, each face that vector plus noise,
made so that two faces of a person have a cosine of 0.6; 10 faces a person, 512 numbers. Queries
are further faces of the same people. Recall@10 is the share of the ten truly most similar faces
that are among the ten found. Needs about 6 GB of memory and of disk for a million faces.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from common import arguments, publish, seconds, table

PACKAGES = ("face2vec", "faiss-cpu", "numpy")
DIMENSION = 512
FACES_A_PERSON = 10
COSINE = 0.6


def faces(count: int, seed: int, people: int) -> np.ndarray:
    """(count, 512) unit vectors of so many people in turn."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((people, DIMENSION), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    out = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, 50_000):
        rows = np.arange(start, min(start + 50_000, count))
        noise = rng.standard_normal((len(rows), DIMENSION), np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        part = COSINE**0.5 * centres[rows % people] + (1 - COSINE) ** 0.5 * noise
        out[rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def enrol(folder: Path, embeddings: np.ndarray) -> None:
    """A gallery of made-up photos, one face each."""
    from face2vec.gallery import INDEXED, Entry, Gallery
    from face2vec.records import Face

    fingerprint = {
        "cascade": 1,
        "detector": {},
        "model": {"key": "synthetic", "origin": "synthetic"},
    }
    points = ((1.0, 1.0),) * 5
    with Gallery.create(folder, fingerprint, DIMENSION) as gallery, gallery.writing():
        for start in range(0, len(embeddings), 10_000):
            gallery.record(
                Entry("/made/up", f"{row:08d}.jpg", 1, 1, row.to_bytes(32, "big"), 9, 9, INDEXED,
                      faces=(Face((0.0, 0.0, 9.0, 9.0), points, 1.0, embeddings[row]),))
                for row in range(start, min(start + 10_000, len(embeddings)))
            )  # fmt: skip


def median_ms(do, queries: np.ndarray, repeats: int) -> float:
    """Median milliseconds of one search each."""
    return 1000 * statistics.median(
        seconds(partial(do, queries[n % len(queries)][None])) for n in range(repeats)
    )


def measure(
    count: int, kinds: list[str], rounds: int, keep: Path | None, build_only: bool
) -> tuple[list[list[str]], list[list[str]]]:
    import faiss

    from face2vec.engine import Face2Vec

    people = count // FACES_A_PERSON
    embeddings, queries = faces(count, 1, people), faces(1000, 2, people)[:100]
    quality, speed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = (keep or Path(name)) / str(count)
        if not folder.exists():
            enrol(folder, embeddings)
        flat = faiss.IndexFlatIP(DIMENSION)
        flat.add(embeddings)
        truth = flat.search(queries, 10)[1] + 1  # a gallery numbers its faces from one
        del flat, embeddings
        gc.collect()
        for kind in kinds:
            index_file, kept = folder / "index.faiss", folder / f"{kind}.faiss"
            index_file.unlink(missing_ok=True)
            if kept.exists():
                os.link(kept, index_file)
            with Face2Vec(folder, index=kind) as engine:
                if not kept.exists():
                    took = seconds(engine.rebuild)
                    kept.with_suffix(".txt").write_text(f"{took:.1f}", encoding="ascii")
                    os.link(index_file, kept)
                built = float(kept.with_suffix(".txt").read_text(encoding="ascii"))
                if build_only:
                    continue
                size = (folder / "index.faiss").stat().st_size
                found = engine.search(queries, k=10)
                hits = [
                    len({m.face.id for m in one.matches} & set(row.tolist()))
                    for one, row in zip(found, truth, strict=True)
                ]
                index = engine._index_of(engine._readable()).current()
                if index.kind != kind:
                    continue
                bare, wanted = index._index, 10
                breadth = index._breadth(10 if kind != "ivfpq" else 100)
                if kind == "ivfpq":
                    wanted = 100

                def faiss_alone(q, bare=bare, wanted=wanted, breadth=breadth):
                    return bare.search(q, wanted, params=breadth)

                def ours(q, engine=engine):
                    return engine.search(q, k=10)

                repeats = 40 if count >= 1_000_000 and kind == "exact" else 200
                ours(queries[:1]), faiss_alone(queries[:1])
                single = [
                    (median_ms(ours, queries, repeats), median_ms(faiss_alone, queries, repeats))
                    for _ in range(rounds)
                ]
                batches = [
                    (seconds(lambda: ours(queries)), seconds(lambda: faiss_alone(queries)))
                    for _ in range(max(rounds, 5))
                ]
            quality.append(
                [f"{count:,}", kind, f"{np.mean(hits) / 10:.3f}", f"{size / 2**20:,.0f} MiB",
                 f"{built:.1f} s"]
            )  # fmt: skip
            mine, theirs = (statistics.median(pair[i] for pair in single) for i in (0, 1))
            more = statistics.median(a - b for a, b in single)
            slower = statistics.median(a / b for a, b in batches) - 1
            speed.append(
                [f"{count:,}", kind, f"{theirs:.2f}", f"{mine:.2f}", f"{more:+.2f}",
                 f"{1000 * statistics.median(b for _, b in batches):.0f}",
                 f"{1000 * statistics.median(a for a, _ in batches):.0f}", f"{slower:+.1%}"]
            )  # fmt: skip
            print(quality[-1], speed[-1], flush=True)
    return quality, speed


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=["exact", "hnsw", "ivf", "ivfpq"])
    parser.add_argument("--name", default="search")
    parser.add_argument("--keep", type=Path, help="keep galleries and indexes in this folder")
    parser.add_argument("--build-only", action="store_true", help="build what --keep lacks")
    given = parser.parse_args()
    quality: list[list[str]] = []
    speed: list[list[str]] = []
    for count in given.sizes:
        kinds = [k for k in given.kinds if count >= 100_000 or not k.startswith("ivf")]
        more_quality, more_speed = measure(count, kinds, given.rounds, given.keep, given.build_only)
        quality += more_quality
        speed += more_speed
    if given.build_only:
        return
    body = "\n\n".join(
        (
            table(["faces", "index", "recall@10", "index on disk and in memory", "build"], quality),
            table(["faces", "index", "FAISS, one query, ms", "face2vec, ms", "difference, ms",
                   "FAISS, 100 queries, ms", "face2vec, ms", "face2vec slower by"], speed),
            "One query: median of single searches. face2vec returns matches with photo, box and "
            "landmarks; FAISS returns numbers. `ivfpq` in FAISS is asked for the 100 candidates "
            "that face2vec ranks again by the stored embeddings.",
        )
    )  # fmt: skip
    publish(given.name, "Search", body, f"python benchmarks/search.py --sizes "
            f"{' '.join(map(str, given.sizes))}", PACKAGES)  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
