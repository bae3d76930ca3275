"""What a CUDA device gains: embedding alone, and photos to finished gallery.

    python benchmarks/gpu.py FOLDER MODEL...

A MODEL is anything that ``Face2Vec(model=…)`` takes. Both ways use all cores of the processor,
which opens photos and detects faces in both. docs/gpu.md says what has to be installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from build import argparse_hidden, chosen, ours
from common import arguments, in_turn, publish, ratio, seconds, table

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.encoder import Encoder
from face2vec.models import load_model
from face2vec.runtime.select import choose_runtime

PACKAGES = ("face2vec", "onnxruntime-gpu", "numpy")
RUNTIMES = ("onnxruntime", "cuda")


def rates(photos: list[Path], model: str, runtime: str, crops: int) -> tuple[float, float]:
    built, _ = ours(photos, model, runtime)
    loaded = load_model(model)
    side = loaded.description.input_size
    some = np.random.default_rng(0).integers(0, 256, (crops, side, side, 3), np.uint8)
    encoder = Encoder(loaded, DetectorSettings(), choose_runtime(runtime))
    encoder.embed(some)
    embedded = crops / statistics.median(seconds(lambda: encoder.embed(some)) for _ in range(3))
    return embedded, built


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--crops", type=int, default=1024)
    parser.add_argument("--only", nargs=2, help=argparse_hidden())
    given = parser.parse_args()
    photos = chosen(given.folder, given.photos)
    if given.only:
        print("RATE", *rates(photos, *given.only, given.crops))
        return
    found: dict[tuple[str, str], list[float]] = {}

    def measure(model: str, runtime: str) -> float:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--only", model, runtime],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        embedded, built = map(float, done.stdout.split("RATE")[1].split())
        found.setdefault((model, runtime), []).append(built)
        return embedded

    embedding = in_turn(
        {
            f"{model} {runtime}": (lambda model=model, runtime=runtime: measure(model, runtime))
            for model in given.models
            for runtime in RUNTIMES
        },
        given.rounds,
    )
    rows = []
    for model in given.models:
        faces = [embedding[f"{model} {runtime}"] for runtime in RUNTIMES]
        build = [found[model, runtime] for runtime in RUNTIMES]
        rows.append([
            Path(model).stem,
            *(f"{statistics.median(each):.0f}" for each in faces),
            f"{ratio(faces[1], faces[0]):.1f}",
            *(f"{statistics.median(each):.0f}" for each in build),
            f"{ratio(build[1], build[0]):.2f}",
        ])  # fmt: skip
    device = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    publish(
        "gpu",
        f"{device} against the processor's cores, ONNX Runtime",
        table(
            ["model", "faces/s embedded, processor", "CUDA", "times", "LFW photos/s to gallery, "
             "processor", "CUDA", "times"],
            rows,
        ),
        f"python benchmarks/gpu.py LFW_FOLDER {' '.join(Path(m).name for m in given.models)} "
        f"--photos {given.photos} --crops {given.crops} --rounds {given.rounds}",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
