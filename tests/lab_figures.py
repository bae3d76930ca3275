"""Results of the laboratory with given figures, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from face2vec.evaluation.metrics import TrueAccepts
from face2vec.lab.catalogue import Degradation
from face2vec.lab.rates import Rate
from face2vec.lab.robustness import Example, Robustness, Series, Step
from face2vec.lab.slices import Slice

CLEAN_TAR = 0.8
ONE = Rate(1.0, 1.0, 1.0)


def about(value: float) -> Rate:
    return Rate(value, max(value - 0.05, 0.0), min(value + 0.05, 1.0))


def step(strength: float, label: str, kept: float, far_alike: Rate) -> Step:
    tar = about(CLEAN_TAR * kept)
    return Step(
        strength, label, tar, about(kept), about(0.5 + kept / 2), about(0.001), far_alike,
        0.025, 0.0, TrueAccepts(1e-3, 0.4, tar.value, tar.low, tar.high),
    )  # fmt: skip


def series(
    kind: Degradation, kept: Sequence[float], far_alike: Sequence[float] | None = None
) -> Series:
    """Steps of a degradation that keep given shares of the clean TAR."""
    alike = [Rate(0.001, 0.0, 0.002) for _ in kept] if far_alike is None else [
        Rate(value, 0.9 * value, 1.1 * value) for value in far_alike
    ]  # fmt: skip
    steps = tuple(
        step(strength, kind.step_label(strength), part, far)
        for strength, part, far in zip(kind.steps, kept, alike, strict=True)
    )
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    last = Example(image, None)
    return Series(kind, steps, (*(Example(image, 0.61) for _ in steps[1:]), last))


def measured(*of: Series, slices: tuple[Slice, ...] = ()) -> Robustness:
    clean = step(0, "clean", 1.0, Rate(0.001, 0.0, 0.002))
    image = np.full((40, 30, 3), 99, np.uint8)
    return Robustness(
        model="mini", photos=120, people=40, without_face=3, far=1e-3, threshold=0.4321,
        impostor_pairs=7_000, clean=clean, series=of, slices=slices, example=Example(image, 0.9),
    )  # fmt: skip


def a_slice(attribute: str, value: str, tar: float, *, weak: bool, small: bool) -> Slice:
    return Slice(
        attribute, value, 30, 12, 44, about(tar), about(tar), about(0.002), Rate(1.24, 0.9, 1.61),
        weak=weak, small=small,
    )  # fmt: skip
