"""Fit how near strangers come to a face, and the calibration of a model with it.

    python training/crowding.py MODEL --faces FACES.tar --table FACES.csv … \
        --concentration 80 --slope 2 \
        --people CELEBA/identity.txt --data "what PEOPLE are" --out MODEL.calibration.json

The centres are means of the training faces of many different people, a part of them with a mask
drawn on, without those that are held out. Sets (first folder of a file's name) that show few people
many times are left out, and those named by --not. The distributions are fitted on the photos of
PEOPLE.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face2vec.crowding import fit_crowding
from face2vec.encoding.embed import Embedder
from face2vec.evaluation.fitting import fitted
from face2vec.evaluation.sets import named_faces, named_photos
from face2vec.models import load_model
from face2vec.models.description import ModelDescription
from face2vec.runtime.select import choose_runtime
from face2vec.training.augment import masked
from face2vec.training.faces import load_faces
from face2vec.training.teachers import resized

CENTRES = 500
MASKED = 5  # one in so many faces is taken a second time, with a mask drawn on
FEW_PEOPLE = ("glint", "prima", "nuaa", "cc12", "gen", "flux", "sg3")


def files_of(source: str) -> list[str]:
    """The files of an archive, in the order of `load_faces`."""
    with tarfile.open(source) as archive:
        return sorted(member.name for member in archive if member.isfile())


def faces_to_learn(
    source: str, table: str, description: ModelDescription, left_out: Sequence[str]
) -> tuple[list[str], NDArray[np.uint8]]:
    """Files and crops of the faces of an archive that centres are made of.

    Args:
        source: the archive.
        table: what its files show.
        description: of the model.
        left_out: sets that are not used.
    """
    with Path(table).open(newline="", encoding="utf-8") as stream:
        listed = {row["file"] for row in csv.DictReader(stream)}
    names = files_of(source)
    if not listed.issuperset(names):
        raise SystemExit(f"{table} does not list all files of {source}")
    faces = load_faces(source, description, table=table, aligned=True)
    kept = np.array([set_of(name) not in left_out for name in names])
    if faces.held_out is not None:
        kept &= ~faces.held_out
    return [name for name, one in zip(names, kept, strict=True) if one], faces.crops[kept]


def set_of(name: str) -> str:
    """The set that a file of an archive is of."""
    return name.partition("/")[0]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--faces", action="append", required=True)
    parser.add_argument("--table", action="append", required=True)
    parser.add_argument("--not", dest="left_out", action="append", default=[*FEW_PEOPLE])
    parser.add_argument("--concentration", type=float, required=True)
    parser.add_argument("--slope", type=float, required=True)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, help="keep the faces of PEOPLE there")
    parser.add_argument("--data", required=True, help="what PEOPLE are")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    model = load_model(given.model)
    embed = Embedder(model, choose_runtime())
    side = model.description.input_size
    rng, rows = np.random.default_rng(0), []
    for source, table in zip(given.faces, given.table, strict=True):
        _, crops = faces_to_learn(source, table, model.description, given.left_out)
        with_masks = np.stack([masked(crop, rng) for crop in crops[::MASKED]])
        rows += [embed(resized(some, side)) for some in (crops, with_masks)]
    crowding = fit_crowding(
        np.concatenate(rows),
        centres=CENTRES,
        concentration=given.concentration,
        slope=given.slope,
        data=f"{sum(map(len, rows)):,} training faces, a part of them with a mask drawn on",
    )
    people = named_faces(named_photos(given.people), given.gallery, model=given.model,
                         progress=True)  # fmt: skip
    crowding = crowding.with_average(people.embeddings)
    calibration = fitted(people, crowding, data=given.data)
    given.out.write_text(calibration.to_json() + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(crowding.scales)} centres, average {crowding.average:.3f}\n")
    for far in (1e-2, 1e-3, 1e-4):
        similarity = calibration.threshold(far)
        sys.stdout.write(f"false accept rate {far:g}: similarity {similarity:.3f}\n")


if __name__ == "__main__":
    main()
