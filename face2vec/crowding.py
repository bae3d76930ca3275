"""How near strangers come to a face.

A network learns to tell apart the people that it saw most of. Faces of other origins and ages, and
faces behind masks, lie closer together, so strangers among them reach similarities that strangers
elsewhere do not. The density of faces around a face measures this.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face2vec import stored
from face2vec.products import product

MOST_CENTRES, MOST_DIMENSIONS = 10_000, 10_000


@dataclass(frozen=True)
class Crowding:
    """A density of faces: a mixture of von Mises-Fisher distributions with one concentration.

    The log density at the embedding x, divided by the concentration κ, is
    d(x) = log(Σ pⱼ exp(κ x·cⱼ)) / κ up to a constant (Banerjee et al., Clustering on the unit
    hypersphere using von Mises-Fisher distributions, 2005, section 3). It has the unit of a
    similarity. The crowding of a face is slope · (d(x) − average), and 0 where d is below the
    average: faces that are unlike all known ones, such as drawn ones, are not taken for rare.

    Attributes:
        centres: int8 (m, dim) as bytes; each is the mean embedding of ten or more people, divided
            by its scale.
        scales: the scale of each centre.
        shares: share pⱼ of the faces at each centre; they add up to 1.
        concentration: κ, above 0.
        slope: how much similarity strangers gain with each unit of d.
        average: mean of d over the photos on which the calibration was fitted.
        data: description of the faces that the centres are means of.
    """

    centres: bytes
    scales: tuple[float, ...]
    shares: tuple[float, ...]
    concentration: float
    slope: float
    average: float
    data: str

    def __post_init__(self) -> None:
        count = len(self.scales)
        sound = (
            0 < count <= MOST_CENTRES
            and len(self.shares) == count
            and 0 < len(self.centres) <= count * MOST_DIMENSIONS
            and len(self.centres) % count == 0
            and all(0 < v < 1 for v in self.scales)
            and all(0 < v <= 1 for v in self.shares)
            and 0 < self.concentration < 1e4
            and 0 <= self.slope < 100
            and abs(self.average) < 100
        )
        if not sound:
            raise ValueError("its crowding is out of range")

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return len(self.centres) // len(self.scales)

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """The crowding of faces: how much more similar than average strangers are to each.

        Args:
            embeddings: float32 (d,) or (n, d), of unit length.

        Returns:
            float64 () or (n,), in units of similarity, 0 or more.
        """
        return np.maximum(self.slope * (self.density(embeddings) - self.average), 0.0)

    def with_average(self, embeddings: NDArray[np.float32]) -> Crowding:
        """The same density, with the crowding of these faces beginning at their average density.

        Args:
            embeddings: float32 (n, d), each of unit length.
        """
        return replace(self, average=float(self.density(embeddings).mean()))

    def density(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log density d at each embedding, see the class.

        Args:
            embeddings: float32 (d,) or (n, d), of unit length.

        Returns:
            float64 () or (n,).
        """
        centres, logs = _mixture(self)
        heights = product(np.atleast_2d(embeddings), centres)
        heights += logs
        highest = heights.max(axis=-1, keepdims=True)
        heights -= highest
        total = np.log(np.exp(heights, out=heights).sum(axis=-1, dtype=np.float64))
        densities = (total + highest[..., 0]) / self.concentration
        return np.asarray(densities.reshape(embeddings.shape[:-1]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "centres": base64.b64encode(self.centres).decode("ascii"),
            "scales": self.scales,
            "shares": self.shares,
            "concentration": self.concentration,
            "slope": self.slope,
            "average": self.average,
            "data": self.data,
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Crowding:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a value is missing, or has the wrong type or range.
        """

        def number(name: str) -> float:
            return stored.number(facts.get(name), name)

        def column(name: str) -> tuple[float, ...]:
            values = stored.array(facts.get(name), name)
            return tuple(stored.number(value, name) for value in values)

        return cls(
            base64.b64decode(stored.text(facts.get("centres"), "centres"), validate=True),
            column("scales"),
            column("shares"),
            number("concentration"),
            number("slope"),
            number("average"),
            stored.text(facts.get("data"), "data"),
        )


@functools.lru_cache(maxsize=4)
def _mixture(crowding: Crowding) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres times the concentration float32 (m, d), and logarithms of their shares (m,)."""
    whole = np.frombuffer(crowding.centres, np.int8).reshape(len(crowding.scales), -1)
    scales = crowding.concentration * np.array(crowding.scales)[:, None]
    logs = np.log(np.array(crowding.shares))
    return (whole * scales).astype(np.float32), logs.astype(np.float32)


def fit_crowding(
    embeddings: NDArray[np.float32],
    *,
    centres: int,
    concentration: float,
    slope: float,
    data: str,
    rounds: int = 15,
    fewest: int = 10,
    seed: int = 0,
) -> Crowding:
    """Fit a density to faces of different people, by spherical k-means.

    Args:
        embeddings: float32 (n, d), each of unit length, one for each person.
        centres: number of centres; those of fewer than ``fewest`` faces are left out, so that no
            centre stands for one person.
        concentration: see `Crowding`.
        slope: see `Crowding`.
        data: description of the faces.
        rounds: rounds of k-means.
        fewest: least number of faces of a centre.
        seed: seed of the first centres.

    Returns:
        The density, whose average is that of these faces.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(embeddings), min(centres, len(embeddings)), replace=False)
    units = embeddings[chosen]
    for _ in range(rounds):
        nearest = np.concatenate(
            [np.argmax(embeddings[n : n + 4096] @ units.T, axis=1)
             for n in range(0, len(embeddings), 4096)]
        )  # fmt: skip
        counts = np.bincount(nearest, minlength=len(units))
        sums = np.zeros_like(units)
        np.add.at(sums, nearest, embeddings)
        units = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    kept = counts >= fewest
    if not kept.any():
        raise ValueError(f"no centre has {fewest} faces; give more faces, or ask for fewer centres")
    means = sums[kept] / counts[kept, None]
    scales = np.abs(means).max(axis=1) / 127
    whole = np.round(means / scales[:, None]).astype(np.int8)
    fitted = Crowding(
        whole.tobytes(),
        tuple(scales.astype(np.float64).tolist()),
        tuple((counts[kept] / counts[kept].sum()).tolist()),
        concentration,
        slope,
        0.0,
        data,
    )
    return fitted.with_average(embeddings)
