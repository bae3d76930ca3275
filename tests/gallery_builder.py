"""Builds galleries in processes that are killed; run by test_gallery.py, which says how.

The faces are made from a hash of the bytes, so that no network is needed and the
same photos always give the same gallery.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers import fake_fingerprint

from face2vec.errors import GalleryError, GalleryNotFoundError
from face2vec.gallery.audit import problems
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.rows import INDEXED, NO_FACE, UNREADABLE, Entry
from face2vec.gallery.writer import Writer
from face2vec.types import Face

DIMENSION = 16
BATCH = 4


def fake_faces(content: bytes, dimension: int = DIMENSION) -> tuple[Face, ...]:
    """0 to 2 faces with values that follow from the bytes."""
    digest = hashlib.sha256(content).digest()
    rng = np.random.default_rng(list(digest))
    faces = []
    for _ in range(digest[0] % 3):
        embedding = rng.standard_normal(dimension).astype(np.float32)
        embedding /= np.linalg.norm(embedding)
        left, top, width, height = rng.random(4)
        points = tuple((float(x), float(y)) for x, y in rng.random((5, 2)))
        box = (float(left), float(top), float(left + width), float(top + height))
        faces.append(Face(box, points, float(rng.random()), embedding))
    return tuple(faces)


def entry_of(root: Path, name: str) -> Entry:
    file = root / name
    stat = file.stat()
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).digest()
    if content.startswith(b"broken"):
        status, reason, faces = UNREADABLE, "truncated", ()
    else:
        faces = fake_faces(content)
        status, reason = (INDEXED, "") if faces else (NO_FACE, "")
    return Entry(
        str(root), name, stat.st_size, stat.st_mtime_ns, sha256, 40, 30, status, reason, faces
    )


def build(photos: Path, folder: Path) -> None:
    """What an engine does: what is unchanged costs a stat, what is known a link; then prune."""
    try:
        gallery = Gallery.open(folder)
    except GalleryNotFoundError:
        gallery = Gallery.create(folder, fake_fingerprint(DIMENSION))
    with gallery, gallery.write() as writer:
        batch: list[Entry] = []
        for file in sorted(photos.rglob("*.jpg")):
            name = str(file.relative_to(photos))
            stat = file.stat()
            if writer.stat_of(str(photos), name) == (stat.st_size, stat.st_mtime_ns):
                continue
            entry = entry_of(photos, name)
            if writer.content_of(entry.sha256) is not None:
                entry = Entry.link(entry.root, entry.path, entry.size, entry.mtime_ns, entry.sha256)
            batch.append(entry)
            if len(batch) == BATCH:
                record(writer, photos, batch)
                batch = []
        record(writer, photos, batch)
        writer.prune()


def record(writer: Writer, photos: Path, batch: list[Entry]) -> None:
    refused = writer.record(batch)
    again = writer.record([entry_of(photos, entry.path) for entry in refused])
    assert again == []


def in_child(work: Callable[[], object]) -> int:
    """Process number of a fork that does the work and ends with 0."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def kill_at_statement(number: int) -> list[int]:
    """Make every connection count its statements, and the process die before that one."""
    seen = [0]

    def count(_: str) -> None:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        if args[0] != ":memory:":
            connection.set_trace_callback(count)
        return connection

    sqlite3.connect = traced
    return seen


def problems_in(folder: Path) -> list[str]:
    try:
        with Gallery.open(folder) as gallery:
            return problems(gallery)
    except GalleryNotFoundError:
        return []
    except GalleryError as error:
        return [str(error)]


def main() -> None:
    """Arguments: photos, a gallery to start from or "-", a folder to work in, kills or pauses."""
    photos, start, work = map(Path, sys.argv[1:4])
    how, *points = sys.argv[4:]

    def fresh(name: str) -> Path:
        if str(start) != "-":
            shutil.copytree(start, work / name)
        return work / name

    if how == "count":
        folder = fresh("reference")
        seen = kill_at_statement(-1)
        build(photos, folder)
        sys.stdout.write(str(seen[0]))
        return
    report = []
    for point in points:
        folder = fresh(point)
        if how == "statements":

            def until_killed(number: int = int(point), folder: Path = folder) -> None:
                kill_at_statement(number)
                build(photos, folder)

            child = in_child(until_killed)
        else:
            child = in_child(lambda folder=folder: build(photos, folder))
            time.sleep(float(point))
            os.kill(child, signal.SIGKILL)
        killed = os.waitpid(child, 0)[1]
        problems = problems_in(folder)
        again = os.waitpid(in_child(lambda folder=folder: build(photos, folder)), 0)[1]
        left = problems_in(folder)
        report.append(
            {"point": point, "killed": killed, "problems": problems, "again": again, "left": left}
        )
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
