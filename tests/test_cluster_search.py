"""Searches of Milvus with an index of lists, with and without filters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_cluster_gallery import open_at

from face2vec import Face, Face2Vec, GalleryError
from face2vec.cluster import policy, search
from face2vec.gallery.rows import INDEXED, Entry

pytestmark = pytest.mark.cluster
FACES, IN_PHOTO, DIMENSION = 4000, 10, 512
POINTS = ((30.0, 40.0), (60.0, 40.0), (45.0, 60.0), (33.0, 75.0), (57.0, 75.0))


@pytest.fixture(scope="module")
def embeddings() -> NDArray[np.float32]:
    rows = np.random.default_rng(5).standard_normal((FACES, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@pytest.fixture(scope="module")
def large(servers: Any, embeddings: NDArray[np.float32], tiny_model: Any) -> Iterator[Face2Vec]:
    """A gallery of drawn faces with an index of lists, as a large one has."""
    with pytest.MonkeyPatch.context() as patch, open_at(servers.address()) as engine:
        patch.setattr(search, "EXACT_BELOW", 1000)
        patch.setattr(policy, "EXACT_BELOW", 1000)
        patch.setattr(policy, "CLUSTERS", 128)
        patch.setattr(policy, "PROBED", 64)
        session = engine._session
        session.gallery_made_with(session.fingerprint_with(session.model()))
        with session.write() as writer:
            photos = []
            for start in range(0, FACES, IN_PHOTO):
                faces = tuple(
                    Face((1.0, 2.0, 90.0, 99.0), POINTS, 0.99, row, quality=start / FACES)
                    for row in embeddings[start : start + IN_PHOTO]
                )
                sha256 = hashlib.sha256(str(start).encode()).digest()
                name = f"{start}.jpg"
                photos.append(Entry("/photos", name, 1, 2, sha256, 640, 480, INDEXED, "", faces))
            writer.record(photos)
            session.index().save()
        yield engine


def numbers(engine: Face2Vec) -> NDArray[np.int64]:
    """Numbers of the faces in the order of their embeddings."""
    with engine.snapshot() as now:
        return now.contents()[0]


def recall(found: Any, truth: NDArray[np.int64]) -> float:
    pairs = zip(found.ids, truth, strict=True)
    return sum(len(set(row.tolist()) & set(true.tolist())) for row, true in pairs) / truth.size


def nearest_exactly(
    queries: NDArray[np.float32], rows: NDArray[np.float32], ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    return ids[np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :10]]


def test_large_gallery_has_an_index_of_lists_and_exact_similarities(
    large: Face2Vec, embeddings: NDArray[np.float32]
) -> None:
    assert large.info()["index"] == "Milvus IVF_SQ8"
    queries = embeddings[::100]
    with large.snapshot() as now:
        found = large._session.index().nearest(now, queries, 10)
        np.testing.assert_array_equal(now.embeddings(numbers(large)[:50]), embeddings[:50])
    assert found.total == FACES
    assert recall(found, nearest_exactly(queries, embeddings, numbers(large))) >= 0.85
    place = {number: row for row, number in enumerate(numbers(large).tolist())}
    for query, cosines, ids in zip(queries, found.similarities, found.ids, strict=True):
        exact = embeddings[[place[i] for i in ids.tolist()]] @ query
        np.testing.assert_allclose(cosines, exact, atol=1e-6)
        assert (np.diff(cosines) <= 0).all()


@pytest.mark.parametrize("exactly", [True, False])
def test_narrow_filter_loses_no_face(
    large: Face2Vec,
    embeddings: NDArray[np.float32],
    exactly: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exactly:
        monkeypatch.setattr(policy, "EXACT_FACES", 0)
    kept = FACES // 100
    queries = embeddings[:40]
    with large.snapshot() as now:
        found = large._session.index().nearest(now, queries, 10, where="quality < 0.0099")
    truth = nearest_exactly(queries, embeddings[:kept], numbers(large)[:kept])
    assert recall(found, truth) == 1


def test_wrong_password_is_told_without_it(servers: Any) -> None:
    with pytest.raises(GalleryError, match="cannot be used, because Milvus failed") as wrong:
        open_at(servers.address().replace("root:Milvus", "root:open-sesame"))
    assert "open-sesame" not in str(wrong.value)
    assert wrong.value.__cause__ is None
