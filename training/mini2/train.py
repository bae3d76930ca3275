"""Distils `mini2` from its teachers on one GPU.

    python training/mini2/train.py FOLDER --teacher TEACHER.onnx … --seconds 600

Needs PyTorch, NumPy, Pillow and onnx, not face2vec. FOLDER has ``held.npy``, faces that are only
measured on, and ``faces-*.npy``, see `faces.py`; those that appear during the training are read,
too. The weights are written to ``FOLDER/out`` each minute and at the end; `export.py` makes a model
of them.

The student follows the embeddings of the teachers, joined and projected on the axes that keep most
of their cosines, of crops that are new at each step (Beyer et al., Knowledge distillation: a good
teacher is patient and consistent, 2022); see `crops.py`. The rate follows the clock, so that the
training ends in time on any GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from crops import SIDE, Crops
from onnx_on_torch import traced
from student import DIMENSION, Block, Convolution, Student

WARM_UP, FLAT = 0.02, 0.3
"""Shares of the time in which the rate rises, and until which it stays the highest."""
RATE, RATE_OF_KERNELS, DECAY = 4e-3, 5.0, 1e-2
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.99), 1e-8
SIMILARITIES = 8.0
CALMER, LEAST_STRENGTH = 0.7, 0.2
"""Share of the time from which crops become more like the faces themselves, and how much so."""
COMPILED = 20  # steps after which everything is compiled; these do not learn
SECONDS_TO_END = 4.0  # to write the weights, and for what the GPU has still to do


class Muon:
    """Muon for matrices, Adam for all others, as in `face2vec.training.muon`."""

    def __init__(self, network: Any) -> None:
        named = list(network.named_parameters())
        self.matrices = [p for n, p in named if p.ndim in (2, 4)]
        self.others = [p for n, p in named if p.ndim not in (2, 4)]
        self.means = [torch.zeros_like(p) for p in (*self.matrices, *self.others)]
        self.squares = [torch.zeros_like(p) for p in self.others]
        self.steps = 0

    def step(self, rate: float) -> None:
        """Update all numbers from their gradients."""
        self.steps += 1
        with torch.no_grad():
            count = len(self.matrices)
            slopes = [p.grad for p in (*self.matrices, *self.others)]
            means, averages = self.means[:count], self.means[count:]
            torch._foreach_lerp_(averages, slopes[count:], 1 - BETAS[0])
            torch._foreach_lerp_(
                self.squares, torch._foreach_mul(slopes[count:], slopes[count:]), 1 - BETAS[1]
            )
            lengths = torch._foreach_sqrt(self.squares)
            torch._foreach_add_(lengths, EPSILON)
            unbiased = math.sqrt(1 - BETAS[1] ** self.steps) / (1 - BETAS[0] ** self.steps)
            torch._foreach_addcdiv_(self.others, averages, lengths, value=-rate * unbiased)
            torch._foreach_lerp_(means, slopes[:count], 1 - MOMENTUM)
            ahead = torch._foreach_lerp(slopes[:count], means, MOMENTUM)
            alike: dict[tuple[int, int], list[Any]] = {}
            for p, one in zip(self.matrices, ahead, strict=True):
                matrix = one.reshape(len(one), -1)  # (outputs, inputs)
                tall = matrix.shape[0] > matrix.shape[1]
                lying = matrix.T if tall else matrix
                alike.setdefault(tuple(lying.shape), []).append((p, lying, tall))
            torch._foreach_mul_(self.matrices, 1 - DECAY * rate)
            for same in alike.values():
                turned = directions(torch.stack([lying for _, lying, _ in same]))
                for (p, _, tall), one in zip(same, turned, strict=True):
                    outputs, inputs = p.shape[0], p[0].numel()
                    scale = max(1.0, outputs / inputs) ** 0.5
                    step = (one.T if tall else one).reshape(p.shape)
                    p.add_(step, alpha=-RATE_OF_KERNELS * rate * scale)

    def forget(self) -> None:
        """Begin again without momentum."""
        self.steps = 0
        for state in (*self.means, *self.squares):
            state.zero_()


def directions(x: torch.Tensor) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values set to about 1."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(5):
        squared = torch.bmm(x, x.mT)
        squared = torch.baddbmm(squared, squared, squared, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, squared, x, beta=3.4445)
    return x.float()


def rate_at(reached: float) -> float:
    """The learning rate after a share of the time."""
    if reached < WARM_UP:
        return RATE * reached / WARM_UP
    if reached < FLAT:
        return RATE
    return RATE * max(0.0, (1 - reached) / (1 - FLAT))


def loss_of(embeddings: Any, targets: Any) -> Any:
    """``1 − cos``, and the squared differences of all similarities of the batch."""
    e, t = F.normalize(embeddings.float()), F.normalize(targets.float())
    away = (1 - (e * t).sum(1)).mean()
    return away + SIMILARITIES * (e @ e.T - t @ t.T).square().mean(), away


class Teacher:
    """The embeddings of several networks, joined and projected."""

    def __init__(self, paths: list[Path], batch: int, device: str, compiled: bool) -> None:
        half = {"cuda": torch.bfloat16, "cpu": torch.float32}[device]
        example = torch.zeros(batch, 3, SIDE, SIDE, device=device, dtype=half)
        self.networks = [traced(path, example) for path in paths]
        if compiled:
            self.networks = [torch.compile(one) for one in self.networks]
        self.half, self.axes = half, None

    def __call__(self, crops: Any) -> Any:
        """Embeddings of crops, float32 (n, 3, side, side), −1…1; float32 (n, d)."""
        with torch.no_grad():
            several = [one(crops.to(self.half)).float() for one in self.networks]
            whole = torch.cat([F.normalize(one) for one in several], 1)
            return whole if self.axes is None else whole @ self.axes

    def shorten(self, faces: Any, batch: int, count: int) -> float:
        """Find the axes; returns the share of the squared length that they keep."""
        moments = 0
        for start in range(0, count - batch + 1, batch):
            crops = faces[start : start + batch].float() / 127.5 - 1
            both = self(crops) + self(crops.flip(3))
            both = F.normalize(both).double()
            moments = moments + both.T @ both
        values, axes = torch.linalg.eigh(moments.cpu())
        self.axes = axes.flip(1)[:, :DIMENSION].float().contiguous().to(faces.device)
        return float(values.flip(0)[:DIMENSION].sum() / values.sum())


class Clock:
    """Share of the time of a training that is over.

    Args:
        folder: its file ``deadline``, if there is one, says when to end, in Unix time.
        seconds: how long the training takes otherwise, from now.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._file, self.started = folder / "deadline", time.time()
        self._end, self._first = self.started + seconds, 0.0

    def begin(self) -> None:
        """The networks are compiled: steps take their time from now on."""
        self._first = time.time()

    def look(self) -> None:
        """Read the deadline again."""
        if self._file.exists():
            self._end = float(self._file.read_text())

    @property
    def reached(self) -> float:
        """From 0 to 1, when there is still time to write the weights."""
        end, first = self._end - SECONDS_TO_END, self._first or self.started
        if time.time() >= end:
            return 1.0
        return (time.time() - first) / (end - first) if self._first else 0.0

    def __str__(self) -> str:
        return f"{time.time() - self.started:.0f} s, {self.reached:.3f}"


def train(given: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Train until the deadline."""
    torch.manual_seed(given.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 64  # blocks of several shapes share their code
    folder, device, batch = given.folder, given.device, given.batch
    cuda = device == "cuda"
    compiled = cuda and not given.eager
    clock = Clock(folder, given.seconds)
    crops = Crops(batch, device, folder, compiled)
    crops.look()
    held = torch.from_numpy(np.load(folder / "held.npy")).to(device)
    held = held[: len(held) // batch * batch]
    if not crops.count or not len(held):
        raise SystemExit(f"{folder} needs faces-1.npy, and held.npy with {batch} faces or more")
    say(f"{crops.count:,} faces, {len(held):,} held out, torch {torch.__version__}")
    teacher = Teacher(given.teacher, batch, device, compiled)
    kept = teacher.shorten(crops.faces, batch, min(crops.count, 16 * batch))
    say(f"{clock}: teachers are ready, {kept:.4f} of the length is kept")
    views = (held.float() / 127.5 - 1).split(batch)
    wanted = torch.cat([teacher(one) + teacher(one.flip(3)) for one in views])
    wanted = F.normalize(wanted)
    network = Student().to(device)
    if compiled:
        # Parts of the network, because the blocks of a stage are then compiled once.
        for part in network.modules():
            if isinstance(part, Block | Convolution):
                part.compile(dynamic=False)
        network.places.compile(dynamic=False)
    optimizer = Muon(network)
    say(f"{sum(p.numel() for p in network.parameters()) / 1e6:.3f} M numbers")

    def learn(shown: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for p in network.parameters():
            p.grad = None
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            embeddings = network(shown)
        loss, away = loss_of(embeddings, targets)
        loss.backward()
        return loss.detach(), away.detach()

    def measured() -> str:
        network.eval()
        with (
            torch.compiler.set_stance("force_eager"),
            torch.no_grad(),
            torch.autocast(device, torch.bfloat16, enabled=cuda),
        ):
            found = torch.cat([network(one) for one in views])
        network.train()
        found = F.normalize(found)
        off = (found @ found.T - wanted @ wanted.T).square().mean().sqrt()
        return f"held out: cosine {float((found * wanted).sum(1).mean()):.4f}, ± {off:.4f}"

    def synchronized() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    good = {name: value.clone() for name, value in network.state_dict().items()}
    spent: dict[str, float] = {}
    steps, told, saved = 0, time.time(), time.time()
    while (reached := clock.reached) < 1 and not 0 < given.steps <= steps:
        timed = steps % 200 == 50
        marks = [synchronized()] if timed else []
        strength = min(1.0, 1 - (reached - CALMER) / (1 - CALMER) * (1 - LEAST_STRENGTH))
        seen, shown = crops.make(strength)
        marks += [synchronized()] if timed else []
        targets = teacher(seen)
        marks += [synchronized()] if timed else []
        try:
            loss, away = learn(shown, targets)
        except Exception as error:
            if steps > 1 or not compiled:
                raise
            say(f"the network is not compiled: {error!r}"[:2_000])
            torch.compiler.set_stance("force_eager")
            compiled = False
            continue
        marks += [synchronized()] if timed else []
        optimizer.step(rate_at(reached) if steps >= COMPILED else 0.0)
        marks += [synchronized()] if timed else []
        if timed:
            names = ("crops", "teachers", "student", "optimizer")
            spent = dict(zip(names, np.diff(marks) * 1000, strict=True))
        steps += 1
        if steps == COMPILED:
            synchronized()
            clock.begin()
        if steps % 25 == 0:
            if not math.isfinite(float(loss)):  # also waits, so that the clock is true
                say(f"{clock}: step {steps:,}: the loss is {float(loss)}; some steps back")
                network.load_state_dict(good)
                optimizer.forget()
                continue
            clock.look()
            crops.look()
            if steps % 500 == 0:
                good = {name: value.clone() for name, value in network.state_dict().items()}
            if time.time() - saved > 60:
                save(network, teacher.axes, folder / "out")
                saved = time.time()
        if time.time() - told > given.every or steps in (1, COMPILED, 100):
            told = time.time()
            parts = ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items())
            say(f"{clock}: step {steps:,}, {crops.count:,} faces, loss {float(loss):.4f} "
                f"({float(away):.4f}), {measured()}; {parts}")  # fmt: skip
    if steps and not math.isfinite(float(loss)):
        network.load_state_dict(good)
    save(network, teacher.axes, folder / "out")
    facts = {"steps": steps, "batch": batch, "kept": kept}
    (folder / "out" / "facts.json").write_text(json.dumps(facts))
    say(f"{clock}: {steps:,} steps of {batch}, written; {measured()}")


class _Log:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        with self._path.open("a") as stream:
            stream.write(line + "\n")


def save(network: Any, axes: Any, out: Path) -> None:
    """Write the weights as two files of some ten megabytes, and the axes of the targets."""
    state = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    names = sorted(state, key=lambda name: -state[name].size)
    for number in range(2):
        writing = out / "weights.part"
        with writing.open("wb") as stream:
            np.savez(stream, **{name: state[name] for name in names[number::2]})
        writing.replace(out / f"weights-{number}.npz")
    np.save(out / "axes.npy", axes.cpu().numpy())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--teacher", type=Path, action="append", required=True)
    parser.add_argument(
        "--seconds",
        type=float,
        default=600,
        help="end so many seconds after the start, or when FOLDER/deadline says, in Unix time",
    )
    parser.add_argument("--steps", type=int, default=0, help="end after so many; 0 for no limit")
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of the log")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out, done = given.folder / "out", given.folder / "done"
    out.mkdir(exist_ok=True)
    done.unlink(missing_ok=True)
    say = _Log(out / "log.txt")
    try:
        train(given, say)
    except BaseException:
        say(traceback.format_exc())
        raise
    finally:
        done.touch()


if __name__ == "__main__":
    main()
