"""Degradations drawn on or in front of a face: glasses, masks, words and paint.

Each is a pure function of a portrait, a strength and a random generator, as in `photographic`.
Positions are in the coordinates of the face, see `portraits.Frame`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from face2vec.lab.portraits import Frame, ImageArray, Points, Portrait, frame_of

Colour = tuple[int, int, int]
Outline = list[tuple[float, float]]

CHEEK, CROWN, CHIN = 1.15, -1.3, 1.95
"""Limits of a face to the side, above and below, in eye distances."""
FINE = 3  # supersampling factor for smooth edges
GREY: Colour = (128, 128, 128)
LENS: Colour = (22, 22, 26)
CLOTH: Colour = (158, 188, 206)
INKS: tuple[Colour, ...] = ((110, 30, 32), (24, 22, 24), (230, 228, 222), (38, 60, 118))
WORDS = ("NOT FOR SALE", "PREVIEW ONLY", "SAMPLE COPY", "ALL RIGHTS RESERVED")


def left_hidden(portrait: Portrait, share: float, rng: np.random.Generator) -> ImageArray:
    """Cover a share of the face's width in grey, from the viewer's left; 0.5 ends at the centre.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    return _hidden(portrait, -CHEEK, -CHEEK + 2 * CHEEK * share)


def right_hidden(portrait: Portrait, share: float, rng: np.random.Generator) -> ImageArray:
    """Cover a share of the face's width in grey, from the viewer's right.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    return _hidden(portrait, CHEEK - 2 * CHEEK * share, CHEEK)


def in_sunglasses(portrait: Portrait, opacity: float, rng: np.random.Generator) -> ImageArray:
    """Draw glasses with dark rims and lenses of a given opacity; with 0, only the rims.

    They follow the landmarks of the eyes, also in a rotated face.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    frame = frame_of(portrait.landmarks)
    eyes = [_in_frame(frame, point) for point in portrait.landmarks[:2]]
    half = min(0.42, 0.45 * (eyes[1][0] - eyes[0][0]))
    lenses = [_rounded(x, y + 0.06, half, 0.34) for x, y in eyes]

    def lens(draw: Draw) -> None:
        for outline in lenses:
            draw.area(outline)

    def rims(draw: Draw) -> None:
        for outline in lenses:
            draw.line([*outline, outline[0]], 0.06)
        (left, high), (right, low) = eyes
        draw.line([(left + half, high), (right - half, low)], 0.06)
        draw.line([(left - half, high - 0.04), (-CHEEK, high - 0.08)], 0.06)
        draw.line([(right + half, low - 0.04), (CHEEK, low - 0.08)], 0.06)

    return _painted(_painted(portrait.image, frame, lens, LENS, opacity), frame, rims, LENS)


def in_mask(portrait: Portrait, share: float, rng: np.random.Generator) -> ImageArray:
    """Draw a mask from the chin over the mouth and ``share`` of the way from mouth to eyes.

    With 0.3 it ends below the nose, with 0.65 above it.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    frame = frame_of(portrait.landmarks)
    top = frame.mouth * (1 - share)
    outline = [
        *((-0.92, top + 0.14), (-0.4, top + 0.03), (0.0, top), (0.4, top + 0.03)),
        *((0.92, top + 0.14), (0.86, 1.25), (0.55, 1.68), (0.2, 1.88)),
        *((-0.2, 1.88), (-0.55, 1.68), (-0.86, 1.25)),
    ]

    def cloth(draw: Draw) -> None:
        draw.area(outline)

    def folds(draw: Draw) -> None:
        for part in (0.3, 0.5, 0.7):
            y = top + part * (1.8 - top)
            draw.line([(-0.8, y - 0.04), (0.0, y), (0.8, y - 0.04)], 0.02)

    def bands(draw: Draw) -> None:
        for side in (-1, 1):
            draw.line([(side * 0.92, top + 0.16), (side * CHEEK, 0.1)], 0.04)
            draw.line([(side * 0.86, 1.25), (side * CHEEK, 0.75)], 0.04)

    masked = _painted(portrait.image, frame, cloth, CLOTH)
    masked = _painted(masked, frame, folds, (122, 152, 172))
    return _painted(masked, frame, bands, (225, 228, 230))


def printed(portrait: Portrait, lines: float, rng: np.random.Generator) -> ImageArray:
    """Print lines of white words over the face; letters are a quarter of an eye distance high.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    frame = frame_of(portrait.landmarks)
    size = max(round(0.34 * frame.unit * FINE), 4)
    font = ImageFont.load_default(size)
    count = int(lines)
    middles = np.linspace(-0.55, 1.55, 2 * count + 1)[1::2]
    words = [WORDS[int(n)] for n in rng.permutation(len(WORDS))]
    side = round(3 * frame.unit * FINE)
    page = Image.new("L", (side, side))
    pen = ImageDraw.Draw(page)
    for line, middle in enumerate(middles):
        at = (side / 2, side / 2 + middle * frame.unit * FINE)
        pen.text(at, words[line % len(words)], fill=255, font=font, anchor="mm")
    return _mixed(portrait.image, _onto_face(page, frame, portrait.image), (255, 255, 255), 0.92)


def marked(portrait: Portrait, count: float, rng: np.random.Generator) -> ImageArray:
    """Draw strokes of paint on the skin, up to half an eye distance long, at random positions.

    With the same random numbers, a larger count adds strokes to those of a smaller count.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    frame = frame_of(portrait.landmarks)
    strokes: list[list[tuple[Outline, float]]] = [[] for _ in INKS]
    for _ in range(int(count)):
        radius, angle = math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        slope = rng.uniform(0, 7)
        length, width = rng.uniform(0.12, 0.5), rng.uniform(0.03, 0.1)
        x, y = 0.82 * radius * math.cos(angle), 0.5 + 1.15 * radius * math.sin(angle)
        across, down = length / 2 * math.cos(slope), length / 2 * math.sin(slope)
        ends = [(x - across, y - down), (x + across, y + down)]
        strokes[int(rng.integers(len(INKS)))].append((ends, width))
    image = portrait.image
    for ink, lines in zip(INKS, strokes, strict=True):
        if lines:
            image = _painted(image, frame, partial(_draw_lines, lines), ink, 0.9)
    return image


def _draw_lines(lines: list[tuple[Outline, float]], draw: Draw) -> None:
    for ends, width in lines:
        draw.line(ends, width)


class Draw:
    """Draws areas and lines in face coordinates, on a plane ``FINE`` times as large as the image.

    Args:
        plane: the plane to draw on.
        frame: the frame of the face.
    """

    def __init__(self, plane: Image.Image, frame: Frame) -> None:
        self._pen = ImageDraw.Draw(plane)
        self._frame = frame

    def area(self, outline: Outline) -> None:
        """Fill an outline."""
        self._pen.polygon(self._points(outline), fill=255)

    def line(self, points: Outline, width: float) -> None:
        """Draw a line with round ends; its width is in eye distances."""
        thick = max(width * self._frame.unit * FINE, FINE)
        at = self._points(points)
        self._pen.line(at, fill=255, width=round(thick), joint="curve")
        for x, y in (at[0], at[-1]):
            self._pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), 255)

    def _points(self, points: Outline) -> Outline:
        return [
            ((x + 0.5) * FINE - 0.5, (y + 0.5) * FINE - 0.5) for x, y in self._frame.place(points)
        ]


def _hidden(portrait: Portrait, first: float, last: float) -> ImageArray:
    outline = [(first, CROWN), (last, CROWN), (last, CHIN), (first, CHIN)]

    def cover(draw: Draw) -> None:
        draw.area(outline)

    return _painted(portrait.image, frame_of(portrait.landmarks), cover, GREY)


def _painted(
    image: ImageArray,
    frame: Frame,
    paint: Callable[[Draw], None],
    colour: Colour,
    opacity: float = 1.0,
) -> ImageArray:
    """Mix a colour into the image in the area that ``paint`` draws."""
    height, width = image.shape[:2]
    plane = Image.new("L", (width * FINE, height * FINE))
    paint(Draw(plane, frame))
    return _mixed(image, np.asarray(plane.reduce(FINE)), colour, opacity)


def _mixed(image: ImageArray, where: ImageArray, colour: Colour, opacity: float) -> ImageArray:
    share = opacity * where[..., None] / 255
    mixed = image * (1 - share) + np.asarray(colour) * share
    return np.asarray(np.rint(mixed), np.uint8)


def _onto_face(page: Image.Image, frame: Frame, image: ImageArray) -> ImageArray:
    """Rotate a square page, ``FINE`` times as large, with the face, centred between the eyes."""
    height, width = image.shape[:2]
    cosine, sine = frame.across / frame.unit
    x, y = frame.middle + 0.5
    half = page.width / 2
    matrix = (
        *(FINE * cosine, FINE * sine, half - FINE * (cosine * x + sine * y)),
        *(-FINE * sine, FINE * cosine, half - FINE * (cosine * y - sine * x)),
    )
    # Averaged first, because the transform takes only one sample per pixel of the image.
    blurred = page.reduce(FINE).resize(page.size, Image.Resampling.BILINEAR)
    return np.asarray(
        blurred.transform(
            (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
    )


def _in_frame(frame: Frame, point: Points) -> tuple[float, float]:
    """Convert a point of the image to coordinates of the frame."""
    base = np.stack([frame.across, frame.down], axis=1)
    x, y = np.linalg.solve(base, point - frame.middle)
    return float(x), float(y)


def _rounded(x: float, y: float, half_width: float, half_height: float) -> Outline:
    """The outline of a lens, a superellipse."""
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)

    def bent(value: float) -> float:
        return math.copysign(abs(value) ** 0.7, value)

    return [
        (x + half_width * bent(math.cos(angle)), y + half_height * bent(math.sin(angle)))
        for angle in angles
    ]
