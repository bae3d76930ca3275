r"""Teach `mini` what its teacher computes, first block by block, then as a whole.

    python training/teach_mini.py train-faces.tar --table train-faces.csv \
        --teacher retail-0095.json --out runs/mini

``face2vec train`` distils any network with Keras, on whatever Keras runs on. This is the recipe of
the one that ships, in PyTorch and bfloat16: on two cores with AVX512-BF16 it learns from some 120
crops a second, and a strided depthwise convolution, of which oneDNN has no quick gradient in
bfloat16, is done as every other place of one that is not strided. Needs the ``train`` extra and
PyTorch. Killed and started again it goes on from its last checkpoint.

1. ``blocks``: each part of the network, two blocks or one, is given the teacher's maps and asked
   for its next ones. All parts learn at the same time and none waits for another.
2. ``hints``: the parts in a row, each given what the one before it gives. They follow the teacher's
   maps and, at the end, its embedding of the clean crop; the maps count less and less.
3. ``follow``: the embedding alone, `face2vec.training.losses.distillation`.

So far the network has the widths of its teacher.

4. ``wider``: its blocks get more channels between, which change nothing at first, and all of it
   follows the embedding again, faster and for longer.
5. ``clear``: slowly, from clearer crops, which are more like those that it will be used on.
6. ``small``: once more, every other crop small.
7. ``patient``: from the mean of the two before, wider again, from a high rate down to none.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from face2vec.encoding.embed import Embedder
from face2vec.models import ModelDescription, load_model
from face2vec.models.description import FIVE_POINTS
from face2vec.runtime.select import choose_runtime
from face2vec.training import networks
from face2vec.training.augment import Augmentation
from face2vec.training.batches import (
    Batch,
    RememberedBatches,
    Rows,
    clean_targets,
    remembered_targets,
    resized,
)
from face2vec.training.export import export
from face2vec.training.faces import Faces, load_faces
from face2vec.training.losses import distillation
from face2vec.training.mini import BETWEEN, BLOCKS, SIDE, SLOPE, SQUEEZED, STAGES
from face2vec.training.muon import (
    BETA_1,
    BETA_2,
    EPSILON,
    MOMENTUM,
    RATE_OF_KERNELS,
    STEPS,
    A,
    B,
    C,
)
from face2vec.training.recipe import HELD_OUT_SEED, TARGETS
from face2vec.training.stages import LEAST_VARIANCE, StageBatches, StageTeacher
from face2vec.training.trainer import embed, standardized, true_accept_rate

TENSORS = ("430", "462", "494", "509", "541", "573", "605", "620", "652")
"""In the graph of face-reidentification-retail-0095: what the parts of `mini` learn."""
Widths = tuple[tuple[int, int], ...]
BETWEEN_OF_TEACHER: Widths = ((128, 128), (256, 256), (512, 256))
BETWEEN_AT_FIRST: Widths = ((128, 128), (256, 384), (512, 512))
"""Channels in the middle of blocks, as `BETWEEN` has them for `mini`."""
BATCH = 64
HELD_OUT = 0.04
WEIGHT_DECAY = 1e-2
CHECKPOINT_SECONDS = 180.0
CORES = os.cpu_count() or 1
NOTED_EVERY, MEASURED_EVERY = 50, 1000  # steps

log = logging.getLogger("teach_mini")


class Phase(NamedTuple):
    """How long and how fast.

    Attributes:
        name: of its checkpoint.
        rate: the highest, AdamW's; reached after ``warm_up``.
        steps: over which it would fall to 0, along half a cosine.
        stop: steps done.
        warm_up: steps.
        hints: how much the mean of the shares not explained weighs at first; 0 at ``steps``.
        blocks: whether the parts learn apart from each other.
        between: channels in the middle of blocks.
        after: phases, from the mean of whose ends it starts; from the last one's if empty.
        shuffled: decides, with the seed, order and augmentation.
        how: the augmentation.
    """

    name: str
    rate: float
    steps: int
    stop: int
    warm_up: int
    hints: float = 0.0
    blocks: bool = False
    between: Widths = BETWEEN_OF_TEACHER
    after: tuple[str, ...] = ()
    shuffled: int = 0
    how: Augmentation = Augmentation.light_one()


PHASES = (
    Phase("blocks", 8e-3, 900, 900, 50, blocks=True),
    Phase("hints", 4e-3, 4000, 1491, 80, hints=10, shuffled=1),
    # Small and bad faces are what a network of this size has most to learn of.
    Phase("follow", 2e-3, 5600, 5600, 38, shuffled=2, how=Augmentation(low_resolution=0.25)),
    Phase("wider", 2e-3, 10000, 8000, 60, between=BETWEEN_AT_FIRST, shuffled=3,
          how=Augmentation(low_resolution=0.25)),
    Phase("clear", 5e-4, 2600, 2600, 20, between=BETWEEN_AT_FIRST, shuffled=4,
          how=replace(Augmentation.light_one(), low_resolution=0.25)),
    Phase("small", 4e-4, 1400, 1400, 20, between=BETWEEN_AT_FIRST, shuffled=5,
          how=replace(Augmentation.light_one(), low_resolution=0.5)),
    Phase("patient", 1.5e-3, 10000, 10000, 60, between=BETWEEN, after=("clear", "small"),
          shuffled=6, how=replace(Augmentation.light_one(), low_resolution=0.25)),
)  # fmt: skip


# --- the network, as `face2vec.training.mini` has it ------------------------------------------


class Convolution(nn.Module):
    """Convolution, batch normalisation and, mostly, a leaky ReLU."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1,
        active: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, momentum=0.05)
        self.active = active

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the same side, or of half of it."""
        step = self.conv.stride[0]
        if self.conv.groups > 1 and step > 1:
            x = F.conv2d(x, self.conv.weight, None, 1, self.conv.padding, 1, self.conv.groups)
            x = x[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv(x)
        x = self.norm(x)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.active else x


class Weighed(nn.Module):
    """Channels times what the means of all of them say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // SQUEEZED)
        self.channels = nn.Linear(channels // SQUEEZED, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the same shape."""
        y = F.leaky_relu(self.squeeze(x.mean((2, 3))), SLOPE)
        return x * torch.sigmoid(self.channels(y))[:, :, None, None]


class Block(nn.Module):
    """A bottleneck the other way round."""

    def __init__(self, inputs: int, outputs: int, between: int, stride: int, weighed: bool) -> None:
        super().__init__()
        self.wide = Convolution(inputs, between, 1)
        self.each = Convolution(between, between, 3, stride, between)
        self.narrow = Convolution(between, outputs, 1, active=False)
        self.weighed = Weighed(outputs) if weighed else nn.Identity()
        self.around = stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the same side, or of half of it."""
        y = self.weighed(self.narrow(self.each(self.wide(x))))
        return x + y if self.around else y


class Network(nn.Module):
    """`mini` in parts, each of which ends where a stage of the teacher does.

    Args:
        dimension: of the embedding.
        between: channels in the middle of the first block of each stage, and of its others.
    """

    def __init__(self, dimension: int, between: Widths = BETWEEN) -> None:
        super().__init__()
        self.between = between
        self.stem = Convolution(3, 32, 3, 2)
        self.stem_each = Convolution(32, 32, 3, 1, 32)
        self.blocks = nn.ModuleDict()
        for stage, (inputs, outputs) in enumerate(((32, 64), (64, 128), (128, 128)), 1):
            first, others = between[stage - 1]
            for place in range(1, BLOCKS[stage - 1] + 1):
                self.blocks[f"stage_{stage}_{place}"] = (
                    Block(inputs, outputs, first, 2, stage > 1)
                    if place == 1
                    else Block(outputs, outputs, others, 1, stage > 1)
                )
        self.widen = Convolution(128, 512, 1)
        self.weigh_places = nn.Conv2d(512, 512, SIDE // 16, groups=512, bias=False)
        self.weigh_places_norm = nn.BatchNorm2d(512, momentum=0.05)
        self.embedding = nn.Linear(512, dimension)

    def part(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """What the stage of that number gives; the last is the embedding."""
        if number == len(STAGES):
            x = self.weigh_places_norm(self.weigh_places(self.widen(x)))
            return self.embedding(x.flatten(1))
        if number == 0:
            x = self.stem_each(self.stem(x))
        names = list(self.blocks)
        start = names.index(STAGES[number - 1]) + 1 if number else 0
        for name in names[start : names.index(STAGES[number]) + 1]:
            x = self.blocks[name](x)
        return x

    @torch.no_grad()
    def wider(self, between: Widths) -> Network:
        """As wide as that, for now with the same embeddings: nobody listens to new channels."""
        if self.between == between:
            return self
        wider = Network(self.embedding.out_features, between)
        state = wider.state_dict()
        for name, narrow in self.state_dict().items():
            wide = state[name]
            if ".narrow." in name:
                wide.zero_()
            wide[tuple(slice(length) for length in narrow.shape)] = narrow
        return wider.to(memory_format=torch.channels_last)

    def in_keras(self) -> keras.Model:
        """The same network as Keras has it."""
        if self.between != BETWEEN:
            return self.wider(BETWEEN).in_keras()
        network = networks.build("mini", self.embedding.out_features)
        for layer in network.layers:
            if layer.weights:
                for variable, value in zip(layer.weights, self._of(layer.name), strict=True):
                    variable.assign(value)
        return network

    def _of(self, name: str) -> list[np.ndarray]:
        """The weights of a layer of Keras by its name."""
        names = [n for n, _ in self.named_modules()]
        path = next(n for n in names if n.removeprefix("blocks.").replace(".", "_") == name)
        module = self.get_submodule(path)
        if isinstance(module, nn.BatchNorm2d):
            held = [module.weight, module.bias, module.running_mean, module.running_var]
        elif isinstance(module, nn.Linear):
            held = [module.weight.T, module.bias]
        else:  # Keras keeps the one filter of each channel last, as it does the filters of all
            axes = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
            held = [module.weight.permute(axes)]
        return [value.detach().float().numpy() for value in held]


# --- steps ------------------------------------------------------------------------------------


class Muon:
    """`face2vec.training.muon`, all kernels of one shape at a time and in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        # No matrix: what has one axis, and depthwise kernels.
        matrix = {p: p.ndim > 1 and p.shape[1] > 1 for p in network.parameters()}
        self.kernels = [p for p in matrix if matrix[p]]
        self.others = [p for p in matrix if not matrix[p]]
        self.means = [torch.zeros_like(p) for p in self.kernels + self.others]
        self.squares = [torch.zeros_like(p) for p in self.others]
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step along the gradients, which are then forgotten."""
        self.steps += 1
        alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for kernel, mean in zip(self.kernels, self.means, strict=False):
            mean.lerp_(kernel.grad, 1 - MOMENTUM)
            ahead = _matrix(kernel.grad.lerp(mean, MOMENTUM))
            alike.setdefault(ahead.shape, []).append((kernel, ahead))
        for pairs in alike.values():
            turned = _directions(torch.stack([ahead for _, ahead in pairs]))
            for (kernel, _), way in zip(pairs, turned, strict=True):
                kernel.mul_(1 - rate * WEIGHT_DECAY)
                kernel.add_(_kernel(way, kernel), alpha=-RATE_OF_KERNELS * rate)
        unbiased = math.sqrt(1 - BETA_2**self.steps) / (1 - BETA_1**self.steps)
        means = self.means[len(self.kernels) :]
        for other, mean, square in zip(self.others, means, self.squares, strict=True):
            mean.lerp_(other.grad, 1 - BETA_1)
            square.lerp_(other.grad.square(), 1 - BETA_2)
            other.addcdiv_(mean, square.sqrt() + EPSILON, value=-rate * unbiased)
        for parameter in self.kernels + self.others:
            parameter.grad = None

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    def restore(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.means, self.squares, self.steps = state["means"], state["squares"], state["steps"]


def _matrix(kernel: torch.Tensor) -> torch.Tensor:
    """One row an input, one column an output."""
    return kernel.T if kernel.ndim == 2 else kernel.permute(2, 3, 1, 0).flatten(0, 2)


def _kernel(matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    outputs, inputs, *size = (*like.shape, 1, 1)[:4]
    kernel = matrix.reshape(*size, inputs, outputs).permute(3, 2, 0, 1)
    return kernel.reshape(like.shape)


def _directions(kernels: torch.Tensor) -> torch.Tensor:
    """`face2vec.training.muon.directions` of matrices of one shape, (n, inputs, outputs)."""
    _, inputs, outputs = kernels.shape
    x = kernels.transpose(1, 2) if inputs > outputs else kernels
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(STEPS):
        squared = x @ x.transpose(1, 2)
        x = A * x + (B * squared + C * squared @ squared) @ x
    x = x.transpose(1, 2) if inputs > outputs else x
    return x.float() * max(1.0, outputs / inputs) ** 0.5


# --- what is asked ----------------------------------------------------------------------------


def unexplained(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Share of the variance of the teacher's channels, as `face2vec.training.stages` has it."""
    with torch.no_grad():
        some = wanted[:, :, ::2, ::2] if wanted.ndim == 4 and wanted.shape[2] > 8 else wanted
        variance = some.float().var([a for a in range(some.ndim) if a != 1], unbiased=False)
        scale = variance.clamp_min(LEAST_VARIANCE * variance.mean()).rsqrt().to(given.dtype)
    away = (given - wanted) * (scale[None, :, None, None] if wanted.ndim == 4 else scale)
    return torch.linalg.vector_norm(away, dtype=torch.float32) ** 2 / away.numel()


class Lesson:
    """The batches of a phase and the loss of each.

    Args:
        phase: which.
        network: learns.
        teacher: path of its description.
        faces: to learn from.
        targets: the teacher's embeddings of the clean crops.
        seed: decides order and augmentation.
    """

    def __init__(
        self, phase: Phase, network: Network, teacher: str, faces: Faces, targets: np.ndarray,
        seed: int,
    ) -> None:  # fmt: skip
        self._phase, self._network, self._targets = phase, network, torch.from_numpy(targets)
        kwargs = {"side": SIDE, "size": BATCH, "seed": seed + phase.shuffled}
        if not (phase.blocks or phase.hints):
            self._batches = RememberedBatches(targets, faces, phase.how, **kwargs)
            return
        shapes = [tuple(networks.build("mini").get_layer(n).output.shape[1:]) for n in STAGES]
        asked = StageTeacher(load_model(teacher), choose_runtime(), TENSORS, shapes)
        self._batches = StageBatches(asked, STAGES, faces, phase.how, **kwargs)

    def batches(self, first: int, stop: int) -> Iterator[tuple[Rows, Batch]]:
        """The batches of steps ``first`` to ``stop``, with the rows of their faces."""
        an_epoch = len(self._batches.plan(0))
        while first < stop:
            epoch, start = divmod(first, an_epoch)
            plan = self._batches.plan(epoch)[start : start + stop - first]
            with ThreadPoolExecutor(CORES) as pool:
                for at in range(0, len(plan), CORES):
                    some = plan[at : at + CORES]
                    made = pool.map(lambda rows, epoch=epoch: self._batches.make(epoch, rows), some)
                    # All of them before the first is used: teacher and student beside each other
                    # wait for each other's threads, and take twice as long.
                    yield from zip(some, list(made), strict=True)
            first += len(plan)

    def loss(self, rows: Rows, batch: Batch, done: float) -> tuple[torch.Tensor, list[float]]:
        """Loss, and the figures to note: cosine or shares not explained.

        Args:
            rows: of the faces in the batch.
            batch: the crops and what the teacher says.
            done: share of the phase that is, 0…1.
        """
        maps = [_channels_first(batch.maps[name]).bfloat16() for name in batch.maps]
        x = _channels_first(standardized(batch.crops))
        count = len(STAGES) + 1
        with torch.autocast("cpu", torch.bfloat16):
            if self._phase.blocks:
                given = [self._network.part(n, y) for n, y in enumerate([x, *maps])]
                wanted = [*maps, torch.from_numpy(batch.targets["embedding"])]
                shares = [unexplained(*pair) for pair in zip(given, wanted, strict=True)]
                return sum(shares), [share.item() for share in shares]
            shares = []
            for number in range(count):
                x = self._network.part(number, x)
                if maps and number < len(maps):
                    shares.append(unexplained(x, maps[number]))
            x = x.float()
            wanted = self._targets[rows]
            loss = distillation(x, wanted)
            cosine = F.cosine_similarity(x, wanted).mean().item()
            figures = [loss.item(), cosine, *(share.item() for share in shares)]
            if shares:
                loss = loss + self._phase.hints * (1 - done) * sum(shares) / len(shares)
            return loss, figures


def _channels_first(maps: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(maps).permute(0, 3, 1, 2)  # memory stays as it is: channels last


def rate(phase: Phase, step: int) -> float:
    """Of a step, counted from 0."""
    if step < phase.warm_up:
        return phase.rate * (step + 1) / phase.warm_up
    done = (step - phase.warm_up) / (phase.steps - phase.warm_up)
    return phase.rate * 0.5 * (1 + math.cos(math.pi * done))


# --- all of it --------------------------------------------------------------------------------


def teach(phase: Phase, network: Network, lesson: Lesson, measure, checkpoint: Path) -> None:
    """One phase, from its checkpoint where there is one."""
    optimizer, step = Muon(network), 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.restore(state["optimizer"])
        step = state["step"]
    started = saved = time.monotonic()
    noted: list[list[float]] = []
    for rows, batch in lesson.batches(step, phase.stop):
        loss, figures = lesson.loss(rows, batch, step / phase.steps)
        loss.backward()
        optimizer.step(rate(phase, step))
        step += 1
        noted.append(figures)
        if step % NOTED_EVERY == 0:
            speed = len(noted) * BATCH / (time.monotonic() - started)
            means = " ".join(f"{mean:.3f}" for mean in np.mean(noted, axis=0))
            log.info("%s %d: %s; %.0f crops a second", phase.name, step, means, speed)
            started, noted = time.monotonic(), []
        if step % MEASURED_EVERY == 0 or step == phase.stop:
            log.info("%s %d: held out: cosine %.4f, TAR %.3f", phase.name, step, *measure())
            started, noted = time.monotonic(), []
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step == phase.stop:
            state = {"network": network.state_dict(), "optimizer": optimizer.state(), "step": step}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            saved = time.monotonic()


def mean_of(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The mean of what networks had learned at their checkpoints."""
    states = [torch.load(path)["network"] for path in checkpoints]
    return {
        name: torch.stack([state[name] for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }


def main() -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", help="a tar archive of aligned crops")
    parser.add_argument("--table", required=True, help="a CSV with the columns file and person")
    parser.add_argument("--teacher", required=True, help="description of the network to follow")
    parser.add_argument("--out", type=Path, required=True, help="gets checkpoints and the model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    teacher = Embedder(load_model(given.teacher), choose_runtime())
    description = ModelDescription(
        "mini", teacher.description.dimension, SIDE, "landmarks", template=FIVE_POINTS
    )
    faces = load_faces(given.faces, description, table=given.table, aligned=True)
    learn, held = faces.split(HELD_OUT, HELD_OUT_SEED)
    targets = remembered_targets(given.out / TARGETS, teacher, learn.crops)
    wanted, crops = clean_targets(teacher, held.crops), resized(held.crops, SIDE)
    torch.manual_seed(given.seed)
    network = Network(description.dimension, BETWEEN_OF_TEACHER)
    network = network.to(memory_format=torch.channels_last)

    def measure() -> tuple[float, float]:
        embeddings = embed(network.in_keras(), crops)
        cosine = float(np.sum(embeddings * wanted, axis=1).mean())
        return cosine, true_accept_rate(embeddings, held.people)

    for phase in PHASES:
        if phase.after:
            network.load_state_dict(mean_of([given.out / f"{name}.pt" for name in phase.after]))
            log.info("mean: held out: cosine %.4f, TAR %.3f", *measure())
        network = network.wider(phase.between)
        lesson = Lesson(phase, network, given.teacher, learn, targets, given.seed)
        teach(phase, network, lesson, measure, given.out / f"{phase.name}.pt")
    trained = network.in_keras()
    trained.save_weights(given.out / "mini.weights.h5")
    export(trained, given.out / "mini.onnx", description)


if __name__ == "__main__":
    main()
