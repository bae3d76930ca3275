from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_builder import DIMENSION
from helpers import fake_fingerprint, loaded_by, posix_only, reads, state_of, written
from numpy.typing import NDArray

from face2vec.errors import GalleryDamagedError, GalleryError
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.index import policy
from face2vec.index import sync as indexing
from face2vec.index.face_index import FaceIndex
from face2vec.index.policy import Measured
from face2vec.index.sync import GalleryIndex, nearest_faces
from face2vec.types import Face

ROOT = "/photos"
POINTS = ((1.0, 1.0),) * 5


def embedding(seed: object) -> np.ndarray:
    digest = hashlib.sha256(str(seed).encode()).digest()
    vector = np.random.default_rng(list(digest)).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def entry(name: str, seed: object = None) -> Entry:
    content = hashlib.sha256(f"{name} {seed}".encode()).digest()
    face = Face((0.0, 0.0, 9.0, 9.0), POINTS, 1.0, embedding(name if seed is None else seed))
    return Entry(ROOT, name, 1, 1, content, 9, 9, INDEXED, faces=(face,))


def record(gallery: Gallery, *entries: Entry) -> None:
    with gallery.write() as writer:
        writer.record(entries)


def found(index: GalleryIndex, now: Snapshot, query: np.ndarray, k: int = 1000) -> dict[int, float]:
    with index.at(now) as ready:
        similarities, ids = nearest_faces(ready, now, query[None], k)
    return dict(zip(ids[0].tolist(), similarities[0].tolist(), strict=True))


def truth(gallery: Gallery, query: np.ndarray) -> dict[int, float]:
    with gallery.read() as now:
        return {
            int(i): pytest.approx(float(row @ query), abs=1e-6)
            for ids, rows in now
            for i, row in zip(ids, rows, strict=True)
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gallery"


@pytest.fixture
def gallery(folder: Path) -> Iterator[Gallery]:
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        record(gallery, *(entry(f"{i}.jpg") for i in range(20)))
        yield gallery


QUERY = embedding("query")


@pytest.fixture(autouse=True)
def codes_of_few_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "PQ_FACES_LEAST", 16)


@pytest.mark.parametrize("hold", [False, True], ids=["", "held"])
@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_an_index_follows_the_gallery(gallery: Gallery, kind: str, hold: bool) -> None:
    index = GalleryIndex(gallery, kind, hold)
    for change in (
        lambda: None,
        lambda: writer.record([entry("new.jpg"), entry("newer.jpg")]),
        lambda: writer.remove([f"{ROOT}/{i}.jpg" for i in (3, 7, 11)]),
        lambda: writer.record([entry("5.jpg", "changed")]),
    ):
        with gallery.write() as writer:
            change()
        with gallery.read() as now:
            assert found(index, now, QUERY) == truth(gallery, QUERY)
            with index.at(now) as ready:
                assert (ready.kind, ready.state, len(ready)) == (kind, now.state, now.count)


def record_drawn(gallery: Gallery, count: int) -> NDArray[np.float32]:
    """Record so many photos with a face each; their embeddings, drawn at random."""
    vectors = np.random.default_rng(0).standard_normal((count, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    record(gallery, *(
        Entry(ROOT, f"{n}.jpg", 1, 1, n.to_bytes(32, "big"), 9, 9, INDEXED,
              faces=(Face((0.0, 0.0, 9.0, 9.0), POINTS, 1.0, vector),))
        for n, vector in enumerate(vectors)
    ))  # fmt: skip
    return vectors


@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_embeddings_that_were_read_are_those_of_the_faces_found(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        vectors = record_drawn(gallery, 3000)
        indexes = GalleryIndex(gallery, kind)
        with gallery.read(mmap=True) as now:
            for count in (1, 200):
                found = indexes.nearest(now, vectors[:count], 4)
                assert found.embeddings is not None
                ids = np.unique(np.concatenate(found.ids))
                np.testing.assert_array_equal(found.embeddings, now.embeddings(ids))
            monkeypatch.setattr("face2vec.index.sync.QUERIES_KEPT", 199)
            assert (indexes.nearest(now, vectors[:200], 4).embeddings is None) == (kind == "pq")


def test_reranking_in_threads_equals_one_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        vectors = record_drawn(gallery, 3000)
        indexes = GalleryIndex(gallery, "pq")
        with gallery.read(mmap=True) as now, indexes.at(now) as ready:
            ready._faces.measured = Measured(0.99, 500, 30, 100, 3000)
            monkeypatch.setattr("face2vec.index.face_index.faiss.omp_get_max_threads", lambda: 4)
            assert [ready.readers(n, 10) for n in (1, 33, 34, 60, 1000)] == [1, 1, 2, 3, 4]
            monkeypatch.undo()
            expected = ready.search(vectors[:100], 10, [now.embeddings])
            monkeypatch.setattr(FaceIndex, "readers", lambda *_: 3)
            similarities, ids = nearest_faces(ready, now, vectors[:100], 10)
            np.testing.assert_array_equal(np.stack(ids), np.stack(expected[1]))
            np.testing.assert_array_equal(np.stack(similarities), np.stack(expected[0]))
            exact = [vectors[row - 1] @ query for row, query in zip(ids, vectors, strict=False)]
            np.testing.assert_allclose(np.stack(similarities), np.stack(exact), atol=1e-6)


def test_a_search_in_an_older_snapshot_gets_the_newer_index(gallery: Gallery) -> None:
    index = GalleryIndex(gallery)
    with gallery.read() as old:
        record(gallery, entry("new.jpg"))
        with gallery.read() as now:
            assert found(index, now, QUERY) == truth(gallery, QUERY)
        with index.at(old) as ready:
            assert ready.state == state_of(gallery) != old.state


def test_an_index_newer_than_the_snapshot_is_taken_from_its_file(
    gallery: Gallery, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when another process finishes a build between the two."""
    with gallery.read() as old:
        record(gallery, entry("new.jpg"))
        GalleryIndex(gallery).save()
        with Gallery.open(folder) as again, GalleryIndex(again).at(old) as ready:
            assert ready.state == state_of(gallery)
            assert ready.read_only
    assert caplog.text == ""


@pytest.mark.parametrize("hold", [False, True], ids=["", "held"])
def test_an_index_that_another_process_wrote_is_taken_from_its_file(
    gallery: Gallery, folder: Path, hold: bool
) -> None:
    """And not brought up to it here, whether it was searched before or not."""
    GalleryIndex(gallery).save()
    with Gallery.open(folder) as again:
        index = GalleryIndex(again, in_memory=hold)
        for lagging in (False, True, True):
            with again.read() as now:
                assert found(index, now, QUERY) == truth(gallery, QUERY)
                with index.at(now) as ready:
                    assert ready.state == state_of(gallery)
                    assert ready.read_only
                    assert ready._bytes is not None
                    assert ready._bytes.flags.owndata == hold
            record(gallery, entry(f"new {reads(gallery).counts().photos}.jpg"))
            if lagging:  # the gallery is searched before the other process has written its index
                with again.read() as now, index.at(now) as ready:
                    assert not ready.read_only
                record(gallery, entry(f"new {reads(gallery).counts().photos}.jpg"))
            GalleryIndex(gallery).save()


def restored(folder: Path, backup: Path) -> None:
    for end in ("-wal", "-shm"):
        (folder / f"gallery.sqlite{end}").unlink(missing_ok=True)
    shutil.copy(backup, folder / "gallery.sqlite")


@pytest.mark.parametrize("more", [0, 2, 5], ids=["behind", "as far", "beyond"])
def test_index_from_before_a_restored_backup_is_rebuilt(
    folder: Path, tmp_path: Path, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    """However far the journal has grown since, and with the same ids."""
    with Gallery.create(folder, fake_fingerprint(DIMENSION)) as gallery:
        record(gallery, *(entry(f"{i}.jpg") for i in range(20)))
    backup = shutil.copy(folder / "gallery.sqlite", tmp_path)
    with Gallery.open(folder) as gallery:
        record(gallery, entry("lost.jpg"), entry("lost too.jpg"))
        GalleryIndex(gallery).save()
    restored(folder, backup)
    with Gallery.open(folder) as gallery:
        record(gallery, *(entry(f"another {i}.jpg") for i in range(more)))
        index = GalleryIndex(gallery)
        (problem,) = index.problems()
        assert str(folder / "index.faiss") in problem
        assert "another state" in problem
        assert "run rebuild" in problem
        with caplog.at_level(logging.WARNING), gallery.read() as now:
            assert found(index, now, QUERY) == truth(gallery, QUERY)
        assert "another state" in caplog.text
        index.save()
        assert index.problems() == []


def test_an_index_of_another_gallery_is_built_again(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    with Gallery.create(tmp_path / "other", fake_fingerprint(DIMENSION)) as other:
        record(other, *(entry(f"{i}.jpg") for i in range(20)))
        assert state_of(other)[1:] == state_of(gallery)[1:]  # the same photos in the same order
        GalleryIndex(other).save()
    shutil.copy(tmp_path / "other" / "index.faiss", folder)
    index = GalleryIndex(gallery)
    assert index.problems() == [f"{folder / 'index.faiss'} belongs to another gallery; run rebuild"]
    with gallery.read() as now:
        assert found(index, now, QUERY) == truth(gallery, QUERY)


def test_problems_names_a_wrong_number_of_faces(gallery: Gallery, folder: Path) -> None:
    index = GalleryIndex(gallery)
    assert index.problems() == [
        f"{folder / 'index.faiss'} is missing; it will be rebuilt when it is needed"
    ]
    index.save()
    assert index.problems() == []
    short = FaceIndex.load(folder / "index.faiss")
    short.remove(np.array([1, 2]))
    short.save(folder / "index.faiss")
    assert index.problems() == [f"{folder / 'index.faiss'} holds 18 faces, not 20; run rebuild"]


@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_threads_may_search_while_another_process_writes(
    gallery: Gallery, folder: Path, kind: str
) -> None:
    """Each answer is right for one state of the gallery, or for a newer index."""
    index = GalleryIndex(gallery, kind)
    embeddings = {i + 1: embedding(f"{i}.jpg") for i in range(20)}
    embeddings |= {21 + i: embedding(f"new {i}.jpg") for i in range(120)}
    done = threading.Event()

    def write() -> None:
        try:
            with Gallery.open(folder) as opened, opened.write() as writer:
                for i in range(120):
                    writer.record([entry(f"new {i}.jpg")])
                    if i % 3 == 0:
                        writer.remove([f"{ROOT}/new {i // 2}.jpg"])
        finally:
            done.set()

    def search(seed: int) -> int:
        searches = 0
        while not done.is_set() or not searches:
            query = embedding((seed, searches))
            with gallery.read() as now:
                before = set(np.concatenate([ids for ids, _ in now]).tolist())
                answer = found(index, now, query)
                with index.at(now) as ready:
                    newer = ready.state.position > now.state.position
            for i, similarity in answer.items():
                assert similarity == pytest.approx(float(embeddings[i] @ query), abs=1e-6)
            assert newer or answer.keys() == before
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        searching = [pool.submit(search, seed) for seed in range(3)]
        writing.result()
        assert min(one.result() for one in searching) > 0
    with gallery.read() as now:
        assert found(index, now, QUERY) == truth(gallery, QUERY)


def test_an_index_that_failed_half_way_is_not_used(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = GalleryIndex(gallery)
    with gallery.read() as now:
        found(index, now, QUERY)
    record(gallery, *(entry(f"new {i}.jpg") for i in range(3)))
    add, added = FaceIndex.add, []

    def failing(*arguments: Any) -> None:
        added.append(1)
        if len(added) == 2:
            raise MemoryError
        add(*arguments)

    with gallery.read() as now:
        with monkeypatch.context() as patch:
            patch.setattr(FaceIndex, "add", failing)
            patch.setattr(indexing, "BATCH", 1)
            with pytest.raises(MemoryError):
                found(index, now, QUERY)
        with index.at(now) as ready:
            assert len(ready) == now.count == 23
        assert found(index, now, QUERY) == truth(gallery, QUERY)


def loaded_by_saving(folder: Path) -> set[str]:
    """What another process imports to have the index of a gallery written."""
    return loaded_by(
        "from face2vec.gallery.gallery import Gallery\n"
        "from face2vec.index.sync import GalleryIndex\n"
        f"with Gallery.open({str(folder)!r}) as gallery, gallery.write() as writer:\n"
        "    GalleryIndex(gallery).save()\n"
    )


def test_an_index_that_is_written_already_is_left_alone_without_faiss(
    gallery: Gallery, folder: Path
) -> None:
    GalleryIndex(gallery).save()
    before = written(folder / "index.faiss")
    assert "faiss" not in loaded_by_saving(folder)
    assert written(folder / "index.faiss") == before
    record(gallery, entry("new.jpg"))
    assert "faiss" in loaded_by_saving(folder)
    assert len(FaceIndex.load(folder / "index.faiss")) == 21


@pytest.mark.parametrize("kind", ["pq", "flat"])
def test_save_rebuilds_an_index_of_another_kind_or_a_damaged_one(
    gallery: Gallery, folder: Path, kind: str
) -> None:
    path = folder / "index.faiss"
    GalleryIndex(gallery, "flat").save()
    if kind == "flat":
        damaged = bytearray(path.read_bytes())
        damaged[-20] ^= 1
        path.write_bytes(damaged)
    index = GalleryIndex(gallery, kind)
    index.save()
    assert FaceIndex.load(path).kind == kind
    assert index.problems() == []


@posix_only
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_index_file_that_is_not_regular_is_reported_and_replaced(
    gallery: Gallery, folder: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    GalleryIndex(gallery).save()
    path = folder / "index.faiss"
    other = path.rename(tmp_path / "other")
    before = other.read_bytes()
    if what == "link":
        path.symlink_to(other)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    index = GalleryIndex(gallery)
    assert ["regular file" in problem for problem in index.problems()] == [True]
    with gallery.read() as now:
        assert found(index, now, QUERY) == truth(gallery, QUERY)
    assert "regular file" in caplog.text
    assert other.read_bytes() == before
    if what == "folder":
        with pytest.raises(GalleryError, match="cannot write the index"):
            index.rebuild()
        return
    index.rebuild()
    assert index.problems() == []
    assert other.read_bytes() == before


def damaged_at(path: Path, whole: bytes, place: int) -> None:
    content = bytearray(whole)
    content[place] ^= 0x40  # of a float's last byte, this bit makes it huge or tiny
    path.write_bytes(content)


def wait_for_verification() -> None:
    for thread in threading.enumerate():
        if thread.name == "verify index":
            thread.join()


@pytest.fixture
def large(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """A gallery whose index counts as large, and whose parts are longer than their two ends."""
    monkeypatch.setattr("face2vec.index.face_index.VERIFIED_BYTES", 0)
    monkeypatch.setattr("face2vec.index.file._END_BYTES", 64)
    return gallery


def test_damaged_index_never_gives_a_wrong_similarity(
    large: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever byte of the embeddings is damaged, and before the file has been verified."""
    monkeypatch.setattr(GalleryIndex, "_verify_later", lambda *_: None)
    GalleryIndex(large, "flat").save()
    path = large.folder / "index.faiss"
    whole = path.read_bytes()
    right, distrusted = truth(large, QUERY), 0
    with large.read() as now:
        vectors = now.embeddings([2])[0].tobytes()
        start = whole.index(vectors)
        for place in range(start + 3, start + len(vectors), 8):
            damaged_at(path, whole, place)
            index = GalleryIndex(large, "flat")
            similarities, ids, total, _ = index.nearest(now, QUERY[None], 5)
            assert len(ids[0]) == 5
            assert total == 20
            for face, similarity in zip(ids[0].tolist(), similarities[0].tolist(), strict=True):
                assert similarity == right[face]
            distrusted += index._distrusted
    assert distrusted >= 1


def test_damage_anywhere_in_a_large_index_is_found_after_it_was_opened(
    large: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    GalleryIndex(large, "flat").save()
    path = large.folder / "index.faiss"
    whole = path.read_bytes()
    with large.read() as now:
        vectors = now.embeddings([7])[0].tobytes()
        place = whole.index(vectors) + 1  # changes too little to be seen in a similarity
        damaged_at(path, whole, place)
        index = GalleryIndex(large, "flat")
        index.nearest(now, QUERY[None], 5)
        wait_for_verification()
        for _ in range(3):
            similarities, ids, _, _ = index.nearest(now, QUERY[None], 20)
            assert dict(zip(ids[0].tolist(), similarities[0].tolist(), strict=True)) == truth(
                large, QUERY
            )
            wait_for_verification()
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert ["its checksum is wrong" in one.getMessage() for one in warnings] == [True]  # said once
    index.save()
    assert path.read_bytes() == whole
    assert GalleryIndex(large, "flat").problems() == []


def test_damage_in_a_small_index_is_found_when_it_is_opened(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    GalleryIndex(gallery).save()
    path = gallery.folder / "index.faiss"
    whole = path.read_bytes()
    with gallery.read() as now:
        place = whole.index(now.embeddings([7])[0].tobytes()) + 1
        damaged_at(path, whole, place)
        index = GalleryIndex(gallery)
        similarities, ids, _, _ = index.nearest(now, QUERY[None], 20)
        assert dict(zip(ids[0].tolist(), similarities[0].tolist(), strict=True)) == truth(
            gallery, QUERY
        )
    assert caplog.text.count("its checksum is wrong") == 1


def test_sound_index_is_verified_once_and_stays_mapped(
    large: Gallery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    GalleryIndex(large).save()
    verified = []
    verify = GalleryIndex._verify
    monkeypatch.setattr(
        GalleryIndex, "_verify", lambda *given: (verified.append(1), verify(*given))
    )
    index = GalleryIndex(large)
    with large.read() as now:
        for _ in range(3):
            index.nearest(now, QUERY[None], 5)
            wait_for_verification()
        with index.at(now) as ready:
            assert ready.read_only
    assert verified == [1]
    assert caplog.text == ""


def test_index_newer_than_the_snapshot_is_not_taken_for_damaged(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    index = GalleryIndex(gallery)
    with gallery.read() as old:
        record(gallery, entry("5.jpg", "changed"))
        index.save()
        _, ids, total, _ = index.nearest(old, QUERY[None], 20)
        assert (len(ids[0]), total) == (20, 20)
    assert caplog.text == ""


def change_embedding(folder: Path, face_id: int) -> None:
    """Change one bit of a stored embedding, as a failing disk does."""
    with sqlite3.connect(folder / "gallery.sqlite") as connection:
        (blob,) = connection.execute(
            "SELECT embedding FROM embeddings WHERE face_id = ?", (face_id,)
        ).fetchone()
        changed = bytes([*blob[:3], blob[3] ^ 64, *blob[4:]])
        connection.execute(
            "UPDATE embeddings SET embedding = ? WHERE face_id = ?", (changed, face_id)
        )
    connection.close()


def test_changed_embedding_is_an_error_and_not_another_answer(
    gallery: Gallery, folder: Path
) -> None:
    index = GalleryIndex(gallery)
    with gallery.read() as now:
        query = now.embeddings([7])
        assert index.nearest(now, query, 3).ids[0][0] == 7
    index.save()
    change_embedding(folder, 7)
    with gallery.read() as now, pytest.raises(GalleryDamagedError, match="face 7 has changed"):
        GalleryIndex(gallery).nearest(now, query, 3)
    with pytest.raises(GalleryDamagedError, match="face 7 has changed"):
        GalleryIndex(gallery).rebuild()


def test_missing_row_of_a_face_is_an_error(gallery: Gallery) -> None:
    with gallery.read() as now:
        assert len(now.faces_there([1, 2])) == 2
        with pytest.raises(GalleryDamagedError, match="face 999"):
            now.faces_there([1, 999])


@pytest.mark.parametrize("hold", [False, True], ids=["", "held"])
@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_few_faces_are_added_beside_a_large_file_which_stays(
    large: Gallery, kind: str, hold: bool
) -> None:
    GalleryIndex(large, kind).save()
    path = large.folder / "index.faiss"
    before = written(path)
    index = GalleryIndex(large, kind, hold)
    for number in range(3):
        record(large, entry(f"later-{number}.jpg"))
        index.save()
        with large.read() as now:
            assert found(index, now, QUERY) == truth(large, QUERY)
            nearest = embedding(f"later-{number}.jpg")
            similarities, ids, total, _ = index.nearest(now, np.stack([nearest, QUERY]), 4)
            best = sorted(truth(large, QUERY).items(), key=lambda one: -one[1].expected)[:4]
        assert total == 21 + number
        assert ids[0][0] == 21 + number
        assert similarities[0][0] == pytest.approx(1)
        assert ids[1].tolist() == [face for face, _ in best]
    assert written(path) == before
    with large.read() as now:  # another process
        assert found(GalleryIndex(large, kind), now, QUERY) == truth(large, QUERY)
    assert index.problems() == []


def test_many_faces_or_a_removed_one_rewrite_a_large_file(
    large: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face2vec.index.face_index.LATER_LEAST", 2)
    GalleryIndex(large, "flat").save()
    path = large.folder / "index.faiss"
    before = written(path)
    index = GalleryIndex(large, "flat")
    record(large, entry("one.jpg"))
    index.save()
    record(large, entry("two.jpg"))
    index.save()
    assert written(path) == before
    record(large, entry("three.jpg"))
    index.save()
    after = written(path)
    assert after != before
    assert len(FaceIndex.load(path)) == 23
    index = GalleryIndex(large, "flat")
    record(large, entry("four.jpg"))
    index.save()
    assert written(path) == after
    with large.write() as writer:
        writer.remove([f"{ROOT}/0.jpg"])
    index.save()
    assert len(FaceIndex.load(path)) == 23
    with large.read() as now:
        assert found(index, now, QUERY) == truth(large, QUERY)
