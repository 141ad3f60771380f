"""Measures whether complementary units help the server more than the next most important ones.

    python -m bench.complementary_units IMAGES LABELS --rows 1::2 [--set edge.checkpoint=FILE ...]

The baseline is the B units of highest last-layer attention. A share of them, the least important, is replaced by units
of the 2B most important that are least similar to the others (farthest-point sampling, as in SAGE). Writes swap.json:
server accuracy by B and replaced share, and the paired difference to the baseline.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from sagelink.app.options import parse_rows
from sagelink.lab.dataset import find_pictures
from sagelink.lab.eval.evaluation import Evaluation, weight_by_units
from sagelink.lab.harness import Harness
from sagelink.lab.progress_bar import ProgressBar
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config, parse_assignments
from sagelink.pipeline.types import OperatingPoint, Units
from sagelink.stages.selectors import topk

COUNTS = (32, 48, 64, 96)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)


def complementary_units(importance: np.ndarray, embeddings: np.ndarray, count: int, share: float) -> Units:
    """`count` units: the most important ones, and a `share` of complementary ones."""
    pool = topk(importance, embeddings, 2 * count)
    picks = [*pool[: count - round(share * count)]]
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = (directions @ directions[picks].T).max(1)
    while len(picks) < count:
        remaining = np.setdiff1d(pool, picks)
        pick = remaining[similarity[remaining].argmin()]
        picks.append(pick)
        similarity = np.maximum(similarity, directions @ directions[pick])
    return np.array(picks)


def measure(evaluation: Evaluation, bar: ProgressBar) -> Iterator[dict[str, object]]:
    """Yields a row per number of units and replaced share."""
    total, done = len(COUNTS) * len(SHARES) * len(evaluation.features), 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        bar.show("swap", done, total)

    for count in COUNTS:
        point = OperatingPoint("raw-zstd", count, evaluation.harness.canvas.pixels, 0)
        baseline = None
        for share in SHARES:
            orders = (
                complementary_units(features.importance["last"], features.scored.embeddings, count, share)
                for features in evaluation.features
            )
            messages = (
                evaluation.message(features.scored, order, point)
                for features, order in zip(evaluation.features, orders, strict=True)
            )
            answers = evaluation.harness.answers(messages, step)
            hits = evaluation.hits(answers, [evaluation.weight(count)] * len(answers))
            baseline = baseline or hits
            yield {
                "units": count,
                "swapped": share,
                "server_acc": evaluation.shares(hits)["server_acc"],
                "vs_none": evaluation.differences(hits, baseline)["server_acc"],
            }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--rows", default="0::1")
    parser.add_argument("--out", type=Path, default=Path("runs/eval"))
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    config = load_config(None, {"gate.policy": "always"} | parse_assignments(arguments.set))
    pair = Pair.load(config)
    pictures = find_pictures(arguments.images, arguments.labels, pair.edge.labels).subset(
        parse_rows(arguments.rows), None
    )
    evaluation = Evaluation(Harness(pair, config.capture.resize), config, weight_by_units(config, pair.server))
    with ProgressBar(Console()) as bar:
        evaluation.score_images(pictures, ["last"], bar.show)
        rows = [*measure(evaluation, bar)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "swap.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
