"""Augmented crops for `train.py`, on a GPU or a processor.

Crops are turned, stretched and mirrored, a part of them more than a face is when its landmarks are
wrong, and seen in another light. A part has a mask drawn on, or is small, blurred, compressed,
dark, noisy, grey or covered.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from network import SIDE
from PIL import Image, ImageDraw, ImageFilter

AS_IT_IS = 0.2  # share of crops that are not moved
WRONG = 0.15  # share of crops that are moved as by wrong landmarks
MASKS_DRAWN = 512
COLOURS = ((235, 238, 240), (150, 195, 220), (25, 25, 28), (200, 205, 200), (90, 120, 150))
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""Quantisation of luminance at quality 50 (ITU-T T.81, annex K.1)."""


class Crops:
    """Makes batches of crops.

    Attributes:
        faces: the faces, uint8 (n, 3, 112, 112).

    Args:
        batch: crops in a batch.
        device: ``"cuda"`` or ``"cpu"``.
        folder: where ``faces-*.npy`` are, uint8 (n, 3, 112, 112).
    """

    def __init__(self, batch: int, device: str, folder: Path) -> None:
        self.batch, self.device = batch, device
        parts = [np.load(path) for path in sorted(folder.glob("faces-*.npy"))]
        if not parts:
            raise SystemExit(f"{folder} has no files faces-*.npy; see faces.py")
        self.faces = torch.from_numpy(np.concatenate(parts)).to(device)
        self._order = torch.empty(0, dtype=torch.long)
        self._masks = torch.from_numpy(_masks(MASKS_DRAWN)).to(device)
        self._colours = torch.tensor(COLOURS, dtype=torch.float32, device=device) / 127.5 - 1
        waves, places = np.arange(8)[:, None], np.arange(8)[None]
        cosines = np.cos((2 * places + 1) * waves * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        self._cosines = torch.tensor(cosines, dtype=torch.float32, device=device)
        self._quantisation = torch.tensor(LUMINANCE, dtype=torch.float32, device=device)
        across = (torch.arange(SIDE, device=device) + 0.5) / SIDE * 2 - 1
        self._y, self._x = torch.meshgrid(across, across, indexing="ij")
        self._grey = torch.tensor((0.299, 0.587, 0.114), device=device)[:, None, None]
        sigmas = SIDE * np.linspace(0.003, 0.02, 64)[:, None]
        reach = np.exp(-0.5 * (np.arange(-5, 6) / sigmas) ** 2)
        reach /= reach.sum(1, keepdims=True)
        self._soft = torch.tensor(reach, dtype=torch.float32, device=device)

    def make(self, strength: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The next faces in random order: int64 (n,) rows, and float32 (n, 3, 112, 112), −1…1.

        Args:
            strength: how unlike the faces themselves the crops are, 0…1. It changes how far they
                are moved, and how many have a mask.
        """
        with torch.no_grad():
            rows = self._rows()
            x = self._masked(standardized(self.faces[rows]), 0.1 * strength)
            x = self._in_other_light(self._moved(x, strength), strength)
            return rows, self._worse(x).clamp_(-1, 1)

    # Inside

    def _uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(self.batch, *shape, device=self.device) * (high - low) + low

    def _chance(self, share: float) -> torch.Tensor:
        return torch.rand(self.batch, 1, 1, 1, device=self.device) < share

    def _some(self, share: float) -> torch.Tensor:
        return torch.randperm(self.batch, device=self.device)[: max(1, int(share * self.batch))]

    def _rows(self) -> torch.Tensor:
        if len(self._order) < self.batch:
            self._order = torch.randperm(len(self.faces))
        rows, self._order = self._order[: self.batch], self._order[self.batch :]
        return rows.to(self.device)

    def _in_other_light(self, x: torch.Tensor, strength: float) -> torch.Tensor:
        some = self._chance(0.6) * strength
        contrast = self._uniform(-0.25, 0.25, 1, 1, 1) + self._uniform(-0.07, 0.07, 3, 1, 1)
        brightness = self._uniform(-0.2, 0.2, 1, 1, 1)
        return torch.addcmul(some * brightness, x, 1 + some * contrast).clamp_(-1, 1)

    def _masked(self, x: torch.Tensor, share: float) -> torch.Tensor:
        some = self._some(share)
        picked = torch.randint(0, len(self._masks), (len(some),), device=self.device)
        cover = self._masks[picked].float() / 255
        colour = self._colours[torch.randint(0, len(COLOURS), (len(some),), device=self.device)]
        other = torch.rand(len(some), 3, device=self.device) * 2 - 1
        odd = torch.rand(len(some), 1, device=self.device) < 0.3
        colour = torch.where(odd, other, colour)[:, :, None, None]
        grey = (x[some].mean(1, keepdim=True) + 1) / 2
        light = F.interpolate(F.avg_pool2d(grey, 16), size=SIDE, mode="bilinear")
        shade = light / light.mean((2, 3), keepdim=True).clamp(min=0.05)
        cloth = ((colour + 1) / 2 * shade * 2 - 1).clamp(-1, 1)
        return x.index_copy(0, some, x[some] * (1 - cover) + cloth * cover)

    def _moved(self, x: torch.Tensor, strength: float) -> torch.Tensor:
        usual = self._matrix(9 * strength, 0.06 * strength, 0.1 * strength, 0.06 * strength)
        wrong = self._matrix(18 * strength, 0.15 * strength, 0.12 * strength, 0.06 * strength)
        matrix = torch.where(self._chance(WRONG)[:, 0], wrong, usual)
        matrix = torch.where(self._chance(AS_IT_IS)[:, 0], torch.eye(3, device=self.device), matrix)
        matrix[:, :, 0] *= torch.where(self._chance(0.5)[:, 0, 0], -1.0, 1.0)  # mirrored
        grid = F.affine_grid(matrix[:, :2], list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, "bilinear", "reflection", False)

    def _matrix(self, turn: float, stretch: float, scale: float, shift: float) -> torch.Tensor:
        """Random affine maps, float32 (n, 3, 3)."""
        angle = self._uniform(-turn, turn) * (math.pi / 180)
        size = self._uniform(-scale, scale).exp()
        cosine, sine = angle.cos() * size, angle.sin() * size
        turned = torch.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)
        odd = torch.eye(2, device=self.device) + self._uniform(-stretch, stretch, 2, 2)
        matrix = torch.zeros(self.batch, 3, 3, device=self.device)
        matrix[:, :2, :2] = turned @ odd
        matrix[:, :2, 2] = self._uniform(-2 * shift, 2 * shift, 2)
        matrix[:, 2, 2] = 1
        return matrix

    def _worse(self, x: torch.Tensor) -> torch.Tensor:
        for some in self._some(0.15).split(16):
            small = int(np.random.randint(24, 85))
            small_ones = F.interpolate(x[some], size=small, mode="area")
            x[some] = F.interpolate(small_ones, size=SIDE, mode="bilinear")
        for some in self._some(0.06).split(16):
            kernel = self._soft[int(np.random.randint(64))].expand(3, 1, -1)
            soft = F.pad(x[some], (5, 5, 5, 5), "reflect")
            soft = F.conv2d(soft, kernel[:, :, None], groups=3)
            x[some] = F.conv2d(soft, kernel[..., None], groups=3)
        some = self._some(0.1)
        x[some] = self._compressed(x[some])
        some = self._some(0.05)
        x[some] = _darkened(x[some])
        some = self._some(0.04)
        x[some] = (x[some] * self._grey).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        some = self._some(0.08)
        spread = torch.rand(len(some), 1, 1, 1, device=self.device) * 0.095 + 0.015
        x[some] += torch.randn_like(x[some]) * spread
        return self._covered(x)

    def _compressed(self, x: torch.Tensor) -> torch.Tensor:
        """JPEG's transform and quantisation, the same for all channels."""
        quality = torch.randint(15, 86, (len(x), 1, 1, 1, 1, 1), device=self.device).float()
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        steps = (self._quantisation * scale).clamp(min=1)
        blocks = ((x.clamp(-1, 1) * 127.5).reshape(len(x), 3, 14, 8, 14, 8)).transpose(3, 4)
        waves = self._cosines @ blocks @ self._cosines.T
        waves = (waves / steps).round() * steps
        blocks = self._cosines.T @ waves @ self._cosines
        return blocks.transpose(3, 4).reshape(x.shape) / 127.5

    def _covered(self, x: torch.Tensor) -> torch.Tensor:
        """A rectangle of up to two fifths of each side in one colour or in noise."""
        some = self._some(0.08)
        count = len(some)
        size = torch.rand(2, count, 1, 1, 1, device=self.device) * 0.6 + 0.2
        middle = torch.rand(2, count, 1, 1, 1, device=self.device) * 2 - 1
        inside = ((self._x - middle[0]).abs() < size[0] / 2) & (
            (self._y - middle[1]).abs() < size[1] / 2
        )
        noise = torch.rand(count, 3, SIDE, SIDE, device=self.device) * 2 - 1
        plain = torch.rand(count, 3, 1, 1, device=self.device) * 2 - 1
        noisy = torch.rand(count, 1, 1, 1, device=self.device) < 0.5
        x[some] = torch.where(inside, torch.where(noisy, noise, plain), x[some])
        return x


def standardized(faces: torch.Tensor) -> torch.Tensor:
    """Faces uint8 as float32, −1…1."""
    return faces.float().mul_(1 / 127.5).sub_(1)


def _darkened(x: torch.Tensor) -> torch.Tensor:
    """An eighth to half of the light, partly brightened again, with a sensor's noise."""
    shape = (len(x), 1, 1, 1)
    light = torch.exp(torch.rand(shape, device=x.device) * math.log(4) + math.log(0.125))
    again = light ** -(torch.rand(shape, device=x.device) * 0.9)
    noise = torch.randn_like(x) * (torch.rand(shape, device=x.device) * 0.008 + 0.004)
    return (((x + 1) / 2 * light + noise) * again).clamp(0, 1) * 2 - 1


def _masks(count: int) -> Any:
    """How much masks cover, uint8 (count, 1, side, side), at different places."""
    rng = np.random.default_rng(0)
    drawn = np.empty((count, 1, SIDE, SIDE), np.uint8)
    for one in drawn:
        top, cheek = rng.uniform(0.52, 0.66), rng.uniform(0.6, 0.72)
        left, right = rng.uniform(0.02, 0.24), rng.uniform(0.76, 0.98)
        chin = rng.uniform(0.94, 1.2)
        outline = [(left, cheek), (0.38, top + 0.02), (0.5, top), (0.62, top + 0.02),
                   (right, cheek), (right - 0.06, 0.88), (0.66, chin), (0.34, chin),
                   (left + 0.06, 0.88)]  # fmt: skip
        shape = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(shape).polygon([(x * SIDE, y * SIDE) for x, y in outline], fill=255)
        one[0] = np.asarray(shape.filter(ImageFilter.GaussianBlur(0.7)))
    return drawn
