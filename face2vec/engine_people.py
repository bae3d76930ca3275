"""The methods of `Face2Vec` about people: grouping, names, edits, marks, suggestions, forgetting.

A class of its own, because they make up a third of `Face2Vec`, and use nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from face2vec import arguments
from face2vec.errors import GalleryError, SettingsError
from face2vec.files import paths_to
from face2vec.gallery.rows import Readmitted, Removed, StoredFace
from face2vec.photos.discover import Source, find_photos, paths_of
from face2vec.photos.sources import PhotoLike
from face2vec.query import QueryReader
from face2vec.runtime.select import detector_runtime
from face2vec.session import Session
from face2vec.types import (
    ANY_NAME,
    NAMED_AT_LEAST,
    AnyName,
    Edit,
    Face,
    Forgotten,
    Identified,
    Mark,
    Marked,
    MarkedFace,
    Method,
    Person,
    Photo,
    Side,
    Suggestion,
)

if TYPE_CHECKING:
    from face2vec.gallery.people import PeopleWriter
    from face2vec.gallery.reader import Snapshot
    from face2vec.people.assign import PeopleSummary

Who = int | str | Person
"""A person by number, by name, or as a `Person`."""
_MARKS = "faces that are marked by hand", "copy the archive to a folder"


def _called(side: Side) -> str:
    """What the description of an edit calls one side of a suggestion."""
    if side.person is None:
        return f"face {side.shown[0]}"
    name = f"{side.name} (" if side.name else ""
    return f"{name}person {side.person}{')' if name else ''}"


def _content_of(now: Snapshot, photo: Source) -> int | None:
    """The content of a photo, by whichever of its paths the gallery has; None if it has none."""
    known = (now.content_at(path) for path in paths_to(photo))
    return next((content for content in known if content is not None), None)


class EnginePeople:
    """The methods of `Face2Vec` about people; `Face2Vec` makes what they work on."""

    _session: Session
    _queries: QueryReader

    def find_people(
        self, *, again: bool = False, method: Method = "average", count: int | None = None
    ) -> PeopleSummary:
        """Group unassigned faces into people; existing people keep their numbers and faces.

        Args:
            again: group all faces again except those that a user has confirmed.
            method: "average", which asks for even odds or better in the mean of all pairs; or
                "agglomerative", "k-means", "dbscan", "hdbscan" or "chinese-whispers", which look at
                similarities alone and are there to compare with.
            count: number of people, for "k-means" only.

        Raises:
            CalibrationError: there is no calibration.
            GalleryLockedError: another process is writing to the gallery.
            MissingExtraError: SciPy is not installed, or scikit-learn for another method.
            SettingsError: the method is unknown, or does not suit the number of faces.
        """
        from face2vec.people.assign import find_people

        gallery, _ = self._session.gallery(), self._session.calibration()
        with self._session.write() as writer:
            with gallery.read() as now:
                around = self._session.known_surroundings(now)
            return find_people(
                writer,
                gallery.read,
                self._session.index(),
                around.calibration,
                mates=around.mates,
                again=again,
                method=method,
                count=count,
            )

    def people(self) -> list[Person]:
        """All people of the gallery, those with most faces first."""
        with self._session.gallery().read() as now:
            return now.people()

    def person(self, who: Who) -> Person:
        """A person by number or name.

        Raises:
            GalleryError: there is no such person.
            SettingsError: ``who`` is neither a number, a name nor a `Person`.
        """
        return self._people_called([who])[0]

    def faces_of(self, who: Who) -> list[StoredFace]:
        """The faces of a person, without embeddings, and their photos.

        Raises:
            GalleryError: there is no such person.
        """
        faces = self.person(who).faces
        with self._session.gallery().read() as now:
            return now.stored_faces(faces, with_embeddings=False)

    def name(self, who: Who, name: str | None, *, was: str | AnyName | None = ANY_NAME) -> Person:
        """Give a person a name, or remove it with None.

        Args:
            who: the person.
            name: the name.
            was: the name that the person is known to have, or None for none. It is an error if
                somebody has given another one meanwhile. By default any name is replaced.

        Raises:
            GalleryError: another person has that name, or the person has another one than ``was``.
            SettingsError: the name is empty, a number, or not valid text.
        """
        if name is not None:
            arguments.text("name", name)
        return self._edit(who, lambda people, number: people.name(number, name, was))

    def name_face(self, face: int, name: str) -> Person:
        """State that a face shows the person with a name; returns the person.

        If nobody has the name, the unnamed person that the face belongs to gets it, or a new
        person.

        Args:
            face: id of the face.
            name: the name.

        Raises:
            SettingsError: the name is empty, a number, or not valid text, or the face is not in
                the gallery.
        """
        arguments.numbers("face", [face])
        self._check_in_gallery([face])
        return self._enrolled({arguments.text("name", name): [face]})[0]

    def _enrolled(self, named: Mapping[str, Sequence[int]]) -> list[Person]:
        with self._session.write() as writer:
            numbers = writer.people.enroll(named)
        people = {person.id: person for person in self.people()}
        return [people[number] for number in numbers.values()]

    def merge(self, who: Who, *others: Who, keep_name: bool = False) -> Person:
        """Make several people one person, who keeps the number of the first.

        Args:
            who: the person who keeps the number.
            others: the people who become that person.
            keep_name: the name of ``who`` stays, if there is one, and other names are dropped.

        Raises:
            GalleryError: they have different names.
            SettingsError: fewer than two people are given, or one of them twice.
        """
        mine, *numbers = [person.id for person in self._people_called([who, *others])]
        if not others or len(numbers) < len(others):
            raise SettingsError("give two or more people to merge, each of them once")
        return self._edit(
            mine, lambda people, number: people.merge(number, numbers, keep_name=keep_name)
        )

    def split(self, who: Who, *faces: int) -> Person:
        """Move some faces of a person to a new person, who is returned.

        Args:
            who: the person that they belong to.
            faces: ids of the faces.

        Raises:
            GalleryError: a face does not belong to that person.
        """
        arguments.numbers("faces", faces)
        new: list[int] = []
        self._edit(who, lambda people, number: new.append(people.split(number, faces)))
        return self.person(new[0])

    def this_person(self, who: Who | None, *faces: int, name: str | None = None) -> Person:
        """State that faces show a person, or, with None, a new person.

        Args:
            who: the person, or None.
            faces: ids of the faces.
            name: of a new person.

        Raises:
            GalleryError: another person has that name.
            SettingsError: no faces are given, or one is not in the gallery, or there is a name
                for a person who is there.
        """
        arguments.numbers("faces", faces)
        if name is not None:
            arguments.text("name", name)
        arguments.name_of_new(who, name)
        known = None if who is None else self.person(who).id
        self._check_in_gallery(faces)
        with self._session.write() as writer:
            number = writer.people.confirm(known, faces, name)
        return self.person(number)

    def _check_in_gallery(self, faces: Sequence[int]) -> None:
        with self._session.gallery().read() as now:
            found = len(now.faces(faces))
        if found < len(set(faces)) or not faces:
            raise SettingsError(f"give ids of faces in the gallery, not {tuple(faces)}").coded(
                "faces-gone"
            )

    def not_this_person(self, who: Who, *faces: int) -> Person:
        """State that faces do not show a person; they are unassigned until people are found again.

        Raises:
            GalleryError: a face does not belong to that person.
        """
        arguments.numbers("faces", faces)
        return self._edit(who, lambda people, number: people.rule_out(number, faces))

    def ignore(self, *faces: int) -> Removed:
        """State that faces are no faces, such as a doll's; they leave the gallery for good.

        They do not come back when their photos are indexed again. `undo` takes them back.

        Args:
            faces: ids of the faces.

        Raises:
            GalleryError: a face is not in the gallery, or it cannot be written.
            SettingsError: no faces are given.
        """
        arguments.numbers("faces", faces)
        if not faces:
            raise SettingsError("give ids of faces to ignore, such as match.face.id")
        some = list(dict.fromkeys(map(int, faces)))
        with self._session.write() as writer:
            writer.people.ignore(some)
            self._session.index().save()
        return Removed(0, len(some))

    def mark_face(self, photo: Source, box: Sequence[float]) -> Marked:
        """Add a face that the detector missed, by the box that a user has drawn around it.

        The detector searches the box again with lower thresholds. If it finds landmarks, the face
        is one as any other. Otherwise it becomes a mark: it can be named, and no search, suggestion
        or grouping sees it. `undo` takes it back.

        Args:
            photo: path of a photo of the gallery, whose file is as it was indexed.
            box: left, top, right and bottom in pixels of the upright photo.

        Raises:
            SettingsError: the photo is not in the gallery, or is a video, or the box is not inside
                of it or is smaller than 8 pixels.
            PhotoError: the photo cannot be read, or has changed since it was indexed.
            GalleryError: a face is there already, or one was ignored or forgotten there.
        """
        from face2vec.encoding.marked import face_in_box
        from face2vec.gallery.rows import face_row
        from face2vec.ingest.marking import known_file

        place = arguments.box("box", box)
        gallery = self._session.gallery()
        self._session.local_index(*_MARKS)
        with gallery.read() as now:
            known = known_file(arguments.path("photo", photo), place, now)
        opened, found = face_in_box(
            known.data,
            known.size,
            place,
            self._session.detector(),
            detector_runtime(self._session.runtime()),
            self._session.max_pixels,
        )
        faces = [] if found is None else self._session.encoder().encode_known(opened, [found])
        with self._session.write() as writer:
            if not faces:
                return Marked(mark=writer.people.mark(known.content, place))
            row = face_row(faces[0], gallery.dimension, known.photo)
            face = writer.people.mark_face(known.content, row)
            self._session.index().save()
        return Marked(face=face)

    def name_mark(self, mark: int, name: str | None) -> Person | None:
        """State whom a mark shows, by name, or, with None, that nobody knows; returns the person.

        If nobody has the name, a new person gets it.

        Raises:
            GalleryError: there is no such mark.
            SettingsError: the name is empty, a number, or not valid text.
        """
        mark = arguments.whole("mark", mark, 1)
        if name is not None:
            arguments.text("name", name)
        with self._session.write() as writer:
            person = writer.people.name_mark(mark, name)
        return None if person is None else self.person(person)

    def unmark(self, mark: int) -> None:
        """Delete a mark. `undo` takes it back.

        Raises:
            GalleryError: there is no such mark.
        """
        mark = arguments.whole("mark", mark, 1)
        with self._session.write() as writer:
            writer.people.unmark(mark)

    def marks(self, photo: Source) -> list[Mark]:
        """The faces of a photo that were marked by hand and have no landmarks, in order.

        Raises:
            GalleryNotFoundError: there is no gallery.
        """
        path = arguments.path("photo", photo)
        with self._session.gallery().read() as now:
            content = _content_of(now, path)
            return [] if content is None else now.marks(content)

    def marked_faces(self, *photos: Source | Iterable[Source]) -> list[MarkedFace]:
        """The faces that were marked by hand and have no landmarks, with their photos.

        Args:
            photos: paths of photos; without any, those of all photos.

        Raises:
            GalleryNotFoundError: there is no gallery.
            GalleryError: a photo is not in the gallery.
        """
        from face2vec.gallery.marked import marked_faces

        with self._session.gallery().read() as now:
            if not photos:
                return marked_faces(now)
            contents = []
            for path in paths_of(photos):
                content = _content_of(now, path)
                if content is None:
                    raise GalleryError(
                        f"{path} is not in the gallery; give a path as 'face2vec photos' lists it"
                    )
                contents.append(content)
            marks = [mark for content in dict.fromkeys(contents) for mark in now.marks(content)]
            return marked_faces(now, marks)

    def readmit(self, *photos: Source | Iterable[Source]) -> Readmitted:
        """Let photos be indexed again with the faces that were forgotten or ignored in them.

        If the gallery has a photo, because it shows somebody else, its blocked faces are added at
        once. Other photos are added when they are indexed.

        Args:
            photos: paths of photos, or of folders; one by one or in lists.

        Raises:
            GalleryError: none of them has a block, or the gallery cannot be written.
            PhotoError: a photo cannot be read.
            SettingsError: a source is not a path, or does not exist.
        """
        from face2vec.ingest.readmit import readmit

        paths = paths_of(photos)
        found = find_photos(paths)
        self._session.gallery_to_add_to()
        with self._session.write() as writer:
            done = readmit(found, writer, self._session.encoder)
            if done.faces:
                self._session.index().save()
        if not done.photos:
            raise GalleryError(
                f"none of these has a forgotten or ignored face: {', '.join(paths)}; give photos "
                "as they were when they were indexed"
            )
        return done

    def hide(self, who: Who, hidden: bool = True) -> Person:
        """Leave a person out of lists and suggestions, or show them again.

        Raises:
            GalleryError: there is no such person.
        """
        return self.hide_people([who], hidden)[0]

    def hide_people(self, people: Iterable[Who], hidden: bool = True) -> list[Person]:
        """Leave several people out of lists and suggestions, or show them again, in one edit.

        Args:
            people: numbers, names or `Person` objects.
            hidden: False to show them again.

        Returns:
            These people, each once.

        Raises:
            GalleryError: one of them is not in the gallery; nothing was changed.
            SettingsError: nobody is given.
        """
        numbers = [person.id for person in self._people_called(arguments.several_people(people))]
        with self._session.write() as writer:
            writer.people.hide(numbers, bool(hidden))
        return self._people_called(numbers)

    def _people_called(self, some: Iterable[Who]) -> list[Person]:
        wanted = [one.id if isinstance(one, Person) else arguments.who("who", one) for one in some]
        with self._session.gallery().read() as now:
            return now.people_called(wanted)

    def choose_cover(self, who: Who, face: int) -> Person:
        """Choose the face that is shown for a person.

        Args:
            who: the person.
            face: id of one of the person's faces.

        Raises:
            GalleryError: the face does not belong to that person.
        """
        arguments.numbers("face", [face])
        return self._edit(who, lambda people, number: people.choose_cover(number, face))

    def suggest(self, most: int = 50) -> list[Suggestion]:
        """Pairs of people, and of people and single faces, that may be one person.

        Answer each with `answer`. Those that settle most come first: the probability times the
        number of faces that would change their person.

        Args:
            most: maximum number of suggestions.

        Raises:
            CalibrationError: there is no calibration.
        """
        from face2vec.people.suggest import suggestions

        most = arguments.whole("most", most, 1)
        with self._session.gallery().read() as now:
            around = self._session.known_surroundings(now)
            return suggestions(now, self._session.index(), around.calibration, around.mates, most)

    def answer(self, suggestion: Suggestion, same: bool) -> Person | None:
        """State whether the two sides of a suggestion are one person.

        With "no" they are never grouped together nor suggested again. `undo` takes the answer back.

        Returns:
            The person that both are now, or None after "no".

        Raises:
            SettingsError: it is no suggestion.
            GalleryError: a person or face is not in the gallery any more.
        """
        if not isinstance(suggestion, Suggestion):
            raise arguments.refusal("suggestion", suggestion, "a Suggestion")
        first, second = suggestion.first, suggestion.second
        self._check_in_gallery([*first.shown, *second.shown])
        if not same:
            pairs = [(one, other) for one in first.shown for other in second.shown]
            with self._session.write() as writer:
                writer.people.part(pairs, f"{_called(first)} and {_called(second)}")
            return None
        if first.person is None or second.person is None:
            known = first.person if second.person is None else second.person
            lone = [face for side in (first, second) if side.person is None for face in side.shown]
            return self.this_person(known, *lone)
        named = (
            (first, second) if first.name is not None or second.name is None else (second, first)
        )
        return self.merge(*(side.person for side in named if side.person is not None))

    def different(self, face: int, other: int) -> None:
        """State that two faces show different people; they are never grouped together.

        Raises:
            SettingsError: a face is not in the gallery, or both are the same.
        """
        arguments.numbers("faces", [face, other])
        if face == other:
            raise SettingsError(f"face {face} is one face; give two")
        self._check_in_gallery([face, other])
        with self._session.write() as writer:
            writer.people.part([(face, other)], f"face {face} and face {other}")

    def edits(self, most: int = 100) -> list[Edit]:
        """The last edits of people that `undo` can take back, the newest first."""
        most = arguments.whole("most", most, 1)
        with self._session.gallery().read() as now:
            return now.edits(most)

    def undo(self, expected: Edit | None = None) -> str:
        """Undo the last edit of people; returns what it was.

        Edits before somebody was forgotten cannot be undone.

        Args:
            expected: the edit that must be the last one, as `edits` has it; None for any. It is
                compared in the transaction that undoes it.

        Raises:
            OtherEditError: another edit is the last one; nothing was undone.
            GalleryError: there is no edit to undo.
            SettingsError: ``expected`` is no edit.
        """
        if expected is not None and not isinstance(expected, Edit):
            raise arguments.refusal("expected", expected, "an Edit, as edits() gives it")
        with self._session.write() as writer:
            with self._session.gallery().read() as now:
                before = now.state
            what = writer.people.undo(expected)
            with self._session.gallery().read() as now:
                faces_changed = now.state != before
            if faces_changed:
                self._session.index().save()
        return what

    def identify(
        self,
        query: PhotoLike | Photo | Face,
        *,
        at_least: float = NAMED_AT_LEAST,
        candidates: int = 3,
    ) -> list[Identified]:
        """Who each face of a photo is, among the people with names.

        Args:
            query: a photo, or a face.
            at_least: lowest probability to name somebody, 0…1; below it a face is unknown. At 0.9,
                2 % or fewer of the faces of unknown people got a name in tests.
            candidates: how many people to list with each face.

        Returns:
            One entry per face.

        Raises:
            CalibrationError: there is no calibration.
            PhotoError: the photo cannot be read.
            SettingsError: the query is an embedding or a list, or a number is out of range.
        """
        from face2vec.people.identify import identified

        arguments.no_embedding("query", query)
        if isinstance(query, list | tuple):
            raise arguments.refusal("query", query, "one photo or a Face")
        arguments.within("at_least", at_least, 0, 1)
        candidates = arguments.whole("candidates", candidates, 0)
        gallery, _ = self._session.gallery(), self._session.calibration()
        asked = self._queries.faces_of(query)
        faces = [face for face in asked.faces if face is not None]
        with gallery.read() as now:
            calibration = self._session.known_surroundings(now).calibration
            found, self._session.known_faces = identified(
                faces,
                asked.embeddings,
                now,
                calibration,
                at_least,
                candidates,
                self._session.known_faces,
            )
        return found

    def forget(self, who: Who) -> Forgotten:
        """Delete a person: faces, embeddings, name, and photos that show nobody else.

        The photo files are not touched. Their hashes are kept, so that they are not indexed again.
        Afterwards the files of the gallery are searched for traces. If that was interrupted, the
        same call finishes it; the embeddings are not known any more then, and the files are
        searched for the name only.

        Raises:
            GalleryError: there is no such person, or the gallery cannot be written.
        """
        gallery = self._session.gallery()
        asked = who.id if isinstance(who, Person) else arguments.who("who", who)
        with gallery.read() as now:
            earlier = now.forgetting(asked)
            if earlier is None:
                person = now.person(asked)
                stored = now.stored_faces(person.faces)
            else:
                name = asked if isinstance(asked, str) and not asked.isdecimal() else None
                person, stored = Person(earlier.person, name), []
        with self._session.write() as writer:
            if earlier is None:
                removed = writer.people.forget(person.id)
                self._session.index().rebuild()
            else:  # opening the writer has brought the index up to date
                removed = Removed(earlier.photos, earlier.faces)
        left = self._session.left_of(person, stored)
        return Forgotten(
            person.id, removed.faces, removed.photos, tuple(left), resumed=earlier is not None
        )

    def is_half_forgotten(self, who: Who) -> bool:
        """Whether the deletion of a person was interrupted; `forget` finishes it."""
        with self._session.gallery().read() as now:
            asked = who.id if isinstance(who, Person) else arguments.who("who", who)
            return now.forgetting(asked) is not None

    def _edit(self, who: Who, change: Callable[[PeopleWriter, int], object]) -> Person:
        number = self.person(who).id
        with self._session.write() as writer:
            change(writer.people, number)
        return self.person(number)
