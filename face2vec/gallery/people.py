"""The people in a gallery's rows: who is who, the edits of users, and who was forgotten.

A face belongs to a person because clustering found it, or because a user confirmed it. Each edit of
a user is stored with what the tables held before, so that it can be undone; clustering is not.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.errors import GalleryError, OtherEditError, SettingsError
from face2vec.files import composed, look_of, trimmed
from face2vec.gallery import ignored, marks, removals
from face2vec.gallery.connection import Connection
from face2vec.gallery.rows import Removed, integers, many_integers
from face2vec.gallery.schema import has_column, has_table, last_number
from face2vec.types import ANY_NAME, AnyName, Box, Edit, Face, Person, Place

log = logging.getLogger("face2vec")

FORGOTTEN = 'SELECT 1 FROM forgotten WHERE sha256 = ? AND "left" IS NULL'
"""SQL: whether a photo showed only people who were forgotten."""

APART_FROM = 16
"""Number of a person's faces that a face is kept apart from when it is said to be somebody else."""


class Memberships(NamedTuple):
    """The person of each face that has one, in order of face.

    Attributes:
        faces: int64 (n,), numbers of the faces.
        people: int64 (n,), numbers of their people.
        confirmed: int64 (n,), 1 if a user confirmed it, 0 if clustering found it.
    """

    faces: NDArray[np.int64]
    people: NDArray[np.int64]
    confirmed: NDArray[np.int64]


def everyone(connection: Connection) -> list[Person]:
    """All people, those with most faces first."""
    faces: dict[int, list[int]] = {}
    for face, person in connection.execute(
        "SELECT face_id, person_id FROM memberships ORDER BY face_id"
    ):
        faces.setdefault(person, []).append(stored.integer(face, "the number of a face"))
    chosen = "hidden, cover" if has_column(connection, "people", "cover") else "NULL, NULL"
    found = [
        Person(
            i,
            stored.text_or_none(name, "the name of a person"),
            tuple(faces.get(i, ())),
            bool(_optional(hidden)),
            cover if _optional(cover) in faces.get(i, ()) else None,
        )
        for i, name, hidden, cover in connection.execute(
            f"SELECT id, name, {chosen} FROM people ORDER BY id"
        )
    ]
    return sorted(found, key=lambda person: -len(person.faces))


def _optional(value: object) -> int | None:
    """What is stored of a person's cover or hiding.

    Raises:
        StoredValueError: it is neither an integer nor nothing.
    """
    return None if value is None else stored.integer(value, "the cover of a person")


class PeopleRows(NamedTuple):
    """All rows about people, as another gallery can take them over.

    Attributes:
        people: (number, name, hidden, cover) of each person.
        members: (face, person, confirmed) of each face that has a person.
        refused: (face, person) pairs that a user has ruled out.
        parted: (face, face) pairs that show different people.
        blocked: (SHA-256, left, top, right, bottom, time) of forgotten faces; None for a photo.
        ignored: the same, with the confidence and the CRC-32 of the embedding, of ignored faces.
    """

    people: list[tuple[Any, ...]]
    members: list[tuple[int, int, int]]
    refused: list[tuple[int, int]]
    parted: list[tuple[int, int]]
    blocked: list[tuple[Any, ...]]
    ignored: list[tuple[Any, ...]]


_PLACE = 'sha256, "left", "top", "right", "bottom", time'


def rows_of(connection: Connection) -> PeopleRows:
    """All rows about people of a gallery of the current format."""
    return PeopleRows(
        *(
            connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
            for columns, table in (
                ("id, name, hidden, cover", "people"),
                ("face_id, person_id, said", "memberships"),
                ("face_id, person_id", "refusals"),
                ("face_id, other_id", "apart"),
                (_PLACE, "forgotten"),
                (f"{_PLACE}, confidence, embedding_crc32", "ignored"),
            )
        )
    )


def replace_rows(connection: Connection, rows: PeopleRows) -> None:
    """Replace all rows about people by those of another gallery.

    Ignored faces stay away, and cannot be taken back.
    """
    for table in ("sayings", "memberships", "refusals", "apart", "people", "forgotten", "ignored"):
        connection.execute(f"DELETE FROM {table}")
    for statement, values in (
        ("INSERT INTO people (id, name, hidden, cover) VALUES (?, ?, ?, ?)", rows.people),
        ("INSERT INTO memberships VALUES (?, ?, ?)", rows.members),
        ("INSERT INTO refusals VALUES (?, ?)", rows.refused),
        ("INSERT INTO apart VALUES (?, ?)", rows.parted),
        (f"INSERT INTO forgotten ({_PLACE}) VALUES (?, ?, ?, ?, ?, ?)", rows.blocked),
        (
            f"INSERT INTO ignored (face_id, {_PLACE}, confidence, embedding_crc32)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            # Numbers that no face has.
            [(-number, *row) for number, row in enumerate(rows.ignored, 1)],
        ),
    ):
        connection.executemany(statement, values)


def memberships(connection: Connection) -> Memberships:
    """The person of each face that has one."""
    rows = connection.execute("SELECT face_id, person_id, said FROM memberships ORDER BY face_id")
    return Memberships(*many_integers(rows, 3, "the people of faces"))


def refusals(connection: Connection) -> set[tuple[int, int]]:
    """(face, person) pairs that a user has ruled out."""
    return set(connection.execute("SELECT face_id, person_id FROM refusals"))


def apart(connection: Connection) -> set[tuple[int, int]]:
    """(face, face) pairs that show different people, as a user has said; the lower id first."""
    if not has_table(connection, "apart"):
        return set()
    rows = connection.execute("SELECT face_id, other_id FROM apart")
    pairs = integers(rows, 2, "the faces of different people").T.tolist()
    return {(one, other) for one, other in pairs}


def edits(connection: Connection, most: int) -> list[Edit]:
    """The last edits that can be undone, the newest first."""
    made = "made" if has_column(connection, "sayings", "made") else "NULL"
    rows = connection.execute(
        f"SELECT what, {made} FROM sayings ORDER BY position DESC LIMIT ?", (most,)
    )
    return [
        Edit(
            stored.text(what, "the description of an edit"),
            None if when is None else stored.integer(when, "the time of an edit"),
        )
        for what, when in rows
    ]


class PeopleWriter:
    """Changes people; each call is one transaction.

    Args:
        transaction: begins one.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction

    def assign(
        self,
        joining: Mapping[int, Sequence[int]],
        new: Iterable[Sequence[int]],
        *,
        again: bool = False,
    ) -> None:
        """Store what clustering found, and drop people with neither a name nor a face.

        Args:
            joining: numbers of faces that join a person, by the person's number.
            new: numbers of the faces of each new person.
            again: first remove all faces that clustering had assigned before.
        """
        with self._transaction() as connection:
            if again:
                connection.execute("DELETE FROM memberships WHERE said = 0")
            for person, faces in joining.items():
                _add(connection, person, faces, confirmed=False)
            for faces in new:
                _add(connection, _new(connection, None), faces, confirmed=False)
            connection.execute(
                "DELETE FROM people WHERE name IS NULL AND NOT EXISTS"
                " (SELECT 1 FROM memberships WHERE person_id = people.id)"
            )

    def name(self, person: int, name: str | None, was: str | AnyName | None = ANY_NAME) -> None:
        """Give a person a name, or remove it with None.

        Args:
            person: number of the person.
            name: the name.
            was: the name that the person has now, or None for none; ``ANY_NAME`` for any.

        Raises:
            GalleryError: another person has that name, or one that differs from it only in upper
                and lower case, in spaces, or in what cannot be seen; or the person has another
                name now than ``was``.
            SettingsError: the name is empty, a number, or not valid text.
        """
        if name is not None:
            name = checked_name(name)
        with self._transaction() as connection:
            if name is not None:
                _check_free_name(connection, name, person)
            now = _name(connection, person)
            if was is not ANY_NAME and was != now:
                called = "has no name" if now is None else f"has the name {now!r}"
                raise GalleryError(
                    f"person {person} {called} now, because somebody has changed it; nothing was "
                    "changed, look at the person and try again"
                ).coded("name-changed", person=person, name=now or "")
            removed = f"removal of the name {now!r} from person {person}"
            what = removed if name is None else f"name {name!r} of person {person}"
            with _Edit(connection, what, [person]):
                connection.execute("UPDATE people SET name = ? WHERE id = ?", (name, person))

    def merge(self, into: int, others: Sequence[int], *, keep_name: bool = False) -> None:
        """Make several people one person, who keeps the first number.

        Args:
            into: the person who keeps the number.
            others: the people who become that person.
            keep_name: the name of ``into`` stays, if there is one, and other names are dropped.

        Raises:
            GalleryError: they have different names.
        """
        with self._transaction() as connection:
            names = [_name(connection, person) for person in (into, *others)]
            known = [name for name in names if name is not None]
            if keep_name and names[0] is not None:
                known = known[:1]
            if len(set(map(composed, known))) > 1:
                raise GalleryError(
                    f"these people have different names: {', '.join(known)}; remove the wrong "
                    "names before merging"
                ).coded("different-names", names=known)
            merged = ", ".join(_label(connection, other) for other in others)
            what = f"merge of {merged} into {_label(connection, into)}"
            with _Edit(connection, what, [into, *others]):
                _merge(connection, into, others, known[0] if known else None)

    def split(self, person: int, faces: Sequence[int]) -> int:
        """Move some faces of a person to a new person; returns the new number.

        Raises:
            GalleryError: a face does not belong to that person.
        """
        with self._transaction() as connection:
            _check_faces(connection, person, faces)
            new = _next(connection)
            what = f"split of {_faces(faces)} from {_label(connection, person)}"
            with _Edit(connection, what, [person, new], faces):
                _new(connection, new)
                _add(connection, new, faces, confirmed=True)
                _refuse(connection, person, faces)
        return new

    def confirm(self, person: int | None, faces: Sequence[int], name: str | None = None) -> int:
        """State that faces show a person, or, with None, a new one; returns the number.

        Args:
            person: number of the person.
            faces: numbers of the faces.
            name: of a new person.

        Raises:
            GalleryError: another person has that name, see `name`.
            SettingsError: the name is empty, a number, or not valid text.
        """
        if name is not None:
            name = checked_name(name)
        with self._transaction() as connection:
            number = _next(connection) if person is None else person
            if name is not None:
                _check_free_name(connection, name, number)
                what = f"enrolment of {_faces(faces)} as {name!r}"
            else:
                whom = f"person {number}" if person is None else _label(connection, number)
                what = f"assignment of {_faces(faces)} to {whom}"
            with _Edit(connection, what, [number], faces):
                if person is None:
                    _new(connection, number)
                if name is not None:
                    connection.execute("UPDATE people SET name = ? WHERE id = ?", (name, number))
                _confirm(connection, number, faces)
        return number

    def enroll(self, named: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """State whose faces these are, by name, in one edit; returns the number of each person.

        A person who has the name gets the faces; names that look the same are one. If there is
        none, the unnamed person with more than half of the faces, and with none of another name,
        gets the name; otherwise a new person. Logs a warning if a name that is new differs from
        another only in upper and lower case.

        Args:
            named: numbers of the faces of each name. Each face has one name, and each person one
                of the forms of a name.

        Raises:
            SettingsError: a name is empty, a number, or not valid text.
        """
        given = [(checked_name(name), faces) for name, faces in named.items()]
        with self._transaction() as connection:
            people = connection.execute(
                "SELECT id, name FROM people WHERE name IS NOT NULL"
            ).fetchall()
            known = {composed(name): number for number, name in people}
            named = _by_look(given, [name for _, name in people])
            grouped = _unnamed_with_most(connection, named)
            first_new = new = _next(connection)
            numbers: dict[str, int] = {}
            for name in named:
                number = known.get(composed(name), grouped.get(name))
                if number is None:
                    number, new = new, new + 1
                numbers[name] = number
            stated = {
                name: [face for face in faces if not _is_confirmed(connection, numbers[name], face)]
                for name, faces in named.items()
            }
            everyone = [face for faces in stated.values() for face in faces]
            is_new = any(composed(name) not in known for name in named)
            _warn_of_case([name for name in named if composed(name) not in known], [*known, *named])
            if everyone or is_new:
                whom = repr(next(iter(named))) if len(named) == 1 else f"{len(named)} people"
                shown = everyone or [face for faces in named.values() for face in faces]
                what = f"enrolment of {_faces(shown)} as {whom}"
                with _Edit(connection, what, list(numbers.values()), everyone):
                    for name, number in numbers.items():
                        if number >= first_new:
                            _new(connection, number)
                        if composed(name) not in known:
                            connection.execute(
                                "UPDATE people SET name = ? WHERE id = ?", (name, number)
                            )
                        _confirm(connection, number, stated[name])
        return numbers

    def rule_out(self, person: int, faces: Sequence[int]) -> None:
        """State that faces do not show a person; they are unassigned and never join it again.

        Raises:
            GalleryError: a face does not belong to that person.
        """
        with self._transaction() as connection:
            _check_faces(connection, person, faces)
            what = f"removal of {_faces(faces)} from {_label(connection, person)}"
            with _Edit(connection, what, [person], faces):
                connection.executemany(
                    "DELETE FROM memberships WHERE face_id = ?", [(face,) for face in faces]
                )
                _refuse(connection, person, faces)
                _set_apart(connection, person, faces)

    def part(self, pairs: Sequence[tuple[int, int]], whom: str) -> None:
        """State that pairs of faces show different people; they are never grouped together.

        Args:
            pairs: numbers of two faces each.
            whom: what the edit calls them, such as ``"Ada (person 1) and person 7 (unnamed)"``.
        """
        faces = sorted({face for pair in pairs for face in pair})
        with (
            self._transaction() as connection,
            _Edit(connection, f"statement that {whom} are different people", [], faces),
        ):
            connection.executemany(
                "INSERT OR IGNORE INTO apart VALUES (?, ?)",
                [(min(pair), max(pair)) for pair in pairs],
            )

    def hide(self, people: Sequence[int], hidden: bool) -> None:
        """Leave people out of lists, or show them again, in one edit of those it changes."""
        with self._transaction() as connection:
            people = [person for person in people if _is_hidden(connection, person) != hidden]
            if not people:
                return
            one = len(people) == 1
            whom = _label(connection, people[0]) if one else f"{len(people)} people"
            with _Edit(connection, f"{'hiding' if hidden else 'showing'} of {whom}", people, []):
                connection.executemany(
                    "UPDATE people SET hidden = ? WHERE id = ?",
                    [(int(hidden), person) for person in people],
                )

    def choose_cover(self, person: int, face: int) -> None:
        """Choose the face that is shown for a person.

        Raises:
            GalleryError: the face does not belong to that person.
        """
        with self._transaction() as connection:
            _check_faces(connection, person, [face])
            what = f"choice of face {face} as the cover of {_label(connection, person)}"
            with _Edit(connection, what, [person], []):
                connection.execute("UPDATE people SET cover = ? WHERE id = ?", (face, person))

    def ignore(self, faces: Sequence[int]) -> None:
        """State that faces are no faces; they leave the gallery and never come back.

        Raises:
            GalleryError: a face is not in the gallery.
        """
        marks = ",".join("?" * len(faces))
        with self._transaction() as connection:
            people = connection.execute(
                f"SELECT DISTINCT person_id FROM memberships WHERE face_id IN ({marks})", faces
            ).fetchall()
            numbers = [person for (person,) in people]
            with _Edit(connection, f"ignoring of {_faces(faces)}", numbers, faces, ignored=True):
                ignored.put_aside(connection, faces)

    def mark_face(self, content: int, row: tuple[Any, ...]) -> int:
        """Add a face that a user has marked by hand and that has landmarks; returns its id.

        Args:
            content: number of its content.
            row: see ``face2vec.gallery.rows.face_row``.

        Raises:
            GalleryError: a face is there already, or one was ignored or forgotten there.
        """
        with self._transaction() as connection:
            _check_may_mark(connection, content, row[:4])
            face = _next(connection, "faces")
            with _Edit(connection, f"marking of face {face} by hand", [], [], made=[face]):
                marks.insert_face(connection, content, row)
                ignored.agree_status(connection)
        return face

    def mark(self, content: int, box: Box) -> int:
        """Add a mark, which is a face without landmarks; returns its number.

        Args:
            content: number of its content.
            box: (left, top, right, bottom) in pixels of the upright photo.

        Raises:
            GalleryError: a face is there already, or one was ignored or forgotten there.
        """
        with self._transaction() as connection:
            _check_may_mark(connection, content, box)
            mark = _next(connection, "marks")
            with _Edit(connection, f"marking of a face by hand (mark {mark})", [], [], [mark]):
                marks.insert(connection, content, box)
        return mark

    def name_mark(self, mark: int, name: str | None) -> int | None:
        """State whom a mark shows, by name, or, with None, nobody; returns the person.

        If nobody has the name, a new person gets it.

        Raises:
            GalleryError: there is no such mark.
            SettingsError: the name is empty, a number, or not valid text.
        """
        if name is not None:
            name = checked_name(name)
        with self._transaction() as connection:
            _check_mark(connection, mark)
            known = None if name is None else _called(connection, name, 0)
            if known is None and name is not None:
                alike = _alike(connection, name, 0)
                if alike is not None and look_of(alike[1]) == look_of(name):
                    known = alike[0]
                elif alike is not None:
                    _warn_of_case([name], [alike[1]])
            person = _next(connection) if known is None and name is not None else known
            whom = "nobody" if name is None else repr(name)
            people = [] if person is None else [person]
            with _Edit(connection, f"statement that mark {mark} is {whom}", people, [], [mark]):
                if known is None and name is not None:
                    _new(connection, person)
                    connection.execute("UPDATE people SET name = ? WHERE id = ?", (name, person))
                connection.execute("UPDATE marks SET person_id = ? WHERE id = ?", (person, mark))
        return person

    def unmark(self, mark: int) -> None:
        """Delete a mark.

        Raises:
            GalleryError: there is no such mark.
        """
        with self._transaction() as connection:
            _check_mark(connection, mark)
            with _Edit(connection, f"removal of mark {mark}", [], [], [mark]):
                marks.delete(connection, [mark])

    def undo(self, expected: Edit | None = None) -> str:
        """Undo the last edit; returns what it was. No edit before a `forget` can be undone.

        Args:
            expected: the edit that must be the last one; None for any.

        Raises:
            OtherEditError: another edit is the last one; nothing was undone.
            GalleryError: there is no edit to undo.
        """
        with self._transaction() as connection:
            if expected is not None:
                now = next(iter(edits(connection, 1)), None)
                if now != expected:
                    raise OtherEditError(*(now or (None, None)))
            last = connection.execute(
                "SELECT position, what, before FROM sayings ORDER BY position DESC LIMIT 1"
            ).fetchone()
            if last is None:
                raise GalleryError(
                    "there is no edit to undo; edits before somebody was forgotten cannot be undone"
                ).coded("nothing-to-undo")
            position, what, before = last
            lost = _restore(connection, _edit(before))
            connection.execute("DELETE FROM sayings WHERE position = ?", (position,))
        words = stored.text(what, "the description of an edit")
        if lost:
            words += f"; to have {_faces(lost)} back, remove the photo and index it again"
        return words

    def readmit(self, sha256: bytes) -> bool:
        """Lift the blocks of a photo: forgotten and ignored faces; returns whether there were any.

        Args:
            sha256: the 32 bytes of the hash of the photo's bytes.
        """
        with self._transaction() as connection:
            lifted = [
                connection.execute(f"DELETE FROM {table} WHERE sha256 = ?", (sha256,)).rowcount
                for table in ("forgotten", "ignored")
            ]
        return any(lifted)

    def forget(self, person: int) -> Removed:
        """Delete a person: faces, embeddings, name, and photos that show nobody else.

        The hashes of the photos are kept, so that they are not indexed again.
        """
        with self._transaction() as connection:
            name = _name(connection, person)
            removed = _forget(connection, person)
            keys = tuple(
                removals.key_of(connection, removals.FORGET, [word])
                for word in (str(person), name)
                if word is not None
            )
            removals.begin(connection, removals.Removal(*removed, person, keys))
        return removed


def _forget(connection: Connection, person: int) -> Removed:
    rows = connection.execute(
        'SELECT faces.id, content_id, sha256, "left", "top", "right", "bottom", time FROM faces'
        " JOIN memberships ON face_id = faces.id JOIN contents ON contents.id = content_id"
        " WHERE person_id = ?",
        (person,),
    ).fetchall()
    faces = [row[0] for row in rows]
    connection.executemany("DELETE FROM faces WHERE id = ?", [(face,) for face in faces])
    marked = marks.of_person(connection, person)
    places = {row[1:] for row in rows}
    for mark in marked:
        (sha256,) = connection.execute(
            "SELECT sha256 FROM contents WHERE id = ?", (mark.content,)
        ).fetchone()
        places.add((mark.content, sha256, *mark.box, None))
    marks.delete(connection, [mark.id for mark in marked])
    photos = 0
    for content, sha256, *place in places:
        rest = connection.execute(
            "SELECT 1 FROM faces WHERE content_id = ?1"
            " UNION ALL SELECT 1 FROM marks WHERE content_id = ?1",
            (content,),
        ).fetchone()
        if rest is None:
            place = [None] * 5
            gone = connection.execute("DELETE FROM photos WHERE content_id = ?", (content,))
            photos += gone.rowcount
            connection.execute("DELETE FROM contents WHERE id = ?", (content,))
        connection.execute(
            'INSERT INTO forgotten (sha256, "left", "top", "right", "bottom", time)'
            " VALUES (?, ?, ?, ?, ?, ?)",
            (sha256, *place),
        )
    connection.execute("DELETE FROM people WHERE id = ?", (person,))
    connection.execute(
        "DELETE FROM roots WHERE NOT EXISTS (SELECT 1 FROM photos WHERE root_id = roots.id)"
    )
    # What was said before cannot be undone across this: it may be about the forgotten person.
    connection.execute("DELETE FROM sayings")
    ignored.reduce(connection)
    # A photo that has marks of other people only is one without a face.
    ignored.agree_status(connection)
    return Removed(photos, len(faces) + len(marked))


def _merge(connection: Connection, into: int, others: Sequence[int], name: str | None) -> None:
    for other in others:
        connection.execute(
            "INSERT OR IGNORE INTO refusals SELECT face_id, ? FROM refusals WHERE person_id = ?",
            (into, other),
        )
        connection.execute(
            "UPDATE memberships SET person_id = ? WHERE person_id = ?", (into, other)
        )
        connection.execute("UPDATE marks SET person_id = ? WHERE person_id = ?", (into, other))
        connection.execute("DELETE FROM people WHERE id = ?", (other,))
    connection.execute("UPDATE memberships SET said = 1 WHERE person_id = ?", (into,))
    connection.execute(
        "DELETE FROM refusals WHERE person_id = ?1 AND face_id IN"
        " (SELECT face_id FROM memberships WHERE person_id = ?1)",
        (into,),
    )
    _forget_apart(connection, into)
    connection.execute("UPDATE people SET name = ? WHERE id = ?", (name, into))


def _set_apart(connection: Connection, person: int, faces: Sequence[int]) -> None:
    """Store that faces are of somebody else than a person's, even if that person is regrouped."""
    rest = connection.execute(
        "SELECT face_id FROM memberships WHERE person_id = ? ORDER BY said DESC, face_id LIMIT ?",
        (person, APART_FROM),
    ).fetchall()
    connection.executemany(
        "INSERT OR IGNORE INTO apart VALUES (?, ?)",
        [(min(face, other), max(face, other)) for face in faces for (other,) in rest],
    )


def _forget_apart(connection: Connection, person: int) -> None:
    """Delete the pairs of different people among the faces of one: the last word counts."""
    faces = connection.execute("SELECT face_id FROM memberships WHERE person_id = ?", (person,))
    connection.executemany(
        "DELETE FROM apart WHERE face_id = ? AND other_id = ?",
        _apart_among(connection, [face for (face,) in faces]),
    )


def places_forgotten(connection: Connection, sha256: bytes) -> list[Place | None]:
    """Places of forgotten and ignored faces in a photo; None stands for the whole photo."""
    box = '"left", "top", "right", "bottom", time'
    rows = connection.execute(
        f"SELECT {box} FROM forgotten WHERE sha256 = ?1"
        f" UNION ALL SELECT {box} FROM ignored WHERE sha256 = ?1",
        (sha256,),
    )
    return [None if box[0] is None else Place(tuple(box), time) for *box, time in rows]


def covers_photo(places: Iterable[Place | None]) -> bool:
    """Whether one of them stands for the whole photo."""
    return None in places


def without_forgotten(faces: Iterable[Face], places: Sequence[Place | None]) -> tuple[Face, ...]:
    """The faces that are at none of the places."""
    known = [place for place in places if place is not None]
    return tuple(
        face for face in faces if not any(place.is_of(face.box, face.time) for place in known)
    )


def checked_name(name: str) -> str:
    """The name of a person, without spaces around it, or characters there that show nothing.

    Raises:
        SettingsError: it is empty, a number, or not valid text.
    """
    name = trimmed(name)
    if not name or name.isdecimal():
        raise SettingsError(
            f"{name!r} cannot be a name: it is empty or a number, and people also have numbers"
        ).coded("not-a-name", name=name)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"{name!r} cannot be a name: it is not valid Unicode text") from error
    return name


def _check_free_name(connection: Connection, name: str, person: int) -> None:
    """Check that a person may have a name.

    Raises:
        GalleryError: somebody else has it, or one that can hardly be told from it.
    """
    taken = _called(connection, name, person)
    if taken is not None:
        raise GalleryError(
            f"person {taken} already has the name {name!r}; merge the two if they are the same "
            "person, or choose another name"
        ).coded("name-taken", name=name, person=taken)
    alike = _alike(connection, name, person)
    if alike is not None:
        other, known = alike
        raise GalleryError(
            f"person {other} has the name {known!r}, which can hardly be told from {name!r}; merge "
            "the two if they are the same person, or choose another name"
        ).coded("name-alike", name=name, known=known, person=other)


def _label(connection: Connection, person: int) -> str:
    """What a message calls a person."""
    name = _name(connection, person)
    return f"person {person} (unnamed)" if name is None else f"{name} (person {person})"


def _faces(faces: Sequence[int]) -> str:
    return f"face {faces[0]}" if len(faces) == 1 else f"{len(faces)} faces"


class _Edit:
    """Wraps an edit: stores what the tables held before, if the edit succeeds."""

    def __init__(
        self,
        connection: Connection,
        what: str,
        people: Sequence[int],
        faces: Sequence[int] | None = None,
        marked: Sequence[int] = (),
        *,
        ignored: bool = False,
        made: Sequence[int] = (),
    ) -> None:
        self._connection, self._what = connection, what
        known = set(faces or ())
        if faces != []:  # an edit of the people alone leaves their faces as they are
            known |= {face for p in people for face in _mentioned(connection, p)}
        self._before = _state(connection, people, sorted(known))
        if ignored:
            self._before["ignored"] = list(faces or ())
        touched = [mark.id for person in people for mark in marks.of_person(connection, person)]
        self._before["marks"] = marks.state(connection, dict.fromkeys([*marked, *touched]))
        self._before["made"] = list(made)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._connection.execute(
                "INSERT INTO sayings (what, before, made) VALUES (?, ?, ?)",
                (self._what, json.dumps(self._before), int(time.time())),
            )


def _mentioned(connection: Connection, person: int) -> Iterator[int]:
    for table in ("memberships", "refusals"):
        for (face,) in connection.execute(
            f"SELECT face_id FROM {table} WHERE person_id = ?", (person,)
        ):
            yield face


def _state(connection: Connection, people: Sequence[int], faces: Sequence[int]) -> dict[str, Any]:
    """What the tables hold about these people and faces."""
    members, refused = [], []
    for face in faces:
        members += connection.execute(
            "SELECT face_id, person_id, said FROM memberships WHERE face_id = ?", (face,)
        ).fetchall()
        refused += connection.execute(
            "SELECT face_id, person_id FROM refusals WHERE face_id = ?", (face,)
        ).fetchall()
    rows = []
    for person in people:
        found = connection.execute(
            "SELECT name, hidden, cover FROM people WHERE id = ?", (person,)
        ).fetchone()
        if found is None:
            rows.append([person, "new", None, None, None])
        else:
            name, hidden, cover = found
            rows.append([person, "there", name, _optional(hidden), _optional(cover)])
    return {
        "people": rows,
        "faces": list(faces),
        "members": members,
        "refused": refused,
        "apart": _apart_among(connection, faces),
    }


def _apart_among(connection: Connection, faces: Iterable[int]) -> list[tuple[int, int]]:
    """The pairs of different people that are among some faces."""
    among = set(faces)
    rows = [
        row
        for face in among
        for row in connection.execute(
            "SELECT face_id, other_id FROM apart WHERE face_id = ?", (face,)
        )
    ]
    return sorted((one, other) for one, other in rows if other in among)


def _edit(text: object) -> dict[str, Any]:
    """What the tables held before an edit, from its stored form.

    Raises:
        StoredValueError: it is not what `_state` gives.
    """
    what = "an edit"
    whole = stored.mapping(stored.parsed(text, what), what)
    people, faces, members, refused = (
        stored.array(stored.field(whole, name, what), what)
        for name in ("people", "faces", "members", "refused")
    )
    for row in people:
        if len(stored.array(row, what)) == 3:  # of a version without covers
            row += [None, None]
        person, was, name, hidden, cover = stored.array(row, what, 5)
        stored.integer(person, "a person in an edit")
        for value in (hidden, cover):
            if value is not None:
                stored.integer(value, "a number in an edit")
        if was not in ("there", "new"):
            raise stored.StoredValueError(f"{what} has {was!r} instead of 'there' or 'new'")
        stored.text_or_none(name, "a name in an edit")
    for face in faces:
        stored.integer(face, "a face in an edit")
    parted = stored.array(whole.get("apart", []), what)
    for rows, columns in ((members, 3), (refused, 2), (parted, 2)):
        for row in rows:
            for value in stored.array(row, what, columns):
                stored.integer(value, "a number in an edit")
    aside = stored.array(whole.get("ignored", []), what)
    for face in aside:
        stored.integer(face, "an ignored face in an edit")
    made = stored.array(whole.get("made", []), what)
    for face in made:
        stored.integer(face, "a face made by an edit")
    return {
        "people": people, "faces": faces, "members": members, "refused": refused, "ignored": aside,
        "apart": parted, "marks": marks.checked_state(whole.get("marks", [])), "made": made,
    }  # fmt: skip


def _restore(connection: Connection, before: dict[str, Any]) -> list[int]:
    """Bring the tables to an earlier state; returns faces that cannot be restored."""
    lost = ignored.take_back(connection, before["ignored"])
    if before["made"]:
        connection.executemany(
            "DELETE FROM faces WHERE id = ?", [(face,) for face in before["made"]]
        )
        ignored.agree_status(connection)
    for person, was, words, hidden, cover in before["people"]:
        if was == "new":
            connection.execute("DELETE FROM people WHERE id = ?", (person,))
        else:
            connection.execute(
                "INSERT INTO people (id, name, hidden, cover) VALUES (?1, ?2, ?3, ?4)"
                " ON CONFLICT (id) DO UPDATE SET name = ?2, hidden = ?3, cover = ?4",
                (person, words, hidden, cover),
            )
    for face in before["faces"]:
        connection.execute("DELETE FROM memberships WHERE face_id = ?", (face,))
        connection.execute("DELETE FROM refusals WHERE face_id = ?", (face,))
    connection.executemany(
        "DELETE FROM apart WHERE face_id = ? AND other_id = ?",
        _apart_among(connection, before["faces"]),
    )
    for row in before["apart"]:
        connection.execute(
            "INSERT OR IGNORE INTO apart SELECT ?1, ?2"
            " WHERE (SELECT count(*) FROM faces WHERE id IN (?1, ?2)) = 2",
            row,
        )
    still = (
        "WHERE EXISTS (SELECT 1 FROM faces WHERE id = ?1)"
        " AND EXISTS (SELECT 1 FROM people WHERE id = ?2)"
    )
    for row in before["members"]:
        connection.execute(f"INSERT INTO memberships SELECT ?1, ?2, ?3 {still}", row)
    for row in before["refused"]:
        connection.execute(f"INSERT INTO refusals SELECT ?1, ?2 {still}", row)
    marks.restore(connection, before["marks"])
    return lost


def _check_may_mark(connection: Connection, content: int, box: Sequence[float]) -> None:
    """Check that a face may be marked at a place.

    Raises:
        GalleryError: a face is there already, or one was ignored or forgotten there.
    """
    left, top, right, bottom = map(float, box)
    place = (left, top, right, bottom)
    marks.check_free(connection, content, place)
    found = connection.execute("SELECT sha256 FROM contents WHERE id = ?", (content,)).fetchone()
    if found is None:
        raise GalleryError("the photo has left the gallery; index it again").coded("photo-gone")
    blocked = places_forgotten(connection, stored.blob(found[0], "the hash of a photo"))
    if any(one is not None and one.is_of(place, None) for one in blocked):
        raise GalleryError(
            "a face was ignored or forgotten here; undo that, or lift the block with "
            "face2vec readmit"
        ).coded("face-blocked")


def _check_mark(connection: Connection, mark: int) -> None:
    if marks.one(connection, mark) is None:
        raise GalleryError(f"there is no mark {mark} in the gallery").coded("no-mark", number=mark)


def _is_hidden(connection: Connection, person: int) -> bool:
    found = connection.execute("SELECT hidden FROM people WHERE id = ?", (person,)).fetchone()
    return bool(found and found[0])


def _check_faces(connection: Connection, person: int, faces: Sequence[int]) -> None:
    """Check that these are faces of this person."""
    if not faces:
        raise GalleryError(
            "no face is given; give face numbers, which 'face2vec people --json' lists"
        )
    for face in faces:
        who = connection.execute(
            "SELECT person_id FROM memberships WHERE face_id = ?", (face,)
        ).fetchone()
        if who is None or who[0] != person:
            raise GalleryError(f"face {face} does not belong to person {person}").coded(
                "not-their-face", face=face, person=person
            )


def _add(connection: Connection, person: int, faces: Iterable[int], *, confirmed: bool) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO memberships VALUES (?, ?, ?)",
        [(int(face), person, int(confirmed)) for face in faces],
    )


def _confirm(connection: Connection, person: int, faces: Sequence[int]) -> None:
    """Store that a user says these are faces of this person, whatever was ruled out before."""
    _add(connection, person, faces, confirmed=True)
    _forget_apart(connection, person)
    connection.executemany(
        "DELETE FROM refusals WHERE face_id = ? AND person_id = ?",
        [(int(face), person) for face in faces],
    )


def _is_confirmed(connection: Connection, person: int, face: int) -> bool:
    """Whether a user has said that this is a face of this person."""
    found = connection.execute(
        "SELECT 1 FROM memberships WHERE face_id = ? AND person_id = ? AND said = 1",
        (int(face), person),
    ).fetchone()
    return found is not None


def _unnamed_with_most(
    connection: Connection, named: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """The unnamed person with more than half of the faces of a name and none of another name."""
    faces_in: dict[int, Counter[str]] = {}
    for name, faces in named.items():
        for face in faces:
            found = connection.execute(
                "SELECT people.id FROM memberships JOIN people ON people.id = person_id"
                " WHERE face_id = ? AND name IS NULL",
                (int(face),),
            ).fetchone()
            if found is not None:
                faces_in.setdefault(found[0], Counter())[name] += 1
    most = {}
    for person, counts in faces_in.items():
        name, count = counts.most_common(1)[0]
        if len(counts) == 1 and 2 * count > len(named[name]):
            most[name] = person
    return most


def _refuse(connection: Connection, person: int, faces: Iterable[int]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO refusals VALUES (?, ?)", [(int(face), person) for face in faces]
    )


def _next(connection: Connection, table: str = "people") -> int:
    """The number of the next new person, or row of another table; numbers are never reused."""
    return last_number(connection, table) + 1


def _new(connection: Connection, number: int | None) -> int:
    number = _next(connection) if number is None else number
    connection.execute("INSERT INTO people (id) VALUES (?)", (number,))
    return number


def _called(connection: Connection, name: str, but: int) -> int | None:
    """The number of a person with a name, other than ``but``; names are compared in NFC."""
    for number, other in connection.execute("SELECT id, name FROM people WHERE name IS NOT NULL"):
        if number != but and composed(other) == composed(name):
            return int(number)
    return None


def _alike(connection: Connection, name: str, but: int) -> tuple[int, str] | None:
    """A person, other than ``but``, whose name can hardly be told from a name, with that name."""
    wanted = look_of(name).casefold()
    for number, other in connection.execute("SELECT id, name FROM people WHERE name IS NOT NULL"):
        if number != but and look_of(other).casefold() == wanted:
            return int(number), str(other)
    return None


def _by_look(
    given: Iterable[tuple[str, Sequence[int]]], known: Iterable[str]
) -> dict[str, list[int]]:
    """Faces by name; names that look the same are one: that which is known, or the first.

    Args:
        given: names, each with numbers of faces.
        known: names that people have.
    """
    exact = {composed(name) for name in known}
    looks = {look_of(name): name for name in known}
    named: dict[str, list[int]] = {}
    for name, faces in given:
        called = name if composed(name) in exact else looks.setdefault(look_of(name), name)
        named.setdefault(called, []).extend(faces)
    return named


def _warn_of_case(new: Iterable[str], others: Sequence[str]) -> None:
    for name in new:
        alike = [
            other
            for other in others
            if composed(other) != composed(name)
            and look_of(other).casefold() == look_of(name).casefold()
        ]
        if alike:
            log.warning(
                "%r and %r are two people now, whose names differ only in upper and lower case; if "
                "they are one person, merge them",
                name,
                alike[0],
            )


def _name(connection: Connection, person: int) -> str | None:
    found = connection.execute("SELECT name FROM people WHERE id = ?", (person,)).fetchone()
    return None if found is None else stored.text_or_none(found[0], "the name of a person")
