"""What a model is good at and bad at, from the figures alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

from face2vec.lab.robustness import Robustness, Series, Step

Verdict = Literal["good at", "in between", "bad at"]
VERDICTS: tuple[Verdict, ...] = ("good at", "in between", "bad at")
GOOD, BAD, LOST = 0.9, 0.7, 0.5
"""Shares of the clean photos' TAR: good from the first on, bad below the second; below the third
more is lost than kept."""
ALARM = 3.0
"""So many times the FAR that was set is too much, where the interval leaves no doubt."""


class Finding(NamedTuple):
    """What one degradation does."""

    title: str
    verdict: Verdict
    """By how much of the TAR is kept at the step that is common in photos."""
    step: str
    """That step."""
    kept: str
    """That share, with its interval."""
    holds: str
    """The strongest step up to which all keep ``GOOD`` of it, or ``"none"``."""
    fails: str
    """The mildest step that keeps less than ``LOST`` of it, or ``"none"``."""
    alarm: str
    """A step at which strangers are taken for one another too often, or nothing."""


def findings(measured: Robustness) -> list[Finding]:
    """One finding a degradation, in the order of the report."""
    return [_finding(one, measured.far) for one in measured.series]


def ordinary(series: Series) -> Step:
    """The step that is common in photos."""
    return next(s for s in series.steps if s.strength == series.degradation.ordinary)


def _finding(series: Series, far: float) -> Finding:
    common = ordinary(series)
    share = common.kept.value
    verdict: Verdict = "good at" if share >= GOOD else "bad at" if share < BAD else "in between"
    holds, fails = "none", "none"
    for step in series.steps:
        if not step.kept.value >= GOOD:
            break
        holds = step.label
    for step in series.steps:
        if step.kept.value < LOST:
            fails = step.label
            break
    return Finding(
        series.degradation.title,
        verdict,
        common.label,
        common.kept.words(),
        holds,
        fails,
        _alarm(series, far),
    )


def _alarm(series: Series, far: float) -> str:
    worst = max(series.steps, key=lambda step: step.far_alike.value)
    if worst.far_alike.low > ALARM * far:
        return f"{worst.far_alike.value / far:.0f} times the FAR at {worst.label}, both photos so"
    return ""
