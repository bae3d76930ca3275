"""Compares the two halves of a gallery in Milvus."""

from __future__ import annotations

from face2vec.cluster.milvus import STRONG, Vectors
from face2vec.gallery import removals
from face2vec.gallery.reader import Snapshot

_STEP = 2000  # faces compared at a time
_SHOWN = 5  # numbers in a message


def problems(now: Snapshot, vectors: Vectors) -> list[str]:
    """What is wrong with a gallery, one sentence each; empty if it is sound.

    Args:
        now: the rows; its embeddings come from Milvus.
        vectors: the embeddings.
    """
    found: list[str] = []
    checks = {
        "contents without a photo": "contents"
        " WHERE NOT EXISTS (SELECT 1 FROM photos WHERE content_id = contents.id)",
        "contents whose status does not agree with their faces": "contents"
        " WHERE (status = 'indexed') <>"
        " EXISTS (SELECT 1 FROM faces WHERE content_id = contents.id)",
    }
    for what, where in checks.items():
        (count,) = now.connection.execute(f"SELECT count(*) FROM {where}").fetchone()
        if count:
            found.append(f"{what}: {count}")
    rows, there = now.count, vectors.count(consistency=STRONG)
    if rows != there:
        found.append(f"PostgreSQL has {rows} faces and Milvus {there}")
    orphans: list[int] = []
    for page in vectors.pages(_STEP):
        known = now.crc32s(page)
        orphans += [face for face in page if face not in known]
    if orphans:
        leaving = {face for (face,) in now.connection.execute("SELECT face_id FROM leaving")}
        forgotten = [face for face in orphans if face in leaving]
        if forgotten:
            found.append(
                f"removed faces that a search of Milvus still sees: {_listed(forgotten)}; the "
                "next change of the gallery deletes them"
            )
        rest = [face for face in orphans if face not in leaving]
        if rest:
            found.append(
                f"faces in Milvus that belong to no photo: {_listed(rest)}; index the photos again"
            )
    found += _wrong_embeddings(now)
    if removals.is_due(now.connection):
        found.append(
            "what was removed may be left in files of Milvus, which were not rewritten after the "
            "removal; the next change of the gallery, or the same command, asks for it"
        )
    return found


def _wrong_embeddings(now: Snapshot) -> list[str]:
    import zlib

    found = []
    now.verifying, now.batch_size = False, _STEP
    for ids, embeddings in now:
        wanted = now.crc32s(ids.tolist())
        wrong = [
            face
            for face, embedding in zip(ids.tolist(), embeddings, strict=True)
            if zlib.crc32(embedding.astype("<f4").tobytes()) != wanted[face]
        ]
        if wrong:
            found.append(f"faces whose embedding is missing or another: {_listed(wrong)}")
    return found


def _listed(faces: list[int]) -> str:
    shown = ", ".join(map(str, faces[:_SHOWN]))
    return shown if len(faces) <= _SHOWN else f"{shown} and {len(faces) - _SHOWN} more"
