"""Cold start and installed size.

    python benchmarks/cold.py GALLERY PHOTO [--tensorflow PYTHON]

GALLERY holds about 10,000 faces. PYTHON is an interpreter that has TensorFlow, if this one
has not. The installed size is that of a new virtual environment with the base install.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import arguments, in_turn, publish, ratio, seconds, table

PACKAGES = ("face2vec", "numpy", "onnxruntime", "openvino", "faiss-cpu")
HOME = Path(__file__).resolve().parent.parent


def run(*command: str) -> float:
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def import_seconds() -> float:
    """Seconds that the import statement itself takes in a new process."""
    code = "import time; t = time.perf_counter(); import face2vec; print(time.perf_counter() - t)"
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    )


def installed_megabytes() -> float:
    """Size of a new virtual environment with the base install, less an empty one."""

    def size(folder: Path) -> int:
        return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() or p.is_symlink())

    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, "-m", "venv", name], check=True)
        empty = size(Path(name))
        pip = [str(Path(name) / "bin" / "python"), "-m", "pip", "install", "-q", "--no-compile"]
        subprocess.run([*pip, str(HOME)], check=True, capture_output=True)
        return (size(Path(name)) - empty) / 1e6


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("gallery")
    parser.add_argument("photo")
    parser.add_argument("--tensorflow", default=sys.executable)
    given = parser.parse_args()
    search = [sys.executable, "-m", "face2vec", "search", given.gallery, given.photo, "--json"]
    ways = {
        "import": import_seconds,
        "search": lambda: run(*search),
        "tensorflow": lambda: run(given.tensorflow, "-c", "import tensorflow"),
    }
    for warm in ways.values():
        warm()
    took = in_turn(ways, max(given.rounds, 5))
    rows = [
        ["`import face2vec`", f"{statistics.median(took['import']):.3f} s"],
        ["`face2vec search`, whole process", f"{statistics.median(took['search']):.2f} s"],
        ['`python -c "import tensorflow"`', f"{statistics.median(took['tensorflow']):.2f} s"],
        ["… search / import tensorflow", f"{ratio(took['search'], took['tensorflow']):.2f}"],
        ["base install, without byte code", f"{installed_megabytes():.0f} MB"],
    ]
    publish("cold", "Cold start and installed size", table(["", "median"], rows),
            "python benchmarks/cold.py GALLERY PHOTO", PACKAGES)  # fmt: skip


if __name__ == "__main__":
    main()
