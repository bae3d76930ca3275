"""Plots inside a page: their colours are the page's, and their text is text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from face2vec.report.svg import plot_svg


def plot() -> Figure:
    figure = Figure(figsize=(5.2, 3))
    axes = figure.add_subplot()
    axes.plot([1, 2, 3], [0.1, 0.4, 0.2], color="#0072B2", label="one & <two>")
    axes.set_xlabel("strength")
    axes.grid()
    axes.legend()
    return figure


def test_plot_has_the_colours_of_the_page_and_readable_text() -> None:
    made = plot_svg(plot(), 'What "it" shows', "How <b>to</b> read it")
    assert "#000000" not in made
    assert "#0072b2" not in made.lower()
    assert "var(--plot-1)" in made
    assert "currentColor" in made
    assert "strength" in made
    assert "one &amp; &lt;two&gt;" in made
    assert 'aria-label="What &quot;it&quot; shows"' in made
    assert "<figcaption>How <b>to</b> read it</figcaption>" in made
    assert "<metadata" not in made


def test_plot_is_sound_xml_without_a_fixed_size_and_two_may_be_on_a_page() -> None:
    made = plot_svg(plot(), "One")
    root = ElementTree.fromstring(made.replace("xlink:href", "href"))
    (svg,) = root
    assert svg.attrib.keys() >= {"viewBox", "role", "aria-label"}
    assert "width" not in svg.attrib
    other = plot_svg(plot(), "Other")
    ids, others = (set(re.findall(r' id="([^"]+)"', one)) for one in (made, other))
    assert ids
    assert not ids & others
    for name in ids:
        assert f"#{name}" in made


def test_same_plot_gives_the_same_bytes() -> None:
    assert plot_svg(plot(), "One") == plot_svg(plot(), "One")
