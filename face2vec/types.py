"""What is handed from one step to the next: one frozen record a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Landmarks = tuple[Point, Point, Point, Point, Point]


class Boxed(Protocol):
    """Anything that is somewhere in a photo."""

    @property
    def box(self) -> Box:
        """(left, top, right, bottom) in pixels."""
        ...


Placed = TypeVar("Placed", bound=Boxed)


def nearest_to(faces: Iterable[Placed], x: float, y: float) -> Placed | None:
    """The one whose box has its middle nearest to a point of the photo, the first of equals."""

    def away(face: Placed) -> float:
        left, top, right, bottom = face.box
        return math.hypot((left + right) / 2 - x, (top + bottom) / 2 - y)

    return min(faces, key=away, default=None)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo, turned upright.

    Attributes:
        name: what the user called it: a path, or ``"<bytes>"``, ``"<array>"``.
        image: RGB uint8 (height, width, 3); may be smaller than the photo, see ``scale``.
        width: width in pixels of the upright photo at full size.
        height: height in pixels of the upright photo at full size.
        scale: pixels of ``image`` for one pixel of the photo, 0 < scale ≤ 1.
        source: what it was read from (path, bytes, PIL image or array), kept
            so that a face can be cut from full resolution later.
    """

    name: str
    image: NDArray[np.uint8] = field(repr=False)
    width: int
    height: int
    scale: float = 1.0
    source: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Unopened:
    """A photo to be opened by who extracts its faces, which may be another process.

    Attributes:
        source: its path, or its bytes.
        name: what to call it, as for `open_photo`.
    """

    source: str | bytes = field(repr=False)
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face in one photo.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright photo.
        landmarks: left eye, right eye, nose, left mouth corner, right mouth
            corner as the viewer sees them; (x, y) in pixels of the upright photo.
        confidence: MTCNN's probability that this is a face, 0…1.
        embedding: float32 (d,) of unit length, or None before it is encoded.
        id: the face's number in its gallery, or None outside a gallery.
        quality: how fit the crop is for recognition, higher is better, or None
            where it was not measured.
        model: says of which model ``embedding`` is, see `ModelFingerprint.digest`; empty where that
        is not
            known. Embeddings of different models are not compared.
    """

    box: Box
    landmarks: Landmarks
    confidence: float
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    id: int | None = None
    quality: float | None = None
    model: str = field(default="", repr=False)

    @property
    def width(self) -> float:
        """Width of the box in pixels of the photo."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Height of the box in pixels of the photo."""
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        """Area of the box in square pixels of the photo."""
        return self.width * self.height

    def with_embedding(self, embedding: NDArray[np.float32], model: str = "") -> Face:
        """The same face with its embedding, and of which model that is."""
        return replace(self, embedding=embedding, model=model)

    def __repr__(self) -> str:
        left, top, right, bottom = (round(v) for v in self.box)
        known = "" if self.embedding is None else f", embedding=({len(self.embedding)},)"
        return (
            f"Face(box=({left}, {top}, {right}, {bottom}), confidence={self.confidence:.3f}{known})"
        )


@dataclass(frozen=True, eq=False)
class Match:
    """A gallery face returned for a query.

    Attributes:
        rank: 1 for the most similar.
        similarity: cosine of the two embeddings, −1…1, higher is more similar.
        face: the matched face (its box and landmarks are in the matched photo).
        photo: path of the photo that the face is in.
        copies: other paths in the gallery that hold the very same bytes.
        probability: that it is the same person, 0…1, where one face of the gallery is expected
            to be; None where the model has no calibration.
        false_matches: how many faces of other people are expected in a gallery of this size
            with this similarity or more; None as above.
        pose_distance: distance of its landmarks from those of the query, 0 for equal ones, see
            `pose_distances`; None unless the search was by pose.
    """

    rank: int
    similarity: float
    face: Face
    photo: str
    copies: tuple[str, ...] = ()
    probability: float | None = None
    false_matches: float | None = None
    pose_distance: float | None = None

    def __repr__(self) -> str:
        return f"Match(rank={self.rank}, similarity={self.similarity:.4f}, photo={self.photo!r})"


@dataclass(frozen=True)
class Person:
    """Somebody whose faces are in a gallery.

    Attributes:
        id: the person's number, the same for ever.
        name: what somebody called them, or None.
        faces: numbers of their faces in the gallery, rising.
    """

    id: int
    name: str | None = None
    faces: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The name, or the number of an unnamed person."""
        return self.name if self.name is not None else f"person {self.id}, unnamed"

    def __repr__(self) -> str:
        return f"Person({self.id}, {self.name!r}, {len(self.faces)} faces)"


@dataclass(frozen=True, eq=False)
class Identified:
    """Who a face is.

    Attributes:
        face: the face that was asked about.
        person: the likeliest of those with a name, or None for nobody known.
        probability: that it is that person, or, without one, that it is nobody known, 0…1.
        candidates: the likeliest people and how likely each is, likeliest first.
    """

    face: Face
    person: Person | None
    probability: float
    candidates: tuple[tuple[Person, float], ...] = ()

    @property
    def label(self) -> str:
        """The person's name, or "unknown"."""
        return "unknown" if self.person is None else self.person.label

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values: box, person, name, probability and candidates."""
        return {
            "box": [float(v) for v in self.face.box],
            "person": None if self.person is None else self.person.id,
            "name": None if self.person is None else self.person.name,
            "probability": self.probability,
            "candidates": [
                {"person": person.id, "name": person.name, "probability": probability}
                for person, probability in self.candidates
            ],
        }


@dataclass(frozen=True)
class Forgotten:
    """What became of somebody who was to be forgotten.

    Attributes:
        person: the number, which nobody gets again.
        faces: how many faces were deleted.
        photos: how many photos left the gallery, for they showed nobody else.
        left: what was found of it in the gallery's files afterwards, in words; empty as it
            should be.
    """

    person: int
    faces: int
    photos: int
    left: tuple[str, ...] = ()
