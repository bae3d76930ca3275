"""Builds galleries in processes of their own, which are stopped; run by test_engine.py.

    engine_builder.py steps GALLERY MODEL PHOTOS    says each batch, goes on at each line read
    engine_builder.py free GALLERY MODEL PHOTOS     says each batch and goes on
    engine_builder.py count GALLERY MODEL PHOTOS    says how many SQL statements a build is
    engine_builder.py kills FOLDER MODEL PHOTOS POINT...   kills a build at each point

A point is statement:N (before the N-th SQL statement), fsync:N (before the N-th of Python's
own) or seconds:S; the gallery of each is FOLDER/POINT, built to its end after the kill.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gallery_builder import in_child

from face2vec import Face2Vec
from face2vec.gallery.rows import Entry
from face2vec.gallery.writer import Writer
from face2vec.ingest import build as building

BATCH = 4


def build(folder: Path, model: Path, photos: str) -> str:
    building.BATCH_PHOTOS = BATCH
    with Face2Vec(folder, model=model, runtime="onnxruntime", threads=2) as engine:
        return json.dumps(asdict(engine.add(photos)))


def tell_batches(wait: bool) -> None:
    record = Writer.record

    def told(writer: Writer, entries: Any) -> list[Entry]:
        refused = record(writer, entries)
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        if wait:
            sys.stdin.readline()
        return refused

    Writer.record = told  # type: ignore[method-assign]


def die_at(number: int) -> Callable[..., None]:
    """A function that kills the process when it is called that many times."""
    seen = 0

    def call(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


def trace_statements(call: Callable[[str], object]) -> None:
    """Have a function called before each SQL statement of every connection."""
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(call)
        return connection

    sqlite3.connect = traced


def arm(point: str) -> None:
    kind, number = point.split(":")
    if kind == "statement":
        trace_statements(die_at(int(number)))
    elif kind == "fsync":
        fsync, die = os.fsync, die_at(int(number))

        def deadly(descriptor: int) -> None:
            die()
            fsync(descriptor)

        os.fsync = deadly


def kill_and_go_on(folder: Path, model: Path, photos: str, point: str) -> dict[str, object]:
    def until_killed() -> None:
        arm(point)
        build(folder, model, photos)

    child = in_child(until_killed)
    if point.startswith("seconds:"):
        time.sleep(float(point.partition(":")[2]))
        os.kill(child, signal.SIGKILL)
    killed = os.waitpid(child, 0)[1]
    again = os.waitpid(in_child(lambda: build(folder, model, photos)), 0)[1]
    return {"point": point, "killed": killed, "again": again}


def main() -> None:
    mode = sys.argv[1]
    folder, model, photos = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    if mode == "kills":
        # What every child needs is imported once; sessions and threads are each child's own.
        import face2vec.encoding.encoder
        import face2vec.index.sync  # noqa: F401

        report = [kill_and_go_on(folder / point, model, photos, point) for point in sys.argv[5:]]
        sys.stdout.write(json.dumps(report))
    elif mode == "count":
        seen: list[str] = []
        trace_statements(seen.append)
        build(folder, model, photos)
        sys.stdout.write(str(len(seen)))
    else:
        tell_batches(wait=mode == "steps")
        sys.stdout.write(build(folder, model, photos) + "\n")


if __name__ == "__main__":
    main()
