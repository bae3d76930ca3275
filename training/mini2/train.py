"""Distils `mini2` from its teacher, on a GPU or a processor.

    python training/mini2/train.py FOLDER --teacher edgeface-xs.onnx --steps 10000

Needs PyTorch, NumPy, Pillow and onnx, on a processor face2vec[openvino] too. FOLDER has
``held.npy``, faces that are only measured on, and ``faces-*.npy``, see `faces.py`. The state is
written to ``FOLDER/out`` each minute; a training that was stopped goes on from it. `export.py`
makes a model of ``FOLDER/out/weights.npz``.

There are two phases. In the first, ``parts``, each part of the network learns alone, see
`parts.py`. In the second, ``whole``, the parts are connected, and learn the teacher's maps and its
embedding of new crops. With ``--seconds`` instead of ``--steps`` the rate follows the clock, so
that a training ends in time on any machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from crops import Crops, standardized
from losses import Unexplained, away_from, variances
from muon import Muon, rising_and_falling
from onnx import numpy_helper
from parts import CROPS, Maps, fit, fits
from student import MixingBlock, Student
from teacher import EMBEDDING, Teacher, maps_of_edgeface

PHASES = {"parts": 0.3, "whole": 0.7}
"""Shares of the steps or of the time; each part takes as many steps."""
RATE = 1e-4
"""Highest learning rate of the phase ``whole``."""
HINTS = 2.0
"""Weight of the maps, beside 1 of the embeddings."""
WARM_UP, FLAT = 0.02, 0.15
"""Shares of the phase in which the rate rises, and until which it stays the highest."""
VARIANCES_EACH = 25  # steps


class Lessons:
    """The loss of the connected parts."""

    def __init__(self) -> None:
        self._variances: dict[str, torch.Tensor] = {}
        self._steps = 0

    def __call__(self, network: Student, x: torch.Tensor, maps: dict[str, torch.Tensor]) -> Any:
        """The loss of the embeddings of crops ``x`` and of the maps, and its parts."""
        if self._steps % VARIANCES_EACH == 0:
            for name, wanted in maps.items():
                found = variances(wanted)
                self._variances[name] = self._variances.get(name, found).lerp(found, 0.3)
        self._steps += 1
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
        loss, away = away_from(x, maps[EMBEDDING])
        hints = sum(shares.values()) / len(shares)
        return loss + HINTS * hints, {"away": away, "hints": hints}

    def _unexplained(self, name: str, made: Any, maps: dict[str, torch.Tensor]) -> Any:
        return Unexplained.apply(made, maps[name], self._variances[name])


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
        # spent: in the phase, parts that are done; then seconds or steps
        self.phase, self.spent, self.steps = 0, 0.0, 0
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
        phases = self.given.phases
        whole = sum(PHASES[name] for name in phases)
        while self.phase < len(phases):
            name = phases[self.phase]
            length = (self.given.seconds or self.given.steps) * PHASES[name] / whole
            (self._parts if name == "parts" else self._whole)(length)
            self.phase, self.spent = self.phase + 1, 0.0
            self.save()
        (self.out / "done").touch()

    def _parts(self, length: float) -> None:
        """Fit all parts, one after another."""
        every = list(fits(self.network))
        began = time.time()
        maps = Maps(self.out / "maps", self.crops, self._teacher, self.given.kept)
        if self.given.seconds:
            length = max(0.0, length - (time.time() - began)) / len(every)
        for number, one in enumerate(every):
            if number < self.spent:
                continue
            start = time.time()

            def reached(steps: int, start: float = start) -> float:
                return (time.time() - start if self.given.seconds else steps) / max(length, 1e-9)

            left = fit(one, maps, reached, self.given.rate, self.device)
            say(f"parts: {one.name} leaves {left:.5f} after {time.time() - start:.0f} s")
            self.spent = number + 1
            self.save()
        say(f"parts end: {self._measured(self._wanted())}")

    def _whole(self, length: float) -> None:
        """Train the connected parts."""
        given, lessons, teacher = self.given, Lessons(), self._teacher()
        held = self._wanted()
        began, before = time.time(), self.spent
        told = saved = began
        sums: dict[str, float] = {}
        counted = 0
        while (reached := self.spent / length) < 1:
            crops = self.crops.make(1.0)[1]
            maps = teacher(crops)
            for p in self.network.parameters():
                p.grad = None
            with torch.autocast(self.device, torch.bfloat16):
                loss, figures = lessons(self.network, crops, maps)
            loss.backward()
            if not math.isfinite(float(loss.detach())):
                raise SystemExit(f"the loss is {float(loss.detach())} at step {self.steps:,}")
            self.optimizer.step(given.rate * RATE * rising_and_falling(reached, WARM_UP, FLAT))
            self.steps += 1
            counted += 1
            self.spent = before + time.time() - began if given.seconds else self.spent + 1
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            now = time.time()
            if now - told > given.every:
                parts = ", ".join(f"{name} {value / counted:.4f}" for name, value in sums.items())
                speed = counted * given.batch / (now - told)
                say(f"whole {reached:.3f}: step {self.steps:,}, {speed:.0f} faces/s, "
                    f"{self._measured(held)}; {parts}")  # fmt: skip
                told, sums, counted = time.time(), {}, 0
            if now - saved > 60:
                self.save()
                saved = now
        say(f"whole ends: step {self.steps:,}, {self._measured(held)}")

    def _teacher(self, maps: bool = True) -> Teacher:
        given = self.given
        tensors = maps_of_edgeface() if maps else None
        return Teacher(given.teacher, given.batch, self.device, tensors, half=maps)

    def _wanted(self) -> torch.Tensor:
        """The teacher's embeddings of the held-out faces and their mirror images together."""
        path = self.out / "held.npy"
        if not path.exists():
            teacher, batch = self._teacher(maps=False), self.given.batch
            made = []
            for part in self.held.split(batch):
                missing = batch - len(part)
                whole = torch.cat([part, part[:1].expand(missing, -1, -1, -1)])
                made.append(teacher.embeddings(standardized(whole))[: len(part)])
            np.save(path, torch.cat(made).cpu().numpy())
        return torch.from_numpy(np.load(path)).to(self.device)

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
    parser.add_argument("--teacher", type=Path, required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="steps of a part and of the whole, together")
    length.add_argument("--seconds", type=float, help="time of both phases together")
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument("--start-from", type=Path, help="a model that export.py made")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of all learning rates")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--kept", type=int, default=CROPS, help="crops whose maps are kept for the first phase"
    )
    parser.add_argument("--every", type=float, default=60, help="seconds between lines of the log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    Training(given).run()


if __name__ == "__main__":
    main()
