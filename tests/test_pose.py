"""Layouts of landmarks, and the search for them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.errors import SettingsError
from face2vec.gallery.reader import Snapshot
from face2vec.pose import GENERIC_HEAD, head_angles, pose_distances, pose_vectors
from face2vec.runtime.select import Runtime

FRONT = np.array([[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]])
LEFT = FRONT + np.array([[0, 0], [-6, 0], [-14, 0], [0, 0], [-4, 0]])
SIZE = (100, 120)


def test_pose_does_not_depend_on_place_and_size() -> None:
    moved = 3.5 * FRONT + np.array([200, -40])
    one, other = pose_vectors([FRONT, moved], [SIZE, (900, 900)])
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert pose_distances(one, other[None])[0] == pytest.approx(0, abs=1e-12)


def test_pose_depends_on_turns_of_every_kind() -> None:
    angle = math.radians(20)
    rolled = FRONT @ np.array([[math.cos(angle), math.sin(angle)],
                               [-math.sin(angle), math.cos(angle)]])  # fmt: skip
    front, left, roll = pose_vectors([FRONT, LEFT, rolled], [SIZE] * 3)
    assert pose_distances(front, left[None])[0] > 0.1
    # A turned point has moved by 2·sin(angle / 2) of its distance from the middle.
    assert pose_distances(front, roll[None])[0] == pytest.approx(2 * math.sin(angle / 2))


def test_framing_is_the_place_in_the_photo() -> None:
    twice, beside = 2 * FRONT, FRONT + np.array([10, 0])
    one, other, third = pose_vectors([FRONT, twice, beside], [SIZE, (200, 240), SIZE], "framing")
    np.testing.assert_allclose(one, other)
    assert pose_distances(one, third[None])[0] == pytest.approx(0.1)


def test_pose_vectors_refuses_an_unknown_kind() -> None:
    with pytest.raises(SettingsError, match="by must be one of pose, framing, not 'mood'"):
        pose_vectors([FRONT], [SIZE], "mood")  # type: ignore[arg-type]


@pytest.fixture
def gallery(faces_folder: Path, tiny_model: Path, astronaut: Image.Image, tmp_path: Path) -> Path:
    """Two people, and one of them tilted."""
    tilted = tmp_path / "tilted.png"
    astronaut.rotate(15, Image.Resampling.BICUBIC).save(tilted)
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(faces_folder, tilted)
    return tmp_path / "g"


def names(found: object) -> list[str]:
    return [Path(match.photo).name for match in found.matches]  # type: ignore[attr-defined]


def test_search_pose_finds_faces_turned_the_same_way(gallery: Path, hopper: Image.Image) -> None:
    with Face2Vec(gallery) as engine:
        upright = engine.search_pose(hopper, k=9)[0]
        tilted = engine.search_pose(hopper.rotate(15, Image.Resampling.BICUBIC), k=9)[0]
    assert names(tilted)[0] == "tilted.png"
    assert names(upright)[-1] == "tilted.png"
    apart = [match.pose_distance for match in upright.matches]
    assert apart == sorted(apart)
    assert [match.rank for match in upright.matches] == list(range(1, len(apart) + 1))
    assert upright.matches[0].pose_distance < 0.02
    assert upright.matches[0].similarity > 0.9


def test_search_pose_by_framing_tells_where_in_the_photo_faces_are(
    gallery: Path, astronaut: Image.Image
) -> None:
    with Face2Vec(gallery) as engine:
        mirrored = Image.Image.transpose(astronaut, Image.Transpose.FLIP_LEFT_RIGHT)
        (found,) = engine.search_pose(mirrored, k=3, by="framing")
    assert names(found)[0] == "astronaut-mirrored.png"


def test_search_pose_reads_only_the_landmarks_that_changed(
    gallery: Path, faces_folder: Path, hopper: Image.Image, tmp_path: Path,
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked: list[object] = []
    landmarks = Snapshot.landmarks

    def told(now: Snapshot, ids: list[int] | None = None) -> object:
        asked.append(ids)
        return landmarks(now, ids)

    monkeypatch.setattr(Snapshot, "landmarks", told)
    with Face2Vec(gallery) as engine:
        engine.search_pose(hopper, k=9)
        engine.search_pose(hopper, k=9)
        hopper.rotate(5).save(tmp_path / "new.png")
        engine.add(tmp_path / "new.png")
        engine.search_pose(hopper, k=9)
        assert engine.remove(tmp_path / "new.png")
        after = engine.search_pose(hopper, k=9)[0].matches
    whole, *parts = asked
    assert whole is None
    assert [len(part) for part in parts] == [1, 0]  # type: ignore[arg-type]
    with Face2Vec(gallery) as engine:
        fresh = engine.search_pose(hopper, k=9)[0].matches
    assert [(m.photo, m.pose_distance) for m in after] == [
        (m.photo, m.pose_distance) for m in fresh
    ]


def test_search_pose_of_one_person_only(gallery: Path, hopper: Image.Image) -> None:
    with Face2Vec(gallery) as engine:
        stored = engine.search_pose(hopper, k=9)[0].matches
        ids = [match.face.id for match in stored]
        person = engine.this_person(None, *ids[2:4])
        (by_person,) = engine.search_pose(hopper, k=9, person=person)
        (by_likeness,) = engine.search_pose(hopper, k=9, min_similarity=0.9)
        itself = stored[0].face
        (others,) = engine.search_pose(itself, k=9)
    assert [match.face.id for match in by_person.matches] == ids[2:4]
    assert [match.face.id for match in by_likeness.matches] == [
        match.face.id for match in stored if match.similarity >= 0.9
    ]
    assert 0 < len(by_likeness.matches) < len(stored)
    assert itself.id not in [match.face.id for match in others.matches]
    assert len(others.matches) == len(stored) - 1


def test_search_pose_refuses_queries_without_landmarks(gallery: Path, hopper: Image.Image) -> None:
    with Face2Vec(gallery) as engine:
        face = engine.encode(hopper)[0]
        with pytest.raises(SettingsError, match="with a photo, or with a face of the gallery"):
            engine.search_pose(face)
        with pytest.raises(SettingsError, match="k must be at least 1"):
            engine.search_pose(hopper, k=0)


def test_matches_by_pose_have_their_distance(gallery: Path, hopper: Image.Image) -> None:
    with Face2Vec(gallery) as engine:
        matches = engine.search_pose(hopper, k=2)[0].matches
    assert matches.to_text().splitlines()[0] == "rank  pose distance  similarity  photo"
    assert matches.to_dicts()[0]["pose_distance"] == matches[0].pose_distance
    assert matches.to_dataframe()["pose_distance"].tolist() == [m.pose_distance for m in matches]


def search(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["search", *map(str, words)])


def test_search_command_finds_pose_vectors(gallery: Path, faces_folder: Path) -> None:
    photo = faces_folder / "hopper.jpg"
    with Face2Vec(gallery) as engine:
        expected = engine.search_pose(photo, k=3)[0].matches
        engine.name(engine.this_person(None, expected[1].face.id), "Ada")
    done = search(gallery, photo, "--by", "pose", "-k", "3")
    assert done.exit_code == 0
    assert expected.to_text() in done.stdout
    only = search(gallery, photo, "--by", "pose", "--person", "Ada", "--json")
    (match,) = json.loads(only.stdout)["matches"]
    assert match["face_id"] == expected[1].face.id


@pytest.mark.parametrize("words", [["--person", "Ada"], ["--by", "pose", "--one-person"]])
def test_search_command_refuses_conflicting_options(gallery: Path, words: list[str]) -> None:
    assert search(gallery, "who.jpg", *words).exit_code == 2


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (35, 0, 0), (-50, 0, 0), (0, 20, 0), (20, -15, 160)]
)
def test_head_angles_are_those_of_a_turned_head(yaw: float, pitch: float, roll: float) -> None:
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    seen = 70 * GENERIC_HEAD @ (about_z @ about_x @ about_y).T + (300, 200, 0)
    (angles,) = head_angles(seen[None, :, :2])
    np.testing.assert_allclose(angles, (yaw, pitch, roll), atol=1e-6)


def test_head_angles_of_portraits_are_small(astronaut: Image.Image) -> None:
    face = Mtcnn(DetectorSettings(), Runtime("onnxruntime")).detect([np.asarray(astronaut)])[0][0]
    assert np.abs(head_angles([face.landmarks])).max() < 25
