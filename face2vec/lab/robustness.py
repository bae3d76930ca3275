"""Photos made worse step by step, and what is still recognised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import TrueAccepts, all_pairs, with_intervals
from face2vec.lab.catalogue import Degradation
from face2vec.lab.portraits import ImageArray, Points, Portrait
from face2vec.lab.pose import mouth_width, yaw
from face2vec.lab.rates import Draws, Embeddings, Numbers, Rate, counted, threshold_for
from face2vec.lab.slices import Slice, sliced
from face2vec.lab.subjects import Subjects
from face2vec.types import Face, Photo, nearest_to

FAR = 1e-3
YAWS = (0.0, 10.0, 20.0, 35.0, 90.0)
FRONTAL = 15.0
"""Degrees of yaw, up to which the width of a mouth is compared."""


@dataclass(frozen=True, eq=False)
class Step:
    """Figures at one strength.

    Attributes:
        strength: of the degradation; 0 for the clean photos.
        label: the same in words.
        tar: share of the genuine pairs, changed against clean, at or above the threshold that
            was set on the clean photos; a photo without a face is an error.
        kept: ``tar`` as a part of the clean photos'.
        recall: share of the changed photos whose most similar clean photo is of the same person.
        far: share of the impostor pairs, changed against clean, that are accepted.
        far_alike: the same where both photos are changed.
        without_face: share of the changed photos in which the face is not found any more.
        unchanged: share of the photos that this strength leaves as they are.
        anew: TAR with both photos changed and the threshold set anew at this step.
    """

    strength: float
    label: str
    tar: Rate
    kept: Rate
    recall: Rate
    far: Rate
    far_alike: Rate
    without_face: float
    unchanged: float
    anew: TrueAccepts

    def figures(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "strength": self.strength,
            "label": self.label,
            "tar": self.tar.figures(),
            "kept": self.kept.figures(),
            "recall_at_1": self.recall.figures(),
            "far": self.far.figures(),
            "far_both_changed": self.far_alike.figures(),
            "without_face": self.without_face,
            "unchanged": self.unchanged,
            "tar_both_changed_threshold_anew": Rate(*self.anew[2:]).figures(),
        }


@dataclass(frozen=True, eq=False)
class Example:
    """A portrait at one step.

    Attributes:
        image: RGB uint8 (height, width, 3).
        similarity: to a clean photo of the same person, or None where no face was found.
    """

    image: ImageArray
    similarity: float | None


@dataclass(frozen=True, eq=False)
class Series:
    """One degradation: its steps, and one person's photo at each."""

    degradation: Degradation
    steps: tuple[Step, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Robustness:
    """What became of the clean photos, of each degradation, and of poses.

    Attributes:
        model: key of the model.
        photos: clean photos with a face.
        people: in them.
        without_face: photos that were drawn and left out, for their face was not found.
        far: that the threshold was set for.
        threshold: lowest similarity that is accepted.
        impostor_pairs: of clean photos, that it was set on.
        clean: figures of the clean photos.
        series: one a degradation.
        slices: of the clean photos, by pose and by width of the mouth.
        example: the clean portrait that the examples were made of.
    """

    model: str
    photos: int
    people: int
    without_face: int
    far: float
    threshold: float
    impostor_pairs: int
    clean: Step
    series: tuple[Series, ...]
    slices: tuple[Slice, ...]
    example: Example

    def figures(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "model": self.model,
            "photos": self.photos,
            "people": self.people,
            "photos_without_a_face": self.without_face,
            "far": self.far,
            "threshold": self.threshold,
            "impostor_pairs": self.impostor_pairs,
            "clean": self.clean.figures(),
            "degradations": {
                one.degradation.name: [step.figures() for step in one.steps] for one in self.series
            },
            "slices": [one.figures() for one in self.slices],
        }


def robustness(
    subjects: Subjects,
    engine: Face2Vec,
    degradations: Sequence[Degradation],
    *,
    far: float = FAR,
    seed: int = 0,
    progress: bool = False,
) -> Robustness:
    """Take every subject's portrait through every step of every degradation, and all the way again.

    Every portrait is enrolled clean; changed it is searched for faces, aligned, embedded, and
    compared with all clean portraits but its own. The threshold is the one that lets ``far`` of
    the clean impostor pairs through, as somebody sets it who knows nothing of worse photos.

    Args:
        subjects: whose photos.
        engine: detector and model.
        degradations: which.
        far: false accept rate that the threshold is set for.
        seed: of what is random in the degradations, and of the intervals.
        progress: show a bar on standard error.

    Raises:
        SettingsError: in the portraits of fewer than two people two faces are found again.
    """
    seen = _encoded(subjects, engine, degradations, seed, progress)
    clean = seen.embeddings[0]
    # A face that the detector does not find again in its own surroundings cannot be enrolled.
    kept = ~np.isnan(clean).any(axis=1)
    people, count = _renumbered(subjects.people[kept])
    if (np.bincount(people, minlength=2) > 1).sum() < 2:
        raise SettingsError("fewer than two people have two photos in which a face is found")
    clean = clean[kept]
    draws = Draws(count, seed=seed)
    pairs = all_pairs(clean, people, highest_far=0)
    threshold = threshold_for(pairs.impostor, far)
    measure = _Measure(clean, people, threshold, far, draws)
    shown = next((number for number in seen.images if kept[number]), 0)
    mate = _mate(seen.embeddings[0], subjects.people, shown)
    rows = iter(range(1, len(seen.embeddings)))
    series = []
    for degradation in degradations:
        steps, examples = [], []
        for strength in degradation.steps:
            row = next(rows)
            label, unchanged = degradation.step_label(strength), seen.unchanged[row, kept]
            steps.append(measure.step(strength, label, seen.embeddings[row, kept], unchanged))
            examples.append(_example(seen.images[shown][row], seen.embeddings[row, shown], mate))
        series.append(Series(degradation, tuple(steps), tuple(examples)))
    return Robustness(
        model=engine.encoder.model.description.key,
        photos=len(clean),
        people=count,
        without_face=subjects.without_face + int((~kept).sum()),
        far=far,
        threshold=threshold,
        impostor_pairs=len(pairs.impostor),
        clean=measure.step(0, "clean", clean, np.ones(len(clean), bool)),
        series=tuple(series),
        slices=sliced(clean, people, threshold, far, _natural(seen.landmarks[kept]), draws),
        example=_example(seen.images[shown][0], seen.embeddings[0, shown], mate),
    )


@dataclass(eq=False)
class _Job:
    """A portrait on its way through one step; row 0 is clean."""

    number: int
    row: int
    portrait: Portrait
    degradation: Degradation | None
    strength: float
    image: ImageArray | None = None


@dataclass(frozen=True, eq=False)
class _Seen:
    """What came out of all jobs.

    Attributes:
        embeddings: float32 (rows, n, d), NaN where no face was found.
        unchanged: bool (rows, n), whether the image was left as it is.
        landmarks: float64 (n, 5, 2), of the clean faces.
        images: of the first few portraits, by number and row.
    """

    embeddings: Embeddings
    unchanged: NDArray[np.bool_]
    landmarks: Points
    images: dict[int, dict[int, ImageArray]]


SHOWABLE = 8
"""Portraits whose images are kept until it is known of which of them the face was found."""


def _encoded(
    subjects: Subjects,
    engine: Face2Vec,
    degradations: Sequence[Degradation],
    seed: int,
    progress: bool,
) -> _Seen:
    from tqdm import tqdm

    steps = [(one, strength) for one in degradations for strength in one.steps]
    rows, count = len(steps) + 1, len(subjects.subjects)
    dimension = engine.encoder.model.description.dimension
    seen = _Seen(
        np.full((rows, count, dimension), np.nan, np.float32),
        np.zeros((rows, count), bool),
        np.zeros((count, 5, 2)),
        {},
    )

    def jobs() -> Iterator[_Job]:
        for number, portrait in subjects.portraits(engine):
            yield _Job(number, 0, portrait, None, 0)
            for row, (degradation, strength) in enumerate(steps, 1):
                yield _Job(number, row, portrait, degradation, strength)

    def changed(job: _Job) -> Photo:
        job.image = job.portrait.image
        if job.degradation is not None:
            job.image = job.degradation.image(job.portrait, job.strength, seed, job.number)
        return engine.encoder.read(job.image)

    with tqdm(total=rows * count, unit="photo", disable=not progress, dynamic_ncols=True) as bar:
        for one in engine.encoder.stream(jobs(), changed):
            bar.update(1)
            job = one.item
            face = _same_face(one.faces, job.portrait, one.width, one.height)
            if face is not None and face.embedding is not None:
                seen.embeddings[job.row, job.number] = face.embedding
                if not job.row:
                    seen.landmarks[job.number] = face.landmarks
            seen.unchanged[job.row, job.number] = job.image is job.portrait.image
            if job.image is not None and (job.number in seen.images or len(seen.images) < SHOWABLE):
                seen.images.setdefault(job.number, {})[job.row] = job.image
    return seen


def _same_face(faces: Sequence[Face], portrait: Portrait, width: int, height: int) -> Face | None:
    """The face that is where the portrait's was, or None."""
    x, y = portrait.middle[0] * width, portrait.middle[1] * height
    there = [
        face
        for face in faces
        if face.box[0] <= x <= face.box[2] and face.box[1] <= y <= face.box[3]
    ]
    return nearest_to(there, x, y)


def _renumbered(people: Numbers) -> tuple[Numbers, int]:
    """People as 0…count − 1, and the count."""
    names, numbers = np.unique(people, return_inverse=True)
    return numbers.astype(np.int64), len(names)


def _mate(clean: Embeddings, people: Numbers, number: int) -> Embeddings:
    """Another clean photo of somebody, or NaN."""
    others = (people == people[number]) & ~np.isnan(clean).any(axis=1)
    others[number] = False
    return clean[np.flatnonzero(others)[0]] if others.any() else np.full_like(clean[0], np.nan)


def _example(image: ImageArray, embedding: Embeddings, mate: Embeddings) -> Example:
    similarity = float(mate @ embedding)
    return Example(image, None if similarity != similarity else similarity)


@dataclass(frozen=True, eq=False)
class _Measure:
    """Figures of changed photos against the clean ones."""

    clean: Embeddings
    people: Numbers
    threshold: float
    far: float
    draws: Draws

    def step(
        self, strength: float, label: str, queries: Embeddings, unchanged: NDArray[np.bool_]
    ) -> Step:
        """Figures of one step."""
        counts = counted(queries, self.clean, self.people, self.threshold)
        alike = counted(queries, queries, self.people, self.threshold)
        before = counted(self.clean, self.clean, self.people, self.threshold)
        found = ~np.isnan(queries).any(axis=1)
        both = all_pairs(
            queries[found], self.people[found], np.bincount(self.people), highest_far=self.far
        )
        return Step(
            strength,
            label,
            self.draws.tar(counts),
            self.draws.kept(counts, before),
            self.draws.recall(counts),
            self.draws.far(counts),
            self.draws.far(alike),
            float(1 - found.mean()),
            float(unchanged.mean()),
            with_intervals(both, [self.far])[0],
        )


def _natural(landmarks: Points) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Slices that the photos have of themselves: by yaw, and by the mouth's width in thirds."""
    turn, mouth = yaw(landmarks), mouth_width(landmarks)
    frontal = turn <= FRONTAL
    yaws = {f"{low:g}° to {high:g}°": (turn >= low) & (turn < high) for low, high in pairwise(YAWS)}
    thirds = np.quantile(mouth[frontal], [1 / 3, 2 / 3]) if frontal.any() else np.zeros(2)
    mouths = {
        f"narrow, below {thirds[0]:.2f}": frontal & (mouth < thirds[0]),
        "between": frontal & (mouth >= thirds[0]) & (mouth < thirds[1]),
        f"wide, from {thirds[1]:.2f} on": frontal & (mouth >= thirds[1]),
    }
    return {
        "Turned to a side, by the nose": yaws,
        "Width of the mouth, as a smile changes it": mouths,
    }
