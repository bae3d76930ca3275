"""`robustness`: degraded photos are encoded again and compared with clean photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import all_pairs
from face2vec.lab.catalogue import chosen
from face2vec.lab.robustness import SHOWABLE, Robustness, robustness
from face2vec.lab.subjects import Subjects, subjects_of

FAR = 0.1
KINDS = chosen(["mask", "size", "jpeg", "right-hidden"])


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Face2Vec:
    return Face2Vec(model=tiny_model)


@pytest.fixture(scope="module")
def subjects(engine: Face2Vec, tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    folder = tmp_path_factory.mktemp("people")
    for number, person in enumerate(samples.people(4, seed=8)):
        for photo in range(2):
            person.photo(photo).save(folder / f"P{number}" / f"{photo}.jpg")
    return subjects_of(folder, engine, people=4, photos=2)


@pytest.fixture(scope="module")
def measured(subjects: Subjects, engine: Face2Vec) -> Robustness:
    return robustness(subjects, engine, KINDS, far=FAR, seed=3)


def encoded(engine: Face2Vec, image: np.ndarray) -> np.ndarray | None:
    """Embedding of the only face of an image."""
    faces = engine.encode(image)
    assert len(faces) < 2
    return faces[0].embedding if faces else None


@pytest.mark.parametrize(("name", "place"), [("jpeg", 5), ("mask", 1), ("right-hidden", 2)])
def test_step_equals_encoding_its_images_one_by_one(
    name: str, place: int, measured: Robustness, subjects: Subjects, engine: Face2Vec
) -> None:
    portraits = dict(subjects.portraits(engine))
    clean = [encoded(engine, portrait.image) for portrait in portraits.values()]
    series = next(one for one in measured.series if one.degradation.name == name)
    strength = series.degradation.steps[place]
    queries = [
        encoded(engine, series.degradation.image(portrait, strength, 3, number))
        for number, portrait in portraits.items()
    ]
    pairs = all_pairs(np.stack([one for one in clean if one is not None]), subjects.people)
    assert (
        pairs.impostor[2] < measured.threshold < pairs.impostor[1]
    )  # two of 24 are 0.083, at most 0.1
    genuine, impostor, first = [], [], []
    for i, query in enumerate(queries):
        similar = {
            j: float(query @ one) if query is not None else -2.0
            for j, one in enumerate(clean)
            if j != i and one is not None
        }
        same = {j for j in similar if subjects.people[i] == subjects.people[j]}
        genuine += [similar[j] >= measured.threshold for j in same]
        impostor += [
            similar[j] >= measured.threshold for j in similar if j not in same and query is not None
        ]
        first.append(query is not None and max(similar, key=similar.__getitem__) in same)
    step = series.steps[place]
    assert step.tar.value == pytest.approx(np.mean(genuine))
    assert step.recall.value == pytest.approx(np.mean(first))
    assert step.without_face == pytest.approx(sum(one is None for one in queries) / len(queries))
    if impostor:
        assert step.far.value == pytest.approx(np.mean(impostor))


def test_clean_figures_equal_an_evaluation(measured: Robustness) -> None:
    assert (measured.photos, measured.people, measured.impostor_pairs) == (8, 4, 24)
    assert measured.clean.far.value == pytest.approx(2 / 24)
    assert measured.clean.kept == (1, 1, 1)
    assert measured.clean.anew.tar == measured.clean.tar.value
    assert measured.clean.anew.threshold < measured.threshold


def test_smaller_faces_are_unchanged(measured: Robustness, subjects: Subjects) -> None:
    (size,) = (one for one in measured.series if one.degradation.name == "size")
    areas = np.array([subject.face.area for subject in subjects.subjects])
    assert [step.unchanged for step in size.steps] == [
        pytest.approx(np.mean(areas <= area)) for area in size.degradation.steps
    ]
    assert size.steps[0].tar == measured.clean.tar


def test_examples_show_one_photo_at_every_step(
    measured: Robustness, subjects: Subjects, engine: Face2Vec
) -> None:
    portrait = dict(subjects.portraits(engine))[0]
    np.testing.assert_array_equal(measured.example.image, portrait.image)
    for series in measured.series:
        for example, strength in zip(series.examples, series.degradation.steps, strict=True):
            expected = series.degradation.image(portrait, strength, 3, 0)
            np.testing.assert_array_equal(example.image, expected)
    one, other = (encoded(engine, p.image) for _, p in list(subjects.portraits(engine))[:2])
    assert one is not None
    assert other is not None
    assert measured.example.similarity == pytest.approx(float(one @ other), abs=1e-5)


def test_missing_photos_are_left_out(subjects: Subjects, engine: Face2Vec) -> None:
    lost = [one._replace(photo=one.photo.with_name("gone.jpg")) for one in subjects.subjects[:1]]
    some = Subjects((*lost, *subjects.subjects[1:]), subjects.names)
    measured = robustness(some, engine, (), far=FAR)
    assert (measured.photos, measured.people, measured.without_face) == (7, 4, 1)
    assert measured.failed == ((str(lost[0].photo), "missing"),)
    none = Subjects(tuple(lost * 4), subjects.names)
    with pytest.raises(SettingsError, match="fewer than two people"):
        robustness(none, engine, ())


def test_another_face_does_not_replace_an_undetected_face(engine: Face2Vec, tmp_path: Path) -> None:
    """A photo of two people; the face at the centre is completely covered."""
    one, other = (person.photo(0).image for person in samples.people(2, seed=8))
    height = max(len(one), len(other))
    wide = [np.pad(i, ((0, height - len(i)), (0, 0), (0, 0)), "edge") for i in (one, other)]
    for name, images in (("A", wide), ("B", wide[::-1])):
        (tmp_path / name).mkdir()
        for number in range(2):
            photo = Image.fromarray(np.concatenate(images, axis=1))
            photo.save(tmp_path / name / f"{number}.png")
    subjects = subjects_of(tmp_path, engine, people=2, photos=2)
    (hidden,) = chosen(["right-hidden"])
    measured = robustness(subjects, engine, [hidden], far=0.5)
    hidden_step = measured.series[0].steps[-1]
    assert hidden_step.without_face == pytest.approx(1)


def test_examples_begin_with_a_photo_that_is_accepted_while_it_is_clean(
    subjects: Subjects, engine: Face2Vec, measured: Robustness, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [encoded(engine, portrait.image) for _, portrait in subjects.portraits(engine)]
    embeddings = np.array([one for one in found if one is not None])
    assert len(embeddings) == len(found)
    alike = [
        float(embeddings[n] @ next(embeddings[m] for m in range(len(found))
                                   if m != n and subjects.people[m] == subjects.people[n]))
        for n in range(SHOWABLE)
    ]  # fmt: skip
    second = sorted(alike)[-1]
    monkeypatch.setattr("face2vec.lab.robustness.threshold_for", lambda *_: second - 1e-4)
    again = robustness(subjects, engine, [series.degradation for series in measured.series][:1])
    assert again.example.similarity == pytest.approx(second, abs=1e-5)
    portrait = dict(subjects.portraits(engine))[alike.index(second)]
    np.testing.assert_array_equal(again.example.image, portrait.image)
