"""Measures one encoder in a separate process: its faces in photos, its speed and its memory.

``python -m face2vec.evaluation.measuring FOLDER`` is that process. Its job and its results are
files in the folder, because packages may print anything to standard output.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from face2vec.errors import Face2VecError, ModelError
from face2vec.evaluation.encoders import EncodedFace, PhotoEncoder, open_encoder
from face2vec.evaluation.encoders.seam import described

BATCH = 32
"""Crops per batch for the timing of the network alone."""
RUNS = 7
"""Number of timed batches, of which the median is used."""
BLOCK = 64
"""Photos per timed block; the median of the blocks is used."""
WHY = "why"
JOB, FIGURES, FACES, REASON = "job.json", "figures.json", "faces.npz", "reason.txt"


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of one encoder.

    Attributes:
        name: name of the encoder.
        dimension: dimension of an embedding.
        weights: SHA-256 in hexadecimal of the network's weights.
        weights_bytes: size of the weights on disk.
        runs_on: runtime and precision.
        photos_per_second: speed from files to embeddings, sequential or overlapped as the encoder
            works; median over blocks of photos.
        faces_per_second: speed of the embedding network with its standardisation, in batches of
            `BATCH` crops; median.
        peak_bytes: peak memory of the process with Python and the packages, on Linux including
            its child processes; None if the system does not report it.
        why: reasons of photos that could not be read, or on which the encoder failed.
        found: the face nearest the centre of each photo that has a face.
    """

    name: str
    dimension: int
    weights: str
    weights_bytes: int
    runs_on: str
    photos_per_second: float
    faces_per_second: float
    peak_bytes: int | None
    why: dict[Path, str]
    found: dict[Path, EncodedFace]


def measured(
    name: str, photos: Sequence[Path], *, runtime: str = "auto", progress: bool = False
) -> Measured:
    """Encode photos in a separate process, and measure its speed and memory.

    Args:
        name: name of the encoder, see `open_encoder`.
        photos: paths of the photos.
        runtime: runtime of face2vec's own models.
        progress: whether the process shows a progress bar on standard error.

    Raises:
        ModelError: the encoder is not available, or found no face in any photo.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = {"encoder": name, "photos": list(map(str, photos)), "runtime": runtime,
               "progress": progress}  # fmt: skip
        (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __name__, place],
            stdout=subprocess.DEVNULL,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            check=False,
        )
        if done.returncode:
            raise ModelError(_reason(folder, done.returncode))
        figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        with np.load(folder / FACES, allow_pickle=False) as arrays:
            found = {
                photos[row]: EncodedFace(tuple(box), embedding)
                for row, box, embedding in zip(
                    arrays["rows"], arrays["boxes"].tolist(), arrays["embeddings"], strict=True
                )
            }
    why = {photos[int(row)]: reason for row, reason in figures.pop(WHY).items()}
    return Measured(why=why, found=found, **figures)


def _reason(folder: Path, status: int) -> str:
    if (folder / REASON).is_file():
        return (folder / REASON).read_text(encoding="utf-8")
    if status < 0:
        return f"its process was ended by signal {-status}; check that there is enough memory"
    return f"its process ended with exit status {status}"


def _measure(folder: Path, encoder: PhotoEncoder, job: dict[str, Any]) -> None:
    from tqdm import tqdm

    photos = job["photos"]
    rows, faces, failures = [], [], dict[int, str]()
    times = [time.perf_counter()]
    beside, looked = 0, times[0]
    bar = tqdm(encoder.encode(map(Path, photos)), encoder.name, len(photos), unit="photo",
               disable=not job["progress"], dynamic_ncols=True)  # fmt: skip
    for row, photo in enumerate(bar):
        times.append(time.perf_counter())
        if times[-1] > looked + 0.5:
            beside, looked = max(beside, children_memory()), times[-1]
        if photo.failure:
            failures[row] = photo.failure
        if (face := photo.centre_face) is not None:
            rows.append(row)
            faces.append(face)
    if not faces:
        first = f"; the first failure: {next(iter(failures.values()))}" if failures else ""
        raise ModelError(f"it found no face in any of {len(photos):,} photos{first}")
    figures = {
        "name": encoder.name,
        "dimension": encoder.dimension,
        "weights": encoder.weights,
        "weights_bytes": encoder.weights_bytes,
        "runs_on": encoder.runs_on,
        "photos_per_second": median_rate(times),
        "faces_per_second": _embedding_rate(encoder),
        "peak_bytes": None if (own := peak_memory()) is None else own + beside,
        WHY: failures,
    }
    (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")
    np.savez(
        folder / FACES,
        rows=np.array(rows),
        boxes=np.array([face.box for face in faces], np.float64),
        embeddings=np.stack([face.embedding for face in faces]),
    )


def median_rate(times: Sequence[float]) -> float:
    """Median photos per second over blocks of `BLOCK` photos, or a fifth of a smaller number.

    Args:
        times: time in seconds at the start and after each photo.
    """
    count = len(times) - 1
    block = max(1, min(BLOCK, count // 5))
    return statistics.median(
        block / max(times[start + block] - times[start], 1e-9)
        for start in range(0, count - block + 1, block)
    )


def _embedding_rate(encoder: PhotoEncoder) -> float:
    shape = (BATCH, *encoder.crop_size, 3)
    crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoder.embed(crops)  # the first compiles
    rates = []
    for _ in range(RUNS):
        start = time.perf_counter()
        encoder.embed(crops)
        rates.append(BATCH / (time.perf_counter() - start))
    return statistics.median(rates)


def peak_memory() -> int | None:
    """Peak memory of this process in bytes; None if the system does not report it.

    Linux's ``ru_maxrss`` is not used, because a process inherits it from its parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def children_memory() -> int:
    """Current memory of the child processes in bytes; 0 on systems other than Linux.

    Memory that processes share is divided among them.
    """
    total = 0
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread or process has ended meanwhile
            for child in listed.read_text(encoding="utf-8").split():
                sizes = Path(f"/proc/{child}/smaps_rollup").read_text(encoding="utf-8")
                total += sum(
                    int(line.split()[1]) * 1024
                    for line in sizes.splitlines()
                    if line.startswith("Pss:")
                )
    return total


def _main(folder: Path) -> int:
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    try:
        with closing(open_encoder(job["encoder"], job["runtime"])) as encoder:
            _measure(folder, encoder, job)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # another package may raise anything, which the table reports
        if os.environ.get("FACE2VEC_DEBUG") == "1":
            traceback.print_exc()
        reason = str(error) if isinstance(error, Face2VecError) else described(error)
        (folder / REASON).write_text(reason, encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
