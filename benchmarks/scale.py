"""What a face costs on several machines, and a plan made from that.

    python benchmarks/scale.py --faces 100000

Needs the extra ``cluster-test``, PostgreSQL's server, and a network of its own, as
``scripts/test --cluster`` makes it: ``unshare --net sh -c 'ip link set lo up && python …'``.

The cost of a photo is the processor time of one thread with the model ``mini`` over drawn photos of
one to six faces. The faces of the galleries are those of ``benchmarks/search.py`` with the spectrum
of ``mini``, ten in each photo, and both galleries record the same. Recall@10 is the share of the
ten truly most similar faces among the ten found, over a hundred queries. Bytes in Milvus are those
of its folder, which has its queue as well, after it has written its segments. The memory of the
gallery in a folder is what this process has more after its searches than before.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import arguments, publish, seconds, table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PACKAGES = ("face2vec", "milvus", "pymilvus", "psycopg", "faiss-cpu", "numpy")
DIMENSION = 256  # of `mini`
IN_PHOTO = 10  # drawn faces
BATCH = 200  # photos recorded at a time
SIZES = (10**7, 10**8, 10**9)
CORES, DAYS = 32, 7  # of a machine, and for a build
CORE_HOUR, GIB_MONTH, DISK_MONTH = 0.04, 3.0, 0.08  # assumed prices in dollars, of no provider


@dataclass(frozen=True)
class Cost:
    """What was measured.

    Attributes:
        photo_seconds: processor seconds of a photo.
        faces: faces in a photo.
        row_bytes: bytes of a face in PostgreSQL, with its share of the photo's.
        milvus_bytes: bytes of a face in the folder of Milvus.
        record_seconds: seconds in which the one process that writes records a face there.
    """

    photo_seconds: float
    faces: float
    row_bytes: float
    milvus_bytes: float
    record_seconds: float


def plan(cost: Cost, faces: int, dimension: int = DIMENSION) -> dict[str, float]:
    """What a number of faces needs.

    The memory is that of IVF_SQ8, one byte a number, and of the four other values of a face, half
    as much again for copies while segments are merged.

    Args:
        cost: what was measured.
        faces: how many.
        dimension: length of an embedding.
    """
    core_hours = faces / cost.faces * cost.photo_seconds / 3600
    memory = 1.5 * faces * (dimension + 24) / 2**30
    disk = faces * (cost.row_bytes + cost.milvus_bytes) / 2**30
    return {
        "photos": faces / cost.faces,
        "core hours": core_hours,
        "days to record": faces * cost.record_seconds / 86400,
        "machines": max(1, -(-core_hours // (CORES * 24 * DAYS))),
        "memory GiB": memory,
        "disk GiB": disk,
        "build $": core_hours * CORE_HOUR,
        "month $": memory * GIB_MONTH + disk * DISK_MONTH,
    }


def photo_cost(folder: Path) -> tuple[float, float]:
    """(processor seconds, faces) of a drawn photo, with one thread."""
    from face2vec import Face2Vec, samples

    samples.write(folder, people=20, photos=5, groups=20, seed=3)
    photos = sorted(folder.rglob("*.jpg"))
    with Face2Vec(runtime="onnxruntime", threads=1) as engine:
        list(engine.bulk_encode(photos[:8]))
        before = time.process_time()
        found = [len(faces) for faces in engine.bulk_encode(photos)]
        spent = time.process_time() - before
    return spent / len(photos), sum(found) / len(photos)


def record(engine, embeddings: np.ndarray, fingerprint) -> tuple[float, float]:
    """Record drawn faces; returns the seconds of that, and of the index."""
    import hashlib

    from face2vec.gallery.rows import INDEXED, Entry
    from face2vec.types import Face

    points = ((30.0, 40.0), (60.0, 40.0), (45.0, 60.0), (33.0, 75.0), (57.0, 75.0))
    photos = []
    started = time.perf_counter()
    engine._session.gallery_made_with(fingerprint)
    with engine._session.write() as writer:
        for start in range(0, len(embeddings), IN_PHOTO):
            rows = embeddings[start : start + IN_PHOTO]
            faces = tuple(
                Face((1.0, 2.0, 90.0, 99.0), points, 0.99, row, quality=0.5) for row in rows
            )
            sha256 = hashlib.sha256(str(start).encode()).digest()
            photos.append(
                Entry("/photos", f"{start}.jpg", 1, 2, sha256, 640, 480, INDEXED, "", faces)
            )
            if len(photos) == BATCH:
                writer.record(photos)
                photos = []
        writer.record(photos)
        recorded = time.perf_counter()
        engine._session.index().save()
    return recorded - started, time.perf_counter() - recorded


def resident(processes: list[int]) -> float:
    """Memory of processes in MiB."""
    pages = 0
    for process in processes:
        pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def searched(engine, queries: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """(recall@10, milliseconds of one query, of a hundred)."""
    found = engine.search(queries, k=10)
    with engine.snapshot() as now:
        ids = now.contents()[0]  # in the order of the embeddings
    hits = [
        len({match.face.id for match in one.matches} & set(ids[row].tolist()))
        for one, row in zip(found, truth, strict=True)
    ]
    del ids
    single = statistics.median(
        seconds(lambda query=query: engine.search(query, k=10)) for query in queries[:40]
    )
    hundred = statistics.median(seconds(lambda: engine.search(queries, k=10)) for _ in range(5))
    return sum(hits) / (10 * len(found)), 1e3 * single, 1e3 * hundred


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--faces", type=int, default=100_000)
    given = parser.parse_args()
    import cluster_servers
    import search

    from face2vec import Face2Vec
    from face2vec.index.sync import GalleryIndex  # noqa: F401 - loaded before memory is looked at

    people = given.faces // 10
    drawn = search.Drawn(search.spectrum_of("mini"), people)
    embeddings, queries = drawn.faces(given.faces, seed=1), drawn.faces(100, seed=2)
    truth = np.argsort(-(queries @ embeddings.T), axis=1, kind="stable")[:, :10]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo_seconds, faces_in_photo = photo_cost(folder / "photos")
        print(f"a photo: {photo_seconds:.3f} s, {faces_in_photo:.2f} faces", flush=True)
        with Face2Vec(folder / "made") as engine:
            engine.add(folder / "photos" / "groups")
            fingerprint = engine._session.gallery().fingerprint
        with cluster_servers.running() as servers:
            os.environ["FACE2VEC_POSTGRES"] = servers.postgres.address
            places = {"folder": str(folder / "gallery"), "Milvus": servers.address("scale")}
            for where, place in places.items():
                before = resident([os.getpid()])
                with Face2Vec(place) as engine:
                    to_record, to_index = record(engine, embeddings, fingerprint)
                    recall, single, hundred = searched(engine, queries, truth)
                    facts = engine.info()
                    if where == "folder":
                        memory, disk = resident([os.getpid()]) - before, facts["bytes"]
                    else:
                        engine._session.index()._vectors.flush()
                        process = servers.milvus._process.pid
                        memory = resident([process, *cluster_servers.children_of(process)])
                        in_milvus = size_of(servers.milvus.folder / "data")
                        in_rows, disk = facts["bytes"], facts["bytes"] + in_milvus
                rows.append(
                    [
                        *(where, facts["index"], f"{recall:.3f}", f"{single:.1f}"),
                        *(f"{hundred:.0f}", f"{to_record:.0f}", f"{to_index:.0f}"),
                        *(f"{memory:,.0f}", f"{disk / 1e6:,.0f}"),
                    ]
                )
                print(rows[-1], flush=True)
    cost = Cost(
        photo_seconds,
        faces_in_photo,
        in_rows / given.faces,
        in_milvus / given.faces,
        to_record / given.faces,
    )
    head = ["gallery", "index", "recall@10", "one query, ms", "a hundred, ms"]
    head += ["recorded, s", "indexed, s", "memory, MiB", "disk, MB"]
    plans = [(f"{size:,}", plan(cost, size)) for size in SIZES]
    names = list(plans[0][1])
    body = (
        f"{given.faces:,} drawn faces of {people:,} people, {DIMENSION} numbers, both on one "
        f"machine:\n\n{table(head, rows)}\n\n"
        f"A drawn photo took {cost.photo_seconds:.3f} processor seconds and has {cost.faces:.2f} "
        f"faces. A face took {cost.row_bytes:,.0f} bytes in PostgreSQL and "
        f"{cost.milvus_bytes:,.0f} in Milvus, its queue included. Computed from that, for machines "
        f"of {CORES} cores that build for {DAYS} days, and for assumed prices of "
        f"${CORE_HOUR:.2f} a core and hour, ${GIB_MONTH:.2f} a GiB of memory and month, and "
        f"${DISK_MONTH:.2f} a GiB of disk and month (*days to record*: by the one process that "
        "writes, beside the same servers):\n\n"
        + table(
            ["faces", *names],
            [[size, *(f"{values[name]:,.0f}" for name in names)] for size, values in plans],
        )
    )
    command = f"python benchmarks/scale.py --faces {given.faces}"
    publish("scale", "Several machines", body, command, PACKAGES)


if __name__ == "__main__":
    main()
