"""Findings from given figures."""

from __future__ import annotations

import pytest
from lab_figures import measured, series

from face2vec.lab.catalogue import chosen
from face2vec.lab.findings import Finding, findings, ordinary

NOISE, MASK = chosen(["noise"])[0], chosen(["mask"])[0]


def found(kept: tuple[float, ...], far_alike: tuple[float, ...] | None = None) -> Finding:
    (one,) = findings(measured(series(NOISE, kept, far_alike)))
    return one


@pytest.mark.parametrize(
    ("kept", "verdict"), [(0.95, "good at"), (0.9, "good at"), (0.8, "in between"),
                          (0.7, "in between"), (0.69, "bad at"), (0.0, "bad at"), (1.02, "good at")]
)  # fmt: skip
def test_verdict_depends_on_the_common_step(kept: float, verdict: str) -> None:
    one = found((1.0, kept, 0.0, 0.0))
    assert (one.verdict, one.step) == (verdict, "sd 20")
    assert one.kept.startswith(f"{kept:.1%}")


def test_holds_and_fails_are_the_limiting_steps() -> None:
    one = found((0.97, 0.6, 0.95, 0.3))
    assert (one.holds, one.fails) == ("sd 10", "sd 60")
    one = found((0.5, 0.4, 0.4, 0.3))
    assert (one.holds, one.fails) == ("none", "sd 20")
    one = found((0.9, 0.9, 0.9, 0.9))
    assert (one.holds, one.fails) == ("sd 60", "none")


def test_alarm_reports_a_far_significantly_too_high() -> None:
    assert found((1, 1, 1, 1), (0.001, 0.002, 0.0032, 0.0031)).alarm == ""
    alarm = found((1, 1, 1, 1), (0.001, 0.05, 0.012, 0.001)).alarm
    assert alarm == "50 times the FAR at sd 20, both photos degraded"


def test_findings_have_the_order_of_the_report() -> None:
    both = measured(series(MASK, (0.5, 0.4)), series(NOISE, (1.0, 1.0, 1.0, 1.0)))
    assert [one.title for one in findings(both)] == ["A mask", "Noise"]
    assert ordinary(both.series[0]) is both.series[0].steps[1]
