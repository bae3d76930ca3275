"""The quality of a face, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from face2vec.detection.opinion import SecondOpinion
from face2vec.pose import head_angles
from face2vec.types import SURE_OPINION, Face, Photo, QualityParts, Reason

LIKELY = 0.5  # of a child, of being covered
PROFILE = 45.0  # degrees of yaw
BLURRED = 0.15  # sharpness; three in a thousand faces of the photos of the calibrations have less
FEWEST_PIXELS = 24.0  # along a side of the crop; nobody is recognizable with fewer


def with_parts(photo: Photo, faces: Sequence[Face], opinion: SecondOpinion) -> list[Face]:
    """Faces with the parts of their quality.

    Args:
        photo: the photo with the faces.
        faces: faces with boxes and landmarks in pixels of the full photo.
        opinion: the second opinion on faces.
    """
    if not faces:
        return []
    landmarks = np.array([face.landmarks for face in faces], np.float64)
    angles = head_angles(landmarks)
    shown = (landmarks + 0.5) * photo.scale - 0.5  # in pixels of the image
    there = [
        replace(face, landmarks=tuple((float(x), float(y)) for x, y in points))  # type: ignore[arg-type]
        for face, points in zip(faces, shown, strict=True)
    ]
    return [
        replace(
            face,
            parts=QualityParts(
                face=said.face,
                size=said.size / photo.scale,
                sharpness=said.sharpness,
                yaw=float(yaw),
                pitch=float(pitch),
                roll=float(roll),
                covered=said.covered,
                child=said.child,
            ),
        )
        for face, said, (yaw, pitch, roll) in zip(
            faces, opinion(photo.image, there), angles, strict=True
        )
    ]


def quality(parts: QualityParts | None, detail: float) -> float:
    """One number for the fitness of a crop, 0…1: the product of what may be missing.

    Args:
        parts: what is known of the face; None for the detail alone.
        detail: pixels of the photo for each pixel of the crop.
    """
    enough = min(1.0, detail)
    if parts is None:
        return enough
    turned = max(0.0, math.cos(math.radians(parts.yaw))) ** 2
    return parts.face * enough * turned * (1 - parts.covered)


def outside(one: QualityParts | None, other: QualityParts | None) -> tuple[Reason, ...]:
    """Why a rate or a probability of two faces is less certain than stated.

    Calibrations are fitted on photos of adults who look at the camera.

    Args:
        one: what is known of the first face, or None.
        other: what is known of the second face, or None.

    Returns:
        The reasons in words; none if nothing is known of a face.
    """
    if one is None or other is None:
        return ()
    smallest = min(one.size, other.size)
    pixels = round(smallest)
    reasons = {
        Reason("one may be no face", "no-face"): min(one.face, other.face) < SURE_OPINION,
        Reason("both may be children under 13", "children"): (
            min(one.child, other.child) >= LIKELY
        ),
        Reason("both faces are covered", "covered"): min(one.covered, other.covered) >= LIKELY,
        Reason("both faces are in profile", "profile"): (
            min(abs(one.yaw), abs(other.yaw)) >= PROFILE
        ),
        Reason("both faces are blurred", "blurred"): max(one.sharpness, other.sharpness) < BLURRED,
        Reason(f"one crop has only {pixels} pixels", "few-pixels", {"pixels": pixels}): (
            smallest < FEWEST_PIXELS
        ),
    }
    return tuple(reason for reason, holds in reasons.items() if holds)
