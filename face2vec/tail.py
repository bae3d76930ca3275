"""Where the highest similarities of strangers lie among some faces, fitted without labels.

Nearly all pairs of faces in a gallery are of strangers, and a few show one person. A calibration
knows both distributions on photos like those that it was fitted on. In a gallery the strangers may
be more or less alike, and the photos of one person harder to recognize, so three numbers are
fitted to the similarities: by how much each of the two distributions is shifted, and the share of
pairs that show one person. Only the highest similarities count, because only they are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FROM_RATE = 1e-2
"""Share of the strangers that the calibration expects among the similarities that count."""
LOWEST_RATE = 1e-5
BINS_A_DECADE, BINS_ABOVE = 4, 7
"""Bins down to the lowest rate that the calibration knows, and from there to a similarity of 1."""
SHIFTS = np.concatenate([np.arange(-20, 40) * 0.005, np.arange(10, 31) * 0.02])
"""How much higher the similarities of strangers may be."""
HARDER = np.linspace(0.0, 0.25, 11)
"""How much lower those of one person's photos may be."""
PRIOR_PAIRS = 10.0
"""Pairs that count beside those that are seen, and agree with the calibration."""
MOST_SAME = 0.2
"""Largest share of the pairs that may show one person; where it is more, there are few people."""
EVIDENCE = 8.0
"""By how much the logarithm of the likelihood must be higher than if photos of one person were as
similar as the calibration expects, for that they are less similar to count as shown."""
ROUNDS = 60
FIRST_SHARE = 1e-2

Weights = NDArray[np.float64] | None
Rate = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Tail:
    """What was fitted to the similarities of some faces.

    Attributes:
        shift: by how much the highest similarities of strangers are above those that the
            calibration expects; below 0 if they are lower.
        same: share of the pairs that show one person, 0…1.
        pairs: number of pairs.
        harder: by how much the similarities of photos of one person are below those that the
            calibration expects; 0 if that is not shown beyond doubt.
    """

    shift: float
    same: float
    pairs: float
    harder: float = 0.0

    @property
    def trusted(self) -> float:
        """The shift, drawn towards 0 if it rests on few pairs."""
        seen = FROM_RATE * self.pairs
        return self.shift * seen / (seen + PRIOR_PAIRS)


class TailFit:
    """Fits similarities to the distributions of a calibration.

    The share of pairs of one person is found by expectation maximisation, the two shifts by trying
    all of `SHIFTS` and `HARDER`; what makes the similarities most likely is taken (McLachlan and
    Peel, Finite mixture models, 2000, section 2.8).

    Args:
        threshold: the similarity that a share of the strangers reaches.
        lowest_rate: lowest share for which it is known.
        far: the share of strangers that reaches each similarity.
        tar: the share of pairs of one person that does.
    """

    def __init__(
        self, threshold: Callable[[float], float], lowest_rate: float, far: Rate, tar: Rate
    ) -> None:
        decades = -np.log10([FROM_RATE, max(LOWEST_RATE, lowest_rate)])
        steps = np.arange(decades[0], decades[1] + 1e-9, 1 / BINS_A_DECADE)
        thresholds = [threshold(10.0**-step) for step in steps.tolist()]
        above = np.linspace(thresholds[-1], 1.0, BINS_ABOVE + 1)[1:-1]
        self._edges = np.unique([*thresholds, *above[above > thresholds[-1]]])
        self._strangers = _in_bins(far(self._edges - SHIFTS[:, None]))[:, None]
        self._same = _in_bins(tar(self._edges + HARDER[:, None]))[None]

    @property
    def lowest(self) -> float:
        """The lowest similarity that counts."""
        return float(self._edges[0])

    def bins(self, similarities: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which bin each similarity is in.

        Args:
            similarities: float32 (n,), each `lowest` or higher.

        Returns:
            int64 (n,).
        """
        return np.searchsorted(self._edges, similarities, side="right") - 1

    def __call__(self, bins: NDArray[np.int64], pairs: float, weights: Weights = None) -> Tail:
        """Fit the similarities of pairs of faces.

        Args:
            bins: int64 (n,), of the pairs that count; see `bins`.
            pairs: number of all pairs.
            weights: float64 (n,), how often each counts; None for once.
        """
        counts = np.bincount(bins, weights, len(self._edges))
        below = max(pairs - counts.sum(), 0.0)
        strangers, same = self._strangers, self._same
        strangers_below, same_below = 1 - strangers.sum(axis=-1), 1 - same.sum(axis=-1)

        def mixed(share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            """Probability of each bin, and of none of them."""
            both = (1 - share[..., None]) * strangers + share[..., None] * same
            return both, (1 - share) * strangers_below + share * same_below

        share = np.full((len(SHIFTS), len(HARDER)), FIRST_SHARE)
        for _ in range(ROUNDS):
            both, both_below = mixed(share)
            mates = share * ((same / both) @ counts + below * same_below / both_below)
            share = np.minimum(mates / pairs, MOST_SAME)
        both, both_below = mixed(share)
        likelihood = np.log(both) @ counts + below * np.log(both_below)
        best, harder = np.unravel_index(likelihood.argmax(), likelihood.shape)
        gain = likelihood.max() - likelihood[:, 0].max()
        shown = float(HARDER[harder]) if gain >= EVIDENCE else 0.0
        return Tail(float(SHIFTS[best]), float(share[best, harder]), pairs, shown)


def _in_bins(reached: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each bin, from that to reach its lower edge; none is 0."""
    return np.maximum(-np.diff(reached, append=0.0, axis=-1), 1e-12)
