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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from crops import SIDE, Crops
from onnx_on_torch import traced
from student import DIMENSION, Student

WARM_UP, FLAT = 0.02, 0.3
"""Shares of the time in which the rate rises, and until which it stays the highest."""
RATE, RATE_OF_KERNELS, DECAY = 4e-3, 5.0, 1e-2
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.99), 1e-8
SIMILARITIES = 8.0


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
            for same in alike.values():
                turned = self._directions(torch.stack([lying for _, lying, _ in same]))
                for (p, _, tall), one in zip(same, turned, strict=True):
                    outputs, inputs = p.shape[0], p[0].numel()
                    scale = max(1.0, outputs / inputs) ** 0.5
                    step = (one.T if tall else one).reshape(p.shape)
                    p.mul_(1 - DECAY * rate).add_(step, alpha=-RATE_OF_KERNELS * rate * scale)

    def _directions(self, x: Any) -> Any:
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        x = x.bfloat16() if x.is_cuda else x
        for _ in range(5):
            squared = x @ x.mT
            x = 3.4445 * x + (-4.7750 * squared + 2.0315 * (squared @ squared)) @ x
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
        self.torch = torch
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
            whole = torch.cat([torch.nn.functional.normalize(one) for one in several], 1)
            return whole if self.axes is None else whole @ self.axes

    def shorten(self, faces: Any, batch: int, count: int) -> float:
        """Find the axes; returns the share of the squared length that they keep."""
        moments = 0
        for start in range(0, count - batch + 1, batch):
            crops = faces[start : start + batch].float() / 127.5 - 1
            both = self(crops) + self(crops.flip(3))
            both = torch.nn.functional.normalize(both).double()
            moments = moments + both.T @ both
        values, axes = torch.linalg.eigh(moments)
        self.axes = axes.flip(1)[:, :DIMENSION].float().contiguous()
        return float(values.flip(0)[:DIMENSION].sum() / values.sum())


def train(given: argparse.Namespace) -> None:
    """Train until the deadline."""
    started = time.time()
    torch.manual_seed(given.seed)
    torch.set_float32_matmul_precision("high")
    device = given.device
    cuda = device == "cuda"
    torch._dynamo.config.suppress_errors = True
    compiled = cuda and not given.eager
    out = given.folder / "out"
    out.mkdir(exist_ok=True)
    say = _Log(out / "log.txt")
    deadline_file = given.folder / "deadline"

    def deadline() -> float:
        told = deadline_file.read_text().strip() if deadline_file.exists() else ""
        return float(told) if told else started + given.seconds

    def synchronized() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    batch = given.batch
    crops = Crops(batch, device, given.folder, compiled)
    crops.look()
    held = torch.from_numpy(np.load(given.folder / "held.npy")).to(device)
    say(f"{crops.count:,} faces, {len(held):,} held out, torch {torch.__version__}")
    teacher = Teacher(given.teacher, batch, device, compiled)
    kept = teacher.shorten(crops.faces, batch, min(crops.count, 16 * batch))
    say(f"{time.time() - started:.0f} s: teachers are ready, {kept:.4f} of the length is kept")
    held = held[: len(held) // batch * batch]
    views = (held.float() / 127.5 - 1).split(batch)
    wanted = torch.cat([teacher(one) + teacher(one.flip(3)) for one in views])
    wanted = torch.nn.functional.normalize(wanted)
    network = Student().to(device)
    say(f"{sum(p.numel() for p in network.parameters()) / 1e6:.3f} M numbers")
    optimizer = Muon(network)

    def forward(x: Any, targets: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=cuda):
            embeddings = network(x)
        return loss_of(embeddings, targets)

    run = torch.compile(forward) if compiled else forward

    def measured() -> str:
        network.eval()
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=cuda):
            found = torch.cat([network(one) for one in views])
        network.train()
        found = torch.nn.functional.normalize(found)
        off = (found @ found.T - wanted @ wanted.T).square().mean().sqrt()
        return f"cosine {float((found * wanted).sum(1).mean()):.4f}, similarities ± {off:.4f}"

    steps, saved, told, lost = 0, time.time(), time.time(), torch.zeros((), device=device)
    first = None
    end = deadline()
    spent = dict.fromkeys(("crops", "teacher", "student", "muon"), 0.0)
    while True:
        now = time.time()
        if first is None and steps == 20:
            first = now  # the compilation is over
        reached = 0.0 if first is None else (now - first) / max(end - first, 1.0)
        if reached >= 1 or (given.steps and steps >= given.steps):
            break
        timing = steps % 200 == 50
        marks = [synchronized()] if timing else []
        seen, shown = crops.make(mixed=0.5 if reached < 0.75 else 0.2)
        if timing:
            marks.append(synchronized())
        targets = teacher(seen)
        if timing:
            marks.append(synchronized())
        loss, away = run(shown, targets)
        loss.backward()
        if timing:
            marks.append(synchronized())
        optimizer.step(rate_at(reached) if first is not None else RATE * (steps + 1) / 200)
        for p in network.parameters():
            p.grad = None
        if timing:
            marks.append(synchronized())
            spent = dict(zip(spent, np.diff(marks) * 1000, strict=True))
        lost, away = loss.detach(), away.detach()
        steps += 1
        if steps % 25 == 0:
            float(lost)  # waits, so that the clock is true
            end = deadline()
            crops.look()
        if time.time() - told > given.every or steps in (1, 20, 100):
            told = time.time()
            parts = ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items())
            say(
                f"{told - started:.0f} s, {reached:.3f}: step {steps:,}, {crops.count:,} faces, "
                f"loss {float(lost):.4f} ({float(away):.4f}), held out {measured()}; {parts}"
            )
        if time.time() - saved > 60:
            save(network, teacher.axes, out)
            saved = time.time()
    say(f"{time.time() - started:.0f} s: {steps:,} steps of {batch}, held out {measured()}")
    save(network, teacher.axes, out)
    (out / "facts.json").write_text(json.dumps({"steps": steps, "batch": batch, "kept": kept}))
    (given.folder / "done").touch()
    say("written")


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
        np.savez(out / f"weights-{number}.npz", **{name: state[name] for name in names[number::2]})
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
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--every", type=float, default=20, help="seconds between lines of the log")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
