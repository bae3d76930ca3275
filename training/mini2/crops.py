"""Augmented crops on a GPU, for `train.py`.

The teachers see faces that are new at each step: two faces blended or joined along a soft line,
turned, stretched and warped, in another light. The student sees the same, moved a little and
mirrored by chance, and a part of its crops small, blurred, compressed, dark, noisy or covered.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageDraw, ImageFilter

SIDE = 112
CAPACITY = 60_000  # faces
MIXED = 0.5  # share of crops that are two faces in one
AS_IT_IS = 0.2  # share of crops that the teachers see without a turn, stretch or warp
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
    """Makes batches of what the teachers and the student see.

    Args:
        batch: crops in a batch.
        device: ``"cuda"`` or ``"cpu"``.
        folder: where ``faces-*.npy`` are, uint8 (n, 3, 112, 112).
    """

    def __init__(self, batch: int, device: str, folder: Path, compiled: bool = False) -> None:
        self.batch, self.device, self._folder = batch, device, folder
        self.count, self._seen = 0, set[str]()
        capacity = CAPACITY if device == "cuda" else 4_000
        self.faces = torch.zeros((capacity, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
        self._masks = torch.from_numpy(_masks(MASKS_DRAWN)).to(device)
        self._colours = torch.tensor(COLOURS, dtype=torch.float32, device=device) / 127.5 - 1
        waves, places = np.arange(8)[:, None], np.arange(8)[None]
        cosines = np.cos((2 * places + 1) * waves * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        self._cosines = torch.tensor(cosines, dtype=torch.float32, device=device)
        self._quantisation = torch.tensor(LUMINANCE, dtype=torch.float32, device=device)
        across = (torch.arange(SIDE, device=device) + 0.5) / SIDE * 2 - 1
        self._y, self._x = torch.meshgrid(across, across, indexing="ij")
        self._cubic = F.interpolate(torch.eye(4)[None, None], size=(SIDE, 4), mode="bicubic")
        self._cubic = self._cubic[0, 0].to(device)
        self._grey = torch.tensor((0.299, 0.587, 0.114), device=device)[:, None, None]
        sigmas = SIDE * np.linspace(0.003, 0.02, 64)[:, None]
        reach = np.exp(-0.5 * (np.arange(-5, 6) / sigmas) ** 2)
        reach /= reach.sum(1, keepdims=True)
        self._soft = torch.tensor(reach, dtype=torch.float32, device=device)
        if compiled:
            self._in_other_light = torch.compile(self._in_other_light)  # type: ignore[method-assign]

    def look(self) -> None:
        """Add the faces of files that have appeared."""
        for path in sorted(self._folder.glob("faces-*.npy")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                more = np.load(path)[: len(self.faces) - self.count]
                end = self.count + len(more)
                self.faces[self.count : end] = torch.from_numpy(more).to(self.device)
                self.count = end

    def make(self, strength: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops for the teachers and for the student, float32 (n, 3, 112, 112), −1…1.

        Args:
            strength: how unlike the faces themselves the crops are, 0…1. It changes how many are
                two faces in one, and how far they are turned, stretched and warped.
        """
        with torch.no_grad():
            source = self._blended(MIXED * strength)
            light = self._chance(0.25)
            source = torch.where(light, self._in_other_light(source), source)
            bare = self._masked(source)
            seen, shown = self._moved(*bare, strength)
            light = self._chance(0.35)
            shown = torch.where(light, self._in_other_light(shown), shown)
            return seen.clamp(-1, 1), self._worse(shown).clamp(-1, 1)

    # Inside

    def _uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(self.batch, *shape, device=self.device) * (high - low) + low

    def _chance(self, share: float) -> torch.Tensor:
        return torch.rand(self.batch, 1, 1, 1, device=self.device) < share

    def _some(self, share: float) -> torch.Tensor:
        return torch.randperm(self.batch, device=self.device)[: max(1, int(share * self.batch))]

    def _picked(self) -> torch.Tensor:
        rows = torch.randint(0, self.count, (self.batch,), device=self.device)
        faces = self.faces[rows]
        faces = torch.where(self._chance(0.5), faces.flip(3), faces)
        return faces.float().mul_(1 / 127.5).sub_(1)

    def _blended(self, mixed: float) -> torch.Tensor:
        one, other = self._picked(), self._picked()
        spread, mean = torch.std_mean(one, (2, 3), keepdim=True)
        spread_2, mean_2 = torch.std_mean(other, (2, 3), keepdim=True)
        other = (other - mean_2) / (spread_2 + 1e-3) * spread + mean
        angle = self._uniform(0, 2 * math.pi, 1, 1, 1)
        along = self._x * angle.cos() + self._y * angle.sin() - self._uniform(-0.4, 0.4, 1, 1, 1)
        joined = torch.sigmoid(along / self._uniform(0.05, 0.2, 1, 1, 1))
        kind = torch.rand(self.batch, 1, 1, 1, device=self.device)
        share = self._uniform(0.2, 0.8, 1, 1, 1).expand_as(joined)
        weight = torch.where(kind < mixed / 2, share, joined)
        weight = torch.where(kind < mixed, weight, torch.zeros_like(weight))
        return one + weight * (other.clamp(-1, 1) - one)

    def _in_other_light(self, x: torch.Tensor) -> torch.Tensor:
        gamma = self._uniform(-0.4, 0.4, 1, 1, 1).exp()
        contrast = self._uniform(-0.4, 0.3, 1, 1, 1).exp()
        brightness = self._uniform(-0.12, 0.12, 1, 1, 1)
        tint = 1 + self._uniform(-0.08, 0.08, 3, 1, 1)
        lit = (((x.clamp(-1, 1) + 1) / 2 + 1e-4) ** gamma - 0.5) * contrast + 0.5 + brightness
        return (2 * lit * tint - 1).clamp(-1, 1)

    def _masked(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the teachers see and what the student sees: half of the masks are only there."""
        some = self._some(0.12)
        picked = torch.randint(0, len(self._masks), (len(some),), device=self.device)
        cover = self._masks[picked].float() / 255
        colour = self._colours[torch.randint(0, len(COLOURS), (len(some),), device=self.device)]
        other = torch.rand(len(some), 3, device=self.device) * 2 - 1
        odd = torch.rand(len(some), 1, device=self.device) < 0.3
        colour = torch.where(odd, other, colour)[:, :, None, None]
        grey = (source[some].mean(1, keepdim=True) + 1) / 2
        light = F.interpolate(F.avg_pool2d(grey, 16), size=SIDE, mode="bilinear")
        shade = light / light.mean((2, 3), keepdim=True).clamp(min=0.05)
        cloth = ((colour + 1) / 2 * shade * 2 - 1).clamp(-1, 1)
        hidden = source[some] * (1 - cover) + cloth * cover
        shown = source.index_copy(0, some, hidden)
        seen = source.index_copy(0, some[::2], hidden[::2])
        return seen, shown

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

    def _moved(
        self, seen: torch.Tensor, shown: torch.Tensor, strength: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both = self._matrix(8 * strength, 0.05 * strength, 0.09 * strength, 0.05 * strength)
        slight = self._matrix(3, 0.02, 0.03, 0.015)
        wrong = self._matrix(15, 0.15, 0.08, 0.05)
        more = torch.where(self._chance(0.06 + 0.06 * strength)[:, 0], wrong, slight)
        moved = ~self._chance(AS_IT_IS)
        both = torch.where(moved[:, 0], both, torch.eye(3, device=self.device))
        warp = torch.randn(self.batch, 2, 4, 4, device=self.device) * 0.05
        warp = self._cubic @ (warp * (moved & self._chance(0.35 * strength))) @ self._cubic.T
        seen, shown = (
            F.grid_sample(x, self._grid(matrix, warp), "bilinear", "reflection", False)
            for x, matrix in ((seen, both), (shown, both @ more))
        )
        return seen, torch.where(self._chance(0.5), shown.flip(3), shown)

    def _grid(self, matrix: torch.Tensor, warp: torch.Tensor) -> torch.Tensor:
        """Where to sample: affine maps (n, 3, 3) of all places, and a displacement (n, 2, h, w)."""
        m = matrix[:, :2, :, None, None]
        places = m[:, :, 0] * self._x + m[:, :, 1] * self._y + m[:, :, 2] + warp
        return places.permute(0, 2, 3, 1)

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
