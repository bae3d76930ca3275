"""The training loop: steps, checkpoints, and the curves of each epoch."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from face2vec.errors import SettingsError, TrainingError
from face2vec.evaluation.metrics import all_pairs, true_accepts
from face2vec.files import written_whole
from face2vec.training import OPTIMIZERS as OPTIMIZER_NAMES
from face2vec.training.batches import Batches, made_ahead, made_in_turn
from face2vec.training.muon import Muon
from face2vec.training.objectives import Learner
from face2vec.training.teachers import unit_rows

CHECKPOINT = "checkpoint.npz"
CURVES = "curves.csv"
CROPS = "crops"
PIXEL_MIDDLE = 127.5
FALSE_ACCEPT_RATE = 1e-3
OPTIMIZERS = dict(zip(OPTIMIZER_NAMES, (keras.optimizers.AdamW, Muon), strict=True))


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training.

    Attributes:
        epochs: number of epochs, if ``steps`` is not given.
        rate: the highest learning rate, reached after ``warm_up`` and then lowered to 0 along half
            a cosine.
        warm_up: share of the steps, 0…1.
        optimizer: ``"adamw"``, or ``"muon"``, which makes more progress per batch.
        weight_decay: weight decay, for kernels only.
        checkpoint_seconds: time between checkpoints inside an epoch.
        steps: number of steps over which the rate falls; None for those of ``epochs``.
        stop: the step at which the training ends early; None for all steps.
        measure_steps: fewest steps from one measurement to the next, where epochs are shorter.
    """

    epochs: int = 20
    rate: float = 3e-3
    warm_up: float = 0.05
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    checkpoint_seconds: float = 300.0
    steps: int | None = None
    stop: int | None = None
    measure_steps: int = 1

    def __post_init__(self) -> None:
        if (self.steps is not None and self.steps < 1) or (self.stop is not None and self.stop < 1):
            raise SettingsError(f"steps {self.steps} and stop {self.stop} must be at least 1")
        if self.epochs < 1 or self.rate <= 0 or not 0 <= self.warm_up < 1:
            raise SettingsError(
                f"epochs {self.epochs} must be at least 1, rate {self.rate} above 0 and warm_up "
                f"{self.warm_up} from 0 to below 1"
            )


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Attributes:
        step: number of finished steps.
        steps: number of steps of the whole training.
        epoch: number of the epoch, from 1.
        figures: loss and its parts, means of this epoch so far.
        crops_a_second: crops per second in this epoch so far.
    """

    step: int
    steps: int
    epoch: int
    figures: dict[str, float]
    crops_a_second: float


def standardized(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Standardise crops for training: (x − 127.5) / 127.5.

    Args:
        crops: RGB uint8 (n, side, side, 3).

    Returns:
        float32 (n, side, side, 3), −1…1.
    """
    pixels = crops.astype(np.float32)
    pixels -= PIXEL_MIDDLE
    pixels /= PIXEL_MIDDLE
    return pixels


def train(
    learner: Learner,
    batches: Batches,
    schedule: Schedule,
    folder: Path,
    *,
    measure: Callable[[], dict[str, float]],
    watch: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Train to the end of the schedule, from a checkpoint if there is one.

    A training that is killed and started again resumes from its last checkpoint with the same
    batches.

    Args:
        learner: the network and its objective; it is compiled here.
        batches: the batches; every epoch has the same number of them.
        schedule: length and learning rate.
        folder: folder for the checkpoint and the curves.
        measure: computes metrics on held-out faces, after each epoch, see ``measure_steps``.
        watch: called with the progress after each step.

    Raises:
        TrainingError: the loss is no longer finite, or the checkpoint belongs to another network.
        SettingsError: there are fewer faces than a batch needs.
    """
    an_epoch = len(batches.plan(0))
    if not an_epoch:
        raise SettingsError("there are fewer faces than a batch needs; make the batch smaller")
    steps = schedule.steps or schedule.epochs * an_epoch
    end = min(steps, schedule.stop or steps)
    rate = _rate(schedule, steps)
    more = {"half": learner.half} if schedule.optimizer == "muon" else {}
    optimizer = OPTIMIZERS[schedule.optimizer](rate, weight_decay=schedule.weight_decay, **more)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    learner.compile(optimizer=optimizer, jit_compile=False)
    optimizer.build(learner.trainable_variables)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    step = _restore(learner, checkpoint) if checkpoint.exists() else 0
    saved, measured = time.monotonic(), step
    made = made_in_turn if getattr(batches, "in_turn", False) else made_ahead
    while step < end:
        epoch = step // an_epoch
        started, crops = time.monotonic(), 0
        learner.reset_metrics()
        figures: dict[str, float] = {}
        left = batches.plan(epoch)[step - epoch * an_epoch :][: end - step]
        for batch in made(left, partial(batches.make, epoch)):
            learner.reached(step / steps)
            pixels = standardized(batch.crops)
            logs = learner.train_on_batch(
                {CROPS: pixels, **batch.maps} if batch.maps else pixels,
                batch.targets,
                return_dict=True,
            )
            figures = {name: float(value) for name, value in logs.items()}
            step += 1
            crops += len(batch.crops)
            if not np.isfinite(figures["loss"]):
                raise TrainingError(
                    f"the loss is {figures['loss']} at step {step}: the training diverged; lower "
                    f"the rate, which is {schedule.rate}; {checkpoint} is as it was before"
                )
            watch(Progress(step, end, epoch + 1, figures, crops / (time.monotonic() - started)))
            if time.monotonic() - saved > schedule.checkpoint_seconds:
                _save(learner, checkpoint, step)
                saved = time.monotonic()
        if step < end and step - measured < schedule.measure_steps:
            continue
        measured = step
        figures = {"epoch": epoch + 1, "step": step, "rate": float(rate(step)), **figures}
        figures |= measure()
        _note(folder / CURVES, figures)
        _save(learner, checkpoint, step)


def _rate(schedule: Schedule, steps: int) -> Any:
    warm_up = round(schedule.warm_up * steps)
    if not warm_up:
        return keras.optimizers.schedules.CosineDecay(schedule.rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=schedule.rate, warmup_steps=warm_up
    )


def embed(network: keras.Model, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings of crops.

    Args:
        network: returns embeddings, not normalised.
        crops: RGB uint8 (n, side, side, 3) of the network's size.

    Returns:
        float32 (n, d) of unit length.
    """
    parts = [
        network.predict_on_batch(standardized(crops[start : start + 64]))
        for start in range(0, len(crops), 64)
    ]
    return unit_rows(np.concatenate(parts))


def true_accept_rate(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], far: float = FALSE_ACCEPT_RATE
) -> float:
    """True accept rate at a false accept rate.

    Args:
        embeddings: float32 (n, d) of unit length.
        people: int64 (n,); faces with −1 are left out.
        far: the false accept rate.

    Returns:
        0…1; NaN if there are no genuine or no impostor pairs.
    """
    named = people >= 0
    return true_accepts(all_pairs(embeddings[named], people[named], highest_far=0), far).tar


def mean_of(checkpoints: Sequence[Path], network: keras.Model) -> None:
    """Set a network's weights to the mean of the final weights of several trainings.

    Args:
        checkpoints: checkpoint files of trainings of this network.
        network: the network whose weights are set.

    Raises:
        TrainingError: a checkpoint belongs to another network.
    """
    total: dict[str, NDArray[np.float64]] = {}
    for path in checkpoints:
        with np.load(path, allow_pickle=False) as stored:
            for name in (f"network/{i}" for i in range(len(network.weights))):
                total[name] = total.get(name, 0) + stored[name].astype(np.float64)
    for name, variable in zip(total, network.weights, strict=True):
        if total[name].shape != tuple(variable.shape):
            raise TrainingError(f"{checkpoints[0]} is the checkpoint of another network")
        variable.assign((total[name] / len(checkpoints)).astype(np.float32))


def _save(learner: keras.Model, path: Path, step: int) -> None:
    state = {name: ops.convert_to_numpy(v) for name, v in _variables(learner).items()}
    with written_whole(path) as stream:
        np.savez(stream, step=step, **state)


def _restore(learner: keras.Model, path: Path) -> int:
    with np.load(path, allow_pickle=False) as stored:
        variables = _variables(learner)
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        if shapes != {name: stored[name].shape for name in stored.files if name != "step"}:
            raise TrainingError(
                f"{path} is the checkpoint of another network; train into another folder"
            )
        for name, variable in variables.items():
            variable.assign(stored[name])
        return int(stored["step"])


def _variables(learner: keras.Model) -> dict[str, Any]:
    """All variables that a step changes, by a name that is the same in every run."""
    named = {f"network/{i}": v for i, v in enumerate(learner.weights)}
    return named | {f"optimizer/{i}": v for i, v in enumerate(learner.optimizer.variables)}


def _note(path: Path, figures: dict[str, float]) -> None:
    """Add a line to the curves; lines of repeated epochs are dropped."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < figures["epoch"]]
    table = StringIO()
    writer = csv.DictWriter(table, list(figures))
    writer.writeheader()
    writer.writerows([*rows, figures])
    with written_whole(path) as stream:
        stream.write(table.getvalue().encode())
