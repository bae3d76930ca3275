"""Two checkouts of face2vec side by side: build, detection, search, cold start.

    git worktree add ../before COMMIT
    python benchmarks/versions.py LFW_FOLDER --before ../before

Each figure is that of a process of its own, with the checkout on its path. The two checkouts take
turns, and so does which of them begins. The ratio is the median over the pairs of seconds here
divided by seconds before: above 1 is slower than before.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from build import chosen
from common import ROOT, arguments, publish, ratio, table

PACKAGES = ("face2vec", "numpy", "onnxruntime", "openvino", "faiss-cpu")
PHOTOS, FACES, DIMENSION, QUERIES = 600, 100_000, 512, 300


def build(lfw: Path, work: Path) -> float:
    """Seconds from photos to a finished gallery."""
    from face2vec import Face2Vec

    photos = chosen(lfw, PHOTOS)
    with tempfile.TemporaryDirectory() as folder, Face2Vec(Path(folder) / "gallery") as engine:
        engine.encode(photos[0])
        started = time.perf_counter()
        engine.add(photos, progress=False)
        return time.perf_counter() - started


def detect(lfw: Path, work: Path) -> float:
    """Seconds of detection in decoded photos, in one thread."""
    import numpy as np
    from PIL import Image

    try:
        from face2vec.detection.mtcnn import DetectorSettings
        from face2vec.detection.mtcnn import Mtcnn as Detector
        from face2vec.runtime.select import Runtime
    except ImportError:  # version 0.1
        from face2vec.cascade import Detector, DetectorSettings
        from face2vec.runtime import Runtime

    images = [np.asarray(Image.open(p).convert("RGB")) for p in chosen(lfw, PHOTOS // 2)]
    detector = Detector(DetectorSettings(), Runtime("onnxruntime", threads=1))
    detector.detect(images[:8])
    started = time.perf_counter()
    for start in range(0, len(images), 8):
        detector.detect(images[start : start + 8])
    return time.perf_counter() - started


def search(kind: str, work: Path) -> float:
    """Seconds of single queries in an index of unit vectors, memory-mapped from its file."""
    import numpy as np

    try:
        from face2vec.index.face_index import FaceIndex
    except ImportError:  # version 0.1
        from face2vec.index import FaceIndex

    rng = np.random.default_rng(0)
    path = work / kind
    queries = rng.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    if not path.exists():
        vectors = rng.standard_normal((FACES, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index = FaceIndex.build([(np.arange(FACES), vectors)], FACES, DIMENSION, kind)
        index.save(path)
    try:
        index = FaceIndex.load(path, mmap=True)
    except TypeError:  # version 0.1
        index = FaceIndex.load(path, mapped=True)
    for query in queries[:20]:
        index.search(query[None], 10)
    started = time.perf_counter()
    for query in queries:
        index.search(query[None], 10)
    return time.perf_counter() - started


def cold(lfw: Path, work: Path) -> float:
    """Seconds of ``face2vec search`` as a whole process."""
    gallery = work / "gallery"
    photos = chosen(lfw, PHOTOS)
    command = [sys.executable, "-m", "face2vec"]
    if not gallery.exists():
        photo_list = work / "photos.txt"
        photo_list.write_text("\n".join(map(str, photos)), encoding="utf-8")
        into = ["index", f"@{photo_list}", "--gallery", str(gallery)]
        subprocess.run([*command, *into], check=True, capture_output=True)
    query = [*command, "search", str(gallery), str(photos[0])]
    started = time.perf_counter()
    subprocess.run(query, check=True, capture_output=True)
    return time.perf_counter() - started


def measured(step: str, lfw: Path, work: Path) -> float:
    """Seconds of one step with the face2vec that this process imports."""
    if step in ("flat", "ivfpq"):
        return search(step, work)
    return {"build": build, "detect": detect, "cold": cold}[step](lfw, work)


STEPS = {
    "build": f"{PHOTOS} LFW photos to a gallery, `mini`",
    "detect": f"detection in {PHOTOS // 2} LFW photos, one thread",
    "flat": f"{QUERIES} single queries among {FACES:,} faces, `flat`",
    # The name that versions before `pq` know, too.
    "ivfpq": f"{QUERIES} single queries among {FACES:,} faces, `pq`, before `ivfpq`",
    "cold": "`face2vec search`, whole process",
}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--measure", nargs=2, help="for its own processes: a step, a folder")
    given = parser.parse_args()
    if given.measure:
        step, work = given.measure
        print(measured(step, given.folder.resolve(), Path(work)))
        return
    checkouts = {"before": given.before.resolve(), "here": ROOT}
    with tempfile.TemporaryDirectory() as name:

        def run(step: str, checkout: str) -> float:
            work = Path(name) / checkout
            work.mkdir(exist_ok=True)
            lfw = str(given.folder.resolve())
            command = [
                sys.executable,
                str(Path(__file__).resolve()),
                lfw,
                "--measure",
                step,
                str(work),
            ]
            paths = os.environ | {"PYTHONPATH": str(checkouts[checkout])}
            # Not in a checkout, which ``python -m`` and ``python -c`` would import from.
            done = subprocess.run(
                command, env=paths, cwd=work, check=True, capture_output=True, text=True
            )
            return float(done.stdout.splitlines()[-1])

        rows = []
        for step in given.steps:
            times: dict[str, list[float]] = {"before": [], "here": []}
            for checkout in times:
                run(step, checkout)
            for turn in range(given.rounds):
                for checkout in list(times)[:: 1 if turn % 2 else -1]:
                    times[checkout].append(run(step, checkout))
                print(f"{step} {turn + 1}: {times['before'][-1]:.3f} s before, "
                      f"{times['here'][-1]:.3f} s here", flush=True)  # fmt: skip
            before, here = (statistics.median(times[one]) for one in ("before", "here"))
            rows.append([STEPS[step], f"{before:.3f} s", f"{here:.3f} s",
                         f"{ratio(times['here'], times['before']):.3f}"])  # fmt: skip
    commits = {
        one: subprocess.run(
            ["git", "-C", str(path), "rev-parse", "--short", "HEAD"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for one, path in checkouts.items()
    }  # fmt: skip
    publish(
        "versions",
        f"Commit {commits['here']} against {commits['before']}",
        table(("", "before", "here", "here / before"), rows),
        f"python benchmarks/versions.py LFW_FOLDER --before CHECKOUT --rounds {given.rounds}",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
