"""A demonstration without any photos: people who do not exist are drawn, indexed and searched."""

from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from face2vec.engine import Face2Vec
from face2vec.errors import MissingExtraError, SettingsError
from face2vec.files import expanded
from face2vec.ingest.build import BuildSummary
from face2vec.report.matches import QueryResult
from face2vec.report.thumbnails import thumbnail
from face2vec.types import Match

QUERIES = 1000
"""Number of the query photo of each person, different from those in the gallery."""
SHOWN_QUERIES, SHOWN_MATCHES = 6, 5
CELL, TEXT, GAP = 120, 34, 8
MODEL_TO_TRY = "mini"
"""Keeps the people of `gallery_to_try` apart."""
TRIED_PHOTOS = 5
"""Photos of each person, alone, of `gallery_to_try`."""
LAST_PHOTO = f"person-*/{TRIED_PHOTOS - 1}.jpg"
NAMES = ("Ada", "Bela", "Chidi", "Dana", "Emil", "Farah", "Goran", "Hana", "Ines", "Jun")
"""Names of the first people of `gallery_to_try`."""
FIRST_DAY, DAYS_APART = datetime(2022, 3, 5, 10, 30), timedelta(days=9, hours=1)
"""When the first photo of `gallery_to_try` was taken, and how much later each next one."""


@dataclass(frozen=True)
class Demo:
    """What a demonstration did.

    Attributes:
        photos: number of photos in the gallery.
        faces: number of faces in the gallery.
        results: one for each query photo.
        right: number of queries whose best match is the same person.
        picture: a PNG of queries and their matches.
        gallery: folder of the gallery.
        seconds: total time.
    """

    photos: int
    faces: int
    results: tuple[QueryResult, ...]
    right: int
    picture: Path
    gallery: Path
    seconds: float


def demo(
    folder: str | Path,
    *,
    people: int = 40,
    seed: int = 0,
    model: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Demo:
    """Draw people, write their photos, build a gallery of them and search it.

    Args:
        folder: for ``photos``, ``queries``, ``gallery`` and ``matches.png``; must be empty.
        people: how many people to draw.
        seed: another seed draws other people.
        model: embedding model; None for the default one.
        say: called with each step.

    Raises:
        SettingsError: the folder is not empty, or ``people`` is below 1.
    """
    from face2vec import samples

    started = time.monotonic()
    folder = Path(expanded(folder))
    if people < 1:
        raise SettingsError(f"people must be at least 1, not {people}")
    say(f"drawing {people} people who do not exist")
    samples.write(folder / "photos", people=people, photos=5, groups=max(1, people // 5), seed=seed)
    queries = []
    for person in samples.people(people, seed=seed):
        queries.append(folder / "queries" / f"{person.name}.jpg")
        person.photo(QUERIES).save(queries[-1])
    say(f"building a gallery of {folder / 'photos'}")
    with Face2Vec(folder / "gallery", model=model) as engine:
        summary = _whole(engine.add(folder / "photos"))
        say(f"searching it with another photo of each person, from {folder / 'queries'}")
        found = tuple(one for query in queries for one in engine.search(query, k=10)[:1])
    drawn = _drawn(folder / "photos")
    right = sum(
        bool(one.matches) and _who(one.matches[0], drawn) == Path(one.photo).stem for one in found
    )
    picture = folder / "matches.png"
    sheet(found[:SHOWN_QUERIES]).save(picture)
    return Demo(
        summary.photos, summary.faces, found, right, picture, folder / "gallery",
        time.monotonic() - started,
    )  # fmt: skip


def gallery_to_try(folder: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """Make a gallery to try the pages with: people who are told apart, some of them with names.

    Each photo has a date, and each person several photos. The people without a name are there to
    be named, and the last photo of each is added after the others were grouped, so that there are
    questions to answer.

    Args:
        folder: for ``photos`` and ``gallery``; must be empty.
        say: called with each step.

    Returns:
        The folder of the gallery.
    """
    from face2vec import samples
    from face2vec.samples.people import APART

    photos = folder / "photos"
    say(f"drawing {len(APART)} people who do not exist")
    samples.write(photos, photos=TRIED_PHOTOS, groups=len(APART) // 4, only=APART)
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))):
        data = photo.read_bytes()
        photo.write_bytes(data[:2] + _exif(FIRST_DAY + DAYS_APART * number) + data[2:])
    named = {
        name: [photos / f"person-{number:03}" / "0.jpg"]
        for name, number in zip(NAMES, APART, strict=False)
    }
    say(f"building a gallery of {photos}")
    with Face2Vec(folder / "gallery", model=MODEL_TO_TRY) as engine:
        _whole(engine.add(photos, exclude=[LAST_PHOTO]))
        _whole(engine.enroll(named).added)
        with contextlib.suppress(MissingExtraError):
            engine.find_people()
        _whole(engine.add(photos))
    return folder / "gallery"


def _whole(summary: BuildSummary) -> BuildSummary:
    """A build, unless Ctrl-C ended it: a part of the photos demonstrates nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
    """
    if summary.interrupted:
        raise KeyboardInterrupt
    return summary


def _exif(taken: datetime) -> bytes:
    """The segment of a JPEG file that says when it was taken."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = f"{taken:%Y:%m:%d %H:%M:%S}"
    block = exif.tobytes()
    return b"\xff\xe1" + (len(block) + 2).to_bytes(2) + block


def _drawn(photos: Path) -> dict[Path, list[tuple[str, float, float]]]:
    """(person, x, y of the centre) of each face in each photo, as it was drawn."""
    drawn: dict[Path, list[tuple[str, float, float]]] = {}
    with (photos / "people.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            x = (float(row["left"]) + float(row["right"])) / 2
            y = (float(row["top"]) + float(row["bottom"])) / 2
            drawn.setdefault((photos.resolve() / row["photo"]), []).append((row["person"], x, y))
    return drawn


def _who(match: Match, drawn: dict[Path, list[tuple[str, float, float]]]) -> str:
    """The person whose drawn face is nearest to that of a match."""
    left, top, right, bottom = match.face.box
    x, y = (left + right) / 2, (top + bottom) / 2
    return min(drawn[Path(match.photo)], key=lambda one: math.dist(one[1:], (x, y)))[0]


def sheet(found: tuple[QueryResult, ...]) -> Image.Image:
    """A picture of each query at the left, with its matches and their similarities."""
    columns = 1 + SHOWN_MATCHES
    size = (columns * (CELL + GAP) + 2 * GAP, len(found) * (CELL + TEXT + GAP) + GAP)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for row, one in enumerate(found):
        top = GAP + row * (CELL + TEXT + GAP)
        query = one.thumbnail(CELL)
        cells = [] if query is None else [(query, "query", Path(one.photo).name)]
        cells += [
            (thumbnail(match.photo, match.face.box, CELL), f"{match.similarity:.3f}",
             "/".join(Path(match.photo).parts[-2:]))
            for match in one.matches[:SHOWN_MATCHES]
        ]  # fmt: skip
        for column, (image, above, below) in enumerate(cells):
            left = GAP + column * (CELL + GAP) + (GAP if column else 0)
            picture.paste(image, (left, top))
            pen.text((left, top + CELL + 2), above, "black", font)
            pen.text((left, top + CELL + 17), below, "grey", font)
    return picture
