"""Photos to finished gallery, against keras-facenet's ``extract`` in a loop.

    python benchmarks/build.py LFW_FOLDER --photos 400 --baseline-photos 60

Both run Inception-ResNet-v1 with 512 numbers and random weights, which take as long as
trained ones. The last row is another detector and another network, the fastest of the package.
Needs face2vec[keras,openvino,yunet]; LFW does not come with face2vec. Each
measurement is a process of its own; what is timed in it begins when its networks have
run once, and ends when the last face has its embedding (theirs) or when the gallery and
its index are on disk (ours).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, in_turn, publish, ratio, table

PACKAGES = ("face2vec", "tensorflow-cpu", "tensorflow", "keras-facenet", "mtcnn", "onnxruntime",
            "openvino")  # fmt: skip
WAYS = {
    "keras": "`keras_facenet.FaceNet.extract` in a loop",
    "onnxruntime": "face2vec, ONNX Runtime",
    "openvino": "face2vec, OpenVINO",
    "small": "face2vec, OpenVINO, YuNet and `mini2` in place of MTCNN and this network",
}
"""What is measured: the word after ``--only``, and the name in the table."""


def chosen(folder: Path, count: int) -> list[Path]:
    """Photos spread evenly over the folder."""
    photos = sorted(folder.rglob("*.jpg"))
    return photos[:: max(1, len(photos) // count)][:count]


def theirs(photos: list[Path]) -> tuple[float, int]:
    from keras_weights import random_facenet

    facenet = random_facenet()
    facenet.extract(str(photos[0]))
    start = time.perf_counter()
    faces = sum(len(facenet.extract(str(photo))) for photo in photos)
    return len(photos) / (time.perf_counter() - start), faces


def ours(
    photos: list[Path],
    model: Path | str,
    runtime: str,
    threads: int | None = None,
    detector: str = "mtcnn",
) -> tuple[float, int]:
    """(photos a second, faces) of a build of a gallery, with networks that have run once."""
    from face2vec import Face2Vec

    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "list.txt"
        links.write_text("\n".join(map(str, photos)), encoding="utf-8")
        with Face2Vec(
            Path(folder) / "gallery",
            model=model,
            runtime=runtime,
            threads=threads,
            detector=detector,
        ) as engine:
            engine.encode(photos[0])
            start = time.perf_counter()
            summary = engine.add(f"@{links}")
            return len(photos) / (time.perf_counter() - start), summary.faces


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--baseline-photos", type=int, default=60)
    parser.add_argument("--only", help=argparse_hidden())
    parser.add_argument("--weights", type=Path, help=argparse_hidden())
    given = parser.parse_args()
    if given.only:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        if given.only == "weights":
            from keras_weights import random_facenet, write_keras_2

            write_keras_2(random_facenet().model, given.weights, 512)
        elif given.only == "keras":
            print("RATE", *theirs(chosen(given.folder, given.baseline_photos)))
        elif given.only == "small":
            photos = chosen(given.folder, given.photos)
            print("RATE", *ours(photos, "mini2", "openvino", detector="yunet"))
        else:
            print("RATE", *ours(chosen(given.folder, given.photos), given.weights, given.only))
        return

    faces: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.h5"
        again = [*sys.argv, "--weights", str(weights), "--only"]
        quiet = {"stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, *again, "weights"], check=True, **quiet)

        def measure(way: str) -> float:
            done = subprocess.run(
                [sys.executable, *again, way], check=True, capture_output=True, text=True
            )
            line = next(x for x in done.stdout.splitlines() if x.startswith("RATE"))
            faces[way] = line.split()[2]
            return float(line.split()[1])

        rates = in_turn({way: (lambda way=way: measure(way)) for way in WAYS}, given.rounds)
    counts = {"keras": given.baseline_photos}
    rows = [
        [
            name,
            f"{sorted(rates[way])[len(rates[way]) // 2]:.1f}",
            f"{faces[way]} in {counts.get(way, given.photos)}",
            f"{ratio(rates[way], rates['keras']):.1f}",
        ]
        for way, name in WAYS.items()
    ]
    publish(
        "build",
        "LFW photos to finished gallery, Inception-ResNet-v1, 512 numbers",
        table(["", "photos/s", "faces embedded, photos", "times keras-facenet"], rows),
        "python benchmarks/build.py LFW_FOLDER",
        PACKAGES,
    )


def argparse_hidden() -> str:
    """What hides an option that is for the benchmark's own processes."""
    import argparse

    return argparse.SUPPRESS


if __name__ == "__main__":
    main()
