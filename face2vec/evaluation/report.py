"""Reports of evaluations: figures, and a page with curves and the worst pairs."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError, PhotoError
from face2vec.evaluation.identification import RANKS, Identification, identify
from face2vec.evaluation.metrics import (
    PairScores,
    TrueAccepts,
    all_pairs,
    area_under_curve,
    curve,
    equal_error_rate,
    ten_folds,
    with_intervals,
)
from face2vec.evaluation.sets import NamedFaces, Pair
from face2vec.files import expanded, json_line, write_json, writing
from face2vec.report.grid import plot_package
from face2vec.report.html import (
    Made,
    failed_section,
    figures_table,
    img,
    made_section,
    photo_link,
    write_page,
)
from face2vec.report.svg import PLOT_WIDTH, plot_svg
from face2vec.report.text import columns
from face2vec.report.thumbnails import thumbnail
from face2vec.types import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
FALSE_POSITIVE_RATES = (1e-1, 1e-2, 1e-3)
WORST = 8
PAGE, CURVES, FIGURES = "report.html", "curves.png", "figures.json"


LOWEST = 1e-6
"""Lowest rate on an axis."""
INTRODUCTION = (
    "Two photos of one person are a genuine pair, two photos of different people an impostor pair. "
    "The network gives each pair a similarity from −1 to 1; from a threshold on it is accepted as "
    "one person."
)
CURVE_WORDS = {
    "false accept rate": (
        "To the left, a stricter threshold: fewer pairs of different people are accepted as one "
        "person, and fewer pairs of one person are recognised. A curve nearer the top left corner "
        "is better."
    ),
    "false positive identification rate": (
        "To the left, a stricter threshold: fewer strangers are taken for somebody, and more known "
        "people are missed. A curve nearer the bottom left corner is better."
    ),
}
WORST_WORDS = {
    True: "One person each, whom the network sees as different.",
    False: "Different people, whom the network sees as alike. Names of the data set can be wrong.",
}
PAIR_HEAD = ("Similarity", "First", "Second", "Photos")
_EXPLAINED = (
    ("Photos, people", "What was measured on."),
    ("Videos, people", "What was measured on."),
    ("Photos without", "Unreadable photos, and photos in which no face was found. They count as "
     "errors."),
    ("Videos without", "Videos in which no face was found. They count as errors."),
    ("View 2 accuracy", "How many of the official pairs of LFW are decided rightly, with a "
     "threshold chosen on nine tenths of them and tried on the last tenth, ten times."),
    ("Accuracy, ten folds", "How many pairs are decided rightly, with a threshold chosen on nine "
     "tenths of them and tried on the last tenth, ten times."),
    ("… pairs with", "Pairs that could not be compared."),
    ("TAR at FAR", "If so few pairs of different people may be accepted as one person, how many "
     "pairs of one person are recognised. The range is where the figure lies for 95 of 100 "
     "random samples of the people."),
    ("… genuine and impostor", "How many pairs of one person, and of different people, there are. "
     "A rate below one divided by the impostor pairs cannot be measured."),
    ("Equal error rate", "The threshold at which as many pairs of one person are refused as pairs "
     "of different people are accepted: the share of either. Lower is better."),
    ("Area under the ROC", "The chance that a pair of one person is more similar than a pair of "
     "different people. 1 is perfect, 0.5 is guessing."),
    ("Probes", "Photos that were searched among all others."),
    ("Right person first", "How often the most similar photo shows the same person."),
    ("Right person among", "How often the same person is among so many most similar photos."),
    ("Half of the people unknown", "Half of the people are strangers. FPIR: the share of strangers "
     "who are taken for somebody. FNIR: the share of known people who are then missed, or taken "
     "for somebody else. Lower is better."),
)  # fmt: skip


def explained(name: str) -> str:
    """What a figure says to somebody who has never heard of it; empty if it is not known.

    Args:
        name: its name, see ``Report.rows``.
    """
    return next((words for start, words in _EXPLAINED if name.startswith(start)), "")


class WorstPair(NamedTuple):
    """A pair of photos with one of the largest errors."""

    first: Path
    first_box: Box
    second: Path
    second_box: Box
    similarity: float
    same: bool


@dataclass(frozen=True)
class Report:
    """Figures of one evaluation.

    Attributes:
        title: title of the report.
        figures: JSON-able values by name; rates are 0…1.
        rows: the figures as text: (label, value).
        curves: (name, x, y) of each curve, x and y float64 (n,); x has a logarithmic scale.
        axes: labels of x and y.
        worst: the pairs with the largest errors.
        model: key of the model, or empty.
        weights: SHA-256 in hexadecimal of its weights, or empty.
        failed: path of each photo that failed, and why.
        things: ``"photo"`` or ``"video"``.
    """

    title: str
    figures: dict[str, Any]
    rows: tuple[tuple[str, str], ...]
    curves: tuple[tuple[str, NDArray[np.float64], NDArray[np.float64]], ...]
    axes: tuple[str, str]
    worst: tuple[WorstPair, ...] = field(default=())
    model: str = ""
    weights: str = ""
    failed: tuple[tuple[str, str], ...] = ()
    things: str = "photo"

    def to_text(self) -> str:
        """The rows in two columns."""
        return "\n".join(columns(self.rows))

    def to_json(self) -> str:
        """The figures as JSON on one line."""
        return json_line(self.figures)

    def save(self, folder: Path, command: str = "") -> Path:
        """Write ``report.html``, ``curves.png`` and ``figures.json``; return the page's path.

        Args:
            folder: for the files.
            command: the command line that made them, for the page.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        folder = Path(expanded(folder))
        folder.mkdir(parents=True, exist_ok=True)
        self.plot(folder / CURVES)
        write_json(folder / FIGURES, self.figures)
        made = Made(command, self.model, self.weights)
        write_page(folder / PAGE, self.title, "\n".join([*self._sections(), made_section(made)]))
        return folder / PAGE

    def plot(self, path: Path) -> None:
        """Draw the curves.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        figure = self.drawn(8, 5)
        figure.axes[0].set_title(self.title)
        with writing(path) as file:
            figure.savefig(file, dpi=100, bbox_inches="tight")

    def drawn(self, width: float = PLOT_WIDTH, height: float = 3.0) -> Figure:
        """The curves as a plot, whose axes end where the curves do.

        Args:
            width: width in inches.
            height: height in inches.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        figure: Figure = plot_package("matplotlib.figure", "drawing curves").Figure(
            figsize=(width, height), layout="constrained"
        )
        axes = figure.add_subplot()
        for name, x, y in self.curves:
            axes.plot(x, y, label=name, lw=2)
        low, high = self._limits()
        axes.set(xscale="log", xlabel=self.axes[0], ylabel=self.axes[1], xlim=(low[0], high[0]),
                 ylim=(low[1], high[1]))  # fmt: skip
        axes.grid(alpha=0.5)
        if len(self.curves) > 1:
            axes.legend(loc="best", framealpha=0.6)
        return figure

    def _limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The lowest and the highest (x, y) that are shown."""
        x = np.concatenate([one for _, one, _ in self.curves] or [np.ones(1)])
        y = np.concatenate([one for _, _, one in self.curves] or [np.ones(1)])
        seen = (x > 0) & np.isfinite(y)
        left = max(float(x[seen].min()) if seen.any() else LOWEST, LOWEST)
        left = min(left, 0.5)
        inside = y[seen & (x >= left)]
        bottom, top = (float(inside.min()), float(inside.max())) if len(inside) else (0.0, 1.0)
        around = max((top - bottom) * 0.08, 0.01)
        return (left, max(bottom - around, -0.01)), (1.0, min(top + around, 1.01))

    def _sections(self) -> Iterator[str]:
        yield f"<p>{INTRODUCTION}</p>"
        yield figures_table([(name, value, explained(name)) for name, value in self.rows])
        words = f"{self.axes[1]} over {self.axes[0]}"
        yield plot_svg(self.drawn(), words, CURVE_WORDS.get(self.axes[0], ""))
        for same, title in (
            (True, "Least similar genuine pairs"),
            (False, "Most similar impostor pairs"),
        ):
            pairs = [pair for pair in self.worst if pair.same == same]
            if pairs:
                yield f"<h2>{title}</h2>\n<p>{WORST_WORDS[same]}</p>"
                yield '<div class="wide" tabindex="0"><table><thead><tr>'
                yield "".join(f'<th scope="col">{one}</th>' for one in PAIR_HEAD)
                yield "</tr></thead><tbody>"
                yield from (_pair_row(pair) for pair in pairs)
                yield "</tbody></table></div>"
        yield failed_section(self.failed, things=self.things)


def pairs_report(
    title: str, faces: NamedFaces, folds_of: Sequence[Pair] = (), *, things: str = "photo"
) -> Report:
    """Report on the separation of genuine and impostor pairs.

    Args:
        title: title of the report.
        faces: all faces; each is compared with every other.
        folds_of: pairs such as LFW's View 2, for the accuracy in ten folds.
        things: ``"photo"``, or ``"video"``, for which the worst pairs are not shown.

    Raises:
        ModelError: faces were found in too few of the photos of ``folds_of``.
    """
    if folds_of:
        _refuse_too_few(faces, folds_of, things)
    pairs = all_pairs(faces.embeddings, faces.people, faces.counts, max(FARS))
    accepts = with_intervals(pairs, FARS)
    figures = _about(faces) | {
        "genuine_pairs": len(pairs.genuine) + pairs.missed,
        "genuine_pairs_without_a_face": pairs.missed,
        "impostor_pairs": len(pairs.impostor),
        "auc": area_under_curve(pairs),
        "eer": equal_error_rate(pairs),
        "tar": [one._asdict() for one in accepts],
    }
    rows = [*_about_rows(faces, things)]
    worst: list[WorstPair] = []
    if folds_of:
        similarities = _similarities(faces, folds_of)
        same = np.array([pair.same for pair in folds_of])
        folds = ten_folds(similarities, same, np.array([pair.fold for pair in folds_of]))
        figures |= {
            "view_2_accuracy": folds.mean,
            "view_2_standard_error": folds.standard_error,
            "view_2_thresholds": folds.thresholds.tolist(),
            "view_2_pairs_without_a_face": folds.missing,
        }
        rows += [
            ("View 2 accuracy, ten folds ± standard error" if things == "photo" else
             "Accuracy, ten folds ± standard error",
             f"{folds.mean:.2%} ± {folds.standard_error:.2%}"),
            (f"… pairs with a {things} without a face, counted as wrong", f"{folds.missing:,}"),
        ]  # fmt: skip
        worst = _worst(faces, folds_of, similarities) if things == "photo" else []
    rows += [_accepts_row(one) for one in accepts]
    rows += [
        ("… genuine and impostor pairs",
         f"{len(pairs.genuine) + pairs.missed:,} and {len(pairs.impostor):,}"),
        ("Equal error rate", f"{figures['eer']:.2%}"),
        ("Area under the ROC", f"{figures['auc']:.5f}"),
    ]  # fmt: skip
    return Report(title, figures, tuple(rows), (("all pairs", *_roc(pairs)),),
                  ("false accept rate", "true accept rate"), tuple(worst),
                  faces.model, faces.weights, faces.failed, things)  # fmt: skip


def _refuse_too_few(faces: NamedFaces, pairs: Sequence[Pair], things: str) -> None:
    """Rates need pairs of both kinds, and thresholds need two folds."""
    with_face = set(faces.photos)
    known = [pair for pair in pairs if pair.first in with_face and pair.second in with_face]
    if len({pair.same for pair in known}) < 2 or len({pair.fold for pair in known}) < 2:
        raise ModelError(
            f"faces were found in {len(with_face):,} of {faces.counts.sum():,} {things}s; genuine "
            "and impostor pairs in at least two folds are needed"
        )


def identification_report(title: str, faces: NamedFaces) -> Report:
    """Report on closed-set and open-set identification.

    Args:
        title: title of the report.
        faces: all faces.
    """
    found = identify(faces.embeddings, faces.people, faces.counts)
    open_set = {rate: found.false_negatives(rate) for rate in FALSE_POSITIVE_RATES}
    figures = _about(faces) | {
        "asked": found.asked,
        "asked_without_a_face": found.missed,
        "cmc": {str(rank): found.within(rank) for rank in RANKS},
        "open_set": [
            {"fpir": rate, "threshold": threshold, "fnir": fnir}
            for rate, (threshold, fnir) in open_set.items()
        ],
    }
    rows = [
        *_about_rows(faces),
        ("Probes (photos whose person has another photo)", f"{found.asked:,}"),
        *(
            (f"Right person among the {rank} most similar" if rank > 1 else
             "Right person first (rank-1)", f"{found.within(rank):.1%}")
            for rank in RANKS
        ),
        *(
            (f"Half of the people unknown: FNIR at FPIR {rate:g}",
             f"{fnir:.1%}, threshold {threshold:.3f}")
            for rate, (threshold, fnir) in open_set.items()
        ),
    ]  # fmt: skip
    axes = ("false positive identification rate", "false negative identification rate")
    curves = (("half unknown", *_det(found)),)
    return Report(title, figures, tuple(rows), curves, axes, (), faces.model, faces.weights,
                  faces.failed)  # fmt: skip


def _about(faces: NamedFaces) -> dict[str, Any]:
    return {
        "photos": int(faces.counts.sum()),
        "people": len(faces.names),
        "photos_without_a_face": faces.without_face,
    }


def _about_rows(faces: NamedFaces, things: str = "photo") -> list[tuple[str, str]]:
    return [
        (f"{things.capitalize()}s, people", f"{faces.counts.sum():,}, {len(faces.names):,}"),
        (f"{things.capitalize()}s without a detected face", f"{faces.without_face:,}"),
    ]


def _accepts_row(one: TrueAccepts) -> tuple[str, str]:
    return (
        f"TAR at FAR {one.far:g} (95 % over people)",
        f"{one.tar:.1%} ({one.low:.1%} to {one.high:.1%}), threshold {one.threshold:.3f}",
    )


def _similarities(faces: NamedFaces, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    rows = {photo: row for row, photo in enumerate(faces.photos)}
    return np.array(
        [
            faces.embeddings[rows[pair.first]] @ faces.embeddings[rows[pair.second]]
            if pair.first in rows and pair.second in rows
            else np.nan
            for pair in pairs
        ],
        np.float32,
    )


def _worst(
    faces: NamedFaces, pairs: Sequence[Pair], similarities: NDArray[np.float32]
) -> list[WorstPair]:
    boxes = dict(zip(faces.photos, faces.boxes, strict=True))
    known = [(float(s), pair) for s, pair in zip(similarities, pairs, strict=True) if s == s]
    found = []
    for same in (True, False):
        of_kind = sorted((one for one in known if one[1].same == same), key=lambda one: one[0],
                         reverse=not same)  # fmt: skip
        found += [
            WorstPair(p.first, boxes[p.first], p.second, boxes[p.second], similarity, same)
            for similarity, p in of_kind[:WORST]
        ]
    return found


def _pair_row(pair: WorstPair) -> str:
    cells = []
    for photo, box in ((pair.first, pair.first_box), (pair.second, pair.second_box)):
        try:
            cells.append(f"<td>{img(thumbnail(photo, box), f'Face in {photo.name}')}</td>")
        except PhotoError as error:
            cells.append(f"<td>{html.escape(str(error))}</td>")
    links = "<br>".join(photo_link(str(photo)) for photo in (pair.first, pair.second))
    return (
        f'<tr><td class="number">{pair.similarity:.3f}</td>{"".join(cells)}'
        f'<td class="photo">{links}</td></tr>'
    )


def _roc(pairs: PairScores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    far, tar = curve(pairs)
    return far, tar * len(pairs.genuine) / max(len(pairs.genuine) + pairs.missed, 1)


def _det(found: Identification) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rates = np.geomspace(1e-4, 1, 100)
    return rates, np.array([found.false_negatives(float(rate))[1] for rate in rates])
