"""The people in a gallery's rows: who they are, what was said of them, what was forgotten.

A face is found to be of a person by clustering, or somebody said so. What was said stands in
``sayings`` with what there was before, so that it can be taken back; nothing else does. No
function here begins or ends a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from face2vec.errors import GalleryError, SettingsError
from face2vec.gallery.connection import Connection
from face2vec.types import Box, Face, Person

FORGOTTEN = 'SELECT 1 FROM forgotten WHERE sha256 = ? AND "left" IS NULL'
"""Whether a photo showed nobody but people who were forgotten."""
SAME_PLACE = 0.5
"""Overlap, intersection over union, from which on two boxes in a photo are of one face."""


class Memberships(NamedTuple):
    """Who each face of a gallery is, int64 (n,) in order of face."""

    faces: Any
    people: Any
    said: Any


def everyone(connection: Connection) -> list[Person]:
    """All people, those with most faces first."""
    faces: dict[int, list[int]] = {}
    for face, person in connection.execute(
        "SELECT face_id, person_id FROM memberships ORDER BY face_id"
    ):
        faces.setdefault(person, []).append(face)
    found = [
        Person(i, name, tuple(faces.get(i, ())))
        for i, name in connection.execute("SELECT id, name FROM people ORDER BY id")
    ]
    return sorted(found, key=lambda person: -len(person.faces))


def memberships(connection: Connection) -> Memberships:
    """Who each face is that is anybody."""
    rows = connection.execute(
        "SELECT face_id, person_id, said FROM memberships ORDER BY face_id"
    ).fetchall()
    return Memberships(*np.array(rows, np.int64).reshape(-1, 3).T)


def refusals(connection: Connection) -> set[tuple[int, int]]:
    """(face, person) of which somebody said that it is not so."""
    return set(connection.execute("SELECT face_id, person_id FROM refusals"))


def assign(
    connection: Connection,
    joining: Mapping[int, Sequence[int]],
    new: Iterable[Sequence[int]],
    *,
    again: bool,
) -> None:
    """Note what clustering found: faces that join people, and new people by their faces.

    With ``again`` in its place: of all that was found before and nobody said.
    """
    if again:
        connection.execute("DELETE FROM memberships WHERE said = 0")
    for person, faces in joining.items():
        _add(connection, person, faces, said=False)
    for faces in new:
        _add(connection, _new(connection, None), faces, said=False)


def drop_empty(connection: Connection) -> None:
    """Drop people with neither a name nor a face."""
    connection.execute(
        "DELETE FROM people WHERE name IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM memberships WHERE person_id = people.id)"
    )


def name(connection: Connection, person: int, words: str | None) -> None:
    """Give a person a name, or take it away."""
    if words is not None:
        if not words.strip() or words.strip().isdecimal():
            raise SettingsError(
                f"{words!r} is no name: people have numbers besides, and are asked for by either."
            )
        try:
            words.encode()
        except UnicodeEncodeError as error:
            raise SettingsError(f"A name has to be text, and {words!r} is not.") from error
        taken = connection.execute("SELECT id FROM people WHERE name = ?", (words,)).fetchone()
        if taken is not None and taken[0] != person:
            raise GalleryError(
                f"Person {taken[0]} has the name {words!r} already. If they are one person, merge "
                "them; if not, choose another name."
            )
    with _Saying(connection, f"name of person {person}", [person]):
        connection.execute("UPDATE people SET name = ? WHERE id = ?", (words, person))


def merge(connection: Connection, into: int, others: Sequence[int]) -> None:
    """The others are the same person."""
    names = [_name(connection, person) for person in (into, *others)]
    known = [words for words in names if words is not None]
    if len(set(known)) > 1:
        raise GalleryError(
            f"These people have different names: {', '.join(known)}. Take the wrong names away "
            "before merging."
        )
    what = f"merge of {', '.join(map(str, others))} into person {into}"
    with _Saying(connection, what, [into, *others]):
        for other in others:
            connection.execute(
                "INSERT OR IGNORE INTO refusals"
                " SELECT face_id, ? FROM refusals WHERE person_id = ?",
                (into, other),
            )
            connection.execute(
                "UPDATE memberships SET person_id = ? WHERE person_id = ?", (into, other)
            )
            connection.execute("DELETE FROM people WHERE id = ?", (other,))
        connection.execute("UPDATE memberships SET said = 1 WHERE person_id = ?", (into,))
        connection.execute(
            "DELETE FROM refusals WHERE person_id = ?1 AND face_id IN"
            " (SELECT face_id FROM memberships WHERE person_id = ?1)",
            (into,),
        )
        connection.execute(
            "UPDATE people SET name = ? WHERE id = ?", (known[0] if known else None, into)
        )


def split(connection: Connection, person: int, faces: Sequence[int]) -> int:
    """These faces of a person are of another, new one; returns its number."""
    _refuse_others(connection, person, faces)
    new = _next(connection)
    with _Saying(connection, f"split of person {person}", [person, new], faces):
        _new(connection, new)
        _add(connection, new, faces, said=True)
        _refuse(connection, person, faces)
    return new


def not_this_person(connection: Connection, person: int, faces: Sequence[int]) -> None:
    """These faces of a person are of somebody else."""
    _refuse_others(connection, person, faces)
    with _Saying(connection, f"faces that are not person {person}", [person], faces):
        connection.executemany("DELETE FROM memberships WHERE face_id = ?", [(f,) for f in faces])
        _refuse(connection, person, faces)


def this_person(connection: Connection, person: int | None, faces: Sequence[int]) -> int:
    """These faces are of that person, or, without one, of a new one; returns its number."""
    number = _next(connection) if person is None else person
    with _Saying(connection, f"faces that are person {number}", [number], faces):
        if person is None:
            _new(connection, number)
        _add(connection, number, faces, said=True)
        connection.executemany(
            "DELETE FROM refusals WHERE face_id = ? AND person_id = ?",
            [(face, number) for face in faces],
        )
    return number


def undo(connection: Connection) -> str:
    """Take back what was said last; says what that was.

    Raises:
        GalleryError: nothing was said, or all of it is taken back.
    """
    last = connection.execute(
        "SELECT position, what, before FROM sayings ORDER BY position DESC LIMIT 1"
    ).fetchone()
    if last is None:
        raise GalleryError("There is nothing to take back.")
    position, what, text = last
    _restore(connection, json.loads(text))
    connection.execute("DELETE FROM sayings WHERE position = ?", (position,))
    return str(what)


def forget(connection: Connection, person: int) -> tuple[int, int]:
    """Delete a person with all faces, and note by hash which ones not to take in again.

    Returns:
        How many faces and how many photos left the gallery; a photo with other faces stays.
    """
    rows = connection.execute(
        'SELECT faces.id, content_id, sha256, "left", "top", "right", "bottom" FROM faces'
        " JOIN memberships ON face_id = faces.id JOIN contents ON contents.id = content_id"
        " WHERE person_id = ?",
        (person,),
    ).fetchall()
    faces = [row[0] for row in rows]
    connection.executemany("DELETE FROM faces WHERE id = ?", [(face,) for face in faces])
    photos = 0
    for content, sha256, *box in {row[1:] for row in rows}:
        rest = connection.execute("SELECT 1 FROM faces WHERE content_id = ?", (content,)).fetchone()
        if rest is None:
            box = [None] * 4
            gone = connection.execute("DELETE FROM photos WHERE content_id = ?", (content,))
            photos += gone.rowcount
            connection.execute("DELETE FROM contents WHERE id = ?", (content,))
        connection.execute("INSERT INTO forgotten VALUES (?, ?, ?, ?, ?)", (sha256, *box))
    connection.execute("DELETE FROM people WHERE id = ?", (person,))
    connection.execute(
        "DELETE FROM roots WHERE NOT EXISTS (SELECT 1 FROM photos WHERE root_id = roots.id)"
    )
    _unsay(connection, person, set(faces))
    return len(faces), photos


def boxes_forgotten(connection: Connection, sha256: bytes) -> list[Box | None]:
    """Where in a photo faces were that are forgotten; None for all of the photo."""
    rows = connection.execute(
        'SELECT "left", "top", "right", "bottom" FROM forgotten WHERE sha256 = ?', (sha256,)
    )
    return [None if row[0] is None else row for row in rows]


def has_whole(boxes: Iterable[Box | None]) -> bool:
    """Whether all of the photo is meant."""
    return None in boxes


def remembered(faces: Iterable[Face], boxes: Sequence[Box | None]) -> tuple[Face, ...]:
    """The faces that lie at none of the boxes."""
    places = [box for box in boxes if box is not None]
    return tuple(
        face for face in faces if all(_overlap(face.box, box) < SAME_PLACE for box in places)
    )


class _Saying:
    """Around what somebody says: notes what there was before, if it succeeds."""

    def __init__(
        self,
        connection: Connection,
        what: str,
        people: Sequence[int],
        faces: Sequence[int] | None = None,
    ) -> None:
        self._connection, self._what = connection, what
        known = set(faces or ()) | {face for p in people for face in _mentioned(connection, p)}
        self._before = _state(connection, people, sorted(known))

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._connection.execute(
                "INSERT INTO sayings (what, before) VALUES (?, ?)",
                (self._what, json.dumps(self._before)),
            )


def _mentioned(connection: Connection, person: int) -> Iterator[int]:
    for table in ("memberships", "refusals"):
        for (face,) in connection.execute(
            f"SELECT face_id FROM {table} WHERE person_id = ?", (person,)
        ):
            yield face


def _state(connection: Connection, people: Sequence[int], faces: Sequence[int]) -> dict[str, Any]:
    """What the tables say of these people and faces."""
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
        found = connection.execute("SELECT id, name FROM people WHERE id = ?", (person,)).fetchone()
        rows.append([person, *(("there", found[1]) if found else ("new", None))])
    return {"people": rows, "faces": list(faces), "members": members, "refused": refused}


def _restore(connection: Connection, before: dict[str, Any]) -> None:
    for person, was, words in before["people"]:
        if was == "new":
            connection.execute("DELETE FROM people WHERE id = ?", (person,))
        else:
            connection.execute(
                "INSERT INTO people VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET name = ?2",
                (person, words),
            )
    for face in before["faces"]:
        connection.execute("DELETE FROM memberships WHERE face_id = ?", (face,))
        connection.execute("DELETE FROM refusals WHERE face_id = ?", (face,))
    still = (
        "WHERE EXISTS (SELECT 1 FROM faces WHERE id = ?1)"
        " AND EXISTS (SELECT 1 FROM people WHERE id = ?2)"
    )
    for row in before["members"]:
        connection.execute(f"INSERT INTO memberships SELECT ?1, ?2, ?3 {still}", row)
    for row in before["refused"]:
        connection.execute(f"INSERT INTO refusals SELECT ?1, ?2 {still}", row)


def _unsay(connection: Connection, person: int, faces: set[int]) -> None:
    """Drop all that was said of a person, of the faces, and of whoever is named beside them."""
    sayings = [
        (position, json.loads(text))
        for position, text in connection.execute("SELECT position, before FROM sayings")
    ]
    people, found = {person}, -1
    while found < len(people):  # who was merged into somebody stands in another saying, too
        found = len(people)
        for _, before in sayings:
            about = {row[0] for row in before["people"]}
            if about & people or faces.intersection(before["faces"]):
                people |= about
    for position, before in sayings:
        if people.intersection(row[0] for row in before["people"]):
            connection.execute("DELETE FROM sayings WHERE position = ?", (position,))


def _refuse_others(connection: Connection, person: int, faces: Sequence[int]) -> None:
    """Refuse faces that are not this person's."""
    if not faces:
        raise GalleryError("No face is named. Name some by their numbers: face2vec people --json")
    for face in faces:
        who = connection.execute(
            "SELECT person_id FROM memberships WHERE face_id = ?", (face,)
        ).fetchone()
        if who is None or who[0] != person:
            raise GalleryError(f"Face {face} is not one of person {person}.")


def _add(connection: Connection, person: int, faces: Iterable[int], *, said: bool) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO memberships VALUES (?, ?, ?)",
        [(int(face), person, int(said)) for face in faces],
    )


def _refuse(connection: Connection, person: int, faces: Iterable[int]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO refusals VALUES (?, ?)", [(int(face), person) for face in faces]
    )


def _next(connection: Connection) -> int:
    """The number that the next new person gets; none is ever used again."""
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'people'").fetchone()
    return (last[0] if last else 0) + 1


def _new(connection: Connection, number: int | None) -> int:
    added = connection.execute("INSERT INTO people (id) VALUES (?)", (number,)).lastrowid
    assert added is not None
    return added


def _name(connection: Connection, person: int) -> str | None:
    found = connection.execute("SELECT name FROM people WHERE id = ?", (person,)).fetchone()
    words: str | None = found[0]
    return words


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0…1."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    shared = max(right - left, 0) * max(bottom - top, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0
