"""Suggests which people, and which faces without a person, may be one person.

Grouping merges what has even odds or better. What is below may still be one person, and a user can
say so. Suggestions are in the order of what an answer settles: the probability times the number of
faces that would get another person.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from face2vec.calibration import Calibration
from face2vec.gallery.reader import Snapshot
from face2vec.index.seam import FaceSearch
from face2vec.people.clustering import NEIGHBOURS, SAMPLE, Evidence, Faces
from face2vec.types import Person, Side, Suggestion

ASKED = 4
"""Faces of a person whose nearest faces are looked up."""
COMPARED = SAMPLE
"""Faces of a person that are compared with another side, the best by quality."""
MOST_ASKED = 20_000
"""Faces whose nearest faces are looked up; the largest people come first."""
LEAST = 0.02
"""Lowest probability that is suggested."""
SHOWN = 2
"""Faces that are shown of each side."""
QUERIES = 1024  # queries per search of the index

_Key = tuple[int, int]
"""(person, 0) of a person; (0, face) of a face without a person."""


def suggestions(
    now: Snapshot, index: FaceSearch, calibration: Calibration, mates: float, most: int
) -> list[Suggestion]:
    """Pairs that may be one person, those first that settle most.

    Two people with different names are never suggested, nor pairs that a user has said are
    different people, nor hidden people.

    Args:
        now: the gallery.
        index: the gallery's index.
        calibration: converts similarities to log odds.
        mates: expected number of other faces of a face's person.
        most: maximum number of suggestions.
    """
    ids, photos = now.contents()
    people = {person.id: person for person in now.people() if person.faces}
    photo_of = dict(zip(ids.tolist(), photos.tolist(), strict=True))
    owner = {face: person.id for person in people.values() for face in person.faces}
    lone = ids[now.sure() & ~np.isin(ids, np.fromiter(owner, np.int64, len(owner)))]
    quality = now.qualities()
    best = {person.id: _best(person.faces, quality) for person in people.values()}
    asked = [face for faces in best.values() for face in faces[:ASKED]] + lone.tolist()
    evidence = Evidence(calibration, now.count, now.apart(), mates)
    refused = now.refusals()
    pairs = {
        pair
        for pair in _pairs(now, index, asked[:MOST_ASKED], owner, evidence.least_similarity(LEAST))
        if _may_be_asked(pair, people, refused)
    }
    compared = {
        key: np.sort(best[key[0]][:COMPARED]) if key[0] else np.array([key[1]], np.int64)
        for pair in pairs
        for key in pair
    }
    some = np.unique(np.concatenate([*compared.values(), np.empty(0, np.int64)]))
    known = evidence.with_crowding(
        Faces(some, now.embeddings(some), photos[np.searchsorted(ids, some)])
    )
    sides = {key: known.select(np.searchsorted(some, faces)) for key, faces in compared.items()}

    def side(key: _Key) -> Side:
        if not key[0]:
            return Side(None, None, 1, (key[1],))
        person = people[key[0]]
        shown = _apart_in_photos(best[key[0]], photo_of)
        return Side(person.id, person.name, len(person.faces), shown)

    found = []
    for pair in pairs:
        one, other = sides[pair[0]], sides[pair[1]]
        if evidence.are_apart(one, other):
            continue
        odds = float(evidence.between(one, other).mean())
        probability = 1 / (1 + math.exp(-odds)) if odds > -50 else 0.0
        if probability >= LEAST:
            moved = min(len(people[key[0]].faces) if key[0] else 1 for key in pair)
            found.append((probability * moved, pair, probability))
    found.sort(key=lambda one: (-one[0], one[1]))
    suggested = []
    for _, pair, probability in found[:most]:
        first, second = sorted(map(side, pair), key=lambda one: -one.count)
        suggested.append(Suggestion(first, second, probability))
    return suggested


def _best(faces: Sequence[int], quality: Mapping[int, float]) -> list[int]:
    """Faces, the best by quality first."""
    return sorted(faces, key=lambda face: (-quality.get(face, 0.0), face))


def _apart_in_photos(faces: Sequence[int], photo_of: Mapping[int, int]) -> tuple[int, ...]:
    """The first of the faces, and the next of another photo if there is one."""
    others = [face for face in faces[1:] if photo_of[face] != photo_of[faces[0]]]
    return (faces[0], *(others or faces[1:])[: SHOWN - 1])


def _pairs(
    now: Snapshot,
    index: FaceSearch,
    asked: Sequence[int],
    owner: Mapping[int, int],
    least: float,
) -> Iterator[tuple[_Key, _Key]]:
    """Pairs of people and faces of which a face of one is near to one of the other.

    Args:
        now: the gallery.
        index: the gallery's index.
        asked: faces whose nearest faces are looked up.
        owner: the person of each face that has one.
        least: lowest similarity of the two faces, −1…1.
    """
    for start in range(0, len(asked), QUERIES):
        some = asked[start : start + QUERIES]
        near = index.nearest(now, now.embeddings(some), NEIGHBOURS + 1)
        for face, others, alike in zip(some, near.ids, near.similarities, strict=True):
            mine = _key(face, owner)
            for other in others[alike >= least].tolist():
                theirs = _key(other, owner)
                if theirs != mine:
                    yield min(mine, theirs), max(mine, theirs)


def _key(face: int, owner: Mapping[int, int]) -> _Key:
    person = owner.get(face, 0)
    return (person, 0) if person else (0, face)


def _may_be_asked(
    pair: tuple[_Key, _Key], people: Mapping[int, Person], refused: set[tuple[int, int]]
) -> bool:
    """Whether a user could say that they are one person, and has not said otherwise."""
    sides = [people[key[0]] for key in pair if key[0]]
    names = {person.name for person in sides if person.name is not None}
    if len(names) > 1 or any(person.hidden for person in sides):
        return False
    for mine, theirs in (pair, pair[::-1]):
        faces = people[mine[0]].faces if mine[0] else (mine[1],)
        if theirs[0] and any((face, theirs[0]) in refused for face in faces):
            return False
    return True
