"""Reads a whole gallery to see whether it is sound."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from face2vec.gallery.connection import FILE, Connection
from face2vec.gallery.rows import LANDMARKS

_COUNT_CHANGES = (
    "(SELECT face_id AS i, sum(change = '+') AS added, sum(change = '-') AS removed"
    " FROM journal GROUP BY face_id)"
)


def problems(connection: Connection, dimension: int) -> Iterator[str]:
    """What is wrong with a gallery, in words.

    Args:
        connection: reads the gallery.
        dimension: length of an embedding.
    """
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"{FILE}: {line}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table}, row {row}: what it refers to in {parent} is not there"
    questions = {
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
        "faces that the journal does not know, or calls removed": "faces"
        f" LEFT JOIN {_COUNT_CHANGES} ON i = id WHERE added - removed IS NOT 1",
        "faces that the journal knows and the gallery does not": _COUNT_CHANGES
        + " LEFT JOIN faces ON id = i"
        " WHERE id IS NULL AND added <> removed",
    }
    for what, where in questions.items():
        (count,) = connection.execute(f"SELECT count(*) FROM {where}").fetchone()
        if count:
            yield f"{what}: {count}"
    for i, crc32, embedding in connection.execute(
        "SELECT id, embedding_crc32, embedding FROM faces JOIN embeddings ON face_id = id"
    ):
        if not isinstance(embedding, bytes) or zlib.crc32(embedding) != crc32:
            yield f"face {i}: its embedding is not the one that was recorded"
    if connection.execute("SELECT 1 FROM meta WHERE key = 'unpurged'").fetchone():
        yield (
            "traces of removed photos may still be in the file, for it could not be "
            "rewritten after the removal; the next change of the gallery tries again"
        )
