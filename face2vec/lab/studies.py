"""Studies: small trainings that differ only in the dimension or in the amount of data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from face2vec.encoding.embed import Embedder
from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import TrueAccepts, all_pairs, with_intervals
from face2vec.evaluation.report import INTRODUCTION
from face2vec.files import expanded, write_json
from face2vec.lab.rates import Rate
from face2vec.lab.report import FIGURES, PAGE
from face2vec.lab.slices import FEWEST_PEOPLE
from face2vec.models.store import load_model
from face2vec.report.html import (
    LEFT_OUT,
    Made,
    explained_table,
    failed_section,
    made_section,
    table,
    write_page,
)
from face2vec.report.svg import plot_svg
from face2vec.report.text import columns
from face2vec.runtime.select import choose_runtime
from face2vec.training.faces import Faces
from face2vec.training.teachers import resized

if TYPE_CHECKING:
    from face2vec.training.recipe import Recipe

log = logging.getLogger("face2vec")

DIMENSIONS = (32, 64, 128, 256, 512)
SHARES = (0.125, 0.25, 0.5, 1.0)
HELD_OUT = 0.1
PAPER_DIMENSIONS = {64: 0.868, 128: 0.879, 256: 0.872, 512: 0.856}
"""VAL at FAR 1e-3 of the FaceNet paper's NN1, section 5.4, by dimension."""


@dataclass(frozen=True)
class Training:
    """Results of one training.

    Attributes:
        label: the setting that differs.
        people: number of people in the training data.
        photos: number of photos in the training data.
        accepts: TAR on the held-out people, who are the same for all trainings.
        paper: the FaceNet paper's figure, 0…1, or None.
        weights: SHA-256 in hexadecimal of the weights, or empty.
    """

    label: str
    people: int
    photos: int
    accepts: TrueAccepts
    paper: float | None = None
    weights: str = ""

    @property
    def tar(self) -> Rate:
        """TAR with its 95 % interval."""
        return Rate(self.accepts.tar, self.accepts.low, self.accepts.high)

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "label": self.label,
            "people": self.people,
            "photos": self.photos,
            "far": self.accepts.far,
            "tar": self.tar.figures(),
            "paper": self.paper,
            "weights": self.weights,
        }


def named_split(faces: Faces, seed: int = 0) -> tuple[Faces, Faces]:
    """Split the faces with a name into a training set and a test set of ``HELD_OUT`` of the people.

    Logs a warning if the test set is too small for reliable figures.

    Args:
        faces: the faces; those without a name are left out.
        seed: seed of the split.

    Returns:
        The training set and the test set.

    Raises:
        SettingsError: one of the sets has too few people.
    """
    named = faces.only(np.flatnonzero(faces.people >= 0))
    learn, held = named.split(HELD_OUT, seed, by_person=True)
    if min(_mated(learn), _mated(held)) < 2:
        raise SettingsError(
            f"{len(np.unique(named.people))} people are too few: the tenth that is held out must "
            "have two people with two photos each"
        )
    if (measured := _mated(held)) < FEWEST_PEOPLE:
        log.warning(
            "only %d people are held out; their figures and intervals are unreliable", measured
        )
    return learn, held


def _mated(faces: Faces) -> int:
    """Number of people with at least two photos."""
    return int((np.unique(faces.people, return_counts=True)[1] > 1).sum())


def fewer_people(faces: Faces, share: float, seed: int = 0) -> Faces:
    """Select a random share of the people with all their photos.

    A smaller share is a subset of a larger one.

    Args:
        faces: the faces.
        share: share of the people, 0…1.
        seed: seed of the selection.
    """
    people = np.random.default_rng(seed).permutation(np.unique(faces.people))
    kept = people[: max(round(share * len(people)), 1)]
    return faces.only(np.flatnonzero(np.isin(faces.people, kept)))


def by_dimension(
    recipe: Recipe,
    faces: Faces,
    folder: Path,
    dimensions: Sequence[int] = DIMENSIONS,
    *,
    far: float = 1e-3,
    say: Callable[[str], None] = lambda _: None,
) -> list[Training]:
    """Run one training per dimension, with all other settings equal.

    Args:
        recipe: recipe of all trainings.
        faces: faces with names.
        folder: folder for the trainings, each in a subfolder; interrupted ones are resumed.
        dimensions: the dimensions.
        far: false accept rate at which TAR is measured.
        say: called with the label of each training before it starts.

    Raises:
        SettingsError: there are too few people.
        TrainingError: the folder has other trainings, or a training diverged.
    """
    learn, held = named_split(faces)
    found = []
    for dimension in dimensions:
        label = f"dimension {dimension}"
        say(label)
        one = replace(recipe, dimension=dimension)
        trained = _trained(one, learn, held, folder / str(dimension), far)
        found.append(_training(label, learn, trained, PAPER_DIMENSIONS.get(dimension)))
    return found


def by_data(
    recipe: Recipe,
    faces: Faces,
    folder: Path,
    shares: Sequence[float] = SHARES,
    *,
    far: float = 1e-3,
    say: Callable[[str], None] = lambda _: None,
) -> list[Training]:
    """Run one training per share of the people, each with about the same number of steps.

    All trainings have the same number of people per batch: that of the recipe, or the number of
    people in the smallest share if it is lower.

    Args:
        recipe: recipe for all people; trainings on fewer people have more epochs.
        faces: faces with names.
        folder: folder for the trainings, each in a subfolder; interrupted ones are resumed.
        shares: shares of the people, 0…1.
        far: false accept rate at which TAR is measured.
        say: called with the label of each training before it starts.

    Raises:
        SettingsError: there are too few people.
        TrainingError: the folder has other trainings, or a training diverged.
    """
    from face2vec.training.recipe import HELD_OUT_SEED

    learn, held = named_split(faces)
    smallest = fewer_people(learn, min(shares))
    training_set = smallest.split(recipe.held_out, HELD_OUT_SEED, by_person=True)[0]
    recipe = replace(recipe, people=min(recipe.people, _mated(training_set)))
    found = []
    for share in shares:
        some = fewer_people(learn, share)
        label = f"{share:.1%} of the people"
        say(label)
        epochs = max(round(recipe.schedule.epochs * len(learn) / len(some)), 1)
        one = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs))
        trained = _trained(one, some, held, folder / f"{share:g}", far)
        found.append(_training(label, some, trained))
    return found


def _trained(
    recipe: Recipe, learn: Faces, held: Faces, folder: Path, far: float
) -> tuple[TrueAccepts, str]:
    """TAR of a training on the held-out people, and the SHA-256 of its weights."""
    from face2vec.training.recipe import run

    model = load_model(run(recipe, learn, folder))
    embed = Embedder(model, choose_runtime())
    embeddings = embed(resized(held.crops, model.description.input_size))
    people = np.unique(held.people, return_inverse=True)[1].astype(np.int64)
    (accepts,) = with_intervals(all_pairs(embeddings, people, highest_far=far), [far])
    return accepts, model.fingerprint.weights


def _training(
    label: str, learn: Faces, trained: tuple[TrueAccepts, str], paper: float | None = None
) -> Training:
    accepts, weights = trained
    return Training(label, len(np.unique(learn.people)), len(learn), accepts, paper, weights)


def study_text(trainings: Sequence[Training]) -> str:
    """One line per training, in columns."""
    return "\n".join(columns(_rows(trainings)))


def save_study(
    trainings: Sequence[Training],
    folder: Path,
    title: str,
    made: Made | None = None,
    failed: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``report.html`` and ``figures.json``; return the page's path.

    Args:
        trainings: what was measured.
        folder: for the files.
        title: of the page.
        made: how the figures were made, or None.
        failed: path of each photo that was left out, and why.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from face2vec.lab.plots import rates_plot

    folder = Path(expanded(folder))
    folder.mkdir(parents=True, exist_ok=True)
    figures = [one.figures() for one in trainings]
    write_json(folder / FIGURES, figures)
    head, *rows = _rows(trainings)
    drawn = rates_plot(
        [one.label for one in trainings],
        [one.tar for one in trainings],
        [one.paper for one in trainings],
    )
    body = (
        "<p>All trainings are measured on the same people, who are not in the training data. Each "
        "row is a single training. Another seed would change each figure by some points.</p>",
        f"<p>{INTRODUCTION}</p>",
        table(head, rows, caption=title),
        plot_svg(
            drawn,
            f"True accept rate, {title}",
            "How many pairs of one person are recognised after each training. Higher is better.",
        ),
        explained_table(_explained(head), "What the columns say"),
        failed_section(failed, became=LEFT_OUT),
        made_section(made or Made()),
    )
    write_page(folder / PAGE, title, "\n".join(body))
    return folder / PAGE


def _explained(head: Sequence[str]) -> list[tuple[str, str]]:
    """What each column says to somebody who has never heard of it."""
    _, people, photos, far, paper = head
    return [
        (people, "How many people the network has learned from."),
        (photos, "How many photos of them it has learned from."),
        (
            far,
            "If so few pairs of different people may be accepted as one person, how many pairs of "
            "one person are recognised. The range is where the figure lies for 95 of 100 random "
            "samples of the people.",
        ),
        (paper, "What the FaceNet paper states for its network NN1, on its own photos."),
    ]


def _rows(trainings: Sequence[Training]) -> list[tuple[str, ...]]:
    far = f"TAR at FAR {trainings[0].accepts.far:g} (95 % over people)"
    head = ("", "people in training", "photos", far, "the paper's NN1")
    rows: list[tuple[str, ...]] = [head]
    for one in trainings:
        paper = "" if one.paper is None else f"{one.paper:.1%}"
        rows.append((one.label, f"{one.people:,}", f"{one.photos:,}", one.tar.words(), paper))
    return rows
