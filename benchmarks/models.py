"""True accept rates of several models on the same faces, set by set.

    python benchmarks/models.py MODEL … --set NAME=FOLDER … --tight NAME … --keep GALLERIES

For each set of known people and each model, the share of pairs of one person whose similarity is
above that of all but one in a thousand pairs of different people of the set, and, of lists of
photos and people (CelebA), how often the nearest other photo shows the same person. Where
``labels.csv`` says which faces are in profile or masked, pairs of each kind are counted, too, at
the threshold of the whole set. The faces of the first model are taken for all: galleries are copied
and upgraded.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from fairness import labels, on_grey

from face2vec import Face2Vec
from face2vec.evaluation.identification import identify
from face2vec.evaluation.metrics import PairScores, all_pairs
from face2vec.evaluation.sets import NamedFaces, named_faces, named_photos, photos_in
from face2vec.models import load_model

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
FAR, LOWER_FAR = 1e-3, 1e-4
LARGE = 5000  # faces from which the rate at 1e-4 is given too


def pairs_and_threshold(faces: NamedFaces, far: float) -> tuple[PairScores, float]:
    """All pairs, and the similarity that is a false accept rate of these faces themselves."""
    pairs = all_pairs(faces.embeddings, faces.people, faces.counts, highest_far=0)
    return pairs, float(pairs.impostor[int(far * len(pairs.impostor))])


def accepted(faces: NamedFaces, far: float) -> float:
    """TAR at a false accept rate of these faces themselves."""
    pairs, threshold = pairs_and_threshold(faces, far)
    return float((pairs.genuine > threshold).mean())


def figure(faces: NamedFaces, listed: bool) -> str:
    if listed:
        found = identify(faces.embeddings, faces.people, faces.counts)
        return f"{found.within(1):.1%}"
    words = f"{accepted(faces, FAR):.1%}"
    if len(faces.people) >= LARGE:
        words += f" / {accepted(faces, LOWER_FAR):.1%}"
    return words


def kinds_of_pairs(folder: Path, faces: NamedFaces) -> dict[str, str]:
    """TAR of pairs by the poses, or the masks, of their two faces."""
    found: dict[str, str] = {}
    for column, values in labels(folder, faces.photos):
        if column not in ("pose", "mask"):
            continue
        above = faces.embeddings @ faces.embeddings.T > pairs_and_threshold(faces, FAR)[1]
        genuine = np.triu(faces.people[:, None] == faces.people, 1)
        for one, other in itertools.combinations_with_replacement(np.unique(values), 2):
            kind = (values[:, None] == one) & (values == other)
            found[f"{one} and {other}"] = f"{above[genuine & (kind | kind.T)].mean():.1%}"
    return found


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--tight", action="append", default=[], metavar="NAME")
    parser.add_argument("--keep", type=Path, help="keep the galleries of the sets there")
    given = parser.parse_args()
    keys = [load_model(model).description.key for model in given.models]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        kept = given.keep or Path(scratch)
        for one in given.sets:
            name, _, place = one.partition("=")
            root = Path(place)
            if name in given.tight:
                root = on_grey(root, kept / f"grey-{name}")
            listed = not root.is_dir()
            photos = named_photos(root) if listed else photos_in(root)
            which = "centre" if listed else "largest"
            cells, kinds = [], []
            for model, key in zip(given.models, keys, strict=True):
                gallery = kept / f"{key}-{name}"
                if not gallery.exists() and model != given.models[0]:
                    shutil.copytree(kept / f"{keys[0]}-{name}", gallery)
                    with Face2Vec(gallery) as engine:
                        engine.upgrade(model)
                faces = named_faces(photos, gallery, model=model, which=which, progress=True)
                cells.append(figure(faces, listed))
                kinds.append({} if listed else kinds_of_pairs(root, faces))
            size = f"{len(faces.people):,}"
            rows.append([f"{name}, rank-1" if listed else name, size, *cells])
            print(rows[-1], flush=True)
            rows += [[f"{name}, {kind}", size, *(one[kind] for one in kinds)] for kind in kinds[0]]
    publish(
        "models",
        "TAR at FAR 1e-3 (for LFW also 1e-4)",
        table(["set", "faces", *keys], rows),
        f"python benchmarks/models.py {' '.join(keys)} --set NAME=FOLDER …",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
