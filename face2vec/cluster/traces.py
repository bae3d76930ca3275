"""Looks for what is left of forgotten faces in the servers of a gallery."""

from __future__ import annotations

from collections.abc import Sequence

from face2vec.cluster.milvus import STRONG
from face2vec.cluster.store import ClusterGallery
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import StoredFace

IN_MILVUS = (
    "copies in segments that Milvus has replaced, until its garbage collection deletes them"
    " (dataCoord.gc.dropTolerance), and in its message queue"
    " (rocksmq.retentionTimeInMinutes, or the retention of Kafka or Pulsar)"
)
IN_POSTGRES = "dead rows in files of PostgreSQL until VACUUM, and its write-ahead log"


def traces(gallery: Gallery, faces: Sequence[StoredFace]) -> list[str]:
    """What is, or may be, left; one phrase each.

    Args:
        gallery: the gallery.
        faces: the forgotten faces, as they were before.
    """
    assert isinstance(gallery, ClusterGallery)
    numbers = [one.face.id for one in faces if one.face.id is not None]
    visible = gallery.vectors.embeddings(numbers, STRONG)
    left = [f"the embedding of face {face} in Milvus" for face in sorted(visible)]
    with gallery.read() as now:
        if now.purge_is_due():
            left.append("deleted rows in files of Milvus, which it has not rewritten yet")
    return [*left, IN_MILVUS, IN_POSTGRES]
