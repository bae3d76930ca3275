"""How true stated false accept rates are among the faces of a gallery, estimated without labels.

Nobody has said who is who in a gallery, so false accepts cannot be counted. But the similarities
show where those of strangers end and those of one person begin: `Tail` fits both. This is done for
all faces, and for kinds of faces that calibrations know less of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import USUAL_FAR, Calibration
from face2vec.encoding.quality import BLURRED, LIKELY, PROFILE
from face2vec.errors import CalibrationError
from face2vec.tail import FROM_RATE, Tail
from face2vec.types import Face, QualityParts

LOOKED_AT = 6000
"""Faces of a gallery that are drawn at random."""
MOST = 1500
"""Faces of each kind that are compared with each other."""
FEWEST_SEEN = 20
"""Pairs of strangers that are expected among the similarities that count; fewer say too little."""
DRAWS = 100
TURNED = 20.0  # degrees of yaw
FEW_PIXELS, MANY_PIXELS = 50.0, 100.0  # along a side of the crop

Faces = NDArray[np.bool_]


@dataclass(frozen=True)
class KindRate:
    """False accepts among faces of one kind.

    Attributes:
        kind: what the faces are divided by: "all", "pose", "size", "neighbourhood" or "looks".
        value: which of these faces.
        faces: how many of the faces that were looked at are of this kind.
        model_alone: estimated false accept rate with the calibration alone, over the stated one;
            1 is right. This is for ``verify``.
        here: the same with the gallery as its own cohort. This is for searches and people.
        low: lower end of its 95 % interval, by a bootstrap over faces.
        high: upper end.
        few: whether the faces are too few to tell; the four rates are None then.
    """

    kind: str
    value: str
    faces: int
    model_alone: float | None
    here: float | None
    low: float | None
    high: float | None
    few: bool

    @property
    def is_too_low(self) -> bool:
        """Whether more than twice as many strangers are accepted as stated, beyond chance."""
        return self.low is not None and self.low > 2


@dataclass(frozen=True)
class Reliability:
    """How true a false accept rate is in a gallery.

    Attributes:
        far: the stated false accept rate.
        faces: number of faces in the gallery.
        cohort: number of faces of the gallery that show how alike strangers are there; 0 if they
            look like too few people.
        kinds: false accepts of all faces first, then of each kind of faces.
    """

    far: float
    faces: int
    cohort: int
    kinds: tuple[KindRate, ...]

    def figures(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self) | {"kinds": [asdict(one) for one in self.kinds]}


def reliability(
    calibration: Calibration, faces: Sequence[Face], count: int, far: float = USUAL_FAR
) -> Reliability:
    """Estimate how true a false accept rate is.

    Args:
        calibration: the gallery's, with the gallery as its cohort.
        faces: faces of the gallery in random order, with embeddings.
        count: number of faces in the gallery.
        far: the stated rate.

    Raises:
        CalibrationError: the calibration covers too few rates, or the faces are fewer than two.
    """
    if len(faces) < 2:
        raise CalibrationError("a false accept rate needs two faces or more in the gallery")
    if not calibration.has_tail:
        raise CalibrationError(
            f"the calibration of {calibration.model!r} was fitted on {calibration.impostor:,} "
            "impostor pairs, too few to say how strangers compare; fit it on more people: "
            "face2vec calibrate GALLERY --people PEOPLE"
        )
    calibration.threshold(far)  # a rate that is too low is an error, also for few faces
    embeddings = np.stack([face.embedding for face in faces if face.embedding is not None])
    alone = replace(calibration, cohort=None)
    kinds = [
        _rate(alone, calibration, kind, value, embeddings[which], far)
        for kind, value, which in _kinds(faces, embeddings, calibration)
    ]
    cohort = 0 if calibration.cohort is None else len(calibration.cohort.faces)
    return Reliability(far, count, cohort, tuple(kinds))


def _kinds(
    faces: Sequence[Face], embeddings: NDArray[np.float32], calibration: Calibration
) -> Iterator[tuple[str, str, Faces]]:
    """What the faces are divided by, and which faces are of each kind; only those that exist.

    What may be no face is a kind of its own, and left out of the others.
    """
    yield "all", "all", np.ones(len(faces), bool)
    sure = np.array([face.is_sure for face in faces])
    known = sure & [face.parts is not None for face in faces]
    parts = [face.parts for face in faces if face.parts is not None and face.is_sure]
    for kind, value, which in (*_by_pose(parts), *_by_size(parts), *_by_looks(parts)):
        if which.any():
            whole = known.copy()
            whole[known] = which
            yield kind, value, whole
    if not sure.all():
        yield "looks", "may be no face", ~sure
    if calibration.cohort is not None and sure.any():
        near = calibration.cohort.nearness(embeddings)
        low, high = np.quantile(near[sure], (1 / 3, 2 / 3))
        yield "neighbourhood", "third with fewest look-alikes", sure & (near < low)
        yield "neighbourhood", "middle third", sure & (near >= low) & (near < high)
        yield "neighbourhood", "third with most look-alikes", sure & (near >= high)


def _by_pose(parts: Sequence[QualityParts]) -> list[tuple[str, str, Faces]]:
    yaw = np.array([abs(one.yaw) for one in parts])
    return [
        ("pose", f"turned by less than {TURNED:.0f}°", yaw < TURNED),
        ("pose", f"turned by {TURNED:.0f}° to {PROFILE:.0f}°", (yaw >= TURNED) & (yaw < PROFILE)),
        ("pose", f"turned by {PROFILE:.0f}° or more", yaw >= PROFILE),
    ]


def _by_size(parts: Sequence[QualityParts]) -> list[tuple[str, str, Faces]]:
    size = np.array([one.size for one in parts])
    few, many = FEW_PIXELS, MANY_PIXELS
    return [
        ("size", f"less than {few:.0f} pixels", size < few),
        ("size", f"{few:.0f} to {many:.0f} pixels", (size >= few) & (size < many)),
        ("size", f"{many:.0f} pixels or more", size >= many),
    ]


def _by_looks(parts: Sequence[QualityParts]) -> list[tuple[str, str, Faces]]:
    return [
        ("looks", "covered", np.array([one.covered >= LIKELY for one in parts])),
        ("looks", "child under 13", np.array([one.child >= LIKELY for one in parts])),
        ("looks", "blurred", np.array([one.sharpness < BLURRED for one in parts])),
    ]


def _rate(
    alone: Calibration,
    calibration: Calibration,
    kind: str,
    value: str,
    embeddings: NDArray[np.float32],
    far: float,
) -> KindRate:
    some = embeddings[:MOST]
    if len(some) * (len(some) - 1) / 2 * FROM_RATE < FEWEST_SEEN:
        return KindRate(kind, value, len(embeddings), None, None, None, None, few=True)
    model_alone = over_stated(alone, alone.tail(some), far)
    here, *drawn = (over_stated(calibration, tail, far) for tail in calibration.tails(some, DRAWS))
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return KindRate(kind, value, len(embeddings), model_alone, here, low, high, few=False)


def over_stated(calibration: Calibration, tail: Tail, far: float) -> float:
    """Estimated false accepts of faces at a false accept rate, over the stated ones; 1 is right.

    Args:
        calibration: states the rate.
        tail: of the faces, see `Calibration.tail`.
        far: the stated rate.

    Raises:
        CalibrationError: the calibration does not reach so low a rate.
    """
    return float(calibration.far(calibration.threshold(far) - tail.shift)) / far
