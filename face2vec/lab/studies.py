"""Small trainings that differ in one thing: embedding size, or amount of training data."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from face2vec.encoding.embed import Embedder
from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import TrueAccepts, all_pairs, with_intervals
from face2vec.files import write_json
from face2vec.lab.rates import Rate
from face2vec.lab.report import FIGURES, PAGE, picture
from face2vec.lab.slices import FEWEST_PEOPLE
from face2vec.models.store import load_model
from face2vec.report.html import table, write_page
from face2vec.report.text import columns
from face2vec.runtime.select import choose_runtime
from face2vec.training.batches import resized
from face2vec.training.faces import Faces

if TYPE_CHECKING:
    from face2vec.training.recipe import Recipe

log = logging.getLogger("face2vec")

DIMENSIONS = (32, 64, 128, 256, 512)
SHARES = (0.125, 0.25, 0.5, 1.0)
HELD_OUT = 0.1
PAPER_DIMENSIONS = {64: 0.868, 128: 0.879, 256: 0.872, 512: 0.856}
"""VAL at FAR 1e-3 of the FaceNet paper's NN1, section 5.4, by numbers in an embedding."""


@dataclass(frozen=True)
class Training:
    """One of the trainings.

    Attributes:
        label: what is different about it.
        people: that it learnt from.
        photos: of them.
        accepts: TAR on the people held out, the same for all trainings.
        paper: what the FaceNet paper has, 0…1, or None.
    """

    label: str
    people: int
    photos: int
    accepts: TrueAccepts
    paper: float | None = None

    @property
    def tar(self) -> Rate:
        """TAR with its interval of 95 %."""
        return Rate(self.accepts.tar, self.accepts.low, self.accepts.high)

    def figures(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "label": self.label,
            "people": self.people,
            "photos": self.photos,
            "far": self.accepts.far,
            "tar": self.tar.figures(),
            "paper": self.paper,
        }


def named_split(faces: Faces, seed: int = 0) -> tuple[Faces, Faces]:
    """Faces with a name: most people to learn from, and ``HELD_OUT`` of them to measure with.

    Warns where these are so few that their figures say little.

    Raises:
        SettingsError: nobody would be left to learn from, or too few to measure with.
    """
    named = faces.only(np.flatnonzero(faces.people >= 0))
    learn, held = named.split(HELD_OUT, seed, by_person=True)
    if min(_mated(learn), _mated(held)) < 2:
        raise SettingsError(
            f"{len(np.unique(named.people))} people are too few: a tenth of them is held out, and "
            "two with two photos are needed there"
        )
    if (measured := _mated(held)) < FEWEST_PEOPLE:
        log.warning(
            "only %d people are held out: figures and intervals of so few say little", measured
        )
    return learn, held


def _mated(faces: Faces) -> int:
    """People with two photos or more."""
    return int((np.unique(faces.people, return_counts=True)[1] > 1).sum())


def fewer_people(faces: Faces, share: float, seed: int = 0) -> Faces:
    """A random share of the people with all their photos; a smaller share is part of a larger."""
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
    """One training for each length of an embedding, all else the same.

    Args:
        recipe: of all of them.
        faces: with names.
        folder: gets a folder a training; interrupted ones go on.
        dimensions: numbers in an embedding.
        far: at which TAR is measured.
        say: is told which training begins.

    Raises:
        SettingsError: too few people.
        TrainingError: the folder holds other trainings, or one diverged.
    """
    learn, held = named_split(faces)
    found = []
    for dimension in dimensions:
        label = f"{dimension} numbers"
        say(label)
        one = replace(recipe, dimension=dimension)
        accepts = _accepts(one, learn, held, folder / str(dimension), far)
        found.append(_training(label, learn, accepts, PAPER_DIMENSIONS.get(dimension)))
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
    """One training for each share of the people, each of about as many steps as the whole.

    Batches are of as many people in all of them: those that the recipe says, or the people of
    the smallest share where they are fewer.

    Args:
        recipe: of the training on all people; those on fewer have more epochs.
        faces: with names.
        folder: gets a folder a training; interrupted ones go on.
        shares: of the people, 0…1.
        far: at which TAR is measured.
        say: is told which training begins.

    Raises:
        SettingsError: too few people.
        TrainingError: the folder holds other trainings, or one diverged.
    """
    from face2vec.training.recipe import HELD_OUT_SEED

    learn, held = named_split(faces)
    smallest = fewer_people(learn, min(shares))
    taught = smallest.split(recipe.held_out, HELD_OUT_SEED, by_person=True)[0]
    recipe = replace(recipe, people=min(recipe.people, _mated(taught)))
    found = []
    for share in shares:
        some = fewer_people(learn, share)
        label = f"{share:.1%} of the people"
        say(label)
        epochs = max(round(recipe.schedule.epochs * len(learn) / len(some)), 1)
        one = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs))
        accepts = _accepts(one, some, held, folder / f"{share:g}", far)
        found.append(_training(label, some, accepts))
    return found


def _accepts(recipe: Recipe, learn: Faces, held: Faces, folder: Path, far: float) -> TrueAccepts:
    from face2vec.training.recipe import run

    model = load_model(run(recipe, learn, folder))
    embed = Embedder(model, choose_runtime())
    embeddings = embed(resized(held.crops, model.description.input_size))
    people = np.unique(held.people, return_inverse=True)[1].astype(np.int64)
    return with_intervals(all_pairs(embeddings, people, highest_far=far), [far])[0]


def _training(
    label: str, learn: Faces, accepts: TrueAccepts, paper: float | None = None
) -> Training:
    return Training(label, len(np.unique(learn.people)), len(learn), accepts, paper)


def study_text(trainings: Sequence[Training]) -> str:
    """A line a training, in columns."""
    return "\n".join(columns(_rows(trainings)))


def save_study(trainings: Sequence[Training], folder: Path, title: str) -> Path:
    """Write ``report.html`` and ``figures.json``; gives the page's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from face2vec.lab.plots import rates_plot

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
        "<p>Each training is measured on the same people, of whom it has learnt nothing. One "
        "training a row: another seed would move each figure by some points.</p>",
        table(head, rows),
        picture(drawn, f"True accept rate, {html.escape(title)}"),
    )
    write_page(folder / PAGE, title, "\n".join(body))
    return folder / PAGE


def _rows(trainings: Sequence[Training]) -> list[tuple[str, ...]]:
    far = f"TAR at FAR {trainings[0].accepts.far:g} (95 % over people)"
    head = ("", "people learnt from", "photos", far, "the paper's NN1")
    rows: list[tuple[str, ...]] = [head]
    for one in trainings:
        theirs = "" if one.paper is None else f"{one.paper:.1%}"
        rows.append((one.label, f"{one.people:,}", f"{one.photos:,}", one.tar.words(), theirs))
    return rows
