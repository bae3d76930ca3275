"""Compares encoders on LFW: error rates, speed, memory and size."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError
from face2vec.evaluation.measuring import Measured, measured
from face2vec.evaluation.report import (
    CURVE_WORDS,
    CURVES,
    FIGURES,
    INTRODUCTION,
    Report,
    identification_report,
    pairs_report,
)
from face2vec.evaluation.sets import NamedFaces, NamedPhotos, Pair, faces_found
from face2vec.files import expanded, json_line, write_json
from face2vec.report.html import (
    Made,
    explained_table,
    failed_section,
    made_section,
    table,
    write_page,
)
from face2vec.report.svg import plot_svg
from face2vec.report.text import columns

FAR = 1e-3
PAGE = "compare.html"
NOT_MEASURED = "not measured here"
COLUMNS = (
    "encoder",
    "LFW View 2",
    f"TAR at FAR {FAR:g}",
    "rank-1",
    "no face",
    "photos/s",
    "faces/s",
    "memory",
    "weights",
    "dimension",
    "runs on",
)
RANK_1 = COLUMNS.index("rank-1")
LEGEND = (
    "LFW View 2: accuracy in ten folds ± standard error. TAR: over all pairs of all photos. "
    "Photos without a face count as errors in both. photos/s: from files to embeddings. faces/s: "
    "the embedding network alone, in batches of 32 crops. Both are medians, with all cores. "
    "memory: peak memory of a separate process. weights: size of the embedding network on disk."
)
EXPLAINED = {
    "encoder": "What turns a photo into faces and embeddings: a detector and a network, with the "
    "settings that their package gives them.",
    "LFW View 2": "How many of the official pairs of photos are decided rightly, as one person or "
    "two, with a threshold chosen on nine tenths of them and tried on the last tenth, ten times; ± "
    "is the standard error of the ten. A photo without a face counts as an error.",
    f"TAR at FAR {FAR:g}": f"If only one pair of different people in {1 / FAR:,.0f} may be "
    "accepted as one person, how many pairs of one person are recognised. Higher is better.",
    "rank-1": "How often the most similar photo of all others shows the same person.",
    "no face": "Photos of LFW in which this encoder finds no face, or on which it fails.",
    "photos/s": "Photos in a second, from files to embeddings, with all cores; the median over "
    "blocks of photos.",
    "faces/s": "Crops in a second that the network alone turns into embeddings, 32 at a time, with "
    "all cores; the median.",
    "memory": "The largest amount of memory that its process needed, with Python and the packages.",
    "weights": "Size of the network on disk.",
    "dimension": "How many numbers an embedding has. More need more disk and memory.",
    "runs on": "The library that runs the network, and the precision of its numbers.",
}
"""What each column says to somebody who has never heard of it."""


@dataclass(frozen=True)
class Compared:
    """Figures of one encoder.

    Attributes:
        encoder: requested name of the encoder.
        figures: JSON-able values by name, rates 0…1; {} if it could not be measured here.
        reason: why it could not be measured.
        curve: (FAR, TAR), each float64 (n,), over all pairs of LFW's photos.
        failed: path of each photo that failed, and why.
    """

    encoder: str
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    curve: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    failed: tuple[tuple[str, str], ...] = ()

    def cells(self) -> list[str]:
        """Cells of the table, one for each of `COLUMNS`."""
        if not self.figures:
            return [self.encoder, NOT_MEASURED, *[""] * (len(COLUMNS) - 2)]
        lfw, people = self.figures["lfw"], self.figures["people"]
        (tar,) = (one["tar"] for one in lfw["tar"] if one["far"] == FAR)
        peak = self.figures["peak_bytes"]
        return [
            self.encoder,
            f"{lfw['view_2_accuracy']:.2%} ± {lfw['view_2_standard_error']:.2%}",
            f"{tar:.1%}",
            "" if people is None else f"{people['cmc']['1']:.1%}",
            f"{lfw['photos_without_a_face']:,} of {lfw['photos']:,}",
            f"{self.figures['photos_per_second']:,.1f}",
            f"{self.figures['faces_per_second']:,.1f}",
            "" if peak is None else f"{peak / 2**20:,.0f} MiB",
            f"{self.figures['weights_bytes'] / 1e6:,.1f} MB",
            f"{self.figures['dimension']:,}",
            self.figures["runs_on"],
        ]


@dataclass(frozen=True)
class Comparison:
    """Figures of several encoders.

    Attributes:
        rows: the encoders in the requested order.
    """

    rows: tuple[Compared, ...]

    @property
    def complete(self) -> bool:
        """Whether all encoders could be measured here."""
        return all(row.figures for row in self.rows)

    def to_text(self) -> str:
        """A table in columns, followed by the reasons why encoders were not measured."""
        return "\n".join([*columns(self._table()), *(f"\n{note}" for note in self._notes())])

    def to_json(self) -> str:
        """All figures as JSON on one line."""
        return json_line(self._facts())

    def save(self, folder: Path, command: str = "") -> Path:
        """Write ``compare.html``, ``curves.png`` and ``figures.json``; return the page's path.

        Args:
            folder: for the files.
            command: the command line that made them, for the page.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        folder = Path(expanded(folder))
        folder.mkdir(parents=True, exist_ok=True)
        curves = tuple((row.encoder, *row.curve) for row in self.rows if row.curve is not None)
        title = "Encoders on Labeled Faces in the Wild"
        axes = ("false accept rate", "true accept rate")
        drawn = Report(title, {}, (), curves, axes)
        drawn.plot(folder / CURVES)
        write_json(folder / FIGURES, self._facts())
        weights = tuple((row.encoder, row.figures["weights"]) for row in self.rows if row.figures)
        body = [*self._sections(drawn), made_section(Made(command, others=weights))]
        write_page(folder / PAGE, title, "\n".join(body))
        return folder / PAGE

    def _table(self) -> list[list[str]]:
        """Headings and cells; rank-1 only if it was measured."""
        lines = [list(COLUMNS), *(row.cells() for row in self.rows)]
        if not any(row.figures and row.figures["people"] for row in self.rows):
            for line in lines:
                del line[RANK_1]
        return lines

    def _notes(self) -> Iterator[str]:
        for row in self.rows:
            if row.reason:
                yield f"{row.encoder}, {NOT_MEASURED}: {row.reason}"
            elif row.figures["failures"]:
                yield f"{row.encoder}: failed on {row.figures['failures']:,} photos"

    def _facts(self) -> dict[str, Any]:
        return {
            "cores": os.cpu_count(),
            "encoders": [
                {"encoder": row.encoder, "not_measured": row.reason or None, **row.figures}
                for row in self.rows
            ],
        }

    def _sections(self, drawn: Report) -> Iterator[str]:
        heads, *lines = self._table()
        yield f"<p>{INTRODUCTION}</p>"
        yield table(heads, lines, caption="The encoders on the same photos and the same machine")
        yield from (f"<p>{html.escape(note)}</p>" for note in self._notes())
        words = "true accept rate over false accept rate"
        yield plot_svg(drawn.drawn(), words, CURVE_WORDS["false accept rate"])
        yield explained_table([(head, EXPLAINED[head]) for head in heads], "What the columns say")
        yield from (failed_section(row.failed, whose=row.encoder) for row in self.rows)


def compare(
    encoders: Sequence[str],
    lfw: NamedPhotos,
    view_2: Sequence[Pair],
    people: NamedPhotos | None = None,
    *,
    runtime: str = "auto",
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure encoders one after another, each in a separate process.

    Args:
        encoders: names of encoders, see `open_encoder`.
        lfw: photos of LFW with their people.
        view_2: LFW's pairs of these photos, in folds.
        people: photos of people for identification (rank-1); None for none.
        runtime: runtime of face2vec's own models.
        say: called with a message about the next encoder; also enables progress bars on
            standard error.

    Returns:
        The figures of the encoders, and the reasons why some could not be measured.
    """
    photos = list(dict.fromkeys([*lfw.people, *(people.people if people else ())]))
    rows = []
    for number, encoder in enumerate(encoders, 1):
        if say is not None:
            say(f"{number} of {len(encoders)}: {encoder}")
        try:
            found = measured(encoder, photos, runtime=runtime, progress=say is not None)
            rows.append(_compared(encoder, found, lfw, view_2, people))
        except ModelError as error:
            rows.append(Compared(encoder, reason=str(error)))
    return Comparison(tuple(rows))


def _compared(
    encoder: str,
    found: Measured,
    lfw: NamedPhotos,
    view_2: Sequence[Pair],
    people: NamedPhotos | None,
) -> Compared:
    faces = _faces_of(found, lfw)
    report = pairs_report(encoder, faces, view_2)
    identified = (
        None if people is None else identification_report(encoder, _faces_of(found, people))
    )
    (_, far, tar), *_ = report.curves
    figures = {name: value for name, value in vars(found).items() if name not in ("found", "why")}
    figures |= {
        "failures": len(found.why),
        "lfw": report.figures,
        "people": None if identified is None else identified.figures,
    }
    failed = (*report.failed, *(() if identified is None else identified.failed))
    return Compared(encoder, figures, curve=(far, tar), failed=tuple(dict.fromkeys(failed)))


def _faces_of(found: Measured, photos: NamedPhotos) -> NamedFaces:
    faces = {photo: found.found[photo] for photo in photos.people if photo in found.found}
    return faces_found(photos, faces, found.name, found.weights, found.why)
