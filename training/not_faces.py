"""Collect what MTCNN takes for faces in pictures that hold none, for ``second_opinion.py``.

    python training/not_faces.py FOLDER... --without people --out not-faces.npz

Each picture is searched as it is and in four views, turned, scaled and partly without colour, with
thresholds so low that every picture gives some examples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.encoding.align import cut_faces
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.photos.discover import find_photos
from face2vec.runtime.select import Runtime
from face2vec.types import Photo

THRESHOLDS, SMALLEST = (0.45, 0.12, 0.04), 28
LONGEST, VIEWS = 700, 4
CROP = ModelDescription("not-faces", 1, 64, "landmarks", template=FIVE_POINTS)


def views(picture: Image.Image, rng: np.random.Generator) -> list[np.ndarray]:
    """A picture on a ground of one colour, and turned and scaled."""
    picture.thumbnail((LONGEST, LONGEST))
    ground = Image.new("RGBA", picture.size, (*(int(v) for v in rng.integers(60, 256, 3)), 255))
    whole = Image.alpha_composite(ground, picture).convert("RGB")
    some = [np.asarray(whole)]
    for _ in range(VIEWS):
        fill = tuple(int(v) for v in rng.integers(0, 256, 3))
        view = whole.rotate(
            rng.uniform(0, 360), Image.Resampling.BILINEAR, expand=rng.random() < 0.5,
            fillcolor=fill,
        )  # fmt: skip
        low, high = (0.4, 1.0) if max(whole.size) > LONGEST * 0.7 else (0.6, 2.0)
        scale = rng.uniform(low, high)
        size = [max(40, int(side * scale)) for side in view.size]
        view = view.resize((size[0], size[1]))
        if rng.random() < 0.3:
            view = view.convert("L").convert("RGB")
        some.append(np.asarray(view))
    return some


def main() -> None:
    """Search the pictures, and write the crops."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--without", nargs="*", default=[], help="names of folders to leave out")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    settings = DetectorSettings(thresholds=THRESHOLDS, min_face_size=SMALLEST)
    detector = Mtcnn(settings, Runtime("onnxruntime"))
    crops, confidences, sources = [], [], []
    for number, found in enumerate(find_photos(given.folders)):
        path = Path(found.folder) / found.name
        if set(given.without) & set(path.parts):
            continue
        try:
            picture = Image.open(path).convert("RGBA")
        except OSError:
            continue
        for view in views(picture, np.random.default_rng(number)):
            faces = detector.detect([view])[0]
            photo = Photo(str(path), view, view.shape[1], view.shape[0])
            crops.append(cut_faces(photo, faces, CROP)[1])
            confidences += [face.confidence for face in faces]
            sources += [path.name] * len(faces)
    np.savez(given.out, crops=np.concatenate(crops), conf=confidences, src=sources)


if __name__ == "__main__":
    main()
