from __future__ import annotations

import gc
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import names_of_any_bytes
from numpy.typing import NDArray

from face2vec.errors import GalleryError, GalleryNotFoundError, SettingsError
from face2vec.gallery.reader import State
from face2vec.index import face_index, flat, parallel, pq
from face2vec.index import file as index_file
from face2vec.index.face_index import FaceIndex
from face2vec.index.file import FormerIndexError, IndexDamagedError
from face2vec.index.policy import KIND_NAMES, PQ_FACES_LEAST

D = 32
HOW = ["", "mmap", "in_memory"]  # a file is loaded
Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


def unit(vectors: NDArray[np.float64]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def people(count: int, seed: int, faces: int = 20, cosine: float = 0.6) -> tuple[Vectors, Vectors]:
    """Embeddings of ``count`` faces, 20 a person, and one more of each of 50 people."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((count // faces, D)))
    spread = np.sqrt((1 - cosine) / cosine / D)

    def near(of: Vectors) -> Vectors:
        return unit(of + spread * rng.standard_normal(of.shape))

    return near(np.repeat(centres, faces, axis=0)), near(centres[:50])


def brute(queries: Vectors, ids: Ids, vectors: Vectors, k: int) -> tuple[Vectors, Ids]:
    similarities = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), ids[order]


def recall(found: list[Ids], expected: Ids) -> float:
    hits = [len(set(f) & set(e)) for f, e in zip(found, expected, strict=True)]
    return sum(hits) / expected.size


def in_batches(ids: Ids, vectors: Vectors) -> list[tuple[Ids, Vectors]]:
    return [(ids[i : i + 3000], vectors[i : i + 3000]) for i in range(0, len(ids), 3000)]


def fetching(ids: Ids, vectors: Vectors) -> Callable[[Ids], Vectors]:
    rows = {int(i): row for row, i in enumerate(ids)}
    return lambda wanted: vectors[[rows[int(i)] for i in wanted]]


def loaded(path: Path, how: str) -> FaceIndex:
    return FaceIndex.load(path, **({how: True} if how else {}))


@pytest.fixture(scope="module")
def faces() -> tuple[Ids, Vectors, Vectors]:
    """Ids that are no row numbers, embeddings and queries."""
    vectors, queries = people(11_000, seed=0)
    ids = np.random.default_rng(1).permutation(10 * len(vectors))[: len(vectors)].astype(np.int64)
    return ids, vectors, queries


@pytest.fixture(scope="module")
def built(faces: tuple[Ids, Vectors, Vectors], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved index of each kind; that of codes has several shards."""
    ids, vectors, _ = faces
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq, "FACES_PER_SHARD", 4000)
        for kind in KIND_NAMES:
            index = FaceIndex.build(in_batches(ids, vectors), len(ids), D, kind)
            index.state = State("the gallery", len(ids), 5)
            index.save(folder / kind)
    return folder


@pytest.fixture(params=KIND_NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def few() -> tuple[Ids, Vectors]:
    vectors, _ = people(40, seed=3)
    return np.arange(100, 140, dtype=np.int64), vectors


# Searching


def test_exact_equals_brute_force(built: Path, faces: tuple[Ids, Vectors, Vectors]) -> None:
    ids, vectors, queries = faces
    similarities, found = FaceIndex.load(built / "flat").search(queries, 10)
    expected, expected_ids = brute(queries, ids, vectors, 10)
    np.testing.assert_array_equal(np.stack(found), expected_ids)
    np.testing.assert_allclose(np.stack(similarities), expected, atol=1e-6)
    assert similarities[0].dtype == np.float32
    assert found[0].dtype == np.int64


def test_each_kind_finds_the_nearest_with_exact_similarities(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / kind)
    similarities, found = index.search(queries, 10, rerank=[fetching(ids, vectors)])
    assert recall(found, brute(queries, ids, vectors, 10)[1]) >= (0.97 if kind == "pq" else 1)
    of = fetching(ids, vectors)
    for query, row, some in zip(queries, similarities, found, strict=True):
        assert len(set(some)) == len(some) == 10
        assert (np.diff(row) <= 0).all()
        np.testing.assert_allclose(row, of(some) @ query, atol=1e-6)


def test_flat_does_not_ask_for_embeddings(built: Path, faces: tuple[Ids, Vectors, Vectors]) -> None:
    ids, vectors, _ = faces
    index = FaceIndex.load(built / "flat")
    found = index.search(vectors[:1], 1, rerank=[lambda _: pytest.fail("asked")])
    assert list(found[1][0]) == [ids[0]]


def test_shared_out_work_gets_one_of_faiss_threads_and_leaves_the_others() -> None:
    threads = parallel.faiss.omp_get_max_threads
    before, seen = threads(), []
    parallel.run_parts(lambda _: seen.append(threads()), [(part,) for part in range(3)])
    assert (seen, threads()) == ([1, 1, 1], before)
    with pytest.raises(ZeroDivisionError):
        parallel.run_parts(lambda part: divmod(1, part), [(0,), (1,)])
    with pytest.raises(ZeroDivisionError):
        parallel.run_parts(lambda part: divmod(1, part), [(1,), (0,)])
    assert threads() == before


def test_faces_beside_a_mapped_file_are_ranked_among_those_in_it(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / kind, mmap=True)
    more, _ = people(40, seed=7)
    new = np.arange(40, dtype=np.int64) + 10 * len(vectors)
    index.add_later(new[:20], more[:20])
    index.add_later(new[20:], more[20:])
    assert len(index) == len(vectors) + 40
    both, rows = np.concatenate([ids, new]), np.concatenate([vectors, more])
    place = dict(zip(both.tolist(), range(len(both)), strict=True))
    reread = [lambda wanted: rows[[place[i] for i in wanted.tolist()]]]
    asked = np.concatenate([more[:5], queries[:5]])
    similarities, found = index.search(asked, 10, reread)
    alone, alone_ids = FaceIndex.load(built / kind).search(asked, 10, reread)
    exact = asked @ more.T
    for n, (row, similar) in enumerate(zip(found, similarities, strict=True)):
        expected = {int(i): float(s) for i, s in zip(alone_ids[n], alone[n], strict=True)}
        expected |= {int(i): float(s) for i, s in zip(new, exact[n], strict=True)}
        best = sorted(expected, key=lambda i: -expected[i])[:10]
        assert row.tolist() == best
        np.testing.assert_allclose(similar, [expected[i] for i in best], atol=1e-5)
    (similar,), (row,) = index.search(asked[:1], 10 * len(both), reread)
    assert set(new.tolist()) <= set(row.tolist())
    assert np.all(np.diff(similar) <= 0)


def test_pq_without_reranking_gives_nearly_the_similarities(
    built: Path, faces: tuple[Ids, Vectors, Vectors]
) -> None:
    ids, vectors, queries = faces
    similarities, found = FaceIndex.load(built / "pq").search(queries, 10)
    of = fetching(ids, vectors)
    errors = [row - of(some) @ q for q, row, some in zip(queries, similarities, found, strict=True)]
    assert 0 < np.abs(errors).max() < 0.5


def test_reranking_drops_a_face_that_has_gone(
    built: Path, faces: tuple[Ids, Vectors, Vectors]
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / "pq")
    of = fetching(ids, vectors)
    (first, *_), *_ = index.search(queries[:1], 10, rerank=[of])[1]

    def gone(wanted: Ids) -> Vectors:
        found = of(wanted).copy()
        found[wanted == first] = np.nan
        return found

    similarities, found = index.search(queries[:1], 10, rerank=[gone])
    assert first not in found[0]
    assert len(found[0]) == 10
    similarities, found = index.search(queries[:1], len(ids), rerank=[gone])
    np.testing.assert_array_equal(np.sort(found[0]), np.sort(ids[ids != first]))
    assert np.isfinite(similarities[0]).all()


def test_k_beyond_the_end_gives_every_face_once(few: tuple[Ids, Vectors]) -> None:
    ids, vectors = few
    index = FaceIndex.build([few], 40, D, "flat")
    for k in (40, 41, 5000, 10**12):
        similarities, found = index.search(vectors[:3], k)
        expected, expected_ids = brute(vectors[:3], ids, vectors, 40)
        np.testing.assert_array_equal(np.stack(found), expected_ids)
        np.testing.assert_allclose(np.stack(similarities), expected, atol=1e-6)


def test_pq_ranks_again_when_k_is_far_beyond_the_end(
    built: Path, faces: tuple[Ids, Vectors, Vectors]
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / "pq")
    similarities, found = index.search(queries[:1], 10**12, [fetching(ids, vectors)])
    expected, expected_ids = brute(queries[:1], ids, vectors, len(ids))
    np.testing.assert_array_equal(np.sort(found[0]), np.sort(expected_ids[0]))
    np.testing.assert_allclose(similarities[0], expected[0], atol=1e-6)


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = FaceIndex.build([], 0, D, "flat")
    index.save(tmp_path / "index")
    for empty in (index, FaceIndex.load(tmp_path / "index")):
        assert len(empty) == 0
        similarities, found = empty.search(np.eye(2, D, dtype=np.float32), 5)
        assert [len(row) for row in similarities] == [len(row) for row in found] == [0, 0]
        assert (similarities[0].dtype, found[0].dtype) == (np.float32, np.int64)


def test_no_queries_give_no_answers(few: tuple[Ids, Vectors]) -> None:
    index = FaceIndex.build([few], 40, D, "flat")
    assert index.search(np.empty((0, D), np.float32), 5) == ([], [])


def test_a_query_of_nan_finds_nothing(few: tuple[Ids, Vectors]) -> None:
    index = FaceIndex.build([few], 40, D, "flat")
    similarities, found = index.search(np.full((1, D), np.nan, np.float32), 5)
    assert (len(similarities[0]), len(found[0])) == (0, 0)


def test_a_search_like_the_one_before_sees_what_has_changed(few: tuple[Ids, Vectors]) -> None:
    ids, vectors = few
    index = FaceIndex.build([(ids[:5], vectors[:5])], 5, D, "flat")
    for change, left in (
        (lambda: None, ids[:5]),
        (lambda: index.add(ids[5:], vectors[5:]), ids),
        (lambda: index.remove(ids[:3]), ids[3:]),
        (lambda: index.remove(ids[3:20]), ids[20:]),
    ):
        change()
        (found,) = index.search(vectors[:1], 40)[1]
        np.testing.assert_array_equal(np.sort(found), left)


@pytest.mark.parametrize("part", [None, 1000], ids=["one thread", "threads"])
@pytest.mark.parametrize("how", HOW)
def test_one_query_equals_a_batch(
    built: Path,
    faces: tuple[Ids, Vectors, Vectors],
    kind: str,
    how: str,
    part: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids, vectors, queries = faces
    if part is not None:
        monkeypatch.setattr(flat, "SCANNED_BYTES", part)
    faces_by_id = [fetching(ids, vectors)]
    searched = loaded(built / kind, how)
    similarities, found = searched.search(queries, 10, faces_by_id)
    for row, query in enumerate(queries):
        (alone,), (these,) = searched.search(query[None], 10, faces_by_id)
        np.testing.assert_allclose(alone, similarities[row], atol=1e-6)
        np.testing.assert_array_equal(these, found[row])


@pytest.mark.parametrize("count", [1, 3])
def test_queries_may_be_of_another_type_and_order(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str, count: int
) -> None:
    ids, vectors, queries = faces
    index, faces_by_id = FaceIndex.load(built / kind), [fetching(ids, vectors)]
    expected = index.search(queries[:count], 5, faces_by_id)
    wide = np.zeros((count, 2 * D))
    wide[:, ::2] = queries[:count]
    similarities, found = index.search(wide[:, ::2], 5, faces_by_id)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected[1])
    np.testing.assert_allclose(similarities, expected[0], atol=1e-6)


def test_threads_may_search_at_once(few: tuple[Ids, Vectors]) -> None:
    ids, vectors = few
    index = FaceIndex.build([few], 40, D, "flat")
    index.remove(ids[:4])
    expected = brute(vectors, ids[4:], vectors[4:], 10)[1]

    def search(row: int) -> bool:
        found = index.search(vectors[row % 40][None], 10)[1][0]
        return bool((found == expected[row % 40]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(search, range(2000)))


def test_threads_get_as_many_as_each_asks_for(few: tuple[Ids, Vectors]) -> None:
    index = FaceIndex.build([few], 40, D, "flat")

    def search(turn: int) -> tuple[int, int]:
        k = (1, 3, 10, 30)[turn % 4]
        return k, len(index.search(few[1][turn % 40][None], k)[1][0])

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert [pair for pair in pool.map(search, range(4000)) if pair[0] != pair[1]] == []
    finally:
        sys.setswitchinterval(usual)


def test_build_accepts_another_number_of_faces_than_announced(few: tuple[Ids, Vectors]) -> None:
    for count in (1, 40, 1000):
        index = FaceIndex.build([few], count, D, "flat")
        assert len(index) == 40
        np.testing.assert_array_equal(
            np.stack(index.search(few[1], 1)[1])[:, 0], few[0], err_msg=str(count)
        )


@pytest.mark.parametrize(
    ("queries", "k", "words"),
    [
        (np.ones((1, D + 1), np.float32), 1, rf"shape \(1, {D + 1}\); .* takes \(n, {D}\)"),
        (np.ones(D, np.float32), 1, rf"shape \({D},\);"),
        (np.ones((1, D), np.float32), 0, "k must be at least 1, not 0"),
    ],
)
def test_search_refuses_wrong_shapes_and_k(queries: Vectors, k: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FaceIndex.build([], 0, D, "flat").search(queries, k)


# Adding and removing


def test_minus_one_never_leaves(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / kind)
    index.remove(ids[len(ids) // 10 :])
    assert len(index) == len(ids) // 10
    for rerank in ([], [fetching(ids, vectors)]):
        for k in (1, 10, len(index) - 1, len(index), len(ids)):
            for row, some in zip(*index.search(queries[:5], k, rerank=rerank), strict=True):
                assert len(row) == len(some) <= min(k, len(index))
                assert set(some) <= set(ids[: len(ids) // 10])


def test_remove_and_add_equal_a_new_build(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str
) -> None:
    ids, vectors, queries = faces
    index = FaceIndex.load(built / kind)
    gone = np.random.default_rng(2).permutation(len(ids))[: len(ids) // 8]
    index.remove(np.concatenate([ids[gone], [10**15]]))
    more, _ = people(500, seed=9)
    more_ids = np.arange(10**9, 10**9 + 500)
    index.add(more_ids, more)
    kept = np.setdiff1d(np.arange(len(ids)), gone)
    now, now_vectors = np.concatenate([ids[kept], more_ids]), np.concatenate([vectors[kept], more])
    assert len(index) == len(now)
    asked = np.concatenate([queries, more[:20]])
    similarities, found = index.search(asked, 10, rerank=[fetching(now, now_vectors)])
    expected, expected_ids = brute(asked, now, now_vectors, 10)
    assert recall(found, expected_ids) >= {"flat": 1, "pq": 0.97}[kind]
    assert not {int(i) for row in found for i in row} & set(ids[gone].tolist())
    assert [row[0] for row in found[-20:]] == list(more_ids[:20])
    if kind == "flat":
        np.testing.assert_allclose(np.stack(similarities), expected, atol=1e-6)


def test_removed_faces_stay_removed_in_a_file(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str, tmp_path: Path
) -> None:
    ids, _, queries = faces
    index = FaceIndex.load(built / kind)
    index.remove(ids[:1000])
    index.save(tmp_path / "index")
    again = FaceIndex.load(tmp_path / "index")
    assert len(again) == len(index) == len(ids) - 1000
    for before, after in zip(
        index.search(queries, 10)[1], again.search(queries, 10)[1], strict=True
    ):
        np.testing.assert_array_equal(before, after)
        assert not set(after) & set(ids[:1000])


def test_adding_and_removing_nothing_changes_nothing(few: tuple[Ids, Vectors]) -> None:
    index = FaceIndex.build([few], 40, D, "flat")
    index.add(np.empty(0, np.int64), np.empty((0, D), np.float32))
    index.remove(np.empty(0, np.int64))
    index.remove(np.array([1, 2, 3]))
    assert len(index) == 40


def test_build_reads_an_iterator_that_can_be_read_once(
    faces: tuple[Ids, Vectors, Vectors], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, vectors, queries = faces
    monkeypatch.setattr(pq, "FACES_PER_SHARD", 4000)  # as of the other one
    once = FaceIndex.build(iter(in_batches(ids, vectors)), len(ids), D, "pq")
    of = [fetching(ids, vectors)]  # codes may be equally similar
    expected = FaceIndex.load(built / "pq").search(queries, 10, of)[1]
    np.testing.assert_array_equal(np.stack(once.search(queries, 10, of)[1]), np.stack(expected))


def test_build_refuses_too_few_faces_and_unknown_kinds(few: tuple[Ids, Vectors]) -> None:
    with pytest.raises(SettingsError, match=f"from 40 faces: .* at least {PQ_FACES_LEAST}"):
        FaceIndex.build([few], 40, D, "pq")
    with pytest.raises(SettingsError, match="unknown kind of index 'flat8'"):
        FaceIndex.build([few], 40, D, "flat8")


def test_exact_is_the_former_name_of_flat(few: tuple[Ids, Vectors]) -> None:
    assert FaceIndex.build([few], 40, D, "exact").kind == "flat"


# Files


@pytest.mark.parametrize("how", HOW)
def test_load_equals_what_was_saved(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str, how: str
) -> None:
    ids, vectors, queries = faces
    index = loaded(built / kind, how)
    assert (index.kind, index.dimension, len(index)) == (kind, D, len(ids))
    assert index.state == State("the gallery", len(ids), 5)
    similarities, found = index.search(queries, 10, rerank=[fetching(ids, vectors)])
    expected, expected_ids = brute(queries, ids, vectors, 10)
    assert recall(found, expected_ids) >= 0.9
    np.testing.assert_allclose([s[0] for s in similarities], expected[:, 0], atol=1e-6)


def test_index_too_large_for_memory_is_not_reported_as_damaged(
    few: tuple[Ids, Vectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError

    path = tmp_path / "index"
    FaceIndex.build([few], 40, D, "flat").save(path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "fromfile", no_room)
        with pytest.raises(SettingsError, match=r"bytes of memory, .* without index_in_memory"):
            FaceIndex.load(path, in_memory=True)


@pytest.mark.parametrize("how", ["mmap", "in_memory"])
def test_an_index_that_is_as_its_file_is_cannot_be_changed(
    built: Path, few: tuple[Ids, Vectors], kind: str, how: str
) -> None:
    index = loaded(built / kind, how)
    assert index.read_only
    with pytest.raises(SettingsError, match="load it without mmap and in_memory"):
        index.add(*few)
    with pytest.raises(SettingsError, match="load it without mmap and in_memory"):
        index.remove(few[0])


def test_a_held_index_needs_its_file_no_more(
    built: Path, faces: tuple[Ids, Vectors, Vectors], kind: str, tmp_path: Path
) -> None:
    ids, vectors, queries = faces
    path = Path(shutil.copy(built / kind, tmp_path))
    index = FaceIndex.load(path, in_memory=True)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    gc.collect()
    faces_by_id = [fetching(ids, vectors)]
    held, kept = (one.search(queries, 10, faces_by_id) for one in (index, loaded(built / kind, "")))
    np.testing.assert_array_equal(held[1], kept[1])
    np.testing.assert_array_equal(held[0], kept[0])


def test_an_index_is_not_mapped_on_windows_where_it_could_not_be_replaced(
    few: tuple[Ids, Vectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    FaceIndex.build([few], 40, D, "flat").save(path)
    monkeypatch.setattr(face_index, "ON_WINDOWS", True)
    index = FaceIndex.load(path, mmap=True)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert [list(row) for row in index.search(few[1][:1], 1)[1]] == [[100]]


def test_save_replaces_the_file_while_it_is_mapped(
    few: tuple[Ids, Vectors], tmp_path: Path
) -> None:
    ids, vectors = few
    index = FaceIndex.build([few], 40, D, "flat")
    index.save(tmp_path / "index")
    mapped = FaceIndex.load(tmp_path / "index", mmap=True)
    index.remove(ids[:39])
    index.save(tmp_path / "index")
    assert [list(row) for row in mapped.search(vectors[:1], 1)[1]] == [[100]]
    assert [list(row) for row in FaceIndex.load(tmp_path / "index").search(vectors[:1], 9)[1]] == [
        [139]
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


@names_of_any_bytes
def test_a_path_that_is_no_text_can_be_saved_and_loaded(
    few: tuple[Ids, Vectors], tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    FaceIndex.build([few], 40, D, "flat").save(path)
    for how in HOW:
        assert list(loaded(path, how).search(few[1][:1], 1)[1][0]) == [100]


def test_load_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FaceIndex.load(tmp_path / "index")


def test_save_that_fails_leaves_the_older_file(
    few: tuple[Ids, Vectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FaceIndex.build([few], 40, D, "flat")
    path = tmp_path / "index"
    index.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("face2vec.files.os.fsync", full)
        with pytest.raises(GalleryError, match=r"cannot write the index .*gallery itself is safe"):
            index.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    with pytest.raises(GalleryNotFoundError, match=r"nowhere was deleted meanwhile"):
        index.save(tmp_path / "nowhere" / "index")


@pytest.mark.parametrize("how", ["", "in_memory"])
def test_any_damaged_byte_is_found(built: Path, tmp_path: Path, kind: str, how: str) -> None:
    whole = (built / kind).read_bytes()
    path = tmp_path / "index"
    rng = np.random.default_rng(0)
    places = [*range(0, 160, 3), *rng.integers(0, len(whole), 40), *range(-400, 0, 3)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(IndexDamagedError, match="rebuild it from the gallery"):
            loaded(path, how)


def test_damage_at_either_end_is_found_in_a_mapped_file(
    built: Path, tmp_path: Path, kind: str
) -> None:
    whole = (built / kind).read_bytes()
    path = tmp_path / "index"
    for place in [*range(0, 4000, 37), *range(-400, 0, 3)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(IndexDamagedError):
            FaceIndex.load(path, mmap=True)


@pytest.mark.parametrize("how", HOW)
def test_a_short_or_foreign_file_is_found(built: Path, tmp_path: Path, how: str) -> None:
    whole = (built / "flat").read_bytes()
    path = tmp_path / "index"
    sizes = [len(whole) * tenth // 10 for tenth in range(10)] + [1, 15, 16, len(whole) - 1]
    for content in [whole[:size] for size in sizes] + [b"x" * 5000, whole + b"x", whole[1:]]:
        path.write_bytes(content)
        with pytest.raises(IndexDamagedError):
            loaded(path, how)


@pytest.mark.parametrize("how", HOW)
def test_file_that_faiss_cannot_read_is_reported(tmp_path: Path, how: str) -> None:
    """Even under check sums that are right."""
    content = b"no index" * 100
    about = {
        "format": index_file._FORMAT, "state": State()._asdict(), "kind": "flat",
        "dimension": D, "count": 0,
        "ends": [len(content)], "crc32": zlib.crc32(content), "ends_crc32": zlib.crc32(content * 2),
    }  # fmt: skip
    words = json.dumps(about).encode()
    footer = struct.pack("<II8s", len(words), zlib.crc32(words), b"F2VINDEX")
    (tmp_path / "index").write_bytes(content + words + footer)
    with pytest.raises(IndexDamagedError, match="FAISS cannot read it"):
        loaded(tmp_path / "index", how)


def test_index_that_declares_another_kind_is_damage(
    few: tuple[Ids, Vectors], tmp_path: Path
) -> None:
    path = tmp_path / "index"
    index = FaceIndex.build([few], 40, D, "flat")
    index.kind = "pq"
    index.save(path)
    for how in ("", "mmap", "in_memory"):
        with pytest.raises(IndexDamagedError, match="FAISS cannot read it"):
            loaded(path, how)


@pytest.mark.parametrize("former", ["hnsw", "ivf", "ivfpq"])
def test_index_of_a_former_kind_says_so(
    few: tuple[Ids, Vectors], tmp_path: Path, former: str
) -> None:
    index = FaceIndex.build([few], 40, D, "flat")
    index.kind = former
    index.save(tmp_path / "index")
    with pytest.raises(FormerIndexError, match=f"of the former kind '{former}'; .* as 'pq'"):
        FaceIndex.load(tmp_path / "index")
