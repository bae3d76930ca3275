"""Selection of subjects from folders and galleries, and of the face in each photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.errors import SettingsError
from face2vec.lab.subjects import is_gallery, subjects_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people with three photos, one of them without a face; Solo has only one photo."""
    place = tmp_path_factory.mktemp("people")
    for number, person in enumerate(samples.people(5, seed=5)):
        for photo in range(3):
            person.photo(photo).save(place / f"P{number}" / f"{photo}.jpg")
    Image.linear_gradient("L").convert("RGB").save(place / "P0" / "2.jpg")
    samples.people(6, seed=5)[5].photo().save(place / "Solo" / "0.jpg")
    return place


def test_subjects_of_a_folder_respect_the_limits(folder: Path, tiny_model: Path) -> None:
    with Face2Vec(model=tiny_model) as engine:
        whole = subjects_of(folder, engine, people=10, photos=5)
        some = subjects_of(folder, engine, people=3, photos=2, seed=1)
        again = subjects_of(folder, engine, people=3, photos=2, seed=1)
        portraits = dict(whole.portraits(engine))
    assert whole.names == ("P0", "P1", "P2", "P3", "P4")
    assert np.bincount(whole.people).tolist() == [2, 3, 3, 3, 3]
    assert whole.failed == ((str(folder / "P0" / "2.jpg"), "no face was found"),)
    assert whole.without_face == 1
    assert len(some.names) == 3
    assert len(some.subjects) + some.without_face == 6
    assert [one.photo for one in again.subjects] == [one.photo for one in some.subjects]
    assert {one.photo for one in some.subjects} < {one.photo for one in whole.subjects}
    for number, portrait in portraits.items():
        face = whole.subjects[number].face
        assert portrait.area == pytest.approx(min(face.area, 65_536), rel=0.02)
        assert portrait.landmarks[0] == pytest.approx(
            np.subtract(face.landmarks[0], face.box[:2]) + portrait.box[:2], abs=1e-6
        )


def test_subjects_of_a_gallery_are_its_named_people(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(str(folder / "P1"), str(folder / "P2"))
        assert is_gallery(tmp_path / "g")
        with pytest.raises(SettingsError, match="0 people with a name"):
            subjects_of(tmp_path / "g", engine, people=10, photos=5)
        found = [engine.search(folder / name / "0.jpg", 6)[0].matches for name in ("P1", "P2")]
        ids = [
            [match.face.id for match in matches if Path(match.photo).parent.name == name]
            for matches, name in zip(found, ("P1", "P2"), strict=True)
        ]
        for name, faces in zip(("Ada", "Bea"), ids, strict=True):
            person = engine.this_person(None, *(face for face in faces if face is not None))
            engine.name(person, name)
        subjects = subjects_of(tmp_path / "g", engine, people=10, photos=5)
    assert subjects.names == ("Ada", "Bea")
    assert {(one.photo.parent.name, one.person) for one in subjects.subjects} == {
        ("P1", 0),
        ("P2", 1),
    }
    assert len(subjects.subjects) == 6
    assert not is_gallery(folder)


def test_too_few_people_are_refused(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes((folder / "P1" / "0.jpg").read_bytes())
    with (
        Face2Vec(model=tiny_model) as engine,
        pytest.raises(SettingsError, match="0 people have at least two photos"),
    ):
        subjects_of(tmp_path, engine, people=10, photos=5)
