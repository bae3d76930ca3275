"""Studies: small trainings that differ only in the dimension or in the amount of data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from face2vec.training.teachers import Teachers, remembered_targets, resized

if TYPE_CHECKING:
    from face2vec.training.recipe import Recipe

log = logging.getLogger("face2vec")

DIMENSIONS = (32, 64, 128, 256, 512)
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)
HELD_OUT = 0.1
PAPER_DIMENSIONS = {64: 0.868, 128: 0.879, 256: 0.872, 512: 0.856}
"""VAL at FAR 1e-3 of the FaceNet paper's NN1, section 5.4, by dimension."""
PAPER_SHARES = {0.01: 0.763, 0.1: 0.851, 0.2: 0.851, 1.0: 0.862}
"""The same of a smaller network, section 5.5, by the share of 260 million photos."""
TARGETS = "targets.npy"


@dataclass(frozen=True)
class Course:
    """What the trainings of a study have in common.

    Attributes:
        recipe: the settings.
        learn: the faces of the largest training set.
        test: the faces that all trainings are measured on, with names.
        folder: folder for the trainings, each in a subfolder; interrupted ones are resumed.
        fars: false accept rates at which TAR is measured.
        targets: the teachers' embeddings of ``learn``, float32 (n, d) of unit length; None without
            a teacher, or if it sees augmented crops.
        say: called with the label of each training before it starts.
    """

    recipe: Recipe
    learn: Faces
    test: Faces
    folder: Path
    fars: Sequence[float] = (1e-3,)
    targets: NDArray[np.float32] | None = None
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Training:
    """Results of one training.

    Attributes:
        label: the setting that differs.
        people: number of named people in the training data.
        photos: number of photos in the training data.
        accepts: TAR on the test faces, which are the same for all trainings, at each FAR.
        paper: the FaceNet paper's figure at FAR 1e-3, 0…1, or None.
        weights: SHA-256 in hexadecimal of the weights, or empty.
    """

    label: str
    people: int
    photos: int
    accepts: tuple[TrueAccepts, ...]
    paper: float | None = None
    weights: str = ""

    @property
    def tars(self) -> list[Rate]:
        """TAR with its 95 % interval, at each FAR."""
        return [Rate(one.tar, one.low, one.high) for one in self.accepts]

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "label": self.label,
            "people": self.people,
            "photos": self.photos,
            "accepts": [
                {"far": one.far, "tar": tar.figures()}
                for one, tar in zip(self.accepts, self.tars, strict=True)
            ],
            "paper": self.paper,
            "weights": self.weights,
        }


def course(
    recipe: Recipe,
    faces: Faces,
    folder: Path,
    *,
    test: Faces | None = None,
    fars: Sequence[float] = (1e-3,),
    say: Callable[[str], None] = lambda _: None,
) -> Course:
    """Prepare the trainings of a study.

    Args:
        recipe: recipe of all trainings.
        faces: the faces to learn from; a triplet loss needs their names.
        folder: folder for the trainings, and for the teachers' embeddings of the faces.
        test: other people to measure on; None to hold out a tenth of the people.
        fars: false accept rates at which TAR is measured.
        say: called with the label of each training before it starts.

    Raises:
        SettingsError: there are too few people.
    """
    if test is None:
        faces, test = named_split(faces)
    elif _mated(test) < 2:
        raise SettingsError("the photos to measure on show too few people with two photos each")
    elif recipe.loss != "distillation":
        faces = faces.only(np.flatnonzero(faces.people >= 0))
    targets = None
    if recipe.teacher_sees == "clean" and recipe.teachers():
        folder.mkdir(parents=True, exist_ok=True)
        teachers = Teachers(recipe.teachers(), choose_runtime())
        targets = remembered_targets(folder / TARGETS, teachers, faces.crops)
    return Course(recipe, faces, test, folder, fars, targets, say)


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


def fewer_faces(count: int, share: float, seed: int = 0) -> NDArray[np.int64]:
    """Rows of a random share of the faces, int64 (n,); a smaller share is in a larger one.

    Args:
        count: number of faces.
        share: share of the faces, 0…1.
        seed: seed of the selection.
    """
    rows = np.random.default_rng(seed).permutation(count)
    return np.sort(rows[: max(round(share * count), 1)])


def by_dimension(common: Course, dimensions: Sequence[int] = DIMENSIONS) -> list[Training]:
    """Run one training per dimension, with all other settings equal.

    Args:
        common: what the trainings have in common.
        dimensions: the dimensions.

    Raises:
        TrainingError: the folder has other trainings, or a training diverged.
    """
    found = []
    for dimension in dimensions:
        label = f"dimension {dimension}"
        common.say(label)
        recipe = replace(common.recipe, dimension=dimension)
        trained = _trained(common, recipe, str(dimension))
        found.append(_training(label, common.learn, trained, PAPER_DIMENSIONS.get(dimension)))
    return found


def by_data(common: Course, shares: Sequence[float] = SHARES) -> list[Training]:
    """Run one training per share of the data, each with about the same number of steps.

    With a triplet loss the shares are of the people, and all trainings have the same number of
    people per batch: that of the recipe, or the number of people in the smallest share if it is
    lower. In a distillation they are of the faces.

    Args:
        common: what the trainings have in common; trainings on less data have more epochs.
        shares: shares of the data, 0…1.

    Raises:
        TrainingError: the folder has other trainings, or a training diverged.
    """
    from face2vec.training.recipe import HELD_OUT_SEED

    recipe, learn, targets = common.recipe, common.learn, common.targets
    follows = recipe.loss == "distillation"
    if not follows:
        smallest = fewer_people(learn, min(shares))
        training_set = smallest.split(recipe.held_out, HELD_OUT_SEED, by_person=True)[0]
        recipe = replace(recipe, people=min(recipe.people, _mated(training_set)))
    found = []
    for share in shares:
        rows = fewer_faces(len(learn), share)
        some = replace(
            common,
            learn=learn.only(rows) if follows else fewer_people(learn, share),
            targets=None if targets is None else targets[rows],
        )
        label = f"{share:.1%} of the {'faces' if follows else 'people'}"
        common.say(label)
        # Phases and steps are the same for any number of faces.
        epochs = max(round(recipe.schedule.epochs * len(learn) / len(some.learn)), 1)
        one = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs))
        trained = _trained(some, one, f"{share:g}")
        found.append(_training(label, some.learn, trained, PAPER_SHARES.get(share)))
    return found


def _trained(common: Course, recipe: Recipe, folder: str) -> tuple[tuple[TrueAccepts, ...], str]:
    """TAR of a training on the test faces, and the SHA-256 of its weights."""
    from face2vec.training.recipe import run

    model = load_model(run(recipe, common.learn, common.folder / folder, targets=common.targets))
    embed = Embedder(model, choose_runtime())
    embeddings = embed(resized(common.test.crops, model.description.input_size))
    people = np.unique(common.test.people, return_inverse=True)[1].astype(np.int64)
    pairs = all_pairs(embeddings, people, highest_far=max(common.fars))
    return tuple(with_intervals(pairs, common.fars)), model.fingerprint.weights


def _training(
    label: str,
    learn: Faces,
    trained: tuple[tuple[TrueAccepts, ...], str],
    paper: float | None = None,
) -> Training:
    accepts, weights = trained
    people = np.unique(learn.people[learn.people >= 0])
    return Training(label, len(people), len(learn), accepts, paper, weights)


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
    far = trainings[0].accepts[0].far
    drawn = rates_plot(
        [one.label for one in trainings],
        [one.tars[0] for one in trainings],
        [one.paper for one in trainings],
    )
    body = (
        "<p>All trainings are measured on the same people, who are not in the training data. Each "
        "row is a single training. Another seed would change each figure by some points.</p>",
        f"<p>{INTRODUCTION}</p>",
        table(head, rows, caption=title),
        plot_svg(
            drawn,
            f"True accept rate at FAR {far:g}, {title}",
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
    _, people, photos, *rates, paper = head
    return [
        (people, "How many people with a name the network has learned from."),
        (photos, "How many photos the network has learned from."),
        *(
            (
                rate,
                "If so few pairs of different people may be accepted as one person, how many pairs "
                "of one person are recognised. The range is where the figure lies for 95 of 100 "
                "random samples of the people.",
            )
            for rate in rates
        ),
        (paper, "What the FaceNet paper states for its networks, on its own photos, at FAR 0.001."),
    ]


def _rows(trainings: Sequence[Training]) -> list[tuple[str, ...]]:
    fars = [f"TAR at FAR {one.far:g} (95 % over people)" for one in trainings[0].accepts]
    head = ("", "people in training", "photos", *fars, "the paper's")
    rows: list[tuple[str, ...]] = [head]
    for one in trainings:
        paper = "" if one.paper is None else f"{one.paper:.1%}"
        tars = [tar.words() for tar in one.tars]
        rows.append((one.label, f"{one.people:,}", f"{one.photos:,}", *tars, paper))
    return rows
