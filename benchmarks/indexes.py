"""The `pq` index beside other libraries' indexes of the same embeddings, in one run.

    python -m venv ENV && ENV/bin/pip install . scann usearch scalable-vs
    ENV/bin/python benchmarks/indexes.py --faces 1000000

Embeddings, queries and recall are those of `search.py`. All of them give candidates, whose exact
similarities decide: ScaNN compares its candidates itself, those of the others are compared here, by
the same function, with embeddings in memory. Every index uses all cores. A hundred
single queries and five batches of a hundred are timed for each, three times in turn. Graphs take
long to build; ``--without`` leaves some out. Needs about 8 GB of memory for a million faces.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import arguments, publish, seconds, table
from search import Drawn, spectrum_of

PACKAGES = ("face2vec", "faiss-cpu", "scann", "usearch", "scalable-vs", "numpy")
Search = Callable[[np.ndarray], np.ndarray]
"""Numbers of ten faces, or of more candidates, int (n, m), for queries (n, d)."""


def batches(embeddings: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(embeddings), 8192):
        part = embeddings[start : start + 8192]
        yield np.arange(start, start + len(part)), part


class Faces:
    """Embeddings that can be read again and again, as `FaceIndex.build` does."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = embeddings

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return batches(self._embeddings)


def ranked(embeddings: np.ndarray, candidates: Search) -> Search:
    """The ten best candidates by their exact similarities."""

    def search(queries: np.ndarray) -> np.ndarray:
        found = candidates(queries)
        best = np.empty((len(queries), 10), np.int64)
        for row, query in enumerate(queries):
            some = np.sort(found[row][found[row] >= 0])
            near = np.argsort(-np.vecdot(embeddings[some], query))[:10]
            best[row, : len(near)] = some[near]
        return best

    return search


def own(embeddings: np.ndarray) -> tuple[Search, int]:
    """face2vec: codes of all faces."""
    from face2vec.index.face_index import FaceIndex

    index = FaceIndex.build(Faces(embeddings), len(embeddings), embeddings.shape[1], "pq")
    faces = index._faces
    proposed = faces.proposals(10)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        size = (Path(folder) / "index").stat().st_size
    return ranked(embeddings, lambda queries: faces.search(queries, proposed)[1]), size


def faiss_index(description: str, proposed: int, **settings: int) -> Callable:
    """A FAISS index made from its factory string."""

    def build(embeddings: np.ndarray) -> tuple[Search, int]:
        import faiss

        index = faiss.index_factory(embeddings.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        index.train(embeddings[:: max(1, len(embeddings) // 100_000)])
        for _, part in batches(embeddings):
            index.add(part)
        for name, value in settings.items():
            faiss.ParameterSpace().set_index_parameter(index, name, value)
        size = faiss.serialize_index(index).nbytes
        return ranked(embeddings, lambda queries: index.search(queries, proposed)[1]), size

    return build


def scann(part: int) -> Callable:
    """ScaNN: a tree, asymmetric hashing, and its own exact comparison.

    Args:
        part: one leaf in so many is searched.
    """

    def build(embeddings: np.ndarray) -> tuple[Search, int]:
        import scann as package

        leaves = int(2 * len(embeddings) ** 0.5)
        builder = package.scann_ops_pybind.builder(embeddings, 10, "dot_product")
        searcher = (
            builder.tree(leaves, leaves // part, training_sample_size=100_000)
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .build()
        )
        with tempfile.TemporaryDirectory() as folder:
            searcher.serialize(folder)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())

        def search(queries: np.ndarray) -> np.ndarray:
            if len(queries) == 1:
                return searcher.search(queries[0])[0][None]
            return searcher.search_batched_parallel(queries)[0]

        return search, size

    return build


def usearch(embeddings: np.ndarray) -> tuple[Search, int]:
    """USearch: a graph of embeddings with 8 bits a number."""
    from usearch.index import Index

    index = Index(
        ndim=embeddings.shape[1], metric="ip", dtype="i8", connectivity=16, expansion_add=128,
        expansion_search=256,
    )  # fmt: skip
    index.add(np.arange(len(embeddings)), embeddings, threads=os.cpu_count())
    search = ranked(
        embeddings,
        lambda queries: np.atleast_2d(
            index.search(queries, 50, threads=os.cpu_count()).keys.astype(np.int64)
        ),
    )
    return search, index.serialized_length


class NeedsIntelError(Exception):
    """A library runs on processors of Intel only."""


def svs(leanvec: bool) -> Callable:
    """Scalable Vector Search: a graph of LVQ codes, or of LeanVec's."""

    def build(embeddings: np.ndarray) -> tuple[Search, int]:
        if "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="ascii"):
            raise NeedsIntelError  # it would end this process
        import svs as package

        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "embeddings.svs")
            package.write_vecs(embeddings, file + ".fvecs")
            data = package.VectorDataLoader(
                file + ".fvecs", package.DataType.float32, dims=embeddings.shape[1]
            )
            if leanvec:
                loader = package.LeanVecLoader(
                    data, leanvec_dims=192, primary_kind=package.LeanVecKind.lvq4,
                    secondary_kind=package.LeanVecKind.lvq8,
                )  # fmt: skip
            else:
                loader = package.LVQLoader(data, primary=4, residual=8)
            parameters = package.VamanaBuildParameters(graph_max_degree=32, window_size=64)
            index = package.Vamana.build(
                parameters, loader, package.DistanceType.MIP, num_threads=os.cpu_count()
            )
            index.search_window_size = 256
            before = set(Path(folder).rglob("*"))
            for name in ("config", "graph", "data"):
                (Path(folder) / name).mkdir()
            index.save(*(str(Path(folder) / name) for name in ("config", "graph", "data")))
            size = sum(f.stat().st_size for f in Path(folder).rglob("*")
                       if f.is_file() and f not in before)  # fmt: skip
        return ranked(embeddings, lambda q: index.search(q, 50)[0].astype(np.int64)), size

    return build


WAYS: dict[str, Callable] = {
    "face2vec pq": own,
    "FAISS PCA128,PQ32x4fs, 100 proposed": faiss_index("PCA128,PQ32x4fs", 100),
    "FAISS IVF4096,PQ256x4fs, a quarter searched, 30 proposed": faiss_index(
        "IVF4096,PQ256x4fs", 30, nprobe=1024
    ),
    "FAISS RaBitQfs, 100 proposed": faiss_index("RaBitQfs", 100),
    "FAISS IVF1024,RaBitQfs, a quarter searched, 100 proposed": faiss_index(
        "IVF1024,RaBitQfs", 100, nprobe=256
    ),
    "ScaNN, an eighth of the leaves": scann(8),
    "ScaNN, half of the leaves": scann(2),
    "USearch i8 graph": usearch,
    "SVS LVQ4x8 graph": svs(leanvec=False),
    "SVS LeanVec192 graph": svs(leanvec=True),
}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--spectrum", default="edgeface-xs")
    parser.add_argument("--without", nargs="*", default=[], help="words in names to leave out")
    parser.add_argument("--name", default="indexes")
    given = parser.parse_args()
    spectrum = spectrum_of(given.spectrum)
    import faiss

    drawn = Drawn(spectrum, given.faces // 10)
    embeddings = drawn.faces(given.faces, seed=1)
    asked = {"queries": drawn.faces(500, seed=2), "strangers": drawn.strangers(500, seed=4)}
    truth = {
        who: faiss.knn(some, embeddings, 10, faiss.METRIC_INNER_PRODUCT)[1]
        for who, some in asked.items()
    }
    queries = asked["queries"]
    searches: dict[str, Search] = {}
    rows: dict[str, list[str]] = {}
    for name, build in WAYS.items():
        if any(word in name for word in given.without):
            continue
        gc.collect()
        made: list[tuple[Search, int]] = []
        try:
            took = seconds(lambda made=made, build=build: made.append(build(embeddings)))
        except Exception as error:  # a library that does not run here is a row, too
            print(f"{name}: {error!r}", flush=True)
            why = "needs Intel" if isinstance(error, NeedsIntelError) else type(error).__name__
            rows[name] = [f"did not run: {why}", "", "", "", ""]
            continue
        search, size = made[0]
        recalls = [
            np.mean([
                len(set(row.tolist()) & set(best.tolist()))
                for start in range(0, 500, 100)
                for row, best in zip(search(some[start : start + 100]),
                                     truth[who][start : start + 100], strict=True)
            ]) / 10
            for who, some in asked.items()
        ]  # fmt: skip
        searches[name] = search
        rows[name] = [*(f"{one:.3f}" for one in recalls), f"{size / 1e6:,.0f}", f"{took:.0f}"]
        print(name, rows[name], flush=True)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in searches}
    for _ in range(3):
        for name, search in searches.items():
            for row in range(100):
                one = queries[row : row + 1]
                times[name][0].append(seconds(lambda search=search, one=one: search(one)))
            for start in range(0, 500, 100):
                some = queries[start : start + 100]
                times[name][1].append(seconds(lambda search=search, some=some: search(some)))
    lines = [
        [name, *row[:2],
         *(f"{1000 * statistics.median(part):.{digits}f}"
           for part, digits in zip(times[name], (2, 0), strict=True)), *row[2:]]
        if name in times else [name, *row]
        for name, row in rows.items()
    ]  # fmt: skip
    head = ("index", "recall@10", "of strangers", "one query, ms", "100 queries, ms", "MB",
            "build, s")  # fmt: skip
    command = f"python benchmarks/indexes.py --faces {given.faces}"
    if given.without:
        command += f" --without {' '.join(given.without)}"
    title = f"Indexes of {given.faces:,} faces, {len(spectrum)} numbers, by {given.spectrum}"
    publish(given.name, title, table(head, lines), command, PACKAGES)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
