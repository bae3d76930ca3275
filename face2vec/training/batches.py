"""Batches of training crops, prepared in threads; the same seed gives the same batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError
from face2vec.training.augment import Augmentation
from face2vec.training.faces import Faces
from face2vec.training.teachers import Teachers, resized

Rows = NDArray[np.int64]

AHEAD = 2
"""Batches that are made while the network learns from another."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The input and the targets of one step.

    Attributes:
        crops: RGB uint8 (n, side, side, 3), augmented.
        targets: the targets of the objective, by name: embeddings float32 (n, d), people int64
            (n,), or maps float32 (n, height, width, channels).
        maps: other inputs of the network, by name, float32 (n, height, width, channels); see
            `stages`.
    """

    crops: NDArray[np.uint8]
    targets: dict[str, NDArray[Any]]
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class Batches(Protocol):
    """Plans the batches of an epoch, and makes them."""

    def plan(self, epoch: int) -> list[Rows]:
        """The rows of the faces in each batch of an epoch, int64 (n,); epochs count from 0."""

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""


class ShuffledBatches:
    """All faces once per epoch, in random order, in batches of one size.

    Args:
        faces: the faces to train on.
        how: the augmentation.
        side: side of the student's crops in pixels.
        size: crops per batch; an incomplete batch at the end of an epoch is dropped.
        seed: seed of order and augmentation.
    """

    def __init__(self, faces: Faces, how: Augmentation, *, side: int, size: int, seed: int) -> None:
        self._faces, self._how = faces, how
        self._side, self._size, self._seed = side, size, seed

    def plan(self, epoch: int) -> list[Rows]:
        """The rows of the faces in each batch of an epoch, int64 (n,); epochs count from 0."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._faces))
        starts = range(0, len(order) - self._size + 1, self._size)
        return [order[start : start + self._size] for start in starts]


class TaughtBatches(ShuffledBatches):
    """For distillation: crops, and the teacher's embeddings of the same crops.

    Both networks get the same augmentation (Beyer et al., Knowledge distillation: a good teacher is
    patient and consistent, 2022).

    Args:
        teacher: the network whose embeddings are the targets.
        faces: the faces to train on.
        how: the augmentation; the teacher gets the same crops.
        side: side of the student's crops in pixels.
        size: crops per batch.
        seed: seed of order and augmentation.
    """

    def __init__(
        self,
        teacher: Teachers,
        faces: Faces,
        how: Augmentation,
        *,
        side: int,
        size: int,
        seed: int,
    ) -> None:
        super().__init__(faces, how, side=side, size=size, seed=seed)
        self._teacher = teacher

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        key = (self._seed, epoch)
        side = self._teacher.input_size
        crops = augmented(self._faces, rows, side, self._how, key)
        return Batch(resized(crops, self._side), {"embedding": self._teacher(crops)})


class RememberedBatches(ShuffledBatches):
    """For distillation with a teacher that runs once, on the clean crops.

    The targets do not depend on the augmentation, so the student learns to ignore it. The teacher
    costs nothing after the first minutes.

    Args:
        targets: the teacher's embeddings of the clean crops, float32 (n, d), see
            `teachers.remembered_targets`.
        faces: the faces of ``targets``.
        how: the augmentation; it cannot mix crops.
        side: side of the student's crops in pixels.
        size: crops per batch.
        seed: seed of order and augmentation.

    Raises:
        SettingsError: the augmentation mixes crops.
    """

    def __init__(
        self,
        targets: NDArray[np.float32],
        faces: Faces,
        how: Augmentation,
        *,
        side: int,
        size: int,
        seed: int,
    ) -> None:
        if how.mix:
            raise SettingsError(
                "crops can only be mixed if the teacher sees the mixed crops "
                "(teacher_sees 'augmented')"
            )
        super().__init__(faces, how, side=side, size=size, seed=seed)
        self._targets = targets

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        crops = augmented(self._faces, rows, self._side, self._how, (self._seed, epoch))
        return Batch(crops, {"embedding": self._targets[rows]})


class PeopleBatches:
    """For triplets: a fixed number of people with a fixed number of photos each.

    Every person with at least two photos appears once per epoch; a person with many photos appears
    several times, each time with other photos. If a person has too few photos, some appear twice
    with different augmentation, because a compiled network needs batches of one size.

    Args:
        faces: faces with names of people.
        how: the augmentation.
        side: side of the crops in pixels.
        people: people per batch.
        photos: photos per person in a batch.
        seed: seed of order and augmentation.

    Raises:
        SettingsError: there are fewer people with at least two photos than a batch needs.
    """

    def __init__(
        self, faces: Faces, how: Augmentation, *, side: int, people: int, photos: int, seed: int
    ) -> None:
        named, counts = np.unique(faces.people[faces.people >= 0], return_counts=True)
        self._named = named[counts >= 2]
        if people < 2 or photos < 2 or len(self._named) < people:
            raise SettingsError(
                f"batches of {people} people with {photos} photos each cannot be made of "
                f"{len(self._named)} people with two photos or more; 2 of each at least"
            )
        self._faces, self._how, self._side = faces, how, side
        self._people, self._photos, self._seed = people, photos, seed

    def plan(self, epoch: int) -> list[Rows]:
        """The rows of the faces in each batch of an epoch, int64 (n,).

        Every epoch has the same number of batches; people who are left over appear in another
        epoch.
        """
        rng = np.random.default_rng((self._seed, epoch))
        groups: list[Rows] = []
        for person in self._named:
            rows = rng.permutation(np.flatnonzero(self._faces.people == person))
            starts = range(0, len(rows) - 1, self._photos)  # never one photo alone at the end
            groups += [np.resize(rows[start : start + self._photos], self._photos)
                       for start in starts]  # fmt: skip
        order = rng.permutation(len(groups))
        starts = range(0, len(groups) - self._people + 1, self._people)
        return [
            np.concatenate([groups[i] for i in order[start : start + self._people]])
            for start in starts
        ]

    def make(self, epoch: int, rows: Rows) -> Batch:
        """The batch of the faces in some rows, int64 (n,)."""
        key = (self._seed, epoch)
        crops = augmented(self._faces, rows, self._side, self._how, key)
        return Batch(crops, {"people": self._faces.people[rows]})


def augmented(
    faces: Faces, rows: Rows, side: int, how: Augmentation, key: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Crops, each with its own augmentation.

    Args:
        faces: the source of the crops.
        rows: int64 (n,), rows of the faces.
        side: side of the results in pixels.
        how: the augmentation.
        key: seed, together with the row and the position of a crop.

    Returns:
        RGB uint8 (n, side, side, 3).
    """
    crops = np.empty((len(rows), side, side, 3), np.uint8)
    for place, row in enumerate(rows):
        rng = np.random.default_rng((*key, place, int(row)))
        crops[place] = how.apply(faces.crops[row], side, rng)
    if how.mix == 0:
        return crops
    rng = np.random.default_rng((*key, int(rows[0]), len(rows)))
    share = np.where(rng.random(len(rows)) < how.mix, rng.beta(0.8, 0.8, len(rows)), 0.0)
    share = share.astype(np.float32)[:, None, None, None]
    other = crops[rng.permutation(len(rows))]
    mixed: NDArray[np.uint8] = (crops * (1 - share) + other * share + 0.5).astype(np.uint8)
    return mixed


def made_in_turn(plan: Sequence[Rows], make: Callable[[Rows], Batch]) -> Iterator[Batch]:
    """The batches of a plan, in order, each made on all cores.

    No batch is made while another is used. This is for batches that need a teacher's runtime:
    teacher and student at the same time wait for each other's threads and take twice as long.

    Args:
        plan: the rows of the faces in each batch, int64 (n,).
        make: makes a batch.
    """
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        for start in range(0, len(plan), cores):
            yield from list(pool.map(make, plan[start : start + cores]))


def made_ahead(
    plan: Iterable[Rows], make: Callable[[Rows], Batch], workers: int = 2
) -> Iterator[Batch]:
    """The batches of a plan, in order, prepared ahead of use.

    Args:
        plan: the rows of the faces in each batch, int64 (n,).
        make: makes a batch.
        workers: how many threads make batches.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        try:
            for rows in plan:
                waiting.append(pool.submit(make, rows))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
