r"""Make face2vec/samples/faces.npz, the face model that `face2vec.samples` draws people from.

    nice -n 10 python training/sample_faces.py train-faces.tar train-faces.csv \
        face2vec/samples/faces.npz

The archive holds aligned faces, 112×112 pixels, at the paths that the table names (file, set,
person, age, sex, origin). Needs numpy, Pillow and scipy; about 2 GB of memory.

An active appearance model (Cootes, Edwards, Taylor 1998) without marked points:

1. Choose sharp, coloured, unhidden faces; none of the named people (set ``glint``).
2. Warp each face to the mean. What a face is compared with is its own reconstruction from a few
   components, so that light and skin need not agree with the mean; the flow is found by iterated
   least squares in Gaussian windows (Lucas and Kanade 1981), made smooth, and held to the
   components of all flows.
3. Principal components of texture (luma, and chroma at a quarter of its size) and flow together,
   of the faces and their mirror images, by randomised range finding (Halko et al. 2011).
4. How the coefficients tell age, sex and origin, by least squares over a labelled set; how much
   the photos of one person differ, by pooling over the named people, of whom only that one
   covariance is kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE, HALF, SMALL = 112, 56, 28
SEED = 0
FACES, PHOTOS_EACH = 8000, 60
COMPONENTS = 200
ROUNDS = ((20, 4.0, 5), (30, 3.0, 4), (40, 2.5, 4))  # components, window, steps of each round
FLOW_COMPONENTS = 40
CHROMA_WEIGHT, FLOW_WEIGHT = 3.0, 24.0  # against grey levels of single pixels
CHANGES = 32  # directions in which a person's photos differ most
STEP = 0.25  # grey levels; the coarsest that the drawn faces do not show
# Eyes and mouth corners lie at (35, 52), (76, 52), (39, 92), (73, 92). Above row 14 lies hair, or a
# reflection where the photo ended.
CENTRE, RADII = (55.5, 66.0), (50.0, 58.0)


log = logging.getLogger("sample_faces")


def read(archive: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """The faces of the rows, uint8 (n, 112, 112, 3)."""
    faces = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    where = {row["file"]: number for number, row in enumerate(rows)}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in where:
                with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:
                    faces[where[member.name]] = np.asarray(image.convert("RGB"))
    return faces


def to_ycc(faces: np.ndarray) -> np.ndarray:
    """Luma and chroma of JPEG (ITU-T T.871), float32, luma 0…255, chroma around 0."""
    rgb = faces.astype(np.float32)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([luma, 0.564 * (b - luma), 0.713 * (r - luma)], -1)


def halved(planes: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 pixels."""
    *lead, height, width = planes.shape
    return planes.reshape(*lead, height // 2, 2, width // 2, 2).mean((-3, -1))


def enlarge(planes: np.ndarray, side: int) -> np.ndarray:
    """(…, 28, 28) to (…, side, side), linear between the centres of the cells."""
    at = np.clip((np.arange(side) + 0.5) * SMALL / side - 0.5, 0, SMALL - 1)
    low = np.minimum(at.astype(int), SMALL - 2)
    weights = np.zeros((side, SMALL), np.float32)
    weights[np.arange(side), low] = 1 - (at - low)
    weights[np.arange(side), low + 1] = at - low
    return weights @ planes @ weights.T


def blocks(count: int) -> list[slice]:
    """Rows in parts that fit into memory when enlarged."""
    return [slice(start, min(start + 250, count)) for start in range(0, count, 250)]


def components(data: np.ndarray, count: int, rng: np.random.Generator):
    """Mean, orthonormal components (count, d), standard deviations; data is centred in place."""
    mean = data.mean(0)
    data -= mean
    basis = rng.standard_normal((data.shape[1], count + 30)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(data.T @ (data @ basis))[0]
    projected = data @ basis
    values, vectors = np.linalg.eigh(projected.T @ projected / len(data))
    order = np.argsort(-values)[:count]
    return mean, (basis @ vectors[:, order]).T, np.sqrt(np.maximum(values[order], 0))


def mask() -> np.ndarray:
    """Weights 0…1 of the face among the pixels of the crop."""
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot((x - CENTRE[0]) / RADII[0], (y - CENTRE[1]) / RADII[1])
    return np.clip((1.06 - radius) / 0.12, 0, 1).astype(np.float32)


def chosen(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of faces that are sharp, coloured and like other faces."""
    weight = mask()
    small = halved(halved(weight)).ravel()
    luma = np.empty((len(faces), SMALL * SMALL), np.float32)
    sharp, colour, spread = (np.empty(len(faces), np.float32) for _ in range(3))
    inside = weight > 0.9
    for rows in blocks(len(faces)):
        part = to_ycc(faces[rows])
        y = part[..., 0]
        luma[rows] = halved(halved(y)).reshape(len(part), -1)
        spread[rows] = y[:, inside].std(1)
        detail = np.abs(4 * y[:, 1:-1, 1:-1] - y[:, :-2, 1:-1] - y[:, 2:, 1:-1]
                        - y[:, 1:-1, :-2] - y[:, 1:-1, 2:])  # fmt: skip
        sharp[rows] = detail[:, inside[1:-1, 1:-1]].mean(1) / (spread[rows] + 10)
        colour[rows] = np.abs(part[..., 1:][:, inside]).mean((1, 2))
    level = (luma - luma.mean(1, keepdims=True)) / (luma.std(1, keepdims=True) + 5) * small
    _, basis, _ = components(level, 40, rng)
    error = (level**2).sum(1) - ((level @ basis.T) ** 2).sum(1)
    fit = (colour > 4) & (spread > 18) & (sharp > np.quantile(sharp, 0.3))
    fit &= error < np.quantile(error, 0.6)
    rows = np.flatnonzero(fit)
    log.info(f"{len(rows)} of {len(faces)} faces are sharp, coloured and unhidden")
    return rows


def warped(planes: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Each plane (n, h, w) read at grid + flow (n, 2, h, w; down, right)."""
    grid = np.mgrid[: planes.shape[1], : planes.shape[2]].astype(np.float32)
    out = np.empty_like(planes)
    for one, shift, target in zip(planes, flow, out, strict=True):
        map_coordinates(one, grid + shift, target, order=1, mode="nearest")
    return out


def step(moving: np.ndarray, target: np.ndarray, flow: np.ndarray, window: float) -> np.ndarray:
    """The flow after one step of Lucas and Kanade's method towards the target."""
    now = warped(moving, flow)
    gy, gx = np.gradient(now, axis=(1, 2))
    gain = now.std((1, 2), keepdims=True) + 8
    gy, gx, left = gy / gain, gx / gain, (target - now) / gain
    sums = [gaussian_filter(v, (0, window, window), mode="nearest", truncate=2.5)
            for v in (gy * gy, gy * gx, gx * gx, gy * left, gx * left)]  # fmt: skip
    yy, yx, xx, yl, xl = sums
    ridge = 0.0015
    determinant = (yy + ridge) * (xx + ridge) - yx * yx
    change = np.stack(
        [((xx + ridge) * yl - yx * xl), ((yy + ridge) * xl - yx * yl)], 1
    ) / determinant[:, None]  # fmt: skip
    flow = flow + np.clip(change, -2.5, 2.5)
    return gaussian_filter(flow, (0, 0, window / 2, window / 2), mode="nearest", truncate=2.5)


def aligned(luma: np.ndarray, fit: int, rng: np.random.Generator) -> np.ndarray:
    """Flow of each face in pixels of the crop, (n, 2, 28, 28); the model is of the first `fit`."""
    n = len(luma)
    half = halved(luma)
    weight = halved(mask()[None])[0]
    flow = np.zeros((n, 2, SMALL, SMALL), np.float32)
    for count, window, steps in ROUNDS:
        texture = np.empty((n, HALF * HALF), np.float32)
        for rows in blocks(n):
            texture[rows] = (warped(half[rows], enlarge(flow[rows], HALF) / 2) * weight).reshape(
                -1, HALF * HALF
            )
        known = texture[:fit].reshape(-1, HALF, HALF)
        symmetric = np.concatenate([known, known[:, :, ::-1]])  # so that the mean stands upright
        mean, basis, _ = components(symmetric.reshape(2 * fit, -1), count, rng)
        for rows in blocks(n):
            target = (mean + (texture[rows] - mean) @ basis.T @ basis).reshape(-1, HALF, HALF)
            full = enlarge(flow[rows], HALF) / 2
            moving = half[rows]
            target += warped(moving, full) * (1 - weight)
            for _ in range(steps):
                full = step(moving, target, full, window) * np.minimum(weight * 2, 1)
            flow[rows] = 2 * halved(full)
        flow -= flow[:fit].mean(0)
        both = np.concatenate([flow[:fit], mirrored(flow[:fit])]).reshape(2 * fit, -1)
        _, model, spread = components(both, FLOW_COMPONENTS, rng)
        held = np.clip(flow.reshape(n, -1) @ model.T, -3 * spread, 3 * spread) @ model
        flow = held.reshape(flow.shape).astype(np.float32)
        log.info(f"aligned with {count} components, flow of {flow.std():.2f} pixels")
    return flow


def mirrored(flow: np.ndarray) -> np.ndarray:
    """The flows (n, 2, h, w) of the mirror images."""
    out = flow[..., ::-1].copy()
    out[:, 1] *= -1
    return out


def vectors(ycc: np.ndarray, flow: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Luma, chroma and flow of each face side by side, each times its weight.

    What the mask leaves out is left out; luma in grey levels, chroma and flow at 28 × 28.
    """
    inside, coarse = weight > 0, halved(halved(weight)) > 0
    out = []
    for rows in blocks(len(ycc)):
        full = enlarge(flow[rows], SIDE)
        luma, blue, red = (warped(ycc[rows][..., plane], full) for plane in range(3))
        chroma = [halved(halved(plane))[:, coarse] * CHROMA_WEIGHT for plane in (blue, red)]
        shape = flow[rows][:, :, coarse].reshape(len(luma), -1) * FLOW_WEIGHT
        out.append(np.concatenate([luma[:, inside], *chroma, shape], 1))
    return np.concatenate(out)


def attributes(rows: list[dict[str, str]]) -> np.ndarray:
    """Sex 0…1, age about 40 in units of 20 years, and four of the five origins as 0 or 1."""
    out = []
    for row in rows:
        origin = int(row["origin"])
        out.append(
            [float(row["sex"]), (float(row["age"]) - 40) / 20]
            + [float(origin == other) for other in (1, 2, 3, 4)]
        )
    return np.array(out)


def within(coefficients: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Covariance of one person's photos about their mean, pooled over people."""
    total, freedom = 0.0, 0
    for person in np.unique(people):
        own = coefficients[people == person]
        own = own - own.mean(0)
        total, freedom = total + own.T @ own, freedom + len(own) - 1
    return total / freedom


def main() -> None:
    """Read the archive, make the model, write it."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d ms  %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(SEED)
    with given.table.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    faces = read(given.archive, table)
    log.info(f"{len(faces)} faces read")
    sets = np.array([row["set"] for row in table])
    people = np.array([row["person"] for row in table])
    usable = chosen(faces, rng)
    anonymous = usable[sets[usable] != "glint"]
    anonymous = rng.choice(anonymous, min(FACES, len(anonymous)), replace=False)
    named = [usable[people[usable] == p][:PHOTOS_EACH] for p in np.unique(people) if p]
    rows = np.concatenate([anonymous, *named])
    fit = len(anonymous)
    ycc = to_ycc(faces[rows])
    del faces
    flow = aligned(ycc[..., 0].copy(), fit, rng)

    weight = mask()
    data = vectors(ycc, flow, weight)
    turned = vectors(ycc[:fit, :, ::-1], mirrored(flow[:fit]), weight)
    mean, basis, spread = components(np.concatenate([data[:fit], turned]), COMPONENTS, rng)
    del turned
    whitened = (data - mean) @ basis.T / spread
    log.info("components found")

    told = np.array([bool(row["age"] and row["sex"] and row["origin"]) for row in table])
    labelled = np.flatnonzero(told[rows[:fit]])
    known = attributes([table[row] for row in rows[labelled]])
    seen = np.column_stack([np.ones(len(labelled)), whitened[labelled]])
    tells, *_ = np.linalg.lstsq(seen, known, rcond=None)
    told_by = 1 - (known - seen @ tells).var(0) / known.var(0)
    log.info("sex, age and origins told by the coefficients: %s", told_by.round(2))
    named_rows = np.arange(fit, len(rows))
    pooled = within(whitened[named_rows], people[rows[named_rows]])
    values, directions = np.linalg.eigh(pooled)
    order = np.argsort(-values)[:CHANGES]
    changes = directions[:, order] * np.sqrt(values[order])
    rest = np.sqrt(np.maximum(np.diag(pooled) - (changes**2).sum(1), 0))
    log.info("within one person, of the spread of all: %.2f", np.diag(pooled).mean())

    scaled = basis * spread[:, None]
    steps = np.maximum(np.abs(scaled).max(1) / 127, STEP)
    given.model.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        given.model,
        mean=mean.astype(np.float16),
        components=np.rint(scaled / steps[:, None]).astype(np.int8),
        steps=steps.astype(np.float32),
        tells=tells.astype(np.float32),
        changes=changes.T.astype(np.float16),
        rest=rest.astype(np.float16),
    )
    log.info(f"{given.model}: {given.model.stat().st_size} bytes, spread of the last component "
        f"{spread[-1] / np.sqrt((weight > 0).sum()):.2f} grey levels")  # fmt: skip


if __name__ == "__main__":
    main()
