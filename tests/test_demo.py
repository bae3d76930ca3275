"""The demonstration: it draws, indexes, finds, and needs nothing from elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from face2vec.cli.main import main
from face2vec.demo import NAMES, TRIED_PHOTOS, Demo, demo, gallery_to_try
from face2vec.engine import Face2Vec
from face2vec.errors import SettingsError
from face2vec.samples.people import APART

PEOPLE = 8


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> None:
            raise AssertionError("the demonstration reached for the network")

        patch.setattr(socket, "create_connection", refuse)
        patch.setenv("FACE2VEC_CACHE", str(folder / "no cache"))
        return demo(folder, people=PEOPLE, seed=3)


def test_demo_finds_the_people_that_it_drew(shown: Demo) -> None:
    assert shown.photos == PEOPLE * 5 + 1
    assert shown.faces >= PEOPLE * 5
    assert len(shown.results) == PEOPLE
    assert shown.right >= PEOPLE - 1


def test_demo_leaves_a_gallery_that_can_be_searched(shown: Demo) -> None:
    with Face2Vec(shown.gallery) as engine:
        (found,) = engine.search(shown.gallery.parent / "photos" / "person-002" / "1.jpg", k=1)
    assert Path(found.matches[0].photo).parts[-2:] == ("person-002", "1.jpg")
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-4)


def test_demo_draws_queries_beside_their_matches(shown: Demo) -> None:
    picture = np.asarray(Image.open(shown.picture).convert("RGB"))
    query = np.asarray(shown.results[0].thumbnail(120))
    assert np.array_equal(picture[8:128, 8:128], query)


def test_gallery_to_try_has_sensible_groups_names_dates_and_questions(tmp_path: Path) -> None:
    place = gallery_to_try(tmp_path / "try")
    with Face2Vec(place) as engine:
        people = engine.people()
        owners = [
            {Path(face.photo).parent.name for face in engine.faces_of(person)} - {"groups"}
            for person in people
        ]
        assert len(people) == len(APART)
        assert all(len(drawn) == 1 for drawn in owners)
        assert len({name for drawn in owners for name in drawn}) == len(APART)
        assert min(len(person.faces) for person in people) >= TRIED_PHOTOS - 1
        assert {person.name for person in people} == {*NAMES, None}
        assert len(engine.photos(since="2023", until="2023")) > 30
        likely = [one for one in engine.suggest() if one.probability > 0.5]
        assert len(likely) >= 10
        assert engine.check() == []


def test_demo_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").touch()
    with pytest.raises(SettingsError, match="already contains files"):
        demo(tmp_path, people=1)


def test_demo_takes_a_folder_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "link" / "d", tmp_path / "real" / "in" / ".." / "up"):
        assert demo(folder, people=2).right == 2


def test_demo_command_prints_matches_and_where_to_look(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "d"), "--people", "2"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "of 2 queries found the right person first" in result.stderr
    assert (tmp_path / "d" / "matches.png").is_file()
    assert "rank  similarity  probability  photo" in result.stderr
