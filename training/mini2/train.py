"""Distils `mini2` from its teachers, on a GPU or a processor.

    python training/mini2/train.py FOLDER --teacher edgeface-xs.onnx --steps 10000

Needs PyTorch, NumPy, Pillow and onnx, on a processor face2vec[openvino] too. FOLDER has
``held.npy``, faces that are only measured on, and ``faces-*.npy``, see `faces.py`. The state is
written to ``FOLDER/out`` each minute; a training that was stopped goes on from it. `export.py`
makes a model of ``FOLDER/out/weights.npz``.

There are four phases. In the first, each part of the network is shown what its counterpart in
EdgeFace-XS, the first teacher, is given, and learns what that makes of it, all parts at the same
time (Li et al., Blockwisely supervised neural architecture search with knowledge distillation,
2020, section 3.1). In the next two the parts are connected, and learn the same maps and the
teacher's embedding. In the last one the network learns embeddings of the clean faces, averaged
with those of their mirror images; those of several teachers are joined and projected on the axes
that keep most of their cosines. With ``--seconds`` instead of ``--steps`` the rate follows the
clock, so that a training ends in time on any machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from crops import Crops, standardized
from network import DIMENSION
from onnx import numpy_helper
from student import MixingBlock, Student
from teacher import EMBEDDING, Teacher, maps_of_edgeface

WARM_UP, FLAT = 0.02, 0.15
"""Shares of a phase in which the rate rises, and until which it stays the highest."""
RATE_OF_KERNELS, DECAY = 5.0, 1e-2
LEAST_SIZE, LEAST_SIZE_OF_KERNELS = 0.02, 1e-3
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.99), 1e-8
SIMILARITIES = 8.0
LEAST_VARIANCE = 0.05, 1e-3
"""Of a channel, as shares of the median and of the mean over channels: one that hardly changes
teaches nothing."""
VARIANCES_EACH = 25  # steps
SETTLED_ON = 8_192  # faces, for the first weights of the last layer


class Phase(NamedTuple):
    """A part of the training."""

    name: str
    share: float
    """Of the time."""
    rate: float
    """The highest learning rate."""
    strength: float
    """Of the augmentation, see `Crops.make`."""
    hints: float = 0.0
    """Weight of the maps, beside 1 of the embeddings."""


PHASES = (
    Phase("blocks", 0.12, 4e-3, 0.7),
    Phase("hints", 0.28, 1e-3, 1.0, 3.0),
    Phase("calm", 0.52, 2.5e-4, 1.0, 2.0),
    Phase("follow", 0.08, 5e-5, 1.0),
)


class Muon:
    """Muon for kernels, Adam for all others.

    Steps are relative to the numbers that they change, because the teacher's maps are of very
    different sizes (You et al., Large batch training of convolutional networks, 2017, section 4).
    """

    def __init__(self, network: Any) -> None:
        named = list(network.named_parameters())
        kernels = {n for n, p in named if p.ndim > 1 and n.endswith(("weight", "kernel"))}
        self.matrices = [p for n, p in named if n in kernels]
        self.others = [p for n, p in named if n not in kernels]
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
            torch._foreach_div_(lengths, [size(p, p.numel(), LEAST_SIZE) for p in self.others])
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
                for (p, lying, tall), one in zip(same, turned, strict=True):
                    step = (one.T if tall else one).reshape(p.shape)
                    step = step * size(p, len(lying), LEAST_SIZE_OF_KERNELS)
                    p.add_(step, alpha=-RATE_OF_KERNELS * rate)

    def state(self) -> dict[str, Any]:
        """What `load` takes, to go on."""
        return {"steps": self.steps, "means": self.means, "squares": self.squares}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.steps, self.means, self.squares = state["steps"], state["means"], state["squares"]

    def forget(self) -> None:
        """Begin again without momentum."""
        self.steps = 0
        for state in (*self.means, *self.squares):
            state.zero_()


def size(x: torch.Tensor, count: int, least: float) -> torch.Tensor:
    """The root of the sum of squares over ``count``, but not less than ``least``."""
    return (x.norm() / math.sqrt(count)).clamp(min=least)


def directions(x: torch.Tensor) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values set to about 1."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16()
    for _ in range(5):
        squared = torch.bmm(x, x.mT)
        squared = torch.baddbmm(squared, squared, squared, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, squared, x, beta=3.4445)
    return x.float()


class Unexplained(torch.autograd.Function):
    """The share of the variance of maps that others do not explain, averaged over channels."""

    @staticmethod
    def forward(ctx: Any, given: Any, wanted: Any, variances: Any) -> Any:
        """The share of (…, channels) values."""
        off = (given - wanted).reshape(-1, wanted.shape[-1])
        ctx.save_for_backward(off, variances)
        ctx.like = given.shape, given.dtype
        return (off * off).sum(0).div(variances).mean() / len(off)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """The gradient of the first argument."""
        off, variances = ctx.saved_tensors
        shape, kind = ctx.like
        slope = off * (slopes[0] * 2 / (variances * off.numel()))
        return slope.reshape(shape).to(kind), None, None


class Lessons:
    """The losses of the phases that learn maps."""

    def __init__(self) -> None:
        self._variances: dict[str, torch.Tensor] = {}
        self._steps = 0

    def apart(self, network: Student, x: torch.Tensor, maps: dict[str, torch.Tensor]) -> Any:
        """The losses of all parts, each given the teacher's maps."""
        self._look(maps)
        losses, before = {}, x
        for name, part in network.parts.items():
            wanted = maps[name]
            if name == EMBEDDING:
                losses[name] = loss_of(part(before), wanted)[0]
            elif isinstance(part, MixingBlock):
                mixed = name.replace("stage", "mixed")
                losses[mixed] = self._unexplained(mixed, part.mixed(before), maps)
                losses[name] = self._unexplained(name, part.second(before, maps[mixed]), maps)
            else:
                losses[name] = self._unexplained(name, part(before), maps)
            before = wanted
        return sum(losses.values()), losses

    def connected(
        self, network: Student, x: torch.Tensor, maps: dict[str, torch.Tensor], weight: float
    ) -> Any:
        """The loss of the embeddings, and ``weight`` times the mean one of the maps."""
        self._look(maps)
        shares = {}
        for name, part in network.parts.items():
            if isinstance(part, MixingBlock):
                mixed = name.replace("stage", "mixed")
                made = part.mixed(x)
                shares[mixed] = self._unexplained(mixed, made, maps)
                x = part.second(x, made)
            else:
                x = part(x)
            if name != EMBEDDING:
                shares[name] = self._unexplained(name, x, maps)
        follow, away = loss_of(x, maps[EMBEDDING])
        hints = sum(shares.values()) / len(shares)
        return follow + weight * hints, {"away": away, "hints": hints}

    def _look(self, maps: dict[str, torch.Tensor]) -> None:
        """Measure the variances of the teacher's channels from time to time."""
        if self._steps % VARIANCES_EACH == 0:
            for name, wanted in maps.items():
                found = wanted.var(tuple(range(wanted.ndim - 1)))
                shares = found.median() * LEAST_VARIANCE[0], found.mean() * LEAST_VARIANCE[1]
                found = found.clamp(min=float(max(shares)) + 1e-12)
                self._variances[name] = self._variances.get(name, found).lerp(found, 0.3)
        self._steps += 1

    def _unexplained(self, name: str, made: Any, maps: dict[str, torch.Tensor]) -> Any:
        return Unexplained.apply(made, maps[name], self._variances[name])


def loss_of(embeddings: Any, targets: Any) -> Any:
    """``1 − cos`` and the squared differences of all similarities of the batch; and the first."""
    e, t = F.normalize(embeddings.float()), F.normalize(targets.float())
    away = (1 - (e * t).sum(1)).mean()
    return away + SIMILARITIES * (e @ e.T - t @ t.T).square().mean(), away


def rate_at(phase: Phase, reached: float) -> float:
    """The learning rate after a share of a phase."""
    if reached < WARM_UP:
        return phase.rate * reached / WARM_UP
    return phase.rate * min(1.0, (1 - reached) / (1 - FLAT))


class Targets:
    """What the network is to give in the last phase: embeddings of the clean faces."""

    def __init__(self, folder: Path, teachers: list[Path], batch: int, device: str) -> None:
        self._folder, self._paths, self._batch, self._device = folder, teachers, batch, device

    def of(self, faces: torch.Tensor, name: str) -> torch.Tensor:
        """Embeddings float32 (n, 512) of faces uint8 (n, 3, 112, 112), kept in a file."""
        path = self._folder / f"{name}.npy"
        if path.exists() and len(kept := np.load(path)) == len(faces):
            return torch.from_numpy(kept).to(self._device)
        several = []
        for one in self._paths:
            teacher = Teacher(one, self._batch, self._device, half=False)
            several.append(torch.cat([*self._embedded(teacher, faces)]))
        whole = torch.cat(several, 1)
        if len(several) > 1:
            whole = F.normalize(whole @ self._axes(whole))
        np.save(path, whole.cpu().numpy())
        return whole

    def _embedded(self, teacher: Teacher, faces: torch.Tensor) -> Iterator[torch.Tensor]:
        for part in faces.split(self._batch):
            missing = self._batch - len(part)
            whole = torch.cat([part, part[:1].expand(missing, -1, -1, -1)]) if missing else part
            yield teacher.embeddings(standardized(whole))[: len(part)]

    def _axes(self, embeddings: torch.Tensor) -> torch.Tensor:
        path = self._folder / "axes.npy"
        if not path.exists():
            moments = embeddings.double().T @ embeddings.double()
            axes = torch.linalg.eigh(moments.cpu())[1].flip(1)[:, :DIMENSION]
            np.save(path, axes.float().numpy())
        return torch.from_numpy(np.load(path)).to(self._device)


class Training:
    """A training that can go on where it stopped."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.manual_seed(given.seed)
        self.given, self.device = given, given.device
        self.out = given.folder / "out"
        self.out.mkdir(exist_ok=True)
        self.crops = Crops(given.batch, given.device, given.folder)
        self.held = torch.from_numpy(np.load(given.folder / "held.npy")).to(given.device)
        self.network = Student().to(given.device)
        self.optimizer = Muon(self.network)
        self.phase, self.spent, self.steps = 0, 0.0, 0  # spent: seconds or steps, in the phase
        self.targets = Targets(self.out, given.teacher, given.batch, given.device)
        state = self.out / "state.pt"
        if state.exists():
            kept = torch.load(state, map_location=given.device)
            self.network.load_state_dict(kept["network"])
            self.optimizer.load(kept["optimizer"])
            self.phase, self.spent, self.steps = kept["phase"], kept["spent"], kept["steps"]
            torch.manual_seed(given.seed + self.steps)
        elif given.start_from:
            load_model(self.network, given.start_from)

    def run(self) -> None:
        """Train to the end."""
        say(f"{sum(p.numel() for p in self.network.parameters()) / 1e6:.3f} M numbers, "
            f"{len(self.crops.faces):,} faces, {len(self.held):,} held out")  # fmt: skip
        phases = [one for one in PHASES if one.name in self.given.phases]
        whole = sum(one.share for one in phases)
        while self.phase < len(phases):
            phase = phases[self.phase]
            self._phase(phase, (self.given.seconds or self.given.steps) * phase.share / whole)
            self.phase, self.spent = self.phase + 1, 0.0
            self.optimizer.forget()
            self.save()
        (self.out / "done").touch()

    def _phase(self, phase: Phase, length: float) -> None:
        given, lessons = self.given, Lessons()
        follow = phase.name == "follow"
        first, batch = given.teacher[0], given.batch
        if follow:
            wanted = self.targets.of(self.crops.faces, "targets")
            held = self.targets.of(self.held, "held")
            if len(given.teacher) > 1 and not self.spent:
                self._settle(wanted)
        else:
            teacher = Teacher(first, batch, self.device, maps_of_edgeface())
            held = Targets(self.out, [first], batch, self.device).of(self.held, "held-first")
        began, before = time.time(), self.spent
        told = saved = began
        sums: dict[str, float] = {}
        counted = 0
        while (reached := self.spent / length) < 1:
            rows, crops = self.crops.make(phase.strength)
            maps = {} if follow else teacher(crops)
            for p in self.network.parameters():
                p.grad = None
            with torch.autocast(self.device, torch.bfloat16):
                if follow:
                    loss, away = loss_of(self.network(crops), wanted[rows])
                    figures = {"away": away}
                elif phase.hints:
                    loss, figures = lessons.connected(self.network, crops, maps, phase.hints)
                else:
                    loss, figures = lessons.apart(self.network, crops, maps)
            loss.backward()
            if not math.isfinite(float(loss.detach())):
                raise SystemExit(f"the loss is {float(loss.detach())} at step {self.steps:,}")
            self.optimizer.step(given.rate * rate_at(phase, reached))
            self.steps += 1
            counted += 1
            self.spent = before + time.time() - began if given.seconds else self.spent + 1
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            now = time.time()
            if now - told > given.every:
                parts = ", ".join(f"{name} {value / counted:.4f}" for name, value in sums.items())
                speed = counted * batch / (now - told)
                say(f"{phase.name} {reached:.3f}: step {self.steps:,}, {speed:.0f} faces/s, "
                    f"{self._measured(held)}; {parts}")  # fmt: skip
                told, sums, counted = time.time(), {}, 0
            if now - saved > 60:
                self.save()
                saved = now
        say(f"{phase.name} ends: step {self.steps:,}, {self._measured(held)}")

    def _settle(self, wanted: torch.Tensor) -> None:
        """Fit the last layer to other targets, by linear regression."""
        some = min(SETTLED_ON, len(self.crops.faces))
        head = self.network.parts[EMBEDDING]
        taken: list[torch.Tensor] = []
        hook = head.embedding.register_forward_hook(lambda _, given, __: taken.append(given[0]))
        with torch.no_grad():
            for part in self.crops.faces[:some].split(self.given.batch):
                self.network(standardized(part))
        hook.remove()
        x = torch.cat(taken).double()
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        ridge = 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ wanted[:some].double()).float()
        with torch.no_grad():
            head.embedding.weight.copy_(weights[:-1].T)
            head.embedding.bias.copy_(weights[-1])

    def _measured(self, wanted: torch.Tensor) -> str:
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16):
            parts = self.held.split(self.given.batch)
            found = F.normalize(torch.cat([self.network(standardized(one)) for one in parts]))
        off = (found @ found.T - wanted @ wanted.T).square().mean().sqrt()
        return f"held out: cosine {float((found * wanted).sum(1).mean()):.4f}, ± {off:.4f}"

    def save(self) -> None:
        """Write the state, and the weights for `export.py`."""
        state = {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state(),
            "phase": self.phase, "spent": self.spent, "steps": self.steps,
        }  # fmt: skip
        written = self.out / "state.part"
        torch.save(state, written)
        written.replace(self.out / "state.pt")
        weights = {name: one.cpu().numpy() for name, one in self.network.state_dict().items()}
        with written.open("wb") as stream:
            np.savez(stream, **weights)
        written.replace(self.out / "weights.npz")


def load_model(network: Student, path: Path) -> None:
    """Set a network's weights to those of a model that `export.py` made."""
    graph = onnx.load(path).graph
    arrays = {one.name.removesuffix("_fp16"): numpy_helper.to_array(one)
              for one in graph.initializer}  # fmt: skip
    weights = {}
    for name, own in network.state_dict().items():
        values = torch.from_numpy(arrays[name.removeprefix("parts.")].astype(np.float32))
        if name.endswith("places"):  # (1, channels, height, width)
            values = values.flatten(2)[0].T
        weights[name] = values.reshape(own.shape)
    network.load_state_dict(weights)


def say(line: str) -> None:
    """Write a line of the log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--teacher", type=Path, action="append", required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="steps of all phases together")
    length.add_argument("--seconds", type=float, help="time of all phases together")
    parser.add_argument(
        "--phases",
        nargs="+",
        default=["blocks", "hints", "calm"],
        help="with follow, too, embeddings alone are learned at the end, of all teachers",
    )
    parser.add_argument("--start-from", type=Path, help="a model that export.py made")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of all learning rates")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--every", type=float, default=60, help="seconds between lines of the log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    Training(given).run()


if __name__ == "__main__":
    main()
