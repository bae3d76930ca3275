"""Reports of the laboratory: text, JSON, and a page with pictures."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from face2vec.evaluation.report import INTRODUCTION
from face2vec.files import expanded, write_json, writing
from face2vec.lab.catalogue import HEADINGS, Heading
from face2vec.lab.findings import ALARM, BAD, GOOD, LOST, VERDICTS, Finding, findings
from face2vec.lab.plots import all_series_plot, overview_plot, series_plot, slices_plot
from face2vec.lab.rates import Rate
from face2vec.lab.robustness import Example, Robustness, Series, Step
from face2vec.lab.slices import FEWEST_PAIRS, FEWEST_PEOPLE, Slice
from face2vec.report.html import (
    LEFT_OUT,
    Made,
    explained_table,
    failed_section,
    img,
    made_section,
    table,
    write_page,
)
from face2vec.report.svg import plot_svg
from face2vec.report.text import columns

PAGE, FIGURES, OVERVIEW, CURVES = "report.html", "figures.json", "overview.png", "curves.png"
SHOWN = 150  # side of an example in pixels
DENSITY = 150  # dots per inch
BACKGROUND = (128, 128, 128)

_ELSEWHERE: dict[Heading, str] = {
    "Origin": (
        "Origin, age and sex cannot be changed in a photo, and a photo does not contain them as "
        "data. <code>face2vec lab slices TABLE</code> measures them with a table that does."
    ),
    "Expression and angle": (
        "The first two tables show clean photos, divided by their landmarks. The yaw of a face is "
        "estimated from the position of the nose, to about ten degrees. The width of the mouth "
        "is used as a measure of smiles, in frontal faces only."
    ),
}


def robustness_text(measured: Robustness) -> str:
    """One line per step, in columns, and the model's strengths and weaknesses."""
    head = ("", "", "TAR (95 %)", "of clean", "recall@1 (95 %)", "no face", "FAR", "FAR, both")
    rows = [head, ("clean", "", *_cells(measured.clean))]
    for series in measured.series:
        rows += [(series.degradation.name, step.label, *_cells(step)) for step in series.steps]
    slices = [_slice_head(), *(_slice_cells(one) for one in measured.slices)]
    lines = [_about(measured), "", *columns(rows), "", *columns(slices)]
    for verdict in VERDICTS:
        found = [one for one in findings(measured) if one.verdict == verdict]
        lines += ["", f"{verdict.capitalize()}:"] if found else []
        lines += [f"  {one.title}, {one.step}: keeps {one.kept} of the clean TAR" for one in found]
    return "\n".join(lines)


def slices_text(slices: Sequence[Slice]) -> str:
    """One line per slice, in columns."""
    return "\n".join(columns([_slice_head(), *(_slice_cells(one) for one in slices)]))


def save_robustness(
    measured: Robustness, folder: Path, title: str, made: Made | None = None
) -> Path:
    """Write ``report.html``, ``figures.json`` and two plots; return the page's path.

    The page contains photos of the first person. To publish results without that person's
    consent, use the plots and the figures only.

    Args:
        measured: what was measured.
        folder: for the files.
        title: of the page.
        made: how the figures were made, or None.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder = Path(expanded(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / OVERVIEW) as file:
        overview_plot(measured).savefig(file, dpi=DENSITY)
    with writing(folder / CURVES) as file:
        all_series_plot(measured).savefig(file, dpi=DENSITY)
    write_json(folder / FIGURES, measured.figures() | {"findings": _finding_figures(measured)})
    body = [
        *_robustness_page(measured),
        failed_section(measured.failed, became=LEFT_OUT),
        made_section(made or Made(model=measured.model)),
    ]
    write_page(folder / PAGE, title, "\n".join(body))
    return folder / PAGE


def save_slices(
    slices: Sequence[Slice],
    everybody: Slice,
    about: str,
    folder: Path,
    title: str,
    made: Made | None = None,
    failed: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``report.html`` and ``figures.json``; return the page's path.

    Args:
        slices: the slices.
        everybody: all photos.
        about: what was measured, in words.
        folder: for the files.
        title: of the page.
        made: how the figures were made, or None.
        failed: path of each photo that was left out, and why.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder = Path(expanded(folder))
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"all": everybody.figures(), "slices": [one.figures() for one in slices]}
    write_json(folder / FIGURES, figures)
    body = [f"<p>{html.escape(about)}</p>", f"<p>{INTRODUCTION}</p>"]
    weak = [one for one in slices if one.weak]
    words = ", ".join(f"{one.attribute} {one.value}" for one in weak)
    body.append(f"<p><strong>Weak: {html.escape(words) or 'none'}.</strong></p>")
    body += ["<h2>Slices</h2>", *_slices_section(slices, everybody)]
    body.append(explained_table(_SLICE_FIGURES, "What the figures say"))
    body += [failed_section(failed, became=LEFT_OUT), made_section(made or Made())]
    write_page(folder / PAGE, title, "\n".join(body))
    return folder / PAGE


def _finding_figures(measured: Robustness) -> list[dict[str, str]]:
    return [one._asdict() for one in findings(measured)]


# --- text -----------------------------------------------------------------------------------


def _about(measured: Robustness) -> str:
    left_out = measured.without_face
    return (
        f"{measured.photos:,} photos of {measured.people:,} people, model {measured.model}; "
        f"{left_out:,} photos without a detected face were left out. The threshold, "
        f"{measured.threshold:.3f}, was set at FAR {measured.far:g} on "
        f"{measured.impostor_pairs:,} impostor pairs of clean photos."
    )


def _cells(step: Step) -> tuple[str, ...]:
    return (
        step.tar.words(),
        f"{step.kept.value:.0%}",
        step.recall.words(),
        f"{step.without_face:.1%}",
        _rate(step.far.value),
        _rate(step.far_alike.value),
    )


def _rate(value: float) -> str:
    return "–" if value != value else f"{value:.2%}"


def _slice_head() -> tuple[str, ...]:
    return ("slice", "", "photos", "people", "pairs", "TAR (95 %)", "recall@1 (95 %)",
            "FAR in the slice", "÷ stated (95 %)", "")  # fmt: skip


def _slice_cells(one: Slice) -> tuple[str, ...]:
    return (one.attribute, one.value, f"{one.photos:,}", f"{one.people:,}", f"{one.pairs:,}",
            one.tar.words(), one.recall.words(), _rate(one.far.value), _times(one.stated),
            one.remark)  # fmt: skip


def _times(stated: Rate | None) -> str:
    """Counted over stated rate, as ``1.2 (0.9 to 1.6)``."""
    if stated is None or stated.value != stated.value:
        return "–"
    return f"{stated.value:.1f} ({stated.low:.1f} to {stated.high:.1f})"


# --- pages ----------------------------------------------------------------------------------

_RANGE = (
    "(… to …)",
    "The figure lies in this range for 95 of 100 random samples of the people. A narrow range can "
    "be trusted more.",
)
_SLICE_FIGURES = (
    ("photos, people, pairs", "How many photos the slice has, of how many people, and how many "
     "pairs of photos of one person have a photo in it."),
    ("TAR", "How many of these pairs are accepted as one person, at the threshold of all photos. "
     "Higher is better."),
    ("recall@1", "How often the photo that is most similar to one of the slice, of all photos, "
     "shows the same person."),
    ("FAR in the slice", "How many pairs of different people of the slice are accepted as one "
     "person. Lower is better."),
    ("÷ stated", "How many times as many of them the model's calibration accepts as it states: 1 "
     "is right; 5 means that a stated one in a thousand is five in a thousand here."),
    _RANGE,
    ("weak", "Recognised significantly worse than all photos: the range of TAR is entirely below "
     "the TAR of all photos, or that of FAR entirely above the rate of the threshold. One slice "
     "in forty is weak by chance."),
    ("too small", f"Fewer than {FEWEST_PEOPLE} people or {FEWEST_PAIRS} pairs of one person: too "
     "few for a conclusion."),
)  # fmt: skip

_ROBUSTNESS_WORDS = """<p>Each photo is kept unchanged, or <em>clean</em>, and searched again after
it was degraded: its face is detected, aligned and embedded again, and compared with all clean
photos except its own. The threshold is not adapted to degraded photos, as in practice.</p>"""
_STEP_FIGURES = (
    ("TAR", "True accept rate: how many pairs of photos of one person, one degraded and one clean, "
     "are accepted as one person. Higher is better. A face that is not found any more counts as an "
     "error."),
    ("recall@1", "How often the most similar clean photo shows the same person. Higher is better. "
     "A face that is not found any more counts as an error."),
    ("no face found", "How many of the degraded photos have a face that the detector does not find "
     "any more."),
    ("FAR", "False accept rate: how many pairs of photos of different people, one degraded and one "
     "clean, are accepted as one person. Lower is better."),
    ("FAR, both degraded", "The same with both photos degraded. Two people in the same mask may "
     "look alike."),
    ("unchanged", "How many photos this step leaves as they are, such as those that are "
     "that small already."),
    ("TAR, both degraded, new threshold", "TAR if all photos are degraded and the threshold is "
     "chosen for them."),
    ("the paper's VAL", "The TAR that the FaceNet paper states for its network NN1, on its own "
     "photos."),
    ("example", "One photo at each step, its similarity to a clean photo of the same person, and "
     "whether this is accepted as one person."),
    ("common step, TAR kept", "A strength that is common in photos, and TAR there as a part of the "
     "TAR of clean photos: at 100% nothing is lost."),
    (f"keeps {GOOD:.0%} up to", f"The strongest step up to which {GOOD:.0%} of the TAR of clean "
     "photos are kept."),
    (f"loses {1 - LOST:.0%} from", f"The mildest step at which {1 - LOST:.0%} of the TAR of clean "
     "photos are lost."),
    ("FAR too high", f"The step at which more than {ALARM:g} times as many pairs of different "
     "people are accepted as the threshold allows on clean photos."),
    _RANGE,
)  # fmt: skip
"""What each row and column of the tables says to somebody who has never heard of it."""


def _robustness_page(measured: Robustness) -> Iterator[str]:
    yield f"<p>{html.escape(_about(measured))}</p>"
    yield f"<p>{INTRODUCTION}</p>"
    yield _ROBUSTNESS_WORDS
    yield from _summary(measured)
    for heading in HEADINGS:
        under_it = [one for one in measured.series if one.degradation.heading == heading]
        if not under_it and heading not in _ELSEWHERE:
            continue
        yield f"<h2>{heading}</h2>"
        if heading in _ELSEWHERE:
            yield f"<p>{_ELSEWHERE[heading]}</p>"
        if heading == "Expression and angle":
            yield from _slices_section(measured.slices, None, measured.clean)
        for series in under_it:
            yield from _series_section(series, measured)
    shown = {row for series in measured.series for row in _rows_of(series)}
    optional = {UNCHANGED, ANEW, PAPER}
    rows = [row for row in _STEP_FIGURES if row[0] in shown or row[0] not in optional]
    if measured.slices:
        known = {row[0] for row in rows}
        rows += [row for row in _SLICE_FIGURES if row[0] not in known]
    yield explained_table(rows, "What the figures say")


UNCHANGED, ANEW = "unchanged", "TAR, both degraded, new threshold"
PAPER = "the paper's VAL"


def _rows_of(series: Series) -> list[str]:
    """The rows that only some series have."""
    rows = [UNCHANGED] if any(step.unchanged for step in series.steps) else []
    return [*rows, ANEW, PAPER] if series.degradation.paper else rows


def _summary(measured: Robustness) -> Iterator[str]:
    found = findings(measured)
    yield (
        f"<p>The verdict depends on the share of the clean TAR that is kept at a step that is "
        f"common in photos: good from {GOOD:.0%}, bad below {BAD:.0%}.</p>"
    )
    yield table(
        ("", "", "common step", "TAR kept (95 %)", f"keeps {GOOD:.0%} up to",
         f"loses {1 - LOST:.0%} from", "FAR too high"),
        [_finding_cells(one) for verdict in VERDICTS for one in found if one.verdict == verdict],
        caption="What each change of the photos costs",
    )  # fmt: skip
    yield plot_svg(
        overview_plot(measured),
        "Share of the true accepts kept at a common step",
        "Each line is one change of the photos, at a strength that is common. At 1 nothing is "
        "lost. Green: good, orange: bad. The bars say where the figure lies for 95 of 100 "
        "random samples of the people.",
    )


def _finding_cells(one: Finding) -> tuple[str, ...]:
    return (one.verdict.capitalize(), *one[:1], *one[2:-1], one.alarm or "no")


def _series_section(series: Series, measured: Robustness) -> Iterator[str]:
    kind = series.degradation
    yield f"<h3>{html.escape(kind.title)}</h3>\n<p>{html.escape(kind.description)}</p>"
    steps = (measured.clean, *series.steps)
    examples = (measured.example, *series.examples)
    head = ("", *(step.label for step in steps))
    pictures = [
        _example_cell(one, step.label, measured.threshold)
        for one, step in zip(examples, steps, strict=True)
    ]
    rows = [
        ("TAR", *(_two_lines(step.tar.words()) for step in steps)),
        ("recall@1", *(_two_lines(step.recall.words()) for step in steps)),
        ("no face found", *(f"{step.without_face:.1%}" for step in steps)),
        ("FAR", *(_rate(step.far.value) for step in steps)),
        ("FAR, both degraded", *(_rate(step.far_alike.value) for step in steps)),
    ]
    if UNCHANGED in _rows_of(series):
        rows.append((UNCHANGED, *(f"{step.unchanged:.0%}" for step in steps)))
    if kind.paper:
        paper = dict(kind.paper)
        rows += [
            (ANEW,
             *(f"{step.anew.tar:.1%}" for step in steps)),
            (PAPER,
             *(f"{paper[s.strength]:.1%}" if s.strength in paper else "" for s in steps)),
        ]  # fmt: skip
    caption = f"{kind.title}: one column a step, the clean photos first"
    yield table(head, [("example", *pictures), *rows], raw=True, caption=caption)
    if kind.paper:
        yield (
            "<p>The paper's figures are those of its network NN1 (140 million parameters) on its "
            "own photos, at FAR 1e-3. The row above them is computed in the most similar way. "
            "Compare how the figures decrease, not their values.</p>"
        )
    yield plot_svg(
        series_plot(series, measured.clean),
        f"Figures over {kind.title.lower()}",
        "To the right, the photos are changed more. Lines that stay high lose little.",
    )


def _slices_section(
    slices: Sequence[Slice], everybody: Slice | None, clean: Step | None = None
) -> Iterator[str]:
    whole = everybody.tar if everybody is not None else clean.tar if clean is not None else None
    for attribute in dict.fromkeys(one.attribute for one in slices):
        parts = [one for one in slices if one.attribute == attribute]
        yield f"<h3>{html.escape(attribute)}</h3>"
        every = [] if everybody is None else [everybody]
        yield table(
            _slice_head()[1:],
            [(one.value or "all photos", *_slice_cells(one)[2:]) for one in (*every, *parts)],
            caption=f"Photos by {attribute.lower()}",
        )
        if whole is not None:
            yield plot_svg(
                slices_plot(parts, whole),
                f"True accept rate by {html.escape(attribute.lower())}",
                "Grey: all photos together. A point left of it is recognised less often. Orange: "
                "weak; hollow: too few people for a conclusion.",
            )


def _example_cell(example: Example, label: str, threshold: float) -> str:
    image = Image.fromarray(example.image)
    shown = ImageOps.pad(image, (SHOWN, SHOWN), Image.Resampling.BICUBIC, BACKGROUND)
    if example.similarity is None:
        words = "no face found"
    else:
        accepted = "accepted" if example.similarity >= threshold else "refused"
        words = f"{example.similarity:.2f}, {accepted}"
    return f"{img(shown, f'The example photo, {label}')}{words}"


def _two_lines(words: str) -> str:
    value, _, interval = words.partition(" ")
    return f"{value}<br><small>{interval}</small>"
