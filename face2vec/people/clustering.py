"""Clusters faces into people by the log odds of pairs.

The log odds of a pair say how probable it is that both faces show one person, given their
similarity and the number of faces (see `calibration`). Groups merge while the mean pairwise log
odds between them are positive: agglomerative clustering with average linkage (Sokal and Michener,
1958). No threshold has to be chosen, and other evidence can be added to the log odds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.errors import MissingExtraError
from face2vec.products import product

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

NEIGHBOURS = 32
"""Number of nearest faces of each face that are considered as links."""
LARGEST = 4096
"""Largest connected component whose pairs are all compared; of a larger one, a sample is."""
SAMPLE = 64
"""Largest number of faces of a group that are compared with another group."""
SAME_PHOTO = 4.6
"""Subtracted from the log odds of two faces in one photo, which rarely show one person.

It is ln 100: mirrors and collages are assumed to be one in a hundred."""
PAIRS = 65536  # pairs whose similarities are computed together
ROWS = 1024  # faces whose crowding is computed together
ROUNDING = 1e-3
"""More than a similarity of an index differs from that of the embeddings."""
BLOCK = 16384
"""Faces whose links are found together, and faces that join groups together."""
NEVER = -1e9
"""Log odds of two faces that a user has said are of different people: no mean with it is above 0.
"""


class StoredVectors:
    """Embeddings that are read when rows of them are asked for.

    Args:
        ids: int64 (n,), the faces of the rows.
        read: returns the embeddings float32 (m, d) of ids int64 (m,).
    """

    def __init__(self, ids: Ids, read: Callable[[Ids], Vectors]) -> None:
        self._ids, self._read = ids, read

    def __getitem__(self, rows: NDArray[Any] | slice) -> Vectors:
        return self._read(self._ids[rows])

    def select(self, rows: NDArray[Any]) -> StoredVectors:
        """The same of some of the rows, int64 (m,) or bool (n,)."""
        return StoredVectors(self._ids[rows], self._read)


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces to group.

    Attributes:
        ids: int64 (n,), increasing.
        embeddings: float32 (n, d), each of unit length; or where they are read from.
        photos: int64 (n,), the number of each face's photo, or of its frame of a video.
        crowding: float64 (n,) from `Evidence.with_crowding`; None before that.
    """

    ids: Ids
    embeddings: Vectors | StoredVectors
    photos: Ids
    crowding: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray[Any]) -> Faces:
        """Select some of the faces, with their embeddings.

        Args:
            rows: int64 (m,) or bool (n,), an index of the rows.
        """
        return self._of(rows, self.embeddings[rows])

    def part(self, rows: NDArray[Any]) -> Faces:
        """Select some of the faces; embeddings that were not read stay where they are.

        Args:
            rows: int64 (m,) or bool (n,), an index of the rows.
        """
        if isinstance(self.embeddings, StoredVectors):
            return self._of(rows, self.embeddings.select(rows))
        return self.select(rows)

    def without(self, rows: NDArray[np.int64]) -> Faces:
        """The `part` of all faces but some.

        Args:
            rows: int64 (m,), the rows to leave out.
        """
        kept = np.ones(len(self), bool)
        kept[rows] = False
        return self.part(kept)

    def _of(self, rows: NDArray[Any], embeddings: Vectors | StoredVectors) -> Faces:
        crowding = None if self.crowding is None else self.crowding[rows]
        return Faces(self.ids[rows], embeddings, self.photos[rows], crowding)

    @property
    def vectors(self) -> Vectors:
        """The embeddings, read, float32 (n, d)."""
        return self.embeddings[:] if isinstance(self.embeddings, StoredVectors) else self.embeddings


class Evidence:
    """Computes the log odds that pairs of faces show one person.

    Args:
        calibration: converts similarities to log odds.
        among: number of faces N.
        apart: pairs of ids of faces that a user has said are of different people.
        mates: expected number of other faces of a face's person; divided by N, it is the prior
            probability of a pair.
    """

    def __init__(
        self,
        calibration: Calibration,
        among: int,
        apart: Iterable[tuple[int, int]] = (),
        mates: float = 1.0,
    ) -> None:
        self._calibration, self._prior = calibration, min(mates / max(among, 2), 0.5)
        self._apart = np.array([*apart], np.int64).reshape(-1, 2)

    @property
    def even_similarity(self) -> float:
        """The lowest similarity, of faces without crowding, at which the odds are even or better.

        It is 1 if no similarity is enough.
        """
        return self.least_similarity(0.5)

    def least_similarity(self, probability: float) -> float:
        """The lowest similarity, of faces without crowding, with at least this probability.

        Args:
            probability: 0 < probability < 1.

        Returns:
            −1…1; 1 if no similarity is enough.
        """
        similarities = np.linspace(-1, 1, 4001)
        odds = self._calibration.log_odds(similarities, self._prior)
        enough = odds >= np.log(probability / (1 - probability))
        return float(similarities[np.argmax(enough)]) if enough.any() else 1.0

    def between(self, some: Faces, others: Faces) -> NDArray[np.float32]:
        """Log odds of all pairs of two sets of faces.

        Args:
            some: n faces.
            others: m faces.

        Returns:
            float32 (n, m).
        """
        similarities = product(some.vectors, others.vectors).astype(np.float64)
        crowding = (self._crowded(some)[:, None] + self._crowded(others)) / 2
        in_one_photo = some.photos[:, None] == others.photos
        odds = self._log_odds(similarities, crowding, in_one_photo)
        odds[self._pairs_of(some, others)] = NEVER
        return odds

    def are_apart(self, some: Faces, others: Faces) -> bool:
        """Whether a user has said that a face of the one and one of the other show two people."""
        return bool(len(self._pairs_of(some, others)[0]))

    def parted(self, ids: Ids) -> Ids:
        """A group without the faces that a user has said are of other people than earlier ones.

        Args:
            ids: int64 (n,) ids of a group.

        Returns:
            int64 (m,), m ≤ n, in the same order.
        """
        if not len(self._apart):
            return ids
        inside = self._apart[np.isin(self._apart, ids).all(axis=1)]
        kept = ids.tolist()
        for pair in inside.tolist():
            if set(pair) <= set(kept):
                kept.remove(max(pair))
        return np.array(kept, np.int64)

    def of_pairs(self, faces: Faces, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log odds of some pairs.

        Args:
            faces: the faces.
            pairs: int64 (n, 2) rows of the faces.

        Returns:
            float32 (n,).
        """
        one, other = pairs.T
        crowded = self._crowded(faces)
        crowding = (crowded[one] + crowded[other]) / 2
        in_one_photo = faces.photos[one] == faces.photos[other]
        return self._log_odds(cosines(faces, pairs).astype(np.float64), crowding, in_one_photo)

    def that_may_link(
        self,
        faces: Faces,
        near: Sequence[Ids],
        similarities: Sequence[Vectors],
        first: int,
    ) -> list[Ids]:
        """Those of the faces nearest to each face whose log odds with it may be positive.

        Args:
            faces: the faces, with their crowding.
            near: int64 (m,) ids of the faces nearest to each face, from row ``first`` on.
            similarities: float32 (m,) similarities of each, up to rounding.
            first: that row.

        Returns:
            int64 (m,) ids of each face.
        """
        counts = [len(one) for one in near]
        ids = np.concatenate([*near, np.empty(0, np.int64)])
        alike = np.concatenate([*similarities, np.empty(0, np.float32)]).astype(np.float64)
        rows = np.repeat(np.arange(first, first + len(near)), counts)
        others = np.minimum(np.searchsorted(faces.ids, ids), len(faces) - 1)
        crowded = self._crowded(faces)
        crowding = (crowded[rows] + crowded[others]) / 2
        in_one_photo = faces.photos[rows] == faces.photos[others]
        kept = self._log_odds(alike + ROUNDING, crowding, in_one_photo) > 0
        kept &= faces.ids[others] == ids
        ends = np.cumsum(counts)[:-1]
        parts = zip(np.split(ids, ends), np.split(kept, ends), strict=True)
        return [some[which] for some, which in parts]

    def with_crowding(self, faces: Faces) -> Faces:
        """The same faces with their crowding, so that it is computed once and not in each call."""
        return replace(faces, crowding=self._crowded(faces))

    def _pairs_of(self, some: Faces, others: Faces) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of ``some`` and rows of ``others`` of the pairs that are apart."""
        if not len(self._apart):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        pairs = np.concatenate([self._apart, self._apart[:, ::-1]])
        known = np.isin(pairs[:, 0], some.ids) & np.isin(pairs[:, 1], others.ids)
        one, other = pairs[known].T
        return _rows(some.ids, one), _rows(others.ids, other)

    def _crowded(self, faces: Faces) -> NDArray[np.float64]:
        if faces.crowding is not None:
            return faces.crowding
        parts = [
            self._calibration.crowded(faces.embeddings[start : start + ROWS])
            for start in range(0, len(faces), ROWS)
        ]
        return np.concatenate([*parts, np.empty(0)])

    def _log_odds(
        self,
        similarities: NDArray[np.float64],
        crowding: NDArray[np.float64],
        in_one_photo: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        odds = self._calibration.log_odds(similarities, self._prior, crowding)
        return np.asarray(odds - SAME_PHOTO * in_one_photo, np.float32)


def average(faces: Faces, evidence: Evidence, near: Sequence[Ids]) -> list[Ids]:
    """Group faces with average linkage.

    Faces without a path of links with positive log odds cannot be in one group, so each connected
    component is clustered separately. Of a component with more than 4,096 faces, a random sample
    of that size is clustered first; the other faces join its groups, and those that join none are
    clustered next.

    Args:
        faces: the faces to group.
        evidence: computes the log odds of pairs.
        near: int64 (m,) ids of the faces nearest to each face, about ``NEIGHBOURS``; ids that
            are not in ``faces`` are ignored.

    Returns:
        int64 (k,) ids of each group of two or more faces; all other faces are alone.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    faces = evidence.with_crowding(faces)
    blocks = (near[start : start + BLOCK] for start in range(0, len(near), BLOCK))
    return linked_by(faces, evidence, links_of_blocks(faces, evidence, blocks))


def linked_by(faces: Faces, evidence: Evidence, links: NDArray[np.integer[Any]]) -> list[Ids]:
    """Group faces with average linkage, as `average` does, of known links.

    Embeddings that were not read are read component by component.

    Args:
        faces: the faces to group, with their crowding.
        evidence: computes the log odds of pairs.
        links: int32 or int64 (n, 2) rows of the pairs with positive log odds; a pair may occur
            twice.

    Returns:
        int64 (k,) ids of each group of two or more faces.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    groups: list[Ids] = []
    for rows in _components(len(faces), links):
        groups += _within(faces.part(rows), evidence)
    return groups


def joined(
    groups: Iterable[Faces],
    people: Mapping[int, Faces],
    candidates: Callable[[Faces], Iterable[int]],
    evidence: Evidence,
    refused: set[tuple[int, int]],
) -> tuple[dict[int, list[int]], list[list[int]]]:
    """Match groups of faces to existing people.

    Args:
        groups: groups of faces, each of one person.
        people: faces of each existing person, by number.
        candidates: returns the numbers of the people that a group may belong to.
        evidence: computes the log odds of pairs.
        refused: pairs of face and person that a user has excluded.

    Returns:
        Ids of the faces that join each person, and ids of the faces of each new person.
    """
    joining: dict[int, list[int]] = {}
    new: list[list[int]] = []
    for group in groups:
        ids = group.ids.tolist()
        best, likeliest = 0.0, None
        for person in candidates(group):
            if any((face, person) in refused for face in ids):
                continue
            if evidence.are_apart(group, people[person]):
                continue
            mean = float(evidence.between(sample(group), sample(people[person])).mean())
            if mean > best:
                best, likeliest = mean, person
        if likeliest is not None:
            joining.setdefault(likeliest, []).extend(ids)
        else:
            new.append(ids)
    return joining, new


def _rows(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """The row of each of the wanted ids, which are all among ``ids``."""
    order = np.argsort(ids, kind="stable")
    return np.asarray(order[np.searchsorted(ids, wanted, sorter=order)], np.int64)


def links_of_blocks(
    faces: Faces, evidence: Evidence, blocks: Iterable[Sequence[Ids]]
) -> NDArray[np.int32]:
    """Pairs with positive log odds among nearest faces; the memory is that of a block and of these.

    Args:
        faces: the faces, with their crowding.
        evidence: computes the log odds of pairs.
        blocks: int64 (m,) ids of the faces nearest to each face, in blocks of successive faces.

    Returns:
        int32 (n, 2) rows of the faces, lower first. A pair occurs in each block that it is in.
    """
    found = [np.empty((0, 2), np.int32)]
    first = 0
    for near in blocks:
        pairs = neighbours(faces, near, first)
        found.append(pairs[evidence.of_pairs(faces, pairs) > 0].astype(np.int32))
        first += len(near)
    return np.concatenate(found)


def neighbours(faces: Faces, near: Sequence[Ids], first: int = 0) -> NDArray[np.int64]:
    """Distinct pairs of faces, one of which is among the nearest faces of the other.

    Args:
        faces: the faces.
        near: int64 (m,) ids of the faces nearest to each face, from a row on.
        first: that row.

    Returns:
        int64 (n, 2) rows of the faces, lower first.
    """
    ids = np.concatenate([*near, np.empty(0, np.int64)])
    rows = np.repeat(np.arange(first, first + len(near)), [len(one) for one in near])
    others = np.minimum(np.searchsorted(faces.ids, ids), len(faces) - 1)
    known = (faces.ids[others] == ids) & (others != rows)
    pairs = np.stack([rows[known], others[known]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def cosines(faces: Faces, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Similarities of pairs, computed in parts to limit memory.

    Each embedding of a part is read once.

    Args:
        faces: the faces.
        pairs: int64 (n, 2) rows of the faces.

    Returns:
        float32 (n,).
    """
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), PAIRS):
        some = pairs[start : start + PAIRS]
        vectors: Vectors | StoredVectors = faces.embeddings
        if isinstance(vectors, StoredVectors):
            rows, places = np.unique(some, return_inverse=True)
            vectors, some = vectors[rows], places.reshape(some.shape)
        parts.append(np.einsum("ij,ij->i", vectors[some[:, 0]], vectors[some[:, 1]]))
    return np.concatenate(parts)


def _components(count: int, links: NDArray[np.integer[Any]]) -> list[NDArray[np.int64]]:
    """Rows of each connected component of two or more faces."""
    sparse = _scipy("scipy.sparse")
    graph = sparse.coo_matrix(
        (np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(count, count)
    )
    _, labels = importlib.import_module("scipy.sparse.csgraph").connected_components(
        graph, directed=False
    )
    return grouped(np.arange(count), labels)


def _within(faces: Faces, evidence: Evidence) -> list[Ids]:
    found: list[Ids] = []
    while len(faces) > LARGEST:
        drawn = np.random.default_rng(0).permutation(len(faces))[:LARGEST]
        first = faces.select(np.sort(drawn))
        groups = _linked(first, evidence)
        faces = faces.without(drawn)
        if groups:
            samples = [sample(first.select(np.searchsorted(first.ids, ids))) for ids in groups]
            likeliest = _likeliest(faces, samples, evidence)
            found += [
                np.concatenate([ids, faces.ids[likeliest == number]])
                for number, ids in enumerate(groups)
            ]
            faces = faces.without(np.flatnonzero(likeliest >= 0))
    return [*found, *_linked(faces, evidence)]


def _likeliest(faces: Faces, samples: Sequence[Faces], evidence: Evidence) -> NDArray[np.int64]:
    """Number of the sample of a group that each face is likeliest of, int64 (n,); −1 for none."""
    found = np.full(len(faces), -1)
    for start in range(0, len(faces), BLOCK):
        some = faces.select(np.arange(start, min(start + BLOCK, len(faces))))
        means = np.stack([evidence.between(some, one).mean(axis=1) for one in samples], axis=1)
        found[start : start + BLOCK] = np.where(means.max(axis=1) > 0, means.argmax(axis=1), -1)
    return found


def _linked(faces: Faces, evidence: Evidence) -> list[Ids]:
    """Average linkage over all pairs, merging while the mean log odds are positive."""
    if len(faces) < 2:
        return []
    hierarchy = _scipy("scipy.cluster.hierarchy")
    odds = evidence.between(faces, faces)
    farthest = float(odds.max())  # linkage needs non-negative distances
    distances = (farthest - odds)[np.triu_indices(len(faces), 1)].astype(np.float64)
    tree = hierarchy.linkage(distances, "average")
    labels = hierarchy.fcluster(tree, np.nextafter(farthest, -np.inf), "distance")
    return grouped(faces.ids, labels)


def grouped(ids: Ids, labels: NDArray[np.int64]) -> list[Ids]:
    """Split ids by label.

    Args:
        ids: int64 (n,).
        labels: int64 (n,), the label of each id; −1 for none.

    Returns:
        int64 (m,) ids of each label that has two or more.
    """
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    parts = np.split(order, ends)
    return [ids[part] for part in parts if len(part) > 1 and labels[part[0]] >= 0]


def sample(faces: Faces) -> Faces:
    """At most ``SAMPLE`` of the faces, evenly spaced."""
    if len(faces) <= SAMPLE:
        return faces
    return faces.select(np.linspace(0, len(faces) - 1, SAMPLE).astype(np.int64))


def _scipy(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError("clustering", "scipy", "people") from error
