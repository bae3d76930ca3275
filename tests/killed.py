"""Kills commands at every step that changes a file; run by test_gallery_removals.py.

A step is an SQL statement, or a call that renames, deletes or synchronises a file. The process ends
by SIGKILL before one of them, so that every state that a kill can leave between two steps occurs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gallery_builder
import numpy as np
from helpers import fake_fingerprint

from face2vec import Face2Vec
from face2vec.errors import Face2VecError
from face2vec.fingerprint import Fingerprint
from face2vec.gallery import writer
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import INDEXED, LANDMARKS, Entry
from face2vec.gallery.staging import NewEmbeddings, Remade, abandon
from face2vec.index.sync import GalleryIndex, writing
from face2vec.types import Face

ROOT = "/photos"
NAME = "Ada Nobody"
PEOPLE, EACH = 4, 3
CALLS = ("replace", "unlink", "fsync")
CHANGING = (
    *CALLS,
    "BEGIN IMMEDIATE",
    "COMMIT",
    "VACUUM",
    "PRAGMA wal_checkpoint",
    "DELETE FROM meta",
)


def face(number: int) -> Face:
    rng = np.random.default_rng(number)
    embedding = rng.standard_normal(gallery_builder.DIMENSION).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    points = tuple((float(x), float(y)) for x, y in rng.random((5, 2)))
    return Face((0.0, 0.0, 9.0, 9.0), points, 1.0, embedding)


def photo(number: int) -> str:
    return f"of-{number % PEOPLE}-{number:04}-{np.random.default_rng(number).integers(1 << 60)}.jpg"


def make(folder: Path) -> None:
    """A gallery of some people with a few photos each, the first of them with a name."""
    Gallery.create(folder, fake_fingerprint(gallery_builder.DIMENSION)).close()
    with Face2Vec(folder) as engine:
        session = engine._session
        with session.write() as writer:
            writer.record(
                Entry(ROOT, photo(n), 1, 1, n.to_bytes(32, "big"), 9, 9, INDEXED, "", (face(n),))
                for n in range(PEOPLE * EACH)
            )
            groups = [[1 + n for n in range(p, PEOPLE * EACH, PEOPLE)] for p in range(PEOPLE)]
            writer.people.assign({}, groups)
            session.index().save()
        engine.name(1, NAME)


def secrets() -> dict[str, bytes]:
    """Bytes that nothing but the photos of the first person has, by what they are."""
    found = {"name": NAME.encode()}
    for n in range(0, PEOPLE * EACH, PEOPLE):
        one = face(n)
        assert one.embedding is not None
        found[f"embedding {n}"] = one.embedding.tobytes()[8:40]
        found[f"landmarks {n}"] = LANDMARKS.pack(*(v for point in one.landmarks for v in point))
        found[f"file name {n}"] = photo(n).encode()
    return found


def left_in(folder: Path) -> list[str]:
    """The secrets that a file of the gallery still has."""
    everything = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return [what for what, secret in secrets().items() if secret in everything]


def forget(folder: Path) -> Any:
    with Face2Vec(folder) as engine:
        done = engine.forget(NAME)
    return [done.faces, done.photos, list(done.left)]


def remove(folder: Path) -> Any:
    with Face2Vec(folder) as engine:
        return list(engine.remove(*(f"{ROOT}/{photo(n)}" for n in range(0, PEOPLE * EACH, PEOPLE))))


def target() -> Fingerprint:
    """What an upgrade makes."""
    made = fake_fingerprint(gallery_builder.DIMENSION, "new")
    return replace(made, model=replace(made.model, weights=64 * "1"))


def stage(folder: Path) -> None:
    """New embeddings of all faces beside the gallery: the old ones with the sign changed."""
    with (
        Gallery.open(folder) as gallery,
        gallery.read() as now,
        NewEmbeddings(folder, gallery.uuid, target()) as new,
    ):
        ids, checks = now.all_crc32s()
        stored = now.stored_faces(ids.tolist())
        new.store(
            [
                Remade(one.face.with_embedding(-one.face.embedding), int(check))
                for one, check in zip(stored, checks, strict=True)
            ],
            gallery.read,
        )


def upgrade(folder: Path) -> Any:
    """What `reembed.upgrade` does when all faces are embedded, or after the switch."""
    with Gallery.open(folder) as gallery:
        index = GalleryIndex(gallery)
        if gallery.fingerprint == target():
            with writing(gallery, index):
                return "new"
        with (
            NewEmbeddings(folder, gallery.uuid, target()) as new,
            writing(gallery, index) as writer,
        ):
            writer.switch(new, None, False, index.write_beside)
            index.take_beside()
            abandon(folder)
    return "new"


def name_other(folder: Path) -> Any:
    """Another command that writes."""
    with Face2Vec(folder) as engine:
        return engine.name(2, "Somebody Else").name


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "forget": forget,
    "remove": remove,
    "upgrade": upgrade,
    "name": name_other,
}


def count_steps(number: int) -> list[str]:
    """Make the process die before the step of this number; returns the steps as they happen."""
    seen: list[str] = []

    def step(what: str) -> None:
        seen.append(what)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(call: Callable[..., Any], what: str) -> Callable[..., Any]:
        def stepped(*args: Any, **options: Any) -> Any:
            step(what)
            return call(*args, **options)

        return stepped

    for name in CALLS:
        setattr(os, name, told(getattr(os, name), name))
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        if args[0] != ":memory:":
            connection.set_trace_callback(step)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    return seen


def that_change(steps: list[str]) -> list[int]:
    """Numbers of the steps before and after which a file differs.

    A kill anywhere between the beginning of a transaction and its end has the same effect.
    """
    first = steps.index("BEGIN IMMEDIATE") + 1
    changing = [n for n, what in enumerate(steps, 1) if n >= first and what.startswith(CHANGING)]
    return sorted({*changing, *(n + 1 for n in changing if n < len(steps))})


def outcome(folder: Path, command: str) -> dict[str, Any]:
    """What a command gives or says, and what is there afterwards."""
    try:
        done = COMMANDS[command](folder)
    except Face2VecError as error:
        done = str(error)
    with Face2Vec(folder) as engine:
        return {
            "done": done,
            "check": engine.check(),
            "left": left_in(folder),
            "faces": [face for person in engine.people() for face in person.faces],
            "model": engine._session.gallery().fingerprint.model.key,
            "files": sorted(file.name for file in folder.iterdir()),
        }


def checked(folder: Path) -> list[str]:
    with Face2Vec(folder) as engine:
        return engine.check()


def in_child(work: Callable[[], Any], killed: int = 0) -> Any:
    """What work gives in a process of its own; None if it was killed before that step."""
    with tempfile.TemporaryFile() as answer:

        def child() -> None:
            seen = count_steps(killed) if killed else []
            answer.write(json.dumps([work(), seen]).encode())
            answer.flush()

        status = os.waitpid(gallery_builder.in_child(child), 0)[1]
        if status == signal.SIGKILL:
            return None
        assert status == 0, f"the child ended with {status}"
        answer.seek(0)
        return json.loads(answer.read())


def main() -> None:
    """Arguments: a command, the command after a kill, a gallery, a folder to work in, its size."""
    command, after, start, work = *sys.argv[1:3], *map(Path, sys.argv[3:5])
    if sys.argv[5] == "large":  # a file that is not rewritten after a removal
        writer.SMALL_BYTES = 0

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(start, work / name))

    whole = fresh("whole")
    done, steps = in_child(lambda: COMMANDS[command](whole), killed=10**9)
    report: dict[str, Any] = {"done": done, "killed": [], "steps": steps}
    for number in that_change(steps):
        folder = fresh(str(number))
        assert in_child(lambda folder=folder: COMMANDS[command](folder), number) is None
        before = in_child(lambda folder=folder: [checked(folder), left_in(folder)])[0]
        then = in_child(lambda folder=folder: outcome(folder, after))[0]
        report["killed"].append({"step": number, "before": before, **then})
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    elif sys.argv[1] == "stage":
        stage(Path(sys.argv[2]))
    else:
        main()
