"""Search: face2vec by embedding against bare FAISS of the same kind; recall, memory, build.

    python benchmarks/search.py --sizes 10000 100000 1000000

Embeddings are synthetic: each person a random unit vector, each face that vector plus noise,
made so that two faces of a person have a cosine of 0.6; 10 faces a person, 512 numbers. Queries
are further faces of the same people, a thousand. Recall@10 is the share of the ten truly most
similar faces that are among the ten found, for a hundred of them. Needs about 6 GB of memory and
of disk for a million faces.

Single searches of face2vec and of FAISS take turns, each with a query that neither was asked just
before, so that both find the processor's caches as the other left them, as they do in a program
that has other things to do. Batches take turns, too. A pause is made before each, for FAISS's
threads go on turning for some milliseconds after a search, and none is to pay for another's;
not an idle one, in which the system may put the cores to sleep. A thousand other queries come
first, so that the index is in memory.

Each index is searched twice: mapped from its file by both, and in memory by both, by face2vec with
``index_in_memory=True`` and by FAISS through ``read_index``. The file is the same except for HNSW,
where face2vec makes several graphs and FAISS one. FAISS then gets the sum of face2vec's ef_search.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import arguments, publish, seconds, table

PACKAGES = ("face2vec", "faiss-cpu", "numpy")
TURNS, SLOW_TURNS = (1000, 10), (40, 5)  # single searches, and batches
DIMENSION = 512
FACES_A_PERSON = 10
COSINE = 0.6
PAUSE = 0.005
KINDS = ["flat", "hnsw", "ivf", "ivfpq"]


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
    from face2vec.fingerprint import DetectorFingerprint, Fingerprint, ModelFingerprint
    from face2vec.gallery.gallery import Gallery
    from face2vec.gallery.rows import INDEXED, Entry
    from face2vec.types import Face

    model = ModelFingerprint(
        key="synthetic", origin="synthetic", weights="synthetic", dimension=DIMENSION,
        input_size=1, alignment="margin", template=None, margin=[0, 0],
        standardization=["fixed", 0, 1], channels="RGB", mirror=False,
    )  # fmt: skip
    fingerprint = Fingerprint(DetectorFingerprint(), model)
    points = ((1.0, 1.0),) * 5
    with Gallery.create(folder, fingerprint) as gallery, gallery.write() as writer:
        for start in range(0, len(embeddings), 10_000):
            writer.record(
                Entry("/made/up", f"{row:08d}.jpg", 1, 1, row.to_bytes(32, "big"), 9, 9, INDEXED,
                      faces=(Face((0.0, 0.0, 9.0, 9.0), points, 1.0, embeddings[row]),))
                for row in range(start, min(start + 10_000, len(embeddings)))
            )  # fmt: skip


def after_a_pause(search: Callable[[], object]) -> float:
    """Milliseconds that a search takes."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        pass
    return 1000 * seconds(search)


def in_pairs(ours, theirs, queries: np.ndarray, size: int, most: int) -> np.ndarray:
    """Milliseconds (turns, 2) of searches with ``size`` queries each, by the one and the other.

    In all turns together both are asked the same, but never the same in one turn.
    """
    parts = queries.reshape(-1, size, queries.shape[1])
    turns = min(most, len(parts))
    return np.array(
        [
            [
                after_a_pause(partial(ours, parts[turn])),
                after_a_pause(partial(theirs, parts[(turn + turns // 2) % turns])),
            ]
            for turn in range(turns)
        ]
    )


def read_all(found) -> list:
    """What a caller may want to know of all matches."""
    return [
        (m.rank, m.similarity, m.photo, m.copies, m.face.box, m.face.landmarks)
        for one in found
        for m in one.matches
    ]


def measure(
    count: int, kinds: list[str], rounds: int, keep: Path | None, build_only: bool
) -> tuple[list[list[str]], list[list[str]]]:
    import faiss

    from face2vec.engine import Face2Vec
    from face2vec.index.hnsw import FACES_PER_GRAPH

    people = count // FACES_A_PERSON
    embeddings = faces(count, 1, people)
    queries, others = faces(1000, 2, people), faces(1000, 3, people)
    quality, speed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = (keep or Path(name)) / str(count)
        if not folder.exists():
            enrol(folder, embeddings)
        flat = faiss.IndexFlatIP(DIMENSION)
        flat.add(embeddings)
        truth = flat.search(queries[:100], 10)[1] + 1  # a gallery numbers its faces from one
        del flat, embeddings
        gc.collect()
        for kind in kinds:
            file = built(folder, kind)
            several = kind == "hnsw" and count > FACES_PER_GRAPH
            theirs = built(folder, kind, graphs=1) if several else file
            if build_only:
                continue
            (folder / "index.faiss").unlink(missing_ok=True)
            os.link(file, folder / "index.faiss")
            for hold in (False, True):
                with Face2Vec(folder, index=kind, index_in_memory=hold) as engine:
                    found = engine.search(queries[:100], k=10)
                    bare = alone(theirs, engine, hold)
                    if not hold:
                        ids = [[match.face.id for match in one.matches] for one in found]
                        quality.append(described(count, kind, file, ids, truth))
                        print(quality[-1], flush=True)
                    if not hold and theirs != file:
                        ids = bare(queries[:100])[1].tolist()
                        quality.append(described(count, f"{kind}, one graph", theirs, ids, truth))
                        print(quality[-1], flush=True)
                    where = "memory" if hold else "its file"
                    times = timed(engine, bare, queries, others, rounds)
                    speed.append([f"{count:,}", kind, where, *times])
                    print(speed[-1], flush=True)
    return quality, speed


def built(folder: Path, kind: str, graphs: int | None = None) -> Path:
    """A file with the gallery's index of a kind, and beside it how many seconds that took."""
    from face2vec.engine import Face2Vec
    from face2vec.index import hnsw as index_graph

    kept = folder / f"{kind}{graphs or ''}.faiss"
    if not kept.exists():
        usual = index_graph.FACES_PER_GRAPH
        index_graph.FACES_PER_GRAPH = int(folder.name) // graphs if graphs else usual
        with Face2Vec(folder, index=kind) as engine:
            took = seconds(engine.rebuild)
        index_graph.FACES_PER_GRAPH = usual
        kept.with_suffix(".txt").write_text(f"{took:.1f}", encoding="ascii")
        (folder / "index.faiss").replace(kept)
    return kept


def index_of(engine):
    gallery = engine._session.gallery()
    with gallery.read() as now, engine._session.index().at(now) as index:
        return index


def alone(file: Path, engine, hold: bool) -> Callable[[np.ndarray], object]:
    """FAISS's own search of a file, as broad as that of the engine's index."""
    import faiss

    from face2vec.index.ivf import PQ_PROPOSALS

    index = index_of(engine)
    wanted = PQ_PROPOSALS * 10 if index.kind == "ivfpq" else 10
    breadth = None
    if index.kind == "hnsw":
        breadth = faiss.SearchParametersHNSW(efSearch=index._faces.ef_search(wanted))
    elif index.kind.startswith("ivf"):
        breadth = faiss.SearchParametersIVF(nprobe=index._faces.nprobe(wanted))
    if index.kind == "ivfpq":
        breadth = faiss.SearchParametersPreTransform(index_params=breadth)
    bare = faiss.read_index(str(file), 0 if hold else faiss.IO_FLAG_MMAP_IFC)
    return lambda queries: bare.search(queries, wanted, params=breadth)


def described(
    count: int, kind: str, file: Path, found: list[list[int]], truth: np.ndarray
) -> list[str]:
    """A row of the first table."""
    hits = [len(set(ids) & set(row.tolist())) for ids, row in zip(found, truth, strict=True)]
    took = float(file.with_suffix(".txt").read_text(encoding="ascii"))
    size = file.stat().st_size / 2**20
    return [f"{count:,}", kind, f"{np.mean(hits) / 10:.3f}", f"{size:,.0f} MiB", f"{took:.1f} s"]


def timed(engine, faiss_alone, queries: np.ndarray, others: np.ndarray, rounds: int) -> list[str]:
    """The times of a row of the second table."""

    def ours(some: np.ndarray) -> list:
        return engine.search(some, k=10)

    index = index_of(engine)
    slow = len(index) >= 1_000_000 and index.kind == "flat"
    for search in (ours, faiss_alone):
        for start in range(0, 100 if slow else len(others), 100):
            search(others[start : start + 100])
    turns, batch_turns = SLOW_TURNS if slow else TURNS
    single = [in_pairs(ours, faiss_alone, queries, 1, turns) for _ in range(rounds)]
    batches = [in_pairs(ours, faiss_alone, queries, 100, batch_turns) for _ in range(rounds)]
    reading = [
        1000 * seconds(partial(read_all, ours(part)))
        for part in queries.reshape(-1, 100, DIMENSION)[:batch_turns]
    ]
    mine, theirs = np.median(np.concatenate(single), axis=0)
    all_mine, all_theirs = np.median(np.concatenate(batches), axis=0)
    return [
        *(f"{theirs:.2f}", f"{mine:.2f}", f"{mine - theirs:+.2f}"),
        *(f"{all_theirs:.0f}", f"{all_mine:.0f}", f"{all_mine / all_theirs - 1:+.1%}"),
        f"{statistics.median(reading):.0f}",
    ]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--name", default="search")
    parser.add_argument("--keep", type=Path, help="keep galleries and indexes in this folder")
    parser.add_argument("--build-only", action="store_true", help="build what --keep lacks")
    given = parser.parse_args()
    from face2vec.index.ivf import PQ_PROPOSALS

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
            table(["faces", "index", "searched in", "FAISS, one query, ms", "face2vec, ms",
                   "difference, ms", "FAISS, 100 queries, ms", "face2vec, ms",
                   "face2vec slower by", "reading their matches, ms"], speed),
            "Medians. FAISS returns numbers; face2vec reads each match's photo, box and landmarks "
            "from the gallery, too, and makes the objects when they are first looked at: the last "
            "column is what it takes then to look at all 1,000 matches of 100 queries. "
            f"FAISS's `ivfpq` gives {10 * PQ_PROPOSALS} candidates, which face2vec ranks again by "
            "the stored embeddings. FAISS searches the same file, but for `hnsw` one graph. "
            "In memory: face2vec with `index_in_memory=True`, FAISS by `read_index`.",
        )
    )  # fmt: skip
    command = f"python benchmarks/search.py --sizes {' '.join(map(str, given.sizes))}"
    if given.kinds != KINDS:
        command += f" --kinds {' '.join(given.kinds)}"
    if given.rounds != parser.get_default("rounds"):
        command += f" --rounds {given.rounds}"
    publish(given.name, "Search", body, command, PACKAGES)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
