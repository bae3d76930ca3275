"""Faces to train on: aligned crops in memory, and their people if known.

Photos come from one folder per person, a CSV, a tar archive or a TensorFlow dataset. Photos that
are not aligned go through the engine's own detection and alignment, so a network is trained on the
same kind of crops that it gets in use.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.encoding.align import cut_faces
from face2vec.errors import MissingExtraError, PhotoError, SettingsError
from face2vec.evaluation.sets import NO_FACE_FOUND
from face2vec.files import composed, expanded, text_of
from face2vec.models.description import ModelDescription
from face2vec.photos.decode import open_photo
from face2vec.runtime.select import choose_runtime, detector_runtime
from face2vec.types import Photo

log = logging.getLogger("face2vec")

UNNAMED = -1
TFDS = "tfds:"
PHOTOS_AT_ONCE = 32

Named = tuple[str, Any, str]
"""A photo on its way: its name, its path or bytes or array, and its person or ""."""
Row = tuple[str, bool]
"""A person or "", and whether the face is held out."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Aligned crops.

    Attributes:
        crops: RGB uint8 (n, h, h, 3).
        people: int64 (n,), number of the person, −1 if unknown.
        names: names of the people by number.
        held_out: bool (n,), the faces that are never trained on; None to choose them at random.
        failed: name of each photo that was left out when they were loaded, and why.
    """

    crops: NDArray[np.uint8]
    people: NDArray[np.int64]
    names: tuple[str, ...] = ()
    held_out: NDArray[np.bool_] | None = None
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.crops)

    def split(self, share: float, seed: int, by_person: bool = False) -> tuple[Faces, Faces]:
        """Split into a training set and a held-out set; see `split_rows`."""
        learn, held = self.split_rows(share, seed, by_person)
        return self.only(learn), self.only(held)

    def split_rows(
        self, share: float, seed: int, by_person: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of a training set and of a held-out set: `held_out`, or a random one; int64 (n,).

        Args:
            share: share of the faces, or of the people, that is held out; at least one.
            seed: seed of the choice.
            by_person: put all photos of a person into the same set; faces without a name all go
                into the training set.
        """
        rng = np.random.default_rng((seed, 7))
        if self.held_out is not None:
            held = self.held_out
        elif by_person:
            people = rng.permutation(np.unique(self.people[self.people >= 0]))
            held = np.isin(self.people, people[: max(1, round(share * len(people)))])
        else:
            held = np.zeros(len(self), bool)
            held[rng.permutation(len(self))[: max(1, round(share * len(self)))]] = True
        return np.flatnonzero(~held), np.flatnonzero(held)

    def only(self, rows: NDArray[np.int64]) -> Faces:
        """The faces in some rows, int64 (n,)."""
        held = None if self.held_out is None else self.held_out[rows]
        return Faces(self.crops[rows], self.people[rows], self.names, held)


def load_faces(
    source: str | os.PathLike[str],
    model: ModelDescription,
    *,
    table: str | os.PathLike[str] | None = None,
    aligned: bool = False,
) -> Faces:
    """Faces of a folder, a CSV, a tar archive or a TensorFlow dataset.

    Args:
        source: a folder with one folder per person; a CSV with the columns ``file`` (relative to
            the CSV) and ``person``; a tar archive of such folders, or of any files with ``table``;
            or ``tfds:celeb_a`` and ``tfds:celeb_a:DATA_DIR``.
        model: how crops are cut: alignment, template, size.
        table: for a tar archive, a CSV with the columns ``file`` and ``person``; an empty person is
            unknown. With a column ``held_out``, the faces where it is 1 are never trained on.
        aligned: whether the photos are already aligned crops, square and of one size.

    Returns:
        The largest face of each photo. Photos without a face and unreadable photos are skipped and
        logged.

    Raises:
        SettingsError: there is nothing to train on, or crops have different sizes.
        MissingExtraError: tensorflow_datasets is not installed.
    """
    source = expanded(source)
    if table is None and Path(source).suffix == ".csv":
        table = source
    rows = None if table is None else _rows_of(Path(expanded(table)))
    photos = _photos(source, rows)
    failed: list[tuple[str, str]] = []
    found = _as_they_are(photos, failed) if aligned else _cut(photos, model, failed)
    crops: list[NDArray[np.uint8]] = []
    people: list[str] = []
    held: list[bool] = []
    for name, crop, person in found:
        if crops and crop.shape != crops[0].shape:
            raise SettingsError(
                f"{source}: {name} is {crop.shape[1]}×{crop.shape[0]} pixels and others are "
                f"{crops[0].shape[1]}×{crops[0].shape[0]}; aligned crops must be of one size"
            )
        crops.append(crop)
        people.append(composed(person))
        held.append((rows or {}).get(name, ("", False))[1])
    if not crops:
        raise SettingsError(f"{source} has no photo with a face; there is nothing to train on")
    names = sorted(set(people) - {""})
    number = {name: i for i, name in enumerate(names)} | {"": UNNAMED}
    numbers = np.array([number[name] for name in people])
    held_out = np.array(held) if any(held) else None
    return Faces(np.stack(crops), numbers, tuple(names), held_out, tuple(failed))


def joined(several: Sequence[Faces]) -> Faces:
    """Faces of several sources together; people of the same name in two sources are two people.

    Raises:
        SettingsError: crops have different sizes, or only some sources say what is held out.
    """
    sides = {faces.crops.shape[1] for faces in several}
    if len(sides) > 1:
        raise SettingsError(f"crops of different sizes, {sorted(sides)}, cannot be put together")
    if len({faces.held_out is None for faces in several}) > 1:
        raise SettingsError("the column 'held_out' is needed in every table, or in none")
    starts = np.cumsum([0, *(len(faces.names) for faces in several)])
    people = [
        np.where(faces.people < 0, UNNAMED, faces.people + start)
        for faces, start in zip(several, starts, strict=False)
    ]
    held = [faces.held_out for faces in several if faces.held_out is not None]
    return Faces(
        np.concatenate([faces.crops for faces in several]),
        np.concatenate(people),
        tuple(name for faces in several for name in faces.names),
        np.concatenate(held) if held else None,
        tuple(one for faces in several for one in faces.failed),
    )


def _photos(source: str, rows: dict[str, Row] | None) -> Iterator[Named]:
    path = Path(source)
    if source.startswith(TFDS):
        return _of_tfds(source.removeprefix(TFDS))
    if path.is_dir():
        return _of_folders(path)
    if path.suffix == ".csv":
        return _of_table(path)
    if path.is_file():
        return _of_tar(path, rows)
    raise SettingsError(
        f"{source} is not a folder, CSV or tar archive and does not begin with {TFDS!r}"
    )


def _of_folders(folder: Path) -> Iterator[Named]:
    for person in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        for file in sorted(entry for entry in person.rglob("*") if entry.is_file()):
            yield str(file), file, person.name


def _of_table(table: Path) -> Iterator[Named]:
    for name, (person, _) in _rows_of(table).items():
        yield name, table.parent / name, person


def _of_tar(path: Path, rows: dict[str, Row] | None) -> Iterator[Named]:
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                folder = Path(member.name).parent.name
                person = folder if rows is None else rows.get(member.name, ("", False))[0]
                yield member.name, file.read(), person


def _of_tfds(name: str) -> Iterator[Named]:
    """All splits of a dataset that has ``image``, with celeb_a's ``identity`` if it is known."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingExtraError(f"{TFDS}{name}", "tensorflow_datasets", "tfds") from error
    name, _, folder = name.partition(":")
    builder = tfds.builder(name, data_dir=folder or None)
    builder.download_and_prepare()
    number = 0
    for split in ("train", "validation", "test"):
        if split not in builder.info.splits:
            continue
        config = tfds.ReadConfig(shuffle_seed=None, interleave_cycle_length=1)
        for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=config)):
            number += 1
            person = example["identity"]["Identity_No"] if "identity" in example else ""
            yield f"{name}/{split}/{number}", example["image"], str(person)


def _rows_of(table: Path) -> dict[str, Row]:
    reader = csv.DictReader(io.StringIO(text_of(table), newline=""))
    if reader.fieldnames is None or "file" not in reader.fieldnames:
        raise SettingsError(f"{table} has no column 'file'")
    return {row["file"]: (row.get("person") or "", row.get("held_out") == "1") for row in reader}


def _as_they_are(
    photos: Iterable[Named], failed: list[tuple[str, str]]
) -> Iterator[tuple[str, NDArray[np.uint8], str]]:
    for name, source, person in photos:
        try:
            crop = source if isinstance(source, np.ndarray) else _pixels(source)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            log.warning("left out: %s: %s", name, error)
            failed.append((name, "not a photo, or damaged"))
            continue
        if crop.shape[0] != crop.shape[1]:
            raise SettingsError(
                f"{name} is {crop.shape[1]}×{crop.shape[0]} pixels; aligned crops are square"
            )
        yield name, crop, person


def _pixels(source: Any) -> NDArray[np.uint8]:
    """The pixels of a crop's file or bytes, read as they are."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"))


def _cut(
    photos: Iterable[Named], model: ModelDescription, failed: list[tuple[str, str]]
) -> Iterator[tuple[str, NDArray[np.uint8], str]]:
    settings = DetectorSettings()
    detector = Mtcnn(settings, detector_runtime(choose_runtime()))
    photos = iter(photos)
    lost = 0
    while chunk := list(islice(photos, PHOTOS_AT_ONCE)):
        opened: list[tuple[Photo, str]] = []
        for name, source, person in chunk:
            try:
                photo = open_photo(source, name=name, max_side=settings.searched_side())
                opened.append((photo, person))
            except PhotoError as error:
                log.warning("left out: %s", error)
                failed.append((name, error.reason))
        for (photo, person), faces in zip(
            opened, detector.detect([photo.image for photo, _ in opened]), strict=True
        ):
            if not faces:
                lost += 1
                log.info("left out: no face in %s", photo.name)
                failed.append((photo.name, NO_FACE_FOUND))
                continue
            largest = max(faces, key=lambda face: face.area)
            yield photo.name, cut_faces(photo, [largest], model)[1][0], person
    if lost:
        log.warning("left out, for no face was found: %d of the photos", lost)
