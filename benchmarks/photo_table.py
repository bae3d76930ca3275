"""A table for ``face2vec lab slices`` of what photos show by themselves: light and sharpness.

    python benchmarks/photo_table.py PEOPLE TABLE.csv
    face2vec lab slices TABLE.csv --people 2000 --photos 5

PEOPLE is a folder with a folder of photos a person, or a list as CelebA has it. What is looked at
is the middle half of each photo, where the face is. The slices are the tenth of these photos that
is darkest, brightest, softest and sharpest.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from tqdm import tqdm

from face2vec import open_photo
from face2vec.evaluation.sets import named_photos


def measured(photo: Path) -> tuple[float, float]:
    """Mean brightness, 0…255, and the mean step from pixel to pixel as a part of it."""
    image = open_photo(photo).image
    height, width = image.shape[:2]
    middle = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
    grey = middle.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    light = float(grey.mean())
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return light, float(steps) / max(light, 1.0)


def divided(values: np.ndarray, low: str, high: str) -> list[str]:
    """The tenth that is lowest, the tenth that is highest, and the others."""
    least, most = np.quantile(values, (0.1, 0.9))
    return [low if v <= least else high if v >= most else "usual" for v in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    named = named_photos(given.people).people
    light, sharpness = np.array([measured(photo) for photo in tqdm(named)]).T
    rows = zip(
        named.items(),
        divided(light, "dark", "bright"),
        divided(sharpness, "soft", "sharp"),
        strict=True,
    )
    with given.table.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("photo", "person", "light", "sharpness"))
        table.writerows((photo, person, *rest) for (photo, person), *rest in rows)


if __name__ == "__main__":
    main()
