"""How a model does with faces of each age, sex and origin, on faces that were held out.

    python benchmarks/slices.py MODEL --teacher TEACHER --faces FACES.tar --table FACES.csv

UTKFace says how old its people are, and not who they are, so there are no pairs of one person.
What can be measured is how near the model comes to its teacher, and how often it takes two
faces of one slice for one person, at the similarity at which it does so for one in a thousand
pairs of all of them. A few pairs of one person are among them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import arguments, publish, table

from face2vec.models import load_model
from face2vec.runtime.select import choose_runtime
from face2vec.training.faces import Faces, load_faces
from face2vec.training.teachers import Teachers

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
FAR = 1e-3
HELD_OUT, SEED = 0.04, 0
SET = "utk"
SEX = ("male", "female")
ORIGIN = ("White", "Black", "Asian", "Indian", "other")  # UTKFace's words
AGES = ((0, 19), (20, 39), (40, 59), (60, 120))


def pairs(embeddings: np.ndarray) -> np.ndarray:
    """Similarities of all pairs."""
    return (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--faces", required=True)
    parser.add_argument("--table", required=True)
    given = parser.parse_args()
    description = load_model(given.model).description
    faces = load_faces(given.faces, description, table=given.table, aligned=True)
    with Path(given.table).open(newline="", encoding="utf-8") as stream:
        facts = sorted(csv.DictReader(stream), key=lambda row: row["file"])
    numbered = Faces(faces.crops, np.arange(len(faces)))
    held = numbered.split(HELD_OUT, SEED)[1]
    ours = [i for i, row in enumerate(held.people) if facts[row]["set"] == SET]
    facts = [facts[held.people[i]] for i in ours]
    crops = held.crops[ours]
    student, teacher = (
        Teachers((model,), choose_runtime()).of_all(crops) for model in (given.model, given.teacher)
    )
    cosine = np.sum(student * teacher, axis=1)
    threshold = [np.quantile(pairs(one), 1 - FAR) for one in (student, teacher)]

    def row(name: str, of: Callable[[dict[str, str]], bool]) -> list[str]:
        some = np.array([of(fact) for fact in facts])
        taken = [
            float((pairs(one[some]) > limit).mean())
            for one, limit in zip((student, teacher), threshold, strict=True)
        ]
        return [name, f"{some.sum():,}", f"{np.median(cosine[some]):.3f}",
                f"{1000 * taken[0]:.1f}", f"{1000 * taken[1]:.1f}"]  # fmt: skip

    rows = [row("all", lambda _: True)]
    rows += [row(word, lambda f, n=n: f["sex"] == str(n)) for n, word in enumerate(SEX)]
    rows += [row(word, lambda f, n=n: f["origin"] == str(n)) for n, word in enumerate(ORIGIN)]
    rows += [
        row(f"{first} to {last} years", lambda f, a=first, b=last: a <= int(f["age"] or -1) <= b)
        for first, last in AGES
    ]
    publish(
        "slices",
        f"Slices of {len(ours):,} held-out UTKFace faces, model {description.key}",
        table(["slice", "faces", "cosine to the teacher, median",
               "false accepts in a thousand pairs", "the teacher's"], rows),
        "python benchmarks/slices.py MODEL --teacher TEACHER --faces FACES.tar --table FACES.csv",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
