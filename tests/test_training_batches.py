"""Batches: what they are made of, and that the same seed makes the same ones."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from face2vec.errors import SettingsError
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.runtime.select import Runtime
from face2vec.training.augment import Augmentation
from face2vec.training.batches import (
    Batch,
    PeopleBatches,
    RememberedBatches,
    augmented,
    made_ahead,
)
from face2vec.training.faces import Faces
from face2vec.training.teachers import Teachers, remembered_targets, resized, unit_rows

SIDE = 16
NONE = Augmentation.none()


def faces(people: list[int]) -> Faces:
    """Crops of one colour each: the red channel is the row."""
    crops = np.zeros((len(people), SIDE, SIDE, 3), np.uint8)
    crops[..., 0] = np.arange(len(people))[:, None, None]
    return Faces(crops, np.array(people))


def remembered(given: Faces, how: Augmentation = NONE, size: int = 4) -> RememberedBatches:
    targets = np.arange(len(given) * 2, dtype=np.float32).reshape(-1, 2)
    return RememberedBatches(targets, given, how, side=SIDE, size=size, seed=5)


def by_people(given: Faces, people: int, photos: int, how: Augmentation = NONE) -> PeopleBatches:
    return PeopleBatches(given, how, side=SIDE, people=people, photos=photos, seed=5)


def test_remembered_batches_show_every_face_once_an_epoch() -> None:
    batches = remembered(faces([-1] * 22))
    first, second = batches.plan(0), batches.plan(1)
    assert [len(rows) for rows in first] == [4] * 5  # the two that are left over come later
    assert len(set(np.concatenate(first))) == 20
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert np.array_equal(np.concatenate(batches.plan(1)), np.concatenate(second))


class Colour:
    """A teacher whose embedding is the mean colour."""

    description = ModelDescription("colour", 3, SIDE, "landmarks", template=FIVE_POINTS)

    def __init__(self, factor: float = 1.0) -> None:
        self._counting = threading.Lock()
        self.asked, self.factor = 0, factor

    def of_all(self, crops: np.ndarray) -> np.ndarray:
        with self._counting:
            self.asked += len(crops)
        return self.factor * crops.mean(axis=(1, 2), dtype=np.float32)


def test_targets_are_kept_until_teacher_or_crops_are_others(tmp_path: Path) -> None:
    path, crops = tmp_path / "targets.npy", faces([-1] * 200).crops
    for teacher, some, asked in (
        (Colour(), crops, 200),
        (Colour(), crops, 64),
        (Colour(), crops[:150], 64 + 150),
        (Colour(2.0), crops[:150], 64 + 150),
        (Colour(2.0), crops[:150] // 2, 64 + 150),
        (Colour(2.0), crops[:150] // 2, 64),
    ):
        targets = remembered_targets(path, cast(Any, teacher), some)
        assert np.array_equal(targets, teacher.factor * some.mean(axis=(1, 2), dtype=np.float32))
        assert teacher.asked == asked
    assert [file.name for file in tmp_path.iterdir()] == ["targets.npy"]


def test_teachers_put_their_embeddings_together_and_shorten_them(
    tiny_model: Path, tmp_path: Path
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (120, 112, 112, 3), dtype=np.uint8)
    runtime = Runtime("onnxruntime")
    alone = Teachers((str(tiny_model),), runtime)
    several = Teachers((str(tiny_model), "mini"), runtime)
    small = Teachers(("mini",), runtime)
    assert (alone.dimension, small.dimension, several.dimension) == (64, 256, 320)
    assert (alone.input_size, small.input_size, several.input_size) == (112, 96, 112)
    whole = several.of_all(crops)
    both = np.concatenate([alone(crops), small(crops)], axis=1)
    np.testing.assert_allclose(whole, both / np.sqrt(2), atol=1e-5)
    shorter = several.shorten(100, whole)
    assert shorter.shape == (120, 100)
    np.testing.assert_allclose(several(crops), shorter, atol=1e-4)
    # The 120 crops span 120 axes; 100 keep nearly all of their cosines.
    assert np.abs(shorter @ shorter.T - whole @ whole.T).max() < 0.02
    with pytest.raises(SettingsError, match="dimension 500 is above the 100 numbers"):
        several.shorten(500, shorter)
    np.testing.assert_allclose(unit_rows(3 * shorter), shorter, atol=1e-6)


def test_remembered_batches_put_each_crop_beside_its_own_target() -> None:
    given = faces([-1] * 12)
    batches = remembered(given)
    for rows in batches.plan(3):
        batch = batches.make(3, rows)
        assert np.array_equal(batch.crops[:, 0, 0, 0], rows)
        assert np.array_equal(batch.targets["embedding"][:, 0], 2 * rows)


def test_remembered_batches_refuse_to_mix() -> None:
    with pytest.raises(SettingsError, match="teacher sees the mixed crops"):
        remembered(faces([-1] * 8), Augmentation(mix=0.5))


def test_people_batches_hold_so_many_photos_of_so_many_people() -> None:
    given = faces([0] * 9 + [1] * 4 + [2] * 4 + [3] * 5 + [4] + [-1] * 6)
    batches = by_people(given, people=3, photos=4)
    for epoch in range(4):
        for rows in batches.plan(epoch):
            assert len(rows) == 12
            groups = rows.reshape(3, 4)
            for group in groups:
                assert len(set(given.people[group])) == 1
            assert not {4, -1} & set(given.people[rows])  # nothing to pair them with


def test_people_batches_fill_up_who_has_fewer_photos() -> None:
    given = faces([0] * 2 + [1] * 3 + [2] * 4)
    (rows,) = by_people(given, people=3, photos=4).plan(0)
    counted = Counter(rows.tolist())
    assert {counted[0], counted[1]} == {2}
    assert sorted(counted[i] for i in (2, 3, 4)) == [1, 1, 2]
    assert {counted[i] for i in (5, 6, 7, 8)} == {1}


def test_people_batches_change_the_same_photo_in_two_ways() -> None:
    given = faces([0, 0, 1, 1])
    batches = by_people(given, people=2, photos=4, how=Augmentation(noise=1.0))
    (rows,) = batches.plan(0)
    crops = batches.make(0, rows).crops
    for row in range(4):
        once, twice = crops[rows == row]
        assert not np.array_equal(once, twice)


def test_people_batches_refuse_too_few_people_in_words() -> None:
    with pytest.raises(SettingsError, match="cannot be made of 1 people with two photos or more"):
        by_people(faces([0, 0, 1, -1]), people=2, photos=2)


def test_augmented_is_the_same_for_the_same_key_and_another_for_another() -> None:
    given, rows, how = faces([-1] * 6), np.arange(6), Augmentation()
    crops = augmented(given, rows, SIDE, how, (1, 2))
    assert np.array_equal(augmented(given, rows, SIDE, how, (1, 2)), crops)
    assert not np.array_equal(augmented(given, rows, SIDE, how, (1, 3)), crops)


def test_augmented_mix_blends_two_crops_of_the_batch() -> None:
    given = faces([-1] * 2)
    given.crops[0], given.crops[1] = 0, 200
    how = Augmentation.none(mix=1.0)
    blended = [augmented(given, np.arange(2), SIDE, how, (seed,))[:, 0, 0, 0] for seed in range(30)]
    assert all(0 <= value <= 200 for pair in blended for value in pair)
    assert any(20 < value < 180 for pair in blended for value in pair)


def test_resized_keeps_crops_that_fit() -> None:
    crops = faces([-1] * 3).crops
    assert resized(crops, SIDE) is crops
    assert resized(crops, 8).shape == (3, 8, 8, 3)
    assert np.array_equal(resized(crops, 8)[:, 0, 0, 0], [0, 1, 2])


def test_made_ahead_keeps_the_order_and_makes_few_ahead() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(rows: np.ndarray) -> Batch:
        with lock:
            made.append(int(rows[0]))
        return Batch(np.zeros((1, 1, 1, 3), np.uint8), {"n": rows})

    plan = [np.array([n]) for n in range(20)]
    for n, batch in enumerate(made_ahead(plan, make)):
        assert batch.targets["n"][0] == n
        with lock:
            assert max(made) <= n + 3
    assert sorted(made) == list(range(20))


def test_made_ahead_raises_what_a_worker_raises() -> None:
    def fail(rows: np.ndarray) -> Batch:
        raise ValueError(f"no {rows[0]}")

    with pytest.raises(ValueError, match="no 0"):
        list(made_ahead([np.array([0])], fail))
