"""Chooses the faces that enrolling people names: the largest sure face of each of their photos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, NO_FACE
from face2vec.ingest.build import BuildSummary
from face2vec.photos.named import Named
from face2vec.types import Person, largest_sure

NOT_SURE = "no sure face"
NOT_THERE = "not in the gallery"


@dataclass(frozen=True)
class Enrolled:
    """What `Face2Vec.enroll` did.

    Attributes:
        people: the people who were named, in the order of their names' first photos, with all their
            faces in the gallery.
        faces: number of each photo's face that now has a name, by path of the photo.
        without: (path, reason) of the photos whose person got no face from them.
        added: what became of the photos; if it was interrupted, nobody was named.
    """

    people: tuple[Person, ...] = ()
    faces: dict[str, int] = field(default_factory=dict)
    without: tuple[tuple[str, str], ...] = ()
    added: BuildSummary = field(default_factory=BuildSummary)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "people": [asdict(person) for person in self.people],
            "faces": [{"photo": photo, "face": face} for photo, face in self.faces.items()],
            "without": [{"photo": photo, "reason": reason} for photo, reason in self.without],
            "added": self.added.to_dict(),
        }


@dataclass(frozen=True)
class Choice:
    """The faces to be named.

    Attributes:
        named: numbers of the faces of each name.
        faces: number of each photo's face, by path of the photo.
        without: (path, reason) of each photo that gives no face.
    """

    named: dict[str, list[int]]
    faces: dict[str, int]
    without: list[tuple[str, str]]


def choose(photos: Iterable[Named], now: Snapshot, failed: dict[str, str]) -> Choice:
    """The largest sure face of each photo.

    Args:
        photos: the photos with their names.
        now: the gallery, which has the photos.
        failed: reasons why photos are not in the gallery, by path.
    """
    chosen: dict[str, tuple[str, int]] = {}
    without: list[tuple[str, str]] = []
    for name, photo in photos:
        path = photo.place
        faces = [one.face for one in now.faces_of(path).records()]
        largest = largest_sure(faces) if faces else None
        if largest is not None and largest.is_sure and largest.id is not None:
            chosen[path] = name, largest.id
            continue
        status, reason = now.outcome_of(path) or ("", failed.get(path, NOT_THERE))
        without.append((path, NOT_SURE if status == INDEXED else reason or NO_FACE))
    names_of: dict[int, set[str]] = {}
    for name, face in chosen.values():
        names_of.setdefault(face, set()).add(name)
    named: dict[str, list[int]] = {}
    faces_of: dict[str, int] = {}
    for path, (name, face) in chosen.items():
        if len(names_of[face]) > 1:
            people = " and ".join(map(repr, sorted(names_of[face])))
            without.append((path, f"the same photo is given for {people}"))
            continue
        faces_of[path] = face
        if face not in named.setdefault(name, []):
            named[name].append(face)
    return Choice(named, faces_of, without)
