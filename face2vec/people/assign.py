"""Assigns the faces of a gallery to people.

Existing assignments are kept unless all faces are to be grouped again. Of a large gallery, only the
numbers of faces, pairs that belong together and one block of embeddings are in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.writer import Writer
from face2vec.index.seam import FaceSearch
from face2vec.people.clustering import (
    BLOCK,
    NEIGHBOURS,
    Evidence,
    Faces,
    Ids,
    StoredVectors,
    Vectors,
    joined,
    linked_by,
    links_of_blocks,
)
from face2vec.people.methods import grouped_by
from face2vec.types import Method

QUERIES = 1024  # queries per search of the index
IN_MEMORY = 1 << 30
"""Bytes of the embeddings of a gallery up to which all are read at once; with more, each is read
when it is compared."""


class PeopleSummary(NamedTuple):
    """What `find_people` did.

    Attributes:
        people: number of people now.
        new: how many of them are new.
        joined: faces that joined an existing person.
        alone: faces without a similar face.
        doubtful: faces that were left out for their being hardly sure to be a face.
    """

    people: int
    new: int
    joined: int
    alone: int
    doubtful: int


def find_people(
    writer: Writer,
    read: Callable[[], Snapshot],
    index: FaceSearch,
    calibration: Calibration,
    *,
    mates: float = 1.0,
    again: bool = False,
    method: Method = "average",
    count: int | None = None,
) -> PeopleSummary:
    """Group unassigned faces; the groups join existing people or become new ones.

    Args:
        writer: writes to the gallery.
        read: reads the gallery.
        index: the gallery's index.
        calibration: converts similarities to log odds.
        mates: expected number of other faces of a face's person.
        again: whether to first remove all assignments that no user has confirmed. A removed
            person's number is reused for the new person with most of its faces.
        method: how to group, see `grouped_by`.
        count: number of people, for k-means.

    Raises:
        SettingsError: the method does not suit the faces.
        MissingExtraError: SciPy is not installed.
    """
    with read() as now:
        seen = _Seen.of(now, again)
        evidence = Evidence(calibration, now.count, now.apart(), mates)
        faces = evidence.with_crowding(seen.free)
        people = _People(seen, evidence)
        beside = _Beside(seen.owners)
        blocks = _blocks(now, index, faces, evidence, beside, keep_all=method != "average")
        if method == "average":
            groups = linked_by(faces, evidence, links_of_blocks(faces, evidence, blocks))
        else:
            near = [ids for block in blocks for ids in block]
            groups = grouped_by(method, faces, evidence, near, people=count)
        groups = [ids for ids in map(evidence.parted, groups) if len(ids) > 1]
        grouped = np.unique(np.concatenate([*groups, np.empty(0, np.int64)]))
        alone = np.flatnonzero(~np.isin(faces.ids, grouped))
        near_people = beside.table(len(faces))
        beside_nobody = near_people.counts[alone] == 0
        refused = now.refusals()

        def candidates(group: Faces) -> list[int]:
            return near_people.of(np.searchsorted(faces.ids, group.ids))

        parts = (faces.part(np.searchsorted(faces.ids, ids)) for ids in groups)
        joining, new = joined(parts, people, candidates, evidence, refused)
        singles = (faces.part(np.array([row])) for row in alone[~beside_nobody].tolist())
        single, still_alone = joined(singles, people, candidates, evidence, refused)
        for person, ids in single.items():
            joining.setdefault(person, []).extend(ids)
        known = sum(map(len, joining.values()))
        renamed, new = _reuse_numbers(new, seen.before, people, refused)
    writer.people.assign(joining | renamed, new, again=again)
    with read() as now:
        people_now = now.count_people()
    left = len(still_alone) + int(beside_nobody.sum())
    return PeopleSummary(people_now, len(new), known, left, seen.doubtful)


class _Owners:
    """The person of each of some faces.

    Args:
        faces: int64 (n,), rising.
        people: int64 (n,), numbers of their people.
    """

    def __init__(self, faces: Ids, people: Ids) -> None:
        self.faces, self.people = faces, people

    def of(self, ids: Ids) -> Ids:
        """Number of the person of each face, int64 (m,); 0 for none."""
        if not len(self.faces):
            return np.zeros(len(ids), np.int64)
        rows = np.minimum(np.searchsorted(self.faces, ids), len(self.faces) - 1)
        return np.where(self.faces[rows] == ids, self.people[rows], 0)


class _Seen(NamedTuple):
    """What grouping needs of a gallery.

    Attributes:
        free: the faces to group. Their embeddings are in memory if those of all faces may be.
        owners: the people of the faces that keep them.
        members: the faces of ``owners`` with their photos, in order of face.
        before: the people of all faces, if all are grouped again.
        doubtful: number of faces that are left out as not sure.
    """

    free: Faces
    owners: _Owners
    members: Faces
    before: _Owners
    doubtful: int

    @classmethod
    def of(cls, now: Snapshot, again: bool) -> _Seen:
        """Read it.

        Args:
            now: the gallery.
            again: whether only faces that a user has confirmed keep their people.
        """
        ids, photos = now.images()
        members = now.memberships()
        kept = members.confirmed.astype(bool) | (not again)
        owners = _Owners(members.faces[kept], members.people[kept])
        unassigned = ~np.isin(ids, owners.faces)
        free = unassigned & now.sure()
        is_small = now.bytes_of_embeddings <= IN_MEMORY

        def vectors(some: Ids) -> Vectors | StoredVectors:
            return now.embeddings(some) if is_small else StoredVectors(some, now.embeddings)

        nobody = np.empty(0, np.int64)
        return cls(
            Faces(ids[free], vectors(ids[free]), photos[free]),
            owners,
            Faces(owners.faces, vectors(owners.faces), photos[np.searchsorted(ids, owners.faces)]),
            _Owners(members.faces, members.people) if again else _Owners(nobody, nobody),
            int((unassigned & ~free).sum()),
        )


class _People(Mapping[int, Faces]):
    """The faces of each person, by number, read when they are asked for if there are many."""

    def __init__(self, seen: _Seen, evidence: Evidence) -> None:
        self._members = seen.members
        order = np.argsort(seen.owners.people, kind="stable")
        numbers, starts = np.unique(seen.owners.people[order], return_index=True)
        self._rows = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=False))
        self._evidence = evidence
        self._known: dict[int, Faces] = {}

    def __getitem__(self, person: int) -> Faces:
        if isinstance(self._members.embeddings, StoredVectors):
            return self._members.part(self._rows[person])
        if person not in self._known:
            faces = self._members.select(self._rows[person])
            self._known[person] = self._evidence.with_crowding(faces)
        return self._known[person]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class _Beside:
    """The people who have faces near to other faces, gathered block by block.

    Args:
        owners: the people of faces.
    """

    def __init__(self, owners: _Owners) -> None:
        self._owners = owners
        self._parts = [np.empty((0, 2), np.int32)]

    def add(self, near: Sequence[Ids], first: int) -> None:
        """Add the faces nearest to each of some successive faces, from row ``first`` on."""
        if not len(self._owners.faces):
            return
        rows = np.repeat(np.arange(first, first + len(near)), [len(one) for one in near])
        people = self._owners.of(np.concatenate([*near, np.empty(0, np.int64)]))
        pairs = np.stack([rows, people], axis=1)[people > 0]
        self._parts.append(np.unique(pairs, axis=0).astype(np.int32))

    def table(self, count: int) -> _NearPeople:
        """What was gathered, of ``count`` faces."""
        pairs = np.concatenate(self._parts)
        self._parts = []
        return _NearPeople(pairs[:, 1], np.bincount(pairs[:, 0], minlength=count))


class _NearPeople:
    """The people who have faces near to each of some faces.

    Args:
        people: int32 (m,), numbers of the people of all faces, face by face.
        counts: int64 (n,), how many of them are of each face.
    """

    def __init__(self, people: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        self._people, self.counts = people, counts
        self._ends = np.cumsum(counts)

    def of(self, rows: NDArray[np.int64]) -> list[int]:
        """The people near to any of the faces, rising."""
        some = [self._people[self._ends[row] - self.counts[row] : self._ends[row]] for row in rows]
        found: list[int] = np.unique(np.concatenate([*some, np.empty(0, np.int32)])).tolist()
        return found


def _blocks(
    now: Snapshot,
    index: FaceSearch,
    faces: Faces,
    evidence: Evidence,
    beside: _Beside,
    *,
    keep_all: bool,
) -> Iterator[list[Ids]]:
    """The faces nearest to each face, in blocks of successive faces.

    Args:
        now: the gallery.
        index: its index.
        faces: the faces, with their crowding.
        evidence: computes the log odds of pairs.
        beside: gets the people of the nearest faces.
        keep_all: yield also those that cannot be linked; all are yielded if embeddings are in
            memory.
    """
    for first in range(0, len(faces), BLOCK):
        block = faces.ids[first : first + BLOCK]
        near: list[Ids] = []
        for start in range(0, len(block), QUERIES):
            queries = now.embeddings(block[start : start + QUERIES])
            found = index.nearest(now, queries, NEIGHBOURS + 1)
            beside.add(found.ids, first + start)
            if keep_all or not isinstance(faces.embeddings, StoredVectors):
                near += found.ids
            else:  # other pairs would be read from the disk, to be dropped
                near += evidence.that_may_link(faces, found.ids, found.similarities, first + start)
        yield near


def _reuse_numbers(
    new: Sequence[list[int]],
    before: _Owners,
    people: Collection[int],
    refused: set[tuple[int, int]],
) -> tuple[dict[int, list[int]], list[list[int]]]:
    """Give groups the numbers of the earlier people that had most of their faces.

    Returns:
        Faces by number of an earlier person, and the remaining groups.
    """
    renamed: dict[int, list[int]] = {}
    rest = []
    for ids in sorted(new, key=len, reverse=True):
        counts = Counter(before.of(np.array(ids, np.int64)).tolist())
        free = [
            (count, -person)
            for person, count in counts.items()
            if person
            and person not in renamed
            and person not in people
            and not any((face, person) in refused for face in ids)
        ]
        if free:
            renamed[-max(free)[1]] = ids
        else:
            rest.append(ids)
    return renamed, rest
