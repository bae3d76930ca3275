"""Training on tiny data: it learns, it resumes, it exports, and a user can run it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy
from PIL import Image

from face2vec.errors import SettingsError, TrainingError
from face2vec.runtime.packages import import_onnxruntime
from face2vec.training.augment import Augmentation
from face2vec.training.faces import Faces

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Keras and TensorFlow
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

PEOPLE, PHOTOS = 8, 6


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with a network of a few small layers in place of the one of that name."""
    needs("train", "keras")
    from face2vec.training import recipe

    monkeypatch.setattr(recipe.networks, "build", small_network)
    monkeypatch.setattr(recipe.networks, "side", lambda name: 32)
    monkeypatch.setattr(recipe.networks, "stages", lambda name: ("stage_0", "stage_1"))
    return recipe


def small_network(name: str, dimension: int | None = None, input_size: int | None = None) -> Any:
    """Like ``mini`` on 32 pixels; its normalisations are quick to learn in a few steps."""
    import keras
    from keras import layers

    crops = x = keras.Input((32, 32, 3))
    for number, filters in enumerate((8, 16, 16)):
        y = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        y = layers.LeakyReLU(0.1)(layers.BatchNormalization(momentum=0.8)(y))
        z = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        z = layers.BatchNormalization(momentum=0.8)(z)
        x = layers.Add(name=f"stage_{number}")([y, z])
    x = layers.DepthwiseConv2D(4, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = layers.Dense(dimension or 24, use_bias=False)(layers.Flatten()(x))
    return keras.Model(crops, x, name=name)


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Noisy photos of patterns that have much in common, as faces have."""
    rng = np.random.default_rng(0)

    def pattern() -> np.ndarray:
        image = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), np.float64)

    common, crops = pattern(), []
    for _ in range(PEOPLE):
        person = 0.8 * common + 0.2 * pattern()
        crops += [np.clip(person + rng.normal(0, 20, person.shape), 0, 255) for _ in range(PHOTOS)]
    people = np.repeat(np.arange(PEOPLE), PHOTOS)
    return Faces(np.array(crops, np.uint8), people, tuple(f"p{n}" for n in range(PEOPLE)))


def tiny(recipe: ModuleType, **settings: Any) -> Any:
    from face2vec.training.trainer import Schedule

    usual = {
        "people": 4, "photos": 4, "held_out": 0.25, "dimension": 16,
        "augmentation": Augmentation.none(), "schedule": Schedule(epochs=3, rate=1e-3),
    }  # fmt: skip
    return recipe.Recipe(**usual | settings)


def curves(folder: Path) -> list[dict[str, float]]:
    with (folder / "curves.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_training_lowers_the_loss_and_writes_what_it_did(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    from face2vec.training.trainer import Schedule

    settings = tiny(recipe, schedule=Schedule(epochs=6, rate=1e-3))
    model = recipe.run(settings, faces, tmp_path)
    rows = curves(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["active"] < rows[0]["active"] <= 1
    assert 0 <= rows[-1]["tar"] <= 1
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 600
    assert json.loads((tmp_path / "recipe.json").read_text())["dimension"] == 16
    assert model == tmp_path / "mini.onnx"


def large_weights(path: Path) -> list[np.ndarray]:
    """The arrays of an ONNX file that take nearly all of it."""
    import onnx
    from onnx import numpy_helper

    arrays = [numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    return [one for one in arrays if one.dtype.kind == "f" and one.size >= 1024]


def test_training_exports_what_keras_computes(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    onnxruntime = import_onnxruntime()

    from face2vec.models.store import load_model
    from face2vec.training.export import export, load_exported, settle
    from face2vec.training.trainer import embed, standardized

    settings = tiny(recipe)
    path = recipe.run(settings, faces, tmp_path)
    description = settings.description()
    network = small_network("mini", 16)
    network.load_weights(tmp_path / "mini.weights.h5")
    wanted = embed(network, faces.crops[:5])

    def through_onnx(file: Path) -> np.ndarray:
        session = onnxruntime.InferenceSession(file)
        name = session.get_inputs()[0].name
        (given,) = session.run(None, {name: standardized(faces.crops[:5])})
        return np.asarray(given / np.linalg.norm(given, axis=1, keepdims=True))

    export(network, tmp_path / "full.onnx", description, "fp32")
    assert np.abs(through_onnx(tmp_path / "full.onnx") - wanted).max() < 1e-5
    assert np.abs(through_onnx(path) - wanted).max() < 2e-3  # weights stored in 16 bits
    stored, exact = large_weights(path), large_weights(tmp_path / "full.onnx")
    assert {one.dtype.name for one in stored} == {"float16"}
    assert [one.tobytes() for one in stored] == [one.astype(np.float16).tobytes() for one in exact]
    assert load_model(path).description.dimension == 16

    again = small_network("mini", 16)
    load_exported(again, tmp_path / "full.onnx")
    assert np.abs(embed(again, faces.crops[:5]) - wanted).max() < 1e-5

    # While it learns, what it gives for a batch is not what it gives otherwise, but should be near.
    pixels = standardized(faces.crops)

    def learning() -> np.ndarray:
        return as_numpy(again(pixels, training=True))

    given = as_numpy(again(pixels, training=False))
    apart = np.abs(learning() - given).max()
    load_exported(again, tmp_path / "full.onnx")
    settle(again, pixels)
    assert np.abs(embed(again, faces.crops[:5]) - wanted).max() < 1e-5
    assert np.abs(learning() - given).max() < 1e-3 * apart


def test_training_that_was_killed_ends_with_the_same_weights(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    from face2vec.training.trainer import Schedule

    schedule = Schedule(epochs=3, rate=1e-3, checkpoint_seconds=0)  # after every step
    settings = tiny(recipe, schedule=schedule, augmentation=Augmentation())
    recipe.run(settings, faces, tmp_path / "whole")

    class Killed(BaseException):
        pass

    for last in (2, 5, 6):  # inside the first epoch, inside the second, at its end

        def kill(progress: Any, last: int = last) -> None:
            if progress.step == last:
                raise Killed

        with pytest.raises(Killed):
            recipe.run(settings, faces, tmp_path / "killed", watch=kill)
    steps: list[int] = []
    recipe.run(settings, faces, tmp_path / "killed", watch=lambda p: steps.append(p.step))
    assert steps == [6, 7, 8, 9]  # the step that was not in a checkpoint yet is done again
    weights = [
        [np.asarray(w) for w in _loaded(recipe, tmp_path / name).get_weights()]
        for name in ("whole", "killed")
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
    whole, killed = curves(tmp_path / "whole"), curves(tmp_path / "killed")
    assert [row["epoch"] for row in killed] == [row["epoch"] for row in whole]
    assert killed[-1]["loss"] == pytest.approx(whole[-1]["loss"], abs=1e-4)


def _loaded(recipe: ModuleType, folder: Path) -> Any:
    network = small_network("mini", 16)
    network.load_weights(folder / "mini.weights.h5")
    return network


def test_training_refuses_a_folder_of_another_recipe(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text(
        json.dumps({"network": "mini", "margin": 0.5}), encoding="utf-8"
    )
    with pytest.raises(TrainingError, match=r"with another .*margin.*; give the same settings"):
        recipe.run(tiny(recipe), faces, tmp_path)


def test_distillation_comes_closer_to_its_teacher(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    from face2vec.training.trainer import Schedule

    long = tiny(recipe, schedule=Schedule(epochs=25, rate=2e-3))  # till it tells the people apart
    teacher = recipe.run(long, faces, tmp_path / "teacher")
    for sees, mix in (("clean", 0.0), ("augmented", 0.3)):
        settings = tiny(
            recipe, loss="distillation", teacher=str(teacher), teacher_sees=sees, batch=12,
            dimension=None, seed=1, augmentation=Augmentation.none(mix=mix),
            schedule=Schedule(epochs=20, rate=3e-3),
        )  # fmt: skip
        model = recipe.run(settings, faces, tmp_path / sees)
        rows = curves(tmp_path / sees)
        assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
        assert rows[-1]["cosine"] > rows[0]["cosine"] + 0.1
        assert json.loads(model.with_suffix(".json").read_text())["dimension"] == 16


def test_distillation_stage_by_stage_learns_what_the_teacher_does_on_the_way(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    from face2vec.training.trainer import Schedule

    long = tiny(recipe, schedule=Schedule(epochs=25, rate=2e-3))
    teacher = recipe.run(long, faces, tmp_path / "teacher")
    tensors = ("stage_0", "stage_1")  # an exported network's tensors are called as its layers are
    settings = tiny(
        recipe, loss="distillation", teacher=str(teacher), teacher_sees="clean", batch=12,
        dimension=None, seed=1, teacher_stages=tensors,
        stages=Schedule(epochs=30, rate=5e-3, optimizer="muon"),
        schedule=Schedule(epochs=1, rate=1e-5, optimizer="muon"),
    )  # fmt: skip
    recipe.run(settings, faces, tmp_path / "student")
    rows = curves(tmp_path / "student" / "stages")
    for part in ("stage_0", "stage_1", "embedding"):
        assert rows[-1][part] < 0.5 * rows[0][part]
    assert rows[-1]["loss"] == pytest.approx(
        sum(rows[-1][part] for part in ("stage_0", "stage_1", "embedding")), rel=0.2
    )
    # The stages were taught apart from each other, and are the network all the same.
    assert curves(tmp_path / "student")[-1]["cosine"] > rows[0]["cosine"] + 0.1

    steps: list[int] = []
    recipe.run(settings, faces, tmp_path / "student", watch=lambda p: steps.append(p.step))
    assert steps == []  # all of it is done
    wrong = tiny(recipe, **vars(settings) | {"teacher_stages": tensors[:1]})
    with pytest.raises(SettingsError, match=r"has 2 stages .*, but teacher_stages has 1"):
        recipe.run(wrong, faces, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "distillation"}, "needs a teacher"),
        ({"teacher_stages": ("a", "b")}, "need a teacher"),
        ({"teacher": "mini"}, "other losses take none"),
        ({"loss": "softmax"}, "choose one of semi-hard"),
        ({"held_out": 0.0}, "above 0"),
    ],
)
def test_recipe_that_cannot_be_is_refused(
    recipe: ModuleType, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        recipe.Recipe(**settings)


def test_description_refuses_to_fine_tune_another_network(recipe: ModuleType) -> None:
    settings = tiny(recipe, network="inception_resnet_v1", start_from="arcface-r50")
    with pytest.raises(SettingsError, match="'arcface-r50' is another network"):
        settings.description()


def test_training_that_diverges_is_told_and_keeps_its_checkpoint(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    from face2vec.training.trainer import Schedule

    settings = tiny(recipe, schedule=Schedule(epochs=2, rate=1e30, warm_up=0))
    with pytest.raises(TrainingError, match="diverged; lower the rate"):
        recipe.run(settings, faces, tmp_path)


def test_fine_tuning_starts_where_the_other_training_ended(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    first = recipe.run(tiny(recipe), faces, tmp_path / "first")
    network = recipe.build(tiny(recipe, start_from=str(first)), tiny(recipe).description())
    from face2vec.training.trainer import embed

    wanted = embed(_loaded(recipe, tmp_path / "first"), faces.crops[:4])
    assert np.abs(embed(network, faces.crops[:4]) - wanted).max() < 2e-3


def test_train_command_trains_on_a_folder_a_person(
    recipe: ModuleType, faces: Faces, tmp_path: Path
) -> None:
    for row, person in enumerate(faces.people):
        file = tmp_path / "faces" / f"p{person}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.crops[row]).save(file)
    command = [
        *(sys.executable, "-m", "face2vec", "train", str(tmp_path / "faces"), "--aligned"),
        *("--out", str(tmp_path / "out"), "--epochs", "1", "--people", "4", "--held-out", "0.25"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "48 faces of 8 named people" in done.stderr
    assert (tmp_path / "out" / "mini.onnx").is_file()
    again = subprocess.run(
        [*command, "--margin", "0.3"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 3
    assert "another margin" in again.stderr
