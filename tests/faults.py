"""Runs face2vec under kills, damaged files and full disks; for ``scripts/test --faults``.

    python tests/faults.py [--short] [--only kills,photos,index,gallery,hostile,disks,together]

Each part compares what it gets with what an undisturbed run gives: an answer may be right or an
error, and never another answer. The exit code is 1 if one was. With ``--write`` the figures are
written into ``docs/results/faults.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from dng import dng
from gallery_builder import in_child
from helpers import tiny_model
from PIL import Image

from face2vec import Face2Vec, Face2VecError, open_photo, samples
from face2vec.calibration import fit
from face2vec.gallery.audit import problems
from face2vec.gallery.gallery import Gallery
from face2vec.index import policy

SECONDS = 30  # that a step may take before it counts as a hang
MEMORY = 3 << 30  # bytes of address space of a process that decodes mutated photos
PAGE = Path(__file__).parent.parent / "docs" / "results" / "faults.md"
KINDS = ("flat", "pq")


@dataclass
class Tally:
    """What happened, and what should not have."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def refuse(self, words: str) -> None:
        """Note something that should not have happened."""
        self.wrong.append(words)
        sys.stderr.write(f"WRONG {self.name}: {words}\n")

    def line(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items())


@dataclass(frozen=True)
class World:
    """Photos and a gallery of them, from which every step starts."""

    folder: Path
    model: Path
    other_model: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def gallery(self) -> Path:
        return self.folder / "gallery"


def opened(gallery: Path, **more: Any) -> Face2Vec:
    return Face2Vec(gallery, runtime="onnxruntime", threads=1, **more)


def made_world(folder: Path) -> World:
    """Thirty drawn people with two photos each, six of them not yet indexed; some have names."""
    world = World(folder, tiny_model(folder / "one.onnx", 1), tiny_model(folder / "two.onnx", 2))
    samples.write(world.photos, people=12, photos=3, groups=3, seed=5)
    (folder / "later").mkdir()
    for number in (10, 11):
        (world.photos / f"person-{number:03}").rename(folder / "later" / f"person-{number:03}")
    with opened(world.gallery, model=world.model) as engine:
        engine.add(world.photos)
        with engine._session.gallery().read() as now:
            everyone = sorted(int(face) for face in now.contents()[0])
        # Random projections say little about who is who, so people are stated.
        names = ("Ada", "Ben", "Cleo", "Dan")
        for name, start in zip(names, range(0, 16, 4), strict=True):
            engine.name(engine.this_person(None, *everyone[start : start + 4]), name)
        engine.ignore(everyone[20])
    with opened(folder / "other", model=world.model) as engine:
        engine.add(folder / "later")
        engine.export(folder / "later.npz")
    shutil.rmtree(folder / "other")
    return world


def state_of(gallery: Path, base: Path) -> dict[str, Any]:
    """All that a gallery says, without the numbers that depend on the order of events."""
    connection = sqlite3.connect(f"file:{gallery / 'gallery.sqlite'}?mode=ro", uri=True)
    try:
        roots = dict(connection.execute("SELECT id, path FROM roots"))
        photos = connection.execute(
            "SELECT root_id, photos.path, hex(sha256), status FROM photos"
            " JOIN contents ON contents.id = content_id"
        ).fetchall()
        faces = connection.execute(
            'SELECT hex(sha256), round("left", 3), round("top", 3), hex(embedding),'
            " coalesce(people.name, '')"
            " FROM faces JOIN contents ON contents.id = content_id"
            " JOIN embeddings ON embeddings.face_id = faces.id"
            " LEFT JOIN memberships ON memberships.face_id = faces.id"
            " LEFT JOIN people ON people.id = person_id"
        ).fetchall()
        forgotten = connection.execute("SELECT hex(sha256) FROM forgotten").fetchall()
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in ("ignored", "apart", "marks")
        ]
        people = connection.execute(
            "SELECT name, hidden FROM people WHERE name IS NOT NULL"
        ).fetchall()
        calibration = connection.execute(
            "SELECT value FROM meta WHERE key = 'calibration'"
        ).fetchone()
    finally:
        connection.close()
    place = os.fsencode(base)
    return {
        "photos": sorted(
            (roots[root].replace(place, b""), path, sha, status)
            for root, path, sha, status in photos
        ),
        "faces": sorted(faces),
        "forgotten": sorted(forgotten),
        "ignored, apart and marks": counts,
        "people": sorted(people),
        "calibration": calibration,
    }


# --- kills ------------------------------------------------------------------------------------

Step = Callable[[World], None]


def _with(work: Callable[[Face2Vec, World], object], **more: Any) -> Step:
    def step(world: World) -> None:
        with opened(world.gallery, **more) as engine:
            work(engine, world)

    return step


def _index(engine: Face2Vec, world: World) -> None:
    engine.add(world.folder / "later")


def _prune(engine: Face2Vec, world: World) -> None:
    shutil.rmtree(world.photos / "person-003", ignore_errors=True)
    engine.prune()


def _upgrade(engine: Face2Vec, world: World) -> None:
    engine.upgrade(world.other_model)


def _readmit(engine: Face2Vec, world: World) -> None:
    engine.readmit(world.photos / "person-001" / "0.jpg")


def _import(engine: Face2Vec, world: World) -> None:
    engine.import_faces(world.folder / "later.npz")


def _enroll(engine: Face2Vec, world: World) -> None:
    later = world.folder / "later"
    engine.enroll({"Eve": [later / "person-010"], "Ada": [later / "person-011"]})


def _calibrate(engine: Face2Vec, _: World) -> None:
    rng = np.random.default_rng(1)
    genuine, impostor = (
        rng.normal(mean, 0.1, count).astype(np.float32) for mean, count in ((0.7, 500), (0.0, 9000))
    )
    made = engine._session.gallery().fingerprint.model
    names = {"model": made.key, "weights": made.weights, "data": "drawn"}
    engine.calibrate(fit(genuine, np.sort(impostor)[::-1], people=200, **names))


COMMANDS: dict[str, tuple[Step, bool]] = {
    # The second value says whether the command may be given again.
    "index": (_with(_index), True),
    "remove": (_with(lambda e, w: e.remove(w.photos / "person-004")), True),
    "prune": (_with(_prune), True),
    "name": (_with(lambda e, w: e.name("Ada", "Ada Lovelace")), False),
    "split": (_with(lambda e, w: e.split("Ada", *e.person("Ada").faces[:2])), False),
    "ignore": (_with(lambda e, w: e.ignore(2)), True),
    "undo": (_with(lambda e, w: e.undo()), False),
    "forget": (_with(lambda e, w: e.forget("Cleo")), True),
    "import": (_with(_import), True),
    "enroll": (_with(_enroll), True),
    "calibrate": (_with(_calibrate), True),
    "different": (_with(lambda e, w: e.different(1, 9)), False),
    "hide": (_with(lambda e, w: e.hide_people(["Dan", "Ada"])), False),
    "rebuild": (_with(lambda e, w: e.rebuild()), True),
    "upgrade": (_with(_upgrade), True),
}


REMOVING = ("remove", "prune", "forget")
"""Commands after which nothing of what was removed may be left; what is ignored can come back."""


def count_and_die(at: int | None, seen: list[str]) -> None:
    """Make this process count its statements, renames, deletions and syncs, and die at one."""

    def event(what: str) -> None:
        seen.append(what)
        if at is not None and len(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda statement: event(statement[:20]))
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    for name in ("fsync", "replace", "rename", "unlink", "remove"):
        plain = getattr(os, name)

        def after(*args: Any, _plain: Any = plain, _name: str = name, **kwargs: Any) -> Any:
            event(f"before {_name}")
            result = _plain(*args, **kwargs)
            event(f"after {_name}")
            return result

        setattr(os, name, after)


def run_child(work: Callable[[], object], seconds: float = SECONDS) -> int | None:
    """The status of a child that did the work; None if it hung and was killed."""
    child = in_child(work)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def kills(world: World, scratch: Path, count: int) -> Tally:
    """Kill every writing command at points spread over its events, and give it again."""
    tally = Tally("kills")
    home = world.folder
    kept = scratch / "kept"
    shutil.copytree(home, kept)

    def fresh() -> None:
        shutil.rmtree(home)
        shutil.copytree(kept, home, copy_function=shutil.copy2)

    each = -(-count // len(COMMANDS))
    for name, (step, again) in COMMANDS.items():
        fresh()
        before = state_of(world.gallery, home)
        log = scratch / "events"

        def counted(step: Step = step, log: Path = log) -> None:
            seen: list[str] = []
            count_and_die(None, seen)
            step(world)
            log.write_text(str(len(seen)))

        if run_child(counted) != 0:
            tally.refuse(f"{name} fails without a kill")
            continue
        after, events = state_of(world.gallery, home), int(log.read_text())
        points = sorted({int(p) for p in np.linspace(1, events, each)} | {1, events})
        for point in points:
            fresh()

            def killed(step: Step = step, point: int = point) -> None:
                count_and_die(point, [])
                step(world)

            status = run_child(killed)
            where = f"{name}, killed at event {point} of {events}"
            if status is None:
                tally.refuse(f"{where}: hung")
                continue
            tally.counts["kills" if status else "ended before the kill"] += 1
            if again:
                status = run_child(lambda step=step: step(world))
                if status is None:
                    tally.refuse(f"{where}: hung when it was given again")
                elif status and state_of(world.gallery, home) != after:
                    tally.refuse(f"{where}: failed when it was given again")
            found = state_of(world.gallery, home)
            if found != after and (again or found != before):
                apart = [key for key in found if found[key] != after[key]]
                tally.refuse(f"{where}: {', '.join(apart)} differ from an undisturbed run")
            with Gallery.open(world.gallery) as gallery:
                for problem in problems(gallery):
                    tally.refuse(f"{where}: {problem}")
            for left in traces(world.gallery, before, found) if name in REMOVING else ():
                tally.refuse(f"{where}: {left}")
    fresh()
    return tally


def traces(gallery: Path, before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Embeddings that were removed and are still in a file of the gallery."""
    gone = {face[3] for face in before["faces"]} - {face[3] for face in now["faces"]}
    if not gone:
        return
    for file in gallery.iterdir():
        content = file.read_bytes() if file.is_file() else b""
        for embedding in gone:
            if bytes.fromhex(embedding)[:64] in content:
                yield f"{file.name} contains a removed embedding"
                break


# --- mutated photos ---------------------------------------------------------------------------


def photo_files() -> dict[str, bytes]:
    """A small photo in every format."""
    image = Image.fromarray(samples.people(1, seed=3)[0].photo(0).image).resize((96, 96))
    files = {}
    for name, kind, more in (
        ("jpg", "JPEG", {"quality": 85}), ("progressive", "JPEG", {"progressive": True}),
        ("png", "PNG", {}), ("webp", "WEBP", {}), ("tif", "TIFF", {"compression": "tiff_lzw"}),
        ("gif", "GIF", {}), ("bmp", "BMP", {}), ("avif", "AVIF", {}),
    ):  # fmt: skip
        stream = io.BytesIO()
        with contextlib.suppress(KeyError, OSError):
            image.save(stream, kind, **more)
            files[name] = stream.getvalue()
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401

        stream = io.BytesIO()
        image.save(stream, "JXL")
        files["jxl"] = stream.getvalue()
    sensor = np.asarray(image.convert("L"), np.uint16) * 257
    files["dng"] = dng(sensor, preview=files["jpg"])
    pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, "HEIF")
    files["heic"] = stream.getvalue()
    return files


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with some bytes changed, cut out, doubled, or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        if not data:
            break
        at, kind = int(rng.integers(len(data))), rng.integers(6)
        length = int(rng.integers(1, 1 + max(1, len(data) // 8)))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at:]
        else:  # the beginning, where sizes and kinds are
            place = int(rng.integers(min(64, len(data))))
            data[place] = int(rng.integers(256))
    return bytes(data)


def photos(count: int) -> Tally:
    """Open mutated photos: each gives a photo or a `PhotoError`."""
    import resource

    from face2vec.errors import PhotoError

    tally, files = Tally("photos"), photo_files()
    tally.counts["formats"] = len(files)
    batch = 250

    def open_some(start: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        opened_, refused = 0, 0
        for number in range(start, min(start + batch, count)):
            rng = np.random.default_rng((7, number))
            name = list(files)[number % len(files)]
            signal.alarm(SECONDS)
            try:
                open_photo(mutated(files[name], rng))
                opened_ += 1
            except PhotoError:
                refused += 1
            except BaseException as error:
                raise RuntimeError(f"photo {number} ({name}): {error!r}") from error
        os.write(report, f"{opened_} {refused}\n".encode())

    with tempfile.TemporaryFile() as file:
        report = file.fileno()
        for start in range(0, count, batch):
            status = run_child(lambda start=start: open_some(start), seconds=20 * SECONDS)
            if status != 0:
                tally.refuse(f"photos {start} to {start + batch}: status {status}")
        file.seek(0)
        for line in file.read().decode().splitlines():
            for what, number in zip(("opened", "refused"), line.split(), strict=True):
                tally.counts[what] += int(number)
    return tally


# --- mutated files of a gallery -----------------------------------------------------------------


def answers(engine: Face2Vec, queries: np.ndarray) -> list[list[tuple[str, float]]]:
    found = (engine.search(query, k=5)[0].matches for query in queries)
    return [[(m.photo, round(m.similarity, 5)) for m in matches] for matches in found]


def mutations(world: World, scratch: Path, file: str, count: int, kinds: tuple[str, ...]) -> Tally:
    """Flip bytes of a file of a gallery; each search gives the right answer or an error."""
    tally = Tally(f"mutations of {file}")
    queries = np.random.default_rng(3).standard_normal((3, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    policy.PQ_FACES_LEAST = 16  # this gallery is small
    for kind in kinds:
        home = scratch / f"mutate-{kind}"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(world.gallery, home)
        with opened(home, index=kind) as engine:
            engine.rebuild()
            if engine.info()["index"] != kind:
                tally.refuse(f"the index is {engine.info()['index']} and not {kind}")
            right = answers(engine, queries)
        whole = (home / file).read_bytes()
        sound = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}

        def some(start: int, stop: int, report: int, kind: str = kind, home: Path = home,
                 whole: bytes = whole, sound: dict[str, bytes] = sound,
                 right: Any = right) -> None:  # fmt: skip
            for number in range(start, stop):
                for name, content in sound.items():
                    (home / name).write_bytes(content)
                rng = np.random.default_rng((11, number))
                data = bytearray(whole)
                for _ in range(rng.integers(1, 4)):
                    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
                (home / file).write_bytes(data)
                signal.alarm(SECONDS)
                try:
                    with opened(home) as engine:
                        found = answers(engine, queries)
                    result = "right" if found == right else "WRONG"
                except Face2VecError:
                    result = "errors"
                except BaseException as error:
                    result = f"CRASH {error!r}"
                os.write(report, f"{number} {result}\n".encode())

        with tempfile.TemporaryFile() as stream:
            for start in range(0, count, 50):
                stop = min(count, start + 50)
                part = partial(some, start, stop, stream.fileno())
                status = run_child(part, 50 * SECONDS)
                if status != 0:
                    tally.refuse(f"{kind}, mutations {start} to {stop}: status {status}")
            stream.seek(0)
            for line in stream.read().decode().splitlines():
                number, _, result = line.partition(" ")
                if result in ("right", "errors"):
                    tally.counts[result] += 1
                else:
                    tally.refuse(f"{kind}, mutation {number}: {result}")
    return tally


# --- galleries made to harm ---------------------------------------------------------------------

_VALUES = (
    "NULL", "-1", "0", "9223372036854775807", "-9223372036854775808", "1e999", "-1e999", "''",
    "'x'", "'{}'", "'[]'", "'null'", "X''", "X'00ff'", "zeroblob(5000000)", "'\u202e../../x'",
    "char(27) || '[2J'", "'/etc/passwd'", "'../../../../etc/passwd'", "randomblob(1024)",
)  # fmt: skip
_TABLES = (
    "meta", "roots", "contents", "photos", "faces", "embeddings", "journal", "people",
    "memberships", "refusals", "sayings", "forgotten", "ignored", "apart", "marks",
)  # fmt: skip


def harm(home: Path, rng: np.random.Generator) -> str:
    """Change a gallery as somebody might who wants to harm its reader; returns what was done."""
    kind = int(rng.integers(12))
    table = str(rng.choice(_TABLES))
    value = str(rng.choice(_VALUES))
    elsewhere = home.parent / "elsewhere"
    file = home / "gallery.sqlite"
    if kind == 0:
        target = home / str(rng.choice(["index.faiss", "writer.json", "thumbnails"]))
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        target.symlink_to(elsewhere if rng.integers(2) else "/dev/zero")
        return f"{target.name} is a link"
    if kind == 1:
        target = home / str(rng.choice(["index.faiss", "gallery.sqlite", "writer.json"]))
        target.unlink(missing_ok=True)
        os.mkfifo(target) if rng.integers(2) else target.mkdir()
        return f"{target.name} is a pipe or a folder"
    if kind == 2:
        name = str(rng.choice(["gallery.sqlite-wal", "gallery.sqlite-journal", "upgrade.sqlite"]))
        (home / name).write_bytes(rng.bytes(int(rng.integers(1, 5000))))
        return f"{name} is noise"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA writable_schema = ON")
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    column = str(rng.choice(columns))
    statement = {
        3: f"DROP TABLE {table}",
        4: f"DELETE FROM {table}",
        5: f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM faces; END",
        6: f"CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c)"
        f" SELECT x AS {column} FROM c",
        7: f"ALTER TABLE {table} RENAME TO t{table}",
        8: f"UPDATE meta SET value = {value} WHERE key = (SELECT key FROM meta LIMIT 1 OFFSET"
        f" {int(rng.integers(5))})",
    }.get(kind, f'UPDATE {table} SET "{column}" = {value}')
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for trigger in ("face_added", "face_removed"):
            if kind > 8:
                connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(statement)
    connection.commit()
    connection.close()
    return statement


def hostile(world: World, scratch: Path, count: int) -> Tally:
    """Read and write galleries that were made to harm: each gives an answer or an error."""
    tally = Tally("galleries made to harm")
    query = np.ones(64, np.float32) / 8
    reading: dict[str, Callable[[Face2Vec], object]] = {
        "search": lambda e: [m.photo for m in e.search(query, k=50)[0].matches],
        "people": lambda e: [e.faces_of(one) for one in e.people()],
        "photos": lambda e: e.photos(),
        "info": lambda e: e.info(),
        "check": lambda e: e.check(),
        "edits": lambda e: e.edits(),
        "export": lambda e: e.export(scratch / "out.npz"),
        "identify": lambda e: e.suggest(),
        "undo": lambda e: e.undo(),
        "name": lambda e: e.name(1, "Zoe"),
        "add": lambda e: e.add(world.folder / "later"),
        "forget": lambda e: e.forget("Cleo"),
        "rebuild": lambda e: e.rebuild(),
    }

    def one(number: int, report: int) -> None:
        home = scratch / "hostile" / "gallery"
        shutil.rmtree(home.parent, ignore_errors=True)
        shutil.copytree(world.gallery, home)
        (home.parent / "elsewhere").write_text("mine")
        what = harm(home, np.random.default_rng((13, number)))
        for name, ask in reading.items():
            signal.alarm(SECONDS)
            try:
                with opened(home) as engine:
                    ask(engine)
                result = "answers"
            except Face2VecError:
                result = "errors"
            except BaseException as error:
                result = f"CRASH {error!r}"
            if (home.parent / "elsewhere").read_text() != "mine":
                result = "CHANGED a file elsewhere"
            os.write(report, f"{number} {name} {result} after: {what}\n".encode())

    with tempfile.TemporaryFile() as stream:
        for number in range(count):
            status = run_child(partial(one, number, stream.fileno()), len(reading) * SECONDS)
            if status != 0:
                tally.refuse(f"gallery {number}: status {status}")
        stream.seek(0)
        for line in stream.read().decode("utf-8", "replace").splitlines():
            result = line.split(" ", 3)[2]
            if result in ("answers", "errors"):
                tally.counts[result] += 1
            else:
                tally.refuse(f"gallery {line}")
    return tally


# --- full disks ---------------------------------------------------------------------------------


def disks(world: World, scratch: Path, sizes: int) -> Tally:
    """Build on disks that are too small, make room, and go on."""
    tally = Tally("full disks")
    place = scratch / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        tally.counts["not run, because it needs root"] = 1
        return tally
    with opened(scratch / "reference", model=world.model) as engine:
        engine.add(world.photos)
    wanted = state_of(scratch / "reference", scratch)
    whole = sum(f.stat().st_size for f in (scratch / "reference").iterdir())
    for kilobytes in np.linspace(80, whole / 1024 * 1.6, sizes).astype(int):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            tally.counts["not run, because nothing can be mounted"] = 1
            return tally
        try:

            def build() -> None:
                with opened(place / "g", model=world.model) as engine:
                    engine.add(world.photos)

            status = run_child(build, 4 * SECONDS)
            tally.counts["full" if status else "large enough"] += 1
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            if status is None or run_child(build, 4 * SECONDS) != 0:
                tally.refuse(f"{kilobytes} kB: does not go on when there is room")
                continue
            if state_of(place / "g", scratch) != wanted:
                tally.refuse(f"{kilobytes} kB: the gallery differs")
        finally:
            subprocess.run(["umount", str(place)], check=True)
    return tally


# --- several processes --------------------------------------------------------------------------


def together(world: World, scratch: Path, rounds: int) -> Tally:
    """Search while another process writes; a second writer is refused."""
    from face2vec.errors import GalleryLockedError

    tally = Tally("several processes")
    query = np.ones(64, np.float32) / 8
    for number in range(rounds):
        home = scratch / f"together-{number}"
        shutil.copytree(world.gallery, home)
        with opened(home) as engine:
            had = len(engine.search(query, k=100)[0].matches)

        def write(home: Path = home) -> None:
            with opened(home) as engine:
                engine.add(world.folder / "later")

        child = in_child(write)
        with opened(home) as engine:
            while not os.waitpid(child, os.WNOHANG)[0]:
                matches = engine.search(query, k=100)[0].matches
                tally.counts["searches during a build"] += 1
                ranks = [match.similarity for match in matches]
                if len(matches) < had or ranks != sorted(ranks, reverse=True):
                    tally.refuse(f"{len(matches)} matches of at least {had}")
        holder = Gallery.open(home)
        with holder, holder.write():

            def second(home: Path = home) -> None:
                with contextlib.suppress(GalleryLockedError), opened(home) as engine:
                    engine.add(world.photos)
                    os._exit(7)

            if run_child(second) != 0:
                tally.refuse("a second writer was not refused")
            tally.counts["second writers refused"] += 1
        shutil.rmtree(home)
    return tally


# --- all ------------------------------------------------------------------------------------------


def main() -> int:
    """Run the parts, print their figures, and say whether something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="a part of each, in a minute or two")
    parser.add_argument("--only", default="", help="names of parts, separated by commas")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    short = given.short
    logging.disable(logging.CRITICAL)  # a damaged index is logged each time
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "world").mkdir()
        (place / "scratch").mkdir()
        child = in_child(lambda: made_world(place / "world"))
        if os.waitpid(child, 0)[1]:
            return 1
        # Threads do not survive a fork, so this process opens nothing that has some.
        world = World(place / "world", place / "world/one.onnx", place / "world/two.onnx")
        scratch = place / "scratch"
        kinds = KINDS[:1] if short else KINDS
        parts: dict[str, Callable[[], Tally]] = {
            "kills": lambda: kills(world, scratch, 45 if short else 240),
            "photos": lambda: photos(1_000 if short else 20_000),
            "index": lambda: mutations(world, scratch, "index.faiss", 50 if short else 2000, kinds),
            "gallery": lambda: mutations(
                world, scratch, "gallery.sqlite", 50 if short else 2000, ("flat",)
            ),
            "hostile": lambda: hostile(world, scratch, 12 if short else 200),
            "disks": lambda: disks(world, scratch, 3 if short else 20),
            "together": lambda: together(world, scratch, 1 if short else 5),
        }
        chosen = given.only.split(",") if given.only else list(parts)
        tallies = []
        for name in chosen:
            started = time.monotonic()
            tally = in_own_process(parts[name], scratch / f"{name}.json")
            tallies.append((tally, time.monotonic() - started))
            verdict = "as it should be" if not tally.wrong else f"{len(tally.wrong)} WRONG"
            sys.stdout.write(f"{tally.name}: {tally.line()}; {verdict}\n")
            sys.stdout.flush()
    if given.write:
        write_page(tallies, "python tests/faults.py" + (" --short" if short else ""))
    return int(any(tally.wrong for tally, _ in tallies))


def in_own_process(part: Callable[[], Tally], file: Path) -> Tally:
    """Run a part in a fork, because some of them open engines in their own process."""

    def work() -> None:
        tally = part()
        file.write_text(json.dumps([tally.name, tally.counts, tally.wrong]), encoding="utf-8")

    status = os.waitpid(in_child(work), 0)[1]
    if status or not file.exists():
        return Tally(file.stem, wrong=[f"ended with the status {status}"])
    name, counts, wrong = json.loads(file.read_text(encoding="utf-8"))
    return Tally(name, Counter(counts), wrong)


def write_page(tallies: list[tuple[Tally, float]], command: str) -> None:
    """Write the figures into the documentation."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from common import machine, table

    rows = [
        [tally.name, tally.line(), str(len(tally.wrong)), f"{seconds:,.0f} s"]
        for tally, seconds in tallies
    ]
    wrong = list(itertools.chain.from_iterable(tally.wrong for tally, _ in tallies))
    PAGE.write_text(
        "# Kills, damaged files, full disks\n\n"
        "Each part compares what it gets with what an undisturbed run gives. An answer may be "
        "right or an error.\n\n"
        + table(["", "what happened", "wrong", "took"], rows)
        + "\n\n"
        + "".join(f"- {one}\n" for one in wrong)
        + f"\n<sub>`{command}`, {machine()}.</sub>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
