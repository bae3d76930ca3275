"""Looks into a gallery's files for what should have gone."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from face2vec.gallery_rows import LANDMARKS, StoredFace
from face2vec.records import Person

PIECE = 32
"""Bytes of an embedding that are looked for, at its beginning, middle and end."""


def traces(folder: Path, person: Person, faces: Sequence[StoredFace]) -> Iterator[str]:
    """What is left of somebody in a folder's files, byte by byte, in words.

    Args:
        folder: of the gallery; every file in it is read.
        person: who is to be forgotten.
        faces: their faces with embeddings, as they were.
    """
    secrets = [(f"the name of person {person.id}", (person.name or "").encode())]
    for one in faces:
        face = one.face
        assert face.embedding is not None
        whole = np.asarray(face.embedding, "<f4").tobytes()
        for start in (0, len(whole) // 2, len(whole) - PIECE):
            secrets.append((f"the embedding of face {face.id}", whole[start : start + PIECE]))
        points = LANDMARKS.pack(*(v for point in face.landmarks for v in point))
        secrets.append((f"the landmarks of face {face.id}", points))
    for file in sorted(folder.iterdir()):
        if not file.is_file() or not file.stat().st_size:
            continue
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            for what, secret in secrets:
                if secret and data.find(secret) >= 0:
                    yield f"{what} in {file.name}"
