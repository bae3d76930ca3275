"""What it changes that a gallery is its own cohort: probabilities and groups of people.

    python benchmarks/cohort.py MODEL --set NAME=FOLDER … --tight NAME … --keep GALLERIES \
        --faces FACES.tar --table FACES.csv …

Each set of known people is a gallery of its own. Its faces are searched in it, and the expected
calibration error of the ten best matches is measured (Guo et al., On calibration of modern neural
networks, 2017, section 2): with all other photos of each person there (*all mates*), and with one
(*one mate*). Faces are grouped, and the groups compared with the people. Half of the people have
names, and the faces of the other half are identified: *strangers named*. *before* is the model's
calibration with a prior of one mate; *now* is with the cohort and the estimated mates.

``--faces`` are archives of aligned faces, ``--table`` what they show. Those of different people
that were not trained on (see fairness.py) are grouped: all that are not alone are mistakes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from fairness import held_out, on_grey
from people import bcubed

from face2vec import Face2Vec
from face2vec.calibration import Calibration
from face2vec.cohort import LOOKED_AT
from face2vec.evaluation.sets import NamedFaces, named_faces, named_photos, photos_in
from face2vec.models import calibration_of, load_model
from face2vec.people.clustering import NEIGHBOURS, Evidence, Faces, average
from face2vec.people.identify import probabilities
from face2vec.session import ASKED, NEAREST
from face2vec.types import NAMED_AT_LEAST

PACKAGES = ("face2vec", "onnxruntime", "numpy")
MATCHES, BINS, MOST = 10, 15, 4000
TITLES = ("photos", "faces", "mates: true", "estimated", "error, all mates: before", "now",
          "error, one mate: before", "now", "BCubed F, before", "now",
          "faces in a mixed group, before", "now",
          "strangers named, before", "now")  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """Stated probabilities of matches, and which of them are right."""

    probabilities: np.ndarray
    right: np.ndarray

    def error(self) -> float:
        """Expected calibration error."""
        place = np.minimum((self.probabilities * BINS).astype(int), BINS - 1)
        apart = (
            abs(self.probabilities[place == n].sum() - self.right[place == n].sum())
            for n in range(BINS)
        )
        return sum(apart) / len(self.probabilities)


def matched(
    calibration: Calibration, queries: np.ndarray, gallery: np.ndarray, right: np.ndarray,
    mates: float, *, itself: bool
) -> Stated:  # fmt: skip
    """The ten best matches of each query."""
    similar = queries @ gallery.T
    if itself:
        np.fill_diagonal(similar, -2)
    best = np.argsort(-similar, axis=1)[:, :MATCHES]
    cosines = np.clip(np.take_along_axis(similar, best, 1).astype(float), -1, 1)
    crowding = calibration.crowded(queries)[:, None] + calibration.crowded(gallery)[best]
    stated = calibration.probability(cosines, min(mates / len(gallery), 0.5), crowding / 2)
    return Stated(stated.ravel(), np.take_along_axis(right, best, 1).ravel())


def one_mate(calibration: Calibration, known: NamedFaces, *, cohort: bool) -> Stated:
    """One photo a person in the gallery, and another one asked about."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(known.people == p)) for p in np.unique(known.people)]
    pairs = np.array([some[:2] for some in rows if len(some) > 1])
    gallery, queries = known.embeddings[pairs[:, 0]], known.embeddings[pairs[:, 1]]
    if cohort:
        calibration = calibration.among(gallery[rng.permutation(len(gallery))[:LOOKED_AT]])
    right = np.eye(len(pairs), dtype=bool)
    return matched(calibration, queries, gallery, right, 1, itself=False)


def strangers_named(calibration: Calibration, known: NamedFaces) -> float:
    """Share of the faces of unknown people that `identify` names at its default."""
    named = known.people % 2 == 0
    owners = known.people[named]
    _, shares = probabilities(
        known.embeddings[~named], known.embeddings[named], owners, calibration
    )
    return float((shares.max(axis=1) >= NAMED_AT_LEAST).mean())


def neighbours(embeddings: np.ndarray) -> list[np.ndarray]:
    """Ids of the nearest faces of each, itself among them."""
    nearest = NEIGHBOURS + 1
    return [
        np.argpartition(-(one @ embeddings.T), nearest)[:nearest].astype(np.int64)
        for one in embeddings
    ]


def grouped_strangers(calibration: Calibration, embeddings: np.ndarray, *, cohort: bool) -> float:
    """Share of faces of different people that are grouped with somebody."""
    ids, mates = np.arange(len(embeddings)), 1.0
    near = neighbours(embeddings)
    if cohort:
        order = np.random.default_rng(0).permutation(len(ids))
        calibration = calibration.among(embeddings[order[:LOOKED_AT]])
    faces = Faces(ids, embeddings, ids)
    if cohort:
        asked = order[:ASKED]
        rows = np.array([near[i][near[i] != i][:NEAREST] for i in asked])
        cosines = np.vecdot(embeddings[asked][:, None], embeddings[rows]).astype(float)
        crowded = calibration.crowded(embeddings)
        crowding = (crowded[asked][:, None] + crowded[rows]) / 2
        mates = calibration.mates(calibration.log_odds(cosines, crowding=crowding), len(ids))
    evidence = Evidence(calibration, len(faces), mates=mates)
    groups = average(evidence.with_crowding(faces), evidence, near)
    return sum(map(len, groups)) / len(ids)


def row(name: str, gallery: Path, known: NamedFaces) -> list[str]:
    with Face2Vec(gallery) as engine:
        shipped = engine.calibration
        with engine._session.gallery().read() as now:
            around = engine._session.known_surroundings(now)
            ids, photos = now.contents()
            faces = Faces(ids, now.embeddings(ids), photos)
            with engine._session.index().at(now) as index:
                near = list(index.search(faces.embeddings, NEIGHBOURS + 1, now.embeddings)[1])
    some = np.random.default_rng(0).permutation(len(known.people))[:MOST]
    people, embeddings = known.people[some], known.embeddings[some]
    right = people[:, None] == people
    true = np.bincount(known.people)[known.people].mean() - 1
    part = len(some) / len(known.people)
    errors = [
        matched(calibration, embeddings, embeddings, right, max(mates * part, 1), itself=True)
        for calibration, mates in ((shipped, 1.0), (around.calibration, around.mates))
    ]
    alone = [one_mate(shipped, known, cohort=cohort) for cohort in (False, True)]
    whose = np.full(len(faces), -1)
    whose[np.searchsorted(faces.ids, known.ids)] = known.people
    scores, mixed = [], []
    for calibration, mates in ((shipped, 1.0), (around.calibration, around.mates)):
        evidence = Evidence(calibration, len(faces), mates=mates)
        labels = -1 - np.arange(len(faces))
        for group, members in enumerate(average(evidence.with_crowding(faces), evidence, near)):
            labels[np.searchsorted(faces.ids, members)] = group
        truth, found = whose[whose >= 0], labels[whose >= 0]
        scores.append(bcubed(truth.tolist(), found.tolist())[-1])
        groups = (found == one for one in np.unique(found[found >= 0]))
        mixed.append(sum(g.sum() for g in groups if len(set(truth[g])) > 1) / len(truth))
    named = [strangers_named(one, known) for one in (shipped, around.calibration)]
    return [name, f"{len(known.people):,}", f"{true:.1f}", f"{around.mates:.1f}",
            *(f"{one.error():.3f}" for one in (*errors, *alone)),
            *(f"{score:.3f}" for score in scores),
            *(f"{one:.1%}" for one in (*mixed, *named))]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=FOLDER",
                        help="a folder a person, or a list of photos and people")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="keep the galleries of the sets there")
    parser.add_argument("--tight", action="append", default=[], metavar="NAME")
    parser.add_argument("--faces", action="append", default=[])
    parser.add_argument("--table", action="append", default=[])
    given = parser.parse_args()
    loaded = load_model(given.model)
    key = loaded.description.key
    shipped = calibration_of(key, loaded.weights_sha256, loaded.origin)
    assert shipped is not None
    alone = []
    for archive, listed in zip(given.faces, given.table, strict=True):
        for group in held_out(archive, listed, given.model):
            both = [
                grouped_strangers(shipped, group.embeddings, cohort=cohort)
                for cohort in (False, True)
            ]
            alone.append(
                [group.name, f"{len(group.people):,}", *(f"{share:.1%}" for share in both)]
            )
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        kept = given.keep or Path(scratch)
        for one in given.sets:
            name, _, place = one.partition("=")
            root = Path(place)
            if name in given.tight:
                root = on_grey(root, kept / f"grey-{name}")
            photos = photos_in(root) if root.is_dir() else named_photos(root)
            gallery = kept / f"{key}-{name}"
            which = "largest" if root.is_dir() else "centre"
            known = named_faces(photos, gallery, model=given.model, which=which, progress=True)
            rows.append(row(name, gallery, known))
    command = "python benchmarks/cohort.py MODEL --set NAME=FOLDER … --faces FACES.tar …"
    publish(
        f"cohort-{key}",
        f"Galleries as their own cohorts, model {key}",
        table(TITLES, rows),
        command,
        PACKAGES,
    )
    if alone:
        publish(
            f"strangers-{key}",
            f"Different people who are grouped with somebody, model {key}",
            table(("faces of different people", "faces", "grouped, before", "now"), alone),
            command,
            PACKAGES,
        )


if __name__ == "__main__":
    main()
