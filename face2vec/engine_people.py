"""What `Face2Vec` does with people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from face2vec.engine_opened import OpenedGallery
from face2vec.errors import (
    SettingsError,
)
from face2vec.gallery.gallery import Gallery, StoredFace
from face2vec.photos.decode import PhotoLike
from face2vec.types import Face, Forgotten, Identified, Person, Photo

if TYPE_CHECKING:
    from face2vec.people.assign import PeopleSummary

Who = int | str | Person


class PeopleEngine(OpenedGallery):
    """Who is who in a gallery: found, said, taken back, asked about, forgotten."""

    def find_people(self, *, again: bool = False) -> PeopleSummary:
        """Group the faces that are nobody's yet into people, or let them join people.

        Who somebody is stays as it was: people keep their numbers, names and faces.

        Args:
            again: group all faces anew but those of which somebody said who they are.

        Raises:
            CalibrationError: what similarities mean is not known for the gallery's model.
            GalleryLockedError: another process is writing to the gallery.
            MissingExtraError: SciPy is not installed.
        """
        from face2vec.people.assign import find_people

        gallery, calibration = self._readable(), self.calibration
        with gallery.writing():
            return find_people(gallery, self._index_of(gallery), calibration, again=again)

    def people(self) -> list[Person]:
        """Everybody in the gallery, those with most faces first."""
        return self._readable().people()

    def person(self, who: Who) -> Person:
        """Somebody by number or name.

        Raises:
            GalleryError: there is no such person, or no longer.
        """
        return self._readable().person(who.id if isinstance(who, Person) else who)

    def faces_of(self, who: Who) -> list[StoredFace]:
        """Somebody's faces, without embeddings, and the photos that they are in."""
        return self._readable().faces(self.person(who).faces, with_embeddings=False)

    def name(self, who: Who, name: str | None) -> Person:
        """Give somebody a name, or take it away with None.

        Raises:
            GalleryError: somebody else has that name.
            SettingsError: the name is not text, is empty or a number.
        """
        return self._said(who, lambda gallery, i: gallery.name(i, name))

    def merge(self, who: Who, *others: Who) -> Person:
        """Say that others are the same person as the first, who keeps the number.

        Raises:
            GalleryError: they have different names.
        """
        numbers = [self.person(other).id for other in others]
        mine = self.person(who).id
        if not numbers or mine in numbers or len(set(numbers)) < len(numbers):
            raise SettingsError("name two people or more, each once, to merge them")
        return self._said(who, lambda gallery, i: gallery.merge(i, numbers))

    def split(self, who: Who, *faces: int) -> Person:
        """Make a new person of some faces of somebody.

        Args:
            who: the person that they are taken from.
            faces: their numbers.

        Raises:
            GalleryError: a face is not one of that person.
        """
        new: list[int] = []
        self._said(who, lambda gallery, i: new.append(gallery.split(i, faces)))
        return self.person(new[0])

    def this_person(self, who: Who | None, *faces: int) -> Person:
        """Say that faces are of somebody, or, with None, of a new person."""
        gallery = self._readable()
        known = None if who is None else self.person(who).id
        if len(gallery.faces(faces, with_embeddings=False)) < len(set(faces)) or not faces:
            raise SettingsError(f"name faces of the gallery by their numbers, not {faces}")
        with gallery.writing():
            number = gallery.this_person(known, faces)
        return self.person(number)

    def not_this_person(self, who: Who, *faces: int) -> Person:
        """Say that faces are not of somebody; they are nobody's until people are found again.

        Raises:
            GalleryError: a face is not one of that person.
        """
        return self._said(who, lambda gallery, i: gallery.not_this_person(i, faces))

    def undo(self) -> str:
        """Take back what was said last of people; returns what that was.

        Raises:
            GalleryError: there is nothing to take back.
        """
        gallery = self._readable()
        with gallery.writing():
            return gallery.undo()

    def identify(
        self, query: PhotoLike | Photo | Face, *, at_least: float = 0.5, candidates: int = 3
    ) -> list[Identified]:
        """Who each face of a photo is, out of the people with names.

        Args:
            query: a photo, or a face.
            at_least: how likely somebody has to be to be named, 0…1.
            candidates: how many people to give with each face.

        Returns:
            One entry a face; somebody's whose probability is lower is unknown.

        Raises:
            CalibrationError: what similarities mean is not known for the gallery's model.
            PhotoError: the photo cannot be read.
        """
        from face2vec.people.identify import probabilities, ranked

        gallery, calibration = self._readable(), self.calibration
        _, faces, embeddings, _ = self._query(query, gallery)
        with gallery.snapshot() as now:
            named = {p.id: p for p in now.people() if p.name is not None and p.faces}
            ids = np.array([i for p in named.values() for i in p.faces], np.int64)
            whose = np.array([p.id for p in named.values() for _ in p.faces], np.int64)
            known = now.embeddings(ids) if len(ids) else None
        people: list[Person] = []
        shares = np.zeros((len(embeddings), 0))
        if known is not None and len(embeddings):
            numbers, shares = probabilities(embeddings, known, whose, calibration)
            people = [named[i] for i in numbers.tolist()]
        found = []
        for face, row in zip(faces, shares, strict=True):
            assert face is not None
            best = ranked(people, row, max(candidates, 1))
            sure = [one for one in best[:1] if one[1] >= at_least]
            person, probability = sure[0] if sure else (None, 1.0 - float(row.sum()))
            found.append(Identified(face, person, probability, tuple(best[:candidates])))
        return found

    def forget(self, who: Who) -> Forgotten:
        """Delete somebody: faces, embeddings, name, and photos that show nobody else.

        The photos' files stay where they are, and only their hashes here, so that they are not
        taken in again. What is left in the gallery's files is looked at afterwards.

        Raises:
            GalleryError: there is no such person, or the gallery cannot be written.
        """
        from face2vec.people.traces import traces

        gallery = self._readable()
        person = self.person(who)
        stored = gallery.faces(person.faces)
        with gallery.writing():
            removed = gallery.forget(person.id)
            self._index_of(gallery).rebuild()
        left = traces(gallery.folder, person, stored)
        return Forgotten(person.id, removed.faces, removed.photos, tuple(left))

    def _said(self, who: Who, say: Callable[[Gallery, int], object]) -> Person:
        gallery, number = self._readable(), self.person(who).id
        with gallery.writing():
            say(gallery, number)
        return self.person(number)
