"""Measures the edge pass, pixels to answer, importance and embeddings, in every installed runtime, and its parts.

    python -m bench.edge_pass [--rounds 30] [--importance gradient] [--set edge.checkpoint=FILE ...]

Processor time on one core. Rounds alternate between all rows, so a change of the machine's speed affects all of them. A
ratio is the median over rounds of the row's time divided by that of PyTorch's bare forward pass in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sagelink.models.loading import Model
from sagelink.models.model_contract import Importance
from sagelink.models.pair import Pair
from sagelink.models.preprocess import make_picture
from sagelink.models.runtimes.compilers import COMPILERS, UnusableError, version_of
from sagelink.models.runtimes.export_cache import ExportError
from sagelink.models.runtimes.trials import EdgeTrial
from sagelink.pipeline.config.file import load_config, parse_assignments
from sagelink.pipeline.types import Frame, Pixels
from sagelink.stages.score import Score
from sagelink.stages.selectors import coverage
from sagelink.stages.zoom import thumbnail_of

_FRAME = (720, 1280)  # pixels of a camera's frame: height, width
_BASE = "bare forward pass of PyTorch"


def passes(edge: Model, importance: Importance) -> dict[str, Model]:
    """The edge model in each runtime and precision of this machine, by name."""
    plain = replace(edge, computed_score=None)
    found = {"torch fp32": plain}
    for name, compiler in COMPILERS.items():
        if version_of(compiler) is None:
            continue
        for precision in compiler.precisions():
            try:
                found[f"{name} {precision}"] = EdgeTrial(plain, importance, 1).computed(name, precision)
            except (ExportError, UnusableError) as error:
                print(f"{name} {precision}: {error}")
    return found


def rows_of(pair: Pair, importance: Importance, frame: Pixels, picture: Pixels) -> dict[str, Callable[[], object]]:
    """What is measured, by name: passes with each importance and runtime, then the parts of a frame."""
    edge, batch = replace(pair.edge, computed_score=None), picture[None]
    normalised = edge.normalise(batch)
    features = edge.score(batch, importance)
    units, embeddings = features.importance[0], features.embeddings[0]
    score = Score(edge, pair.server.grid, importance, "squash")
    rows: dict[str, Callable[[], object]] = {_BASE: lambda: edge.vit(normalised)}
    for kind in get_args(Importance):
        rows[f"torch fp32, {kind}"] = lambda kind=kind: edge.score(batch, kind)
    for name, model in passes(pair.edge, importance).items():
        rows[f"{name}, {importance}"] = lambda model=model: model.score(batch, importance)
    size, interpolation = edge.grid.image_size, edge.grid.interpolation
    return rows | {
        "part: thumbnail": lambda: thumbnail_of(frame),
        "part: resize": lambda: make_picture(frame, size, "squash", interpolation),
        "part: normalise": lambda: edge.normalise(batch),
        "part: coverage selection": lambda: coverage(units, embeddings, len(units)),
        "whole score stage, torch fp32": lambda: score([Frame(0, "bench", 0, 0.0, frame, 0.0)]),
    }


@torch.inference_mode()
def measure(rows: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor milliseconds of each row in each round."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds + 1):  # the first round is the warm-up
        for name, run in rows.items():
            began = time.process_time()
            run()
            times[name].append((time.process_time() - began) * 1e3)
    return {name: measured[1:] for name, measured in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--importance", default="gradient", choices=get_args(Importance))
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
    settings = {
        "edge.runtime": "torch",
        "server.runtime": "torch",
        "threads": 1,
        **parse_assignments(arguments.assignments),
    }
    pair = Pair.load(load_config(None, settings))
    rng = np.random.default_rng(0)
    size = pair.edge.grid.image_size
    frame = make_picture(rng.integers(0, 256, (9, 16, 3), np.uint8), _FRAME[1], "squash", "bicubic")[: _FRAME[0]].copy()
    picture = make_picture(frame, size, "squash", "bicubic")
    with threadpool_limits(1):
        times = measure(rows_of(pair, arguments.importance, frame, picture), arguments.rounds)
    print("| row | median ms | ratio |\n|---|---|---|")
    for name, measured in times.items():
        ratio = statistics.median(one / base for one, base in zip(measured, times[_BASE], strict=True))
        print(f"| {name} | {statistics.median(measured):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
