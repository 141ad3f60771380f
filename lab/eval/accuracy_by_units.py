"""Compares selectors: accuracy at fixed numbers of raw units, as the paper measures it.

In: an `Evaluation` with scored images, selectors, kinds of importance and numbers of units. Out: one `UnitsRow` each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sagelink.lab.bootstrap_intervals import Hits
from sagelink.lab.eval.evaluation import Evaluation, intervals, values
from sagelink.lab.eval.report import UnitsRow
from sagelink.lab.progress_bar import ShowProgress
from sagelink.models.model_contract import Importance
from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.selectors import selector_by_name

PAPER = ("sage", "last")  # selector and importance of the paper, the baseline of paired differences


def units_rows(
    evaluation: Evaluation,
    selectors: Sequence[str],
    kinds: Sequence[Importance],
    counts: Sequence[int],
    progress: ShowProgress,
) -> Iterator[UnitsRow]:
    """Yields a row per selector, kind of importance and number of units; at each number, the paper's first."""
    cells = [(s, k, c) for c in counts for k in kinds for s in selectors if k == kinds[0] or uses_importance(s)]
    cells.sort(key=lambda cell: (cell[2], cell[:2] != PAPER))
    baselines: dict[int, Mapping[str, Hits]] = {}
    images = len(evaluation.features)
    total, done = len(cells) * images, 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        progress(f"{selector} {kind} {count}", done, total)

    for selector, kind, count in cells:
        sizes: list[int] = []
        server = evaluation.harness.answers(_messages(evaluation, selector, kind, count, sizes), step)
        hits = evaluation.hits(server, [evaluation.weight(count)] * images)
        if (selector, kind) == PAPER:
            baselines[count] = hits
        shares = evaluation.shares(hits)
        yield UnitsRow(
            selector=selector,
            importance=kind if uses_importance(selector) else "none",
            units=count,
            bytes_mean=float(np.mean(sizes)),
            bytes_max=max(sizes),
            ci95=intervals(shares),
            vs_edge=evaluation.gain(hits),
            vs_paper=evaluation.differences(hits, baselines.get(count, {})),
            **values(shares),
        )


def _messages(evaluation: Evaluation, selector: str, kind: Importance, count: int, sizes: list[int]) -> Iterator[bytes]:
    """Yields the message of each image and appends its size in bytes to `sizes`."""
    select, seed = selector_by_name(selector), evaluation.config.select.seed
    point = OperatingPoint("raw-zstd", count, evaluation.harness.canvas.pixels, 0)
    for features in evaluation.features:
        scored = features.scored
        order = select(features.importance[kind], scored.embeddings, count, seed=seed + scored.frame.seq)
        message = evaluation.message(scored, order, point)
        sizes.append(len(message))
        yield message


def uses_importance(selector: str) -> bool:
    return selector not in ("uniform", "random")
