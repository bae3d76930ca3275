"""Tables of photos with people and attributes, and the slices that they define."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.cohort import LOOKED_AT
from face2vec.engine import Face2Vec
from face2vec.errors import CalibrationError, SettingsError
from face2vec.evaluation.metrics import all_pairs
from face2vec.evaluation.sets import IMAGES
from face2vec.files import composed, expanded, text_of
from face2vec.lab.rates import Draws, threshold_for
from face2vec.lab.slices import Slice, sliced
from face2vec.lab.subjects import subjects_in

PHOTO_COLUMNS, PERSON_COLUMN = ("photo", "file"), "person"
MOST_VALUES = 12
"""Columns with more distinct numbers are divided into quarters; those of text are left out."""
EMPTY = "not stated"


@dataclass(frozen=True, eq=False)
class Table:
    """Photos with their people and attributes.

    Attributes:
        people: the person of each photo, by absolute path.
        attributes: for each column, the values of all photos in order.
        left_out: columns that were left out because they have too many distinct texts.
    """

    people: dict[Path, str]
    attributes: dict[str, list[str]]
    left_out: tuple[str, ...] = ()


def read_table(file: Path, by: Sequence[str] = ()) -> Table:
    """Read a CSV file with a column ``photo`` or ``file``, a column ``person``, and attributes.

    Photos are relative to the file's folder, or to its subfolder ``images``.

    Args:
        file: the file, UTF-8, with column names in its first row.
        by: columns of attributes; if empty, all other columns except those with more than
            ``MOST_VALUES`` distinct texts.

    Raises:
        SettingsError: a column or photo does not exist, or a photo is listed twice.
    """
    file = Path(expanded(file))
    reader = csv.DictReader(io.StringIO(text_of(file), newline=""))
    columns, rows = list(reader.fieldnames or ()), list(reader)
    photo_column = next((name for name in PHOTO_COLUMNS if name in columns), None)
    if photo_column is None or PERSON_COLUMN not in columns:
        raise SettingsError(
            f"{file} must have a column photo or file, and a column person; it has "
            f"{', '.join(columns) or 'none'}"
        )
    others = [name for name in columns if name not in (photo_column, PERSON_COLUMN)]
    if unknown := [name for name in by if name not in others]:
        raise SettingsError(
            f"{file} has no attribute {', '.join(unknown)}; it has {', '.join(others) or 'none'}"
        )
    people: dict[Path, str] = {}
    for number, row in enumerate(rows, 2):
        path = _photo(file, row[photo_column] or "", number)
        if path in people:
            raise SettingsError(f"{file}, row {number}: {path} is listed twice")
        people[path] = composed(row[PERSON_COLUMN] or "")
    values = {name: [composed(row[name] or "") for row in rows] for name in by or others}
    divided = {name: _groups(some) for name, some in values.items()}
    left_out = tuple(
        name for name, some in divided.items() if not by and len(set(some)) > MOST_VALUES
    )
    return Table(people, {n: v for n, v in divided.items() if n not in left_out}, left_out)


def _photo(file: Path, name: str, number: int) -> Path:
    folder = file.resolve().parent
    for path in (folder / name, folder / IMAGES / name):
        if name and path.is_file():
            return path
    raise SettingsError(f"{file}, row {number}: there is no photo {folder / name}")


def _groups(values: list[str]) -> list[str]:
    """Group the values of a column: few distinct values stay, many numbers become quarters."""
    if len(set(values)) <= MOST_VALUES:
        return [value or EMPTY for value in values]
    try:
        numbers = np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return [value or EMPTY for value in values]
    edges = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    return [
        EMPTY if number != number else f"{edges[n]:g} to {edges[n + 1]:g}"
        for number, n in zip(numbers, place, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class TableSlices:
    """Results of `slices_of`.

    Attributes:
        model: key of the model.
        far: false accept rate for which the threshold was set.
        threshold: lowest accepted similarity.
        impostor_pairs: number of impostor pairs that set the threshold.
        without_face: number of photos that were left out because no face was found.
        everybody: all photos as one slice.
        slices: slices of each attribute and value.
        failed: path of each photo that was left out, and why.
    """

    model: str
    far: float
    threshold: float
    impostor_pairs: int
    without_face: int
    everybody: Slice
    slices: tuple[Slice, ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def about(self) -> str:
        """Description of the measurement."""
        return (
            f"{self.everybody.photos:,} photos of {self.everybody.people:,} people, model "
            f"{self.model}; {self.without_face:,} photos without a detected face were left out. "
            f"The threshold, {self.threshold:.3f}, was set at FAR {self.far:g} on "
            f"{self.impostor_pairs:,} impostor pairs."
        )

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "model": self.model,
            "far": self.far,
            "threshold": self.threshold,
            "impostor_pairs": self.impostor_pairs,
            "photos_without_a_face": self.without_face,
            "all": self.everybody.figures(),
            "slices": [one.figures() for one in self.slices],
        }


def slices_of(
    table: Table,
    engine: Face2Vec,
    *,
    people: int | None = None,
    photos: int | None = None,
    far: float = 1e-3,
    seed: int = 0,
) -> TableSlices:
    """Measure each slice of a table at the threshold of all photos.

    Args:
        table: the photos with their people and attributes.
        engine: the detector and model.
        people: largest number of people, selected at random; None for all with two photos.
        photos: largest number of photos per person; None for all.
        far: false accept rate of all photos for which the threshold is set.
        seed: seed of the selection and of the intervals.

    Raises:
        SettingsError: fewer than two people have two photos with a face.
    """
    subjects = subjects_in(table.people, engine, people=people, photos=photos, seed=seed)
    rows = {photo: row for row, photo in enumerate(table.people)}
    places = [rows[subject.photo] for subject in subjects.subjects]
    faces = [subject.face.embedding for subject in subjects.subjects]
    embeddings = np.stack([face for face in faces if face is not None])
    numbers, draws = subjects.people, Draws(len(subjects.names), seed=seed)
    pairs = all_pairs(embeddings, numbers, highest_far=0)
    threshold = threshold_for(pairs.impostor, far)
    divisions: dict[str, dict[str, NDArray[np.bool_]]] = {"all": {"": np.ones(len(numbers), bool)}}
    for name, values in table.attributes.items():
        column = np.array([values[place] for place in places])
        divisions[name] = {str(value): column == value for value in np.unique(column)}
    calibration = _calibration_at(engine, embeddings, far)
    whole, *others = sliced(embeddings, numbers, threshold, far, divisions, draws, calibration)
    return TableSlices(
        engine.encoder.model.description.key,
        far,
        threshold,
        len(pairs.impostor),
        subjects.without_face,
        whole,
        tuple(others),
        subjects.failed,
    )


def _calibration_at(
    engine: Face2Vec, embeddings: NDArray[np.float32], far: float
) -> Calibration | None:
    """The model's calibration in a gallery of these faces; None if it does not cover the rate."""
    try:
        calibration = engine.calibration
        calibration.threshold(far)
    except CalibrationError:
        return None
    order = np.random.default_rng(0).permutation(len(embeddings))[:LOOKED_AT]
    return calibration.among(embeddings[order])
