"""How far the crowding of a model holds for faces of a dataset that its centres know nothing of.

    python benchmarks/unseen.py MODEL --fit CELEBA/identity.txt --faces FACES.tar … \
        --table FACES.csv …

The centres are made of training faces, see training/crowding.py. For each dataset with labels, they
are made again without it, and false accepts are counted among its kinds of people: without
crowding, with the shipped concentration and slope and the dataset left out, and, for comparison,
with half of all faces as centres, the other half being counted. Of these faces it is not known
who is who, so a few pairs show one person; the rate of one in a hundred is less touched by that
than lower ones.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from fairness import words_of

from face2vec.calibration import Calibration
from face2vec.crowding import fit_crowding
from face2vec.encoding.embed import Embedder
from face2vec.evaluation.fitting import fitted
from face2vec.evaluation.sets import named_faces, named_photos
from face2vec.models import calibration_of, load_model
from face2vec.runtime.select import choose_runtime
from face2vec.training.augment import masked
from face2vec.training.teachers import resized

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from crowding import CENTRES, FEW_PEOPLE, MASKED, faces_to_learn, set_of

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
LEFT_OUT = ("utk", "ff", "aaf", "scut")
FEWEST, MANY = 110, 2000
FARS = (1e-2, 1e-3)


def kinds_of(listed: str) -> dict[str, str]:
    """What each file of a table shows, in words."""
    with Path(listed).open(newline="", encoding="utf-8") as stream:
        return {row["file"]: ", ".join(filter(None, words_of(row)))
                for row in csv.DictReader(stream)}  # fmt: skip


def ratios(calibration: Calibration, embeddings: np.ndarray) -> list[float]:
    """Counted over stated false accepts, at each of the rates."""
    rows, columns = np.triu_indices(len(embeddings), 1)
    alike = calibration.adjusted(embeddings)[rows, columns]
    return [float((alike >= calibration.threshold(far)).mean() / far) for far in FARS]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--fit", type=Path, required=True, help="what the model's own is fitted on")
    parser.add_argument("--fit-gallery", type=Path)
    parser.add_argument("--faces", action="append", required=True)
    parser.add_argument("--table", action="append", required=True)
    given = parser.parse_args()
    loaded = load_model(given.model)
    key = loaded.description.key
    shipped = calibration_of(key, loaded.weights_sha256, loaded.origin)
    assert shipped is not None
    assert shipped.crowding is not None
    embed, side = Embedder(loaded, choose_runtime()), loaded.description.input_size
    rng, bare, masks, masked_rows, names, kinds = np.random.default_rng(0), [], [], [], [], []
    for source, listed in zip(given.faces, given.table, strict=True):
        files, crops = faces_to_learn(source, listed, loaded.description, FEW_PEOPLE)
        words = kinds_of(listed)
        bare.append(embed(resized(crops, side)))
        some = np.stack([masked(crop, rng) for crop in crops[::MASKED]])
        masks.append(embed(resized(some, side)))
        masked_rows.append(len(names) + np.arange(0, len(crops), MASKED))
        names += files
        kinds += [words[name] for name in files]
    every, with_masks, whose = (np.concatenate(part) for part in (bare, masks, masked_rows))
    people = named_faces(named_photos(given.fit), given.fit_gallery, model=given.model,
                         progress=True)  # fmt: skip

    def calibrated(rows: np.ndarray) -> Calibration:
        """The shipped calibration, with centres of some of the faces."""
        crowding = fit_crowding(
            np.concatenate([every[rows], with_masks[rows[whose]]]),
            centres=CENTRES,
            concentration=shipped.crowding.concentration,
            slope=shipped.crowding.slope,
            data="",
        )
        return fitted(people, crowding.with_average(people.embeddings), data="")

    dataset, kind = np.array([set_of(name) for name in names]), np.array(kinds)
    plain = fitted(people, None, data="")
    half = np.random.default_rng(1).random(len(every)) < 0.5
    seen = calibrated(half)
    lines = []
    for name in LEFT_OUT:
        unseen = calibrated(dataset != name)
        for one in np.unique(kind[dataset == name]):
            rows = np.flatnonzero((dataset == name) & (kind == one))
            others = rows[~half[rows]]
            if len(others) < FEWEST:
                continue
            cells = zip(
                ratios(plain, every[rows[:MANY]]),
                ratios(unseen, every[rows[:MANY]]),
                ratios(seen, every[others[:MANY]]),
                strict=True,
            )
            numbers = [f"{value:.1f}" for rate in cells for value in rate]
            lines.append([f"{name}, {one}", f"{len(rows):,}", *numbers])
    head = ("pairs of", "faces", "÷ at 1e-2, before", "dataset left out", "seen",
            "÷ at 1e-3, before", "dataset left out", "seen")  # fmt: skip
    publish(
        f"unseen-{key}",
        f"Counted ÷ stated false accepts of datasets that the centres do not know, model {key}",
        table(head, lines),
        "python benchmarks/unseen.py MODEL --fit CELEBA/identity.txt --faces FACES.tar …",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
