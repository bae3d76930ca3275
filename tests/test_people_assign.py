"""Grouping the faces of a gallery block by block, compared with grouping them all at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_embeddings import DIMENSION, SHARED, calibrated, drawn
from helpers import fake_fingerprint
from numpy.typing import NDArray

from face2vec import Face2Vec
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.index.sync import GalleryIndex
from face2vec.people import assign, clustering
from face2vec.people.assign import PeopleSummary, find_people
from face2vec.people.clustering import Evidence, Faces, Ids, StoredVectors, average
from face2vec.people.methods import METHODS
from face2vec.types import Face

PEOPLE, PHOTOS = 60, 5
CALIBRATION = calibrated(None)


@pytest.fixture
def people() -> NDArray[np.float32]:
    """Faces (people, photos, d) of a group in which strangers are so alike that some are linked."""
    return drawn(PEOPLE, PHOTOS, SHARED[1], 0, seed=1)


def entries(embeddings: NDArray[np.float32], first: int) -> Iterator[Entry]:
    points = ((1.0, 1.0),) * 5
    for number in range(0, len(embeddings), 2):  # two faces in each photo
        pair = embeddings[number : number + 2]
        faces = tuple(Face((0.0, 0.0, 9.0, 9.0), points, 1.0, row) for row in pair)
        name = first + number
        yield Entry(
            "/made/up", f"{name}.jpg", 1, 1, name.to_bytes(32, "big"), 9, 9, INDEXED, "", faces
        )


def add(engine: Face2Vec, embeddings: NDArray[np.float32], first: int) -> None:
    with engine._session.write() as writer:
        writer.record(entries(embeddings, first))
        engine._session.index().save()


def grouped(engine: Face2Vec, again: bool = False) -> PeopleSummary:
    session = engine._session
    with session.write() as writer:
        return find_people(
            writer, session.gallery().read, session.index(), CALIBRATION, mates=4, again=again
        )


def history(folder: Path, people: NDArray[np.float32]) -> list[object]:
    """What grouping gives at first, with a few more faces, after edits, and again."""
    Gallery.create(folder, fake_fingerprint(DIMENSION)).close()
    found: list[object] = []
    with Face2Vec(folder) as engine:

        def note(summary: PeopleSummary) -> None:
            found.append((summary, {person.id: person.faces for person in engine.people()}))

        add(engine, people[:, :3].transpose(1, 0, 2).reshape(-1, DIMENSION), 0)
        note(grouped(engine))
        add(engine, people[:, 3:].transpose(1, 0, 2).reshape(-1, DIMENSION), 1000)
        first, second = engine.people()[:2]
        engine.not_this_person(first, first.faces[0])
        engine.different(first.faces[1], second.faces[0])
        note(grouped(engine))
        note(grouped(engine, again=True))
    return found


def test_blocks_of_a_large_gallery_give_the_groups_of_a_small_one(
    people: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = history(tmp_path / "whole", people)
    summaries = [summary for summary, _ in whole]  # type: ignore[misc]
    assert summaries[0].new > PEOPLE / 2
    assert summaries[1].joined > PEOPLE / 2
    monkeypatch.setattr(assign, "IN_MEMORY", 0)
    monkeypatch.setattr(assign, "BLOCK", 50)
    monkeypatch.setattr(assign, "QUERIES", 7)
    monkeypatch.setattr(clustering, "BLOCK", 50)
    monkeypatch.setattr(clustering, "PAIRS", 100)
    assert history(tmp_path / "blocks", people) == whole


def test_embeddings_of_a_large_gallery_are_never_read_all_at_once(
    people: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assign, "IN_MEMORY", 0)
    monkeypatch.setattr(assign, "BLOCK", 50)
    monkeypatch.setattr(assign, "QUERIES", 20)
    for name, value in (("BLOCK", 50), ("ROWS", 20), ("PAIRS", 10), ("LARGEST", 20)):
        monkeypatch.setattr(clustering, name, value)
    read: list[int] = []
    usual = Snapshot.embeddings

    def counted(now: Snapshot, ids: Ids) -> NDArray[np.float32]:
        read.append(len(ids))
        return usual(now, ids)

    def of_index(call: Callable[..., Any]) -> Callable[..., Any]:
        def uncounted(*arguments: Any) -> Any:
            before = len(read)
            found = call(*arguments)
            del read[before:]  # what an index reads of a gallery is not for grouping
            return found

        return uncounted

    monkeypatch.setattr(Snapshot, "embeddings", counted)
    for name in ("nearest", "save"):
        monkeypatch.setattr(GalleryIndex, name, of_index(getattr(GalleryIndex, name)))
    found = history(tmp_path / "gallery", people)
    assert len(found) == 3
    assert max(read) <= clustering.SAMPLE < people.size / DIMENSION / 4


def near(faces: Faces, most: int = 33) -> list[Ids]:
    order = np.argsort(-(faces.vectors @ faces.vectors.T), axis=1)
    return [faces.ids[row[:most]] for row in order]


def all_at_once(faces: Faces, evidence: Evidence, close: list[Ids]) -> list[Ids]:
    """Average linkage as `average` describes it, with all pairs and all embeddings in memory."""
    faces = evidence.with_crowding(faces)
    pairs = clustering.neighbours(faces, close)
    links = pairs[evidence.of_pairs(faces, pairs) > 0]
    groups: list[Ids] = []
    for rows in clustering._components(len(faces), links):
        groups += within(faces.select(rows), evidence)
    return groups


def within(faces: Faces, evidence: Evidence) -> list[Ids]:
    if len(faces) <= clustering.LARGEST:
        return clustering._linked(faces, evidence)
    drawn = np.random.default_rng(0).permutation(len(faces))
    first = faces.select(np.sort(drawn[: clustering.LARGEST]))
    rest = faces.select(np.sort(drawn[clustering.LARGEST :]))
    groups = clustering._linked(first, evidence)
    if not groups:
        return within(rest, evidence)
    some = [clustering.sample(first.select(np.searchsorted(first.ids, ids))) for ids in groups]
    means = np.stack([evidence.between(rest, one).mean(axis=1) for one in some], axis=1)
    likeliest = np.where(means.max(axis=1) > 0, means.argmax(axis=1), -1)
    grown = [
        np.concatenate([ids, rest.ids[likeliest == number]]) for number, ids in enumerate(groups)
    ]
    return [*grown, *within(rest.select(np.flatnonzero(likeliest < 0)), evidence)]


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("largest", [4096, 40])
@pytest.mark.parametrize("block", [16384, 64])
def test_average_gives_the_same_groups_block_by_block(
    shared: float, largest: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = drawn(PEOPLE, PHOTOS, shared, 0, seed=2).reshape(-1, DIMENSION)
    order = np.random.default_rng(3).permutation(len(embeddings))
    ids = 5 + 3 * np.arange(len(embeddings))
    faces = Faces(ids, embeddings[order], np.arange(len(ids)) // 2)
    evidence = Evidence(CALIBRATION, len(ids), mates=4)
    close = near(faces)
    monkeypatch.setattr(clustering, "LARGEST", largest)
    former = all_at_once(faces, evidence, close)
    assert len(former) > 10
    monkeypatch.setattr(clustering, "BLOCK", block)

    def read(some: Ids) -> NDArray[np.float32]:
        return faces.vectors[np.searchsorted(ids, some)]

    stored = Faces(ids, StoredVectors(ids, read), faces.photos)
    for one in (faces, stored):
        found = average(one, evidence, close)
        assert [group.tolist() for group in found] == [group.tolist() for group in former]


def test_faces_that_may_link_are_those_that_are_linked_and_few_more() -> None:
    embeddings = drawn(PEOPLE, PHOTOS, SHARED[1], 0, seed=4).reshape(-1, DIMENSION)
    ids = 5 + 3 * np.arange(len(embeddings))
    evidence = Evidence(CALIBRATION, len(ids), mates=4)
    faces = evidence.with_crowding(Faces(ids, embeddings, np.arange(len(ids)) // 2))
    close = near(faces)
    alike = [
        (embeddings[np.searchsorted(ids, some)] @ embeddings[row]).astype(np.float32)
        for row, some in enumerate(close)
    ]
    kept = evidence.that_may_link(faces, close, alike, 0)
    links = [clustering.links_of_blocks(faces, evidence, [some]).tolist() for some in (close, kept)]
    assert links[0] == links[1]
    assert sum(map(len, kept)) < sum(map(len, close)) / 2


def test_component_of_any_size_is_grouped_without_recursion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clustering, "LARGEST", 2)
    count = 2 * sys.getrecursionlimit() + 100
    rows = np.random.default_rng(0).standard_normal((count, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    strangers = Faces(np.arange(count), rows, np.zeros(count, np.int64))
    assert clustering._within(strangers, Evidence(CALIBRATION, 10**6)) == []


@pytest.mark.parametrize("method", [name for name in METHODS if name != "average"])
def test_other_methods_take_a_large_gallery_as_before(
    method: str, people: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit in (assign.IN_MEMORY, 0):
        monkeypatch.setattr(assign, "IN_MEMORY", limit)
        folder = tmp_path / str(limit)
        Gallery.create(folder, fake_fingerprint(DIMENSION)).close()
        with Face2Vec(folder) as engine:
            add(engine, people.reshape(-1, DIMENSION), 0)
            session = engine._session
            with session.write() as writer:
                find_people(
                    writer,
                    session.gallery().read,
                    session.index(),
                    CALIBRATION,
                    mates=4,
                    method=method,  # type: ignore[arg-type]
                    count=PEOPLE if method == "k-means" else None,
                )
            found.append({person.faces for person in engine.people()})
    assert found[0] == found[1]
    assert len(found[0]) > 10
