"""Compares the whole pipeline with a bare loop of the same two timm models, in frames/s.

    python -m bench.edge CLIP [--rounds 3] [--frames 150] [--set stage.key=value ...]

The bare loop only calls the two models on prepared tensors, one frame after the other, with the same number of threads.
The pipeline decodes, scales, scores, selects, encodes, sends over the in-process link, classifies, fuses and writes
results.jsonl. Rounds alternate, so a change of the machine's speed affects both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from sagelink.app.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config_file import load_config, parse_assignments


@torch.inference_mode()
def bare_loop(pair: Pair, frames: int) -> float:
    """Frames/s of the two models alone."""
    edge = torch.randn(1, 3, pair.edge.grid.image_size, pair.edge.grid.image_size)
    server = torch.randn(1, 3, pair.server.grid.image_size, pair.server.grid.image_size)
    began = time.perf_counter()
    for _ in range(frames):
        pair.edge.vit(edge)
        pair.server.vit(server)
    return frames / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
    settings = {
        "capture.source": arguments.clip,
        "capture.max_frames": arguments.frames,
        "gate.policy": "always",
        "budget.uplink": "unlimited",
        "select.units": 196,
        **parse_assignments(arguments.assignments),
    }
    pair = Pair.load(load_config(None, settings))
    ratios = []
    bare_loop(pair, 20)  # warm-up
    for number in range(arguments.rounds):
        before = bare_loop(pair, arguments.frames)
        with tempfile.TemporaryDirectory() as folder:
            config = load_config(None, settings | {"output.out": str(Path(folder) / "out")})
            summary = prepare(config, pair).run()
        bare = (before + bare_loop(pair, arguments.frames)) / 2
        ratios.append(summary["fps"] / bare)
        print(
            f"round {number + 1}: pipeline {summary['fps']:.1f} fps ({summary['offloaded']} of {summary['frames']} "
            f"frames offloaded, threads={config.threads}), bare loop {bare:.1f} fps, ratio {ratios[-1]:.2f}"
        )
    print(f"median ratio {statistics.median(ratios):.2f} (limit: at least 0.90)")


if __name__ == "__main__":
    main()
