"""Cohorts: what the faces of a gallery say about its strangers, and how many mates they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_embeddings import DIMENSION, calibrated, drawn, strangers, unit

from face2vec import Face2Vec
from face2vec.calibration import Calibration
from face2vec.cohort import (
    FEWEST_MATES,
    FEWEST_PEOPLE,
    ODDS_OF_A_COPY,
    PER_LOOK_ALIKE,
    cohort_rows,
    expected_mates,
)
from face2vec.errors import SettingsError
from face2vec.gallery.gallery import Gallery

# (share of the embedding, decay) of groups of people. Strangers are more alike from group to group,
# and the highest of their similarities stay as far above the middle ones.
GROUPS = ((0.2, 0.3), (0.35, 0.65), (0.5, 1.0))


def group_of(group: int, people: int, photos: int, seed: int) -> np.ndarray:
    """Faces (people, photos, d) of one of the groups."""
    shared, decay = GROUPS[group]
    return drawn(people, photos, shared, group, seed, decay)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Fitted on people of one group, and without knowledge of any other."""
    return calibrated(None, GROUPS[0][1])


def counted(calibration: Calibration, faces: np.ndarray, far: float) -> float:
    """Share of the pairs of different people that are accepted at a stated rate, over that rate."""
    rows, columns = np.triu_indices(len(faces), 1)
    crowded = calibration.crowded(faces)
    crowding = (crowded[rows] + crowded[columns]) / 2
    return float((calibration.far(strangers(faces), crowding) <= far).mean() / far)


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_false_accept_rates_hold_in_galleries_of_three_densities(
    calibration: Calibration, group: int
) -> None:
    gallery = group_of(group, 400, 3, 20 + group).reshape(-1, DIMENSION)
    fresh = group_of(group, 1500, 1, 30 + group)[:, 0]
    order = np.random.default_rng(0).permutation(len(gallery))
    here = calibration.among(gallery[order])
    assert here.cohort is not None
    assert 0.4 <= counted(here, fresh, 1e-3) <= 2
    if group:
        assert counted(calibration, fresh, 1e-3) > 20


def test_one_threshold_stays_for_a_gallery_like_the_photos_of_the_calibration(
    calibration: Calibration,
) -> None:
    gallery = group_of(0, 900, 1, 40)[:, 0]
    here = calibration.among(gallery)
    assert here.threshold(1e-3) == calibration.threshold(1e-3)
    assert here.crowded(gallery).mean() < 0.02
    assert (here.crowded(gallery) >= calibration.crowded(gallery)).all()


def test_a_small_gallery_of_strangers_is_no_crowd(calibration: Calibration) -> None:
    gallery = group_of(0, 34, 1, 44)[:, 0]
    here = calibration.among(gallery)
    assert here.cohort is not None
    assert len(here.cohort.faces) <= 34
    assert here.crowded(group_of(0, 500, 1, 45)[:, 0]).mean() < 0.02


def test_a_face_in_a_crowd_within_a_gallery_is_crowded(calibration: Calibration) -> None:
    sparse, dense = group_of(0, 700, 1, 46)[:, 0], group_of(2, 300, 1, 47)[:, 0]
    gallery = np.random.default_rng(0).permutation(np.concatenate([sparse, dense]))
    here = calibration.among(gallery)
    of_dense = here.crowded(group_of(2, 200, 1, 48)[:, 0]).mean()
    of_sparse = here.crowded(group_of(0, 200, 1, 49)[:, 0]).mean()
    assert of_dense > of_sparse + 0.05


def test_a_family_is_no_cohort(calibration: Calibration) -> None:
    family = group_of(0, 5, 200, 41).reshape(-1, DIMENSION)
    here = calibration.among(np.random.default_rng(0).permutation(family))
    assert here.cohort is None
    assert not here.is_crowded
    assert cohort_rows(family[: FEWEST_PEOPLE - 1], np.zeros(FEWEST_PEOPLE - 1), 0.9, 0.2)[1] == 0


@pytest.mark.parametrize("photos", [20, 40, 80])
@pytest.mark.parametrize("others", [0, 3])
def test_photos_of_one_person_are_no_cohort(
    calibration: Calibration, photos: int, others: int
) -> None:
    often, seldom = group_of(0, 2, photos, 44)
    faces = np.concatenate([often, seldom[:others]])
    assert calibration.among(np.random.default_rng(0).permutation(faces)).cohort is None


def test_copies_of_one_photo_are_no_cohort(calibration: Calibration) -> None:
    copies = np.tile(group_of(0, 1, 1, 45)[0], (40, 1))
    assert calibration.among(copies).cohort is None


def test_a_cohort_of_more_people_counts_more(calibration: Calibration) -> None:
    weights = []
    for people in (8, 15, 30):
        faces = group_of(0, people, 4, 41).reshape(-1, DIMENSION)
        here = calibration.among(np.random.default_rng(0).permutation(faces))
        weights.append(0.0 if here.cohort is None else here.cohort.weight)
    assert weights[0] == 0
    assert 0.2 <= weights[1] <= 0.7
    assert weights[2] == 1


def test_a_person_with_many_photos_has_few_in_the_cohort(calibration: Calibration) -> None:
    others = group_of(0, 300, 1, 42)[:, 0]
    often = group_of(0, 1, 50, 43)[0]
    faces = np.concatenate([often, others])
    rows, _ = cohort_rows(faces, np.zeros(len(faces)), calibration.threshold(1e-3), 0.2)
    assert rows is not None
    assert (rows < 50).sum() == PER_LOOK_ALIKE
    assert len(rows) > 290


def test_cohort_of_another_dimension_is_like_single_and_many(calibration: Calibration) -> None:
    gallery = group_of(1, 400, 1, 44)[:, 0]
    here = calibration.among(gallery)
    np.testing.assert_allclose(here.crowded(gallery[3]), here.crowded(gallery)[3], atol=1e-6)
    assert here.crowded(gallery[3]).shape == ()


def blurred(faces: np.ndarray, noise: float) -> np.ndarray:
    """Photos (people, photos, d) of the same people, less like each other."""
    spread = np.random.default_rng(9).standard_normal(faces.shape) * noise / np.sqrt(DIMENSION)
    return unit(faces + spread)


def stated_error(calibration: Calibration, faces: np.ndarray, mates: float) -> float:
    """Expected calibration error of the ten best matches of each of the faces (people, photos, d).

    Guo et al., On calibration of modern neural networks, 2017, section 2.
    """
    whose = np.repeat(np.arange(len(faces)), faces.shape[1])
    every = faces.reshape(-1, DIMENSION)
    similar = every @ every.T
    np.fill_diagonal(similar, -2)
    best = np.argsort(-similar, axis=1)[:, :10]
    crowded = calibration.crowded(every)
    crowding = (crowded[:, None] + crowded[best]) / 2
    cosines = np.take_along_axis(similar, best, axis=1).astype(float)
    stated = calibration.probability(cosines, mates / len(every), crowding).ravel()
    right = (whose[best] == whose[:, None]).ravel()
    places = np.minimum((stated * 15).astype(int), 14)
    apart = [abs((stated - right)[places == place].sum()) for place in range(15)]
    return sum(apart) / len(stated)


@pytest.mark.parametrize(("noise", "error"), [(0.3, 0.01), (0.45, 0.03), (0.6, 0.08)])
def test_probabilities_hold_where_photos_of_one_person_are_harder(
    calibration: Calibration, noise: float, error: float
) -> None:
    easy = group_of(0, 300, 4, 52)
    faces = blurred(easy, noise)
    here = calibration.among(np.random.default_rng(0).permutation(faces.reshape(-1, DIMENSION)))
    assert here.cohort is not None
    similar = [np.median(np.vecdot(each[:, 0], each[:, 1])) for each in (easy, faces)]
    assert here.cohort.harder == pytest.approx(similar[0] - similar[1], abs=0.025)
    as_easy = replace(here, cohort=replace(here.cohort, harder=0.0))
    assert stated_error(here, faces, 3) <= min(error, stated_error(as_easy, faces, 3) / 3)


@pytest.mark.parametrize("photos", [1, 4])
def test_easy_photos_are_not_taken_for_harder_ones(calibration: Calibration, photos: int) -> None:
    faces = group_of(0, 1200 // photos, photos, 53).reshape(-1, DIMENSION)
    here = calibration.among(np.random.default_rng(0).permutation(faces))
    assert here.cohort is not None
    assert here.cohort.harder <= 0.025  # a step of those that are tried


def test_harder_photos_never_lower_a_probability(calibration: Calibration) -> None:
    here = calibration.among(group_of(0, 300, 1, 54)[:, 0])
    assert here.cohort is not None
    similarities = np.linspace(-1, 1, 401)
    easy = here.log_odds(similarities)
    for harder in (0.05, 0.15, 0.25):
        found = replace(here, cohort=replace(here.cohort, harder=harder)).log_odds(similarities)
        assert (found >= easy - 1e-9).all()
        assert (np.diff(found) >= 0).all()
        assert found.max() > easy[200]
        assert (found > easy + 0.5).any()


def test_cohort_is_not_stored(calibration: Calibration) -> None:
    here = calibration.among(group_of(1, 400, 1, 45)[:, 0])
    assert here.cohort is not None
    again = Calibration.from_json(here.to_json())
    assert again == calibration
    assert again.cohort is None
    assert "cohort" not in json.loads(here.to_json())


def mates_of(faces: np.ndarray, calibration: Calibration) -> float:
    """The estimate for a gallery of faces (n, d), asked with all of them."""
    similar = faces @ faces.T
    np.fill_diagonal(similar, -2)
    ratios = calibration.log_odds(np.sort(similar, axis=1)[:, :-51:-1].astype(float))
    return expected_mates(ratios, len(faces), float(calibration.log_odds(1.0)))


@pytest.mark.parametrize("mates", [1, 3, 8])
def test_expected_mates_are_those_of_drawn_galleries(calibration: Calibration, mates: int) -> None:
    faces = group_of(0, 300, mates + 1, 50).reshape(-1, DIMENSION)
    assert mates_of(faces, calibration) == pytest.approx(mates, rel=0.15)


def test_expected_mates_are_below_one_where_most_have_none(calibration: Calibration) -> None:
    alone = group_of(0, 500, 1, 51)[:, 0]
    few = np.concatenate([alone, group_of(0, 50, 2, 52).reshape(-1, DIMENSION)])
    assert mates_of(few, calibration) == pytest.approx(100 / 600, rel=0.4)
    assert mates_of(alone, calibration) <= 0.05


def test_expected_mates_leave_odds_to_a_copy_of_a_photo() -> None:
    nobody = np.full((1, 50), -np.inf)
    assert expected_mates(nobody, 100, 20.0) == FEWEST_MATES
    highest = np.log(1e6)
    few = expected_mates(nobody, 20_000, highest)
    assert 1e6 * few / 20_000 == pytest.approx(ODDS_OF_A_COPY)
    assert expected_mates(nobody, 10_000_000, highest) == 1.0


# In a gallery


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "drawn.json"
    facts = {"sha256": "ab" * 32, "dimension": DIMENSION, "input_size": 112}
    path.write_text(json.dumps(facts | {"alignment": "landmarks", "template": "face2vec"}))
    return path


def imported(engine: Face2Vec, faces: np.ndarray, folder: Path, model: Path, name: str) -> None:
    file = folder / f"{name}.npz"
    photos = np.array([f"{name}-{n}" for n in range(len(faces))])
    np.savez(file, photo=photos, embedding=faces)
    engine.import_faces(file, model=model)


@pytest.fixture
def engine(tmp_path: Path, model: Path, calibration: Calibration) -> Iterator[Face2Vec]:
    """A gallery of 200 people of a dense group, three photos each."""
    with Face2Vec(tmp_path / "gallery") as engine:
        faces = group_of(1, 200, 3, 60).reshape(-1, DIMENSION)
        imported(engine, faces, tmp_path, model, "first")
        engine.calibrate(replace(calibration, weights="ab" * 32))
        yield engine


def test_search_states_the_false_matches_of_this_gallery(engine: Face2Vec) -> None:
    """Of people who are not in the gallery, as many faces are that similar as is stated."""
    others = group_of(1, 300, 1, 61)[:, 0]
    found = engine.search(others, k=20)
    alone = engine.calibration
    states = np.array([[one.false_matches for one in result.matches] for result in found])
    blind = np.array([[one.similarity for one in result.matches] for result in found])
    blind = 599 * alone.far(blind)
    for stated in (1.0, 5.0):
        assert 0.4 <= (states <= stated).sum(axis=1).mean() / stated <= 2
        assert (blind <= stated).sum(axis=1).mean() / stated > 2.5


def test_verify_with_a_gallery_knows_how_alike_strangers_are_there(engine: Face2Vec) -> None:
    others = group_of(1, 400, 1, 64)[:, 0]
    first, second = others[:200], others[200:]
    threshold = engine.calibration.threshold(1e-2)
    found = engine.verify(first, second, far=1e-2)
    assert (found.threshold > threshold + 0.05).all()
    rows, columns = np.triu_indices(400, 1)
    assert 0.4 <= engine.verify(others[rows], others[columns], far=1e-2).same.mean() / 1e-2 <= 2
    assert (strangers(others) >= threshold).mean() / 1e-2 > 5
    (matches,) = engine.search(first[:1], k=1)
    face = matches.matches[0]
    with engine.snapshot() as now:
        stored = now.embeddings([face.face.id])[0]
    one = engine.verify(first[0], stored)
    odds = one.probability / (1 - one.probability)
    prior = matches.mates / 600
    assert face.probability == pytest.approx(odds * prior / (odds * prior + 1 - prior), rel=1e-3)


def test_search_estimates_mates_and_takes_them(engine: Face2Vec) -> None:
    query = group_of(1, 200, 4, 60)[7, 0]
    (estimated,) = engine.search(query, k=5)
    (given,) = engine.search(query, k=5, mates=0.01)
    assert estimated.mates == pytest.approx(2, rel=0.3)
    assert given.mates == 0.01
    assert json.loads(estimated.to_json())["mates"] == estimated.mates
    pairs = [(a.probability, b.probability)
             for a, b in zip(estimated.matches, given.matches, strict=True)]  # fmt: skip
    for more, fewer in pairs:
        assert more is not None
        assert fewer is not None
        odds = np.log(more / (1 - more)) - np.log(fewer / (1 - fewer))
        prior = estimated.mates / 600
        wanted = np.log(prior / (1 - prior)) - np.log(0.01 / 600 / (1 - 0.01 / 600))
        assert odds == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("wrong", [0, -1, "2", float("nan"), 1e9])
def test_search_refuses_wrong_mates(engine: Face2Vec, wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"mates must be a number from 0\.001 to 1e\+06"):
        engine.search(np.eye(1, DIMENSION, dtype=np.float32)[0], mates=wrong)  # type: ignore[arg-type]


def test_surroundings_are_looked_at_again_when_faces_came_or_went(
    engine: Face2Vec, tmp_path: Path, model: Path
) -> None:
    def seen() -> object:
        engine.search(np.eye(1, DIMENSION, dtype=np.float32)[0])
        assert engine._session._surroundings is not None
        return engine._session._surroundings.calibration

    first = seen()
    assert seen() is first
    imported(engine, group_of(1, 5, 1, 62)[:, 0], tmp_path, model, "few")
    assert seen() is first
    imported(engine, group_of(1, 100, 1, 63)[:, 0], tmp_path, model, "many")
    second = seen()
    assert second is not first
    (found,) = engine.search(np.eye(1, DIMENSION, dtype=np.float32)[0], k=1)
    assert engine.remove(found.matches[0].photo)
    third = seen()
    assert third is not second


def test_the_same_faces_are_drawn_each_time(engine: Face2Vec, tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "gallery") as gallery, gallery.read() as now:
        some = now.some_ids(100)
        assert len(set(some.tolist())) == 100
        assert set(some.tolist()) <= set(range(1, 601))
        np.testing.assert_array_equal(some, now.some_ids(100))
        assert len(now.some_ids(10_000)) == 600
        assert abs(some.mean() - 300) < 60


def look_alikes(faces: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Two faces (2, d), three times as likely one person as two if everybody has one mate."""
    here = calibration.among(faces)
    apart = np.random.default_rng(62).standard_normal(DIMENSION)
    apart = unit(apart - (apart @ faces[0]) * faces[0])
    similar = np.linspace(1, 0, 1000)[:, None]
    others = (similar * faces[0] + np.sqrt(1 - similar**2) * apart).astype(np.float32)
    crowding = (here.crowded(faces[0]) + here.crowded(others)) / 2
    odds = here.log_odds(similar[:, 0], 1 / len(faces), crowding)
    return np.stack([faces[0], others[np.argmin(abs(odds - np.log(3)))]])


@pytest.mark.parametrize(("photos", "grouped"), [(1, False), (3, True)])
def test_find_people_asks_more_where_people_have_one_photo(
    tmp_path: Path, model: Path, calibration: Calibration, photos: int, grouped: bool
) -> None:
    faces = group_of(1, 600 // photos, photos, 61).reshape(-1, DIMENSION)
    both = look_alikes(np.concatenate([faces[photos:], faces[:photos]])[::-1], calibration)
    gallery = np.concatenate([both, faces[photos:]])
    with Face2Vec(tmp_path / "gallery") as engine:
        imported(engine, gallery, tmp_path, model, "faces")
        engine.calibrate(replace(calibration, weights="ab" * 32))
        engine.find_people()
        people = [
            {Path(face.photo).name for face in engine.faces_of(one)} for one in engine.people()
        ]
    assert any({"faces-0", "faces-1"} <= one for one in people) == grouped
