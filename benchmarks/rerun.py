"""A second run over unchanged photos, and peak memory at 1,000 and at 10,000 photos.

    python benchmarks/rerun.py PHOTOS --model MODEL

PHOTOS is a folder with at least 10,000 photos. Each run is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from common import arguments, publish, table

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy", "Pillow")
RUN = """
import sys, threading
from face2vec import Face2Vec
from face2vec.evaluation.measuring import children_memory, peak_memory
beside, done = [0], threading.Event()
def watch():
    while not done.wait(0.2):
        beside.append(children_memory())
watching = threading.Thread(target=watch)
watching.start()
try:
    with Face2Vec(sys.argv[1], model=sys.argv[2]) as engine:
        summary = engine.add(sys.argv[3])
finally:
    done.set()
print("RUN", summary.seconds, summary.photos, summary.unchanged, summary.faces,
      peak_memory(), max(beside))
"""


def run(gallery: Path, model: str, source: str) -> tuple[float, int, int, int, float, float]:
    """Seconds, photos, unchanged, faces, peak MiB, of the processes it started, of a new build."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(gallery), model, source],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    cells = next(x for x in done.stdout.splitlines() if x.startswith("RUN")).split()
    memory = (int(cell) / 2**20 for cell in cells[5:])
    return (float(cells[1]), int(cells[2]), int(cells[3]), int(cells[4]), *memory)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    photos = sorted(p for p in given.folder.resolve().rglob("*") if p.suffix.lower() == ".jpg")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for count in (1000, 10_000):
            listed = Path(name) / f"{count}.txt"
            listed.write_text("\n".join(map(str, photos[:count])), encoding="utf-8")
            first = run(Path(name) / str(count), given.model, f"@{listed}")
            second = sorted(
                run(Path(name) / str(count), given.model, f"@{listed}") for _ in range(given.rounds)
            )[given.rounds // 2]
            assert second[2] == first[1] == count, (first, second)
            rows.append(
                [f"{count:,}", f"{first[0]:.1f} s", f"{second[0]:.2f} s",
                 f"{first[0] / second[0]:.0f}", f"{first[4]:.0f} MiB", f"{first[5]:.0f} MiB"]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = [
        "photos",
        "first run",
        "second run",
        "times faster",
        "peak memory of the first",
        "… of its extraction processes, together",
    ]
    publish("rerun", "Running a build again", table(head, rows),
            "python benchmarks/rerun.py PHOTOS --model MODEL", PACKAGES)  # fmt: skip


if __name__ == "__main__":
    main()
