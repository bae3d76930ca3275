"""Faces turned in the plane: found, and upright, by each detector.

    python benchmarks/turned.py LFW_FOLDER

Every photo is turned about its middle, on a grey ground of the same size. A face counts as found
if it is within 40 pixels of the middle, where the person of an LFW photo is, and as upright if its
angle is within 20 degrees of that of the face that the detector finds in the photo as it is.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from build import chosen
from common import arguments, publish, table
from PIL import Image

from face2vec.detection.select import named_settings, open_detector
from face2vec.detection.turned import tilt
from face2vec.runtime.select import Runtime
from face2vec.types import Face, nearest_to

PACKAGES = ("face2vec", "onnxruntime", "numpy", "Pillow")
ANGLES = (0, 30, 60, 90, 135, 180)
GREY = (128, 128, 128)
NEAR, UPRIGHT = 40, 20  # pixels, degrees


def of_the_middle(faces: list[Face], size: tuple[int, int]) -> Face | None:
    x, y = size[0] / 2, size[1] / 2
    face = nearest_to(faces, x, y)
    if face is None:
        return None
    left, top, right, bottom = face.box
    return face if math.hypot((left + right) / 2 - x, (top + bottom) / 2 - y) <= NEAR else None


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    given = parser.parse_args()
    photos = [Image.open(path).convert("RGB") for path in chosen(given.folder, given.photos)]
    runtime = Runtime("onnxruntime")
    rows = []
    for name in ("mtcnn", "yunet"):
        for choice in ("never", "auto"):
            detector = open_detector(named_settings(name, try_turned=choice), runtime)
            straight = [
                of_the_middle(detector.detect([np.asarray(photo)])[0], photo.size)
                for photo in photos
            ]
            for angle in ANGLES:
                found = upright = faces = 0
                started = time.perf_counter()
                for photo, before in zip(photos, straight, strict=True):
                    turned = photo.rotate(angle, Image.Resampling.BICUBIC, fillcolor=GREY)
                    all_of_them = detector.detect([np.asarray(turned)])[0]
                    faces += len(all_of_them)
                    face = of_the_middle(all_of_them, photo.size)
                    if face is None or before is None:
                        continue
                    found += 1
                    left = math.degrees(tilt(face) - tilt(before)) + angle
                    upright += abs(math.remainder(left, 360)) <= UPRIGHT
                took = (time.perf_counter() - started) / len(photos)
                shares = [f"{100 * count / len(photos):.1f} %" for count in (found, upright)]
                rows.append([name, choice, f"{angle}°", *shares,
                             f"{faces / len(photos):.2f}", f"{1000 * took:.0f}"])  # fmt: skip
    publish(
        "turned",
        f"{len(photos)} LFW photos turned in the plane",
        table(["detector", "try turned", "turned by", "found", "found and upright",
               "faces a photo", "ms a photo, one thread"], rows),
        f"python benchmarks/turned.py LFW_FOLDER --photos {given.photos}",
        PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
