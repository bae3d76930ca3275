"""How often the nearest face is the right one: rank-1 on CelebA and LFW, and LFW's View 2.

    python benchmarks/recognition.py celeba CELEBA_FOLDER --gallery indexes/celeba
    python benchmarks/recognition.py lfw LFW_FOLDER --gallery indexes/lfw

Build the gallery first: ``face2vec index CELEBA_FOLDER/images --gallery indexes/celeba``.
CELEBA_FOLDER holds ``images/`` and ``identity.txt`` (a file name and a person a line);
LFW_FOLDER holds ``images/NAME/NAME_0001.jpg`` and ``pairs.txt``. Neither comes with face2vec.

Each photo stands for one face: the one nearest its centre. Photos in which none was
found count as misses in every figure; how many there are is said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import arguments, publish, table
from numpy.typing import NDArray

from face2vec.gallery import Gallery

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy", "faiss-cpu")


def centre_faces(gallery: Gallery, paths: list[Path]) -> dict[Path, NDArray[np.float32]]:
    """Embedding of the face nearest the centre of each photo that has one."""
    import PIL.Image

    found = {}
    for path in paths:
        stored = gallery.faces_of(path)
        if stored:
            with PIL.Image.open(path) as image:
                middle = image.width / 2, image.height / 2

            def distance(face, middle=middle):
                left, top, right, bottom = face.face.box
                return np.hypot((left + right) / 2 - middle[0], (top + bottom) / 2 - middle[1])

            found[path] = min(stored, key=distance).face.embedding
    return found


def rank_1(people: dict[Path, str], faces: dict[Path, NDArray[np.float32]]) -> dict[str, object]:
    """Whether the nearest other photo is of the same person, for all who have another."""
    photos = list(faces)
    matrix = np.stack([faces[photo] for photo in photos])
    labels = np.array([people[photo] for photo in photos])
    counts: dict[str, int] = {}
    for person in people.values():
        counts[person] = counts.get(person, 0) + 1
    asked = [photo for photo in people if counts[people[photo]] > 1]
    right, wrong = 0, []
    rows = {photo: row for row, photo in enumerate(photos)}
    for photo in asked:
        if photo not in rows:
            continue
        row = rows[photo]
        similar = matrix @ matrix[row]
        similar[row] = -2
        best = int(similar.argmax())
        if labels[best] == labels[row]:
            right += 1
        else:
            own = similar[labels == labels[row]].max()
            wrong.append((float(similar[best]), float(own), photo, photos[best]))
    missing = sum(photo not in rows for photo in asked)
    return {"asked": len(asked), "right": right, "missing": missing, "wrong": wrong}


def view_2(folder: Path, faces: dict[Path, NDArray[np.float32]]) -> tuple[float, float, int]:
    """Accuracy in ten folds, threshold chosen on the other nine; its standard error; misses."""
    lines = (folder / "pairs.txt").read_text(encoding="utf-8").split("\n")
    folds, half = (int(v) for v in lines[0].split())

    def photo(name: str, number: str) -> Path:
        return folder / "images" / name / f"{name}_{int(number):04d}.jpg"

    similarity, same = [], []
    for line in lines[1 : 1 + folds * half * 2]:
        cells = line.split("\t")
        if len(cells) == 3:
            a, b = photo(cells[0], cells[1]), photo(cells[0], cells[2])
        else:
            a, b = photo(cells[0], cells[1]), photo(cells[2], cells[3])
        both = a in faces and b in faces
        similarity.append(float(faces[a] @ faces[b]) if both else np.nan)
        same.append(len(cells) == 3)
    scores = np.array(similarity).reshape(folds, -1)
    truth = np.array(same).reshape(folds, -1)
    accuracy = []
    for fold in range(folds):
        others = np.arange(folds) != fold
        known = ~np.isnan(scores[others])
        candidates = np.sort(scores[others][known])
        best = max(
            candidates[:: max(1, len(candidates) // 2000)],
            key=lambda t: ((scores[others] >= t) == truth[others])[known].mean(),
        )
        right = ((scores[fold] >= best) == truth[fold]) & ~np.isnan(scores[fold])
        accuracy.append(right.mean())
    error = np.std(accuracy, ddof=1) / np.sqrt(folds)
    return float(np.mean(accuracy)), float(error), int(np.isnan(scores).sum())


def true_accept_rate(
    people: dict[Path, str], faces: dict[Path, NDArray[np.float32]], far: float
) -> tuple[float, int, int]:
    """Share of all pairs of one person above the similarity that ``far`` of the others reach.

    Pairs with a photo without a face are not above anything. With it, the numbers of pairs of
    one person and of two people.
    """
    photos = list(faces)
    matrix = np.stack([faces[photo] for photo in photos])
    labels = np.unique([people[photo] for photo in photos], return_inverse=True)[1]
    same, other = [], []
    for start in range(0, len(photos), 512):
        part = slice(start, start + 512)
        later = np.arange(len(photos)) > np.arange(len(photos))[part, None]
        alike = labels[part, None] == labels
        similar = matrix[part] @ matrix.T
        same.append(similar[alike & later])
        other.append(similar[~alike & later])
    genuine, impostor = np.concatenate(same), np.concatenate(other)
    threshold = np.partition(impostor, -int(far * len(impostor)))[-int(far * len(impostor))]
    counts: dict[str, int] = {}
    for person in people.values():
        counts[person] = counts.get(person, 0) + 1
    pairs = sum(n * (n - 1) // 2 for n in counts.values())
    return float((genuine > threshold).sum() / pairs), pairs, len(impostor)


def failures_page(wrong: list[tuple[float, float, Path, Path]], path: Path) -> None:
    """A picture of the worst failures: the photo asked about above the one that was nearest."""
    from matplotlib.figure import Figure
    from PIL import Image

    worst = sorted(wrong, reverse=True)[:16]
    figure = Figure(figsize=(16, 9))
    for place, (best, own, photo, other) in enumerate(worst):
        for row, (name, note) in enumerate(((photo, f"own {own:.2f}"), (other, f"{best:.2f}"))):
            axes = figure.add_subplot(4, 8, place % 8 + 1 + 8 * (2 * (place // 8) + row))
            axes.imshow(Image.open(name))
            axes.set_title(f"{name.stem[:18]}\n{note}", fontsize=7)
            axes.axis("off")
    figure.savefig(path)


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("set", choices=("celeba", "lfw"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--failures", type=Path, help="write a picture of the worst failures here")
    parser.add_argument("--name", help="of the table, where it is not the set's usual one")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if given.set == "celeba":
        lines = (folder / "identity.txt").read_text(encoding="utf-8").split("\n")
        people = {folder / "images" / c[0]: c[1] for c in map(str.split, lines) if len(c) == 2}
    else:
        people = {path: path.parent.name for path in sorted(folder.glob("images/*/*.jpg"))}
    with Gallery.open(given.gallery) as gallery:
        model = gallery.fingerprint["model"]["key"]
        faces = centre_faces(gallery, list(people))
    found = rank_1(people, faces)
    asked, right, missing = found["asked"], found["right"], found["missing"]
    rows = [
        ["photos", len(people)],
        ["photos in which no face was found", len(people) - len(faces)],
        ["photos asked about (their person has another)", asked],
        [
            "nearest other photo is of the same person (rank-1)",
            f"**{right / asked:.1%}** ({right})",
        ],
        ["… of those asked in which a face was found", f"{right / (asked - missing):.1%}"],
    ]
    if given.set == "lfw":
        accuracy, error, lost = view_2(folder, faces)
        rows += [
            ["View 2 accuracy, ten folds ± standard error", f"**{accuracy:.2%} ± {error:.2%}**"],
            ["… pairs with a photo without a face, counted as wrong", lost],
        ]
        tar, genuine, impostor = true_accept_rate(people, faces, 1e-3)
        rows.append(
            [
                f"TAR at FAR 1e-3, all {genuine:,} pairs of one person and {impostor:,} of two",
                f"**{tar:.1%}**",
            ]
        )
    if given.failures:
        failures_page(found["wrong"], given.failures)
    title = {"celeba": "CelebA subset", "lfw": "Labeled Faces in the Wild"}[given.set]
    publish(
        given.name or f"recognition-{given.set}",
        f"{title}, model {model}",
        table(["", ""], rows),
        f"python benchmarks/recognition.py {given.set} …",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
