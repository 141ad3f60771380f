"""Measures the median time of one selection on one core: `python -m bench.selectors`."""

from __future__ import annotations

import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from sagelink.stages.selectors import SELECTORS

SIZES = {196: (2.0, 1.0), 784: (15.0, 8.0)}  # units: time limit in ms for any selector, and for SAGE
ROUNDS = 200


def median_ms(name: str, units: int, count: int) -> float:
    """Median over ROUNDS random frames, embeddings of 192 dimensions."""
    rng = np.random.default_rng(0)
    times_ms = []
    for _ in range(ROUNDS):
        importance = rng.random(units, dtype=np.float32)
        embeddings = rng.standard_normal((units, 192), dtype=np.float32)
        began = time.perf_counter()
        SELECTORS[name](importance, embeddings, count, seed=0)
        times_ms.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times_ms)


def main() -> None:
    with threadpool_limits(1):
        for units, (any_limit, sage_limit) in SIZES.items():
            for name in SELECTORS:
                worst = max(median_ms(name, units, count) for count in (units // 6, units // 3, units // 2, units))
                limit = sage_limit if name == "sage" else any_limit
                print(f"{units} units  {name:<8} {worst:6.3f} ms  limit {limit:g} ms, {worst / limit:.0%} of it")


if __name__ == "__main__":
    main()
