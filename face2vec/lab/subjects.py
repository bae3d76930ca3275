"""Subjects of the laboratory: a random selection of clean photos of known people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import PhotoError, SettingsError
from face2vec.evaluation.sets import NO_FACE_FOUND, named_photos
from face2vec.files import expanded
from face2vec.gallery.schema import FILE
from face2vec.lab.portraits import Portrait, portrait_of
from face2vec.types import Face, Unopened, nearest_to

Item = TypeVar("Item")


class Subject(NamedTuple):
    """A photo and one face in it."""

    photo: Path
    """Path of the photo."""
    face: Face
    """The face in pixels of the upright photo."""
    person: int
    """Index of the person in `Subjects.names`."""


@dataclass(frozen=True, eq=False)
class Subjects:
    """Faces of known people.

    Attributes:
        subjects: one subject per photo, grouped by person.
        names: names of the people.
        failed: path of each selected photo that was left out because it has no detected face or
            could not be read, and why.
    """

    subjects: tuple[Subject, ...]
    names: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def without_face(self) -> int:
        """Number of selected photos that were left out."""
        return len(self.failed)

    @property
    def people(self) -> NDArray[np.int64]:
        """int64 (n,), the person of each subject."""
        return np.array([one.person for one in self.subjects], np.int64)

    def portraits(
        self, engine: Face2Vec, report: Callable[[int, PhotoError], None] | None = None
    ) -> Iterator[tuple[int, Portrait]]:
        """Read the photos again and yield the number and portrait of each subject.

        Photos that can no longer be read are left out.

        Args:
            engine: reads them.
            report: called with the number of each that is left out, and why.
        """
        for number, subject in enumerate(self.subjects):
            try:
                photo = engine.encoder.read(str(subject.photo))
                yield number, portrait_of(photo, subject.face)
            except PhotoError as error:
                if report is not None:
                    report(number, error)


def subjects_of(
    source: Path, engine: Face2Vec, *, people: int, photos: int, seed: int = 0
) -> Subjects:
    """Select subjects from a gallery, a folder of people, or a list.

    Args:
        source: folder of a gallery with named people, which ``engine`` has open; or a source for
            `face2vec.evaluation.sets.named_photos`.
        engine: finds the faces if ``source`` is not a gallery.
        people: largest number of people; each has at least two photos.
        photos: largest number of photos per person.
        seed: seed of the selection.

    Raises:
        SettingsError: fewer than two people have two photos with a face.
    """
    if is_gallery(source):
        return _of_gallery(source, engine, people, photos, seed)
    return subjects_in(named_photos(source).people, engine, people=people, photos=photos, seed=seed)


def is_gallery(folder: Path) -> bool:
    """Whether a folder is a gallery."""
    return (Path(expanded(folder)) / FILE).is_file()


def subjects_in(
    named: Mapping[Path, str],
    engine: Face2Vec,
    *,
    people: int | None,
    photos: int | None,
    seed: int = 0,
) -> Subjects:
    """Select subjects from photos of known people, with the face nearest the centre of each photo.

    Args:
        named: the person of each photo.
        engine: finds the faces.
        people: largest number of people, None for all; each has at least two photos.
        photos: largest number of photos per person, None for all.
        seed: seed of the selection.

    Raises:
        SettingsError: fewer than two people have two photos with a face.
    """
    of_person: dict[str, list[Path]] = {}
    for photo, person in named.items():
        of_person.setdefault(person, []).append(photo)
    drawn = _drawn(of_person, people, photos, seed)
    asked = [(photo, person) for person, some in drawn.items() for photo in some]
    found: list[tuple[Path, Face, str]] = []
    failed: list[tuple[str, str]] = []
    encoded = engine.encoder.stream(asked, lambda one: Unopened(str(one[0])))
    for one in encoded:
        face = nearest_to(one.faces, one.width / 2, one.height / 2)
        photo, person = one.item
        if face is not None:
            found.append((photo, face, person))
        else:
            failed.append((str(photo), NO_FACE_FOUND if one.error is None else one.error.reason))
    return _numbered(found, failed)


def _of_gallery(source: Path, engine: Face2Vec, people: int, photos: int, seed: int) -> Subjects:
    faces: dict[str, list[tuple[Path, Face]]] = {}
    for person in engine.people():
        if person.name is not None:
            stored = engine.faces_of(person)
            faces[person.name] = [(Path(one.photo), one.face) for one in stored]
    if len(faces) < 2:
        raise SettingsError(
            f"{source} has {len(faces)} people with a name, but at least two are needed; name "
            "people with face2vec people and face2vec name, or give a folder with one folder of "
            "photos per person"
        )
    drawn = _drawn(faces, people, photos, seed)
    found = [(photo, face, name) for name, some in drawn.items() for photo, face in some]
    existing = [one for one in found if one[0].is_file()]
    gone = [(str(one[0]), "missing") for one in found if not one[0].is_file()]
    return _numbered(existing, gone)


def _drawn(
    of_person: Mapping[str, list[Item]], people: int | None, photos: int | None, seed: int
) -> dict[str, list[Item]]:
    """Select photos of people who have at least two, in order of their names."""
    rng = np.random.default_rng(seed)
    usable = sorted(name for name, some in of_person.items() if len(some) > 1)
    if len(usable) < 2:
        raise SettingsError(
            f"{len(usable)} people have at least two photos; at least two such people are needed"
        )
    names = sorted(rng.permutation(usable)[:people].tolist())
    drawn = {}
    for name in names:
        some = of_person[name]
        drawn[name] = [some[place] for place in sorted(rng.permutation(len(some))[:photos])]
    return drawn


def _numbered(found: list[tuple[Path, Face, str]], failed: list[tuple[str, str]]) -> Subjects:
    names = sorted({person for *_, person in found})
    numbers = {name: number for number, name in enumerate(names)}
    subjects = tuple(Subject(photo, face, numbers[person]) for photo, face, person in found)
    counts = np.bincount([one.person for one in subjects], minlength=2)
    if (counts > 1).sum() < 2:
        raise SettingsError(
            f"{(counts > 1).sum()} people have at least two photos with a detected face; at least "
            "two such people are needed"
        )
    return Subjects(subjects, tuple(names), tuple(failed))
