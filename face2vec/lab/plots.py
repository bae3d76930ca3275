"""Plots of the laboratory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from face2vec.lab.findings import BAD, GOOD, ordinary
from face2vec.lab.rates import Rate
from face2vec.report.grid import plot_package
from face2vec.report.svg import PLOT_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from face2vec.lab.robustness import Robustness, Series, Step
    from face2vec.lab.slices import Slice

BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#777777", "#009E73"
ACROSS = 3
CROWDED = 24  # with more characters below an axis, its labels are rotated


def series_plot(series: Series, clean: Step) -> Figure:
    """Plot TAR and recall@1 at each step with intervals, and the paper's figures if there are any.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(PLOT_WIDTH, 3.0)
    axes = figure.add_subplot()
    _draw_series(axes, series, clean)
    axes.legend(fontsize=8, loc="lower left", framealpha=0.9)
    axes.set_ylabel("share", fontsize=9)
    return figure


def all_series_plot(measured: Robustness) -> Figure:
    """Plot all degradations in one figure; see `series_plot`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    down = -(-len(measured.series) // ACROSS)
    figure = _figure(4.2 * ACROSS, 2.7 * down)
    cells = figure.subplots(down, ACROSS, squeeze=False).flat
    for axes in cells:
        axes.axis("off")
    for axes, series in zip(figure.axes, measured.series, strict=False):
        axes.axis("on")
        _draw_series(axes, series, measured.clean)
        axes.set_title(series.degradation.title, fontsize=9)
    _legend_of_all(figure, measured.series)
    return figure


def overview_plot(measured: Robustness) -> Figure:
    """Plot the share of the clean TAR that remains at the common step of each degradation.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    steps = [ordinary(one) for one in measured.series]
    names = [
        f"{one.degradation.title}, {step.label}"
        for one, step in zip(measured.series, steps, strict=True)
    ]
    figure = _figure(PLOT_WIDTH, 0.8 + 0.26 * len(names))
    axes = figure.add_subplot()
    axes.axvspan(GOOD, 10, color=GREEN, alpha=0.12, lw=0)
    axes.axvspan(-10, BAD, color=ORANGE, alpha=0.12, lw=0)
    _bars(axes, [step.kept for step in steps], across=True)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    highest = max([1.0, *(step.kept.high for step in steps if step.kept.high == step.kept.high)])
    axes.set_xlim(0, highest + 0.03)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("share of true accepts kept\n(95 % over people)", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def slices_plot(slices: Sequence[Slice], everybody: Rate) -> Figure:
    """Plot the TAR of each slice with intervals, and that of all photos.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(PLOT_WIDTH, 0.8 + 0.26 * len(slices))
    axes = figure.add_subplot()
    axes.axvspan(everybody.low, everybody.high, color=GREY, alpha=0.2, lw=0)
    axes.axvline(everybody.value, color=GREY, lw=1)
    _bars(axes, [one.tar for one in slices], across=True)
    for place, one in enumerate(slices):
        if one.remark:
            axes.plot(one.tar.value, place, "o", ms=6, color=ORANGE if one.weak else "white",
                      mec=BLUE if one.small else ORANGE, zorder=5)  # fmt: skip
    names = [f"{one.value} ({one.people:,} people)" for one in slices]
    axes.set_yticks(range(len(slices)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(slices) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("true accept rate (95 % over people)", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def rates_plot(
    labels: Sequence[str], rates: Sequence[Rate], paper: Sequence[float | None]
) -> Figure:
    """Plot rates with intervals, and the paper's figures if there are any.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(PLOT_WIDTH, 3.0)
    axes = figure.add_subplot()
    _bars(axes, rates, label="measured")
    known = [(place, value) for place, value in enumerate(paper) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "D--", color=GREY, ms=4, lw=1,
                  label="the paper's NN1, its own photos")  # fmt: skip
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("true accept rate", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _draw_series(axes: Any, series: Series, clean: Step) -> None:
    steps = (clean, *series.steps)
    places = np.arange(len(steps))
    _bars(axes, [s.tar for s in steps], BLUE, "o", "TAR, queries degraded", -0.04)
    _bars(axes, [s.recall for s in steps], ORANGE, "s", "recall@1, queries degraded", 0.04)
    if series.degradation.paper:
        axes.plot(places, [s.anew.tar for s in steps], "o:", mfc="none", color=BLUE, ms=4, lw=1,
                  label="TAR, all degraded, new threshold")  # fmt: skip
        paper = dict(series.degradation.paper)
        known = [(n, paper[s.strength]) for n, s in enumerate(series.steps, 1)
                 if s.strength in paper]  # fmt: skip
        axes.plot(*zip(*known, strict=True), "D--", color=GREY, ms=4, lw=1,
                  label="the paper's NN1, its own photos")  # fmt: skip
    labels = [s.label for s in steps]
    crowded = sum(map(len, labels)) > CROWDED
    axes.set_xticks(places, labels, fontsize=8, rotation=25 if crowded else 0)
    axes.set_ylim(-0.02, 1.02)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(alpha=0.3)


def _bars(
    axes: Any,
    rates: Sequence[Rate],
    colour: str = BLUE,
    marker: str = "o",
    label: str | None = None,
    aside: float = 0.0,
    across: bool = False,
) -> None:
    values = np.array([rate.value for rate in rates])
    places = np.arange(len(rates)) + aside
    lengths = np.array([(r.value - r.low, r.high - r.value) for r in rates]).T
    lengths = np.maximum(np.nan_to_num(lengths), 0)
    style = {"color": colour, "marker": marker, "ms": 4, "lw": 1.2, "capsize": 2, "label": label}
    if across:
        axes.errorbar(values, places, xerr=lengths, **style | {"ls": "none"})
    else:
        axes.errorbar(places, values, yerr=lengths, **style)


def _legend_of_all(figure: Figure, series: Sequence[Series]) -> None:
    """One legend below all plots, taken from the plot with the most kinds of lines."""
    most = max(figure.axes[: len(series)], key=lambda axes: len(axes.get_lines()))
    lines, labels = most.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), fontsize=8)


def _figure(width: float, height: float) -> Figure:
    figure: Figure = plot_package("matplotlib.figure", "drawing plots").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure
