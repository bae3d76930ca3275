"""Builds a gallery with Ray in a process of its own, which is killed; for test_cluster_faults.py.

cluster_builder.py GALLERY RAY PHOTOS    says each batch that is recorded
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from face2vec import Face2Vec
from face2vec.cluster.store import ClusterWriter
from face2vec.gallery.rows import Entry
from face2vec.ingest import build as building

BATCH = 4


def main() -> None:
    gallery, ray, photos = sys.argv[1:]
    building.BATCH_PHOTOS = BATCH
    record = ClusterWriter.record

    def told(writer: ClusterWriter, entries: Iterable[Entry]) -> list[Entry]:
        refused = record(writer, entries)
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        return refused

    ClusterWriter.record = told  # type: ignore[method-assign]
    with Face2Vec(gallery, runtime="onnxruntime", ray=ray) as engine:
        engine.add(photos)


if __name__ == "__main__":
    main()
