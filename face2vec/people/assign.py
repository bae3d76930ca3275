"""Assigns the faces of a gallery to people.

Existing assignments are kept unless all faces are to be grouped again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.writer import Writer
from face2vec.index.seam import FaceSearch
from face2vec.people.clustering import NEIGHBOURS, Evidence, Faces, Ids, joined
from face2vec.people.methods import grouped_by
from face2vec.types import Method

QUERIES = 1024  # queries per search of the index


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
        before = {person.id: person.faces for person in now.people()} if again else {}
        faces, near, people, doubtful = _material(now, index, again)
        evidence = Evidence(calibration, now.count, now.apart(), mates)
        faces = evidence.with_crowding(faces)
        people = {person: evidence.with_crowding(some) for person, some in people.items()}
        refused = now.refusals()
    person_of = {face: person for person, some in people.items() for face in some.ids.tolist()}

    def candidates(group: Faces) -> list[int]:
        rows = np.searchsorted(faces.ids, group.ids)
        return sorted({person_of[i] for row in rows for i in near[row].tolist() if i in person_of})

    found = (
        evidence.parted(ids) for ids in grouped_by(method, faces, evidence, near, people=count)
    )
    groups = [faces.select(np.searchsorted(faces.ids, ids)) for ids in found if len(ids) > 1]
    in_groups = {i for group in groups for i in group.ids.tolist()}
    alone = [
        faces.select(np.array([row])) for row, i in enumerate(faces.ids) if int(i) not in in_groups
    ]
    joining, new = joined(groups, people, candidates, evidence, refused)
    singles, still_alone = joined(alone, people, candidates, evidence, refused)
    for person, ids in singles.items():
        joining.setdefault(person, []).extend(ids)
    known = sum(map(len, joining.values()))
    renamed, new = _reuse_numbers(new, before, people, refused)
    writer.people.assign(joining | renamed, new, again=again)
    with read() as now:
        people_now = len(now.people())
    return PeopleSummary(people_now, len(new), known, len(still_alone), doubtful)


def _material(
    now: Snapshot, index: FaceSearch, again: bool
) -> tuple[Faces, list[Ids], dict[int, Faces], int]:
    """Read what grouping needs: unassigned faces, their nearest faces, and the faces of people.

    The fourth value is the number of unassigned faces that are left out as not sure.
    """
    ids, photos = now.images()
    members = now.memberships()
    kept = members.confirmed.astype(bool) | (not again)
    assigned, owners = members.faces[kept], members.people[kept]
    unassigned = ~np.isin(ids, assigned)
    free = unassigned & (now.sure())
    near = list(_nearest(now, index, ids[free]))
    faces = Faces(ids[free], now.embeddings(ids[free]), photos[free])
    people = {}
    for person in np.unique(owners).tolist():
        own = assigned[owners == person]
        own_photos = photos[np.searchsorted(ids, own)]
        people[person] = Faces(own, now.embeddings(own), own_photos)
    return faces, near, people, int((unassigned & ~free).sum())


def _nearest(now: Snapshot, index: FaceSearch, ids: NDArray[np.int64]) -> Iterator[Ids]:
    for start in range(0, len(ids), QUERIES):
        queries = now.embeddings(ids[start : start + QUERIES])
        yield from index.nearest(now, queries, NEIGHBOURS + 1).ids


def _reuse_numbers(
    new: Sequence[list[int]],
    before: dict[int, tuple[int, ...]],
    people: dict[int, Faces],
    refused: set[tuple[int, int]],
) -> tuple[dict[int, list[int]], list[list[int]]]:
    """Give groups the numbers of the earlier people that had most of their faces.

    Returns:
        Faces by number of an earlier person, and the remaining groups.
    """
    earlier = {face: person for person, ids in before.items() for face in ids}
    renamed: dict[int, list[int]] = {}
    rest = []
    for ids in sorted(new, key=len, reverse=True):
        counts = Counter(earlier[face] for face in ids if face in earlier)
        free = [
            (count, -person)
            for person, count in counts.items()
            if person not in renamed
            and person not in people
            and not any((face, person) in refused for face in ids)
        ]
        if free:
            renamed[-max(free)[1]] = ids
        else:
            rest.append(ids)
    return renamed, rest
