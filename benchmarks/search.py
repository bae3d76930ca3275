"""Search: face2vec by embedding against bare FAISS of the same kind; recall, memory, build.

    python benchmarks/search.py --sizes 10000 100000 1000000

Embeddings are synthetic: each person a random unit vector, each face that vector plus noise,
made so that two faces of a person have a cosine of 0.6; 10 faces a person. By default both are
drawn with the spectrum of a network's embeddings: their variance along their principal components,
from `spectra.json`, which ``--measure GALLERY`` writes. ``--spectrum isotropic`` spreads it evenly
over 512 components, the hardest case. Queries are further faces of the same people, a thousand;
and, for a second recall, a thousand faces of people who are not in the gallery, whose nearest faces
are hard to tell apart. Recall@10 is the share of the ten truly most similar faces that are among
the ten found. Needs about 6 GB of memory and of disk for a million faces.

Single searches of face2vec and of FAISS take turns, each with a query that neither was asked just
before, so that both find the processor's caches as the other left them, as they do in a program
that has other things to do. Batches take turns, too. A pause is made before each, for FAISS's
threads go on turning for some milliseconds after a search, and none is to pay for another's;
not an idle one, in which the system may put the cores to sleep. A thousand other queries come
first, so that the index is in memory.
"""

from __future__ import annotations

import gc
import json
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
SPECTRA = Path(__file__).parent / "spectra.json"
ISOTROPIC = [1 / 512] * 512
FACES_A_PERSON = 10
COSINE = 0.6
PAUSE = 0.005
KINDS = ["flat", "pq"]


class Drawn:
    """Faces with a spectrum: the variance along each principal component, descending.

    The components lie in directions drawn at random.
    """

    def __init__(self, spectrum: list[float], people: int) -> None:
        self.dimension, self.people = len(spectrum), people
        rng = np.random.default_rng(7)
        axes = np.linalg.qr(rng.standard_normal((self.dimension, self.dimension)))[0]
        self._axes = (np.sqrt(spectrum)[:, None] * axes).astype(np.float32)
        self._centres = self.strangers(people, seed=0)

    def strangers(self, count: int, seed: int) -> np.ndarray:
        """(count, d) unit vectors, of one person each."""
        return unit(self._noise(np.random.default_rng(seed), count))

    def faces(self, count: int, seed: int) -> np.ndarray:
        """(count, d) unit vectors of the people in turn."""
        rng = np.random.default_rng(seed)
        out = np.empty((count, self.dimension), np.float32)
        for start in range(0, count, 50_000):
            rows = np.arange(start, min(start + 50_000, count))
            noise = unit(self._noise(rng, len(rows)))
            centres = self._centres[rows % self.people]
            out[rows] = unit(COSINE**0.5 * centres + (1 - COSINE) ** 0.5 * noise)
        return out

    def _noise(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.standard_normal((count, self.dimension), np.float32) @ self._axes


def spectrum_of(name: str) -> list[float]:
    """The variance along each component: of a model in `spectra.json`, or the same for all."""
    if name == "isotropic":
        return ISOTROPIC
    spectrum: list[float] = json.loads(SPECTRA.read_text(encoding="ascii"))[name]
    return spectrum


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure_spectrum(gallery: Path) -> None:
    """Add the spectrum of a gallery's embeddings to `spectra.json`, by the name of its model."""
    from face2vec.gallery.gallery import Gallery

    with Gallery.open(gallery) as opened, opened.read() as now:
        embeddings = np.concatenate([rows for _, rows in now]).astype(np.float64)
        name = opened.fingerprint.model.key
    variance = np.linalg.eigvalsh(embeddings.T @ embeddings / len(embeddings))[::-1]
    known = json.loads(SPECTRA.read_text(encoding="ascii")) if SPECTRA.exists() else {}
    known[name] = [float(f"{max(part, 0):.3g}") for part in variance]
    SPECTRA.write_text(json.dumps(known, sort_keys=True, indent=0) + "\n", encoding="ascii")


def recall(engine, queries: np.ndarray, truth: np.ndarray) -> float:
    found = engine.search(queries, k=10)
    hits = [
        len({match.face.id for match in one.matches} & set(row.tolist()))
        for one, row in zip(found, truth, strict=True)
    ]
    return float(np.mean(hits)) / 10


def enrol(folder: Path, embeddings: np.ndarray) -> None:
    """A gallery of made-up photos, one face each."""
    from face2vec.fingerprint import DetectorFingerprint, Fingerprint, ModelFingerprint
    from face2vec.gallery.gallery import Gallery
    from face2vec.gallery.rows import INDEXED, Entry
    from face2vec.types import Face

    model = ModelFingerprint(
        key="synthetic", origin="synthetic", weights="synthetic", dimension=embeddings.shape[1],
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
        (m.rank, m.similarity, m.probability, m.photo, m.copies, m.face.box, m.face.landmarks)
        for one in found
        for m in one.matches
    ]


def measure(
    count: int,
    kinds: list[str],
    rounds: int,
    keep: Path | None,
    spectrum: list[float],
) -> tuple[list[list[str]], list[list[str]]]:
    import faiss

    from face2vec.engine import Face2Vec

    drawn = Drawn(spectrum, count // FACES_A_PERSON)
    embeddings = drawn.faces(count, seed=1)
    queries, others = drawn.faces(1000, seed=2), drawn.faces(1000, seed=3)
    strangers = drawn.strangers(1000, seed=4)
    quality, speed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = (keep or Path(name)) / str(count)
        if not folder.exists():
            enrol(folder, embeddings)
        # A gallery numbers its faces from one.
        truth, strange_truth = (
            faiss.knn(some, embeddings, 10, faiss.METRIC_INNER_PRODUCT)[1] + 1
            for some in (queries, strangers)
        )
        del embeddings
        gc.collect()
        for kind in kinds:
            file = built(folder, kind)
            (folder / "index.faiss").unlink(missing_ok=True)
            os.link(file, folder / "index.faiss")
            for hold in (False, True):
                with Face2Vec(folder, index=kind, index_in_memory=hold) as engine:
                    bare = alone(file, engine, hold)
                    if not hold:
                        found = recall(engine, queries, truth)
                        strange = recall(engine, strangers, strange_truth)
                        quality.append(described(count, kind, file, engine, found, strange))
                        print(quality[-1], flush=True)
                    where = "memory" if hold else "its file"
                    times = timed(engine, bare, queries, others, rounds)
                    speed.append([f"{count:,}", kind, where, *times])
                    print(speed[-1], flush=True)
    return quality, speed


def built(folder: Path, kind: str) -> Path:
    """A file with the gallery's index of a kind, and beside it how many seconds that took."""
    from face2vec.engine import Face2Vec

    kept = folder / f"{kind}.faiss"
    if not kept.exists():
        with Face2Vec(folder, index=kind) as engine:
            took = seconds(engine.rebuild)
        kept.with_suffix(".txt").write_text(f"{took:.1f}", encoding="ascii")
        (folder / "index.faiss").replace(kept)
    return kept


def index_of(engine):
    gallery = engine._session.gallery()
    with gallery.read() as now, engine._session.index().at(now) as index:
        return index


def alone(file: Path, engine, hold: bool) -> Callable[[np.ndarray], object]:
    """FAISS's own search of a file: as many proposals as the engine's index makes.

    Shards are searched by FAISS's threads, one each.
    """
    import faiss

    from face2vec.index.face_index import FaceIndex
    from face2vec.products import product

    index = index_of(engine)
    if index.kind == "flat":
        bare = faiss.read_index(str(file), 0 if hold else faiss.IO_FLAG_MMAP_IFC)
        return lambda queries: bare.search(queries, 10)
    own = FaceIndex.load(file)._faces
    shards = faiss.IndexShards(len(own._rows), True, False)
    for shard in own._shards:
        shards.add_shard(shard)
    wanted = own.proposals(10)
    for shard in own._shards:
        codes = faiss.downcast_index(shard.index)
        codes.k_factor = (min(own.candidates(wanted), shard.ntotal) + 0.5) / wanted
    # "own" stays alive here, because FAISS does not keep what Python owns.
    return lambda queries: (own, shards.search(product(queries, own._rows), wanted))[1]


def described(count: int, kind: str, file: Path, engine, found: float, strange: float) -> list[str]:
    """A row of the first table."""
    took = float(file.with_suffix(".txt").read_text(encoding="ascii"))
    measured = index_of(engine).measured
    told = "exact"
    if measured is not None:
        told = f"{measured.recall:.3f}"
    return [
        *(f"{count:,}", kind, f"{found:.3f}", f"{strange:.3f}", told),
        *(f"{file.stat().st_size / 2**20:,.0f} MiB", f"{took:.1f} s"),
    ]


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
        for part in queries.reshape(-1, 100, queries.shape[1])[:batch_turns]
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
    parser.add_argument("--spectrum", default="edgeface-xs", help="a model of spectra.json, or "
                        "isotropic")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="keep galleries and indexes in this folder")
    parser.add_argument("--measure", type=Path, metavar="GALLERY", help="only add its spectrum")
    given = parser.parse_args()
    if given.measure:
        measure_spectrum(given.measure)
        return
    spectrum = spectrum_of(given.spectrum)
    quality: list[list[str]] = []
    speed: list[list[str]] = []
    for count in given.sizes:
        more_quality, more_speed = measure(count, given.kinds, given.rounds, given.keep, spectrum)
        quality += more_quality
        speed += more_speed
    body = "\n\n".join(
        (
            table(["faces", "index", "recall@10", "of strangers", "told by info",
                   "index on disk and in memory", "build"], quality),
            table(["faces", "index", "searched in", "FAISS, one query, ms", "face2vec, ms",
                   "difference, ms", "FAISS, 100 queries, ms", "face2vec, ms",
                   "face2vec slower by", "reading their matches, ms"], speed),
            f"{len(spectrum)} numbers, spectrum: {given.spectrum}. Medians. FAISS returns numbers; "
            "face2vec reads each match's photo, box and landmarks from the gallery, too, and makes "
            "the objects when they are first looked at: the last column is what it takes then to "
            "look at all 1,000 matches of 100 queries. FAISS's `pq` only gives the proposals, "
            "which face2vec ranks by the stored embeddings. In memory: face2vec with "
            "`index_in_memory=True`, FAISS by `read_index`. *Of strangers*: recall@10 for people "
            "who are not in the gallery. *Told by info*: recall@10 for faces of the gallery.",
        )
    )  # fmt: skip
    command = f"python benchmarks/search.py --sizes {' '.join(map(str, given.sizes))}"
    if given.spectrum != parser.get_default("spectrum"):
        command += f" --spectrum {given.spectrum}"
    if given.kinds != KINDS:
        command += f" --kinds {' '.join(given.kinds)}"
    if given.rounds != parser.get_default("rounds"):
        command += f" --rounds {given.rounds}"
    publish(given.name, "Search", body, command, PACKAGES)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
