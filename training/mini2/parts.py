"""The first phase of `train.py`: each part of the network alone, on kept maps of the teacher.

Each part is shown what its counterpart in the teacher is given, and learns what that makes of it
(Li et al., Blockwisely supervised neural architecture search with knowledge distillation, 2020,
section 3.1). The teacher is run once: its maps of augmented crops are kept in files, fewer of the
larger maps, which have more places to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from crops import Crops
from losses import Unexplained, away_from, variances
from muon import BETAS, Muon, rising_and_falling
from student import Block, Head, Middle, Mixed, MixingBlock, Stem, Student
from teacher import EMBEDDING, Teacher

CROPS = 32_768
"""Crops whose smallest maps are kept."""
KEPT = {28: 32, 14: 16, 7: 4}
"""By the side of maps: of how many crops those of one are kept, if not of all."""
BATCHES = {28: 12, 14: 24, 7: 48}
"""Crops in a step, by the side of maps."""
BATCH = 192
"""Crops in a step of the other parts."""
RATE = 4e-3
"""Highest learning rate of parts with a layer in the middle, for `Muon`."""
RATE_OF_LINEAR, RATE_OF_HEAD = 1e-2, 3e-3
"""The same of the other parts, for Adam: Muon is slow where inputs are alike, as pixels are."""
WARM_UP, FLAT = 0.05, 0.15
"""Shares of the steps in which the rate rises, and until which it stays the highest."""
SETTLED_ON = 1024  # crops whose maps say how much each channel varies
HELD_OUT = 16
"""Of so many crops one is only measured on."""


class Fit(NamedTuple):
    """A part to fit.

    Attributes:
        name: of the map that it makes.
        module: what learns.
        given: names of the maps that it is given.
        make: makes the map of those.
    """

    name: str
    module: torch.nn.Module
    given: tuple[str, ...]
    make: Callable[..., Any]


def fits(network: Student) -> Iterator[Fit]:
    """All parts, in order; a block with attention is two."""
    before = "crops"
    for name, part in network.parts.items():
        if isinstance(part, MixingBlock):
            mixed = name.replace("stage", "mixed")
            yield Fit(mixed, part.mixed, (before,), part.mixed)
            yield Fit(name, part.middle, (before, mixed), part.second)
        else:
            yield Fit(name, part, (before,), part)
        before = name


class Maps:
    """The teacher's maps of augmented crops, in a folder.

    Args:
        folder: of the files; they are made if it does not have them.
        crops: makes crops.
        teacher: opens the teacher, with all maps.
        count: how many crops.
    """

    def __init__(
        self, folder: Path, crops: Crops, teacher: Callable[[], Teacher], count: int = CROPS
    ) -> None:
        self._folder = folder
        done = folder / "done"
        if not done.exists():
            folder.mkdir(exist_ok=True)
            self._write(crops, teacher(), count)
            done.touch()

    def __getitem__(self, name: str) -> torch.Tensor:
        """Maps float32 (n, …), mapped from their file, which never changes."""
        return torch.from_numpy(np.load(self._folder / f"{name}.npy", mmap_mode="c"))

    def _write(self, crops: Crops, teacher: Teacher, count: int) -> None:
        files: dict[str, Any] = {}
        sides = {"crops": 28}
        for start in range(0, count, crops.batch):
            _, made = crops.make(1.0)
            for name, values in {"crops": made, **teacher(made)}.items():
                if name not in files:
                    side = sides.get(name) or side_of(values)
                    whole = -(-count // KEPT.get(side, 1))
                    shape = (whole, *values.shape[1:])
                    files[name] = np.lib.format.open_memmap(
                        self._folder / f"{name}.npy", "w+", np.float32, shape
                    )
                rows = files[name][start : start + crops.batch]
                rows[:] = values[: len(rows)].cpu().numpy()


def side_of(maps: torch.Tensor) -> int:
    """The side of maps (n, side, side, channels) or (n, side², channels); 1 of embeddings."""
    return int(np.sqrt(np.prod(maps.shape[1:-1])))


def fit(one: Fit, maps: Maps, reached: Callable[[int], float], rate: float, device: str) -> float:
    """Fit a part; the share of held-out maps that it leaves unexplained, or 1 − cosine.

    Args:
        one: the part.
        maps: kept maps.
        reached: the share of its time that is over, 0…1, given the number of steps so far.
        rate: factor of the learning rate.
        device: where its network is.
    """
    given, wanted = [maps[name] for name in one.given], maps[one.name]
    count = min(len(values) for values in (*given, wanted))
    held = -(-count // HELD_OUT)
    batch = min(BATCHES.get(side_of(wanted), BATCH), count - held)
    some = wanted[:SETTLED_ON].to(device)
    spread = variances(some)
    is_head = one.name == EMBEDDING
    if isinstance(one.module, Stem):
        one.module.settle(some)

    def losses(rows: torch.Tensor) -> Any:
        """What to make small, and what to report."""
        made, right = one.make(*(v[rows].to(device) for v in given)), wanted[rows].to(device)
        return away_from(made, right) if is_head else (Unexplained.apply(made, right, spread),) * 2

    step = _stepper(one.module)
    steps = 0
    while (share := reached(steps)) < 1:
        rows = torch.randint(0, count - held, (batch,)).sort().values
        for p in one.module.parameters():
            p.grad = None
        losses(rows)[0].backward()
        step(rate * rising_and_falling(share, WARM_UP, FLAT))
        steps += 1
    with torch.no_grad():
        parts = torch.arange(count - held, count).split(batch)
        return sum(len(rows) * float(losses(rows)[1]) for rows in parts) / held


def _stepper(module: torch.nn.Module) -> Callable[[float], object]:
    """Updates a part from its gradients, given the share of the highest learning rate."""
    if isinstance(module, Block | Mixed | Middle):
        muon = Muon(module)

        def step_of_muon(share: float) -> None:
            muon.step(share * RATE)
            if isinstance(module, Block):
                module.rescale()

        return step_of_muon
    rate = RATE_OF_HEAD if isinstance(module, Head) else RATE_OF_LINEAR
    adam = torch.optim.Adam(module.parameters(), betas=BETAS)

    def step(share: float) -> None:
        for group in adam.param_groups:
            group["lr"] = share * rate
        adam.step()

    return step
