r"""Train the second opinion on faces: is it an upright face, how much is covered, is it a child.

    KERAS_BACKEND=torch python training/second_opinion.py --faces FACES.tar --table FACES.csv \
        --not-faces NOT_FACES.npz --out runs/opinion

FACES.tar holds aligned crops, and its table says which are held out, the age where it is known, and
the set; there may be several. NOT_FACES.npz holds what the cascade takes for faces in photos that
hold none: ``crops`` (n, side, side, 3), cut by its landmarks, and ``src`` (n,), the photo; see
not_faces.py.
"""

from __future__ import annotations

import argparse
import csv
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from PIL import Image

from face2vec.detection.opinion import SIDE
from face2vec.models import load_model
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.training.augment import Augmentation, masked
from face2vec.training.batches import Batch
from face2vec.training.blocks import convolution, each_channel
from face2vec.training.export import export
from face2vec.training.faces import joined, load_faces
from face2vec.training.objectives import Learner, Tensors
from face2vec.training.trainer import Schedule, standardized, train

FACE, COVERED, CHILD = range(3)
CHILD_AGE = 13
REAL_MASKS, COVERED_BY_MASK = "rmfd", 0.45
TURNED_FROM = 50.0  # degrees
LIGHT = Augmentation(shift=0.03, scale=0.06, turn=12.0, occlusion=0.0, low_resolution=0.3)


def opinion_network() -> keras.Model:
    """About 30,000 weights; from (n, 64, 64, 3) to three logits (n, 3)."""
    crops = keras.Input((SIDE, SIDE, 3), name="crops")
    x = convolution(crops, "stem", 16, 3, stride=2)
    for number, (filters, stride) in enumerate(
        ((32, 1), (48, 2), (48, 1), (96, 2), (96, 1), (128, 2)), 1
    ):
        x = each_channel(x, f"block_{number}_each", 3, stride=stride)
        x = convolution(x, f"block_{number}_all", filters, 1)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(crops, layers.Dense(3, name="logits")(x), name="opinion")


class Judge:
    """Binary cross-entropies of the three outputs, each over the crops where it is known."""

    parts: tuple[str, ...] = ("face", "covered", "child")

    def __call__(self, given: Any, wanted: Tensors) -> tuple[Any, Tensors]:
        """The loss, and its three parts."""
        logits = ops.cast(given, "float32")
        truth, known = wanted["truth"], wanted["known"]
        losses = ops.maximum(logits, 0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
        parts = {
            name: ops.sum(losses[:, i] * known[:, i]) / ops.maximum(ops.sum(known[:, i]), 1.0)
            for i, name in enumerate(self.parts)
        }
        return sum(parts.values()), parts


class Examples:
    """Half faces; the others are what the cascade is wrong about, and faces that lie wrongly."""

    in_turn = False

    def __init__(self, crops: Any, ages: Any, real_masks: Any, others: Any, size: int) -> None:
        self._crops, self._ages, self._masks, self._others = crops, ages, real_masks, others
        self._size = size

    def plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of faces of each batch."""
        order = np.random.default_rng((5, epoch)).permutation(len(self._crops))
        return [order[i : i + self._size] for i in range(0, len(order) - self._size, self._size)]

    def make(self, epoch: int, rows: NDArray[np.int64]) -> Batch:
        """The examples of a batch."""
        rng = np.random.default_rng((5, epoch, int(rows[0])))
        made = [self._example(int(row), rng) for row in rows]
        crops, truth, known = (np.stack(values) for values in zip(*made, strict=True))
        return Batch(crops, {"truth": truth.astype("f4"), "known": known.astype("f4")})

    def _example(self, row: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        kind = rng.random()
        crop = self._crops[row]
        if kind < 0.30:
            other = self._others[rng.integers(len(self._others))]
            if rng.random() < 0.3:
                other = np.ascontiguousarray(np.rot90(other, rng.integers(4)))
            return LIGHT.apply(other, SIDE, rng), (0, 0, 0), (1, 0, 0)
        if kind < 0.42:
            turn = rng.uniform(TURNED_FROM, 360 - TURNED_FROM)
            return moved(crop, turn, rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1, 2)), \
                (0, 0, 0), (1, 0, 0)  # fmt: skip
        if kind < 0.5:
            scale = rng.choice([rng.uniform(0.35, 0.55), rng.uniform(1.8, 2.6)])
            shift = rng.uniform(-0.2, 0.2, 2)
            if rng.random() < 0.6:
                angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
                shift = rng.uniform(0.4, 0.9) * np.array([np.cos(angle), np.sin(angle)])
            return moved(crop, rng.uniform(-30, 30), scale, shift), (0, 0, 0), (1, 0, 0)
        covered, age = 0.0, self._ages[row]
        if self._masks[row]:
            covered = COVERED_BY_MASK
        elif rng.random() < 0.15:
            crop, covered = masked(crop, rng), COVERED_BY_MASK
        image = LIGHT.apply(crop, SIDE, rng)
        if rng.random() < 0.15:
            share = rng.uniform(0.1, 0.6)
            image = image.copy()
            wide = rng.uniform(share, 1.0)
            high = min(1.0, share / wide)
            left, top = rng.uniform(0, 1 - wide + 1e-6), rng.uniform(0, 1 - high + 1e-6)
            part = tuple(slice(int(a * SIDE), int((a + b) * SIDE)) for a, b in
                         ((top, high), (left, wide)))  # fmt: skip
            image[part] = rng.integers(0, 256, 3)
            covered = max(covered, wide * high)
        known = (1, 1, age >= 0)
        return image, (1, covered, 0 <= age < CHILD_AGE), known


def moved(crop: Any, degrees: float, scale: float, shift: Any) -> Any:
    """A crop at ``SIDE``, turned, scaled and shifted by a fraction of its side."""
    side = crop.shape[0]
    radians = np.deg2rad(degrees)
    a, b = np.cos(radians) * side / SIDE / scale, np.sin(radians) * side / SIDE / scale
    centre = side / 2 + np.asarray(shift) * side
    half = SIDE / 2
    data = (a, -b, centre[0] - half * (a - b), b, a, centre[1] - half * (b + a))
    border = side
    padded = Image.fromarray(np.pad(crop, ((border, border), (border, border), (0, 0)), "reflect"))
    data = (data[0], data[1], data[2] + border, data[3], data[4], data[5] + border)
    return np.asarray(
        padded.transform((SIDE, SIDE), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    )


def facts_of(tables: Sequence[str], archives: Sequence[str]) -> list[dict[str, str]]:
    """The rows of the tables in the order in which the archives' faces are loaded."""
    facts = []
    for table, archive in zip(tables, archives, strict=True):
        with Path(table).open(newline="", encoding="utf-8") as stream:
            rows = {row["file"]: row for row in csv.DictReader(stream)}
        with tarfile.open(archive) as tar:
            facts += [rows[name] for name in sorted(m.name for m in tar.getmembers() if m.isfile())]
    return facts


def main() -> None:
    """Train, and write ``opinion.onnx``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", required=True, action="append")
    parser.add_argument("--table", required=True, action="append")
    parser.add_argument("--not-faces", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    description = load_model("mini").description
    faces = joined(
        [
            load_faces(faces, description, table=table, aligned=True)
            for faces, table in zip(given.faces, given.table, strict=True)
        ]
    )
    facts = facts_of(given.table, given.faces)
    ages = np.array([int(float(f["age"])) if f["age"] else -1 for f in facts])
    real = np.array([f["set"] == REAL_MASKS for f in facts])
    with np.load(given.not_faces, allow_pickle=False) as stored:
        others, sources = stored["crops"], stored["src"]
    held_source = np.array([hash_of(name) % 5 == 0 for name in sources])
    assert faces.held_out is not None
    held = np.flatnonzero(faces.held_out)[::2]
    learn = ~faces.held_out
    network = opinion_network()
    examples = Examples(faces.crops[learn], ages[learn], real[learn], others[~held_source], 128)

    def measure() -> dict[str, float]:
        rng = np.random.default_rng(0)
        shown = np.stack([LIGHT.apply(faces.crops[i], SIDE, rng) for i in held])
        wrong = np.stack([LIGHT.apply(one, SIDE, rng) for one in others[held_source][:4000]])
        over = np.stack([moved(faces.crops[i], 180, 1, (0, 0)) for i in held[::4]])
        face, no, down = (network.predict(standardized(c), verbose=0) for c in (shown, wrong, over))
        limit = np.quantile(face[:, FACE], 0.002)
        child = (ages[held] >= 0) & (ages[held] < CHILD_AGE)
        grown = ages[held] >= 18
        return {
            "refused": float((no[:, FACE] < limit).mean()),
            "upside_down_refused": float((down[:, FACE] < limit).mean()),
            "child_auc": auc(face[child, CHILD], face[grown, CHILD]),
        }

    schedule = Schedule(epochs=given.epochs, rate=3e-3, optimizer="muon", warm_up=0.05)
    train(Learner(network, Judge(), False), examples, schedule, given.out, measure=measure)
    export(
        network,
        given.out / "opinion.onnx",
        ModelDescription("opinion", 3, SIDE, "landmarks", template=FIVE_POINTS),
    )


def auc(positive: Any, negative: Any) -> float:
    """Area under the ROC curve."""
    order = np.concatenate([positive, negative]).argsort().argsort() + 1
    n, m = len(positive), len(negative)
    return float((order[:n].sum() - n * (n + 1) / 2) / (n * m))


def hash_of(name: str) -> int:
    """A number of a name that is the same in every run."""
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(str(name)))


if __name__ == "__main__":
    main()
