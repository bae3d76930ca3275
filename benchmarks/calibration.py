"""Are stated probabilities and false matches so? Fitted on half of the people, counted on others.

    python benchmarks/calibration.py CELEBA_FOLDER LFW_FOLDER --model mini \
        --gallery indexes/celeba --more indexes/lfw

Half of CelebA's people are fitted on. Of each of the others who has two photos or more, one is
asked about, and a gallery holds another one of it, so that one face is expected to be found, as
is stated. The gallery is filled up with single photos of strangers: of the other half, then of
the people fitted on (whom nobody asks about), then of LFW.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import arguments, publish, table

from face2vec.calibration import fit
from face2vec.evaluation.metrics import all_pairs
from face2vec.evaluation.sets import named_faces, photos_in, photos_listed

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
SIZES = (1_000, 10_000)
FARS = (1e-2, 1e-3, 1e-4)
MATCHES = 10
BINS = 15


def expected_calibration_error(stated: np.ndarray, truth: np.ndarray) -> float:
    """Guo et al., On Calibration of Modern Neural Networks, 2017, section 2."""
    place = np.minimum((stated * BINS).astype(int), BINS - 1)
    apart = (abs(stated[place == n].sum() - truth[place == n].sum()) for n in range(BINS))
    return sum(apart) / len(stated)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("celeba", type=Path)
    parser.add_argument("lfw", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--more", type=Path, required=True, help="gallery of LFW")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faces = named_faces(photos_listed(given.celeba / "identity.txt"), given.gallery,
                        model=given.model, progress=True)  # fmt: skip
    more = named_faces(photos_in(given.lfw), given.more, model=given.model, progress=True)
    rng = np.random.default_rng(given.seed)
    ours = rng.random(len(faces.names)) < 0.5  # people that are fitted on
    known = np.flatnonzero(ours[faces.people])
    pairs = all_pairs(faces.embeddings[known], faces.people[known], highest_far=0)
    calibration = fit(pairs.genuine, pairs.impostor, model=faces.model, weights=faces.weights,
                      data="half of CelebA's people", people=int(ours.sum()))  # fmt: skip

    asked, mates, strangers = [], [], []
    for person in np.flatnonzero(~ours):
        rows = rng.permutation(np.flatnonzero(faces.people == person))
        if len(rows) > 1:
            asked.append(rows[0])
            mates.append(rows[1])
        elif len(rows):
            strangers.append(rows[0])
    others = np.concatenate(
        [faces.embeddings[strangers], faces.embeddings[rng.permutation(known)],
         more.embeddings[rng.permutation(len(more.embeddings))]]
    )  # fmt: skip
    rows = []
    for size in SIZES:
        queries = rng.permutation(len(asked))[: size // 2]
        gallery = np.concatenate(
            [faces.embeddings[np.array(mates)[queries]], others[: size - len(queries)]]
        )
        similar = (faces.embeddings[np.array(asked)[queries]] @ gallery.T).astype(np.float64)
        right = np.arange(size) == np.arange(len(queries))[:, None]
        best = np.argpartition(-similar, MATCHES, axis=1)[:, :MATCHES]
        stated = calibration.probability(np.take_along_axis(similar, best, 1), 1 / size)
        error = expected_calibration_error(
            stated.ravel(), np.take_along_axis(right, best, 1).ravel()
        )
        counts = []
        for far in FARS:
            counted = ((similar >= calibration.threshold(far)) & ~right).sum() / len(queries)
            expected = (size - 1) * far
            counts.append(f"{expected:.2f} / {counted:.2f}")
        rows.append([f"{size:,}", f"{len(queries):,}", f"{error:.4f}", *counts])
    publish(
        f"calibration-{faces.model}",
        f"Stated and counted, model {faces.model}, fitted on {int(ours.sum()):,} people",
        table(
            ["faces in the gallery", "photos asked about",
             f"expected calibration error ({MATCHES} matches each)",
             *(f"false matches a photo, FAR {far:g}: stated / counted" for far in FARS)],
            rows,
        ),
        "python benchmarks/calibration.py CELEBA LFW …",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
