"""How often the nearest face is the right one: rank-1 on CelebA and LFW, and LFW's View 2.

    python benchmarks/recognition.py celeba CELEBA_FOLDER --gallery indexes/celeba
    python benchmarks/recognition.py lfw LFW_FOLDER --gallery indexes/lfw

CELEBA_FOLDER holds ``images/`` and ``identity.txt`` (a file name and a person a line);
LFW_FOLDER holds ``images/NAME/NAME_0001.jpg`` and ``pairs.txt``. Neither comes with face2vec.
What the gallery does not have yet is added first. ``face2vec evaluate`` says more; this
writes the tables that the documents quote.

Each photo stands for one face: the one nearest its centre. Photos in which none was
found count as misses in every figure; how many there are is said.
"""

from __future__ import annotations

from pathlib import Path

from common import arguments, publish, table

from face2vec.evaluation.identification import identify
from face2vec.evaluation.report import pairs_report
from face2vec.evaluation.sets import lfw_pairs, named_faces, photos_in, photos_listed

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy", "faiss-cpu")
TITLES = {"celeba": "CelebA subset", "lfw": "Labeled Faces in the Wild"}


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("set", choices=TITLES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--name", help="of the table, where it is not the set's usual one")
    given = parser.parse_args()
    lfw = given.set == "lfw"
    photos = photos_in(given.folder) if lfw else photos_listed(given.folder / "identity.txt")
    faces = named_faces(photos, given.gallery, model=given.model, progress=True)
    found = identify(faces.embeddings, faces.people, faces.counts)
    right = int((found.ranks == 1).sum())
    rows = [
        ["photos, people", f"{faces.counts.sum():,}, {len(faces.names):,}"],
        ["photos without a detected face", f"{faces.without_face:,}"],
        ["probes (photos whose person has another photo)", f"{found.asked:,}"],
        ["nearest other photo shows the same person (rank-1)",
         f"**{found.within(1):.1%}** ({right:,})"],
        ["… of probes with a detected face", f"{right / len(found.ranks):.1%}"],
    ]  # fmt: skip
    if lfw:
        about = pairs_report("", faces, lfw_pairs(given.folder)).figures
        (at,) = (one for one in about["tar"] if one["far"] == 1e-3)
        rows += [
            ["View 2 accuracy, ten folds ± standard error",
             f"**{about['view_2_accuracy']:.2%} ± {about['view_2_standard_error']:.2%}**"],
            ["… pairs with a photo without a face, counted as wrong",
             about["view_2_pairs_without_a_face"]],
            [f"TAR at FAR 1e-3, all {about['genuine_pairs']:,} genuine and "
             f"{about['impostor_pairs']:,} impostor pairs (95 % over people)",
             f"**{at['tar']:.1%}** ({at['low']:.1%} to {at['high']:.1%})"],
        ]  # fmt: skip
    publish(
        given.name or f"recognition-{given.set}",
        f"{TITLES[given.set]}, model {faces.model}",
        table(["", ""], rows),
        f"python benchmarks/recognition.py {given.set} …",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
