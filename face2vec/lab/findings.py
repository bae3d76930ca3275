"""Derives the strengths and weaknesses of a model from the figures."""

from __future__ import annotations

from typing import Literal, NamedTuple

from face2vec.lab.robustness import Robustness, Series, Step

Verdict = Literal["good at", "in between", "bad at"]
VERDICTS: tuple[Verdict, ...] = ("good at", "in between", "bad at")
GOOD, BAD, LOST = 0.9, 0.7, 0.5
"""Shares of the clean TAR: good from the first, bad below the second; below the third, most true
accepts are lost."""
ALARM = 3.0
"""A FAR whose whole interval is above this multiple of the set FAR is reported."""


class Finding(NamedTuple):
    """The effect of one degradation."""

    title: str
    """Title of the degradation."""
    verdict: Verdict
    """Verdict by the share of the clean TAR that remains at the common step."""
    step: str
    """The step that is common in photos."""
    kept: str
    """The share of the clean TAR that remains at this step, with its interval."""
    holds: str
    """The strongest step up to which all steps keep ``GOOD`` of the clean TAR, or ``"none"``."""
    fails: str
    """The mildest step that keeps less than ``LOST`` of the clean TAR, or ``"none"``."""
    alarm: str
    """The step at which the FAR is far too high, or an empty text."""


def findings(measured: Robustness) -> list[Finding]:
    """One finding per degradation, in the order of the report."""
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
        times = worst.far_alike.value / far
        return f"{times:.0f} times the FAR at {worst.label}, both photos degraded"
    return ""
