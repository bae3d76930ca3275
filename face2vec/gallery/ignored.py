"""Ignored faces in a gallery's rows: what a user has said is no face, such as a doll or a poster.

An ignored face leaves the table of faces, and with it every search. Its row is kept aside, so that
the edit can be undone, and the place in its photo, so that it never comes back. Embedding and
landmarks are deleted with the photo, when somebody is forgotten, and when the gallery gets another
model; then only the place is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from face2vec.errors import GalleryError
from face2vec.gallery.connection import Connection
from face2vec.gallery.rows import INDEXED, NO_FACE
from face2vec.gallery.schema import MAPPED, has_table

_FACE = (
    '"left", "top", "right", "bottom", landmarks, confidence, quality, embedding_crc32, parts,'
    " time, track_begin, track_end"
)
_CONTENT = "(SELECT id FROM contents WHERE contents.sha256 = ignored.sha256)"


def put_aside(connection: Connection, faces: Sequence[int]) -> None:
    """Move faces to the ignored ones.

    Raises:
        GalleryError: a face is not in the gallery.
    """
    for face in faces:
        moved = connection.execute(
            f"INSERT INTO ignored (face_id, sha256, {_FACE}, embedding)"
            f" SELECT faces.id, sha256, {_FACE}, embedding FROM faces"
            " JOIN contents ON contents.id = content_id JOIN embeddings ON face_id = faces.id"
            " WHERE faces.id = ?",
            (face,),
        )
        if not moved.rowcount:
            raise GalleryError(
                f"face {face} is not in the gallery; 'face2vec people --json' lists the numbers"
            )
        if has_table(connection, MAPPED):  # its own embedding is not known yet
            reduce(connection, f"face_id IN (SELECT face_id FROM {MAPPED})")
        connection.execute("DELETE FROM faces WHERE id = ?", (face,))
    agree_status(connection)


def take_back(connection: Connection, faces: Iterable[int]) -> list[int]:
    """Move ignored faces back; returns those that have no embedding any more, and are lost."""
    lost: list[int] = []
    faces = list(faces)
    if not faces:
        return lost
    for face in faces:
        (whole,) = connection.execute(
            f"SELECT embedding IS NOT NULL AND {_CONTENT} IS NOT NULL FROM ignored"
            " WHERE face_id = ?",
            (face,),
        ).fetchone() or (False,)
        if whole:
            connection.execute(
                f"INSERT INTO faces (id, content_id, {_FACE})"
                f" SELECT face_id, {_CONTENT}, {_FACE} FROM ignored WHERE face_id = ?",
                (face,),
            )
            connection.execute(
                "INSERT INTO embeddings SELECT face_id, embedding FROM ignored WHERE face_id = ?",
                (face,),
            )
        else:
            lost.append(face)
        connection.execute("DELETE FROM ignored WHERE face_id = ?", (face,))
    agree_status(connection)
    return lost


def reduce(connection: Connection, which: str = "1 = 1", values: Sequence[object] = ()) -> None:
    """Delete all of some ignored faces but their places.

    Args:
        connection: the writer's connection.
        which: a condition of SQL.
        values: of its parameters.
    """
    connection.execute(
        f"UPDATE ignored SET landmarks = NULL, parts = NULL, embedding = NULL WHERE {which}", values
    )


def agree_status(connection: Connection) -> None:
    """Let the status of photos agree with their faces."""
    has_faces = "EXISTS (SELECT 1 FROM faces WHERE content_id = contents.id)"
    for status, other, condition in (
        (NO_FACE, INDEXED, f"NOT {has_faces}"),
        (INDEXED, NO_FACE, has_faces),
    ):
        connection.execute(
            f"UPDATE contents SET status = ? WHERE status = ? AND {condition}", (status, other)
        )
