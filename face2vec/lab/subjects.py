"""Whose faces the laboratory looks at: some photos of some people, drawn at random, clean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import PhotoError, SettingsError
from face2vec.evaluation.sets import named_photos
from face2vec.gallery.schema import FILE
from face2vec.lab.portraits import Portrait, portrait_of
from face2vec.types import Face, Unopened, nearest_to

Item = TypeVar("Item")


class Subject(NamedTuple):
    """A photo and the face in it that is looked at."""

    photo: Path
    face: Face
    """In pixels of the upright photo."""
    person: int
    """Index into `Subjects.names`."""


@dataclass(frozen=True, eq=False)
class Subjects:
    """Faces whose people are known.

    Attributes:
        subjects: one a photo, those of a person after one another.
        names: of the people.
        without_face: photos that were drawn and left out: no face was found, or they could not
            be read.
    """

    subjects: tuple[Subject, ...]
    names: tuple[str, ...]
    without_face: int

    @property
    def people(self) -> NDArray[np.int64]:
        """int64 (n,), the person of each."""
        return np.array([one.person for one in self.subjects], np.int64)

    def portraits(self, engine: Face2Vec) -> Iterator[tuple[int, Portrait]]:
        """Number and portrait of each, read anew; what cannot be read any more is left out."""
        for number, subject in enumerate(self.subjects):
            try:
                photo = engine.encoder.read(str(subject.photo))
                yield number, portrait_of(photo, subject.face)
            except PhotoError:
                continue


def subjects_of(
    source: Path, engine: Face2Vec, *, people: int, photos: int, seed: int = 0
) -> Subjects:
    """Subjects of a gallery, a folder of people, or a list.

    Args:
        source: a folder of a gallery whose people were named, which ``engine`` has open; or what
            `face2vec.evaluation.sets.named_photos` takes.
        engine: finds the faces, where ``source`` is no gallery.
        people: how many at most; each has two photos or more.
        photos: of each at most.
        seed: of the draw.

    Raises:
        SettingsError: fewer than two people have two photos with a face.
    """
    if is_gallery(source):
        return _of_gallery(source, engine, people, photos, seed)
    return subjects_in(named_photos(source).people, engine, people=people, photos=photos, seed=seed)


def is_gallery(folder: Path) -> bool:
    """Whether a folder holds a gallery."""
    return (folder / FILE).is_file()


def subjects_in(
    named: Mapping[Path, str],
    engine: Face2Vec,
    *,
    people: int | None,
    photos: int | None,
    seed: int = 0,
) -> Subjects:
    """Subjects of photos whose people are known; of each photo the face nearest its centre.

    Args:
        named: person of each photo.
        engine: finds the faces.
        people: how many at most, None for all; each has two photos or more.
        photos: of each at most, None for all.
        seed: of the draw.

    Raises:
        SettingsError: fewer than two people have two photos with a face.
    """
    of_person: dict[str, list[Path]] = {}
    for photo, person in named.items():
        of_person.setdefault(person, []).append(photo)
    drawn = _drawn(of_person, people, photos, seed)
    asked = [(photo, person) for person, some in drawn.items() for photo in some]
    found: list[tuple[Path, Face, str]] = []
    encoded = engine.encoder.stream(asked, lambda one: Unopened(str(one[0])))
    for one in encoded:
        face = nearest_to(one.faces, one.width / 2, one.height / 2)
        if face is not None:
            photo, person = one.item
            found.append((photo, face, person))
    return _numbered(found, len(asked) - len(found))


def _of_gallery(source: Path, engine: Face2Vec, people: int, photos: int, seed: int) -> Subjects:
    faces: dict[str, list[tuple[Path, Face]]] = {}
    for person in engine.people():
        if person.name is not None:
            stored = engine.faces_of(person)
            faces[person.name] = [(Path(one.photo), one.face) for one in stored]
    if len(faces) < 2:
        raise SettingsError(
            f"{source} has {len(faces)} people with a name, and two are needed: face2vec people "
            "and face2vec name say who is who; or give a folder with a folder of photos a person"
        )
    drawn = _drawn(faces, people, photos, seed)
    found = [(photo, face, name) for name, some in drawn.items() for photo, face in some]
    there = [one for one in found if one[0].is_file()]
    return _numbered(there, len(found) - len(there))


def _drawn(
    of_person: Mapping[str, list[Item]], people: int | None, photos: int | None, seed: int
) -> dict[str, list[Item]]:
    """Some photos of some people who have two or more, in order of their names."""
    rng = np.random.default_rng(seed)
    able = sorted(name for name, some in of_person.items() if len(some) > 1)
    if len(able) < 2:
        raise SettingsError(
            f"{len(able)} people have two photos or more; to measure, two such people are needed"
        )
    names = sorted(rng.permutation(able)[:people].tolist())
    drawn = {}
    for name in names:
        some = of_person[name]
        drawn[name] = [some[place] for place in sorted(rng.permutation(len(some))[:photos])]
    return drawn


def _numbered(found: list[tuple[Path, Face, str]], missing: int) -> Subjects:
    names = sorted({person for *_, person in found})
    numbers = {name: number for number, name in enumerate(names)}
    subjects = tuple(Subject(photo, face, numbers[person]) for photo, face, person in found)
    counts = np.bincount([one.person for one in subjects], minlength=2)
    if (counts > 1).sum() < 2:
        raise SettingsError(
            f"a face was found in two photos or more of {(counts > 1).sum()} people; to measure, "
            "two such people are needed"
        )
    return Subjects(subjects, tuple(names), missing)
