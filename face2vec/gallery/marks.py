"""Faces that a user has marked by hand in a gallery's rows.

Where landmarks were found, the face is stored as any other. Where none were found there is no
embedding, so the face is no row of the table of faces, and no search, suggestion or grouping sees
it. It has a row of its own, a mark, which can belong to a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from face2vec import stored
from face2vec.errors import GalleryError
from face2vec.gallery.connection import Connection
from face2vec.gallery.schema import has_table
from face2vec.types import SAME_FACE_IOU, Box, Mark, overlap

_INSERT_FACE = (
    'INSERT INTO faces (content_id, "left", "top", "right", "bottom", landmarks, confidence,'
    " quality, embedding_crc32, parts, time, track_begin, track_end)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BOX = '"left", "top", "right", "bottom"'
_MARKS = f"SELECT id, content_id, person_id, {_BOX} FROM marks"


def insert_face(connection: Connection, content: int, row: tuple[Any, ...]) -> int:
    """Add a face to a content; returns its id.

    Args:
        connection: the writer's connection.
        content: number of the content.
        row: see ``face2vec.gallery.rows.face_row``.
    """
    *face, embedding = row
    added = connection.execute(_INSERT_FACE, (content, *face)).lastrowid
    assert added is not None
    connection.execute("INSERT INTO embeddings VALUES (?, ?)", (added, embedding))
    return added


def in_content(connection: Connection, content: int) -> list[Mark]:
    """The marks of a content, in order."""
    return _read(connection, "content_id = ?", content)


def everywhere(connection: Connection) -> list[Mark]:
    """All marks, in order."""
    return _read(connection, "id >= ?", 0)


def of_person(connection: Connection, person: int) -> list[Mark]:
    """The marks that belong to a person, in order."""
    return _read(connection, "person_id = ?", person)


def one(connection: Connection, mark: int) -> Mark | None:
    """A mark by its number, or None."""
    return next(iter(_read(connection, "id = ?", mark)), None)


def insert(connection: Connection, content: int, box: Box) -> int:
    """Add a mark that belongs to nobody; returns its number."""
    values = (content, *map(float, box))
    added = connection.execute(
        f"INSERT INTO marks (content_id, {_BOX}) VALUES (?, ?, ?, ?, ?)", values
    ).lastrowid
    assert added is not None
    return added


def delete(connection: Connection, numbers: Iterable[int]) -> None:
    """Delete marks."""
    connection.executemany("DELETE FROM marks WHERE id = ?", [(mark,) for mark in numbers])


def check_free(connection: Connection, content: int, box: Box) -> None:
    """Check that no face of a content is at a box yet.

    Raises:
        GalleryError: there is one.
    """
    for face, *place in connection.execute(
        f"SELECT id, {_BOX} FROM faces WHERE content_id = ? AND time IS NULL", (content,)
    ):
        if _overlap(place, box) >= SAME_FACE_IOU:
            raise GalleryError(f"face {face} is there already; name that one").coded(
                "face-there", face=face
            )
    for mark in in_content(connection, content):
        if overlap(mark.box, box) >= SAME_FACE_IOU:
            raise GalleryError(
                f"mark {mark.id} is there already; name that one, or delete it"
            ).coded("mark-there", mark=mark.id)


def give_to_faces(connection: Connection, content: int) -> None:
    """Replace the marks of a content by faces that were found there; people keep them."""
    marks = in_content(connection, content)
    faces = (
        connection.execute(
            f"SELECT id, {_BOX} FROM faces WHERE content_id = ?", (content,)
        ).fetchall()
        if marks
        else []
    )
    for mark in marks:
        for face, *place in faces:
            if _overlap(place, mark.box) < SAME_FACE_IOU:
                continue
            if mark.person is not None:
                connection.execute(
                    "INSERT OR IGNORE INTO memberships VALUES (?, ?, 1)", (face, mark.person)
                )
            delete(connection, [mark.id])
            break


def state(connection: Connection, numbers: Iterable[int]) -> list[list[Any]]:
    """What the table holds of marks, as `restore` takes it; of new ones the number alone."""
    rows = []
    for number in numbers:
        mark = one(connection, number)
        rows.append(
            [number, None, None, *[None] * 4]
            if mark is None
            else [mark.id, mark.content, mark.person, *mark.box]
        )
    return rows


def checked_state(value: object) -> list[list[Any]]:
    """The result of `state`, from its stored form.

    Raises:
        StoredValueError: it is not one.
    """
    what = "the marks in an edit"
    rows = stored.array(value, what)
    for row in rows:
        number, content, person, *box = stored.array(row, what, 7)
        stored.integer(number, what)
        if content is not None:
            stored.integer(content, what)
            for side in box:
                stored.number(side, what)
        if person is not None:
            stored.integer(person, what)
    return rows


def restore(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Bring marks to an earlier state, unless their photos are gone or have faces there now."""
    delete(connection, [row[0] for row in rows])
    for number, content, person, *box in rows:
        if content is None:
            continue
        connection.execute(
            f"INSERT INTO marks (id, content_id, person_id, {_BOX})"
            " SELECT ?1, ?2, (SELECT id FROM people WHERE id = ?3), ?4, ?5, ?6, ?7"
            " WHERE EXISTS (SELECT 1 FROM contents WHERE id = ?2)",
            (number, content, person, *box),
        )
        give_to_faces(connection, content)


def _read(connection: Connection, where: str, value: int) -> list[Mark]:
    """Marks for which a condition of SQL holds.

    Raises:
        StoredValueError: a row is invalid.
    """
    if not has_table(connection, "marks"):
        return []
    what = "a mark"
    found = []
    for number, content, person, *box in connection.execute(
        f"{_MARKS} WHERE {where} ORDER BY id", (value,)
    ):
        left, top, right, bottom = (stored.number(side, what) for side in box)
        found.append(
            Mark(
                stored.integer(number, what),
                stored.integer(content, what),
                (left, top, right, bottom),
                None if person is None else stored.integer(person, what),
            )
        )
    return found


def _overlap(place: Sequence[float], box: Box) -> float:
    left, top, right, bottom = place
    return overlap((left, top, right, bottom), box)
