"""How a build gains from more cores: photos to finished gallery with 1, 2, 4 … threads.

    python benchmarks/cores.py FOLDER

Each measurement is a process of its own, with as many photos a thread. The second column extracts
faces in threads alone, as a build does in its first seconds and a program into which Python is
frozen.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from build import argparse_hidden, chosen, ours
from common import arguments, in_turn, publish, ratio, table

PACKAGES = ("face2vec", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy")
ALONE, PROCESSES = "threads", "processes"


def rate(photos: list[Path], model: str, threads: int, way: str) -> float:
    from face2vec.encoding import workers as extraction_processes

    if way == ALONE:
        extraction_processes.START_AFTER = float("inf")
    return ours(photos, model, "onnxruntime", threads)[0]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400, help="a thread")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", nargs=2, help=argparse_hidden())
    given = parser.parse_args()
    if given.only:
        threads, way = int(given.only[0]), given.only[1]
        photos = chosen(given.folder, given.photos * threads)
        print("RATE", rate(photos, given.model, threads, way))
        return

    def measure(threads: int, way: str) -> float:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--only", str(threads), way],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(done.stdout.split("RATE")[1])

    cores = os.cpu_count() or 1
    counts = sorted({*(2**n for n in range(10) if 2**n <= cores), cores})
    rates = in_turn(
        {
            f"{threads} {way}": (lambda threads=threads, way=way: measure(threads, way))
            for threads in counts
            for way in (ALONE, PROCESSES)
        },
        given.rounds,
    )
    rows = []
    for threads in counts:
        alone, both = rates[f"{threads} {ALONE}"], rates[f"{threads} {PROCESSES}"]
        rows.append([
            threads,
            f"{statistics.median(alone):.0f}",
            f"{statistics.median(both):.0f}",
            f"{ratio(both, rates[f'1 {PROCESSES}']):.1f}",
            f"{ratio(both, alone):.2f}",
        ])  # fmt: skip
    publish(
        "cores",
        f"Photos to finished gallery by the number of threads, model `{given.model}`, ONNX Runtime",
        table(
            ["threads", "photos/s in threads alone", "photos/s", "times one thread",
             "times threads alone"],
            rows,
        ),
        f"python benchmarks/cores.py LFW_FOLDER --photos {given.photos} --rounds {given.rounds}",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
