"""Faces as COCO JSON: images, annotations with boxes and five keypoints, and people as categories.

The form is that of the COCO data set (cocodataset.org, "Data format"), which FiftyOne, CVAT and
pycocotools read. Boxes and keypoints are in pixels of the upright photo.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from face2vec.files import composed, writing, written_whole
from face2vec.gallery.marked import marked_faces
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import NAME_ONLY, UNREADABLE, decoded
from face2vec.report.matches import LANDMARK_NAMES
from face2vec.types import Box, Mark, Person

SUFFIX = ".coco.json"
FACE = "face"
"""Name of the category of faces without a named person; its number is 1."""
_LABELLED, _MISSING = 2, 0  # of a keypoint
_PAGE = 1000


def save_coco(file: Path, now: Snapshot) -> int:
    """Write the photos and faces of a gallery, atomically; returns how many faces.

    Photos that could not be read are left out, and faces whose place in the photo is not known. A
    photo with copies is an image for each of them. Faces that were marked by hand have no
    keypoints, and ``mark`` in place of ``face_id``.

    Args:
        file: the file.
        now: the gallery.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    people = now.people()
    category = {face: one.id + 1 for one in people if one.name for face in one.faces}
    marks: dict[str, list[Mark]] = {}
    for marked in marked_faces(now):
        for path in (marked.photo, *marked.copies):
            marks.setdefault(path, []).append(marked.mark)
    named = {one.id for one in people if one.name}
    confirmed = {
        int(face)
        for face, _, said in zip(*(c.tolist() for c in now.memberships()), strict=True)
        if said
    }
    root = _common_root(now)
    head = {
        "info": {"description": "Faces of a face2vec gallery", "version": "1.0", "root": root},
        "licenses": [],
        "categories": _categories(people),
    }
    faces = 0
    with writing(file), written_whole(file) as stream:
        stream.write(json.dumps(head).encode()[:-1] + b', "images": [')
        images = (
            {"id": number, "file_name": _name(path, root), "width": size[0], "height": size[1]}
            for number, (path, size) in enumerate(_images(now), 1)
        )
        _write_all(stream, images)
        stream.write(b'], "annotations": [')
        faces = _write_all(stream, _annotations(now, category, confirmed, marks, named))
        stream.write(b"]}\n")
    return faces


def _write_all(stream: IO[bytes], values: Iterator[dict[str, Any]]) -> int:
    count = 0
    for count, value in enumerate(values, 1):
        stream.write((b",\n" if count > 1 else b"\n") + json.dumps(value).encode())
    return count


def _images(now: Snapshot) -> Iterator[tuple[str, tuple[int, int]]]:
    """(full path, (width, height)) of each photo that was read."""
    for root, number in now.roots.items():
        last = b""
        while page := now.photos(number, last, _PAGE):
            for path, size, status, *_ in page:
                full = f"{root}{os.sep}{decoded(path)}"
                pixels = now.size_of(full)
                if size != NAME_ONLY and status != UNREADABLE and pixels and all(pixels):
                    yield full, pixels
            last = page[-1][0]


def _common_root(now: Snapshot) -> str:
    """The deepest folder that all photos are in; empty if there is none, as on several drives."""
    try:
        return os.path.commonpath([root or os.sep for root in now.roots])
    except ValueError:
        return ""


def _name(path: str, root: str) -> str:
    """The path of a photo relative to the common folder, with slashes; else the full path."""
    return Path(os.path.relpath(path, root) if root else path).as_posix()


def _categories(people: list[Person]) -> list[dict[str, Any]]:
    common = {"supercategory": "person", "keypoints": list(LANDMARK_NAMES), "skeleton": []}
    found = [{"id": 1, "name": FACE, **common}]
    for one in sorted(people, key=lambda person: person.id):
        if one.name:
            # Readers look categories up by name, so that of the unnamed must be the only one.
            taken = composed(one.name) == FACE
            name = f"{one.name} (person {one.id})" if taken else one.name
            found.append({"id": one.id + 1, "name": name, **common})
    return found


def _annotations(
    now: Snapshot,
    category: dict[int, int],
    confirmed: set[int],
    marks: dict[str, list[Mark]],
    named: set[int],
) -> Iterator[dict[str, Any]]:
    number = 0
    for image, (path, size) in enumerate(_images(now), 1):
        for one in now.faces_of(path).records():
            box = _inside(one.face.box, size)
            if one.face.id is None or not one.face.is_placed or box is None:
                continue
            number += 1
            points = [value for point in one.face.landmarks for value in _keypoint(point, size)]
            yield {
                "id": number,
                "image_id": image,
                "category_id": category.get(one.face.id, 1),
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "segmentation": [],
                "keypoints": points,
                "num_keypoints": sum(value == _LABELLED for value in points[2::3]),
                "score": round(one.face.confidence, 6),
                "face_id": one.face.id,
                "confirmed": one.face.id in confirmed,
                **({} if one.face.quality is None else {"quality": round(one.face.quality, 6)}),
            }
        for mark in marks.get(path, ()):
            box = _inside(mark.box, size)
            if box is None:
                continue
            number += 1
            yield {
                "id": number,
                "image_id": image,
                "category_id": mark.person + 1 if mark.person in named else 1,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "segmentation": [],
                "keypoints": [0, 0, _MISSING] * len(LANDMARK_NAMES),
                "num_keypoints": 0,
                "mark": mark.id,
                "confirmed": mark.person is not None,
            }


def _inside(box: Box, size: tuple[int, int]) -> list[float] | None:
    """(left, top, width, height) of the part of a box that is in the photo; None if none is."""
    left, right = (min(max(box[n], 0), size[0]) for n in (0, 2))
    top, bottom = (min(max(box[n], 0), size[1]) for n in (1, 3))
    if left >= right or top >= bottom:
        return None
    return [round(value, 2) for value in (left, top, right - left, bottom - top)]


def _keypoint(point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float, int]:
    """(x, y, 2), or zeros for a point outside of the photo, as COCO has it."""
    x, y = point
    if 0 <= x <= size[0] and 0 <= y <= size[1]:
        return round(x, 2), round(y, 2), _LABELLED
    return 0, 0, _MISSING
