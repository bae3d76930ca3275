"""Same person or not, with one face by an older model and the other by a newer one.

    python benchmarks/upgrade.py LFW LFW_GALLERY LEARN_GALLERY --model NEWER

Copies of the two galleries, which are of one and the same older model, are upgraded to the newer
one. The map is learned from faces of LEARN_GALLERY, which should be of other people than LFW's, and
measured on LFW's View 2: one photo of each pair by the older model and mapped, the other by the
newer.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from numpy.typing import NDArray

from face2vec import Face2Vec
from face2vec.evaluation.metrics import Folds, ten_folds
from face2vec.evaluation.sets import NamedFaces, Pair, lfw_pairs, named_faces, photos_in
from face2vec.gallery.gallery import Gallery
from face2vec.ingest.embedding_map import learn_map

SAMPLES = (500, 2000, 8000)
PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")

Vectors = NDArray[np.float32]


def by_both(gallery: Path, model: str) -> tuple[NDArray[np.int64], Vectors, Vectors]:
    """Faces of a gallery with their older and newer embeddings."""
    with Gallery.open(gallery) as opened, opened.read() as now:
        ids = np.concatenate([some for some, _ in now])
        older = now.embeddings(ids)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(gallery, Path(folder) / "gallery"))
        with Face2Vec(copy) as engine:
            done = engine.upgrade(model, progress=True)
        if not done.switched:
            raise SystemExit(f"{len(done.missing)} photos of {gallery} are not there any more")
        with Gallery.open(copy) as opened, opened.read() as now:
            return ids, older, now.embeddings(ids)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("lfw", type=Path)
    parser.add_argument("lfw_gallery", type=Path)
    parser.add_argument("learn_gallery", type=Path)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()

    faces = named_faces(photos_in(given.lfw), given.lfw_gallery)
    ids, older, newer = by_both(given.lfw_gallery, given.model)
    rows = np.searchsorted(ids, faces.ids)
    older, newer = older[rows], newer[rows]
    _, known_older, known_newer = by_both(given.learn_gallery, given.model)
    pairs = lfw_pairs(given.lfw)

    def accuracy(first: Vectors, second: Vectors) -> str:
        found = view_2(faces, first, second, pairs)
        return f"{found.mean:.2%} ± {found.standard_error:.2%}"

    drawn = np.random.default_rng(0).permutation(len(known_older))
    figures = []
    for sample in SAMPLES:
        some = drawn[:sample]
        learned, how_well = learn_map(known_older[some], known_newer[some])
        mapped = learned(older)
        figures.append(
            [f"{len(some):,}", f"{how_well.cosine:.3f}", f"{how_well.found:.1%}",
             accuracy(mapped, newer), accuracy(mapped, mapped)]
        )  # fmt: skip
    body = (
        table(("learned from", "cosine, held out", "rank-1, mapped to new",
               "View 2: mapped against new", "both mapped"), figures)
        + f"\n\nBoth by the older model: {accuracy(older, older)}; both by the newer: "
        f"{accuracy(newer, newer)}."
    )  # fmt: skip
    with Gallery.open(given.lfw_gallery) as opened:
        key = opened.fingerprint.model.key
    newer_key = Path(given.model).stem
    publish(
        "upgrade",
        f"From `{key}` to `{newer_key}`: same person or not, LFW",
        body,
        f"python benchmarks/upgrade.py LFW LFW_GALLERY CELEBA_GALLERY --model {newer_key}",
        PACKAGES,
    )


def view_2(faces: NamedFaces, first: Vectors, second: Vectors, pairs: list[Pair]) -> Folds:
    """Ten folds, the first photo of each pair by one embedding and the other by the other."""
    rows = {photo: row for row, photo in enumerate(faces.photos)}
    similarities = np.array(
        [
            first[rows[one.first]] @ second[rows[one.second]]
            if one.first in rows and one.second in rows
            else np.nan
            for one in pairs
        ],
        np.float32,
    )
    same = np.array([one.same for one in pairs])
    return ten_folds(similarities, same, np.array([one.fold for one in pairs]))


if __name__ == "__main__":
    main()
