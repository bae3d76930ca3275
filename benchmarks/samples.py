"""Whether drawn people serve as people: found, told apart, and nobody's copy.

    python benchmarks/samples.py --model MODEL --faces TRAIN_FACES.tar

MODEL is an embedding model that knows real faces. TRAIN_FACES.tar is what
``training/sample_faces.py`` made the face model of; without it the last part is left out.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from common import arguments, overlap, publish, table
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.types import Face

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy", "Pillow")
ENOUGH = 0.5  # overlap (intersection over union) at which a face counts as found
# The aligned crop of the training faces stands in the middle of a grey frame of this many pixels,
# so that the detector, which saw photos, sees a face that does not fill everything.
FRAME = 40


def matched(photo: samples.SamplePhoto, found: list[Face]) -> list[Face | None]:
    """The found face of each drawn one, each found face at most once."""
    left = list(found)
    out: list[Face | None] = []
    for drawn in photo.faces:
        best = max(left, key=lambda face: overlap(face.box, drawn.box), default=None)
        if best is None or overlap(best.box, drawn.box) < ENOUGH:
            out.append(None)
        else:
            left.remove(best)
            out.append(best)
    return out


def found_rows(photos: list[samples.SamplePhoto], found: list[list[Face]], words: str):
    """A row of the table, and the overlaps and landmark distances of the faces found."""
    drawn = sum(len(photo.faces) for photo in photos)
    overlaps, distances, extra = [], [], 0
    for photo, faces in zip(photos, found, strict=True):
        pairs = matched(photo, faces)
        extra += len(faces) - sum(face is not None for face in pairs)
        for truth, face in zip(photo.faces, pairs, strict=True):
            if face is not None:
                overlaps.append(overlap(truth.box, face.box))
                away = np.asarray(face.landmarks).reshape(5, 2) - truth.landmarks
                wide = truth.box[2] - truth.box[0]
                distances.append(np.hypot(*away.T).mean() / wide)
    return [
        words,
        drawn,
        f"**{len(overlaps) / drawn:.1%}**",
        extra,
        f"{np.median(overlaps):.2f}",
        f"{np.median(distances):.1%}",
    ]


def training_faces(archive: Path, count: int) -> list[np.ndarray]:
    """Every so-many-th training face in a frame."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.endswith(".webp") and not m.name.startswith("glint")]
        chosen = members[:: max(1, len(members) // count)][:count]
        out = []
        for member in chosen:
            with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:
                face = np.asarray(image.convert("RGB"))
            out.append(np.pad(face, ((FRAME, FRAME), (FRAME, FRAME), (0, 0)), constant_values=110))
    return out


def nearest(queries: np.ndarray, gallery: np.ndarray, itself: bool) -> np.ndarray:
    """Cosine to the most similar face of the gallery; faces are not their own nearest."""
    similar = queries @ gallery.T
    if itself:
        np.fill_diagonal(similar, -1)
    return similar.max(1)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--photos", type=int, default=5, help="of each person")
    parser.add_argument("--groups", type=int, default=60, help="photos of two to eight people")
    parser.add_argument("--faces", type=Path, help="the archive of training faces")
    parser.add_argument("--training-faces", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="samples", help="of the table")
    given = parser.parse_args()
    engine = Face2Vec(model=given.model)
    people = samples.people(given.people, given.seed)

    single = [person.photo(number) for person in people for number in range(given.photos)]
    groups = [
        samples.group_photo([people[(7 * n + i) % len(people)] for i in range(2 + n % 7)], n)
        for n in range(given.groups)
    ]
    found = list(engine.bulk_encode([photo.jpeg() for photo in single]))
    found_groups = list(engine.bulk_encode([photo.jpeg() for photo in groups]))
    head = ["", "faces drawn", f"found (overlap ≥ {ENOUGH})", "found besides",
            "overlap, median", "landmarks off, median, of the width"]  # fmt: skip
    body = table(
        head,
        [
            found_rows(single, found, "one person"),
            found_rows(groups, found_groups, "two to eight people"),
        ],
    )

    faces = [matched(photo, at)[0] for photo, at in zip(single, found, strict=True)]
    names = np.array([photo.faces[0].person for photo in single])
    have = np.array([face is not None for face in faces])
    drawn = np.stack([face.embedding for face in faces if face is not None])
    similar = drawn @ drawn.T
    same = names[have][:, None] == names[have][None, :]
    off = ~np.eye(len(drawn), dtype=bool)
    np.fill_diagonal(similar, -1)
    right = (names[have][similar.argmax(1)] == names[have]).sum()
    order = [5, 50, 95]
    own, other = similar[same & off], similar[~same]
    told = [
        ["nearest other photo shows the same person (rank-1)", f"**{right / len(single):.1%}**"],
        ["cosine of two photos of one person, 5 %, median, 95 %",
         ", ".join(f"{v:.2f}" for v in np.percentile(own, order))],
        ["cosine of photos of two people, 5 %, median, 95 %",
         ", ".join(f"{v:.2f}" for v in np.percentile(other, order))],
    ]  # fmt: skip
    body += f"\n\n{given.people} people, {given.photos} photos each:\n\n" + table(["", ""], told)

    if given.faces is not None:
        framed = training_faces(given.faces, given.training_faces)
        embedded = [at[0].embedding for at in engine.bulk_encode(framed) if at]
        real = np.stack(embedded)
        some = drawn[:: max(1, given.photos)]
        percents = [5, 50, 95, 99, 100]
        rows = [
            [words, *(f"{v:.2f}" for v in np.percentile(values, percents))]
            for words, values in (
                ("a drawn person", nearest(some, real, False)),
                ("a training face, the others", nearest(real, real, True)),
            )
        ]
        body += f"\n\nCosine to the most similar of {len(real)} training faces:\n\n" + table(
            ["from", "5 %", "median", "95 %", "99 %", "most"], rows
        )
    publish(
        given.name,
        f"Drawn people, model {Path(given.model).stem}",
        body,
        "python benchmarks/samples.py --model MODEL --faces TRAIN_FACES.tar",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
