"""Intervals by bootstrap over pictures (Efron, 1979), always with the same resamples, so that pairs stay pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_LEVEL = (2.5, 97.5)  # percentiles

Interval = tuple[float, float]
Hits = NDArray[np.bool_]  # (n,) one a picture


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Draws of n pictures with replacement."""

    counts: NDArray[np.float64]  # (RESAMPLES, n), how often each picture was drawn

    @classmethod
    def over(cls, pictures: int, seed: int) -> Bootstrap:
        rng = np.random.default_rng(seed)
        return cls(rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES).astype(float))

    def share(self, hits: Hits, among: Hits | None = None) -> tuple[float, Interval] | None:
        """Share of hits among pictures (all by default), with its 95 % interval; None where there is no picture."""
        chosen = np.ones(len(hits), bool) if among is None else among
        if not chosen.any():
            return None
        drawn = self.counts @ chosen
        shares = (self.counts @ (hits & chosen))[drawn > 0] / drawn[drawn > 0]
        return float(hits[chosen].mean()), interval(shares)

    def difference(self, hits: Hits, baseline: Hits, among: Hits | None = None) -> tuple[float, Interval] | None:
        """How much the share of hits is above that of the baseline on the same pictures, with its 95 % interval."""
        chosen = np.ones(len(hits), bool) if among is None else among
        if not chosen.any():
            return None
        each = (hits.astype(float) - baseline) * chosen
        drawn = self.counts @ chosen
        return float(each.sum() / chosen.sum()), interval((self.counts @ each)[drawn > 0] / drawn[drawn > 0])


def interval(values: NDArray[np.float64]) -> Interval:
    """95 % of the resamples' values."""
    low, high = np.percentile(values, _LEVEL)
    return float(low), float(high)
