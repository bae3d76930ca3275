"""The records that are passed from step to step, all frozen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TypeVar, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Landmarks = tuple[Point, Point, Point, Point, Point]


class Boxed(Protocol):
    """Anything with a box in a photo."""

    @property
    def box(self) -> Box:
        """(left, top, right, bottom) in pixels."""
        ...


NO_PLACE: Box = (0.0, 0.0, 0.0, 0.0)
NO_POINTS: Landmarks = ((0.0, 0.0),) * 5
"""Box and landmarks of a face whose place in its photo is not known."""

Placed = TypeVar("Placed", bound=Boxed)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0…1."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    shared = max(right - left, 0) * max(bottom - top, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


SAME_FACE_IOU = 0.5
"""Overlap from which on two boxes in a photo, or in a frame of a video, are of the same face."""
SAME_TIME = 0.0005
"""Seconds by which two times of one frame of a video can differ; times are whole milliseconds."""


class Place(NamedTuple):
    """Where in a photo, or when and where in a video, a face is.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright photo or frame.
        time: time of the frame of a video in seconds; None in a photo.
    """

    box: Box
    time: float | None = None

    def is_of(self, box: Box, time: float | None) -> bool:
        """Whether a face with this box, at this time, is the one that is here."""
        if self.time is None or time is None:
            is_at = self.time is time
        else:
            is_at = abs(self.time - time) <= SAME_TIME
        return is_at and overlap(self.box, box) >= SAME_FACE_IOU


SURE_OPINION, SURE_CONFIDENCE = 0.2, 0.9
"""From which a face counts as sure: the second opinion; the detector's confidence without one."""


def clock(seconds: float) -> str:
    """A time in a video for people, such as ``"0:03.0"`` or ``"1:02:03.5"``."""
    tenths = math.floor(10 * seconds + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{head}:{rest // 10:02}.{rest % 10}"


def nearest_to(faces: Iterable[Placed], x: float, y: float) -> Placed | None:
    """The face whose box centre is nearest to a point of the photo; ties go to the first."""

    def distance(face: Placed) -> float:
        left, top, right, bottom = face.box
        return math.hypot((left + right) / 2 - x, (top + bottom) / 2 - y)

    return min(faces, key=distance, default=None)


def largest_sure(faces: Sequence[Face]) -> Face:
    """The largest of the faces that are sure; if none is, of all. There is at least one."""
    return max([face for face in faces if face.is_sure] or faces, key=lambda face: face.area)


Method = Literal["average", "agglomerative", "k-means", "dbscan", "hdbscan", "chinese-whispers"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The ways to group faces into people."""


class AnyName(Enum):
    """Says that it does not matter which name a person has."""

    ANY_NAME = "any"


ANY_NAME = AnyName.ANY_NAME
NAMED_AT_LEAST = 0.9
"""Lowest probability to give a face the name of a person."""
STATUSES = ("indexed", "no-face", "unreadable", "damaged")
"""What became of a photo, as users call it; a damaged photo was read in part."""


class PhotoStatus(NamedTuple):
    """What became of a photo.

    Attributes:
        photo: full path.
        status: one of ``STATUSES``.
        reason: why it could not be read, or what of it is missing; otherwise empty.
        taken: when it was taken, by the clock of the camera, such as ``"2024-05-01T12:30:59"``;
            empty if that is not known.
    """

    photo: str
    status: str
    reason: str
    taken: str = ""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo, turned upright.

    Attributes:
        name: a path, or ``"<bytes>"`` or ``"<array>"``.
        image: RGB uint8 (height, width, 3); may be smaller than the photo, see ``scale``.
        width: width in pixels of the upright photo at full size.
        height: height in pixels of the upright photo at full size.
        scale: pixels of ``image`` per pixel of the photo, 0 < scale ≤ 1.
        source: what it was read from (path, bytes, PIL image or array), so that small faces can
            be cut from full resolution later.
        damage: what of it is missing, such as ``"40% of its rows are missing"``; empty if it is
            whole.
    """

    name: str
    image: NDArray[np.uint8] = field(repr=False)
    width: int
    height: int
    scale: float = 1.0
    source: Any = field(default=None, repr=False)
    damage: str = ""


@dataclass(frozen=True, eq=False)
class Unopened:
    """A photo that is opened where its faces are extracted, possibly in another process.

    Attributes:
        source: its path or its bytes.
        name: its name, as for `open_photo`.
    """

    source: str | bytes = field(repr=False)
    name: str | None = None


@dataclass(frozen=True)
class QualityParts:
    """What a face's fitness for recognition depends on, whatever the model.

    Attributes:
        face: probability by the second opinion that it is a face, upright by its landmarks, 0…1.
        size: pixels of the photo along a side of the square that an aligned crop shows.
        sharpness: root mean square of the Laplacian over that of the contrast in the crop at 64
            pixels, 0 or more; below about 0.15 it is blurred, or enlarged from few pixels.
        yaw: degrees by which the head is turned to the viewer's right, −90…90.
        pitch: degrees by which it is raised, −90…90.
        roll: degrees by which it is turned clockwise in the plane, −180…180.
        covered: share of the face that is covered, by a mask or otherwise, 0…1.
        child: probability that it is a child under 13, 0…1.
    """

    face: float
    size: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    covered: float
    child: float


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face in one photo.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright photo.
        landmarks: left eye, right eye, nose, left mouth corner, right mouth
            corner as the viewer sees them; (x, y) in pixels of the upright photo.
        confidence: the detector's probability that this is a face, 0…1.
        embedding: float32 (d,) of unit length, or None before it is encoded.
        id: number of the face in its gallery, or None outside a gallery.
        quality: fitness of the crop for recognition, 0…1, higher is better; None if not measured.
        parts: what the quality was made of, or None.
        model: `ModelFingerprint.digest` of the model that made ``embedding``, or empty if it is
            unknown. Embeddings of different models are never compared.
        time: of a face in a video, the time of its frame in seconds from the start, 0 or more; None
            in a photo.
        track: of a face in a video, when its person came into sight and was last seen: the times of
            two frames in seconds; None in a photo.
    """

    box: Box
    landmarks: Landmarks
    confidence: float
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)
    id: int | None = None
    quality: float | None = None
    model: str = field(default="", repr=False)
    parts: QualityParts | None = field(default=None, repr=False)
    time: float | None = None
    track: tuple[float, float] | None = None

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

    @property
    def is_placed(self) -> bool:
        """Whether its place in the photo is known; that of an imported face may not be."""
        return self.box != NO_PLACE

    @property
    def is_sure(self) -> bool:
        """Whether it is hardly a false detection: by the second opinion, or by the confidence."""
        if self.parts is None:
            return self.confidence >= SURE_CONFIDENCE
        return self.parts.face >= SURE_OPINION

    def with_embedding(self, embedding: NDArray[np.float32], model: str = "") -> Face:
        """The same face with an embedding.

        Args:
            embedding: float32 (d,) of unit length.
            model: `ModelFingerprint.digest` of the model that made it.
        """
        return replace(self, embedding=embedding, model=model)

    def __repr__(self) -> str:
        left, top, right, bottom = (round(v) for v in self.box)
        known = "" if self.embedding is None else f", embedding=({len(self.embedding)},)"
        at = "" if self.time is None else f", time={self.time:.3f}"
        return (
            f"Face(box=({left}, {top}, {right}, {bottom}), "
            f"confidence={self.confidence:.3f}{at}{known})"
        )


@dataclass(frozen=True, eq=False)
class Match:
    """A gallery face returned for a query.

    Attributes:
        rank: 1 for the most similar.
        similarity: cosine of the two embeddings, −1…1, higher is more similar.
        face: the matched face (its box and landmarks are in the matched photo).
        photo: path of the photo or video that the face is in; of several copies, the first that
            exists.
        copies: other paths in the gallery with the same bytes.
        probability: probability of the same person, 0…1, if one face of the gallery is expected to
            show the query's person; None without a calibration.
        false_matches: expected number of faces of other people in a gallery of this size with at
            least this similarity; None without a calibration.
        pose_distance: distance of its landmarks from those of the query, 0 for equal ones, see
            `pose_distances`; None unless the search was by pose.
        outside: why the probability and the false matches are less certain than stated, in words;
            empty if nothing is known against them.
    """

    rank: int
    similarity: float
    face: Face
    photo: str
    copies: tuple[str, ...] = ()
    probability: float | None = None
    false_matches: float | None = None
    pose_distance: float | None = None
    outside: tuple[str, ...] = ()

    @property
    def time(self) -> float | None:
        """Seconds from the start of the video to the frame of the face; None in a photo."""
        return self.face.time

    @property
    def layout(self) -> float | None:
        """Deprecated name of ``pose_distance``; it will be removed in the next version."""
        warnings.warn(
            "Match.layout is deprecated; use Match.pose_distance", DeprecationWarning, stacklevel=2
        )
        return self.pose_distance

    def __repr__(self) -> str:
        at = "" if self.time is None else f", time={self.time:.3f}"
        return (
            f"Match(rank={self.rank}, similarity={self.similarity:.4f}, photo={self.photo!r}{at})"
        )


@dataclass(frozen=True)
class Person:
    """A person in a gallery.

    Attributes:
        id: number of the person, which never changes.
        name: name that a user gave, or None.
        faces: ids of the faces in the gallery, rising.
        hidden: whether a user wants the person left out of lists.
        cover: id of the face that a user has chosen to show for the person, or None.
    """

    id: int
    name: str | None = None
    faces: tuple[int, ...] = ()
    hidden: bool = False
    cover: int | None = None

    @property
    def label(self) -> str:
        """The name, or the number of an unnamed person."""
        return self.name if self.name is not None else f"person {self.id}, unnamed"

    def __repr__(self) -> str:
        return f"Person({self.id}, {self.name!r}, {len(self.faces)} faces)"


class Mark(NamedTuple):
    """A face that a user has marked by hand and that has no landmarks, so no embedding either.

    Attributes:
        id: number of the mark.
        content: number of the content that it is in, which all copies of a photo share.
        box: (left, top, right, bottom) in pixels of the upright photo.
        person: number of the person that it shows, as a user has said, or None.
    """

    id: int
    content: int
    box: Box
    person: int | None = None


class MarkedFace(NamedTuple):
    """A mark with the photo that it is in.

    Attributes:
        mark: the mark.
        name: name of the person that it shows, or None.
        photo: full path of the photo.
        copies: full paths of files with the same bytes.
        sha256: the 32 bytes of the hash of the photo's bytes.
        size: (width, height) of the upright photo in pixels.
    """

    mark: Mark
    name: str | None
    photo: str
    copies: tuple[str, ...]
    sha256: bytes
    size: tuple[int, int]


class Marked(NamedTuple):
    """What became of a face that a user has marked by hand; one of the two is None.

    Attributes:
        face: id of the face, if landmarks were found.
        mark: number of the mark, if none were found.
    """

    face: int | None = None
    mark: int | None = None


class Reason(str):
    """A reason in English words, with what a program needs to say it in another language.

    Args:
        words: the reason.
        code: a word for it, such as ``"few-pixels"``.
        values: the numbers that it names, by name.
    """

    __slots__ = ("code", "values")

    code: str
    values: dict[str, int]

    def __new__(cls, words: str, code: str, values: Mapping[str, int] | None = None) -> Self:
        """Make a text that keeps its code."""
        made = super().__new__(cls, words)
        made.code, made.values = code, dict(values or {})
        return made

    def __reduce__(self) -> tuple[type[Reason], tuple[str, str, dict[str, int]]]:
        return type(self), (str(self), self.code, self.values)


class Edit(NamedTuple):
    """An edit of people that `undo` can take back.

    Attributes:
        what: what was done, in words.
        made: when, in seconds since 1970; None for edits before face2vec stored it.
    """

    what: str
    made: int | None


@dataclass(frozen=True)
class Side:
    """One side of a suggestion: a person, or one face that belongs to nobody yet.

    Attributes:
        person: number of the person, or None.
        name: name of the person, or None.
        count: number of faces.
        shown: ids of up to two of them, the best by quality, from different photos if possible.
    """

    person: int | None
    name: str | None
    count: int
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Suggestion:
    """Two groups of faces that may show one person.

    Attributes:
        first: the side with more faces.
        second: the other side.
        probability: probability that they do, 0…1, from the mean log odds of pairs.
    """

    first: Side
    second: Side
    probability: float


@dataclass(frozen=True, eq=False)
class Identified:
    """Who a face is.

    Attributes:
        face: the query face.
        person: the most probable person with a name, or None for an unknown face.
        probability: probability of that person, or of an unknown face, 0…1.
        candidates: the most probable people with their probabilities, best first.
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
    """What forgetting a person did.

    Attributes:
        person: number of the person, which is never reused.
        faces: number of deleted faces.
        photos: number of removed photos, which showed nobody else.
        left: traces that are left in the files of the gallery, one phrase each; normally empty.
        resumed: whether an earlier deletion was finished, which had been interrupted.
    """

    person: int
    faces: int
    photos: int
    left: tuple[str, ...] = ()
    resumed: bool = False
