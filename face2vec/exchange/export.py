"""Writes all faces of a gallery to a table or to COCO JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from face2vec.exchange.coco import SUFFIX, save_coco
from face2vec.exchange.formats import save_table
from face2vec.exchange.table import BOX, COLUMNS, LANDMARKS, PARTS, TRACK, Table
from face2vec.files import expanded
from face2vec.fingerprint import Fingerprint
from face2vec.gallery.marked import marked_faces
from face2vec.gallery.reader import Snapshot
from face2vec.types import MarkedFace


def export(path: str | os.PathLike[str], now: Snapshot, made_with: Fingerprint) -> int:
    """Write all faces of a gallery in the format that a suffix names; returns how many.

    Args:
        path: the file.
        now: the gallery.
        made_with: the fingerprint of its embeddings.

    Raises:
        SettingsError: the suffix is unknown.
        MissingExtraError: the format needs a package that is not installed.
        NotWrittenError: the file cannot be written.
    """
    file = Path(expanded(path))
    if file.name.lower().endswith(SUFFIX):
        return save_coco(file, now)
    marked = marked_faces(now)
    tables: Iterable[Table] = tables_of(now)
    if marked:
        tables = chain(tables, [table_of_marks(marked, made_with.model.dimension)])
    save_table(file, tables, made_with)
    return now.count + len(marked)


def table_of_marks(marked: Sequence[MarkedFace], dimension: int) -> Table:
    """The faces that were marked by hand, without landmarks and embeddings.

    Args:
        marked: the faces.
        dimension: of the embeddings of other faces.
    """
    columns: dict[str, list[Any]] = {name: [None] * len(marked) for name in COLUMNS}
    for row, one in enumerate(marked):
        known = {
            "photo": one.photo,
            "copies": list(one.copies),
            "sha256": one.sha256.hex(),
            "width": one.size[0],
            "height": one.size[1],
            **dict(zip(BOX, one.mark.box, strict=True)),
            "person": one.mark.person,
            "name": one.name,
            "confirmed": None if one.mark.person is None else True,
            "mark": one.mark.id,
        }
        for name, value in known.items():
            columns[name][row] = value
    return Table(columns, np.full((len(marked), dimension), np.nan, np.float32))


def tables_of(now: Snapshot) -> Iterator[Table]:
    """All faces of one state of a gallery, in order of id, a part of a table at a time.

    Args:
        now: the gallery; its ``batch_size`` is the number of rows of each part.
    """
    names = {person.id: person.name for person in now.people()}
    members = now.memberships()
    person_of = {
        face: (person, names[person], bool(confirmed))
        for face, person, confirmed in zip(*(column.tolist() for column in members), strict=True)
    }
    for ids, embeddings in now:
        numbers = ids.tolist()
        facts = now.photo_of(numbers)
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for one in now.stored_faces(numbers, with_embeddings=False):
            face = one.face
            assert face.id is not None
            sha256, width, height = facts[face.id]
            parts = (None,) * len(PARTS) if face.parts is None else astuple(face.parts)
            row = {
                "face_id": face.id,
                "photo": one.photo,
                "copies": list(one.copies),
                "sha256": sha256.hex(),
                "width": width,
                "height": height,
                **dict(zip(BOX, face.box, strict=True)),
                **dict(zip(LANDMARKS, (v for p in face.landmarks for v in p), strict=True)),
                "confidence": face.confidence,
                "quality": face.quality,
                **dict(zip(PARTS, parts, strict=True)),
                "time": face.time,
                **dict(zip(TRACK, face.track or (None, None), strict=True)),
            }
            row["person"], row["name"], row["confirmed"] = person_of.get(face.id, (None,) * 3)
            row["mark"] = None
            for name, value in row.items():
                columns[name].append(value)
        yield Table(columns, embeddings)
