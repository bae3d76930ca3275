"""Clustering and open-set identification on photos whose people are known.

    python benchmarks/people.py GALLERY IDENTITIES [--name NAME]

GALLERY is a gallery of the photos, made by ``face2vec evaluate`` or ``index``. IDENTITIES gives the
person of the centre face of each photo: a folder with one folder per person, or a file with a photo
and a person per line. All faces are clustered, but only those of known people are counted. The
thresholds of agglomerative clustering, DBSCAN and Chinese whispers are the best of several for
these photos, which favours them; average linkage of log odds has no threshold.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from numpy.typing import NDArray

from face2vec import Face2Vec
from face2vec.calibration import Calibration
from face2vec.evaluation.sets import named_faces, named_photos
from face2vec.people.clustering import NEIGHBOURS, Evidence, Faces
from face2vec.people.identify import probabilities
from face2vec.people.methods import grouped_by

FPIR = 0.01
SEEDS = 10
PACKAGES = ("face2vec", "scikit-learn", "scipy", "numpy")
SIMILARITIES = np.arange(0.3, 0.85, 0.05)
TITLES = ("method", "pairs: precision", "recall", "BCubed: precision", "recall", "F")


def bcubed(whose: Sequence[int], groups: Sequence[int]) -> tuple[float, ...]:
    """Precision and recall of pairs, and BCubed precision, recall and F (Amigó et al., 2009)."""
    both, people, found = Counter(zip(whose, groups, strict=True)), Counter(whose), Counter(groups)

    def pairs(counts: Counter[object]) -> int:
        return sum(n * (n - 1) // 2 for n in counts.values())

    right = pairs(both)
    precision = sum(n * n / found[g] for (_, g), n in both.items()) / len(whose)
    recall = sum(n * n / people[p] for (p, _), n in both.items()) / len(whose)
    return (right / max(pairs(found), 1), right / max(pairs(people), 1), precision, recall,
            2 * precision * recall / (precision + recall))  # fmt: skip


def clustered(
    faces: Faces,
    whose: NDArray[np.int64],
    near: list[NDArray[np.int64]],
    meaning: Calibration,
    mates: float,
) -> list[list[str]]:
    """One row of figures per method."""
    evidence = Evidence(meaning, len(faces), mates=mates)
    faces = evidence.with_crowding(faces)
    rows = []
    for method, choices in (
        ("average", [0.0]),
        ("agglomerative", SIMILARITIES),
        ("chinese-whispers", SIMILARITIES),
        ("dbscan", SIMILARITIES),
        ("hdbscan", [0.0]),
    ):
        best: tuple[tuple[float, ...], float] = ((0.0,) * 5, 0.0)
        for similarity in choices:
            groups = grouped_by(method, faces, evidence, near, similarity=float(similarity))
            labels = -1 - np.arange(len(faces))
            for number, ids in enumerate(groups):
                labels[np.searchsorted(faces.ids, ids)] = number
            figures = bcubed(whose[whose >= 0].tolist(), labels[whose >= 0].tolist())
            best = max(best, (figures, float(similarity)), key=lambda one: one[0][-1])
            print(method, round(float(similarity), 2), [round(f, 3) for f in figures],
                  file=sys.stderr)  # fmt: skip
        chosen = f", from {best[1]:.2f} on" if len(choices) > 1 else ""
        rows.append(
            [method + chosen, *(f"{f:.1%}" for f in best[0][:-1]), f"**{best[0][-1]:.3f}**"]
        )
    return rows


def open_set(
    embeddings: NDArray[np.float32], whose: NDArray[np.int64], meaning: Calibration, seed: int
) -> float:
    """False-negative identification rate at a false-positive rate of 1 %.

    Half of the people with two or more photos are enrolled with all photos but one. The queries
    are that photo, and one photo of each other person.
    """
    rng = np.random.default_rng(seed)
    people, counts = np.unique(whose, return_counts=True)
    several = rng.permutation(people[counts > 1])
    known = set(several[: len(several) // 2].tolist())
    enrolled, asked = [], []
    for person in people.tolist():
        rows = rng.permutation(np.flatnonzero(whose == person))
        asked.append(rows[0])
        if person in known:
            enrolled += rows[1:].tolist()
    numbers, shares = probabilities(
        embeddings[asked], embeddings[enrolled], whose[enrolled], meaning
    )
    best = shares.max(axis=1)
    stranger = ~np.isin(whose[asked], list(known))
    threshold = np.quantile(best[stranger], 1 - FPIR)
    right = (numbers[shares.argmax(axis=1)] == whose[asked]) & (best > threshold)
    return float(1 - right[~stranger].mean())


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("gallery", type=Path)
    parser.add_argument("identities", type=Path)
    parser.add_argument("--name", default="people")
    parser.add_argument("--title", default="", help="of the photos, in words")
    given = parser.parse_args()
    named = named_faces(named_photos(given.identities), given.gallery)
    with Face2Vec(given.gallery) as engine:
        gallery = engine._session.gallery()
        with gallery.read() as now:
            around = engine._session.known_surroundings(now)
            meaning = around.calibration
            ids, photos = now.contents()
            faces = Faces(ids, now.embeddings(ids), photos)
            with engine._session.index().at(now) as index:
                near = list(index.search(faces.embeddings, NEIGHBOURS + 1, now.embeddings)[1])
    whose = np.full(len(faces), -1)
    whose[np.searchsorted(faces.ids, named.ids)] = named.people
    rows = clustered(faces, whose, near, meaning, around.mates)
    misses = [open_set(named.embeddings, named.people, meaning, seed) for seed in range(SEEDS)]
    words = (
        f"{len(faces):,} faces, {len(named.photos):,} of them of "
        f"{len(set(named.people.tolist())):,} people who are known.\n\n"
        + table(TITLES, rows)
        + "\n\nOpen-set identification with half of the people enrolled, FNIR at FPIR 1 %: "
        f"**{np.mean(misses):.1%}** (mean of {SEEDS} draws, {min(misses):.1%} to "
        f"{max(misses):.1%})."
    )
    publish(
        given.name,
        f"{given.title or given.gallery.name}, model {named.model}",
        words,
        "python benchmarks/people.py GALLERY IDENTITIES",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
