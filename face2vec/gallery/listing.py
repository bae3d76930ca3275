"""Pages of photos, for lists that people look through."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from face2vec import stored
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import NAME_ONLY, called, decoded, encoded, owner_of
from face2vec.gallery.schema import has_people, has_table
from face2vec.types import STATUSES

_PHOTOS = (
    "SELECT contents.id, root_id, path, size, width, height, status, reason,"
    " (SELECT count(*) FROM faces WHERE faces.content_id = contents.id)"
    " FROM photos JOIN contents ON contents.id = content_id"
)
_IS_STATUS = {
    STATUSES[0]: "status = 'indexed' AND reason = ''",
    STATUSES[1]: "status = 'no face' AND reason = ''",
    STATUSES[2]: "status = 'unreadable'",
    STATUSES[3]: "status <> 'unreadable' AND reason <> ''",
}


class ListedPhoto(NamedTuple):
    """A photo of a gallery.

    Attributes:
        content: number of its content, which all copies share.
        path: full path, or the name of an imported photo.
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels, likewise.
        status: one of ``STATUSES``.
        reason: why it could not be read, or what of it is missing; otherwise empty.
        faces: number of faces in it.
        is_file: False for the name of an imported photo.
    """

    content: int
    path: str
    width: int
    height: int
    status: str
    reason: str
    faces: int
    is_file: bool


@dataclass(frozen=True)
class Wanted:
    """Which photos to list.

    Attributes:
        status: one of ``STATUSES``, or None for all.
        folder: a folder; photos in it and below, or None for all.
        person: number of a person who is in them, or None for all.
        content: number of a content, or None for all.
    """

    status: str | None = None
    folder: str | None = None
    person: int | None = None
    content: int | None = None


def photo_page(now: Snapshot, wanted: Wanted, skip: int, most: int) -> list[ListedPhoto]:
    """Up to ``most`` photos after the first ``skip``, in order of path."""
    where, values = _condition(now, wanted)
    roots = {number: path for path, number in now.roots.items()}
    rows = now.connection.execute(
        f"{_PHOTOS} WHERE {where} ORDER BY path, root_id LIMIT ? OFFSET ?", (*values, most, skip)
    )
    found = []
    for content, root, path, size, width, height, status, reason, faces in rows:
        state, why = stored.text(status, "a status"), stored.text(reason, "a reason")
        full = f"{roots[root]}{os.sep}{decoded(path)}"
        found.append(
            ListedPhoto(
                stored.integer(content, "the number of a photo"),
                full,
                stored.integer(width, "a width"),
                stored.integer(height, "a height"),
                called(state, why),
                why,
                faces,
                size != NAME_ONLY,
            )
        )
    return found


def count_photos(now: Snapshot, wanted: Wanted) -> int:
    """How many photos `photo_page` lists in all."""
    where, values = _condition(now, wanted)
    (count,) = now.connection.execute(
        f"SELECT count(*) FROM photos JOIN contents ON contents.id = content_id WHERE {where}",
        values,
    ).fetchone()
    return int(count)


def content_of_face(now: Snapshot, face: int) -> int | None:
    """Number of the content that a face is in, or None."""
    found = now.connection.execute("SELECT content_id FROM faces WHERE id = ?", (face,)).fetchone()
    return None if found is None else stored.integer(found[0], "the number of a photo")


def faces_in(now: Snapshot, content: int) -> list[tuple[int, int | None]]:
    """(face, person or None) of each face of a content, in order."""
    select = "SELECT id, person_id FROM faces LEFT JOIN memberships ON face_id = id"
    if not has_people(now.connection):
        select = "SELECT id, NULL FROM faces"
    return [
        (face, person)
        for face, person in now.connection.execute(
            f"{select} WHERE content_id = ? ORDER BY id", (content,)
        )
    ]


def person_of(now: Snapshot, face: int) -> int | None:
    """Number of the person that a face belongs to, or None."""
    if not has_people(now.connection):
        return None
    found = now.connection.execute(
        "SELECT person_id FROM memberships WHERE face_id = ?", (face,)
    ).fetchone()
    return None if found is None else stored.integer(found[0], "the number of a person")


def _condition(now: Snapshot, wanted: Wanted) -> tuple[str, list[Any]]:
    """SQL that holds for the photos that are wanted, and its values."""
    parts, values = ["1"], list[Any]()
    if wanted.status is not None:
        parts.append(f"({_IS_STATUS[wanted.status]})")
    if wanted.content is not None:
        parts.append("contents.id = ?")
        values.append(wanted.content)
    if wanted.person is not None:
        shown = []
        if has_people(now.connection):
            shown.append(
                "SELECT content_id FROM faces JOIN memberships ON face_id = faces.id"
                " WHERE person_id = ?"
            )
        if has_table(now.connection, "marks"):
            shown.append("SELECT content_id FROM marks WHERE person_id = ?")
        parts.append(f"contents.id IN ({' UNION ALL '.join(shown) or 'NULL'})")
        values += [wanted.person] * len(shown)
    if wanted.folder is not None:
        some = []
        folder = wanted.folder.rstrip(os.sep)
        for root, number in now.roots.items():
            if root == folder or root.startswith(folder + os.sep):
                some.append("root_id = ?")
                values.append(number)
        owner = owner_of(now.roots, folder + os.sep + "x")
        if owner is not None and (inside := owner[1][: -len(encoded("x"))]):
            some.append("(root_id = ? AND path >= ? AND path < ?)")
            values += [owner[0], inside, inside[:-1] + bytes([inside[-1] + 1])]
        parts.append(f"({' OR '.join(some) or '0'})")
    return " AND ".join(parts), values
