"""Text, JSON, pages and plots of the laboratory, from given figures."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

from lab_figures import a_slice, measured, series
from PIL import Image

from face2vec.lab.catalogue import HEADINGS, chosen
from face2vec.lab.plots import overview_plot, series_plot
from face2vec.lab.report import robustness_text, save_robustness, save_slices, slices_text
from face2vec.lab.robustness import Robustness

MASK, JPEG, NOISE = chosen(["mask", "jpeg", "noise"])
SLICES = (
    a_slice("age", "16 to 30", 0.8, weak=False, small=False),
    a_slice("age", "31 to 60 & <more>", 0.5, weak=True, small=False),
    a_slice("hat", "yes", 0.4, weak=False, small=True),
)


def result() -> Robustness:
    return measured(
        series(MASK, (0.6, 0.4), (0.001, 0.02)),
        series(JPEG, (1.0, 1.0, 0.98, 0.96, 0.93, 0.8)),
        series(NOISE, (1.0, 0.8, 0.5, 0.2)),
        slices=SLICES[:1],
    )


def test_text_has_one_line_per_step_and_the_findings() -> None:
    text = robustness_text(result())
    assert (
        "120 photos of 40 people, model mini; 3 photos without a detected face were left out"
        in text
    )
    assert "The threshold, 0.432, was set at FAR 0.001 on 7,000 impostor pairs" in text
    lines = [re.split(r"  +", line) for line in text.splitlines()]
    assert ["mask", "65%", "32.0% (27.0% to 37.0%)", "40%", "70.0% (65.0% to 75.0%)", "2.5%",
            "0.10%", "2.00%"] in lines  # fmt: skip
    assert sum(line[0] == "jpeg" for line in lines) == len(JPEG.steps)
    good, between, bad = re.split(r"\n(?:Good at|In between|Bad at):\n", text)[1:]
    assert good.strip() == "JPEG quality, q50: keeps 98.0% (93.0% to 100.0%) of the clean TAR"
    assert between.strip().startswith("Noise, sd 20: keeps 80.0%")
    assert bad.strip().startswith("A mask, 65%: keeps 40.0%")


def test_page_shows_every_step_in_the_order_of_the_headings(tmp_path: Path) -> None:
    path = save_robustness(result(), tmp_path / "r", "Seen & <measured>")
    page = path.read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings.pop() == "What the figures say"
    assert headings == [one for one in HEADINGS if one in (
        "Expression and angle", "Half a face", "Origin", "The photo itself"
    )]  # fmt: skip
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == ["age", "A mask", "JPEG quality", "Noise"]
    steps = sum(len(one.steps) + 1 for one in (MASK, JPEG, NOISE))
    assert page.count('alt="The example photo') == steps
    assert page.count("no face found</td>") == 3
    assert page.count("0.61, accepted") == steps - 6
    assert "<td>86.4%</td><td>86.1%</td><td>85.5%</td>" in page  # the paper's figures
    assert "20 times the FAR at 65%, both photos degraded" in page
    assert "Seen &amp; &lt;measured&gt;" in page
    assert "<script" not in page
    assert "http" not in page


def test_page_explains_every_row_and_column_of_its_tables(tmp_path: Path) -> None:
    everybody = a_slice("all", "", 0.8, weak=False, small=False)
    pages = (
        save_robustness(result(), tmp_path / "r", "Seen"),
        save_slices(SLICES, everybody, "30 photos", tmp_path / "s", "Slices"),
    )
    for path in pages:
        page = path.read_text(encoding="utf-8")
        tables, explained = page.split("What the figures say</h2>")
        entries = re.findall(r'<th scope="row">(.*?)</th><td class="words">(.*?)<', explained)
        words = {html.unescape(name): text for name, text in entries}
        assert all(len(text) > 30 and text.endswith(".") for text in words.values())
        known = ", ".join(words)
        figures = re.findall(
            r'<th scope="row">(TAR.*?|FAR.*?|recall@1|no face found|unchanged|the paper.*?)</th>',
            tables,
        )
        columns = re.findall(r'<th scope="col">(.*?)</th>', tables)
        steps = {"clean", *(step.label for one in result().series for step in one.steps)}
        for name in {*figures, *columns} - steps:
            assert html.unescape(name).removesuffix(" (95 %)") in known, name
        assert "(… to …)" in words
        assert tables.count("<figcaption>") == tables.count("<svg ") + tables.count("<table>")


def test_pages_list_the_photos_that_were_left_out(tmp_path: Path) -> None:
    failed = (("/a/<1>.jpg", "truncated"),)
    everybody = a_slice("all", "", 0.8, weak=False, small=False)
    for path in (
        save_robustness(replace(result(), failed=failed), tmp_path / "r", "Seen"),
        save_slices(SLICES, everybody, "30 photos", tmp_path / "s", "Slices", failed=failed),
    ):
        page = path.read_text(encoding="utf-8")
        assert "<bdi>/a/&lt;1&gt;.jpg</bdi>: truncated</li>" in page
        assert "they were left out" in page


def test_figures_and_plots_are_written_beside_the_page(tmp_path: Path) -> None:
    save_robustness(result(), tmp_path, "Seen")
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["degradations"]["mask"][1]["kept"]["value"] == 0.4
    assert [one["verdict"] for one in figures["findings"]] == ["bad at", "good at", "in between"]
    assert figures == result().figures() | {"findings": figures["findings"]}
    for name in ("overview.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 600


def test_plots_show_the_figures() -> None:
    whole = result()
    (axes,) = series_plot(whole.series[1], whole.clean).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.get_lines()}
    theirs = lines["the paper's NN1, its own photos"]
    assert theirs == [0.864, 0.861, 0.855, 0.839, 0.814, 0.673]
    assert [text.get_text() for text in axes.get_xticklabels()][:3] == ["clean", "q90", "q70"]
    drawn = [box.lines[0].get_ydata().tolist() for box in axes.containers]
    assert drawn[0] == [whole.clean.tar.value, *(s.tar.value for s in whole.series[1].steps)]
    assert drawn[1][0] == whole.clean.recall.value
    (axes,) = overview_plot(whole).axes
    assert axes.containers[0].lines[0].get_xdata().tolist() == [0.4, 0.98, 0.8]


def test_slices_page_lists_weak_slices_first(tmp_path: Path) -> None:
    everybody = a_slice("all", "", 0.8, weak=False, small=False)
    page = save_slices(SLICES, everybody, "30 photos", tmp_path, "Slices").read_text("utf-8")
    assert "<strong>Weak: age 31 to 60 &amp; &lt;more&gt;.</strong>" in page
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["age", "hat"]
    assert page.count("<td>weak</td>") == page.count("<td>too small</td>") == 1
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [one["value"] for one in figures["slices"]] == ["16 to 30", "31 to 60 & <more>", "yes"]
    rows = [re.split(r"  +", line) for line in slices_text((everybody, *SLICES)).splitlines()]
    assert rows[3][-1] == "weak"
    assert rows[3][-2] == "1.2 (0.9 to 1.6)"
    assert figures["slices"][0]["far_over_stated"] == {"value": 1.24, "low": 0.9, "high": 1.61}
    assert rows[4][-1] == "too small"
