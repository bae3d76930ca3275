"""Measures how well faces are recognised in photos that are degraded step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import PhotoError, SettingsError
from face2vec.evaluation.metrics import TrueAccepts, all_pairs, with_intervals
from face2vec.evaluation.sets import NO_FACE_FOUND
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
"""Largest yaw in degrees of faces whose mouths are compared."""


@dataclass(frozen=True, eq=False)
class Step:
    """Figures at one strength.

    Attributes:
        strength: strength of the degradation; 0 for the clean photos.
        label: label of the step.
        tar: share of genuine pairs, degraded against clean, at or above the threshold that was
            set on the clean photos; a photo without a detected face counts as an error.
        kept: ``tar`` as a share of that of the clean photos.
        recall: share of degraded photos whose most similar clean photo shows the same person.
        far: share of impostor pairs, degraded against clean, that are accepted.
        far_alike: share of impostor pairs that are accepted if both photos are degraded.
        without_face: share of degraded photos in which the face is no longer detected.
        unchanged: share of photos that this strength does not change.
        anew: TAR with both photos degraded and a new threshold set at this step.
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
        """JSON-able values."""
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
        similarity: similarity to a clean photo of the same person; None if no face was found.
    """

    image: ImageArray
    similarity: float | None


@dataclass(frozen=True, eq=False)
class Series:
    """Results of one degradation.

    Attributes:
        degradation: the degradation.
        steps: figures of each step.
        examples: one person's photo at each step.
    """

    degradation: Degradation
    steps: tuple[Step, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Robustness:
    """Results for the clean photos, each degradation, and poses.

    Attributes:
        model: key of the model.
        photos: number of clean photos with a detected face.
        people: number of people in these photos.
        without_face: number of selected photos that were left out because no face was found.
        far: false accept rate for which the threshold was set.
        threshold: lowest accepted similarity.
        impostor_pairs: number of impostor pairs of clean photos that set the threshold.
        clean: figures of the clean photos.
        series: results of each degradation.
        slices: slices of the clean photos, by pose and by width of the mouth.
        example: the clean portrait of the examples, one that is accepted if there is one.
        failed: path of each photo that was left out, and why.
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
    failed: tuple[tuple[str, str], ...] = ()

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
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
    """Degrade the portraits of all subjects in all steps, and measure recognition.

    Clean portraits are enrolled. Degraded portraits are detected, aligned and embedded again, and
    compared with all clean portraits except their own. The threshold is set at a given FAR of the
    clean impostor pairs, as by a user who does not expect degraded photos.

    Args:
        subjects: the subjects.
        engine: the detector and model.
        degradations: the degradations.
        far: false accept rate for which the threshold is set.
        seed: seed of the degradations and of the intervals.
        progress: whether to show a progress bar on standard error.

    Raises:
        SettingsError: fewer than two people have two portraits with a detected face.
    """
    seen = _encoded(subjects, engine, degradations, seed, progress)
    clean = seen.embeddings[0]
    # A face that is not detected in its portrait cannot be enrolled.
    kept = ~np.isnan(clean).any(axis=1)
    people, count = _renumbered(subjects.people[kept])
    if (np.bincount(people, minlength=2) > 1).sum() < 2:
        raise SettingsError(
            "fewer than two people have two photos with a detected face; give photos of more people"
        )
    clean = clean[kept]
    draws = Draws(count, seed=seed)
    pairs = all_pairs(clean, people, highest_far=0)
    threshold = threshold_for(pairs.impostor, far)
    measure = _Measure(clean, people, threshold, far, draws)
    shown = _shown(seen, subjects.people, threshold)
    mate = _mate(seen.embeddings[0], subjects.people, shown)
    rows = iter(range(1, len(seen.embeddings)))
    series = []
    lost = [
        (str(subject.photo), seen.why.get(number, NO_FACE_FOUND))
        for number, subject in enumerate(subjects.subjects)
        if not kept[number]
    ]
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
        without_face=subjects.without_face + len(lost),
        far=far,
        threshold=threshold,
        impostor_pairs=len(pairs.impostor),
        clean=measure.step(0, "clean", clean, np.ones(len(clean), bool)),
        series=tuple(series),
        slices=sliced(clean, people, threshold, far, _natural(seen.landmarks[kept]), draws),
        example=_example(seen.images[shown][0], seen.embeddings[0, shown], mate),
        failed=(*subjects.failed, *lost),
    )


@dataclass(eq=False)
class _Job:
    """A portrait at one step; row 0 is clean."""

    number: int
    row: int
    portrait: Portrait
    degradation: Degradation | None
    strength: float
    image: ImageArray | None = None


@dataclass(frozen=True, eq=False)
class _Seen:
    """Results of all jobs.

    Attributes:
        embeddings: float32 (rows, n, d), NaN if no face was found.
        unchanged: bool (rows, n), whether the degradation did not change the image.
        landmarks: float64 (n, 5, 2), landmarks of the clean faces.
        images: images of the first few portraits, by number and row.
        why: reasons of photos that could not be read, by number.
    """

    embeddings: Embeddings
    unchanged: NDArray[np.bool_]
    landmarks: Points
    images: dict[int, dict[int, ImageArray]]
    why: dict[int, str]


SHOWABLE = 8
"""Number of portraits whose images are kept, so that one with a detected face can be shown."""


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
        {},
    )

    def left_out(number: int, error: PhotoError) -> None:
        seen.why[number] = error.reason

    def jobs() -> Iterator[_Job]:
        for number, portrait in subjects.portraits(engine, left_out):
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
    """The detected face whose box contains the centre of the portrait's face, or None."""
    x, y = portrait.middle[0] * width, portrait.middle[1] * height
    at_centre = [
        face
        for face in faces
        if face.box[0] <= x <= face.box[2] and face.box[1] <= y <= face.box[3]
    ]
    return nearest_to(at_centre, x, y)


def _renumbered(people: Numbers) -> tuple[Numbers, int]:
    """Renumber people as 0…count − 1; also returns the count."""
    names, numbers = np.unique(people, return_inverse=True)
    return numbers.astype(np.int64), len(names)


def _shown(seen: _Seen, people: Numbers, threshold: float) -> int:
    """The portrait for the examples: the first that is accepted while it is clean, if any is."""
    clean = seen.embeddings[0]
    found = [number for number in seen.images if not np.isnan(clean[number]).any()]
    right = (n for n in found if clean[n] @ _mate(clean, people, n) >= threshold)
    return next(right, found[0] if found else 0)


def _mate(clean: Embeddings, people: Numbers, number: int) -> Embeddings:
    """Embedding of another clean photo of the same person, or NaN."""
    others = (people == people[number]) & ~np.isnan(clean).any(axis=1)
    others[number] = False
    return clean[np.flatnonzero(others)[0]] if others.any() else np.full_like(clean[0], np.nan)


def _example(image: ImageArray, embedding: Embeddings, mate: Embeddings) -> Example:
    similarity = float(mate @ embedding)
    return Example(image, None if similarity != similarity else similarity)


@dataclass(frozen=True, eq=False)
class _Measure:
    """Computes the figures of degraded photos compared with clean photos."""

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
    """Slices from the landmarks: by yaw, and by the width of the mouth in thirds."""
    angles, mouth = yaw(landmarks), mouth_width(landmarks)
    frontal = angles <= FRONTAL
    yaws = {
        f"{low:g}° to {high:g}°": (angles >= low) & (angles < high) for low, high in pairwise(YAWS)
    }
    thirds = np.quantile(mouth[frontal], [1 / 3, 2 / 3]) if frontal.any() else np.zeros(2)
    mouths = {
        f"narrow, below {thirds[0]:.2f}": frontal & (mouth < thirds[0]),
        "medium": frontal & (mouth >= thirds[0]) & (mouth < thirds[1]),
        f"wide, from {thirds[1]:.2f}": frontal & (mouth >= thirds[1]),
    }
    return {
        "Yaw, estimated from the nose": yaws,
        "Width of the mouth": mouths,
    }
