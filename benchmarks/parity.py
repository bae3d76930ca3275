"""Faces that the ``mtcnn`` package finds, and how many of them face2vec finds at the same place.

    python benchmarks/parity.py LFW_FOLDER GROUPS_FOLDER

Needs face2vec[keras]; the photos do not come with face2vec. `mtcnn` looks at one photo at a time,
which is how it loses none; 500 photos of the first folder, all of the second.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from build import chosen
from common import arguments, overlap, publish, table
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.runtime.select import Runtime

PACKAGES = ("face2vec", "tensorflow-cpu", "tensorflow", "mtcnn", "onnxruntime")


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("lfw", type=Path)
    parser.add_argument("groups", type=Path)
    given = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from mtcnn import MTCNN

    theirs = MTCNN()
    ours = Mtcnn(DetectorSettings(max_side=None), Runtime("onnxruntime"))
    overlaps, errors, counts = [], [], [0, 0]
    for path in [*chosen(given.lfw, 500), *sorted(given.groups.glob("*.jpg"))]:
        image = np.asarray(Image.open(path).convert("RGB"))
        rows = theirs.detect_faces(image, output_type="numpy", box_format="xyxy")
        faces = ours.detect([image])[0]
        counts[0] += len(rows)
        counts[1] += len(faces)
        for row in np.asarray(rows):
            if row[5] < 0.9:
                continue
            best = max(faces, key=lambda f: overlap(np.array(f.box), row[1:5]), default=None)
            overlaps.append(0.0 if best is None else overlap(np.array(best.box), row[1:5]))
            if best is not None and overlaps[-1] >= 0.9:
                apart = np.linalg.norm(np.array(best.landmarks) - row[6:].reshape(2, 5).T, axis=1)
                errors.append(apart.max() / (row[3] - row[1]))
    found = np.array(overlaps) >= 0.9
    near = np.array(errors) <= 0.02
    rows = [
        ["faces of `mtcnn` with confidence of 0.9 or more", len(overlaps)],
        ["found with IoU of 0.9 or more", f"**{found.mean():.2%}**"],
        ["… of these, all five landmarks within 2 % of the face's width", f"{near.mean():.2%}"],
        ["median distance of the farthest landmark, in face widths", f"{np.median(errors):.1e}"],
        ["faces in all, of any confidence: `mtcnn`, face2vec", f"{counts[0]}, {counts[1]}"],
    ]
    publish("parity", "Faces found by `mtcnn` 1.0.0 one photo at a time", table(["", ""], rows),
            "python benchmarks/parity.py LFW_FOLDER GROUPS_FOLDER", PACKAGES)  # fmt: skip


if __name__ == "__main__":
    main()
