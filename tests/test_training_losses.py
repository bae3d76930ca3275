from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import needs
from keras_gradients import as_numpy, gradients
from numpy.typing import NDArray

from face2vec.errors import SettingsError

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),  # Keras' calls of numpy
]

Array = NDArray[np.float32]

PEOPLE = [
    pytest.param([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], id="3 photos each of 4 people"),
    pytest.param([0, 1, 0, 2, 3, 1, 1, 4, 5, 0, 1, 6, 7], id="some with one photo"),
    pytest.param([5, 5, 5, 5, 5, 5, 9], id="one stranger"),
    pytest.param([7, 7], id="one person only"),
    pytest.param([1, 2, 3, 4], id="one photo each"),
    pytest.param([3], id="one photo"),
]


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    needs("train", "keras")
    from face2vec.training import losses

    return losses


def batches(labels: list[int]) -> list[Array]:
    """Embeddings for the labels: random, clustered, with many ties, of any length."""
    n = len(labels)
    random = np.random.default_rng(n)
    drawn: list[NDArray[Any]] = [random.standard_normal((n, d)) for d in (2, 3, 16)]
    centres = random.standard_normal((max(labels) + 1, 8))
    drawn += [centres[labels] + s * random.standard_normal((n, 8)) for s in (0.05, 0.3, 1, 3)]
    drawn += [-centres[labels] * (np.arange(n) % 2 * 2 - 1)[:, None]]  # a person's photos opposite
    corners = np.concatenate([np.eye(4), -np.eye(4)])
    drawn += [corners[random.integers(0, 8, n)] for _ in range(2)]  # distances of 0, 2 and 4 only
    drawn += [np.tile(corners[:1], (n, 1))]  # all alike
    drawn += [random.uniform(0.1, 50, (n, 1)) * drawn[2]]
    return [np.asarray(e, np.float32) for e in drawn]


def as_tensor(array: Array) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array)


def plain_distances(embeddings: NDArray[Any]) -> NDArray[np.float64]:
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.array([[((a - b) ** 2).sum() for b in unit] for a in unit])


def plain_semi_hard(distances: NDArray[Any], labels: list[int]) -> dict[tuple[int, int], int]:
    """The negative of every anchor and positive, found by looking at one after another."""
    chosen = {}
    for a in range(len(labels)):
        for p in range(len(labels)):
            if a == p or labels[a] != labels[p]:
                continue
            nearest_farther = farthest = None
            for n in range(len(labels)):
                if labels[n] == labels[a]:
                    continue
                if farthest is None or distances[a, n] >= distances[a, farthest]:
                    farthest = n
                if distances[a, n] > distances[a, p] and (
                    nearest_farther is None or distances[a, n] < distances[a, nearest_farther]
                ):
                    nearest_farther = n
            if nearest_farther is not None:
                chosen[a, p] = nearest_farther
            elif farthest is not None:
                chosen[a, p] = farthest
    return chosen


def plain_batch_hard(distances: NDArray[Any], labels: list[int]) -> dict[tuple[int, int], int]:
    """One anchor and positive each, with the negative."""
    chosen = {}
    for a in range(len(labels)):
        farthest = nearest = None
        for other in range(len(labels)):
            if labels[other] != labels[a]:
                if nearest is None or distances[a, other] < distances[a, nearest]:
                    nearest = other
            elif other != a and (farthest is None or distances[a, other] > distances[a, farthest]):
                farthest = other
        if farthest is not None and nearest is not None:
            chosen[a, farthest] = nearest
    return chosen


def plain_loss(
    distances: NDArray[Any], chosen: dict[tuple[int, int], int], margin: float
) -> tuple[float, float]:
    costs = [max(0.0, distances[a, p] - distances[a, n] + margin) for (a, p), n in chosen.items()]
    if not costs:
        return 0.0, 0.0
    return sum(costs) / len(costs), sum(cost > 0 for cost in costs) / len(costs)


def in_float32(losses: ModuleType, embeddings: Array) -> Array:
    """The distances that the losses see; which of two is larger may hang on their last bit."""
    found = as_numpy(losses.squared_distances(embeddings))
    np.testing.assert_allclose(found, plain_distances(embeddings), atol=2e-6)
    return found


@pytest.mark.parametrize("labels", PEOPLE)
def test_semi_hard_chooses_the_nearest_negative_beyond_the_positive(
    losses: ModuleType, labels: list[int]
) -> None:
    for embeddings in batches(labels):
        distances = in_float32(losses, embeddings)
        _, negative = losses.relations(np.array(labels))
        found = as_numpy(losses.semi_hard_negatives(as_tensor(distances), negative))
        expected = plain_semi_hard(distances, labels)
        assert {pair: found[pair] for pair in expected} == expected


@pytest.mark.parametrize("labels", PEOPLE)
def test_batch_hard_chooses_the_hardest_of_both(losses: ModuleType, labels: list[int]) -> None:
    for embeddings in batches(labels):
        distances = in_float32(losses, embeddings)
        positive, negative = losses.relations(np.array(labels))
        pairs = losses.batch_hard_pairs(as_tensor(distances), positive, negative)
        farthest, nearest = map(as_numpy, pairs)
        expected = plain_batch_hard(distances, labels)
        found = {(a, farthest[a, 0]): nearest[a, 0] for a, _ in expected}
        assert found == expected


@pytest.mark.parametrize("labels", PEOPLE)
@pytest.mark.parametrize(
    ("name", "choose"),
    [("triplet_semi_hard", plain_semi_hard), ("triplet_batch_hard", plain_batch_hard)],
)
def test_triplet_losses_are_the_mean_over_their_triplets(
    losses: ModuleType, name: str, choose: Any, labels: list[int]
) -> None:
    for i, embeddings in enumerate(batches(labels)):
        margin = (0.2, 1.0)[i % 2]
        distances = in_float32(losses, embeddings)
        expected = plain_loss(distances, choose(distances, labels), margin)
        found = getattr(losses, name)(embeddings, np.array(labels), margin)
        assert (float(found.loss), float(found.active)) == pytest.approx(expected, abs=1e-5)


def test_batches_have_what_they_are_for(losses: ModuleType) -> None:
    """Semi-hard triplets, triplets beyond the margin, and pairs without a farther negative."""
    labels = PEOPLE[0].values[0]
    kinds = {"semi-hard": 0, "beyond the margin": 0, "none farther": 0, "ties": 0}
    for embeddings in batches(labels):
        distances = in_float32(losses, embeddings)
        for (a, p), n in plain_semi_hard(distances, labels).items():
            gap = distances[a, n] - distances[a, p]
            kinds["none farther"] += gap <= 0
            kinds["semi-hard"] += 0 < gap < 0.2
            kinds["beyond the margin"] += gap > 0.2
            kinds["ties"] += any(
                distances[a, other] == distances[a, p]
                for other in range(len(labels))
                if labels[other] != labels[a]
            )
    assert min(kinds.values()) > 50


def test_semi_hard_by_hand(losses: ModuleType) -> None:
    turned = np.deg2rad([0, 30, 32, 50, 80])
    embeddings = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    found = losses.triplet_semi_hard(embeddings, np.array([1, 1, 2, 3, 4]))
    # From 0° the positive is 30° away and the next negative 32°. From 30° the positive is 30° away
    # and the next negative 50°: beyond the margin.
    cost = 2 * np.cos(np.deg2rad(32)) - 2 * np.cos(np.deg2rad(30)) + 0.2
    assert float(found.loss) == pytest.approx(cost / 2, abs=1e-6)
    assert float(found.active) == 0.5


@pytest.mark.parametrize(
    ("name", "choose"),
    [("triplet_semi_hard", plain_semi_hard), ("triplet_batch_hard", plain_batch_hard)],
)
@pytest.mark.parametrize("labels", PEOPLE)
def test_triplet_losses_have_the_gradient_of_their_triplets(
    losses: ModuleType, name: str, choose: Any, labels: list[int]
) -> None:
    import keras

    random = np.random.default_rng(1)
    for embeddings in batches(labels)[::2]:
        chosen = choose(in_float32(losses, embeddings), labels)
        direction = 0.01 * random.standard_normal(embeddings.shape)
        higher, lower = (
            plain_loss(plain_distances(embeddings + side * direction), chosen, 0.5)[0]
            for side in (0.01, -0.01)
        )
        variable = keras.Variable(embeddings)
        (slope,) = gradients(
            lambda v=variable: getattr(losses, name)(v, np.array(labels), 0.5).loss, [variable]
        )
        assert (slope * direction).sum() == pytest.approx((higher - lower) / 0.02, abs=1e-5)


@pytest.mark.parametrize("name", ["triplet_semi_hard", "triplet_batch_hard"])
def test_triplet_losses_have_a_finite_gradient_where_embeddings_are_zero(
    losses: ModuleType, name: str
) -> None:
    import keras

    labels = np.array([0, 0, 1, 1, 0, 1])
    for embeddings in (np.zeros((6, 4)), np.eye(6)[:, :4]):
        variable = keras.Variable(embeddings, dtype="float32")
        (slope,) = gradients(lambda v=variable: getattr(losses, name)(v, labels).loss, [variable])
        assert np.isfinite(slope).all()


def test_two_equal_photos_of_a_person_have_a_finite_gradient(losses: ModuleType) -> None:
    import keras

    same = np.float32([[0.6, 0.8], [0.6, 0.8], [0.8, 0.6], [0.8, 0.6]])
    variable = keras.Variable(same)
    for name in ("triplet_semi_hard", "triplet_batch_hard"):
        loss_of = getattr(losses, name)
        (slope,) = gradients(lambda f=loss_of: f(variable, np.array([0, 0, 1, 1])).loss, [variable])
        assert np.isfinite(slope).all()
        assert slope.any()


def test_labels_may_be_a_column_and_embeddings_half_precision(losses: ModuleType) -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    embeddings = np.random.default_rng(5).standard_normal((6, 8)).astype(np.float16)
    for name in ("triplet_semi_hard", "triplet_batch_hard"):
        loss_of = getattr(losses, name)
        column = loss_of(embeddings, labels[:, None].astype(np.uint8))
        assert float(column.loss) == float(loss_of(embeddings.astype(np.float32), labels).loss)


def test_compiled_training_with_any_batch_separates_people(losses: ModuleType) -> None:
    import keras

    def loss(labels: Any, embeddings: Any) -> Any:
        return (
            losses.triplet_semi_hard(embeddings, labels).loss
            + losses.triplet_batch_hard(embeddings, labels).loss
        )

    def separated(distances: NDArray[Any]) -> NDArray[np.bool_]:
        same = labels[:, None] == labels[None, :]
        farthest = np.where(same, distances, -1).max(axis=1)
        return farthest < np.where(same, 5, distances).min(axis=1)

    photos, labels = np.eye(23, dtype=np.float32), np.arange(23) % 5
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((23,)), keras.layers.Dense(8, use_bias=False)])
    network.compile(keras.optimizers.Adam(0.02), loss)
    assert not separated(plain_distances(network.predict(photos, verbose=0))).all()
    network.fit(photos, labels, batch_size=16, verbose=0)  # batches of 16 and 7
    network.fit(photos, labels, batch_size=23, epochs=40, verbose=0)
    assert separated(plain_distances(network.predict(photos, verbose=0))).all()


def plain_distillation(embeddings: Array, targets: Array, weight: float) -> float:
    e, t = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        for x in (embeddings, targets)
    )
    n = len(e)
    away = sum(1 - e[i] @ t[i] for i in range(n)) / n
    structure = sum((e[i] @ e[j] - t[i] @ t[j]) ** 2 for i in range(n) for j in range(n)) / n**2
    return float(away + weight * structure)


@pytest.mark.parametrize("weight", [8.0, 0.0, 2.5])
def test_distillation_has_the_value_of_its_formula(losses: ModuleType, weight: float) -> None:
    random = np.random.default_rng(8)
    for n in (1, 2, 9):
        for scale in (0.1, 1, 20):
            embeddings = (scale * random.standard_normal((n, 6))).astype(np.float32)
            targets = random.standard_normal((n, 6)).astype(np.float32)
            found = float(losses.distillation(embeddings, targets, weight))
            assert found == pytest.approx(plain_distillation(embeddings, targets, weight), abs=1e-5)


def test_distillation_is_zero_at_its_targets_and_weighs_8_by_default(losses: ModuleType) -> None:
    random = np.random.default_rng(9)
    targets = random.standard_normal((7, 5)).astype(np.float32)
    embeddings = random.standard_normal((7, 5)).astype(np.float32)
    assert float(losses.distillation(3 * targets, targets)) == pytest.approx(0, abs=1e-6)
    found = float(losses.distillation(embeddings, targets))
    assert found == pytest.approx(plain_distillation(embeddings, targets, 8), abs=1e-5)


def test_distillation_has_finite_gradients(losses: ModuleType) -> None:
    import keras

    targets = np.random.default_rng(10).standard_normal((6, 5)).astype(np.float32)
    for start in (targets, np.zeros_like(targets), -targets, targets[::-1].copy()):
        variable = keras.Variable(start)
        (slope,) = gradients(lambda v=variable: losses.distillation(v, targets), [variable])
        assert np.isfinite(slope).all()


def test_distillation_refuses_another_dimension(losses: ModuleType) -> None:
    with pytest.raises(SettingsError, match="embeddings have dimension 4 and their targets 5"):
        losses.distillation(np.ones((2, 4), np.float32), np.ones((2, 5), np.float32))
