from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_index_face_index import brute, fetching, in_batches, people, recall, unit

from face2vec.index import face_index, parallel, pq
from face2vec.index import file as index_file
from face2vec.index.codes import (
    CANDIDATE_SECONDS,
    CANDIDATES_LEAST,
    CANDIDATES_MOST,
    CANDIDATES_RECALL,
    FACE_SECONDS,
    PROPOSED_LEAST,
    PROPOSED_MOST,
    RECALL,
    SCAN_SECONDS,
    Codes,
    codes_of,
    enough,
    lengths,
    rotation,
)
from face2vec.index.face_index import FaceIndex
from face2vec.index.file import IndexDamagedError
from face2vec.index.parallel import Ids, Vectors
from face2vec.index.pq import Pq
from face2vec.index.sample import AT, QUERIES, Sample

D = 64
COUNT = 9000


@pytest.fixture(scope="module")
def faces() -> tuple[Ids, Vectors]:
    """Embeddings with a spectrum that falls, as that of a network's does; 20 a person."""
    rng = np.random.default_rng(0)
    spread = np.linspace(2, 0.2, D)
    people = rng.standard_normal((COUNT // 20, D)) * spread
    vectors = np.repeat(people, 20, axis=0) + 0.8 * rng.standard_normal((COUNT, D)) * spread
    ids = np.random.default_rng(1).permutation(10 * COUNT)[:COUNT].astype(np.int64)
    return ids, unit(vectors)


@pytest.fixture(scope="module")
def sample(faces: tuple[Ids, Vectors]) -> Sample:
    return Sample.draw(in_batches(*faces), COUNT)


@pytest.fixture(scope="module")
def file(faces: tuple[Ids, Vectors], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved index with five shards."""
    path = tmp_path_factory.mktemp("index") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq, "FACES_PER_SHARD", 2000)
        FaceIndex.build(in_batches(*faces), COUNT, D, "pq").save(path)
    return path


@pytest.fixture
def index(file: Path, monkeypatch: pytest.MonkeyPatch) -> FaceIndex:
    """An index with five shards, which can be changed."""
    monkeypatch.setattr(pq, "FACES_PER_SHARD", 2000)
    return FaceIndex.load(file)


def shards(index: FaceIndex) -> list[int]:
    """How many faces each shard has."""
    assert isinstance(index._faces, Pq)
    return [shard.ntotal for shard in index._faces._shards]


def test_sample_knows_the_truly_nearest(faces: tuple[Ids, Vectors], sample: Sample) -> None:
    ids, vectors = faces
    place = {int(face): row for row, face in enumerate(ids)}
    assert len(sample.own) == QUERIES
    assert len(set(sample.own.tolist())) == QUERIES
    rows = [place[int(face)] for face in sample.own]
    np.testing.assert_array_equal(sample.queries, vectors[rows])
    expected = brute(sample.queries, ids, vectors, AT + 1)[1]
    np.testing.assert_array_equal(expected[:, 0], sample.own)
    np.testing.assert_array_equal(expected[:, 1:], sample.nearest)
    near = [[place[int(face)] for face in row] for row in sample.nearest]
    np.testing.assert_array_equal(sample.nearest_embeddings, vectors[near])
    np.testing.assert_array_equal(
        sample.examples, vectors[[place[int(face)] for face in sample.ids]]
    )


def test_sample_of_a_gallery_with_fewer_faces_than_announced(faces: tuple[Ids, Vectors]) -> None:
    ids, vectors = faces
    small = Sample.draw([(ids[:3000], vectors[:3000])], COUNT)
    assert len(small.ids) == 3000
    assert 0 < len(small.own) < QUERIES
    assert set(small.nearest.ravel().tolist()) <= set(ids[:3000].tolist())


@pytest.mark.parametrize("numbers", [8, 16, 24])
def test_rotation_gives_each_number_about_the_same_variance(
    faces: tuple[Ids, Vectors], sample: Sample, numbers: int
) -> None:
    _, vectors = faces
    axes = rotation(*sample.components, numbers)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-5)
    assert len(axes) == D // numbers * numbers
    moments = np.linalg.eigvalsh(vectors.T @ vectors)[::-1]
    variance = ((vectors @ axes.T) ** 2).sum(axis=0)
    np.testing.assert_allclose(np.sort(variance)[::-1], moments[: len(axes)], rtol=1e-3)
    each = variance.reshape(numbers, -1)
    np.testing.assert_allclose(each[:, 0], moments[:numbers], rtol=1e-3)
    lowest_of_second = each[:, 1]
    np.testing.assert_allclose(lowest_of_second, moments[numbers : 2 * numbers][::-1], rtol=1e-3)


def test_estimated_ranks_are_those_of_a_search(faces: tuple[Ids, Vectors], sample: Sample) -> None:
    """All faces are in this sample, so that only the rounding of FAISS's tables remains."""
    codes = Codes(sample, 16)
    estimated = codes.ranks(sample, COUNT)
    index = Pq([parallel.faiss.IndexPreTransform(codes.turn, codes.shard(COUNT))])
    index.add(*faces)
    places = index._places_in_shards(sample)
    assert (places < CANDIDATES_MOST).all()
    for row, ranks in enumerate(places):
        ranks = ranks - 1  # the query itself
        assert np.median(np.abs(estimated[row] - ranks)) <= 0.1 * np.median(ranks) + 2


@pytest.mark.parametrize("share", [RECALL, CANDIDATES_RECALL])
def test_enough_is_how_many_places_hold_the_nearest(share: float) -> None:
    ranks = np.arange(1000)
    assert enough(ranks, share) == int(share * 1000)
    assert enough(np.zeros(1000), share) == 1
    for seed in range(20):
        ranks = np.random.default_rng(seed).integers(0, 500, (77, 10))
        count = enough(ranks, share)
        assert (ranks < count).mean() >= share > (ranks < count - 1).mean()


def test_choose_takes_the_codes_of_least_cost_that_find_enough(sample: Sample) -> None:
    costs = {}
    count = 20 * COUNT
    for numbers in lengths(D):
        codes = Codes(sample, numbers)
        candidates = enough(codes.ranks(sample, count), CANDIDATES_RECALL)
        candidates = max(candidates, CANDIDATES_LEAST)
        if candidates <= CANDIDATES_MOST:
            scan = count * (FACE_SECONDS + codes.numbers * SCAN_SECONDS)
            costs[codes.numbers] = scan + candidates * CANDIDATE_SECONDS
    assert 1 < len(costs) < len(lengths(D))
    assert Codes.choose(sample, count).numbers == min(costs, key=costs.__getitem__)


def test_build_measures_the_recall_of_its_own_searches(
    index: FaceIndex, faces: tuple[Ids, Vectors], sample: Sample
) -> None:
    measured = index.measured
    assert measured is not None
    assert (measured.queries, measured.faces) == (QUERIES, COUNT)
    assert PROPOSED_LEAST <= measured.proposals <= PROPOSED_MOST
    assert CANDIDATES_LEAST <= measured.candidates <= CANDIDATES_MOST
    found = index.search(sample.queries, AT + 1, [fetching(*faces)])[1]
    others = [row[row != own][:AT] for row, own in zip(found, sample.own, strict=True)]
    assert recall(others, sample.nearest) == pytest.approx(measured.recall, abs=0.002)
    assert measured.recall >= RECALL


def test_what_was_measured_is_in_the_file(index: FaceIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    for how in ({}, {"mmap": True}, {"in_memory": True}):
        again = FaceIndex.load(tmp_path / "index", **how)
        assert again.measured == index.measured
        assert not again.outgrown


def test_an_index_that_has_doubled_is_outgrown(
    index: FaceIndex, faces: tuple[Ids, Vectors]
) -> None:
    ids, vectors = faces
    index.add(ids[1:] + 10**6, vectors[1:])
    assert not index.outgrown
    index.add(ids[:1] + 10**6, vectors[:1])
    assert index.outgrown


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_shards_and_threads_change_nothing(
    index: FaceIndex, faces: tuple[Ids, Vectors], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shards(index) == [2000] * 4 + [1000]
    of = [fetching(*faces)]
    asked = faces[1][:count]
    monkeypatch.setattr(pq, "SCANNED_BYTES", 1 << 40)
    expected = index.search(asked, 10, of)
    monkeypatch.setattr(pq, "SCANNED_BYTES", 1)
    monkeypatch.setattr(pq, "_QUERIES_AT_ONCE", 7)
    for threads in (2, 3, 16):
        monkeypatch.setattr(parallel.faiss, "omp_get_max_threads", lambda n=threads: n)
        found = index.search(asked, 10, of)
        np.testing.assert_array_equal(np.stack(found[1]), np.stack(expected[1]))
        np.testing.assert_allclose(np.stack(found[0]), np.stack(expected[0]), atol=1e-6)
    everyone = index.search(asked[:1], 10**12, of)[1][0]
    np.testing.assert_array_equal(np.sort(everyone), np.sort(faces[0]))


def test_shards_are_filled_and_may_be_empty(index: FaceIndex, faces: tuple[Ids, Vectors]) -> None:
    ids, vectors = faces
    of = [fetching(ids, vectors)]
    index.remove(ids[2000:4000])
    assert (shards(index), len(index)) == ([2000, 0, 2000, 2000, 1000], COUNT - 2000)
    found = index.search(vectors[:20], 1, of)[1]
    np.testing.assert_array_equal(np.concatenate(found), ids[:20])
    index.add(ids[2000:4000], vectors[2000:4000])
    assert shards(index) == [2000, 0, 2000, 2000, 2000, 1000]
    found = index.search(vectors[2000:2020], 1, of)[1]
    np.testing.assert_array_equal(np.concatenate(found), ids[2000:2020])
    index.remove(ids)
    assert len(index) == 0
    assert [len(row) for row in index.search(vectors[:2], 3, of)[1]] == [0, 0]


def test_codes_of_removed_faces_are_erased(
    index: FaceIndex, faces: tuple[Ids, Vectors], tmp_path: Path
) -> None:
    """Where the codes are the same as of an index that never had these faces."""
    ids, vectors = faces
    assert isinstance(index._faces, Pq)
    first, long = codes_of(index._faces._shards[0])
    index.remove(ids[7:2000])
    blocks = parallel.faiss.rev_swig_ptr(first.codes.get(), first.codes.size())
    packer = first.get_CodePacker()
    block = blocks[: packer.block_size].reshape(1, -1)
    assert all(packer.unpack_1(block, place).any() for place in range(7))
    assert not any(packer.unpack_1(block, place).any() for place in range(7, packer.nvec))
    assert not blocks[packer.block_size :].any()
    assert long.ntotal == 7
    assert long.codes.size() == 7 * long.code_size
    index.add(ids[7:2000], vectors[7:2000])
    found = index.search(vectors[:2000:100], 1, [fetching(ids, vectors)])[1]
    np.testing.assert_array_equal(np.concatenate(found), ids[:2000:100])


def test_a_query_of_nan_finds_nothing(index: FaceIndex, faces: tuple[Ids, Vectors]) -> None:
    found = index.search(np.full((1, D), np.nan, np.float32), 5, [fetching(*faces)])
    assert [len(row) for row in found[1]] == [0]


def test_dimensions_that_no_length_divides(faces: tuple[Ids, Vectors]) -> None:
    ids, vectors = faces
    odd = unit(vectors[:, :37].astype(float))
    index = FaceIndex.build([(ids, odd)], COUNT, 37, "pq")
    found = index.search(odd[:20], 1, [fetching(ids, odd)])[1]
    np.testing.assert_array_equal(np.concatenate(found), ids[:20])
    assert index.measured is not None


def test_people_of_isotropic_embeddings_are_found() -> None:
    """The hardest case: no axis holds more than another."""
    vectors, _ = people(6000, seed=4)
    ids = np.arange(6000)
    index = FaceIndex.build([(ids, vectors)], 6000, vectors.shape[1], "pq")
    assert index.measured is not None
    assert index.measured.recall >= RECALL


def test_copies_of_a_photo_do_not_count_as_missed(faces: tuple[Ids, Vectors]) -> None:
    """Any of them may be found; no search can find all, and slower ones would not help."""
    ids, vectors = faces
    many = vectors.copy()
    rng = np.random.default_rng(5)
    many[: COUNT // 3] = vectors[0] + 0.002 * rng.standard_normal((COUNT // 3, D))
    index = FaceIndex.build([(ids, unit(many))], COUNT, D, "pq")
    assert index.measured is not None
    assert 0.5 * QUERIES < index.measured.queries < 0.8 * QUERIES
    assert index.measured.recall >= RECALL
    assert index.measured.candidates < 500


def test_faces_that_are_all_equal_are_indexed(faces: tuple[Ids, Vectors]) -> None:
    ids, vectors = faces
    same = np.repeat(vectors[:1], 3000, axis=0)
    index = FaceIndex.build([(ids[:3000], same)], 3000, D, "pq")
    assert index.measured is not None
    assert (index.measured.recall, index.measured.queries) == (1.0, 0)
    found = index.search(same[:2], 5, [fetching(ids[:3000], same)])
    assert [len(set(row.tolist())) for row in found[1]] == [5, 5]
    np.testing.assert_allclose(np.stack(found[0]), 1, atol=1e-6)


@pytest.mark.parametrize("part", [b"IxPT", b"LTra", b"IxMp", b"IxRF", b"IPfs", b"IxSQ"])
@pytest.mark.parametrize("bit", [0, 3, 9, 17])
def test_wrong_size_in_the_middle_of_a_large_file_is_damage(
    file: Path, tmp_path: Path, part: bytes, bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only both ends of a part are verified when it is opened; FAISS would read elsewhere."""
    monkeypatch.setattr(index_file, "_END_BYTES", 1)
    monkeypatch.setattr(face_index, "VERIFIED_BYTES", 0)
    path = tmp_path / "index"
    FaceIndex.load(file).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(part) + len(part)
    content[place + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(IndexDamagedError):
        FaceIndex.load(path, mmap=True)
