"""What a model is good at and bad at: docs/results/laboratory.md and its plots.

    python benchmarks/laboratory.py PEOPLE --model mini2 --people 300 --photos 4

PEOPLE is a folder with a folder of photos a person, such as LFW's, or a list as CelebA has it.
No photo gets into what is written.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from common import ROOT, machine, table, versions

from face2vec import Face2Vec
from face2vec.lab.catalogue import chosen
from face2vec.lab.findings import VERDICTS, findings
from face2vec.lab.plots import all_series_plot, overview_plot
from face2vec.lab.robustness import Robustness, Series, robustness
from face2vec.lab.subjects import subjects_of

PAGE = ROOT / "docs" / "results" / "laboratory.md"
PACKAGES = ("face2vec", "onnxruntime", "openvino", "Pillow", "numpy")
DENSITY = 110  # dots per inch


def verdicts(measured: Robustness) -> str:
    """Table of the share kept at the common steps, best first."""
    rows = [
        (one.verdict, f"{one.title}, {one.step}", one.kept, one.holds, one.fails, one.alarm or "no")
        for verdict in VERDICTS
        for one in findings(measured)
        if one.verdict == verdict
    ]
    head = ("", "", "TAR kept (95 %)", "keeps 90 % up to", "loses 50 % from", "FAR too high")
    return table(head, rows)


def beside_the_paper(series: Series) -> str:
    """Table of the paper's figures and ours."""
    paper = dict(series.degradation.paper)
    rows = [
        (
            step.label,
            f"{paper[step.strength]:.1%}" if step.strength in paper else "",
            f"{step.anew.tar:.1%} ({step.anew.low:.1%} to {step.anew.high:.1%})",
            step.tar.words(),
            step.recall.words(),
            f"{step.unchanged:.0%}",
        )
        for step in series.steps
    ]
    head = (series.degradation.title, "the paper's NN1", "TAR, all degraded, new threshold",
            "TAR, queries degraded", "recall@1, queries degraded", "unchanged")  # fmt: skip
    return table(head, rows)


def every_step(measured: Robustness) -> str:
    """All figures."""
    rows = [
        (
            one.degradation.title,
            step.label,
            step.tar.words(),
            step.recall.words(),
            f"{step.without_face:.1%}",
            f"{step.far.value:.2%}",
            f"{step.far_alike.value:.2%}",
        )
        for one in measured.series
        for step in one.steps
    ]
    head = ("", "", "TAR (95 %)", "recall@1 (95 %)", "no face found", "FAR", "FAR, both degraded")
    return table(head, rows)


def page(measured: Robustness, command: str) -> str:
    """The whole page, in Markdown."""
    clean = measured.clean
    paper = [beside_the_paper(one) for one in measured.series if one.degradation.paper]
    parts = [
        f"# What {measured.model} is good at and bad at",
        f"{measured.photos:,} photos of {measured.people:,} people. Clean photos are enrolled, "
        f"degraded photos are queries; one threshold, {measured.threshold:.3f}, that has FAR "
        f"{measured.far:g} on {measured.impostor_pairs:,} pairs of clean photos. Clean: TAR "
        f"{clean.tar.words()}, "
        f"recall@1 {clean.recall.words()}. [Run the laboratory](../guides/laboratory.md) explains "
        "the columns.",
        f"![share of the true accepts that is kept](laboratory-{measured.model}-overview.png)",
        verdicts(measured),
        "## Beside the paper\n\nThe paper's figures are VAL at FAR 1e-3 of its NN1 on its own "
        "photos: compare how they decrease, not their values. Faces that are already smaller "
        "than a step are unchanged.",
        *paper,
        "## Every step",
        f"![TAR and recall@1 at each step](laboratory-{measured.model}-curves.png)",
        every_step(measured),
        f"<sub>`{command}`, {datetime.date.today()}, {machine()}; {versions(*PACKAGES)}.</sub>",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="PEOPLE", type=Path)
    parser.add_argument("--model", default="mini2")
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--photos", type=int, default=4)
    given = parser.parse_args()
    with Face2Vec(model=given.model) as engine:
        subjects = subjects_of(given.source, engine, people=given.people, photos=given.photos)
        measured = robustness(subjects, engine, chosen(), progress=True)
    for name, figure in (("overview", overview_plot), ("curves", all_series_plot)):
        place = PAGE.with_name(f"laboratory-{measured.model}-{name}.png")
        figure(measured).savefig(place, dpi=DENSITY)
    command = (
        f"python benchmarks/laboratory.py PEOPLE --model {measured.model} "
        f"--people {given.people} --photos {given.photos}"
    )
    PAGE.write_text(page(measured, command), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
