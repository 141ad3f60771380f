"""Measures the processor time to plan and encode one message: `python -m bench.planner IMAGES [--parts] [--camera]`.

With `--parts`, messages are split for a lossy link, as over WebRTC. With `--camera`, the images are frames of one
camera, in the order of their names, and each search begins with the ratios of the last frame. Prints median and 95th
percentile as shares of their limits, the number of encoded messages and parts per frame, and the used share of the cap.
Fails if a message is longer than its cap.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from sagelink.models.preprocess import make_picture
from sagelink.pipeline.types import WHOLE, OperatingPoint, Pixels, Units
from sagelink.stages.codec_planner import Plan, SizeRatios
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import find_frontier, read_frontier
from sagelink.stages.sources.image_file import read_image
from sagelink.stages.zoom import ZoomCrop
from sagelink.transport.bundle import PART_BYTES
from sagelink.transport.codecs import Canvas

CAPS = (500, 1000, 2000, 4000, 8000)
MEDIAN_MS, P95_MS = 15.0, 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--frontier", type=Path, help="default: the one that ships for ViT-Tiny")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--camera", action="store_true")
    arguments = parser.parse_args()
    canvas, part_bytes = Canvas(14, 16), PART_BYTES if arguments.parts else None
    lines = read_frontier(find_frontier("vit_tiny_patch16_224.augreg_in21k_ft_in1k", arguments.frontier), canvas)
    paths = sorted(path for path in arguments.images.iterdir() if path.suffix in (".webp", ".jpg", ".png"))
    frames = [read_image(path) for path in paths[: arguments.count]]
    rng = np.random.default_rng(0)
    order, importance = rng.permutation(canvas.units), rng.random(canvas.units, np.float32)
    with threadpool_limits(1):
        for cap in CAPS:
            encoder, times_ms, used, coded = _CountingEncoder(lines, canvas, part_bytes=part_bytes), [], [], []
            ratios = SizeRatios() if arguments.camera else None
            for frame in frames:
                draw = partial(make_picture, frame, 224, "squash", "bicubic", 1.0)
                picture = draw(WHOLE)
                encoder.messages, began = 0, time.process_time()
                planned = encoder.fit(0, picture, order, cap, ZoomCrop(WHOLE, importance, draw), ratios)
                times_ms.append((time.process_time() - began) * 1e3)
                coded.append(encoder.messages)
                if isinstance(planned, Plan):
                    assert len(planned.message) <= cap
                    used.append(len(planned.message) / cap)
            median, p95 = np.median(times_ms), np.quantile(times_ms, 0.95)
            print(
                f"{cap:>5} bytes: median {median:.1f} ms, {median / MEDIAN_MS:.0%} of the limit; p95 {p95:.1f} ms, "
                f"{p95 / P95_MS:.0%}; messages coded {np.mean(coded):.1f}, at most {max(coded)}; cap used "
                f"{np.mean(used) if used else 0:.0%}; fitted {len(used)} of {len(frames)}"
            )


class _CountingEncoder(Encoder):
    messages = 0  # encoded so far

    def encode_units(self, seq: int, picture: Pixels, units: Units, point: OperatingPoint) -> bytes:
        self.messages += 1
        return super().encode_units(seq, picture, units, point)


if __name__ == "__main__":
    main()
