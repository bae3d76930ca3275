"""How many suggestions of ``people --suggest`` are right, on photos of known people.

    python benchmarks/suggestions.py NAME=GALLERY=PEOPLE...

GALLERY was built over the photos; a copy of it is grouped. PEOPLE is a folder with a folder for
each person, or a table of identities as CelebA has it. A suggestion is right if most known faces
of both sides are of one person. Writes ``results/suggestions.md``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import publish, table

from face2vec import Face2Vec
from face2vec.evaluation.sets import named_faces, named_photos, photos_in
from face2vec.types import Side

MOST = 200
FIRST = (50, 100, 200)


def measured(name: str, gallery: Path, people: Path) -> list[str]:
    """One row: right suggestions among the first, and faces that they would move."""
    photos = photos_in(people) if people.is_dir() else named_photos(people)
    named = named_faces(photos, gallery, which="largest")
    known = dict(zip(named.ids.tolist(), named.people.tolist(), strict=True))
    with Face2Vec(gallery) as engine:
        engine.find_people(again=True)
        faces = {person.id: person.faces for person in engine.people()}
        started = time.monotonic()
        suggestions = engine.suggest(MOST)
        seconds = time.monotonic() - started

    def who(side: Side) -> int | None:
        members = side.shown if side.person is None else faces[side.person]
        found = Counter(known[face] for face in members if face in known)
        return found.most_common(1)[0][0] if found else None

    sides = [(who(one.first), who(one.second), one) for one in suggestions]
    judged = [(a == b, one) for a, b, one in sides if a is not None and b is not None]
    right = [f"{sum(is_right for is_right, _ in judged[:first])}" for first in FIRST]
    stated = sum(one.probability for _, one in judged) / max(len(judged), 1)
    moved = sum(one.second.count for is_right, one in judged if is_right)
    total = f"{len(judged)}"
    return [name, f"{len(known):,}", total, *right, f"{stated:.0%}", f"{moved}", f"{seconds:.1f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="+", metavar="NAME=GALLERY=PEOPLE")
    rows = []
    for one in parser.parse_args().sets:
        name, gallery, people = one.split("=")
        with tempfile.TemporaryDirectory() as place:
            copy = Path(shutil.copytree(gallery, Path(place) / "gallery"))
            rows.append(measured(name, copy, Path(people)))
        print(rows[-1], flush=True)
    head = (
        *("", "known faces", "suggestions", "right of 50", "of 100", "of 200"),
        *("mean of the stated probabilities", "faces that right ones move", "took"),
    )
    publish(
        "suggestions",
        "Suggestions of people who may be one",
        table(head, rows),
        "python benchmarks/suggestions.py NAME=GALLERY=PEOPLE...",
        ("face2vec", "faiss-cpu", "scipy"),
    )


if __name__ == "__main__":
    main()
