"""Photos of known people, from folders, lists or LFW's pairs, and their encoded faces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.engine import Face2Vec
from face2vec.errors import SettingsError
from face2vec.evaluation.encoders import EncodedFace, PhotoEncoder
from face2vec.files import composed, expanded, text_of
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.reader import Snapshot
from face2vec.photos.discover import find_photos
from face2vec.photos.extras import VIDEO, kind_by_name
from face2vec.types import Box, Face, largest_sure, nearest_to

Which = Literal["largest", "centre"]
"""Which face of a photo is the named person's."""
PAIRS = "pairs.txt"
IMAGES = "images"
NO_FACE_FOUND = "no face was found"
"""Reason of a photo that could be read."""


class Pair(NamedTuple):
    """Two photos or videos to compare."""

    first: Path
    second: Path
    same: bool
    fold: int


@dataclass(frozen=True, eq=False)
class NamedFaces:
    """One face of each photo.

    Attributes:
        photos: photos with a detected face, in order.
        boxes: boxes of the faces, in pixels of the upright photos.
        ids: int64 (n,), ids of the faces in their gallery.
        embeddings: float32 (n, d), each of unit length, one per photo.
        people: int64 (n,), index of each face's person in ``names``.
        names: names of the people.
        counts: int64 (people,), number of photos of each person, including those without a face.
        model: key of the model that made the embeddings.
        weights: SHA-256 in hexadecimal of the model's weights.
        failed: path of each photo without a detected face or that could not be read, and why.
    """

    photos: tuple[Path, ...]
    boxes: tuple[Box, ...]
    ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    people: NDArray[np.int64]
    names: tuple[str, ...]
    counts: NDArray[np.int64]
    model: str
    weights: str
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def without_face(self) -> int:
        """Number of photos without a detected face, including unreadable photos."""
        return int(self.counts.sum()) - len(self.photos)


class NamedPhotos(NamedTuple):
    """Photos of known people."""

    people: dict[Path, str]
    """The person of each photo, by absolute path."""


def named_photos(people: Path) -> NamedPhotos:
    """Read a folder of people (`photos_in`) or a list (`photos_listed`)."""
    people = Path(expanded(people))
    return photos_in(people) if people.is_dir() else photos_listed(people)


def photos_in(folder: Path) -> NamedPhotos:
    """Read a folder with one folder of photos per person, or its subfolder ``images``; no videos.

    Raises:
        SettingsError: there are fewer than two people.
    """
    root = _images_of(folder)
    people: dict[Path, str] = {}
    for found in find_photos([str(root)]):
        if len(found.path.parts) > 1 and kind_by_name(found.name) != VIDEO:
            people[found.full] = found.path.parts[0]
    return _checked(people, f"{root} has photos", "a folder of photos for each")


def photos_listed(file: Path) -> NamedPhotos:
    """Read a text file with a photo and a person per line, as in CelebA.

    Photos are relative to the file's folder, or to its subfolder ``images``.

    Raises:
        SettingsError: a line has another form, a photo does not exist, or there are fewer than two
            people.
    """
    file = Path(expanded(file))
    root = _images_of(file.resolve().parent)
    people = {}
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if not line.strip():
            continue
        photo, _, person = line.strip().rpartition(" ")
        path = root / photo.strip()
        if not photo or not path.is_file():
            raise SettingsError(f"{file}, line {number}: there is no photo {path}")
        people[Path(os.path.normpath(path))] = person
    return _checked(people, f"{file} lists photos", "a line for each photo")


def _checked(people: dict[Path, str], what: str, needed: str) -> NamedPhotos:
    people = {photo: composed(person) for photo, person in people.items()}
    count = len(set(people.values()))
    if count < 2:
        raise SettingsError(f"{what} of {count} people; it needs {needed} of at least two people")
    return NamedPhotos(people)


def _images_of(folder: Path) -> Path:
    folder = Path(expanded(folder)).resolve()
    return folder / IMAGES if (folder / IMAGES).is_dir() else folder


def lfw_pairs(folder: Path) -> list[Pair]:
    """Read the pairs of LFW's View 2 from ``pairs.txt`` in a folder.

    Its first line has the number of folds and the number of pairs of each kind per fold. The other
    lines are a name and two numbers, or two names each with a number.

    Raises:
        SettingsError: there is no such file, or it has another form.
    """
    file = Path(expanded(folder)).resolve() / PAIRS
    if not file.is_file():
        raise SettingsError(f"{folder} has no {PAIRS}, the list of pairs that LFW compares")
    root = _images_of(folder)
    lines = [line for line in text_of(file).splitlines() if line.strip()]
    try:
        head, *lines = lines or [""]
        folds, half = (int(number) for number in head.split())
        if len(lines) != folds * half * 2:
            raise ValueError(f"it has {len(lines)} pairs")
        return [_pair(root, line.split(), number // (2 * half)) for number, line in
                enumerate(lines)]  # fmt: skip
    except ValueError as error:
        raise SettingsError(f"{file} is not a list of pairs in LFW's form: {error}") from error


def _pair(root: Path, cells: list[str], fold: int) -> Pair:
    if len(cells) == 3:
        name, one, other = cells
        return Pair(_lfw_photo(root, name, one), _lfw_photo(root, name, other), True, fold)
    name, one, other_name, other = cells
    return Pair(_lfw_photo(root, name, one), _lfw_photo(root, other_name, other), False, fold)


def _lfw_photo(root: Path, name: str, number: str) -> Path:
    return root / name / f"{name}_{int(number):04d}.jpg"


def named_faces(
    photos: NamedPhotos,
    gallery: Path | None = None,
    *,
    model: str | Path | None = None,
    which: Which = "centre",
    progress: bool = False,
    **settings: Any,
) -> NamedFaces:
    """Add photos to a gallery and return one face of each.

    Photos that the gallery already has are not encoded again.

    Args:
        photos: the photos with their people.
        gallery: folder of the gallery, created if it does not exist; None for a temporary one.
        model: the model, see `Face2Vec`.
        which: "largest" for the largest sure face; "centre" for the face nearest the centre, which
            is the named person's in LFW and CelebA.
        progress: whether to show a progress bar on standard error.
        settings: other settings of `Face2Vec`.

    Raises:
        GalleryError: the gallery cannot be written, or has another model.
        ModelError: the model cannot be found or loaded.
    """
    if gallery is None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "gallery"
            return named_faces(
                photos, place, model=model, which=which, progress=progress, **settings
            )
    reasons: dict[str, str] = {}
    with Face2Vec(gallery, model=model, **settings) as engine:
        engine.add(
            [str(photo) for photo in photos.people],
            progress=progress,
            report=lambda error: reasons.update({error.photo: error.reason}),
        )
    with Gallery.open(gallery) as opened, opened.read() as now:
        made_with = opened.fingerprint.model
        found = {photo: _chosen_face(now, photo, which) for photo in photos.people}
        faces = {photo: face for photo, face in found.items() if face is not None}
        ids = np.array([face.id for face in faces.values()], np.int64)
        rows = now.embeddings(ids)
    encoded = {
        photo: EncodedFace(face.box, row)
        for (photo, face), row in zip(faces.items(), rows, strict=True)
    }
    why = {
        photo: reason
        for photo in photos.people
        if (reason := reasons.get(_name_in_gallery(photo), reasons.get(str(photo))))
    }
    whole = faces_found(photos, encoded, made_with.key, made_with.weights, why)
    return replace(whole, ids=ids)


def encoded_faces(
    photos: NamedPhotos,
    encoder: PhotoEncoder,
    *,
    which: Which = "centre",
    progress: bool = False,
) -> NamedFaces:
    """Encode one face of each photo with any encoder, without a gallery.

    Args:
        photos: the photos with their people.
        encoder: the encoder, see `open_encoder`.
        which: "largest" for the largest face, or "centre" for the one nearest the centre.
        progress: whether to show a progress bar on standard error.

    Returns:
        The faces as from `named_faces`; ``ids`` count from 0.
    """
    from tqdm import tqdm

    encoded = tqdm(
        zip(photos.people, encoder.encode(photos.people), strict=True),
        total=len(photos.people), unit="photo", disable=not progress, dynamic_ncols=True,
    )  # fmt: skip
    faces: dict[Path, EncodedFace] = {}
    why: dict[Path, str] = {}
    for path, one in encoded:
        face = one.centre_face if which == "centre" else one.largest_face
        if face is not None:
            faces[path] = face
        elif one.failure:
            why[path] = one.failure
    return faces_found(photos, faces, encoder.name, encoder.weights, why)


def faces_found(
    photos: NamedPhotos,
    found: Mapping[Path, EncodedFace],
    model: str,
    weights: str,
    why: Mapping[Path, str] = MappingProxyType({}),
) -> NamedFaces:
    """Combine faces that an encoder found with their people; ``ids`` count from 0.

    Args:
        photos: all photos.
        found: the face of each photo that has a face, in the order of ``photos``.
        model: name of the model that made the embeddings.
        weights: SHA-256 in hexadecimal of the model's weights.
        why: reasons of photos that could not be read.
    """
    names = sorted(set(photos.people.values()))
    numbers = {name: number for number, name in enumerate(names)}
    everyone = np.array([numbers[name] for name in photos.people.values()])
    return NamedFaces(
        tuple(found),
        tuple(face.box for face in found.values()),
        np.arange(len(found)),
        np.stack([face.embedding for face in found.values()])
        if found
        else np.empty((0, 0), np.float32),
        np.array([numbers[photos.people[photo]] for photo in found], np.int64),
        tuple(names),
        np.bincount(everyone, minlength=len(names)),
        model,
        weights,
        tuple(
            (str(photo), why.get(photo, NO_FACE_FOUND).removeprefix(f"{photo}: "))
            for photo in photos.people
            if photo not in found
        ),
    )


def _name_in_gallery(photo: Path) -> str:
    return str(photo.parent.resolve() / photo.name)


def _chosen_face(now: Snapshot, photo: Path, which: Which) -> Face | None:
    name = _name_in_gallery(photo)
    size = now.size_of(name)
    if size is None:
        return None
    faces = [face for face, *_ in now.faces_of(name)]
    if which == "largest":
        return largest_sure(faces) if faces else None
    width, height = size
    return nearest_to(faces, width / 2, height / 2)
