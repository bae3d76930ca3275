"""Draws a person on a canvas: shoulders, neck, hair, head and face, as shapes with soft edges.

Shapes are functions of head coordinates: pixels of the model's crop, with x to the right of the
centre of the face, and y down, the eyes at 51 and the mouth at 92. A rotation of the head shifts
points by the depth of a rounded head with a nose, so that features move more than the outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from face2vec.samples.model import LANDMARKS, Appearance, Floats

MIDDLE = 55.5  # x of the centre of the face in the crop
PIVOT = 60.0  # y of the axis of rotation
CROWN, EAR = -17.0, 60.0
SHORT = 75.0  # hair up to this length ends above the ears


@dataclass(frozen=True)
class Looks:
    """Properties that all photos of a person share besides the face; lengths in head coordinates.

    Attributes:
        width: half of the width of the head.
        chin: y of the chin.
        jaw: squareness of the jaw.
        hair: colour of the hair, RGB 0…255.
        volume: thickness of the hair outside the skull; 0 is bald.
        length: y of the lower end of the hair.
        hairline: y of the hairline at the centre of the forehead.
        temples: roundness of the hairline.
        parting: position of the parting, −1…1 from side to side.
        curls: curliness, 0…1.
        glasses: opacity of the frame of the glasses; 0 for no glasses.
        shoulders: half of the width of the shoulders.
        neck: width of the neck, as a fraction of that of the head.
        strands: float32 (512,), noise around 0 for the texture of the hair.
    """

    width: float
    chin: float
    jaw: float
    hair: tuple[float, float, float]
    volume: float
    length: float
    hairline: float
    temples: float
    parting: float
    curls: float
    glasses: float
    shoulders: float
    neck: float
    strands: Floats


@dataclass(frozen=True)
class Pose:
    """Position, scale and rotation of a head in a photo; angles in radians."""

    x: float  # centre of the face in pixels
    y: float
    scale: float  # pixels of the photo per unit of head coordinates
    roll: float
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Clothes:
    """Clothes of a person in one photo."""

    colour: tuple[float, float, float]
    stripes: float
    neckline: float


def depth(x: Floats, y: Floats) -> Floats:
    """Depth of points of the head.

    Args:
        x: floating, any shape; x in head coordinates, to the viewer's right of the centre.
        y: floating, same shape as ``x``; y in head coordinates, downwards.

    Returns:
        Floating, same shape as ``x``; z in head coordinates, towards the viewer.
    """
    ball = 1 - (x / 62) ** 2 - ((y - 52) / 82) ** 2
    nose = np.exp(-((x / 9) ** 2) - ((y - 70) / 15) ** 2)
    out: Floats = 46 * np.maximum(ball, 0) + 11 * nose
    return out


def turned(x: Floats, y: Floats, pose: Pose) -> tuple[Floats, Floats]:
    """Rotate points of the head.

    Args:
        x: floating, any shape; x in head coordinates, to the viewer's right of the centre.
        y: floating, same shape as ``x``; y in head coordinates, downwards.
        pose: pose of the head.

    Returns:
        The new x and y, floating, each of the same shape as ``x``.
    """
    z = depth(x, y) - 26
    near = 1 + z * 0.0009
    return (
        (x * math.cos(pose.yaw) + z * math.sin(pose.yaw)) * near,
        ((y - PIVOT) * math.cos(pose.pitch) - z * math.sin(pose.pitch)) * near + PIVOT,
    )


def unturned(x: Floats, y: Floats, pose: Pose) -> tuple[Floats, Floats]:
    """The inverse of `turned`, by fixed-point iteration.

    Args:
        x: floating, any shape; x in head coordinates, to the viewer's right of the centre.
        y: floating, same shape as ``x``; y in head coordinates, downwards.
        pose: pose of the head.

    Returns:
        x and y before the rotation, floating, each of the same shape as ``x``.
    """
    u, v = x, y
    for _ in range(4):
        rotated_x, rotated_y = turned(u, v, pose)
        u, v = u + (x - rotated_x), v + (y - rotated_y)
    return u, v


def in_photo(points: Floats, pose: Pose) -> Floats:
    """Convert points of the rotated head to pixels of the photo.

    Args:
        points: floating (n, 2), in head coordinates.
        pose: pose of the head in the photo.

    Returns:
        Floating (n, 2) in pixels of the photo.
    """
    cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
    x, y = points[:, 0], points[:, 1] - PIVOT
    return np.stack([pose.x + cos * x - sin * y, pose.y + sin * x + cos * y], 1)


def landmarks(face: Appearance, pose: Pose) -> Floats:
    """The five landmarks of a face.

    Args:
        face: shape of the face.
        pose: pose of the head in the photo.

    Returns:
        float32 (5, 2), in pixels of the photo.
    """
    moved = LANDMARKS + sampled(
        face.flow.transpose(1, 2, 0), LANDMARKS[:, 0] / 4 - 0.375, LANDMARKS[:, 1] / 4 - 0.375
    )
    return in_photo(np.stack(turned(moved[:, 0] - MIDDLE, moved[:, 1], pose), 1), pose)


def box(looks: Looks, pose: Pose) -> tuple[float, float, float, float]:
    """The box of a face, from the upper forehead to the chin and from cheek to cheek."""
    wide = looks.width * 0.9
    edge = np.array(
        [(-wide, 60), (wide, 60), (0, 9.5), (0, looks.chin + 1.5), (-wide * 0.75, 95),
         (wide * 0.75, 95), (-wide * 0.6, 14), (wide * 0.6, 14)],
        np.float32,
    )  # fmt: skip
    at = in_photo(np.stack(turned(edge[:, 0], edge[:, 1], pose), 1), pose)
    left, top = at.min(0)
    right, bottom = at.max(0)
    return float(left), float(top), float(right), float(bottom)


def sampled(plane: Floats, x: Floats, y: Floats) -> Floats:
    """Interpolate an image bilinearly.

    Args:
        plane: floating (h, w, c), the image.
        x: floating, any shape; columns, clipped to the image.
        y: floating, same shape as ``x``; rows, clipped to the image.

    Returns:
        Floating (…, c), the values at each x and y.
    """
    height, width = plane.shape[:2]
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right_part, low_part = (x - left)[..., None], (y - top)[..., None]
    flat = plane.reshape(-1, plane.shape[2])
    at = top * width + left
    upper = flat[at] + (flat[at + 1] - flat[at]) * right_part
    at += width
    lower = flat[at] + (flat[at + 1] - flat[at]) * right_part
    out: Floats = upper + (lower - upper) * low_part
    return out


def soft(distance: Floats, width: float) -> Floats:
    """A smooth step from 0 outside a shape to 1 inside it.

    Args:
        distance: floating, any shape; distance of each point from the edge, positive inside.
        width: width of the step, centred at the edge.

    Returns:
        Floating, same shape as ``distance``, 0…1.
    """
    part: Floats = np.clip(distance / width + 0.5, 0, 1)
    return part * part * (3 - 2 * part)


def draw(
    canvas: Floats, face: Appearance, looks: Looks, clothes: Clothes, pose: Pose, light: float
) -> None:
    """Draw a person on a canvas.

    Args:
        canvas: float32 (h, w, 3), RGB 0…255; changed in place.
        face: texture and shape of the face.
        looks: head, hair and build.
        clothes: clothes in this photo.
        pose: pose of the head.
        light: horizontal gradient of the light.
    """
    tone = face.skin[10:18, 8:20].mean((0, 1))
    part, x, y = _window(canvas, pose, (-100, -108, 100, max(80.0, looks.length - 40)))
    if part.size:
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)
        x, y = cos * x + sin * y, cos * y - sin * x + PIVOT
        u, v = unturned(x, y, pose)
        strands = _strands(u, v, looks) if looks.volume else np.ones_like(u)
        if looks.volume and looks.length > SHORT:
            _back_of_hair(part, u, v, strands, looks, pose)
    _body(canvas, looks, clothes, pose, tone)
    if part.size:
        rows, columns = _reached(
            np.abs(u) < looks.width + 8, (v > CROWN - 3) & (v < looks.chin + 3)
        )
        _head(part[rows, columns], u[rows, columns], v[rows, columns], face, looks, pose, light)
        if looks.volume:
            _hair(part, u, v, strands, looks, pose, light)


def _window(
    canvas: Floats, pose: Pose, reach: tuple[float, float, float, float]
) -> tuple[Floats, Floats, Floats]:
    """The part of the canvas that shapes can cover, and its head coordinates."""
    left, top, right, bottom = (pose.scale * value for value in reach)
    x0, y0 = max(0, int(pose.x + left)), max(0, int(pose.y + top))
    x1 = max(x0, min(canvas.shape[1], int(pose.x + right)))
    y1 = max(y0, min(canvas.shape[0], int(pose.y + bottom)))
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(pose.x)) / np.float32(pose.scale)
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(pose.y)) / np.float32(pose.scale)
    across, down = np.broadcast_arrays(x[None, :], y[:, None])
    return canvas[y0:y1, x0:x1], across, down


def _lay(part: Floats, colour: Floats, alpha: Floats) -> None:
    part += (colour - part) * alpha[..., None]


def _body(canvas: Floats, looks: Looks, clothes: Clothes, pose: Pose, tone: Floats) -> None:
    part, x, y = _window(canvas, pose, (-150, 0, 150, 400))
    if not part.size:
        return
    lean = math.tan(pose.roll * 0.4)
    x, y = x + y * lean, y + PIVOT
    edge = 1.6 / pose.scale + 0.6
    neck = looks.width * looks.neck + np.maximum(y - 132, 0) ** 2 / 60
    shadow = 0.66 + 0.30 * np.clip((y - looks.chin - 2) / 30, 0, 1) - 0.0045 * np.abs(x)
    _lay(part, tone * shadow[..., None], soft(neck - np.abs(x), edge) * ((y > 70) & (y < 172)))
    slope = 146 + 0.0042 * x * x + 14 * np.clip(np.abs(x) / looks.shoulders, 0, 1) ** 6
    collar = clothes.neckline - 0.035 * x * x
    top = np.where(np.abs(x) < looks.width * 0.75, np.maximum(slope, collar + 140), slope)
    outside = np.abs(x) - looks.shoulders - 6 * np.sin(y / 60)
    cloth = soft(y - top, edge) * soft(-outside, edge)
    folds = 0.9 + 0.1 * np.sin(x / 17 + y / 31) + 0.05 * np.sin(x / 7 - y / 13)
    folds += clothes.stripes * np.sign(np.sin(y / 4.5)) - 0.0022 * np.abs(x)
    _lay(part, np.array(clothes.colour, np.float32) * folds[..., None], cloth)


def _outline(x: Floats, y: Floats, width: float, top: float, chin: float, jaw: float) -> Floats:
    """Approximate distance of points inside the outline of a head."""
    upper = (50 - np.minimum(y, 50)) / (50 - top)
    lower = (np.maximum(y, 50) - 50) / (chin - 50)
    return (1 - (x / width) ** 2 - upper**2 - lower**jaw) * (width / 2)


def _reached(*conditions: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rows and columns that contain all points at which all conditions are true."""
    true = np.logical_and.reduce(conditions)
    rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _edge(pose: Pose) -> float:
    """Width of the soft edge of an outline, in head coordinates."""
    return 1.4 / pose.scale + 0.6


def _hair_width(u: Floats, v: Floats, looks: Looks) -> Floats:
    """Distance of points inside the outline of the hair."""
    top = CROWN - 1.25 * looks.volume
    volume = looks.volume * np.ones_like(v)
    if looks.length <= SHORT:
        volume *= 1 - np.clip((v - 5) / 45, 0, 1)
    dome = np.maximum(1 - ((50 - np.minimum(v, 50)) / (50 - top)) ** 2, 0)
    width = (looks.width + volume) * np.sqrt(dome)
    if looks.length > SHORT:
        sway = looks.curls * 4 * np.sin(v / 10 + looks.parting * 3 + 0.4 * np.sign(u))
        ending = np.clip((v - looks.length + 40) / 40, 0, 1)
        width += np.clip(v - 20, 0, 80) * 0.11 + sway * np.clip(v / 40, 0, 1)
        width -= 20 * ending**3
    steep = np.where(v < 50, 0.5 + 0.5 * np.sqrt(dome), 1)
    out: Floats = np.minimum((width - np.abs(u)) * steep, v - top)
    return out


def _back_of_hair(
    part: Floats, u: Floats, v: Floats, strands: Floats, looks: Looks, pose: Pose
) -> None:
    inside = soft(_hair_width(u, v, looks), _edge(pose) + 3)
    inside = inside * soft(looks.length - v + 14 * (strands - 1), 12)
    dark = 0.72 - 0.22 * np.clip(1 - np.abs(u) / looks.width, 0, 1)
    _lay(part, np.array(looks.hair, np.float32) * (dark * strands)[..., None], inside)


def _hair(
    part: Floats,
    u: Floats,
    v: Floats,
    strands: Floats,
    looks: Looks,
    pose: Pose,
    light: float,
) -> None:
    away = u - looks.parting * 5
    rough = 9 * (strands - 1)
    line = looks.hairline + 42 * (np.abs(away) / looks.width) ** looks.temples + rough
    line -= 4 * abs(looks.parting) * np.exp(-((away / 7) ** 2))
    inner = np.full_like(u, looks.width * 0.93)
    if looks.length > SHORT:
        inner -= looks.width * 0.10 * np.clip((v - 40) / 90, 0, 1)
        end = looks.length - v + 14 * (strands - 1)
    else:
        end = 58 - v + rough
    shown = np.maximum(soft(line - v, 9), soft(np.abs(u) - inner + 0.4 * rough, 6))
    shown = shown * soft(end, 12) * soft(_hair_width(u, v, looks) + 0.2 * rough, _edge(pose) + 2)
    tint = strands * (1.1 - 0.003 * np.clip(v + 10, 0, 120)) * (1 + light * u / 80)
    _lay(part, np.array(looks.hair, np.float32) * tint[..., None], shown)


def _back(flow: Floats) -> Floats:
    """The inverse flow: displacement of points of this face from those of the mean face."""
    y, x = np.mgrid[: flow.shape[1], : flow.shape[2]].astype(np.float32)
    forth = flow.transpose(1, 2, 0)
    back = forth
    for _ in range(3):
        back = sampled(forth, x - back[..., 0] / 4, y - back[..., 1] / 4)
    return back


def _head(
    part: Floats,
    u: Floats,
    v: Floats,
    face: Appearance,
    looks: Looks,
    pose: Pose,
    light: float,
) -> None:
    edge = _edge(pose)
    inside = _outline(u, v, looks.width, CROWN, looks.chin, looks.jaw)
    ear = 1 - ((np.abs(u) - looks.width - 0.5) / 6) ** 2 - ((v - EAR) / 15) ** 2
    coarse = np.concatenate([face.skin, _back(face.flow)], 2)
    around = sampled(coarse, (u + MIDDLE) / 4 - 0.375, v / 4 - 0.375)
    skin = around[..., :3]
    _lay(part, skin * 0.72, soft(ear * 5, edge))

    # The model's crop ends above the chin, where the face is blended into plain skin.
    mixed = soft(_outline(u, v, 43, 4, 113, 2.4) - 5, 12) * soft(106 - v, 8)
    texture = sampled(face.texture, u + MIDDLE - around[..., 3], v - around[..., 4])
    # Dark areas above the brows and beside the eyes are hair of the training faces.
    bare = np.maximum(soft(35 - v, 8), soft(np.abs(u) - 32, 6))[..., None]
    texture += bare * np.maximum(0.86 * skin - texture, 0)
    shade = 0.70 + 0.30 * np.clip(inside / 14, 0, 1) ** 0.7
    skin *= shade[..., None]
    skin += (texture - skin) * mixed[..., None]
    if looks.glasses:
        frame = np.abs(np.hypot((np.abs(u) - 20.6) / 15, (v - 53) / 11.5) - 1)
        bridge = (np.abs(v - 50) < 1.2) & (np.abs(u) < 6)
        bow = (np.abs(v - 50) < 1.1) & (np.abs(u) > 35)
        wire = np.maximum(soft(0.09 - frame, 0.1), (bridge | bow).astype(np.float32))
        skin *= (1 - looks.glasses * wire)[..., None]
    if looks.volume:  # the hair's shadow on the forehead
        skin *= (1 - 0.25 * soft(looks.hairline + 7 - v, 14))[..., None]
    skin *= (1 + light * u / 110)[..., None]
    _lay(part, skin, soft(inside, edge))


def _strands(u: Floats, v: Floats, looks: Looks) -> Floats:
    """Brightness around 1 along strands of hair from the parting."""
    around = np.arctan2(u - looks.parting * 14, 70 - np.minimum(v, 30))
    around = around + looks.curls * 0.10 * np.sin(v / 7 + 3 * around)
    coarse = _noise(looks.strands, around * 22)
    fine = _noise(looks.strands, around * 85 + v * 0.06)
    gloss = 0.25 * np.exp(-(((v + 2 + 0.006 * u * u) / 12) ** 2))
    out: Floats = 0.92 + 0.07 * coarse + 0.08 * fine + gloss
    return out


def _noise(values: Floats, at: Floats) -> Floats:
    """Periodic noise, interpolated linearly between its values."""
    low = np.floor(at)
    row = low.astype(np.int32) % len(values)
    out: Floats = values[row] + (values[(row + 1) % len(values)] - values[row]) * (at - low)
    return out
