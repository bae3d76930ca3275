"""Augmentation: crops as worse photos would show them (shifted, dark, small, noisy, occluded).

Every crop has its own random generator, so it depends only on the seed, the epoch and its number,
and not on threads or on earlier crops.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

ImageArray = NDArray[np.uint8]

WRONG_TURN, WRONG_STRETCH = 15.0, 0.15
"""Degrees, and a fraction: how far off a crop by wrong landmarks is."""
MASKS = ((235, 238, 240), (150, 195, 220), (25, 25, 28), (200, 205, 200), (90, 120, 150))
"""Colours of masks, RGB."""
SMALLEST = 24  # pixels per side; nobody is recognizable in a smaller crop


@dataclass(frozen=True)
class Augmentation:
    """Strength of the augmentation; every size is a fraction, every chance is 0…1.

    Attributes:
        flip: chance to be mirrored.
        shift: largest shift along each axis, as a fraction of the side.
        scale: largest change of size, as a fraction.
        turn: largest rotation in degrees.
        light: chance of changed brightness, contrast, gamma and tint.
        grey: chance to lose all colour.
        blur: chance to be blurred.
        low_resolution: chance to be scaled down, to no less than 24 pixels, and up again.
        jpeg: chance to be compressed, quality 15 to 85.
        noise: chance of sensor noise.
        occlusion: chance that a rectangle is covered.
        mask: chance that a mask is drawn over nose, mouth and chin.
        misaligned: chance of a turn of up to 15°, a stretch of one axis and a shear of up to 15 %
            each, as from landmarks that are wrong.
        dark: chance of little light, with the noise of a sensor in it.
        mix: chance to be blended with another crop of the batch; only for distillation, where the
            teacher gives the target of the blend.
    """

    flip: float = 0.5
    shift: float = 0.06
    scale: float = 0.08
    turn: float = 6.0
    light: float = 0.6
    grey: float = 0.05
    blur: float = 0.1
    low_resolution: float = 0.15
    jpeg: float = 0.15
    noise: float = 0.1
    occlusion: float = 0.15
    mask: float = 0.0
    misaligned: float = 0.0
    dark: float = 0.0
    mix: float = 0.0

    @classmethod
    def light_one(cls, mix: float = 0.0) -> Augmentation:
        """Weaker augmentation, for short trainings, which learn faster from clearer crops."""
        return cls(light=0.5, grey=0.04, blur=0.05, low_resolution=0.1, jpeg=0.1, noise=0.05,
                   occlusion=0.08, mix=mix)  # fmt: skip

    @classmethod
    def none(cls, mix: float = 0.0) -> Augmentation:
        """No augmentation."""
        return cls(**dict.fromkeys((f.name for f in fields(cls)), 0.0) | {"mix": mix})

    def apply(self, crop: ImageArray, side: int, rng: np.random.Generator) -> ImageArray:
        """One augmented crop.

        Args:
            crop: RGB uint8 (h, h, 3).
            side: side of the result in pixels.
            rng: source of all random choices.

        Returns:
            RGB uint8 (side, side, 3).
        """
        if self.mask and rng.random() < self.mask:
            crop = masked(crop, rng)
        wrong = self.misaligned > 0 and rng.random() < self.misaligned
        image = self._moved(crop, side, rng, wrong)
        if rng.random() < self.low_resolution:
            small = int(rng.uniform(min(SMALLEST, side // 2), 0.75 * side))
            image = image.resize((small, small), Image.Resampling.BOX)
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        if rng.random() < self.blur:
            image = image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.003, 0.02)))
        if rng.random() < self.jpeg:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=int(rng.integers(15, 86)))
            image = Image.open(file)
        pixels = np.asarray(image, np.uint8)
        if rng.random() < self.light:
            pixels = _in_other_light(pixels, rng)
        if self.dark and rng.random() < self.dark:
            pixels = _darkened(pixels, rng)
        if rng.random() < self.grey:
            grey = np.asarray(Image.fromarray(pixels).convert("L"))
            pixels = np.repeat(grey[..., None], 3, axis=2)
        if rng.random() < self.noise:
            noise = rng.normal(0, rng.uniform(2, 14), pixels.shape)
            pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        if rng.random() < self.occlusion:
            pixels = _hidden(pixels, rng)
        return pixels

    def _moved(
        self, crop: ImageArray, side: int, rng: np.random.Generator, wrong: bool
    ) -> Image.Image:
        from_side = crop.shape[0]
        grow = from_side / side * (1 + rng.uniform(-self.scale, self.scale))
        angle = math.radians(rng.uniform(-self.turn, self.turn))
        across, down = rng.uniform(-self.shift, self.shift, 2) * from_side
        mirrored = -1 if rng.random() < self.flip else 1
        # Reflected borders as wide as the farthest corner can move.
        reach = math.cos(math.radians(self.turn)) + math.sin(math.radians(self.turn))
        border = 1 + math.ceil(from_side * ((1 + self.scale) * reach / 2 - 0.5 + self.shift))
        stretch = np.eye(2)
        if wrong:
            angle += math.radians(rng.uniform(-WRONG_TURN, WRONG_TURN))
            stretch += rng.uniform(-WRONG_STRETCH, WRONG_STRETCH, (2, 2))
            border += math.ceil(from_side * 2 * WRONG_STRETCH)
        padded = np.pad(crop, ((border, border), (border, border), (0, 0)), "reflect")
        cosine, sine = grow * math.cos(angle), grow * math.sin(angle)
        middle = border + from_side / 2
        half = side / 2
        (a, b), (c, d) = np.array([(mirrored * cosine, -sine), (mirrored * sine, cosine)]) @ stretch
        matrix = (a, b, middle + across - half * (a + b), c, d, middle + down - half * (c + d))
        return Image.fromarray(padded).transform(
            (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )


def _in_other_light(pixels: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Brightness, contrast, gamma and a tint, as one lookup table per channel."""
    values = np.arange(256) / 255
    gamma, contrast = math.exp(rng.uniform(-0.4, 0.4)), math.exp(rng.uniform(-0.4, 0.3))
    brightness, tint = rng.uniform(-0.12, 0.12), rng.uniform(-0.08, 0.08, 3)
    curve = (values**gamma - 0.5) * contrast + 0.5 + brightness
    table = np.clip(255 * curve[:, None] * (1 + tint) + 0.5, 0, 255).astype(np.uint8)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=2)


def _darkened(pixels: ImageArray, rng: np.random.Generator) -> ImageArray:
    """An eighth to half of the light, partly brightened again, with the noise that this shows."""
    light = math.exp(rng.uniform(math.log(0.125), math.log(0.5)))
    again = light ** -rng.uniform(0.0, 0.9)
    noise = rng.normal(0, rng.uniform(1, 3), pixels.shape)
    dark: ImageArray = np.clip((pixels * light + noise) * again, 0, 255).astype(np.uint8)
    return dark


def masked(crop: ImageArray, rng: np.random.Generator) -> ImageArray:
    """A crop with a mask in one colour, from the bridge of the nose to below the chin.

    Args:
        crop: RGB uint8 (side, side, 3), aligned.
        rng: source of all random choices.

    Returns:
        RGB uint8 (side, side, 3).
    """
    side = crop.shape[0]
    top, cheek = rng.uniform(0.52, 0.66), rng.uniform(0.6, 0.72)
    left, right = rng.uniform(0.02, 0.24), rng.uniform(0.76, 0.98)
    chin = rng.uniform(0.94, 1.2)
    outline = [(left, cheek), (0.38, top + 0.02), (0.5, top), (0.62, top + 0.02), (right, cheek),
               (right - 0.06, 0.88), (0.66, chin), (0.34, chin), (left + 0.06, 0.88)]  # fmt: skip
    points = [(x * side, y * side) for x, y in outline]
    shape = Image.new("L", (side, side))
    ImageDraw.Draw(shape).polygon(points, fill=255)
    shape = shape.filter(ImageFilter.GaussianBlur(side * 0.006))
    colour = MASKS[rng.integers(len(MASKS))] if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    # Lit as the face below is: brighter and darker over a fifth of the crop.
    lit = Image.fromarray(crop).convert("L").filter(ImageFilter.GaussianBlur(side * 0.1))
    light = np.asarray(lit, np.float32)[..., None]
    shade = light / max(float(light.mean()), 1.0)
    for fold in rng.uniform(top + 0.1, 1.0, rng.integers(0, 3)):
        rows = np.arange(side)[:, None, None] / side
        shade = shade * (1 - 0.25 * np.exp(-(((rows - fold) / 0.01) ** 2)))
    cover = np.asarray(shape, np.float32)[..., None] / 255
    mask = np.clip(np.asarray(colour, np.float32) * shade, 0, 255)
    masked: ImageArray = (crop * (1 - cover) + mask * cover).astype(np.uint8)
    return masked


def _hidden(pixels: ImageArray, rng: np.random.Generator) -> ImageArray:
    """A rectangle of up to two fifths of each side in one colour, or in noise."""
    side = pixels.shape[0]
    height, width = rng.integers(side // 10, 2 * side // 5, 2)
    top, left = rng.integers(0, side - height), rng.integers(0, side - width)
    pixels = pixels.copy()
    if rng.random() < 0.5:
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    else:
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3))
    return pixels
