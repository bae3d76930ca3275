"""Searching: from the faces of a query to the nearest faces of the gallery and their matches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.encoding.quality import outside
from face2vec.errors import SettingsError
from face2vec.gallery.reader import Snapshot, State
from face2vec.gallery.rows import StoredFace, StoredFaces
from face2vec.index.seam import Nearest
from face2vec.photos.sources import PhotoLike
from face2vec.pose import By, pose_distances, pose_vectors
from face2vec.query import Query, QueryReader, embedding_of, gallery_face
from face2vec.report.matches import Matches, QueryResult
from face2vec.session import Session, mean_crowding
from face2vec.types import Face, Match, Photo, Reason

MOST_LIKELY_BEFORE = 0.5
"""Highest prior probability that a face of the gallery shows the query's person."""
POSES_PER_STEP = 256  # faces whose similarity is looked up at a time


SEVERAL_PEOPLE = Reason("the photos of the query may show several people", "several-people")


class Searcher:
    """Searches the gallery of a session.

    Args:
        session: the gallery and its index.
        queries: reads the queries.
    """

    def __init__(self, session: Session, queries: QueryReader) -> None:
        self._session = session
        self._queries = queries
        self._places: _Places | None = None

    def search(
        self,
        query: Query,
        k: int,
        min_similarity: float | None,
        far: float | None,
        mates: float | None,
    ) -> list[QueryResult]:
        """See `Face2Vec.search`."""
        gallery = self._session.gallery()
        self._check(far)
        name, faces, embeddings, source, averaged = self._queries.faces_of(query)
        if not len(embeddings):
            return []
        itself = gallery_face(query, gallery) if isinstance(query, Face) else None
        with gallery.read(mmap=True) as now:
            bar = self._bar(now, min_similarity, far, mates)
            wanted = k if itself is None else k + 1
            found = self._session.index().nearest(now, embeddings, wanted)
            similarities, ids, count = found.similarities, found.ids, found.total
            crowding = bar.crowding(now, embeddings, found)
            doubts = bar.doubts_of(averaged)
            for n, row in enumerate(similarities):
                keep = bar.passed(row, crowding[n])
                if itself is not None:
                    keep &= ids[n] != itself.id
                if not keep.all() or len(keep) > k:
                    similarities[n], ids[n] = row[keep][:k], ids[n][keep][:k]
                    crowding[n] = crowding[n][keep][:k]
            stored = now.faces_there(sorted({i for row in ids for i in row.tolist()}))
        return [
            QueryResult(
                name,
                face,
                _matches(stored, row, row_ids, bar, near, count, face, doubts),
                source,
                number,
                len(faces),
                bar.mates,
            )
            for number, (face, row, row_ids, near) in enumerate(
                zip(faces, similarities, ids, crowding, strict=True), 1
            )
        ]

    def search_pose(
        self,
        query: PhotoLike | Photo | Face,
        k: int,
        by: By,
        among: Sequence[int] | None,
        min_similarity: float | None,
        far: float | None,
    ) -> list[QueryResult]:
        """See `Face2Vec.search_pose`.

        Args:
            query: a photo, or a face of the gallery.
            k: maximum number of matches per face.
            by: what to compare, see `pose_vectors`.
            among: ids of the faces to search; None for all.
            min_similarity: lowest similarity to the query face, −1…1.
            far: highest false accept rate of that similarity, 0…1.

        Raises:
            SettingsError: a face is not in the gallery.
        """
        gallery = self._session.gallery()
        self._check(far)
        if isinstance(query, Face):
            if query.embedding is not None:
                embedding_of(query, gallery.fingerprint.model.digest)
            if gallery_face(query, gallery) is None:
                raise SettingsError("search by pose with a photo, or with a face of the gallery")
            if not query.is_placed:
                raise SettingsError(
                    f"{query!r} was imported without its place in a photo, so it has no pose; "
                    "search by similarity"
                )
            asked: Photo | Face = query
        else:
            asked = self._queries.open(query)
        name, faces, embeddings, source, _ = self._queries.faces_of(asked)
        with gallery.read() as now:
            bar = self._bar(now, min_similarity, far, None)
            self._places = places = _Places.at(now, self._places)
            ids, points, sizes = places.ids, places.points, places.sizes
            keep = np.ones(len(ids), bool)
            if isinstance(asked, Face):
                keep = ids != asked.id
                vectors = pose_vectors(points[~keep], sizes[~keep], by)
            else:
                size = asked.width, asked.height
                landmarks = [face.landmarks for face in faces if face is not None]
                vectors = pose_vectors(landmarks, [size] * len(faces), by)
            keep &= points.any(axis=(1, 2))  # the others have no place in a photo
            if among is not None:
                keep &= np.isin(ids, among)
            ids, known = ids[keep], pose_vectors(points[keep], sizes[keep], by)
            found = []
            for face, embedding, vector in zip(faces, embeddings, vectors, strict=True):
                distances = pose_distances(vector, known)
                order = np.argsort(distances, kind="stable")
                nearest = _similar_enough(now, ids[order], embedding, k, bar)
                found.append((face, [(float(distances[order[n]]), i, s) for n, i, s in nearest]))
            stored = now.faces(sorted({i for _, best in found for _, i, _ in best}))
        records = {one.face.id: one for one in stored.records()}
        return [
            QueryResult(name, face, Matches(_posed(records, best)), source, number, len(found))
            for number, (face, best) in enumerate(found, 1)
        ]

    def _check(self, far: float | None) -> None:
        """Refuse a rate that is not known, before the query is read."""
        if far is not None:
            self._session.calibration().threshold(far)

    def _bar(
        self, now: Snapshot, min_similarity: float | None, far: float | None, mates: float | None
    ) -> _Bar:
        around = self._session.surroundings(now)
        if around is None:
            return _Bar(min_similarity, None, None, None)
        threshold = None if far is None else around.calibration.threshold(far)
        if mates is None:  # A search is made for somebody who is expected to be found.
            mates = max(around.mates, 1.0)
        return _Bar(min_similarity, around.calibration, threshold, mates)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the landmarks of all faces are, kept from one search to the next.

    Attributes:
        state: state of the gallery.
        ids: int64 (n,), rising.
        points: float64 (n, 5, 2), in pixels.
        sizes: int64 (n, 2), width and height of the photos.
    """

    state: State
    ids: NDArray[np.int64]
    points: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @classmethod
    def at(cls, now: Snapshot, before: _Places | None) -> _Places:
        """Read the landmarks, or only those that have changed since an earlier search."""
        if before is None or not now.has_been(before.state):
            return cls(now.state, *now.landmarks())
        if before.state == now.state:
            return before
        changes = now.changes_since(before.state)
        keep = ~np.isin(before.ids, np.concatenate([changes.added, changes.removed]))
        ids, points, sizes = now.landmarks(changes.added.tolist())
        all_ids = np.concatenate([before.ids[keep], ids])
        order = np.argsort(all_ids, kind="stable")
        return cls(
            now.state,
            all_ids[order],
            np.concatenate([before.points[keep], points])[order],
            np.concatenate([before.sizes[keep], sizes])[order],
        )


@dataclass(frozen=True)
class _Bar:
    """What a match must reach.

    Attributes:
        least: lowest similarity, or None.
        calibration: the gallery's calibration, or None.
        threshold: lowest similarity less the crowding of the two faces, or None.
        mates: expected number of faces that show the query's person; None without a calibration.
    """

    least: float | None
    calibration: Calibration | None
    threshold: float | None
    mates: float | None

    def crowding(
        self, now: Snapshot, queries: NDArray[np.float32], found: Nearest
    ) -> list[NDArray[np.float64]]:
        """Mean crowding of each query and each of its matches; 0 without a calibration."""
        if self.calibration is None or not self.calibration.is_crowded:
            return [np.zeros(len(row)) for row in found.ids]
        return mean_crowding(self.calibration, now, queries, found)

    def crowding_of(
        self, query: NDArray[np.float32], matched: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Mean crowding of a query and each of its matches, if `passed` needs it; otherwise 0."""
        if self.calibration is None or self.threshold is None:
            return np.zeros(len(matched))
        return (self.calibration.crowded(query) + self.calibration.crowded(matched)) / 2

    def doubts_of(self, averaged: Sequence[NDArray[np.float32]]) -> tuple[Reason, ...]:
        """Why all probabilities are less certain, if two faces of a query are of two people."""
        if self.calibration is None or len(averaged) < 2:
            return ()
        embeddings = np.stack(averaged)
        pairs = np.triu_indices(len(embeddings), 1)
        odds = self.calibration.log_odds(
            self.calibration.adjusted(embeddings)[pairs].astype(np.float64)
        )
        return () if (odds >= 0).all() else (SEVERAL_PEOPLE,)

    def passed(
        self, similarities: NDArray[np.float32], crowding: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether matches with these similarities and crowdings reach the bar."""
        keep = np.ones(len(similarities), bool)
        if self.least is not None:
            keep &= similarities >= self.least
        if self.threshold is not None:
            keep &= similarities - crowding >= self.threshold
        return keep


def _matches(
    stored: StoredFaces,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    bar: _Bar,
    crowding: NDArray[np.float64],
    count: int,
    query: Face | None,
    more_doubts: tuple[Reason, ...] = (),
) -> Matches:
    """Matches among ``count`` faces, whose records are made at first access."""
    some = stored.of(ids.tolist())

    def ranked() -> Iterator[Match]:
        cosines = np.clip(similarities.astype(np.float64), -1.0, 1.0)  # rounding can exceed 1
        probabilities: list[float | None] = [None] * len(cosines)
        false: list[float | None] = [None] * len(cosines)
        calibration = bar.calibration
        if calibration is not None and bar.mates is not None:
            prior = min(bar.mates / max(count, 2), MOST_LIKELY_BEFORE)
            probabilities = calibration.probability(cosines, prior, crowding).tolist()
            false = ((count - 1) * calibration.far(cosines, crowding)).tolist()
        columns = zip(cosines.tolist(), probabilities, false, strict=True)
        by_id = dict(zip(ids.tolist(), columns, strict=True))
        for rank, (face, photo, copies) in enumerate(some, 1):
            similarity, probability, others = by_id[face.id]
            doubts = () if query is None or probability is None else (query.parts, face.parts)
            yield Match(
                rank,
                similarity,
                face,
                photo,
                copies,
                probability,
                others,
                outside=(*more_doubts, *(outside(*doubts) if doubts else ())),
            )

    return Matches.later(len(some), ranked)


def _similar_enough(
    now: Snapshot,
    ids: NDArray[np.int64],
    embedding: NDArray[np.float32],
    most: int,
    bar: _Bar,
) -> list[tuple[int, int, float]]:
    """(place, id, similarity) of the first ``most`` faces that are similar enough."""
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(ids), POSES_PER_STEP):
        some = ids[start : start + POSES_PER_STEP]
        vectors = now.embeddings(some)
        cosines = vectors @ embedding
        keep = np.flatnonzero(bar.passed(cosines, bar.crowding_of(embedding, vectors)))
        found += [(start + int(n), int(some[n]), float(cosines[n])) for n in keep]
        if len(found) >= most:
            break
    return found[:most]


def _posed(
    records: Mapping[int | None, StoredFace], best: Iterable[tuple[float, int, float]]
) -> Iterator[Match]:
    for rank, (distance, i, cosine) in enumerate(best, 1):
        one = records[i]
        similarity = min(max(cosine, -1.0), 1.0)
        yield Match(rank, similarity, one.face, one.photo, one.copies, pose_distance=distance)
