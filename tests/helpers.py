"""Helpers for the tests of several modules."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face2vec import samples
from face2vec.fingerprint import DetectorFingerprint, Fingerprint, ModelFingerprint
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import State
from face2vec.gallery.rows import StoredFace
from face2vec.gallery.schema import FILE

posix_only = pytest.mark.skipif(
    os.name != "posix",
    reason="needs fork, signals, locks, pipes or devices as POSIX systems have them",
)
names_of_any_bytes = pytest.mark.skipif(
    sys.platform != "linux", reason="needs file names that are not UTF-8, which only Linux allows"
)


def needs(extra: str, *packages: str) -> None:
    """Skip a test if packages of an extra are not installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'face2vec[{extra}]'")


def needs_program(name: str, package: str) -> str:
    """Path of a program of the system; a test that needs it is skipped without it.

    Args:
        name: the program.
        package: the Debian package that has it; `.ci/run` installs it.
    """
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name} is not installed; apt-get install {package}")
    return found


class Started(subprocess.Popen[Any]):
    """A process that is killed if its ``with`` block fails, so that a test never waits for it."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def loaded_by(code: str) -> set[str]:
    """Names of the packages that a new process has imported after it has run the code."""
    report = "\nimport json, sys; print(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    command = [sys.executable, "-c", code + report]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=root)
    return set(json.loads(done.stdout))


def run_python(*arguments: object, code: str | None = None, **options: object) -> str:
    """What a new Python process prints that can import the package and the helpers of the tests."""
    here = Path(__file__).parent
    command = [sys.executable, *(["-c", code] if code else []), *map(str, arguments)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(path: Path) -> tuple[int, int, int]:
    """Identity of a file's content: it changes when the file is written, not when it is read."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def draw_lfw(folder: Path, people: int, photos: int, seed: int) -> None:
    """Write drawn people in LFW's form, two per fold; the last photo of the first has no face."""
    for number, person in enumerate(samples.people(people, seed=seed)):
        place = folder / f"P{number}"
        place.mkdir()
        for photo in range(photos):
            (place / f"P{number}_{photo + 1:04d}.jpg").write_bytes(person.photo(photo).jpeg())
    Image.linear_gradient("L").convert("RGB").save(folder / "P0" / f"P0_{photos:04d}.jpg")
    lines = [f"{people // 2}\t2"]
    for one in range(0, people, 2):
        first, other = f"P{one}", f"P{one + 1}"
        lines += [
            f"{first}\t1\t2",
            f"{other}\t{photos - 1}\t{photos}",
            f"{first}\t1\t{other}\t2",
            f"{first}\t{photos}\t{other}\t{photos - 1}",
        ]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class _Reads:
    """Calls each method on a new snapshot."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def stat_of(self, root: str, path: str) -> Any:
        with self._gallery.read() as now:
            return now.stat_of(f"{root.rstrip(os.sep)}{os.sep}{path}")

    def faces_of(self, photo: str | Path) -> list[StoredFace]:
        with self._gallery.read() as now:
            return now.embedded(now.faces_of(os.path.normpath(Path(photo).absolute())))

    def __getattr__(self, name: str) -> Any:
        def read(*args: Any, **options: Any) -> Any:
            with self._gallery.read() as now:
                return getattr(now, name)(*args, **options)

        return read


def reads(gallery: Gallery) -> _Reads:
    """Read from the current state of a gallery, as in ``reads(gallery).counts()``."""
    return _Reads(gallery)


def state_of(gallery: Gallery) -> State:
    with gallery.read() as now:
        return now.state


SHARED_LOCK = (1 << 30) + 2, 510
"""Where SQLite locks a file that is in use: first byte and length (its os.h)."""
_ASK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, int(sys.argv[3]), int(sys.argv[2]))
    except OSError:
        print("locked")
"""


def is_in_use(folder: Path) -> bool:
    """Whether another process finds the file of a gallery in use; on POSIX systems only."""
    return run_python(folder / FILE, *SHARED_LOCK, code=_ASK) == "locked\n"


def fake_fingerprint(dimension: int, key: str = "fake", **detector: Any) -> Fingerprint:
    """The fingerprint of a model and a detector that do not exist."""
    model = ModelFingerprint(
        key=key, origin=key, weights=64 * "0", dimension=dimension, input_size=112,
        alignment="landmarks", template=None, margin=[0, 0],
        standardization=["fixed", 127.5, 127.5], channels="RGB", mirror=False,
    )  # fmt: skip
    return Fingerprint(DetectorFingerprint(settings=detector), model)


def tiny_model(path: Path, seed: int) -> Path:
    """An ONNX file with its description: a fixed random projection of the reduced crop."""
    from onnx import TensorProto, helper, numpy_helper, save

    side, dimension, cell = 112, 64, 7
    inputs = 3 * (side // cell) ** 2
    weights = np.random.default_rng(seed).standard_normal((inputs, dimension)) / np.sqrt(inputs)
    nodes = [
        helper.make_node(
            "AveragePool", ["crops"], ["small"], kernel_shape=[cell] * 2, strides=[cell] * 2
        ),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dimension])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    save(model, path)
    described = {
        "dimension": dimension,
        "input_size": side,
        "alignment": "landmarks",
        "template": "face2vec",
        "standardization": "per-image",
        "layout": "NCHW",
    }
    path.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    return path
