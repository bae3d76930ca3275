"""Pages of photos, for lists that people look through."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from face2vec import stored
from face2vec.gallery.reader import Snapshot, taken_within
from face2vec.gallery.rows import NAME_ONLY, called, encoded, owner_of
from face2vec.gallery.schema import has_column, has_people, has_table
from face2vec.photos.dates import ALWAYS, Period
from face2vec.types import STATUSES

_PHOTOS = (
    "SELECT contents.id, root_id, path, {crc32}, size, width, height, status, reason, {taken},"
    " (SELECT count(*) FROM faces WHERE faces.content_id = contents.id),"
    " (SELECT count(*) - 1 FROM photos AS others WHERE others.content_id = contents.id)"
    " FROM photos JOIN contents ON contents.id = content_id"
)
BY_PATH, BY_DATE = "path", "date"
ORDERS = (BY_PATH, BY_DATE)
"""How photos can be listed: by path, or the newest first and those without a date last."""
_MONTH = len("2024-05")
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
        taken: when it was taken, such as ``"2024-05-01T12:30:00"``, or empty.
        copies: number of other photos with the same content.
    """

    content: int
    path: str
    width: int
    height: int
    status: str
    reason: str
    faces: int
    is_file: bool
    taken: str = ""
    copies: int = 0


@dataclass(frozen=True)
class Wanted:
    """Which photos to list.

    Attributes:
        status: one of ``STATUSES``, or None for all.
        folder: a folder; photos in it and below, or None for all.
        person: number of a person who is in them, or None for all.
        content: number of a content, or None for all.
        period: when they were taken.
    """

    status: str | None = None
    folder: str | None = None
    person: int | None = None
    content: int | None = None
    period: Period = ALWAYS


def photo_page(
    now: Snapshot, wanted: Wanted, skip: int, most: int, order: str = BY_PATH
) -> list[ListedPhoto]:
    """Up to ``most`` photos after the first ``skip``.

    Args:
        now: the gallery.
        wanted: which.
        skip: how many to leave out.
        most: how many to list.
        order: one of ``ORDERS``.
    """
    where, values = _condition(now, wanted)
    dated = _has_dates(now)
    columns = _PHOTOS.format(
        crc32="path_crc32" if has_column(now.connection, "photos", "path_crc32") else "NULL",
        taken="taken" if dated else "NULL",
    )
    first = "coalesce(taken, '') DESC, " if order == BY_DATE and dated else ""
    rows = now.connection.execute(
        f"{columns} WHERE {where} ORDER BY {first}path, root_id LIMIT ? OFFSET ?",
        (*values, most, skip),
    )
    found = []
    for content, root, path, crc32, size, width, height, status, reason, taken, *counts in rows:
        faces, copies = counts
        state, why = stored.text(status, "a status"), stored.text(reason, "a reason")
        full = now.full_path(root, path, crc32)
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
                stored.text_or_none(taken, "the date of a photo") or "",
                copies,
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


def version(now: Snapshot) -> tuple[object, ...]:
    """What is another after each change of faces, photos, people or edits, and costs little."""
    people: tuple[object, ...] = ()
    if has_people(now.connection):
        people = now.connection.execute(
            "SELECT (SELECT max(position) FROM sayings), (SELECT count(*) FROM people)"
        ).fetchone()
    numbers = now.connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")
    return (*now.state, *people, *numbers.fetchall())


def count_forgotten(now: Snapshot) -> int:
    """Number of photos and faces that are kept away because they were forgotten."""
    if not has_people(now.connection):
        return 0
    (count,) = now.connection.execute("SELECT count(*) FROM forgotten").fetchone()
    return int(count)


def months(now: Snapshot) -> list[tuple[str, int]]:
    """(month such as ``"2024-05"``, number of photos) of all months, the newest first.

    The last one is empty if there are photos without a date.
    """
    if not _has_dates(now):
        return [("", count)] if (count := count_photos(now, Wanted())) else []
    rows = now.connection.execute(
        f"SELECT substr(coalesce(taken, ''), 1, {_MONTH}) AS month, count(*) FROM photos"
        " JOIN contents ON contents.id = content_id GROUP BY month ORDER BY month DESC"
    )
    return [(stored.text(month, "the date of a photo"), count) for month, count in rows]


def count_undated(now: Snapshot) -> int:
    """How many photos were indexed before dates were stored, so that nobody has looked for one."""
    where = "taken IS NULL" if _has_dates(now) else "1 = 1"
    (count,) = now.connection.execute(
        "SELECT count(*) FROM photos JOIN contents ON contents.id = content_id"
        f" WHERE size <> {NAME_ONLY} AND status <> 'unreadable' AND {where}"
    ).fetchone()
    return int(count)


def faces_within(now: Snapshot, wanted: Period) -> frozenset[int]:
    """The faces of photos that were taken in a period."""
    where, values = taken_within(now.connection, wanted)
    rows = now.connection.execute(
        f"SELECT faces.id FROM faces JOIN contents ON contents.id = content_id WHERE {where}",
        values,
    )
    return frozenset(face for (face,) in rows)


def _has_dates(now: Snapshot) -> bool:
    return has_column(now.connection, "contents", "taken")


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
    if wanted.period != ALWAYS:
        where, limits = taken_within(now.connection, wanted.period)
        parts.append(where)
        values += limits
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
