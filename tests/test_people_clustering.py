"""Clustering of faces, compared with linkage of all pairs and with known people."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from face2vec.calibration import Calibration, fit
from face2vec.errors import MissingExtraError
from face2vec.people import clustering
from face2vec.people.clustering import Evidence, Faces, average, joined

DIMENSION = 24


def people(
    count: int, photos: int, spread: float, seed: int = 0
) -> tuple[Faces, NDArray[np.int64]]:
    """Faces of a number of people, and the person of each; ids differ from rows."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, DIMENSION))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    whose = rng.permutation(np.repeat(np.arange(count), photos))
    rows = middles[whose] + spread * rng.standard_normal((len(whose), DIMENSION))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = 10 + 3 * np.arange(len(whose))
    return Faces(ids, rows.astype(np.float32), np.arange(len(whose))), whose


def near(faces: Faces, most: int = 33) -> list[NDArray[np.int64]]:
    order = np.argsort(-(faces.embeddings @ faces.embeddings.T), axis=1)
    return [faces.ids[row[:most]] for row in order]


def labels(faces: Faces, groups: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One label per face; each face that is alone has its own label."""
    found = -1 - np.arange(len(faces))
    for number, ids in enumerate(groups):
        found[np.searchsorted(faces.ids, ids)] = number
    return found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """A calibration fitted on other people of the same kind."""
    faces, whose = people(150, 4, 0.14, seed=5)
    cosines = (faces.embeddings @ faces.embeddings.T)[np.triu_indices(len(faces), 1)]
    same = (whose[:, None] == whose)[np.triu_indices(len(faces), 1)]
    impostor = np.sort(cosines[~same])[::-1]
    return fit(cosines[same], impostor, model="m", weights="w", data="drawn", people=150)


@pytest.mark.parametrize("spread", [0.08, 0.14, 0.2])
def test_average_equals_linkage_of_all_pairs(calibration: Calibration, spread: float) -> None:
    faces, whose = people(40, 5, spread)
    evidence = Evidence(calibration, len(faces))
    odds = evidence.between(faces, faces).astype(np.float64)
    distances = (odds.max() - odds)[np.triu_indices(len(faces), 1)]
    slow = fcluster(linkage(distances, "average"), odds.max() - 1e-9, "distance")
    found = labels(faces, average(faces, evidence, near(faces)))
    assert adjusted_rand_score(slow, found) == pytest.approx(1.0)
    if spread < 0.1:
        assert adjusted_rand_score(whose, found) == pytest.approx(1.0)


def test_average_groups_no_faces_of_different_people(calibration: Calibration) -> None:
    faces = Faces(np.arange(DIMENSION), np.eye(DIMENSION, dtype=np.float32), np.arange(DIMENSION))
    assert average(faces, Evidence(calibration, len(faces)), near(faces)) == []


def test_average_of_fewer_than_two_faces_is_empty(calibration: Calibration) -> None:
    faces, _ = people(1, 1, 0.1)
    for some in (faces, faces.select(np.empty(0, np.int64))):
        assert average(some, Evidence(calibration, 1), near(some)) == []


def test_faces_in_one_photo_have_lower_log_odds(calibration: Calibration) -> None:
    faces, _ = people(1, 2, 0.1, seed=3)
    evidence = Evidence(calibration, 1000)
    odds = float(evidence.between(faces, faces)[0, 1])
    assert 0 < odds < clustering.SAME_PHOTO
    assert len(average(faces, evidence, near(faces))) == 1
    together = Faces(faces.ids, faces.embeddings, np.zeros(2, np.int64))
    assert float(evidence.between(together, together)[0, 1]) == pytest.approx(
        odds - clustering.SAME_PHOTO, abs=1e-5
    )
    assert average(together, evidence, near(together)) == []


def test_average_groups_components_larger_than_the_limit(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, whose = people(6, 40, 0.08)
    # All faces are one connected component, as in a large gallery.
    monkeypatch.setattr(clustering, "_components", lambda count, links: [np.arange(count)])
    monkeypatch.setattr(clustering, "LARGEST", 30)
    found = labels(faces, average(faces, Evidence(calibration, len(faces)), near(faces)))
    assert adjusted_rand_score(whose, found) == pytest.approx(1.0)


def test_average_without_scipy_names_the_extra(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, _ = people(3, 2, 0.1)
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[people\]'"):
        average(faces, Evidence(calibration, 6), near(faces))


# --- joining --------------------------------------------------------------------------------


def known(calibration: Calibration) -> tuple[dict[int, Faces], list[Faces], Evidence]:
    """Three known people with four faces each, and a group of two more faces of each."""
    faces, whose = people(3, 6, 0.08)
    rows = [np.flatnonzero(whose == person) for person in range(3)]
    people_ = {100 + n: faces.select(own[:4]) for n, own in enumerate(rows)}
    return people_, [faces.select(own[4:]) for own in rows], Evidence(calibration, len(faces))


def test_joined_adds_groups_to_similar_people(calibration: Calibration) -> None:
    people_, groups, evidence = known(calibration)
    joining, new = joined(groups, people_, lambda group: people_, evidence, set())
    assert joining == {100 + n: group.ids.tolist() for n, group in enumerate(groups)}
    assert new == []


def test_joined_makes_a_dissimilar_group_a_new_person(calibration: Calibration) -> None:
    people_, groups, evidence = known(calibration)
    del people_[101]
    joining, new = joined(groups, people_, lambda group: people_, evidence, set())
    assert sorted(joining) == [100, 102]
    assert new == [groups[1].ids.tolist()]
    assert joined(groups, people_, lambda group: (), evidence, set())[0] == {}


def test_joined_never_joins_a_refused_person(calibration: Calibration) -> None:
    people_, groups, evidence = known(calibration)
    refused = {(int(groups[0].ids[1]), 100)}
    joining, new = joined(groups, people_, lambda group: people_, evidence, refused)
    assert 100 not in joining
    assert new == [groups[0].ids.tolist()]
