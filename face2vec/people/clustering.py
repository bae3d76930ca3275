"""Which faces are of one person, by what their similarities say of each pair.

Every pair has log odds: how much likelier it is that the two are one person than that they are
two, given their similarity and how many faces there are (see `calibration`). Groups are merged
as long as the mean of the log odds between them, over all pairs, is above 0 (agglomerative
clustering with average linkage: Sokal and Michener, 1958). There is no threshold to choose, and
evidence of any other kind adds to the log odds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.errors import MissingExtraError, SettingsError

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]

METHODS = ("average", "k-means", "dbscan", "hdbscan", "chinese-whispers")
NEIGHBOURS = 32
"""Of each face; in a group that holds together some pair of them is among these."""
LARGEST = 4096
"""Faces whose pairs are all looked at; of more that hang together, so many come first."""
SAMPLE = 64
"""Faces of a person that a newcomer is compared with."""
SAME_PHOTO = 4.6
"""Taken from the log odds of two faces in one photo: a mirror or a collage once in a hundred."""
PAIRS = 65536  # whose similarities are computed at a time


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces to be grouped.

    Attributes:
        ids: int64 (n,), rising.
        embeddings: float32 (n, d) of unit length.
        photos: int64 (n,), the same for faces in one photo.
    """

    ids: Ids
    embeddings: Vectors
    photos: Ids

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, rows: NDArray[Any]) -> Faces:
        """Some of them."""
        return Faces(self.ids[rows], self.embeddings[rows], self.photos[rows])


class Evidence:
    """How likely two faces are one person.

    Args:
        calibration: what a similarity says.
        among: how many faces there are; one in so many pairs is expected to be of one person.
    """

    def __init__(self, calibration: Calibration, among: int) -> None:
        self._calibration, self._prior = calibration, 1 / max(among, 2)

    def of(self, some: Faces, others: Faces) -> NDArray[np.float32]:
        """Log odds float32 (n, m) that they are one person, of all pairs of some and others."""
        cosines = some.embeddings @ others.embeddings.T
        return self.of_pairs(cosines, some.photos[:, None] == others.photos[None])

    def of_pairs(
        self, cosines: NDArray[np.float32], in_one_photo: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Log odds float32 of pairs, by their similarity and whether they are in one photo."""
        odds: Any = self._calibration.log_odds(cosines.astype(np.float64), self._prior)
        return np.asarray(odds - SAME_PHOTO * in_one_photo, np.float32)


def average(faces: Faces, evidence: Evidence, near: Sequence[Ids]) -> list[Ids]:
    """Groups of two faces or more, each the ids of one person; who is left over is alone.

    Faces that are linked by no chain of likelier pairs cannot come into one group, so each
    such chain is looked at by itself. Of one with more than 4,096 faces so many are grouped,
    drawn at random; the others join these groups, and who joins none is grouped after them.

    Args:
        faces: to be grouped.
        evidence: how likely two are one person.
        near: of each face the ids of those most similar to it, about ``NEIGHBOURS``; ids that
            are not to be grouped are passed over.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    links = _links(faces, evidence, near)
    groups: list[Ids] = []
    for rows in _chains(len(faces), links):
        groups += _within(faces.of(rows), evidence)
    return groups


def joined(
    groups: Iterable[Faces],
    people: Mapping[int, Faces],
    candidates: Callable[[Faces], Iterable[int]],
    evidence: Evidence,
    refused: set[tuple[int, int]],
) -> tuple[dict[int, list[int]], list[list[int]]]:
    """Who of the groups is somebody known, and who is new.

    Args:
        groups: each of one person.
        people: faces of those who are known, by number.
        candidates: numbers of those whom a group might be.
        evidence: how likely two faces are one person.
        refused: (face, person) of which somebody said that it is not so.

    Returns:
        Ids that join each person, and ids of each new one.
    """
    joining: dict[int, list[int]] = {}
    new: list[list[int]] = []
    for group in groups:
        ids = group.ids.tolist()
        best, likeliest = 0.0, None
        for person in candidates(group):
            if any((face, person) in refused for face in ids):
                continue
            mean = float(evidence.of(_some(group), _some(people[person])).mean())
            if mean > best:
                best, likeliest = mean, person
        if likeliest is not None:
            joining.setdefault(likeliest, []).extend(ids)
        else:
            new.append(ids)
    return joining, new


def by_method(
    method: str,
    faces: Faces,
    evidence: Evidence,
    near: Sequence[Ids],
    *,
    similarity: float,
    count: int | None = None,
) -> list[Ids]:
    """Groups of two faces or more, found in one of several ways; to compare with `average`.

    For sets of some ten thousand faces: ``"hdbscan"`` keeps the distances of all pairs.

    Args:
        method: one of ``METHODS``.
        faces: to be grouped.
        evidence: how likely two are one person; of ``"average"``.
        near: as `average` takes them.
        similarity: from which on two faces are linked, for ``"dbscan"`` (whose points need one
            neighbour; Ester et al., 1996) and ``"chinese-whispers"`` (Biemann, 2006).
        count: how many people there are, for ``"k-means"``.

    Raises:
        SettingsError: no such method, or k-means without a count.
        MissingExtraError: scikit-learn is not installed.
    """
    if method == "average":
        return average(faces, evidence, near)
    if method == "chinese-whispers":
        labels = _whispered(len(faces), *_similar(faces, near, similarity))
    elif method == "k-means":
        if count is None or not 1 <= count <= len(faces):
            raise SettingsError(
                f"k-means has to be told how many people there are, 1 to {len(faces):,}"
            )
        cluster = _package("sklearn.cluster", "k-means")
        labels = cluster.KMeans(count, n_init=4, random_state=0).fit_predict(faces.embeddings)
    elif method == "dbscan":
        cluster = _package("sklearn.cluster", "DBSCAN")
        labels = cluster.DBSCAN(
            eps=float(np.sqrt(max(2 - 2 * similarity, 1e-12))), min_samples=2
        ).fit_predict(faces.embeddings)
    elif method == "hdbscan":
        cluster = _package("sklearn.cluster", "HDBSCAN")
        # Of all pairs, for in so many dimensions its trees are slower than that by far.
        cosines = faces.embeddings.astype(np.float64) @ faces.embeddings.T
        distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
        labels = cluster.HDBSCAN(min_cluster_size=2, metric="precomputed", copy=False).fit_predict(
            distances
        )
    else:
        raise SettingsError(f"no method {method!r}; there are {', '.join(METHODS)}")
    return _grouped(faces.ids, np.asarray(labels, np.int64))


def _links(faces: Faces, evidence: Evidence, near: Sequence[Ids]) -> NDArray[np.int64]:
    """Pairs (n, 2) of rows that are likelier one person than two."""
    pairs = _neighbours(faces, near)
    one, other = pairs.T
    odds = evidence.of_pairs(_cosines(faces, pairs), faces.photos[one] == faces.photos[other])
    return pairs[odds > 0]


def _neighbours(faces: Faces, near: Sequence[Ids]) -> NDArray[np.int64]:
    """Pairs (n, 2) of rows, each once, of which one is among the nearest of the other."""
    ids = np.concatenate([*near, np.empty(0, np.int64)])
    rows = np.repeat(np.arange(len(near)), [len(one) for one in near])
    others = np.minimum(np.searchsorted(faces.ids, ids), len(faces) - 1)
    known = (faces.ids[others] == ids) & (others != rows)
    pairs = np.stack([rows[known], others[known]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _cosines(faces: Faces, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Similarities of pairs of rows, a part at a time for the memory that it takes."""
    parts = [
        np.einsum("ij,ij->i", *(faces.embeddings[rows] for rows in pairs[start : start + PAIRS].T))
        for start in range(0, len(pairs), PAIRS)
    ]
    return np.concatenate([*parts, np.empty(0, np.float32)])


def _similar(
    faces: Faces, near: Sequence[Ids], similarity: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs (n, 2) of rows at least so similar, and their similarities."""
    pairs = _neighbours(faces, near)
    cosines = _cosines(faces, pairs)
    return pairs[cosines >= similarity], cosines[cosines >= similarity]


def _chains(count: int, links: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows that hang together, two or more each."""
    sparse = _package("scipy.sparse", "clustering")
    graph = sparse.coo_matrix(
        (np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(count, count)
    )
    _, labels = importlib.import_module("scipy.sparse.csgraph").connected_components(
        graph, directed=False
    )
    return _grouped(np.arange(count), labels)


def _within(faces: Faces, evidence: Evidence) -> list[Ids]:
    if len(faces) <= LARGEST:
        return _linked(faces, evidence)
    drawn = np.random.default_rng(0).permutation(len(faces))
    first, rest = faces.of(np.sort(drawn[:LARGEST])), faces.of(np.sort(drawn[LARGEST:]))
    groups = _linked(first, evidence)
    if not groups:
        return _within(rest, evidence)
    samples = [_some(first.of(np.searchsorted(first.ids, ids))) for ids in groups]
    means = np.stack([evidence.of(rest, sample).mean(axis=1) for sample in samples], axis=1)
    likeliest = np.where(means.max(axis=1) > 0, means.argmax(axis=1), -1)
    grown = [
        np.concatenate([ids, rest.ids[likeliest == number]]) for number, ids in enumerate(groups)
    ]
    return [*grown, *_within(rest.of(np.flatnonzero(likeliest < 0)), evidence)]


def _linked(faces: Faces, evidence: Evidence) -> list[Ids]:
    """Average linkage of all pairs, merged while the mean log odds are above 0."""
    if len(faces) < 2:
        return []
    hierarchy = _package("scipy.cluster.hierarchy", "clustering")
    odds = evidence.of(faces, faces)
    farthest = float(odds.max())  # linkage wants distances, and none below 0
    distances = (farthest - odds)[np.triu_indices(len(faces), 1)].astype(np.float64)
    tree = hierarchy.linkage(distances, "average")
    labels = hierarchy.fcluster(tree, np.nextafter(farthest, -np.inf), "distance")
    return _grouped(faces.ids, labels)


def _whispered(
    count: int, pairs: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Each face takes the label that most of the weight around it has, until none changes."""
    around: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for (one, other), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        around[one].append((other, weight))
        around[other].append((one, weight))
    labels = list(range(count))
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed = False
        for row in rng.permutation(count).tolist():
            heard: dict[int, float] = {}
            for other, weight in around[row]:
                heard[labels[other]] = heard.get(labels[other], 0.0) + weight
            if heard:
                loudest = max(heard, key=lambda label: heard[label])
                changed |= loudest != labels[row]
                labels[row] = loudest
        if not changed:
            break
    return np.array(labels, np.int64)


def _grouped(ids: Ids, labels: NDArray[np.int64]) -> list[Ids]:
    """Ids by label, two or more each; label −1 is nobody's."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    parts = np.split(order, ends)
    return [ids[part] for part in parts if len(part) > 1 and labels[part[0]] >= 0]


def _some(faces: Faces) -> Faces:
    """At most 64 of them, spread evenly."""
    if len(faces) <= SAMPLE:
        return faces
    return faces.of(np.linspace(0, len(faces) - 1, SAMPLE).astype(np.int64))


def _package(package: str, what: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = "scikit-learn" if package.startswith("sklearn") else "scipy"
        raise MissingExtraError(what, name, "people") from error
