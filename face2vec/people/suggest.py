"""Suggests which people, and which faces without a person, may be one person.

Grouping merges what has even odds or better. What is below may still be one person, and a user can
say so. Suggestions are in the order of what an answer settles: the probability times the number of
faces that would get another person.

Of a large gallery, only the best faces of the largest people are looked up, and the pairs that are
near are compared block by block: the memory is that of a block and of the numbers of the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from face2vec.calibration import Calibration
from face2vec.gallery import groups
from face2vec.gallery.groups import Outline
from face2vec.gallery.reader import Snapshot
from face2vec.index.seam import FaceSearch
from face2vec.people.clustering import NEIGHBOURS, SAMPLE, Evidence, Faces, Ids
from face2vec.types import Side, Suggestion

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
PAIRS = 256  # pairs of sides that are compared together
IN_MEMORY = 16384
"""Faces of sides that are kept for the next pairs; sides that are compared now come on top."""
PERSON = 1 << 62
"""Added to the number of a person; a side is that, or the number of a face without a person."""


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
    evidence = Evidence(calibration, now.count, now.apart(), mates)
    near = _pairs(now, index, _asked(now), evidence.least_similarity(LEAST))
    refused = _refused(now)
    sides = _Sides(now, evidence)
    found: list[tuple[float, tuple[int, int], float]] = []
    for start in range(0, len(near), PAIRS):
        people = sides.look_at(near[start : start + PAIRS])
        pairs: list[tuple[int, int]] = [
            (one, other)
            for one, other in near[start : start + PAIRS].tolist()
            if _may_be_asked(one, other, people) and not refused & {(one, other), (other, one)}
        ]
        sides.read(pairs)
        for pair in pairs:
            one, other = sides[pair[0]], sides[pair[1]]
            if evidence.are_apart(one, other):
                continue
            odds = float(evidence.between(one, other).mean())
            probability = 1 / (1 + math.exp(-odds)) if odds > -50 else 0.0
            if probability >= LEAST:
                moved = min(people[key].faces if key in people else 1 for key in pair)
                found.append((probability * moved, pair, probability))
        found = sorted(found, key=lambda one: (-one[0], one[1]))[:most]
    suggested = []
    for _, pair, probability in found:
        first, second = sorted((_side(now, key) for key in pair), key=lambda one: -one.count)
        suggested.append(Suggestion(first, second, probability))
    return suggested


def _asked(now: Snapshot) -> Ids:
    """Faces whose nearest faces are looked up: the best of the largest people, then lone ones."""
    people = groups.largest(now, MOST_ASKED)
    asked: list[int] = []
    for start in range(0, len(people), QUERIES):
        if len(asked) >= MOST_ASKED:
            break
        some = people[start : start + QUERIES]
        best = groups.best_faces(now, some, ASKED)
        asked += [face for person in some for face in best[person]]
    asked += islice(groups.lone(now), max(MOST_ASKED - len(asked), 0))
    return np.array(asked[:MOST_ASKED], np.int64)


def _pairs(now: Snapshot, index: FaceSearch, asked: Ids, least: float) -> Ids:
    """Pairs of sides of which a face of one is near to one of the other.

    Args:
        now: the gallery.
        index: the gallery's index.
        asked: int64 (n,), faces whose nearest faces are looked up.
        least: lowest similarity of the two faces, −1…1.

    Returns:
        int64 (m, 2), each pair once, the lower number first, rising.
    """
    found = np.empty((0, 2), np.int64)
    for start in range(0, len(asked), QUERIES):
        some = asked[start : start + QUERIES]
        near = index.nearest(now, now.embeddings(some), NEIGHBOURS + 1)
        alike = [
            ids[there >= least] for ids, there in zip(near.ids, near.similarities, strict=True)
        ]
        mine = np.repeat(some, [len(ids) for ids in alike])
        both = np.stack([mine, np.concatenate([*alike, np.empty(0, np.int64)])], axis=1)
        keys = np.sort(_keys(now, both.ravel()).reshape(both.shape), axis=1)
        found = np.unique(np.concatenate([found, keys[keys[:, 0] != keys[:, 1]]]), axis=0)
    return found


def _keys(now: Snapshot, faces: Ids) -> Ids:
    """The side of each face, int64 (n,) for faces int64 (n,)."""
    people = groups.people_of(now, faces)
    return np.where(people > 0, people + PERSON, faces)


def _refused(now: Snapshot) -> set[tuple[int, int]]:
    """(side, person) pairs that a user has ruled out for a face of the side."""
    refusals = np.array([*now.refusals()], np.int64).reshape(-1, 2)
    sides = _keys(now, refusals[:, 0])
    return set(zip(sides.tolist(), (refusals[:, 1] + PERSON).tolist(), strict=True))


def _may_be_asked(one: int, other: int, people: Mapping[int, Outline]) -> bool:
    """Whether a user could say that two sides are one person."""
    known = [people[key] for key in (one, other) if key in people]
    names = {person.name for person in known if person.name is not None}
    return len(names) < 2 and not any(person.hidden for person in known)


class _Sides:
    """The faces of sides that are compared; those of the last pairs are kept.

    Args:
        now: the gallery.
        evidence: computes the crowding of faces.
    """

    def __init__(self, now: Snapshot, evidence: Evidence) -> None:
        self._now, self._evidence = now, evidence
        self._known: dict[int, Faces] = {}

    def __getitem__(self, key: int) -> Faces:
        return self._known[key]

    def look_at(self, pairs: Ids) -> dict[int, Outline]:
        """The people among the sides of pairs int64 (n, 2), by key."""
        keys = np.unique(pairs)
        people = (keys[keys > PERSON] - PERSON).tolist()
        found = groups.outlines(self._now, people)
        return {number + PERSON: outline for number, outline in found.items()}

    def read(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Read the sides of pairs; others are dropped when there are too many."""
        wanted = dict.fromkeys(key for pair in pairs for key in pair)
        if sum(map(len, self._known.values())) > IN_MEMORY:
            self._known = {key: faces for key, faces in self._known.items() if key in wanted}
        new = [key for key in wanted if key not in self._known]
        people = [key - PERSON for key in new if key > PERSON]
        best = groups.best_faces(self._now, people, COMPARED)
        ids = {
            key: np.sort(np.array(best[key - PERSON] if key > PERSON else [key], np.int64))
            for key in new
        }
        some = np.concatenate([*ids.values(), np.empty(0, np.int64)])
        contents = groups.contents_of(self._now, some)
        faces = self._evidence.with_crowding(Faces(some, self._now.embeddings(some), contents))
        end = 0
        for key, members in ids.items():
            start, end = end, end + len(members)
            self._known[key] = faces.select(np.arange(start, end))


def _side(now: Snapshot, key: int) -> Side:
    """A side of a suggestion: the best face, and the next of another photo if there is one."""
    if key < PERSON:
        return Side(None, None, 1, (key,))
    person = key - PERSON
    (outline,) = groups.outlines(now, [person]).values()
    for most in (COMPARED, None):  # all of them are seldom in one photo
        best = groups.best_faces(now, [person], most)[person]
        contents = groups.contents_of(now, np.array(best)).tolist()
        others = [face for face, photo in zip(best, contents, strict=True) if photo != contents[0]]
        if others or len(best) == outline.faces:
            break
    shown = (best[0], *(others or best[1:])[: SHOWN - 1])
    return Side(person, outline.name, outline.faces, shown)
