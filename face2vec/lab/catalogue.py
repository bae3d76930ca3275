"""The degradations of the laboratory, with their steps and headings."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from face2vec.errors import SettingsError
from face2vec.lab import drawn, photographic
from face2vec.lab.portraits import ImageArray, Portrait

Heading = Literal[
    "Expression and angle",
    "Light",
    "Marks",
    "Action",
    "Half a face",
    "Words",
    "Eyewear",
    "Origin",
    "The photo itself",
]
HEADINGS: tuple[Heading, ...] = (
    *("Expression and angle", "Light", "Marks", "Action", "Half a face", "Words", "Eyewear"),
    *("Origin", "The photo itself"),
)


@dataclass(frozen=True, eq=False)
class Degradation:
    """One way of degrading photos.

    Attributes:
        name: name on the command line.
        title: title in reports.
        heading: heading of the report to which it belongs.
        apply: returns the degraded image of a portrait; a pure function of its three arguments.
        steps: strengths, mildest first, in the unit of ``apply``.
        ordinary: the step that is common in photos, by which a model is judged.
        label: format of a step's label, with ``{}`` for the strength and ``{s}`` for a plural s.
        paper: VAL at FAR 1e-3 of the FaceNet paper's NN1 at some of the steps, 0…1.
        description: description of the strength.
    """

    name: str
    title: str
    heading: Heading
    apply: Callable[[Portrait, float, np.random.Generator], ImageArray]
    steps: tuple[float, ...]
    ordinary: float
    label: str
    description: str
    paper: tuple[tuple[float, float], ...] = ()

    def step_label(self, strength: float) -> str:
        """Label of a step."""
        label = self.label.format(strength, s="" if strength == 1 else "s")
        return label.replace("-", "−")

    def image(self, portrait: Portrait, strength: float, seed: int, number: int) -> ImageArray:
        """Degrade one portrait.

        Random choices depend only on the seed, the degradation and the portrait's number. Thus a
        stronger step continues a milder one.

        Args:
            portrait: the portrait.
            strength: strength of the step.
            seed: seed of random choices.
            number: number of the portrait.

        Returns:
            RGB uint8 (height, width, 3).
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), number])
        return self.apply(portrait, strength, rng)


# FaceNet (Schroff, Kalenichenko, Philbin, 2015), section 5.3, both halves of the table on image
# quality.
PAPER_QUALITY = ((90, 0.864), (70, 0.861), (50, 0.855), (30, 0.839), (20, 0.814), (10, 0.673))
PAPER_PIXELS = ((65_536, 0.864), (25_600, 0.857), (14_400, 0.845), (6_400, 0.795), (1_600, 0.378))

DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation(
        "rotation", "Turned in the plane", "Expression and angle", photographic.turned,
        (10, 20, 30, 45, 90), 20, "{:g}°",
        "Angle in degrees, in either direction; the photo is not rotated back.",
    ),
    Degradation(
        "darker", "Less light", "Light", photographic.exposed,
        (-1, -2, -3, -4, -5), -2, "{:+g} EV",
        "Stops of exposure. Each halves the light. Shades are lost, because files have 8 bits.",
    ),
    Degradation(
        "brighter", "Too much light", "Light", photographic.exposed,
        (1, 2, 3), 1, "{:+g} EV",
        "Stops of exposure. Each doubles the light. Values above white are clipped.",
    ),
    Degradation(
        "side-light", "Light from one side", "Light", photographic.lit_from_one_side,
        (1, 2, 3, 4), 2, "{:g} EV",
        "Number of stops by which one side of the face is darker than the other.",
    ),
    Degradation(
        "marks", "Paint on the skin", "Marks", drawn.marked,
        (3, 6, 12, 24), 6, "{:.0f} stroke{s}",
        "Strokes of dark and light paint at random positions, like scars, tattoos or face paint.",
    ),
    Degradation(
        "motion", "Moved while it was taken", "Action", photographic.moved,
        (0.1, 0.2, 0.4, 0.6), 0.2, "{:g}",
        "Length of the motion blur as a fraction of the eye distance.",
    ),
    Degradation(
        "blur", "Out of focus", "Action", photographic.blurred,
        (0.03, 0.06, 0.1, 0.15, 0.2), 0.06, "{:g}",
        "Standard deviation of a Gaussian blur as a fraction of the eye distance.",
    ),
    Degradation(
        "left-hidden", "Hidden from the viewer's left", "Half a face", drawn.left_hidden,
        (0.25, 0.5, 0.65), 0.5, "{:.0%}",
        "Share of the face's width that is covered in grey.",
    ),
    Degradation(
        "right-hidden", "Hidden from the viewer's right", "Half a face", drawn.right_hidden,
        (0.25, 0.5, 0.65), 0.5, "{:.0%}",
        "Share of the face's width that is covered in grey.",
    ),
    Degradation(
        "mask", "A mask", "Half a face", drawn.in_mask,
        (0.3, 0.65), 0.65, "{:.0%}",
        "Height of the mask between mouth and eyes: 30 % is below the nose, 65 % above it.",
    ),
    Degradation(
        "words", "Printed words", "Words", drawn.printed,
        (1, 2, 3, 5), 2, "{:.0f} line{s}",
        "Lines of white words; letters are a quarter of the eye distance high.",
    ),
    Degradation(
        "sunglasses", "Sunglasses", "Eyewear", drawn.in_sunglasses,
        (0.0, 0.6, 1.0), 1.0, "{:.0%} dark",
        "Share of the light that the lenses absorb; 0 % is the rims only.",
    ),
    Degradation(
        "jpeg", "JPEG quality", "The photo itself", photographic.compressed,
        (90, 70, 50, 30, 20, 10), 50, "q{:.0f}",
        "Quality setting of libjpeg.",
        PAPER_QUALITY,
    ),
    Degradation(
        "size", "Size of the face", "The photo itself", photographic.small,
        (65_536, 25_600, 14_400, 6_400, 3_600, 1_600, 900), 6_400, "{:,.0f} px",
        "Square pixels of the face's box; smaller faces are unchanged.",
        PAPER_PIXELS,
    ),
    Degradation(
        "noise", "Noise", "The photo itself", photographic.noisy,
        (10, 20, 40, 60), 20, "sd {:g}",
        "Standard deviation in grey levels, 0…255.",
    ),
)  # fmt: skip
NAMES = tuple(one.name for one in DEGRADATIONS)


def chosen(names: Iterable[str] = ()) -> tuple[Degradation, ...]:
    """Degradations by name, in the catalogue's order.

    Args:
        names: names of the degradations; if empty, all.

    Raises:
        SettingsError: there is no degradation of that name.
    """
    wanted = set(names)
    if unknown := sorted(wanted - set(NAMES)):
        raise SettingsError(
            f"there is no degradation {', '.join(unknown)}; use any of {', '.join(NAMES)}"
        )
    return tuple(one for one in DEGRADATIONS if not wanted or one.name in wanted)
