"""Degradations by cameras, light and file formats.

Each is a pure function of a portrait, a strength and a random generator.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from face2vec.lab.portraits import ImageArray, Portrait, frame_of, smaller

Floats = NDArray[np.float64]


def compressed(portrait: Portrait, quality: float, rng: np.random.Generator) -> ImageArray:
    """Compress as JPEG with a quality of libjpeg, 1…95, and 4:2:0 chroma subsampling.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    file = io.BytesIO()
    Image.fromarray(portrait.image).save(file, "JPEG", quality=int(quality), subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))


def small(portrait: Portrait, area: float, rng: np.random.Generator) -> ImageArray:
    """Reduce the photo so that the face's box has ``area`` square pixels.

    A smaller face is left unchanged.

    Returns:
        RGB uint8 (height, width, 3).
    """
    return smaller(portrait, area).image


def blurred(portrait: Portrait, sigma: float, rng: np.random.Generator) -> ImageArray:
    """Blur with a Gaussian whose standard deviation is ``sigma`` eye distances.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    radius = sigma * frame_of(portrait.landmarks).unit
    return np.asarray(Image.fromarray(portrait.image).filter(ImageFilter.GaussianBlur(radius)))


def moved(portrait: Portrait, length: float, rng: np.random.Generator) -> ImageArray:
    """Blur by motion along a line of ``length`` eye distances in a random direction.

    The length is exact to fractions of a pixel, because the blur is a sinc in Fourier space.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    reach = length * frame_of(portrait.landmarks).unit
    angle = rng.uniform(0, math.pi)
    border = math.ceil(reach / 2) + 1
    # The padding prevents the opposite border from wrapping around.
    padded = np.pad(portrait.image, ((border,) * 2, (border,) * 2, (0, 0)), "edge")
    height, width = padded.shape[:2]
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    kept = np.sinc(reach * (across * math.cos(angle) + down * math.sin(angle)))
    waves = np.fft.rfft2(padded, axes=(0, 1)) * kept[..., None]
    mean = np.fft.irfft2(waves, (height, width), axes=(0, 1))
    return _eight_bits(mean[border:-border, border:-border])


def noisy(portrait: Portrait, deviation: float, rng: np.random.Generator) -> ImageArray:
    """Add Gaussian noise with a standard deviation in grey levels, independent per channel.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    return _eight_bits(portrait.image + rng.normal(0, deviation, portrait.image.shape))


def turned(portrait: Portrait, degrees: float, rng: np.random.Generator) -> ImageArray:
    """Rotate in the plane about the centre of the face, in a random direction.

    The corners are filled with the mean colour of the photo.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    image = Image.fromarray(portrait.image)
    fill = tuple(round(float(value)) for value in portrait.image.mean(axis=(0, 1)))
    about = portrait.landmarks.mean(axis=0) + 0.5
    angle = degrees if rng.random() < 0.5 else -degrees
    return np.asarray(
        image.rotate(
            angle,
            Image.Resampling.BICUBIC,
            center=(float(about[0]), float(about[1])),
            fillcolor=fill,
        )
    )


def exposed(portrait: Portrait, stops: float, rng: np.random.Generator) -> ImageArray:
    """Multiply linear light by 2^``stops``, clipped at white.

    The sRGB transfer function is that of IEC 61966-2-1.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    table = _srgb(np.clip(_linear(np.arange(256) / 255) * 2.0**stops, 0, 1))
    return _eight_bits(255 * table)[portrait.image]


def lit_from_one_side(portrait: Portrait, stops: float, rng: np.random.Generator) -> ImageArray:
    """Darken a random side of the face to 2^−``stops`` times the light of the other side.

    Linear light decreases smoothly between the outer corners of the eyes.

    Returns:
        RGB uint8 (height, width, 3), as large as the portrait's image.
    """
    frame = frame_of(portrait.landmarks)
    height, width = portrait.image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    offsets = np.stack([columns, rows], axis=2) - frame.middle
    along = offsets @ frame.across
    side = 1 if rng.random() < 0.5 else -1
    place = np.clip(0.5 + side * along / frame.unit**2 / 1.6, 0, 1)
    dark = place * place * (3 - 2 * place)
    light = _linear(portrait.image / 255) * (2.0 ** (-stops * dark))[..., None]
    return _eight_bits(255 * _srgb(light))


def _linear(values: Floats) -> Floats:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _srgb(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _eight_bits(pixels: Floats) -> ImageArray:
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)
