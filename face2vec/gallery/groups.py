"""What is read of people group by group, without reading all faces: sizes, and the best faces."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.gallery.reader import Snapshot, is_sure
from face2vec.gallery.rows import integers
from face2vec.gallery.schema import has_column, has_people, missing_columns


class Outline(NamedTuple):
    """A person without their faces.

    Attributes:
        name: the name, or None.
        hidden: whether a user has hidden the person.
        faces: how many there are, at least 1.
    """

    name: str | None
    hidden: bool
    faces: int


def largest(now: Snapshot, most: int) -> list[int]:
    """Numbers of up to ``most`` people who have faces, those with most faces first."""
    if not has_people(now.connection):
        return []
    rows = now.connection.execute(
        "SELECT person_id FROM memberships GROUP BY person_id"
        " ORDER BY count(*) DESC, person_id LIMIT ?",
        (most,),
    )
    found: list[int] = integers(rows, 1, "the numbers of people")[0].tolist()
    return found


def outlines(now: Snapshot, people: Sequence[int]) -> dict[int, Outline]:
    """People by number; those without faces are left out."""
    if not people:
        return {}
    hidden = "hidden" if has_column(now.connection, "people", "hidden") else "NULL"
    counts = "(SELECT count(*) FROM memberships WHERE person_id = people.id)"
    rows = now.rows_of(people, f"SELECT id, name, {hidden}, {counts} FROM people WHERE id")
    return {
        number: Outline(stored.text_or_none(name, "the name of a person"), bool(is_hidden), count)
        for number, name, is_hidden, count in rows
        if count
    }


def best_faces(now: Snapshot, people: Sequence[int], most: int | None) -> dict[int, list[int]]:
    """Up to ``most`` faces of each person, the best by quality first; None for all faces."""
    found = {}
    for start in range(0, len(people), _PEOPLE):
        marks = ",".join("?" * len(some := people[start : start + _PEOPLE]))
        rows = now.connection.execute(
            "SELECT person_id, quality, face_id FROM memberships JOIN faces ON id = face_id"
            f" WHERE person_id IN ({marks}) ORDER BY person_id",
            list(some),
        )
        for person, members in groupby(rows, lambda row: row[0]):
            ranked = (
                (-quality if isinstance(quality, float) else 0.0, face)
                for _, quality, face in members
            )
            best = sorted(ranked) if most is None else nsmallest(most, ranked)
            found[person] = [stored.integer(face, "the number of a face") for _, face in best]
    return found


_PEOPLE = 500  # SQLite before 3.32 takes 999 parameters


def people_of(now: Snapshot, faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the person of each face, int64 (n,) for faces int64 (n,); 0 for none."""
    if not has_people(now.connection):
        return np.zeros(len(faces), np.int64)
    return _looked_up(now, faces, "SELECT face_id, person_id FROM memberships WHERE face_id")


def contents_of(now: Snapshot, faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the content of each face, int64 (n,) for faces int64 (n,); 0 if unknown."""
    return _looked_up(now, faces, "SELECT id, content_id FROM faces WHERE id")


def _looked_up(now: Snapshot, faces: NDArray[np.int64], select: str) -> NDArray[np.int64]:
    some, places = np.unique(faces, return_inverse=True)
    known, values = integers(now.rows_of(some.tolist(), select), 2, "the numbers of faces")
    found = np.zeros(len(some), np.int64)
    found[np.searchsorted(some, known)] = values
    return np.asarray(found[places])


def lone(now: Snapshot) -> Iterator[int]:
    """The sure faces without a person, in order, read as they are asked for."""
    parts = "NULL" if "parts" in missing_columns(now.connection, "faces") else "parts"
    alone = "WHERE NOT EXISTS (SELECT 1 FROM memberships WHERE face_id = faces.id)"
    rows = now.connection.execute(
        f"SELECT id, confidence, {parts} FROM faces"
        f" {alone if has_people(now.connection) else ''} ORDER BY id"
    )
    for face, confidence, made in rows:
        try:
            sure = is_sure(confidence, made)
        except (TypeError, struct.error) as error:
            raise stored.StoredValueError(f"the quality of a face is invalid ({error})") from error
        if sure:
            yield stored.integer(face, "the number of a face")
