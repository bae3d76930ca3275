"""What the laboratory does to photos, in which steps, under which heading."""

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
    """One way of making photos worse.

    Attributes:
        name: as the command line takes it.
        title: in words.
        heading: of the report, that it stands under.
        apply: the portrait's image at a strength; a pure function of its three arguments.
        steps: strengths, mildest first, in the unit that ``apply`` states.
        ordinary: the one of the steps that is common enough in photos to judge a model by.
        label: of a step, with ``{}`` for the strength and ``{s}`` for the end of a plural.
        paper: VAL at FAR 1e-3 of the FaceNet paper's NN1 at some of the steps, 0…1.
        says: what a step is, in a sentence.
    """

    name: str
    title: str
    heading: Heading
    apply: Callable[[Portrait, float, np.random.Generator], ImageArray]
    steps: tuple[float, ...]
    ordinary: float
    label: str
    says: str
    paper: tuple[tuple[float, float], ...] = ()

    def step_label(self, strength: float) -> str:
        """A step in words."""
        words = self.label.format(strength, s="" if strength == 1 else "s")
        return words.replace("-", "−")

    def image(self, portrait: Portrait, strength: float, seed: int, number: int) -> ImageArray:
        """One portrait at one step.

        What is random depends on the seed, the degradation and the portrait's number alone, so
        that a stronger step does more of the same.

        Returns:
            RGB uint8 (height, width, 3).
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), number])
        return self.apply(portrait, strength, rng)


# FaceNet (Schroff, Kalenichenko, Philbin, 2015), section 5.3, the two halves of its table on
# image quality.
PAPER_QUALITY = ((90, 0.864), (70, 0.861), (50, 0.855), (30, 0.839), (20, 0.814), (10, 0.673))
PAPER_PIXELS = ((65_536, 0.864), (25_600, 0.857), (14_400, 0.845), (6_400, 0.795), (1_600, 0.378))

DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation(
        "rotation", "Turned in the plane", "Expression and angle", photographic.turned,
        (10, 20, 30, 45, 90), 20, "{:g}°",
        "Degrees, one way or the other; the photo is not turned back before the search.",
    ),
    Degradation(
        "darker", "Less light", "Light", photographic.exposed,
        (-1, -2, -3, -4, -5), -2, "{:+g} EV",
        "Stops: each halves the light; the file has 8 bits, so shades are lost.",
    ),
    Degradation(
        "brighter", "Too much light", "Light", photographic.exposed,
        (1, 2, 3), 1, "{:+g} EV",
        "Stops: each doubles the light; what is beyond white is white.",
    ),
    Degradation(
        "side-light", "Light from one side", "Light", photographic.lit_from_one_side,
        (1, 2, 3, 4), 2, "{:g} EV",
        "How many stops darker one side of the face is than the other.",
    ),
    Degradation(
        "marks", "Paint on the skin", "Marks", drawn.marked,
        (3, 6, 12, 24), 6, "{:.0f} stroke{s}",
        "Strokes of dark and light paint at random places, for scars, tattoos and face paint.",
    ),
    Degradation(
        "motion", "Moved while it was taken", "Action", photographic.moved,
        (0.1, 0.2, 0.4, 0.6), 0.2, "{:g}",
        "Length of the blur as a part of the distance between the eyes.",
    ),
    Degradation(
        "blur", "Out of focus", "Action", photographic.blurred,
        (0.03, 0.06, 0.1, 0.15, 0.2), 0.06, "{:g}",
        "Standard deviation of a Gaussian as a part of the distance between the eyes.",
    ),
    Degradation(
        "left-hidden", "Hidden from the viewer's left", "Half a face", drawn.left_hidden,
        (0.25, 0.5, 0.65), 0.5, "{:.0%}",
        "Share of the face's width that is grey.",
    ),
    Degradation(
        "right-hidden", "Hidden from the viewer's right", "Half a face", drawn.right_hidden,
        (0.25, 0.5, 0.65), 0.5, "{:.0%}",
        "Share of the face's width that is grey.",
    ),
    Degradation(
        "mask", "A mask", "Half a face", drawn.in_mask,
        (0.3, 0.65), 0.65, "{:.0%}",
        "How far it goes from the mouth up to the eyes: 30 % is under the nose, 65 % over it.",
    ),
    Degradation(
        "words", "Printed words", "Words", drawn.printed,
        (1, 2, 3, 5), 2, "{:.0f} line{s}",
        "Lines of white words, letters a quarter of the distance between the eyes high.",
    ),
    Degradation(
        "sunglasses", "Sunglasses", "Eyewear", drawn.in_sunglasses,
        (0.0, 0.6, 1.0), 1.0, "{:.0%} dark",
        "How much of the light the lenses hold back; 0 % is rims alone.",
    ),
    Degradation(
        "jpeg", "JPEG quality", "The photo itself", photographic.compressed,
        (90, 70, 50, 30, 20, 10), 50, "q{:.0f}",
        "Quality as libjpeg counts it.",
        PAPER_QUALITY,
    ),
    Degradation(
        "size", "Size of the face", "The photo itself", photographic.small,
        (65_536, 25_600, 14_400, 6_400, 3_600, 1_600, 900), 6_400, "{:,.0f} px",
        "Square pixels of the face's box; a face that has no more is left as it is.",
        PAPER_PIXELS,
    ),
    Degradation(
        "noise", "Noise", "The photo itself", photographic.noisy,
        (10, 20, 40, 60), 20, "sd {:g}",
        "Standard deviation in grey levels of 255.",
    ),
)  # fmt: skip
NAMES = tuple(one.name for one in DEGRADATIONS)


def chosen(names: Iterable[str] = ()) -> tuple[Degradation, ...]:
    """The degradations of these names, in the catalogue's order; all of them for none.

    Raises:
        SettingsError: there is no degradation of such a name.
    """
    wanted = set(names)
    if unknown := sorted(wanted - set(NAMES)):
        raise SettingsError(f"no degradation {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return tuple(one for one in DEGRADATIONS if not wanted or one.name in wanted)
