"""Make the picture in README.md: one search, in photos of people who do not exist.

    python scripts/make_images.py [FOLDER]

Draws 20 people, builds a gallery of their photos, searches it with a photo of four of them, and
draws what the search returns into FOLDER (docs/images by default). Needs no network.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from face2vec import Face2Vec, samples
from face2vec.report.matches import thumbnail

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PEOPLE, SEED, SHOWN = 20, 4, (0, 5, 9, 14)
MATCHES, CELL, TEXT, GAP = 5, 104, 20, 10
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
WHITE, BLACK, GREY = "#ffffff", "#1a1a1a", "#666666"


def search_picture(folder: Path) -> Image.Image:
    """The query photo with its faces, and beside it the best matches of each."""
    samples.write(folder / "photos", people=PEOPLE, photos=6, groups=0, seed=SEED)
    people = samples.people(PEOPLE, seed=SEED)
    query = folder / "query.jpg"
    samples.group_photo([people[n] for n in SHOWN], number=3).save(query)
    with Face2Vec(folder / "gallery", model="mini", runtime="onnxruntime") as engine:
        engine.add(folder / "photos")
        found = sorted(engine.search(query, k=MATCHES), key=lambda one: one.face.box[0])

    photo = Image.open(query).convert("RGB")
    scale = 480 / photo.width
    photo = photo.resize((480, round(photo.height * scale)), Image.Resampling.LANCZOS)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    row_height = CELL + TEXT + GAP
    width = 480 + 4 * GAP + MATCHES * (CELL + GAP)
    height = max(len(found) * row_height + 36, photo.height + 60)
    picture = Image.new("RGB", (width, height), WHITE)
    pen = ImageDraw.Draw(picture)
    top = (height - photo.height) // 2
    picture.paste(photo, (GAP, top))
    pen.text((GAP, top - 26), "query: one photo, every face in it", BLACK, font)
    left = 480 + 3 * GAP
    pen.text((left, 8), "matches, with their similarity (cosine)", BLACK, font)
    for row, (one, colour) in enumerate(zip(found, COLOURS, strict=False)):
        box = [v * scale for v in one.face.box]
        pen.rectangle(
            (box[0] + GAP, box[1] + top, box[2] + GAP, box[3] + top), outline=colour, width=3
        )
        y = 34 + row * row_height
        for column, match in enumerate(one.matches):
            x = left + column * (CELL + GAP)
            picture.paste(thumbnail(match.photo, match.face.box, CELL), (x, y))
            pen.text((x, y + CELL + 2), f"{match.similarity:.3f}", GREY, small)
        pen.rectangle((left - GAP, y, left - GAP + 4, y + CELL), fill=colour)
    return picture


def main() -> None:
    """Write search.webp."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        search_picture(Path(work)).save(folder / "search.webp", quality=82, method=6)


if __name__ == "__main__":
    main()
