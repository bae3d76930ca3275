"""Reads a whole gallery and reports what is wrong with it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from face2vec.errors import GalleryError
from face2vec.gallery import removals
from face2vec.gallery.connection import Connection
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import LANDMARKS
from face2vec.gallery.schema import FILE
from face2vec.gallery.staging import UPGRADE_FILE, is_leftover

_COUNT_CHANGES = (
    "(SELECT face_id AS i, sum(change = '+') AS added, sum(change = '-') AS removed"
    " FROM journal GROUP BY face_id)"
)


def problems(gallery: Gallery) -> list[str]:
    """What is wrong with a gallery, one sentence each; empty if it is sound."""
    found: list[str] = []
    try:
        with gallery.read() as snapshot:
            found += _problems(snapshot.connection, gallery.dimension)
        if is_leftover(gallery.folder, gallery.uuid):
            found.append(
                f"{UPGRADE_FILE} is left from an upgrade that has ended; the next change of the "
                "gallery deletes it"
            )
    except GalleryError as error:
        found.append(str(error))
    return found


def _problems(connection: Connection, dimension: int) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"{FILE}: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table}, row {row}: the row of {parent} that it refers to does not exist"
    checks = {
        "contents without a photo": "contents"
        " WHERE NOT EXISTS (SELECT 1 FROM photos WHERE content_id = contents.id)",
        "contents whose status does not agree with their faces": "contents"
        " WHERE (status = 'indexed') <>"
        " EXISTS (SELECT 1 FROM faces WHERE content_id = contents.id)",
        "faces whose embedding or landmarks have the wrong size": "faces"
        f" JOIN embeddings ON face_id = id WHERE length(embedding) <> {4 * dimension}"
        f" OR length(landmarks) <> {LANDMARKS.size}",
        "faces without an embedding": "faces"
        " WHERE NOT EXISTS (SELECT 1 FROM embeddings WHERE face_id = id)",
        "faces that the journal does not list, or lists as removed": "faces"
        f" LEFT JOIN {_COUNT_CHANGES} ON i = id WHERE added - removed IS NOT 1",
        "faces that the journal lists and the gallery does not have": _COUNT_CHANGES
        + " LEFT JOIN faces ON id = i"
        " WHERE id IS NULL AND added <> removed",
    }
    for what, where in checks.items():
        (count,) = connection.execute(f"SELECT count(*) FROM {where}").fetchone()
        if count:
            yield f"{what}: {count}"
    for i, crc32, embedding in connection.execute(
        "SELECT id, embedding_crc32, embedding FROM faces JOIN embeddings ON face_id = id"
    ):
        if not isinstance(embedding, bytes) or zlib.crc32(embedding) != crc32:
            yield f"face {i}: its embedding has changed since it was recorded"
    if removals.is_due(connection):
        yield (
            "traces of removed photos may be left in the file, because it was not purged "
            "after the removal; the next change of the gallery, or the same command, does it"
        )
