"""Searches the files of a gallery for traces of a forgotten person."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from face2vec.gallery.descriptors import descriptor
from face2vec.gallery.rows import LANDMARKS, StoredFace
from face2vec.types import Person

_BLOCK_BYTES = 1 << 20
_NO_CONTENT = "-shm"
"""End of the name of a file of SQLite that has numbers of pages only, and locks on it."""
PIECE = 32
"""Number of bytes that are searched for at the start, middle and end of an embedding."""


def traces(folder: Path, person: Person, faces: Sequence[StoredFace]) -> Iterator[str]:
    """Find what remains of a person in the files of a folder; yields one phrase per finding.

    Args:
        folder: folder of the gallery; every file in it is read.
        person: the forgotten person.
        faces: the person's faces with embeddings, as they were before.
    """
    name = f"the name of person {person.id}"
    secrets = [(name, secret) for secret in _stored_forms(person)]
    for one in faces:
        face = one.face
        assert face.embedding is not None
        whole = np.asarray(face.embedding, "<f4").tobytes()
        for start in (0, len(whole) // 2, len(whole) - PIECE):
            secrets.append((f"the embedding of face {face.id}", whole[start : start + PIECE]))
        points = LANDMARKS.pack(*(v for point in face.landmarks for v in point))
        secrets.append((f"the landmarks of face {face.id}", points))
    for file in sorted(folder.iterdir()):
        if file.is_symlink() or not file.is_file() or file.name.endswith(_NO_CONTENT):
            continue
        found = _found(file, {secret for _, secret in secrets})
        phrases = dict.fromkeys(what for what, secret in secrets if secret in found)
        yield from (f"{what} in {file.name}" for what in phrases)


def _found(file: Path, secrets: set[bytes]) -> set[bytes]:
    """Which secrets a file has. It is not mapped: that closes a descriptor, see `descriptor`."""
    longest = max(map(len, secrets), default=1)
    found: set[bytes] = set()
    before = b""
    with descriptor(file) as raw:
        while block := os.read(raw, _BLOCK_BYTES):
            whole = before + block
            found |= {secret for secret in secrets - found if secret in whole}
            before = whole[1 - longest :]
    return found


def _stored_forms(person: Person) -> Iterator[bytes]:
    """The bytes with which rows, SQLite indexes and edits store a name.

    The letters alone could also occur by chance in the bytes of embeddings.
    """
    if person.name is None:
        return
    text = person.name.encode()
    # A record of SQLite: length of the header, a type for each column (13 + 2 n for n bytes of
    # text, at most two bytes here), then the columns. The id is NULL in a row, and a number in
    # an SQLite index.
    length = 13 + 2 * len(text)
    kind = bytes([length] if length < 128 else [128 | length >> 7, length & 127])
    header = bytes([2 + len(kind)])
    yield header + b"\0" + kind + text
    for number in (1, 2, 3, 4, 5, 6, 8, 9):
        yield header + kind + bytes([number]) + text
    yield f'"there", {json.dumps(person.name)}'.encode()
    yield f"{person.name} (person {person.id})".encode()
    yield f"name {person.name!r} of person {person.id}".encode()
