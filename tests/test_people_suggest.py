"""Suggestions, read and compared block by block, are those of all pairs compared at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from drawn_embeddings import DIMENSION, SHARED, calibrated, drawn
from helpers import fake_fingerprint

from face2vec import Face2Vec
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.index.sync import GalleryIndex
from face2vec.people import suggest
from face2vec.people.clustering import NEIGHBOURS, Evidence, Faces
from face2vec.people.suggest import LEAST, suggestions
from face2vec.types import Face, Suggestion

CALIBRATION = calibrated(None)
PEOPLE, PHOTOS, MATES = 50, 6, 4.0
DOUBTFUL = 7
"""Each so many faces, one is hardly sure to be a face."""


def entries() -> Iterator[Entry]:
    rng = np.random.default_rng(2)
    embeddings = drawn(PEOPLE, PHOTOS, SHARED[1], 0, seed=1).reshape(-1, DIMENSION)
    points = ((1.0, 1.0),) * 5
    for number in range(0, len(embeddings), 2):  # two faces of one person in each photo
        faces = tuple(
            Face(
                (0.0, 0.0, 9.0, 9.0),
                points,
                0.5 if (number + place) % DOUBTFUL == 0 else 1.0,
                embeddings[number + place],
                quality=None if (number + place) % 5 == 0 else round(float(rng.random()), 1),
            )
            for place in range(2)
        )
        sha256 = number.to_bytes(32, "big")
        yield Entry("/made/up", f"{number}.jpg", 1, 1, sha256, 9, 9, INDEXED, faces=faces)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face2Vec]:
    """A gallery of people of 1 to 6 faces, some with a name or hidden, and of lone faces."""
    folder = tmp_path_factory.mktemp("gallery")
    Gallery.create(folder, fake_fingerprint(DIMENSION)).close()
    with Face2Vec(folder) as engine:
        with engine._session.write() as writer:
            writer.record(entries())
            engine._session.index().save()
            faces = np.arange(1, PEOPLE * PHOTOS + 1).reshape(PEOPLE, PHOTOS)
            parts = [row[: 1 + number % PHOTOS].tolist() for number, row in enumerate(faces)]
            parts += [row[2 + number % PHOTOS :].tolist() for number, row in enumerate(faces[:20])]
            writer.people.assign({}, [part for part in parts if part], again=True)
        by_face = {face: person.id for person in engine.people() for face in person.faces}
        engine.name(by_face[1], "Ada")
        engine.name(by_face[int(faces[0, 2])], "Bob")
        engine.hide(by_face[int(faces[4, 0])])
        engine.not_this_person(by_face[int(faces[2, 0])], int(faces[2, 0]))
        engine.different(int(faces[8, 0]), int(faces[8, -1]))
        yield engine


def found(engine: Face2Vec, most: int = 10_000) -> list[Suggestion]:
    with engine.snapshot() as now:
        return suggestions(now, engine._session.index(), CALIBRATION, MATES, most)


def rounded(some: list[Suggestion]) -> list[tuple[object, object, float]]:
    return [(one.first, one.second, round(one.probability, 5)) for one in some]


def all_at_once(engine: Face2Vec) -> dict[frozenset[tuple[int, ...]], float]:
    """The probability of each pair of sides, by their faces, with all faces in memory."""
    with engine.snapshot() as now:
        ids, contents = now.contents()
        embeddings, sure, quality = now.embeddings(ids), now.sure(), now.qualities()
        evidence = Evidence(CALIBRATION, len(ids), now.apart(), MATES)
        people, refused = now.people(), now.refusals()
    faces = evidence.with_crowding(Faces(ids, embeddings, contents))
    side_of = {face: (face,) for face in ids.tolist()}
    side_of |= {face: person.faces for person in people for face in person.faces}
    person_of = {person.faces: person for person in people}

    def ranked(side: tuple[int, ...]) -> list[int]:
        return sorted(side, key=lambda face: (-quality.get(face, 0.0), face))

    asked = {face for person in people for face in ranked(person.faces)[: suggest.ASKED]}
    asked |= {face for face in ids[sure].tolist() if len(side_of[face]) == 1}
    asked -= {face for face in asked if not sure[face - 1] and side_of[face] not in person_of}
    least = evidence.least_similarity(LEAST)
    near = set()
    for face in asked:
        alike = embeddings @ embeddings[face - 1]
        for row in np.argsort(-alike)[: NEIGHBOURS + 1]:
            if alike[row] >= least and side_of[face] != side_of[ids[row]]:
                near.add(frozenset((side_of[face], side_of[int(ids[row])])))
    probabilities = {}
    for pair in near:
        one, other = pair
        known = [person_of[side] for side in pair if side in person_of]
        if len({person.name for person in known if person.name}) > 1:
            continue
        if any(person.hidden for person in known):
            continue
        if any((face, person.id) in refused for person in known for face in (*one, *other)):
            continue
        first, second = (
            faces.select(np.sort(np.searchsorted(ids, ranked(side)[: suggest.COMPARED])))
            for side in pair
        )
        if evidence.are_apart(first, second):
            continue
        odds = float(evidence.between(first, second).mean())
        if (probability := 1 / (1 + math.exp(-odds))) >= LEAST:
            probabilities[pair] = probability
    return probabilities


def test_suggestions_are_those_of_all_pairs_at_once(engine: Face2Vec) -> None:
    expected = all_at_once(engine)
    faces_of = {person.id: person.faces for person in engine.people()}
    sides = {
        frozenset(
            side.shown if side.person is None else faces_of[side.person]
            for side in (one.first, one.second)
        ): one
        for one in found(engine)
    }
    assert len(expected) > 50
    assert sides.keys() == expected.keys()
    for pair, one in sides.items():
        assert one.probability == pytest.approx(expected[pair], abs=1e-5)
    lone = [one for one in sides.values() if None in (one.first.person, one.second.person)]
    assert 0 < len(lone) < len(sides)


def test_those_that_settle_most_come_first(engine: Face2Vec) -> None:
    every = found(engine)
    moved = [one.probability * min(one.first.count, one.second.count) for one in every]
    assert moved == sorted(moved, reverse=True)
    assert found(engine, 7) == every[:7]


def test_best_face_is_shown_and_one_of_another_photo(engine: Face2Vec) -> None:
    with engine.snapshot() as now:
        ids, contents = now.contents()
        quality = now.qualities()
    photo_of = dict(zip(ids.tolist(), contents.tolist(), strict=True))
    faces_of = {person.id: person.faces for person in engine.people()}
    seen = 0
    for one in found(engine):
        for side in (one.first, one.second):
            if side.person is None:
                continue
            faces = faces_of[side.person]
            assert side.count == len(faces)
            best = sorted(faces, key=lambda face: (-quality.get(face, 0.0), face))
            assert side.shown[0] == best[0]
            others = [face for face in best if photo_of[face] != photo_of[best[0]]]
            assert side.shown[1:] == tuple((others or best[1:])[:1])
            seen += bool(others)
    assert seen > 20


def test_blocks_give_the_same_and_read_no_more_than_they_need(
    engine: Face2Vec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rounded(found(engine))
    monkeypatch.setattr(suggest, "IN_MEMORY", 0)
    monkeypatch.setattr(suggest, "QUERIES", 16)
    monkeypatch.setattr(suggest, "PAIRS", 3)
    read: list[int] = []
    usual = Snapshot.embeddings

    def counted(now: Snapshot, ids: np.ndarray) -> np.ndarray:
        read.append(len(ids))
        return usual(now, ids)

    def nearest(*arguments: Any) -> Any:
        before = len(read)
        near = usual_nearest(*arguments)
        del read[before:]  # what an index reads of a gallery is bounded there
        return near

    usual_nearest = GalleryIndex.nearest
    monkeypatch.setattr(GalleryIndex, "nearest", nearest)
    monkeypatch.setattr(Snapshot, "embeddings", counted)
    assert rounded(found(engine)) == whole
    assert 0 < max(read) <= 6 * PHOTOS


def test_only_the_largest_people_and_then_lone_faces_are_looked_up(
    engine: Face2Vec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.snapshot() as now:
        everyone = suggest._asked(now).tolist()
        owned = {face for person in engine.people() for face in person.faces}
        members = [face for face in everyone if face in owned]
        sizes = {face: len(person.faces) for person in engine.people() for face in person.faces}
        assert everyone[: len(members)] == members
        assert [sizes[face] for face in members] == sorted(map(sizes.get, members), reverse=True)
        assert everyone[len(members) :] == sorted(everyone[len(members) :])
        for most in (5, len(members), len(members) + 3):
            monkeypatch.setattr(suggest, "MOST_ASKED", most)
            assert suggest._asked(now).tolist() == everyone[:most]


def test_person_whose_best_faces_are_of_one_photo_shows_another(
    engine: Face2Vec, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = found(engine)
    monkeypatch.setattr(suggest, "COMPARED", 1)
    with engine.snapshot() as now:
        for one in expected:
            for side in (one.first, one.second):
                key = side.shown[0] if side.person is None else side.person + suggest.PERSON
                assert suggest._side(now, key) == side


def test_pairs_of_each_answer_are_asked_once(engine: Face2Vec) -> None:
    pairs = [frozenset((one.first, one.second)) for one in found(engine)]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
