"""Embedding alone, against the bare runtime on the same graph and batch.

    python benchmarks/embed.py MODEL...

A MODEL is anything that ``Face2Vec(model=…)`` takes. Ours takes uint8 crops, standardises them,
runs the network and normalises; the bare runtime gets a standardised float batch and its own
default settings with all cores.
"""

from __future__ import annotations

import os
import statistics
from functools import partial

import numpy as np
from common import arguments, in_turn, publish, ratio, seconds, table

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.encoder import Encoder
from face2vec.models import load_model, standardize
from face2vec.runtime.packages import import_onnxruntime, import_openvino
from face2vec.runtime.select import choose_runtime

RUNTIMES = ("onnxruntime", "openvino")
PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")


def bare(runtime: str, path: str, batch: np.ndarray):
    """One call of the runtime, without face2vec."""
    if runtime == "onnxruntime":
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: batch})[0]
    compiled = import_openvino().Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return lambda: next(iter(compiled([batch]).values()))


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5, help="runs a round")
    given = parser.parse_args()
    ways = {}
    names = []
    for wanted in given.models:
        model = load_model(wanted)
        names.append(model.description.key)
        side = model.description.input_size
        rng = np.random.default_rng(0)
        crops = rng.integers(0, 256, (given.batch, side, side, 3), dtype=np.uint8)
        batch = standardize(crops, model.description)
        for runtime in RUNTIMES:
            encoder = Encoder(model, DetectorSettings(), choose_runtime(runtime))
            run = bare(runtime, str(model.path), batch)
            if not model.description.mirror:
                expected = run() / np.linalg.norm(run(), axis=1, keepdims=True)
                np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-3)

            def rate(do) -> float:
                do()
                return statistics.median(given.batch / seconds(do) for _ in range(given.runs))

            ways[model.description.key, runtime, "bare"] = partial(rate, run)
            ways[model.description.key, runtime, "ours"] = partial(
                rate, partial(encoder.embed, crops)
            )
    rates = in_turn(ways, given.rounds)
    rows = []
    for name in names:
        for runtime in RUNTIMES:
            ours, theirs = rates[name, runtime, "ours"], rates[name, runtime, "bare"]
            rows.append(
                [name, runtime, f"{statistics.median(theirs):.1f}",
                 f"{statistics.median(ours):.1f}", f"{ratio(ours, theirs):.2f}",
                 f"{ratio(ours, rates[names[0], runtime, 'ours']):.1f}"]
            )  # fmt: skip
    publish(
        "embed",
        f"Embedding alone, batches of {given.batch}",
        table(["model", "runtime", "bare, faces/s", "face2vec, faces/s", "face2vec / bare",
               f"times {names[0]}"], rows),
        "python benchmarks/embed.py MODEL...",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
