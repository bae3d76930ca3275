"""Studies: trainings that differ in one setting, measured on the same held-out people."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import needs

from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import TrueAccepts
from face2vec.lab.studies import (
    Training,
    course,
    fewer_faces,
    fewer_people,
    named_split,
    save_study,
    study_text,
)
from face2vec.report.html import Made
from face2vec.training.faces import Faces

PEOPLE, PHOTOS = 40, 3
TRAININGS = (
    Training(
        "dimension 64",
        36,
        108,
        (TrueAccepts(1e-2, 0.4, 0.5, 0.45, 0.55), TrueAccepts(1e-3, 0.5, 0.3, 0.25, 0.35)),
        0.868,
    ),
    Training(
        "dimension 96",
        36,
        108,
        (TrueAccepts(1e-2, 0.4, 0.6, 0.55, 0.65), TrueAccepts(1e-3, 0.5, 0.4, 0.35, 0.45)),
    ),
)


def faces() -> Faces:
    """Crops with one colour per person and some noise; the last three have no name."""
    rng = np.random.default_rng(3)
    people = np.concatenate([np.repeat(np.arange(PEOPLE), PHOTOS), [-1] * 3])
    colours = rng.integers(40, 215, (PEOPLE + 1, 4, 4, 3))[people].repeat(8, 1).repeat(8, 2)
    crops = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
    return Faces(crops, people, tuple(f"P{number}" for number in range(PEOPLE)))


def test_named_split_holds_out_a_tenth_of_the_people() -> None:
    learn, held = named_split(faces())
    assert len(np.unique(held.people)) == PEOPLE // 10
    assert set(held.people) | set(learn.people) == set(range(PEOPLE))
    assert not set(held.people) & set(learn.people)
    few = faces().only(np.arange(4 * PHOTOS))
    with pytest.raises(SettingsError, match="4 people are too few"):
        named_split(few)


def test_named_split_warns_of_few_held_out_people(caplog: pytest.LogCaptureFixture) -> None:
    named_split(faces())
    assert f"only {PEOPLE // 10} people are held out" in caplog.text
    caplog.clear()
    crops = np.zeros((400, 4, 4, 3), np.uint8)
    named_split(Faces(crops, np.repeat(np.arange(100), 4), tuple(map(str, range(100)))))
    assert caplog.text == ""


def test_fewer_people_selects_nested_subsets() -> None:
    sets = [set(fewer_people(named_split(faces())[0], share).people) for share in (0.25, 0.5, 1)]
    assert [len(some) for some in sets] == [9, 18, 36]
    assert sets[0] < sets[1] < sets[2]
    quarter = fewer_people(named_split(faces())[0], 0.25)
    assert np.bincount(quarter.people)[list(sets[0])].tolist() == [PHOTOS] * 9


def test_fewer_faces_selects_nested_subsets() -> None:
    few, more, all_of_them = (fewer_faces(1_000, share).tolist() for share in (0.1, 0.3, 1))
    assert (len(few), len(more)) == (100, 300)
    assert set(few) < set(more)
    assert all_of_them == list(range(1_000))
    assert few == sorted(few)
    assert max(few) > 900  # from anywhere


def test_study_is_written_as_text_and_page(tmp_path: Path) -> None:
    rows = [re.split(r"  +", line.strip()) for line in study_text(TRAININGS).splitlines()]
    at = "TAR at FAR {} (95 % over people)"
    assert rows[0][-3:] == [at.format(0.01), at.format(0.001), "the paper's"]
    assert rows[1] == [
        *("dimension 64", "36", "108"),
        *("50.0% (45.0% to 55.0%)", "30.0% (25.0% to 35.0%)", "86.8%"),
    ]
    assert rows[2][3:] == ["60.0% (55.0% to 65.0%)", "40.0% (35.0% to 45.0%)"]
    made, failed = Made(others=(("dimension 64", "ab" * 32),)), [("/a/1.jpg", "truncated")]
    place = save_study(TRAININGS, tmp_path, "Embedding size", made, failed)
    page = place.read_text(encoding="utf-8")
    assert f"SHA-256 of the weights of dimension 64: <code>{'ab' * 32}</code>" in page
    assert "<bdi>/a/1.jpg</bdi>: truncated</li>" in page
    for column in study_text(TRAININGS).splitlines()[0].strip().split("  "):
        if column.strip():
            assert f'<th scope="row">{html.escape(column.strip())}</th><td class="words">' in page
    assert "<td>60.0% (55.0% to 65.0%)</td>" in page
    assert page.count("<svg ") == 1
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures == [one.figures() for one in TRAININGS]


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("train", "keras")
    from test_training_recipe import small_network

    from face2vec.training import networks

    monkeypatch.setattr(networks, "build", small_network)
    monkeypatch.setattr(networks, "side", lambda name: 32)


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_studies_train_and_measure_on_held_out_people(small_networks: None, tmp_path: Path) -> None:
    from face2vec.encoding.embed import Embedder
    from face2vec.evaluation.metrics import all_pairs, true_accepts
    from face2vec.lab.studies import by_data, by_dimension
    from face2vec.models.store import load_model
    from face2vec.runtime.select import choose_runtime
    from face2vec.training.augment import Augmentation
    from face2vec.training.recipe import Recipe
    from face2vec.training.teachers import resized
    from face2vec.training.trainer import Schedule

    recipe = Recipe(
        people=4, photos=2, schedule=Schedule(1), augmentation=Augmentation.none(), held_out=0.1
    )
    said: list[str] = []
    common = course(recipe, faces(), tmp_path / "d", fars=(0.1,), say=said.append)
    sizes = by_dimension(common, (8, 16))
    assert said == ["dimension 8", "dimension 16"]
    held = named_split(faces())[1]
    for size, one in zip((8, 16), sizes, strict=True):
        model = load_model(tmp_path / "d" / str(size) / "mini.onnx")
        assert model.description.dimension == size
        rows = Embedder(model, choose_runtime())(resized(held.crops, 32))
        people = np.unique(held.people, return_inverse=True)[1]
        assert one.accepts[0].tar == true_accepts(all_pairs(rows, people), 0.1).tar
        assert (one.people, one.photos) == (36, 108)
    common = course(replace(recipe, people=17), faces(), tmp_path / "s", fars=(0.1,))
    shares = by_data(common, (0.5,))
    assert (shares[0].people, shares[0].photos) == (18, 54)
    kept = json.loads((tmp_path / "s" / "0.5" / "recipe.json").read_text(encoding="utf-8"))
    assert kept["schedule"]["epochs"] == 2
    assert kept["people"] == 16  # of 18 people, of whom a tenth is the validation set


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_studies_follow_a_teacher_without_names(small_networks: None, tmp_path: Path) -> None:
    from face2vec.lab.studies import TARGETS, by_data
    from face2vec.models.store import load_model
    from face2vec.runtime.select import choose_runtime
    from face2vec.training.augment import Augmentation
    from face2vec.training.recipe import Recipe
    from face2vec.training.teachers import Teachers
    from face2vec.training.trainer import Schedule

    recipe = Recipe(
        loss="distillation", teacher="mini", teacher_sees="clean", dimension=16, batch=16,
        schedule=Schedule(2), augmentation=Augmentation.none(), held_out=0.1,
    )  # fmt: skip
    nameless = replace(faces(), people=np.full(len(faces()), -1), names=())
    common = course(recipe, nameless, tmp_path, test=faces(), fars=(0.1, 0.01))
    targets = Teachers(("mini",), choose_runtime()).of_all(nameless.crops)
    assert common.targets is not None
    assert np.allclose(common.targets, targets, atol=1e-3)
    assert np.array_equal(np.load(tmp_path / TARGETS), common.targets)
    (half,) = by_data(common, (0.5,))
    assert (half.label, half.people, half.photos) == ("50.0% of the faces", 0, 62)
    assert [one.far for one in half.accepts] == [0.1, 0.01]
    kept = json.loads((tmp_path / "0.5" / "recipe.json").read_text(encoding="utf-8"))
    assert kept["schedule"]["epochs"] == 4
    assert load_model(tmp_path / "0.5" / "mini.onnx").description.dimension == 16
    with pytest.raises(SettingsError, match="too few people"):
        course(recipe, nameless, tmp_path, test=nameless)


def test_study_with_a_teacher_needs_photos_to_measure_on(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from face2vec.cli.lab import dimensions_command

    ran = CliRunner().invoke(
        dimensions_command, [str(tmp_path), "--out", str(tmp_path / "o"), "--teacher", "mini"]
    )
    assert isinstance(ran.exception, SettingsError)
    assert "--teacher needs --test" in str(ran.exception)
