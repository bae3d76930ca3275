"""Plots as SVG inside a page: they follow its colours, and fit a narrow screen."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from face2vec.report.grid import plot_package

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT_WIDTH = 4.2
"""Width in inches of a plot whose text can be read on a screen of 390 pixels."""

_COLOURS = {
    "#000000": "currentColor",
    "#b0b0b0": "var(--line)",
    "#cccccc": "var(--line)",
    "#777777": "var(--faint)",
    "#0072b2": "var(--plot-1)",
    "#1f77b4": "var(--plot-1)",
    "#d55e00": "var(--plot-2)",
    "#ff7f0e": "var(--plot-2)",
    "#009e73": "var(--plot-3)",
    "#2ca02c": "var(--plot-3)",
    "#ffffff": "var(--paper)",
}
"""The colours of matplotlib and of the laboratory, and what they are on a page."""
_GROUP = re.compile(r'(<g) id="(?!p[0-9a-f]{9,}|m[0-9a-f]{9,})[^"]*"')


def plot_svg(figure: Figure, alt: str, caption: str = "") -> str:
    """A plot as part of a page.

    Args:
        figure: the plot, about ``PLOT_WIDTH`` wide.
        alt: what it shows, in words.
        caption: how to read it; HTML.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = plot_package("matplotlib", "drawing plots")
    stream = io.StringIO()
    figure.patch.set_alpha(0)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    head, _, rest = drawn.partition(">")
    (box,) = re.findall(r'viewBox="([^"]+)"', head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = _GROUP.sub(r"\1", rest)
    # Text has no colour of its own unless it is not black.
    rest = re.sub(r'style="(font|[^"]*?; ?font)', r'fill="currentColor" style="\1', rest)
    for colour, ours in _COLOURS.items():
        rest = re.sub(colour, ours, rest, flags=re.IGNORECASE)
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="plot"><svg viewBox="{box}" role="img" aria-label="{html.escape(alt)}">'
        f"{rest.strip()}{below}</figure>"
    )
