"""Bootstrap confidence intervals over images (Efron, 1979).

In: one boolean hit per image. Out: a share with its 95 % interval. All intervals use the same resamples, so differences
between two methods are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]
Hits = NDArray[np.bool_]  # (n,), one per image: the answer is right


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Resamples of n images, drawn with replacement."""

    counts: NDArray[np.float64]  # (RESAMPLES, n): how often each image was drawn

    @classmethod
    def over(cls, images: int, seed: int) -> Bootstrap:
        rng = np.random.default_rng(seed)
        return cls(rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(float))

    def share(self, hits: Hits, subset: Hits | None = None) -> tuple[float, Interval] | None:
        """Share of hits in a subset (default: all images) with its 95 % interval; None if the subset is empty."""
        chosen = np.ones(len(hits), bool) if subset is None else subset
        if not chosen.any():
            return None
        drawn = self.counts @ chosen
        shares = (self.counts @ (hits & chosen))[drawn > 0] / drawn[drawn > 0]
        return float(hits[chosen].mean()), interval(shares)

    def difference(self, hits: Hits, baseline: Hits, subset: Hits | None = None) -> tuple[float, Interval] | None:
        """Share of `hits` minus the share of `baseline` on the same images, with its 95 % interval.

        None if the subset (default: all images) is empty.
        """
        chosen = np.ones(len(hits), bool) if subset is None else subset
        if not chosen.any():
            return None
        differences = (hits.astype(float) - baseline) * chosen
        drawn = self.counts @ chosen
        resampled = (self.counts @ differences)[drawn > 0] / drawn[drawn > 0]
        return float(differences.sum() / chosen.sum()), interval(resampled)


def interval(values: NDArray[np.float64]) -> Interval:
    """The 2.5th and 97.5th percentile of resampled values."""
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)
