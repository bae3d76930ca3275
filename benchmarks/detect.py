"""Detection alone, against the ``mtcnn`` package one photo at a time.

    python benchmarks/detect.py LFW_FOLDER
    python benchmarks/detect.py LFW_FOLDER --one-core

Needs face2vec[keras]; LFW does not come with face2vec. Photos are decoded beforehand. The
12-megapixel photos are 16 × 12 LFW photos side by side, each searched at full size with the
same smallest face (20 pixels); the last row is the same with face2vec's own ``max_side``. In
threads a `Mtcnn` is asked, in processes an `ExtractorProcesses`, as in a build that has gone on
for some seconds: it cuts the faces out, too. With ``--one-core`` the process has one core, and
both of face2vec's detectors are measured, one photo at a time.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from build import chosen
from common import arguments, in_turn, publish, ratio, seconds, table
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.detection.select import named_settings, open_detector
from face2vec.encoding import workers as extraction_processes
from face2vec.encoding.extract import Extractor, Wanted
from face2vec.encoding.workers import ExtractorProcesses
from face2vec.models import load_model
from face2vec.photos.decode import open_photo
from face2vec.runtime.select import Runtime

PACKAGES = ("face2vec", "tensorflow-cpu", "tensorflow", "mtcnn", "onnxruntime")
CHUNK = 8


def one_core(folder: Path, photos: int, baseline_photos: int, rounds: int) -> None:
    """Both detectors of face2vec and the package's, one photo at a time on one core."""
    from mtcnn import MTCNN

    images = [np.asarray(Image.open(path).convert("RGB")) for path in chosen(folder, photos)]
    theirs = MTCNN()
    runtime = Runtime("onnxruntime")
    ours = {name: open_detector(named_settings(name), runtime) for name in ("mtcnn", "yunet")}
    faces: dict[str, float] = {}

    def rate(name: str, some: list[np.ndarray], count: Callable[[np.ndarray], int]) -> float:
        found: list[int] = []
        took = seconds(lambda: found.extend(count(image) for image in some))
        faces[name] = sum(found) / len(some)
        return len(some) / took

    few = images[:baseline_photos]
    ways = {
        "`mtcnn`": lambda: rate("`mtcnn`", few, lambda one: len(theirs.detect_faces(one))),
        "face2vec, MTCNN": lambda: rate(
            "face2vec, MTCNN", images, lambda one: len(ours["mtcnn"].detect([one])[0])
        ),
        "face2vec, YuNet": lambda: rate(
            "face2vec, YuNet", images, lambda one: len(ours["yunet"].detect([one])[0])
        ),
    }
    for way in ways.values():
        way()
    rates = in_turn(ways, rounds)
    rows = [
        [name, f"{statistics.median(values):.3g}", f"{faces[name]:.2f}",
         f"{ratio(values, rates['`mtcnn`']):.1f}"]
        for name, values in rates.items()
    ]  # fmt: skip
    publish(
        "detect-one-core",
        "Detection of LFW photos, one at a time on one core",
        table(["", "photos/s", "faces a photo", "times mtcnn"], rows),
        f"python benchmarks/detect.py LFW_FOLDER --one-core --rounds {rounds}",
        PACKAGES,
    )


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--baseline-photos", type=int, default=60)
    parser.add_argument("--one-core", action="store_true")
    given = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if given.one_core:
        # Before TensorFlow counts the cores.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        one_core(given.folder, given.photos, given.baseline_photos, given.rounds)
        return
    from mtcnn import MTCNN

    small = [np.asarray(Image.open(p).convert("RGB")) for p in chosen(given.folder, given.photos)]
    tiles = [np.asarray(Image.fromarray(image).resize((250, 250))) for image in small[:384]]
    large = [
        np.concatenate([np.concatenate(tiles[s + 16 * r : s + 16 * r + 16], 1) for r in range(12)])
        for s in (0, 192)
    ]
    theirs = MTCNN()
    threads = os.cpu_count() or 1
    runtime = Runtime("onnxruntime", threads=threads)
    ours = Mtcnn(DetectorSettings(max_side=None), runtime)
    pool = ThreadPoolExecutor(threads)
    faces: dict[str, int] = {}

    def their_rate(name: str, images: list[np.ndarray]) -> float:
        found: list[int] = []
        took = seconds(lambda: found.extend(len(theirs.detect_faces(image)) for image in images))
        faces[name] = sum(found)
        return len(images) / took

    def our_rate(name: str, images: list[np.ndarray], chunk: int, detect=ours.detect) -> float:
        parts = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        found: list[int] = []

        def all_of_them() -> None:
            for part in pool.map(detect, parts):
                found.extend(len(faces) for faces in part)

        took = seconds(all_of_them)
        faces[name] = sum(found)
        return len(images) / took

    shrunk = [np.asarray(Image.fromarray(image).reduce(2)) for image in large]
    theirs.detect_faces(small[0])
    ours.detect(small[:8])
    extraction_processes.START_AFTER = 0
    extractor = Extractor(DetectorSettings(max_side=None), load_model("mini").description, runtime)
    processes = ExtractorProcesses(extractor, threads)

    def in_processes(images: list[np.ndarray]) -> list:
        return [done.faces for done in processes.extract([Wanted(open_photo(i)) for i in images])]

    list(pool.map(in_processes, [small[:8]] * threads))
    rates = in_turn(
        {
            "mtcnn, LFW": lambda: their_rate("mtcnn, LFW", small[: given.baseline_photos]),
            "face2vec, LFW": lambda: our_rate("face2vec, LFW", small, CHUNK),
            "in processes, LFW": lambda: our_rate("in processes, LFW", small, CHUNK, in_processes),
            "mtcnn, 12 MP": lambda: their_rate("mtcnn, 12 MP", large[:1]),
            "face2vec, 12 MP": lambda: our_rate("face2vec, 12 MP", large, 1),
            "in processes, 12 MP": lambda: our_rate("in processes, 12 MP", large, 1, in_processes),
            "face2vec, 12 MP at 2000": lambda: our_rate("face2vec, 12 MP at 2000", shrunk, 1),
        },
        given.rounds,
    )
    processes.__exit__()

    def row(words: str, name: str, base: str, photos: int) -> list[str]:
        times = "1" if name == base else f"{ratio(rates[name], rates[base]):.1f}"
        return [
            words,
            f"{statistics.median(rates[name]):.3g}",
            f"{faces[name] / photos:.2f}",
            times,
        ]

    few, many = given.baseline_photos, len(small)
    rows = [
        row("LFW photos, `mtcnn` one at a time", "mtcnn, LFW", "mtcnn, LFW", few),
        row("LFW photos, face2vec in threads", "face2vec, LFW", "mtcnn, LFW", many),
        row("LFW photos, face2vec in processes", "in processes, LFW", "mtcnn, LFW", many),
        row("12-megapixel photos, `mtcnn`", "mtcnn, 12 MP", "mtcnn, 12 MP", 1),
        row("12-megapixel photos, face2vec in threads", "face2vec, 12 MP", "mtcnn, 12 MP", 2),
        row("12-megapixel photos, face2vec in processes", "in processes, 12 MP", "mtcnn, 12 MP", 2),
        row("… in threads at its default of 2000 pixels",
            "face2vec, 12 MP at 2000", "mtcnn, 12 MP", 2),
    ]  # fmt: skip
    publish(
        "detect",
        "Detection alone",
        table(["", "photos/s", "faces a photo", "times mtcnn"], rows),
        f"python benchmarks/detect.py LFW_FOLDER --rounds {given.rounds}",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
