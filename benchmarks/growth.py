"""What a change costs in a large gallery: adding one face, and searching after it.

    python benchmarks/growth.py --sizes 100000 1000000 --keep FOLDER

Galleries of made-up faces with the spectrum of EdgeFace-XS, as in ``search.py``. One face is
recorded and the index brought up to date, as ``add`` does with a new photo: with the index file
rewritten each time (*rewritten*), and with faces added beside a large file (*beside*).
Then another process opens the gallery and searches it. A search by pose reads the landmarks of all
faces at first, then again without a change, and after one face was added.

With ``--remove`` ten photos are removed from the SQLite file: as it is done now (*overwritten*),
and with the file rewritten, as was done after each removal in the past (*rewritten*). The bytes
that this process writes to disks are counted. The index is left out; it is rewritten, too.

With ``--people`` the faces are grouped into people: all of them, and again after a hundredth more
were added, each in a process of its own, with the most memory that it takes: *in all* as the system
counts it, and without what is mapped from files, which the system can drop (*own*).

With two sizes or more, rows for ten and a hundred million faces are computed: each figure goes on
growing as it did between the last two sizes, with the same power of the number of faces.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
from common import arguments, publish, seconds, table
from search import FACES_A_PERSON, Drawn, enrol, spectrum_of

from face2vec.gallery import writer

PACKAGES = ("face2vec", "faiss-cpu", "numpy")
TURNS = 5
SPECTRUM = spectrum_of("edgeface-xs")
DIMENSION = len(SPECTRUM)
TITLES = ("faces", "add one face, rewritten, s", "beside, s", "next process: open and search, s",
          "search by pose: first, s", "again, s", "after one face, s")  # fmt: skip


def entry(number: int, embedding: np.ndarray):
    from face2vec.gallery.rows import INDEXED, Entry
    from face2vec.types import Face

    face = Face((0.0, 0.0, 9.0, 9.0), ((1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0, 3.0)),
                1.0, embedding)  # fmt: skip
    name = f"one more {number}.jpg"
    return Entry(
        "/made/up", name, 1, 1, (10**12 + number).to_bytes(32, "big"), 9, 9, INDEXED, faces=(face,)
    )


class Adding:
    """Adds one face after another to the gallery of an engine."""

    def __init__(self, engine, embeddings: np.ndarray) -> None:
        self._engine, self._embeddings, self._next = engine, embeddings, 0

    def __call__(self) -> None:
        """Add the next face."""
        session = self._engine._session
        with session.write() as writer:
            writer.record([entry(self._next, self._embeddings[self._next])])
            session.index().save()
        self._next += 1


def faces(count: int, seed: int, people: int) -> np.ndarray:
    """(count, 512) unit vectors of so many people in turn."""
    return Drawn(SPECTRUM, people).faces(count, seed)


def median_of(act) -> float:
    return statistics.median(seconds(act) for _ in range(TURNS))


def row(folder: Path, count: int) -> list[str]:
    from face2vec import Face2Vec
    from face2vec.index import face_index

    more = faces(100, 5, count // FACES_A_PERSON)
    usual = face_index.LATER_LEAST, face_index.LATER_PART
    with Face2Vec(folder) as engine:
        engine.search(more[:1])
        add = Adding(engine, more)
        face_index.LATER_LEAST, face_index.LATER_PART = 0, 10**12
        rewritten = median_of(add)
        face_index.LATER_LEAST, face_index.LATER_PART = usual
    with Face2Vec(folder) as engine:
        engine.search(more[:1])
        add._engine = engine
        beside = median_of(add)

    def next_process() -> None:
        with Face2Vec(folder) as engine:
            (found,) = engine.search(more[add._next - 1 : add._next], k=1)
            assert found.matches[0].photo.endswith(f"one more {add._next - 1}.jpg")

    opened = median_of(next_process)
    with Face2Vec(folder) as engine:
        (found,) = engine.search(more[:1], k=1)
        search = partial(engine.search_pose, found.matches[0].face)
        first, again = seconds(search), median_of(search)
        add._engine = engine
        add()
        after = seconds(search)
    return [f"{count:,}", f"{rewritten:.2f}", f"{beside:.3f}", f"{opened:.2f}",
            f"{first:.2f}", f"{again:.2f}", f"{after:.2f}"]  # fmt: skip


REMOVE_TITLES = ("faces", "file, MB", "remove 10 photos, overwritten, s", "written, MB",
                 "rewritten, s", "written, MB")  # fmt: skip


def written_bytes() -> int:
    """Bytes that this process has caused to be written to disks."""
    found = re.search(r"write_bytes: (\d+)", Path("/proc/self/io").read_text())
    return int(found[1]) if found else 0


def remove_row(folder: Path, count: int) -> list[str]:
    from face2vec.gallery.gallery import Gallery
    from face2vec.gallery.schema import FILE

    size = (folder / FILE).stat().st_size
    cells = []
    usual = writer.SMALL_BYTES
    with Gallery.open(folder) as gallery:
        for turn, small in enumerate((0, 1 << 60)):
            rows = np.linspace(0, count - 1, 20).astype(int)[turn::2]
            photos = [f"/made/up/{row:08d}.jpg" for row in rows]
            writer.SMALL_BYTES = small

            def remove(photos: list[str] = photos) -> None:
                with gallery.write() as writing:
                    assert writing.remove(photos).photos == 10

            os.sync()  # a file that was just copied is not the removal's to write
            before = written_bytes()
            took = seconds(remove)
            cells += [f"{took:.2f}", f"{(written_bytes() - before) / 1e6:.1f}"]
    writer.SMALL_BYTES = usual
    return [f"{count:,}", f"{size / 1e6:,.0f}", *cells]


PEOPLE_TITLES = ("faces", "group all, s", "people", "memory in all, MiB", "own, MiB",
                 "after 1% more, s", "own, MiB")  # fmt: skip


def calibration():
    """Fitted on other made-up faces: of so many people that it may be sure among a million."""
    from face2vec.calibration import fit

    people = 6000
    some = faces(2 * people, 7, people).reshape(2, people, DIMENSION)
    genuine = np.sum(some[0] * some[1], axis=1)
    impostor = (some[0] @ some[1].T)[np.triu_indices(people, 1)]
    return fit(genuine, np.sort(impostor)[::-1], model="synthetic", weights="synthetic",
               data="made up", people=people)  # fmt: skip


def group(folder: Path) -> None:
    """Group the faces of a gallery; prints seconds, people, and most memory in MiB."""
    from face2vec import Face2Vec

    own = OwnMemory()
    with Face2Vec(folder) as engine:
        engine.calibrate(calibration())
        own.start()
        took = seconds(engine.find_people)
        most = own.stop()
        count = len(engine.people())
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps([took, count, whole, most]))


class OwnMemory(threading.Thread):
    """Watches the memory of this process that is not mapped from files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ends, self._most = threading.Event(), 0

    def run(self) -> None:
        """Look ten times a second."""
        while not self._ends.wait(0.1):
            status = Path("/proc/self/status").read_text()
            found = re.search(r"RssAnon:\s+(\d+)", status)
            self._most = max(self._most, int(found[1]) >> 10 if found else 0)

    def stop(self) -> int:
        """The most, in MiB."""
        self._ends.set()
        self.join()
        return self._most


def grouped(folder: Path) -> list[float]:
    done = subprocess.run([sys.executable, __file__, "--group", folder], capture_output=True,
                          check=True, text=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def people_row(folder: Path, count: int) -> list[str]:
    from face2vec import Face2Vec

    took, people, whole, own = grouped(folder)
    print(f"{count:,}: {took:.0f} s, {people:,} people, {whole:,} MiB, own {own:,}", flush=True)
    with Face2Vec(folder) as engine, engine._session.write() as writer:
        more = faces(count // 100, 6, count // FACES_A_PERSON)
        writer.record(entry(number, row) for number, row in enumerate(more))
        engine._session.index().save()
    later, _, _, own_later = grouped(folder)
    return [f"{count:,}", f"{took:.1f}", f"{people:,}", f"{whole:,}", f"{own:,}",
            f"{later:.1f}", f"{own_later:,}"]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--people", action="store_true", help="group the faces into people")
    parser.add_argument("--remove", action="store_true", help="remove photos")
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--keep", type=Path, help="keep galleries in this folder, or take them")
    given = parser.parse_args()
    if given.group is not None:
        group(given.group)
        return
    from face2vec import Face2Vec

    kind = "people" if given.people else "remove" if given.remove else ""
    rows = []
    for count in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.keep) as scratch:
            kept = (given.keep or Path(scratch)) / str(count)
            if not kept.exists():
                enrol(kept, faces(count, 1, count // FACES_A_PERSON))
            folder = Path(scratch) / "gallery"
            shutil.copytree(kept, folder)
            if not given.remove:
                with Face2Vec(folder) as engine:
                    engine.rebuild()
            rows.append(KINDS[kind][2](folder, count))
        tell(kind, given.sizes[: len(rows)], rows)  # the next size may take long


def tell(kind: str, sizes: list[int], rows: list[list[str]]) -> None:
    title, titles, _ = KINDS[kind]
    option = f"--{kind} " if kind else ""
    publish(
        f"growth-{kind}" if kind else "growth",
        f"{title} a large gallery, {DIMENSION} numbers a face",
        table(titles, rows + computed(sizes, rows)),
        f"python benchmarks/growth.py {option}--sizes {' '.join(map(str, sizes))}",
        PACKAGES,
    )


COMPUTED = 10**7, 10**8


def computed(sizes: list[int], rows: list[list[str]]) -> list[list[str]]:
    """Rows for sizes that were not measured, from the last two that were."""
    if len(sizes) < 2:
        return []
    steps = sizes[-1] / sizes[-2]
    found = []
    for count in COMPUTED:
        cells = [f"{count:,}, computed"]
        for before, last in zip(rows[-2][1:], rows[-1][1:], strict=True):
            digits = len(last.partition(".")[2])
            least = 10**-digits / 2  # below this, both are rounded to 0
            first, second = (max(float(one.replace(",", "")), least) for one in (before, last))
            power = float(np.clip(np.log(second / first) / np.log(steps), 0, 2))
            cells.append(f"{second * (count / sizes[-1]) ** power:,.{digits}f}")
        found.append(cells)
    return found


KINDS = {
    "": ("What a change costs in", TITLES, row),
    "people": ("Grouping", PEOPLE_TITLES, people_row),
    "remove": ("Removing photos from", REMOVE_TITLES, remove_row),
}


if __name__ == "__main__":
    main()
