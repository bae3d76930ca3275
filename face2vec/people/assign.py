"""Brings the people of a gallery up to date with its faces.

Who somebody is stays as it was found, unless it is asked for again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import Calibration
from face2vec.gallery.gallery import Gallery, Snapshot
from face2vec.index.face_index import FaceIndex
from face2vec.index.sync import GalleryIndex, nearest_faces
from face2vec.people.clustering import NEIGHBOURS, Evidence, Faces, Ids, average, joined

QUERIES = 1024  # in one call of the index
SURE = 0.9
"""Confidence of the detector from which on a face is grouped. Below it lies much of what it takes
for faces and is none, such as ears and blur, and these are alike enough to make up a person."""


class PeopleSummary(NamedTuple):
    """What `find_people` did.

    Attributes:
        people: how many people there are now.
        new: how many of them are new.
        joined: faces that joined somebody who was known.
        alone: faces that are like no other.
        doubtful: faces that were not looked at, for they may be none.
    """

    people: int
    new: int
    joined: int
    alone: int
    doubtful: int


def find_people(
    gallery: Gallery, index: GalleryIndex, calibration: Calibration, *, again: bool = False
) -> PeopleSummary:
    """Group the faces that are nobody's yet; let them join people, or be new ones.

    Args:
        gallery: open for writing.
        index: its index.
        calibration: what similarities mean.
        again: first take back all that was found before and nobody said. Numbers of people
            stay with whoever has most of their faces.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    before = {person.id: person.faces for person in gallery.people()} if again else {}
    with gallery.snapshot() as now:
        faces, near, people, doubtful = _material(now, index, again)
        evidence = Evidence(calibration, now.count)
        refused = now.refusals()
    who = {face: person for person, some in people.items() for face in some.ids.tolist()}

    def candidates(group: Faces) -> list[int]:
        rows = np.searchsorted(faces.ids, group.ids)
        met = Counter(who[i] for row in rows for i in near[row].tolist() if i in who)
        return sorted(met)

    groups = [faces.of(np.searchsorted(faces.ids, ids)) for ids in average(faces, evidence, near)]
    grouped = {i for group in groups for i in group.ids.tolist()}
    alone = [faces.of(np.array([row])) for row, i in enumerate(faces.ids) if int(i) not in grouped]
    joining, new = joined(groups, people, candidates, evidence, refused)
    late, still = joined(alone, people, candidates, evidence, refused)
    for person, ids in late.items():
        joining.setdefault(person, []).extend(ids)
    known = sum(map(len, joining.values()))
    renamed, new = _same_again(new, before, people, refused)
    gallery.assign(joining | renamed, new, again=again)
    gallery.drop_nobodies()
    return PeopleSummary(len(gallery.people()), len(new), known, len(still), doubtful)


def _material(
    now: Snapshot, index: GalleryIndex, again: bool
) -> tuple[Faces, list[Ids], dict[int, Faces], int]:
    """Faces that are nobody's, those most similar to each, people's faces, number of doubtful."""
    ids, photos = now.contents()
    members = now.memberships()
    kept = members.said.astype(bool) | (not again)
    taken, whose = members.faces[kept], members.people[kept]
    nobodys = ~np.isin(ids, taken)
    free = nobodys & (now.confidences() >= SURE)
    with index.at(now) as current:
        near = list(_nearest(now, current, ids[free]))
    faces = Faces(ids[free], now.embeddings(ids[free]), photos[free])
    people = {}
    for person in np.unique(whose).tolist():
        own = taken[whose == person]
        own_photos = photos[np.searchsorted(ids, own)]
        people[person] = Faces(own, now.embeddings(own), own_photos)
    return faces, near, people, int((nobodys & ~free).sum())


def _nearest(now: Snapshot, index: FaceIndex, ids: NDArray[np.int64]) -> Iterator[Ids]:
    for start in range(0, len(ids), QUERIES):
        queries = now.embeddings(ids[start : start + QUERIES])
        yield from nearest_faces(index, now, queries, NEIGHBOURS + 1)[1]


def _same_again(
    new: Sequence[list[int]],
    before: dict[int, tuple[int, ...]],
    people: dict[int, Faces],
    refused: set[tuple[int, int]],
) -> tuple[dict[int, list[int]], list[list[int]]]:
    """New people who get the number of somebody that most of their faces were of, and the rest."""
    was = {face: person for person, ids in before.items() for face in ids}
    renamed: dict[int, list[int]] = {}
    rest = []
    for ids in sorted(new, key=len, reverse=True):
        met = Counter(was[face] for face in ids if face in was)
        free = [
            (count, -person)
            for person, count in met.items()
            if person not in renamed
            and person not in people
            and not any((face, person) in refused for face in ids)
        ]
        if free:
            renamed[-max(free)[1]] = ids
        else:
            rest.append(ids)
    return renamed, rest
