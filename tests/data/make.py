"""Writes the galleries and index files of older versions that test_formats.py opens.

Each is written by the version of that time, from drawn people, together with the answers that this
version gave. To make all of them again, in a clone with its whole history:

    make() {
        git worktree add --detach /tmp/at-$1 $1
        PYTHONPATH=/tmp/at-$1 python tests/data/make.py $2
        git worktree remove /tmp/at-$1
    }
    make 13107d4 gallery-2        # gallery format 2, index format 2
    make 2161855 gallery-3-hnsw   # gallery format 3, index format 3
    make 847df38 gallery-3        # gallery format 3, index format 4, with people and edits
    make 847df38 gallery-3-map    # … with embeddings that a learned map made
    make 847df38 index-4          # index format 4 of each kind

It calls only what these versions have. NAME.tar.xz holds the files and NAME.json the answers. A
version that changes a format adds a line here, and keeps the files of the older versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from face2vec import Face2Vec, samples

HERE = Path(__file__).parent
PHOTOS = Path(tempfile.gettempdir()) / "drawn"  # galleries keep the full path
NEAREST = 4


def module(*names: str) -> Any:
    """The first of these modules that this version has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(names[-1])


Gallery = module("face2vec.gallery.gallery", "face2vec.gallery").Gallery
FaceIndex = module("face2vec.index.face_index", "face2vec.index").FaceIndex


def answers(folder: Path) -> dict[str, Any]:
    """What this version says of a gallery, in the form that test_formats.py compares."""
    told: dict[str, Any] = {}
    with Gallery.open(folder) as gallery:
        ids, embeddings = (
            np.concatenate(part) for part in zip(*gallery.iter_embeddings(), strict=True)
        )
        told["counts"] = gallery.counts()._asdict()
        told["photos"] = sorted([Path(p).name, *rest] for p, *rest in gallery.photos())
        told["faces"] = [
            {"id": f.face.id, "box": f.face.box, "landmarks": f.face.landmarks,
             "confidence": f.face.confidence, "quality": f.face.quality,
             "photo": Path(f.photo).name, "copies": [Path(c).name for c in f.copies]}
            for f in gallery.faces(ids.tolist())
        ]  # fmt: skip
        told["embeddings"] = hashlib.sha256(embeddings.astype("<f4").tobytes()).hexdigest()
        told["dimension"] = gallery.dimension
        told["uuid"] = gallery.uuid
        told["mapped"] = gallery.mapped().tolist() if hasattr(gallery, "mapped") else []
        calibration = gallery.calibration()
        told["calibration"] = None if calibration is None else calibration.data
    with Face2Vec(folder) as engine:
        told["search"] = [
            [[m.face.id, m.similarity, m.probability] for m in found.matches]
            for found in engine.search(embeddings, k=NEAREST)
        ]
        told["people"] = (
            [[p.id, p.name, list(p.faces)] for p in engine.people()]
            if hasattr(engine, "people")
            else []
        )
    return told


def draw(people: int, photos: int, groups: int) -> None:
    """Photos of drawn people, one copy, one without a face and one that cannot be read."""
    samples.write(PHOTOS, people=people, photos=photos, groups=groups, seed=18)
    (PHOTOS / "copy.jpg").write_bytes((PHOTOS / "person-000" / "0.jpg").read_bytes())
    (PHOTOS / "broken.jpg").write_bytes((PHOTOS / "person-000" / "0.jpg").read_bytes()[:4000])


def gallery_2(out: Path) -> dict[str, Any]:
    """Photos added, one of them removed again."""
    draw(people=4, photos=3, groups=1)
    with Face2Vec(out / "gallery", model="mini") as engine:
        engine.add(PHOTOS)
        engine.remove(PHOTOS / "person-003" / "2.jpg")
        engine.rebuild()
    return answers(out / "gallery")


def gallery_3_hnsw(out: Path) -> dict[str, Any]:
    """A graph whose file this version's successors build again."""
    draw(people=4, photos=3, groups=1)
    with Face2Vec(out / "gallery", model="mini", index="hnsw") as engine:
        engine.add(PHOTOS)
        engine.find_people()
    return answers(out / "gallery")


def gallery_3(out: Path) -> dict[str, Any]:
    """People who are named, merged, split, refused and forgotten; a calibration of its own."""
    from dataclasses import replace

    draw(people=6, photos=4, groups=2)
    folder = out / "gallery"
    with Face2Vec(folder) as engine:
        engine.add(PHOTOS)
        engine.find_people()
        first, second, third, *_, last = engine.people()
        engine.name(first, "Ada")
        engine.name(second, "Bo")
        new = engine.split(first, first.faces[0])
        engine.not_this_person(second, second.faces[0])
        engine.this_person(third, second.faces[0])
        engine.merge("Ada", new)
        engine.forget(last)
        engine.name(third, "Cleo")
        engine.calibrate(replace(engine.calibration, data="drawn people"))
    told = answers(folder)
    with contextlib.closing(sqlite3.connect(folder / "gallery.sqlite")) as connection:
        photos = sorted(set(connection.execute("SELECT sha256 FROM forgotten").fetchall()))
    with Gallery.open(folder) as gallery:
        told["forgotten"] = {sha256.hex(): gallery.is_forgotten(sha256) for (sha256,) in photos}
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "gallery"
        _copy(folder, copy)
        told["undone"] = []
        with Face2Vec(copy) as engine:
            for _ in range(4):
                engine.undo()
                told["undone"].append([[p.id, p.name, list(p.faces)] for p in engine.people()])
    return told


def gallery_3_map(out: Path) -> dict[str, Any]:
    """From a model of fixed random weights to `mini`, while some photos were away."""
    draw(people=8, photos=4, groups=0)
    spec = importlib.util.spec_from_file_location("conftest", HERE.parent / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)

    class Place:
        @staticmethod
        def mktemp(_: str) -> Path:
            return Path(tempfile.mkdtemp())

    tiny = conftest.tiny_model.__wrapped__(Place)
    with Face2Vec(out / "gallery", model=tiny) as engine:
        engine.add(PHOTOS)
        for photo in sorted((PHOTOS / "person-007").glob("*.jpg")):
            photo.unlink()
        engine.upgrade("mini", with_map=True, sample=26)
    told = answers(out / "gallery")
    assert told["mapped"]
    return told


def index_4(out: Path) -> dict[str, Any]:
    """One index a kind; the faces of the large ones come from `many_faces` of test_formats.py."""
    sys.path.insert(0, str(HERE.parent))
    from test_formats import DIMENSION, MANY, many_faces

    told: dict[str, Any] = {}
    for kind, count in (("exact", 60), ("hnsw", 60), ("ivf", MANY), ("ivfpq", MANY)):
        ids, embeddings = many_faces(count)
        index = FaceIndex.build([(ids, embeddings)], count, DIMENSION, kind)
        index.save(out / f"{kind}.faiss")
        queries = embeddings[:: count // 20]
        similarities, found = index.search(queries, NEAREST)
        told[kind] = [
            list(zip(i.tolist(), s.astype(float).tolist(), strict=True))
            for s, i in zip(similarities, found, strict=True)
        ]
    return told


def _copy(folder: Path, copy: Path) -> None:
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())


MAKE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "gallery-2": gallery_2,
    "gallery-3-hnsw": gallery_3_hnsw,
    "gallery-3": gallery_3,
    "gallery-3-map": gallery_3_map,
    "index-4": index_4,
}


def main() -> None:
    """Make one of them, named by the first argument."""
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / name
        out.mkdir()
        told = MAKE[name](out)
        with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            for file in sorted(out.rglob("*")):
                if file.is_file() and file.name not in ("writer.lock", "writer.json"):
                    entry = tarfile.TarInfo(str(file.relative_to(out)))
                    entry.size = file.stat().st_size
                    with file.open("rb") as stream:
                        archive.addfile(entry, stream)
    (HERE / f"{name}.json").write_text(json.dumps(told, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
