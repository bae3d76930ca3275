"""Backgrounds of drawn people, lighting, and the effects of a camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from face2vec.samples.drawing import soft
from face2vec.samples.model import Floats, Pixels


def developed(canvas: Floats, reduction: int, rng: np.random.Generator) -> Pixels:
    """Apply lighting, blur and noise to a canvas.

    Args:
        canvas: float32 (h, w, 3), RGB 0…255.
        reduction: pixels of the canvas per pixel of the photo, in each direction.
        rng: random generator for lighting, blur and noise.

    Returns:
        RGB uint8 (h / reduction, w / reduction, 3).
    """
    canvas = canvas * lighting(canvas.shape[0], canvas.shape[1], rng)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if reduction > 1:
        image = image.reduce(reduction)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9) ** 2))
    pixels = np.asarray(image).astype(np.float32)
    noise = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
    pixels += noise * np.float32(rng.uniform(1, 5))
    out: Pixels = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return out


def background(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Draw a random blurred background.

    Args:
        width: width in pixels.
        height: height in pixels.
        rng: random generator.

    Returns:
        float32 (height, width, 3), RGB 0…255.
    """
    base, hue = rng.uniform(50, 210), rng.uniform(-14, 14, 3)
    cells = int(rng.integers(2, 9))
    coarse = base + hue + rng.normal(0, rng.uniform(4, 35), (cells, cells, 1))
    coarse = coarse + rng.normal(0, rng.uniform(0, 8), (cells, cells, 3))
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    small = small.resize((max(width // 4, 1), max(height // 4, 1)), Image.Resampling.BICUBIC)
    pixels = np.array(small).astype(np.float32)
    for _ in range(int(rng.integers(0, 7))):  # rectangles, such as furniture and windows
        x0, y0 = rng.uniform(-0.2, 0.9, 2) * (pixels.shape[1], pixels.shape[0])
        w, h = rng.uniform(0.05, 0.5, 2) * (pixels.shape[1], pixels.shape[0] * 1.5)
        part = pixels[max(int(y0), 0) : max(int(y0 + h), 0), max(int(x0), 0) : max(int(x0 + w), 0)]
        part += (base + rng.normal(0, 45) + rng.normal(0, 12, 3) - part) * rng.uniform(0.3, 0.9)
    small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    small = small.filter(ImageFilter.GaussianBlur(rng.uniform(1, 5) * max(width, 200) / 800))
    return np.array(small.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32)


def lighting(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Draw random lighting: exposure, colour, fall-off, and sometimes a shadow.

    Args:
        height: height in pixels.
        width: width in pixels.
        rng: random generator.

    Returns:
        float32 (height, width, 3), factors for the pixels.
    """
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, 2 * np.pi)
    across = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    field = np.float32(np.exp(rng.normal(0, 0.12))) * (1 + np.float32(rng.normal(0, 0.1)) * across)
    if rng.random() < 0.25:
        dark = np.float32(rng.uniform(0.12, 0.35))
        field = field * (1 - dark * soft(across - np.float32(rng.uniform(-0.3, 0.5)), 0.35))
    warm = rng.normal(0, 0.05)
    colour = np.array([1 + warm, 1, 1 - warm], np.float32)
    return field[..., None] * colour
