"""Measures resident memory over a long run, to find leaks: `python -m bench.memory [FRAMES]`.

Synthetic frames pass the whole pipeline with a stub instead of the edge model, so only memory of the pipeline
counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from unittest import mock

import numpy as np
import psutil

from sagelink.app.edge.run import Run, prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.types import WHOLE, EdgeView, Frame, Scored, Verdict
from sagelink.stages.score import Score
from sagelink.stages.zoom import thumbnail_of


def stub_score(scorer: Score, frames: Sequence[Frame]) -> list[Scored]:
    """Replaces `Score.__call__`."""
    return [_stub(frame) for frame in frames]


def _stub(frame: Frame) -> Scored:
    """A scored frame without a model: random importance and embeddings, an uncertain answer."""
    rng = np.random.default_rng(frame.seq)
    log_probs = np.full(16, np.log(1 / 16), np.float32)
    return Scored(
        frame=frame,
        picture=np.resize(frame.pixels, (112, 112, 3)),
        answer=Answer(0, 1 / 16, log_probs),
        importance=rng.random(196, dtype=np.float32),
        embeddings=rng.standard_normal((196, 64), dtype=np.float32),
        edge_view=EdgeView(WHOLE, rng.standard_normal(64, dtype=np.float32), thumbnail_of(frame.pixels)),
        score_ms=0.0,
    )


def measure(frames: int) -> list[float]:
    """Median resident memory in MB per quarter of the run."""
    process = psutil.Process()
    sizes: list[int] = []

    def sample(verdict: Verdict) -> None:
        if verdict.frame.seq % 20 == 0:
            sizes.append(process.memory_info().rss)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Score, "__call__", stub_score):
        settings = {"capture.source": f"synthetic:{frames},size=64x64,fps=100", "models": "demo", "output.out": folder}
        config = load_config(None, settings)
        run: Run = prepare(config, Pair.load(config))
        run.run(sample)
    quarter = len(sizes) // 4
    return [statistics.median(sizes[i * quarter : (i + 1) * quarter]) / 1e6 for i in range(4)]


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    quarters = measure(frames)
    growth = quarters[3] / quarters[1] - 1
    print(f"{frames} frames, resident memory by quarter: {', '.join(f'{size:.1f} MB' for size in quarters)}")
    print(f"last quarter against second: {growth:+.2%} (limit: +2 %)")


if __name__ == "__main__":
    main()
