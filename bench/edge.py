"""Compares the whole pipeline with a bare loop of the same two timm models, in frames/s.

    python -m bench.edge CLIP [--rounds 3] [--frames 150] [--set stage.key=value ...]

The bare loop only calls the two models on prepared tensors, one frame after the other, with the same number of threads.
The pipeline decodes, scales, scores, selects, encodes, sends over the in-process link, classifies, fuses and writes
results.jsonl. Rounds alternate, so a change of the machine's speed affects both. The ratio of processor time depends
less on other work of the machine: twice this ratio is the most that two free cores could reach.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config, parse_assignments


@torch.inference_mode()
def bare_loop(pair: Pair, frames: int) -> tuple[float, float]:
    """Seconds of wall and of processor time of the two models alone."""
    edge = torch.randn(1, 3, pair.edge.grid.image_size, pair.edge.grid.image_size)
    server = torch.randn(1, 3, pair.server.grid.image_size, pair.server.grid.image_size)
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(frames):
        pair.edge.vit(edge)
        pair.server.vit(server)
    return time.perf_counter() - began, time.process_time() - began_cpu


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
    ratios, cpu_ratios = [], []
    bare_loop(pair, 20)  # warm-up
    for number in range(arguments.rounds):
        before = bare_loop(pair, arguments.frames)
        with tempfile.TemporaryDirectory() as folder:
            config = load_config(None, settings | {"output.out": str(Path(folder) / "out")})
            began_cpu = time.process_time()
            summary = prepare(config, pair).run()
            cpu_s = time.process_time() - began_cpu
        after = bare_loop(pair, arguments.frames)
        bare_s, bare_cpu_s = (sum(each) / 2 for each in zip(before, after, strict=True))
        bare_fps = arguments.frames / bare_s
        ratios.append(summary["fps"] / bare_fps)
        cpu_ratios.append(bare_cpu_s / arguments.frames / (cpu_s / summary["frames"]))
        print(
            f"round {number + 1}: pipeline {summary['fps']:.1f} fps, {cpu_s / summary['frames'] * 1e3:.0f} ms of "
            f"processor time a frame ({summary['offloaded']} of {summary['frames']} frames offloaded, "
            f"threads={config.threads}), bare loop {bare_fps:.1f} fps, {bare_cpu_s / arguments.frames * 1e3:.0f} ms, "
            f"ratio {ratios[-1]:.2f}, of processor time {cpu_ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"median ratio {statistics.median(ratios):.2f} (limit: at least 0.90), of processor time "
        f"{statistics.median(cpu_ratios):.2f}"
    )


if __name__ == "__main__":
    main()
