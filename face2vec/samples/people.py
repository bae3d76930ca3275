"""Draws people who do not exist, and photos of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from face2vec.errors import SettingsError
from face2vec.files import expanded
from face2vec.samples import drawing
from face2vec.samples.camera import background, developed
from face2vec.samples.drawing import Clothes, Looks, Pose
from face2vec.samples.model import ORIGINS, Appearance, Floats, Pixels, face_model

Box = tuple[float, float, float, float]
SPREAD = 0.8  # variation of people, as a fraction of that of the model
CHANGE = 0.45  # variation of one person's photos, as a fraction of that of the training data
# The second element of seeds, which separates independent random streams.
PEOPLE, PHOTOS, GROUPS, CHOICES = 1, 2, 3, 4


APART = (
    *(0, 4, 5, 6, 8, 10, 12, 14, 19, 20, 22, 28, 35, 38, 39, 41, 49, 56, 58, 59, 60, 66, 79, 87),
)
"""Numbers of people of seed 0 whom the included model `mini` tells apart.

To a network that was trained on people, many drawn people are alike. Of the first 90, in order,
these are those whose mean embedding of three photos has a cosine below 0.4 with those of all that
were taken before, and whose own photos have one above 0.5 with each other.
"""


@dataclass(frozen=True)
class DrawnFace:
    """A face in a drawn photo, with the true person, box and landmarks.

    Attributes:
        person: name of the person.
        box: (left, top, right, bottom) in pixels, from forehead to chin.
        landmarks: float32 (5, 2): left eye, right eye, nose, left and right mouth corner as the
            viewer sees them.
    """

    person: str
    box: Box
    landmarks: Floats


@dataclass(frozen=True)
class SamplePhoto:
    """A drawn photo.

    Attributes:
        image: RGB uint8 (height, width, 3).
        faces: the faces, in the order of drawing.
        quality: JPEG quality for `jpeg`, 1…95.
    """

    image: Pixels
    faces: tuple[DrawnFace, ...]
    quality: int

    def jpeg(self) -> bytes:
        """Encode as a JPEG file without EXIF."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write the JPEG file, creating its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.jpeg())


@dataclass(frozen=True)
class Person:
    """A person who does not exist.

    Attributes:
        name: name, such as "person-012".
        number: number of the person among those of the seed.
        seed: seed of the people.
        female: whether the face was drawn as female.
        age: approximate age in years.
        coefficients: float32 (k,), coefficients of the face model.
        looks: head, hair and build.
    """

    name: str
    number: int
    seed: int
    female: bool
    age: float
    coefficients: Floats
    looks: Looks

    def photo(self, number: int = 0) -> SamplePhoto:
        """Draw a photo of this person alone; equal numbers give equal photos."""
        rng = np.random.default_rng([self.seed, PHOTOS, self.number, number])
        scale = float(np.exp(rng.uniform(np.log(0.7), np.log(1.7))))
        width = int(scale * rng.uniform(170, 250))
        height = int(scale * rng.uniform(200, 270))
        pose = _pose(rng, width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.5), scale)
        return _taken([self], [pose], width, height, rng)


def people(count: int, seed: int = 0) -> list[Person]:
    """Draw people. The first people do not depend on the count.

    Args:
        count: number of people.
        seed: seed of the people, not negative.

    Raises:
        SettingsError: the count or the seed is negative.
    """
    if seed < 0:
        raise SettingsError(f"seed must not be negative, but is {seed}")
    if count < 0:
        raise SettingsError(f"people must not be negative, but is {count}")
    return [_person(number, seed) for number in range(count)]


def group_photo(people: Sequence[Person], number: int = 0) -> SamplePhoto:
    """Draw one photo of several people, in rows of up to six.

    Args:
        people: the people, back row first, each row from left to right.
        number: number of the photo; another number gives another photo of the same people.

    Raises:
        SettingsError: there are no people.
    """
    if not people:
        raise SettingsError("a group photo needs at least one person")
    rng = np.random.default_rng(
        [people[0].seed, GROUPS, number, *(person.number for person in people)]
    )
    scale = float(rng.uniform(0.55, 0.95))
    rows = -(-len(people) // 6)
    across = -(-len(people) // rows)
    step, rise = scale * 150, scale * 135
    width, height = int(step * (across + 0.6)), int(rise * (rows - 1) + scale * 300)
    poses = []
    for place in range(len(people)):
        row, column = divmod(place, across)
        filled = min(across, len(people) - row * across)
        x = width / 2 + (column - (filled - 1) / 2 + 0.28 * (row % 2) - 0.14 * (rows > 1)) * step
        pose = _pose(
            rng,
            x + step * rng.uniform(-0.06, 0.06),
            scale * 125 + row * rise + rise * rng.uniform(-0.07, 0.07),
            scale * rng.uniform(0.92, 1.08),
        )
        poses.append(pose)
    return _taken(people, poses, width, height, rng)


def write(
    folder: str | os.PathLike[str],
    people: int = 40,
    photos: int = 5,
    groups: int = 8,
    seed: int = 0,
    only: Sequence[int] | None = None,
) -> int:
    """Write photos of people who do not exist, and a table of their faces.

    ``person-012/3.jpg`` is a photo of one person, ``groups/5.jpg`` a photo of two to eight people.
    The table, ``people.csv``, has one row per face: photo, person, left, top, right, bottom.

    Args:
        folder: folder for the photos; created if it does not exist, and refused unless empty.
        people: number of people.
        photos: number of photos of each person alone.
        groups: number of photos of several people.
        seed: seed of all random choices.
        only: numbers of the people to draw, such as ``APART``; None for the first ``people``.

    Returns:
        The number of drawn faces.

    Raises:
        SettingsError: the folder is not empty, or a number is negative.
    """
    numbers = {"people": people, "photos": photos, "groups": groups, "seed": seed}
    for what, number in numbers.items():
        if number < 0:
            raise SettingsError(f"{what} must not be negative, but is {number}")
    numbers_of = range(people) if only is None else only
    target = Path(expanded(folder))
    if target.exists() and any(target.iterdir()):
        raise SettingsError(
            f"{target} already contains files; delete them, or choose another folder for the "
            "drawn photos"
        )
    target.mkdir(parents=True, exist_ok=True)
    rows = 0
    with (target / "people.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["photo", "person", "left", "top", "right", "bottom"])
        for name, photo in _collection(numbers_of, photos, groups, seed):
            photo.save(target / name)
            for face in photo.faces:
                table.writerow([name, face.person, *(f"{side:.2f}" for side in face.box)])
            rows += len(photo.faces)
    return rows


def _collection(
    people: Sequence[int], photos: int, groups: int, seed: int
) -> Iterator[tuple[str, SamplePhoto]]:
    """Yield the names and photos of `write`."""
    everybody = [_person(number, seed) for number in people]
    for person in everybody:
        for number in range(photos):
            yield f"{person.name}/{number}.jpg", person.photo(number)
    for number in range(groups if everybody else 0):
        rng = np.random.default_rng([seed, CHOICES, number])
        size = min(int(rng.integers(2, 9)), len(everybody))
        chosen = rng.choice(len(everybody), size, replace=False)
        yield f"groups/{number}.jpg", group_photo([everybody[i] for i in chosen], number)


def _person(number: int, seed: int) -> Person:
    rng = np.random.default_rng([seed, PEOPLE, number])
    female, age, origin = bool(rng.integers(2)), rng.uniform(16, 75), int(rng.integers(ORIGINS))
    model = face_model()
    coefficients = model.person(female, age, origin, SPREAD, rng)
    return Person(
        name=f"person-{number:03d}",
        number=number,
        seed=seed,
        female=female,
        age=age,
        coefficients=coefficients,
        looks=_looks(female, age, origin, rng),
    )


HAIR = np.array(
    [(28, 22, 20), (52, 36, 26), (84, 58, 38), (122, 88, 54), (190, 158, 110), (128, 62, 34)],
    np.float32,
)
HAIR_CHANCES = (
    (0.10, 0.25, 0.25, 0.20, 0.15, 0.05),
    (0.85, 0.15, 0, 0, 0, 0),
    (0.80, 0.20, 0, 0, 0, 0),
    (0.75, 0.25, 0, 0, 0, 0),
    (0.45, 0.35, 0.20, 0, 0, 0),
)


def _looks(female: bool, age: float, origin: int, rng: np.random.Generator) -> Looks:
    hair = HAIR[rng.choice(len(HAIR), p=HAIR_CHANCES[origin])] * rng.uniform(0.85, 1.2)
    grey = np.clip((age - rng.uniform(44, 66)) / 18, 0, 1)
    hair = hair + (np.float32(rng.uniform(130, 190)) - hair) * np.float32(grey)
    bald = not female and rng.random() < np.clip((age - 25) / 90, 0, 0.5)
    if female:
        length, volume = rng.choice([60, 110, 150, 185]) + rng.uniform(-12, 12), rng.uniform(7, 14)
    else:
        length, volume = (62.0, rng.uniform(3, 8)) if rng.random() < 0.93 else (105.0, 9.0)
    strands = rng.standard_normal(512)
    for _ in range(2):
        strands = (strands + np.roll(strands, 1)) / 2
    return Looks(
        width=rng.uniform(46, 50) if not female else rng.uniform(45, 48),
        chin=rng.uniform(114, 120) if not female else rng.uniform(112, 117),
        jaw=rng.uniform(2.6, 3.6) if not female else rng.uniform(2.3, 2.9),
        hair=(float(hair[0]), float(hair[1]), float(hair[2])),
        volume=0.0 if bald else float(volume),
        length=float(length),
        hairline=float(rng.uniform(5, 14) - (0 if female else np.clip((age - 35) / 5, 0, 8))),
        temples=float(rng.uniform(2.5, 6)),
        parting=float(rng.choice([-1, 0, 1]) * rng.uniform(0.3, 1)),
        curls=float(rng.choice([0, 0, 0.3, 1.0]) * rng.uniform(0.6, 1)),
        glasses=float(rng.uniform(0.45, 0.8) * (rng.random() < 0.05 + age / 500)),
        shoulders=float(rng.uniform(108, 124) if not female else rng.uniform(90, 104)),
        neck=float(rng.uniform(0.66, 0.78) if not female else rng.uniform(0.56, 0.64)),
        strands=(strands / strands.std()).astype(np.float32),
    )


def _pose(rng: np.random.Generator, x: float, y: float, scale: float) -> Pose:
    turn = np.clip(rng.standard_normal(3), -2, 2) * (0.09, 0.15, 0.08)
    return Pose(float(x), float(y), float(scale), *(float(angle) for angle in turn))


def _clothes(rng: np.random.Generator) -> Clothes:
    grey = rng.uniform(25, 215)
    colour = grey + rng.uniform(0, 0.5) * (rng.uniform(20, 230, 3) - grey)
    return Clothes(
        (float(colour[0]), float(colour[1]), float(colour[2])),
        float(rng.choice([0, 0, 0, 0.1]) * rng.uniform(0.5, 1.5)),
        float(rng.uniform(4, 26)),
    )


def _taken(
    people: Sequence[Person],
    poses: Sequence[Pose],
    width: int,
    height: int,
    rng: np.random.Generator,
) -> SamplePhoto:
    """Draw the background and the people, and apply light and the effects of a camera."""
    model = face_model()
    fine = 2 if min(pose.scale for pose in poses) < 0.6 else 1  # supersampling factor
    canvas = background(width * fine, height * fine, rng)
    light = float(np.clip(rng.normal(0, 0.12), -0.3, 0.3))
    faces = []
    for person, pose in zip(people, poses, strict=True):
        face: Appearance = model.appearance(person.coefficients + model.change(CHANGE, rng))
        enlarged = replace(pose, x=pose.x * fine, y=pose.y * fine, scale=pose.scale * fine)
        looks = person.looks
        if looks.glasses and rng.random() < 0.3:
            looks = replace(looks, glasses=0.0)
        drawing.draw(canvas, face, looks, _clothes(rng), enlarged, light)
        faces.append(
            DrawnFace(person.name, drawing.box(looks, pose), drawing.landmarks(face, pose))
        )
    image = developed(canvas, fine, rng)
    return SamplePhoto(image, tuple(faces), quality=int(rng.integers(70, 95)))
