"""Ways to group faces: each separates people who are far apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from face2vec import Face2Vec
from face2vec.calibration import fit
from face2vec.cli.main import main
from face2vec.errors import SettingsError
from face2vec.people import methods
from face2vec.people.clustering import Evidence, Faces
from face2vec.people.methods import grouped_by
from face2vec.types import METHODS, Method

PEOPLE, EACH = 20, 6


@pytest.fixture(scope="module")
def drawn() -> tuple[Faces, np.ndarray, Evidence, list[np.ndarray]]:
    """Faces of people who are far apart, their people, and the faces nearest to each."""
    rng = np.random.default_rng(0)
    count = PEOPLE * EACH
    centres = rng.standard_normal((PEOPLE, 24))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    people = rng.permutation(np.repeat(np.arange(PEOPLE), EACH))
    rows = centres[people] + 0.04 * rng.standard_normal((count, 24))
    embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    faces = Faces(7 + 3 * np.arange(count), embeddings, np.arange(count))
    similarities = embeddings @ embeddings.T
    pairs = np.triu_indices(count, 1)
    same = people[pairs[0]] == people[pairs[1]]
    genuine, impostor = similarities[pairs][same], np.sort(similarities[pairs][~same])[::-1]
    calibration = fit(genuine, impostor, model="m", weights="w", data="drawn", people=PEOPLE)
    near = [faces.ids[row[:33]] for row in np.argsort(-similarities, axis=1)]
    return faces, people, Evidence(calibration, 10), near


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("similarity", [0.8, None])
def test_method_separates_dissimilar_people(
    drawn: tuple[Faces, np.ndarray, Evidence, list[np.ndarray]],
    method: Method,
    similarity: float | None,
) -> None:
    faces, people, evidence, near = drawn
    count = PEOPLE if method == "k-means" else None
    groups = grouped_by(method, faces, evidence, near, similarity=similarity, people=count)
    found = sorted(sorted(ids.tolist()) for ids in groups)
    assert found == sorted(faces.ids[people == person].tolist() for person in range(PEOPLE))


def test_even_similarity_is_where_the_log_odds_are_zero(
    drawn: tuple[Faces, np.ndarray, Evidence, list[np.ndarray]],
) -> None:
    evidence = drawn[2]
    even = evidence.even_similarity
    assert 0 < even < 1
    beside = np.array([[1, 0], [even - 1e-3, 0], [even + 1e-3, 0]], np.float64)
    beside[1:, 1] = np.sqrt(1 - beside[1:, 0] ** 2)
    three = Faces(np.arange(3), beside.astype(np.float32), np.arange(3))
    odds = evidence.between(three, three)[0]
    assert odds[1] <= 0 <= odds[2]
    assert Evidence(evidence._calibration, 10**9).even_similarity == 1


def test_method_that_does_not_suit_is_refused(
    drawn: tuple[Faces, np.ndarray, Evidence, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, _, evidence, near = drawn
    with pytest.raises(SettingsError, match="unknown method 'spectral'; choose one of average, "):
        grouped_by("spectral", faces, evidence, near)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="k-means needs the number of people"):
        grouped_by("k-means", faces, evidence, near)
    with pytest.raises(SettingsError, match="no other method takes it"):
        grouped_by("dbscan", faces, evidence, near, people=3)
    with pytest.raises(SettingsError, match="people must be from 1 to the 120 faces, not 121"):
        grouped_by("k-means", faces, evidence, near, people=121)
    monkeypatch.setattr(methods, "MOST_PAIRED", 100)
    for method in ("hdbscan", "agglomerative"):
        with pytest.raises(SettingsError, match=f"{method} stores the distances of all pairs"):
            grouped_by(method, faces, evidence, near)  # type: ignore[arg-type]


def test_people_command_groups_by_the_method_asked_for(faces_folder: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(faces_folder)
        faces = engine.info()["faces"]
    command = ["people", str(tmp_path / "g"), "--method", "k-means"]
    done = CliRunner().invoke(main, [*command, "--count", "1"])
    assert done.exit_code == 0
    assert f"{faces} faces  unnamed" in done.stdout
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 3
    assert "k-means needs the number of people" in done.stderr
