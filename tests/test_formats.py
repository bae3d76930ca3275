"""Galleries and index files of older versions open and give the answers that they gave.

tests/data/make.py says which version wrote which file, and how.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from face2vec import Face2Vec, samples
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.schema import FORMAT
from face2vec.index.face_index import FaceIndex
from face2vec.index.file import FormerIndexError

DATA = Path(__file__).parent / "data"
GALLERIES = ["gallery-2", "gallery-3-hnsw", "gallery-3", "gallery-3-map"]
FORMER_KINDS = ["hnsw", "ivf", "ivfpq"]
DIMENSION = 8
FACES = 60


def many_faces(count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids (n,) and embeddings (n, d) of faces that are drawn from a seed."""
    rng = np.random.default_rng(18)
    embeddings = rng.integers(-40, 41, (count, DIMENSION)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.arange(1, count + 1) * 3, embeddings


def unpacked(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The files of an older version in a folder, and the answers that it gave."""
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder, json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def people_of(engine: Face2Vec) -> list[Any]:
    return [[p.id, p.name, list(p.faces)] for p in engine.people()]


def assert_same_answers(folder: Path, told: dict[str, Any]) -> None:
    """Compare everything in the file of answers but the calibrated probabilities.

    Those depend on the calibration that ships with the version, unless the gallery has its own.
    """
    with Gallery.open(folder) as gallery, gallery.read() as now:
        ids, embeddings = map(np.concatenate, zip(*now, strict=True))
        assert now.counts()._asdict() == told["counts"]
        assert sorted([Path(p).name, *rest] for p, *rest in gallery.photos()) == told["photos"]
        assert hashlib.sha256(embeddings.astype("<f4").tobytes()).hexdigest() == told["embeddings"]
        assert (gallery.dimension, gallery.uuid) == (told["dimension"], told["uuid"])
        assert now.mapped().tolist() == told["mapped"]
        stored = now.stored_faces(ids.tolist())
        calibration = now.calibration()
    assert (None if calibration is None else calibration.data) == told["calibration"]
    assert [one.face.id for one in stored] == [face["id"] for face in told["faces"]]
    for one, face in zip(stored, told["faces"], strict=True):
        assert one.face.box == tuple(face["box"])
        assert [list(point) for point in one.face.landmarks] == face["landmarks"]
        assert one.face.confidence == face["confidence"]
        assert one.face.quality == face["quality"]
        assert Path(one.photo).name == face["photo"]
        assert [Path(copy).name for copy in one.copies] == face["copies"]
    with Face2Vec(folder) as engine:
        for found, wanted in zip(engine.search(embeddings, k=4), told["search"], strict=True):
            assert [match.face.id for match in found.matches] == [row[0] for row in wanted]
            similarities = [match.similarity for match in found.matches]
            assert similarities == pytest.approx([row[1] for row in wanted], abs=1e-6)
            if told["calibration"]:
                probabilities = [match.probability for match in found.matches]
                assert probabilities == pytest.approx([row[2] for row in wanted], abs=1e-6)
        assert people_of(engine) == told["people"]


@pytest.mark.parametrize("name", GALLERIES)
def test_gallery_of_an_older_version_gives_its_answers_unchanged(name: str, tmp_path: Path) -> None:
    folder, told = unpacked(name, tmp_path)
    before = contents(folder / "gallery")

    assert told["counts"]["faces"] > 10
    assert_same_answers(folder / "gallery", told)

    after = contents(folder / "gallery")
    assert {name: after[name] for name in before} == before
    assert {n for n in set(after) - set(before) if after[n] and not n.endswith("-shm")} == set()


@pytest.mark.parametrize("name", GALLERIES)
def test_gallery_of_an_older_version_is_migrated_by_the_next_writer(
    name: str, tmp_path: Path
) -> None:
    folder, told = unpacked(name, tmp_path)
    gallery = folder / "gallery"

    with Face2Vec(gallery) as engine:
        face = told["faces"][0]["id"]
        somebody = engine.this_person(None, face)
        engine.undo()
        assert somebody.faces == (face,)
    with contextlib.closing(sqlite3.connect(gallery / "gallery.sqlite")) as connection:
        (written,) = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    assert written == str(FORMAT)
    assert_same_answers(gallery, told)

    with Face2Vec(gallery) as engine:
        engine.rebuild()
        assert engine.check() == []
    assert_same_answers(gallery, told)


def test_photo_finds_its_faces_in_a_gallery_of_an_older_version(tmp_path: Path) -> None:
    """The gallery's fingerprint still fits the model that ships.

    Once another `mini` ships, a query by photo has to be refused here instead.
    """
    folder, told = unpacked("gallery-3", tmp_path)
    photo = samples.people(1, seed=18)[0].photo(1)

    with Face2Vec(folder / "gallery") as engine:
        (found,) = engine.search(photo.image, k=1)

    photos = {face["id"]: face["photo"] for face in told["faces"]}
    assert photos[found.matches[0].face.id] == "1.jpg"
    assert found.matches[0].similarity > 0.95


def test_edits_of_an_older_version_can_be_undone(tmp_path: Path) -> None:
    folder, told = unpacked("gallery-3", tmp_path)

    with Face2Vec(folder / "gallery") as engine:
        assert len(told["undone"]) == 4
        for people in told["undone"]:
            engine.undo()
            assert people_of(engine) == people


def test_photos_that_an_older_version_forgot_stay_forgotten(tmp_path: Path) -> None:
    folder, told = unpacked("gallery-3", tmp_path)
    assert set(told["forgotten"].values()) == {True, False}  # False: other people are in it, too

    with Gallery.open(folder / "gallery") as gallery, gallery.read() as now:
        for sha256, forgotten in told["forgotten"].items():
            assert now.is_forgotten(bytes.fromhex(sha256)) == forgotten


@pytest.mark.parametrize("name", ["gallery-2", "gallery-3-hnsw"])
def test_index_of_an_older_format_is_built_again(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, told = unpacked(name, tmp_path)
    file = folder / "gallery" / "index.faiss"
    old = file.read_bytes()

    with caplog.at_level("WARNING", "face2vec"):
        assert_same_answers(folder / "gallery", told)
    assert "index.faiss" in caplog.text

    with Face2Vec(folder / "gallery") as engine:
        engine.rebuild()
    caplog.clear()
    with caplog.at_level("WARNING", "face2vec"):
        assert_same_answers(folder / "gallery", told)
    assert not caplog.text
    assert file.read_bytes() != old


@pytest.mark.parametrize("how", ["read", "mmap", "in_memory"])
def test_index_file_of_an_older_version_gives_its_answers(how: str, tmp_path: Path) -> None:
    folder, told = unpacked("index-4", tmp_path)
    file = folder / "exact.faiss"
    before = file.read_bytes()
    _, embeddings = many_faces(FACES)

    index = FaceIndex.load(file, **({} if how == "read" else {how: True}))
    similarities, ids = index.search(embeddings[:: FACES // 20], 4)

    assert (len(index), index.dimension) == (FACES, DIMENSION)
    for row, (found, similar) in enumerate(zip(ids, similarities, strict=True)):
        wanted = told["exact"][row]
        assert found.tolist() == [face for face, _ in wanted]
        assert similar.tolist() == pytest.approx([s for _, s in wanted], abs=1e-6)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", FORMER_KINDS)
def test_index_file_of_a_former_kind_says_that_it_is_built_again(kind: str, tmp_path: Path) -> None:
    folder, _ = unpacked("index-4", tmp_path)
    with pytest.raises(FormerIndexError, match=f"former kind '{kind}'; each command builds it"):
        FaceIndex.load(folder / f"{kind}.faiss")


def test_index_file_of_an_older_version_can_be_changed_and_saved(tmp_path: Path) -> None:
    folder, _ = unpacked("index-4", tmp_path)
    file = folder / "exact.faiss"
    ids, embeddings = many_faces(FACES)

    index = FaceIndex.load(file)
    assert index.search(embeddings[:1], 4)[1][0][0] == ids[0]
    index.remove(ids[:1])
    index.add(np.array([1]), embeddings[:1])
    index.save(file)

    similarities, found = FaceIndex.load(file).search(embeddings[:1], 4)
    assert (found[0][0], similarities[0][0]) == (1, pytest.approx(1, abs=1e-6))
    assert ids[0] not in found[0]
