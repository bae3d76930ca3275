"""A training in phases, as `mini` was taught: its recipe as data, wider networks, means, hints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy

from face2vec.errors import SettingsError

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
RECIPE = Path(__file__).parent.parent / "training" / "mini.json"
NARROW = ((8, 8), (16, 16), (16, 16))
WIDE = ((8, 8), (16, 24), (24, 24))


def recipe_values() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(RECIPE.read_text(encoding="utf-8"))
    return values | {"teacher": "mini", "compute": "float32"}


def test_recipe_of_mini_is_a_recipe() -> None:
    needs("train", "keras")
    from face2vec.training.mini import BETWEEN, STAGES
    from face2vec.training.recipe import Recipe

    recipe = Recipe.from_dict(recipe_values())
    assert [p.name for p in recipe.in_phases()] == [
        *("blocks", "hints", "follow", "wider", "clear", "small", "patient")
    ]
    assert recipe.phases[-1].widths == BETWEEN
    assert len(recipe.teacher_stages) == len(STAGES)
    stops = [p.schedule.stop or p.schedule.steps for p in recipe.phases]
    assert stops == [900, 1491, 5600, 8000, 2600, 1400, 10000]
    assert recipe.batch * sum(s or 0 for s in stops) == 1_919_424


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 3}, "Recipe has no setting epochs"),
        ({"phases": [{"name": "a", "schedule": {"step": 1}}]}, "Schedule has no setting step"),
        ({"phases": [{"name": "a", "after": ["b"]}]}, "'a' needs a name .* not b"),
        ({"phases": [{"name": "a"}, {"name": "a"}]}, "'a' needs a name of its own"),
        ({"teacher_stages": []}, "'blocks' needs the teacher's stages"),
        ({"teacher_sees": "augmented"}, "'hints' needs teacher_sees 'clean'"),
        ({"phases": [{"name": "a", "schedule": {"steps": 0}}]}, "must be at least 1"),
    ],
)
def test_recipe_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    needs("train", "keras")
    from face2vec.training.recipe import Recipe

    with pytest.raises(SettingsError, match=said):
        Recipe.from_dict(recipe_values() | change)


def test_wider_network_gives_the_same_embeddings_and_can_learn_more() -> None:
    needs("train", "keras")
    from face2vec.training import networks
    from face2vec.training.mini import widths

    network = networks.build("mini", 8, widths=NARROW)
    wide = networks.wider(network, WIDE)
    assert (widths(network), widths(wide)) == (NARROW, WIDE)
    pixels = np.random.default_rng(0).standard_normal((2, 96, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(as_numpy(wide(pixels)), as_numpy(network(pixels)), atol=1e-5)
    assert wide.count_params() > network.count_params()
    assert networks.wider(wide, WIDE) is wide


def test_mean_of_trainings_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    needs("train", "keras")
    from face2vec.training import networks
    from face2vec.training.trainer import mean_of

    network = networks.build("mini", 8, widths=NARROW)
    ends = [[np.random.default_rng(n).random(w.shape) for w in network.weights] for n in (1, 2)]
    for number, end in enumerate(ends):
        named = {f"network/{i}": values for i, values in enumerate(end)}
        np.savez(tmp_path / f"{number}.npz", step=1, **named)
    mean_of([tmp_path / "0.npz", tmp_path / "1.npz"], network)
    for variable, one, other in zip(network.weights, *ends, strict=True):
        np.testing.assert_allclose(as_numpy(variable), (one + other) / 2, atol=1e-6)


def test_network_on_torch_gives_what_keras_gives_while_it_learns() -> None:
    needs("torch", "keras", "torch")
    code = """
import numpy as np, keras
from face2vec.training import networks
from face2vec.training.on_torch import run
for name, side in (("mini", 96), ("nns2", 64)):
    keras.utils.set_random_seed(0)
    one, other = (networks.build(name, 8, side) for _ in range(2))
    other.set_weights(one.get_weights())
    pixels = np.random.default_rng(0).standard_normal((6, side, side, 3)).astype(np.float32)
    wanted = keras.ops.convert_to_numpy(one(pixels, training=True))
    given = keras.ops.convert_to_numpy(run(other, [pixels], False))
    half = keras.ops.convert_to_numpy(run(other, [pixels], True))
    spread = wanted.std(axis=0).mean()
    assert np.abs(given - wanted).max() < 1e-2 * spread, np.abs(given - wanted).max() / spread
    assert np.abs(half - wanted).max() < 0.5 * spread, np.abs(half - wanted).max() / spread
"""
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"KERAS_BACKEND": "torch"}, cwd=RECIPE.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
