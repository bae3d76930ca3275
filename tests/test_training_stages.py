"""Stages of a network side by side, and what a teacher says of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy
from onnx import TensorProto, helper, numpy_helper, save

from face2vec.errors import ModelError, SettingsError
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.models.store import LoadedModel
from face2vec.runtime.select import Runtime
from face2vec.training.augment import Augmentation
from face2vec.training.faces import Faces

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),
]


@pytest.fixture(scope="module")
def stages() -> ModuleType:
    needs("train", "keras")
    from face2vec.training import stages

    return stages


def network() -> Any:
    import keras
    from keras import layers

    crops = x = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization(name="first")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="second")(x)
    return keras.Model(crops, layers.Dense(5)(layers.Flatten()(x)))


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 8, 8, 3)).astype(np.float32)


def test_stages_one_after_the_other_are_the_network(stages: ModuleType) -> None:
    whole = network()
    parts = stages.apart(whole, ("first", "second"))
    images = crops(3)
    nothing = {"first": np.zeros((3, 4, 4, 4)), "second": np.zeros((3, 2, 2, 6))}
    maps = {name: value.astype(np.float32) for name, value in nothing.items()}
    for name in ("first", "second"):  # what each gives goes into the next
        maps[name] = as_numpy(parts({"crops": images, **maps}, training=False)[name])
    last = parts({"crops": images, **maps}, training=False)["embedding"]
    np.testing.assert_allclose(as_numpy(last), as_numpy(whole(images, training=False)), atol=1e-5)
    assert {id(v) for v in parts.trainable_variables} == {id(v) for v in whole.trainable_variables}


def test_unexplained_share_is_0_for_what_the_teacher_gives_and_1_for_its_means(
    stages: ModuleType,
) -> None:
    rng = np.random.default_rng(1)
    wanted = {
        "first": rng.standard_normal((4, 4, 4, 3)).astype(np.float32) * [1.0, 5.0, 0.2] + 2,
        "embedding": rng.standard_normal((4, 5)).astype(np.float32),
    }
    wanted = {name: value.astype(np.float32) for name, value in wanted.items()}
    follow = stages.FollowStages(("first",))
    loss, shares = follow(wanted, wanted)
    assert float(loss) == 0
    means = {
        "first": np.broadcast_to(wanted["first"].mean((0, 1, 2)), wanted["first"].shape),
        "embedding": np.broadcast_to(wanted["embedding"].mean(0), wanted["embedding"].shape),
    }
    loss, shares = follow(means, wanted)
    assert {name: float(share) for name, share in shares.items()} == {
        "first": pytest.approx(1, abs=1e-4),
        "embedding": pytest.approx(1, abs=1e-4),
    }
    assert float(loss) == pytest.approx(2, abs=2e-4)


@pytest.fixture
def teacher(tmp_path: Path) -> LoadedModel:
    """Twice the crop, called "map", channels first; then the sum over places as the embedding."""
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["map"]),
            helper.make_node("ReduceSum", ["map", "axes"], ["y"], keepdims=0),
        ],
        "twice",
        [value("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
        [two, axes],
    )
    path = tmp_path / "twice.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    description = ModelDescription(
        "twice", 3, 4, "landmarks", FIVE_POINTS, mean=0.0, std=1.0, layout="NCHW"
    )
    return LoadedModel(description, path, "00" * 32, str(path))


def test_teacher_gives_its_maps_channels_last(stages: ModuleType, teacher: LoadedModel) -> None:
    asked = stages.StageTeacher(teacher, Runtime("onnxruntime"), ("map",), ((4, 4, 3),))
    images = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    (maps,) = asked(images)
    np.testing.assert_allclose(maps, 2.0 * images)


def test_teacher_with_other_channels_or_no_such_map_is_refused(
    stages: ModuleType, teacher: LoadedModel
) -> None:
    images = np.zeros((1, 4, 4, 3), np.uint8)
    asked = stages.StageTeacher(teacher, Runtime("onnxruntime"), ("map",), ((4, 4, 5),))
    with pytest.raises(
        SettingsError, match=r"'map' has the shape \(3, 4, 4\); the student's stage"
    ):
        asked(images)
    with pytest.raises(ModelError, match="no tensor 'other'"):
        stages.StageTeacher(teacher, Runtime("onnxruntime"), ("other",), ((4, 4, 3),))


def test_maps_of_a_larger_teacher_are_brought_to_the_students_size(
    stages: ModuleType, teacher: LoadedModel
) -> None:
    asked = stages.StageTeacher(teacher, Runtime("onnxruntime"), ("map",), ((2, 2, 3),))
    images = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    (maps,) = asked(images)
    # A value stands for the first pixel of its step, and so two by two for their middle.
    means = 2.0 * images.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
    weights = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / [[7], [7]]
    expected = np.einsum("ui,vj,nijc->nuvc", weights, weights, 2.0 * images)
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    assert np.abs(maps - means).mean() < np.abs(maps - means[::-1]).mean() / 2


def test_places_of_a_ramp_are_where_strided_convolutions_leave_them(stages: ModuleType) -> None:
    # 32 values 4 pixels apart along a crop of 128, at the places that 24 have on one of 96.
    pixels_there = 4.0 * np.arange(32) + 0.5
    pixels_here = (4.0 * np.arange(24) + 0.5) * 128 / 96
    found = stages._places(32, 24, 4.0) @ pixels_there
    np.testing.assert_allclose(found[1:-1], pixels_here[1:-1], atol=1.2)  # a third of a step
    assert abs(np.mean(found[1:-1] - pixels_here[1:-1])) < 0.05


def test_stage_batches_hold_crops_and_what_the_teacher_says_of_them(
    stages: ModuleType, teacher: LoadedModel
) -> None:
    rng = np.random.default_rng(3)
    faces = Faces(rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8), np.arange(6), ())
    asked = stages.StageTeacher(teacher, Runtime("onnxruntime"), ("map",), ((4, 4, 3),))
    targets = np.arange(12, dtype=np.float32).reshape(6, 2)
    settings = {"side": 8, "size": 2, "seed": 0}
    batches = stages.StageBatches(
        targets, asked, ("first",), faces, Augmentation.none(), given=True, **settings
    )
    plan = batches.plan(0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(6))
    batch = batches.make(0, plan[0])
    assert batch.crops.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(batch.maps["first"], 2.0 * faces.crops[plan[0]])
    assert batch.targets["first"] is batch.maps["first"]
    np.testing.assert_array_equal(batch.targets["embedding"], targets[plan[0]])
    on_the_way = stages.StageBatches(
        targets, asked, ("first",), faces, Augmentation.none(), given=False, **settings
    )
    assert on_the_way.make(0, plan[0]).maps == {}
