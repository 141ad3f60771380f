"""Measures the processor time per frame of scene tracking and rate control: `python -m bench.scene_tracking`."""

from __future__ import annotations

import time

import numpy as np

from sagelink.pipeline.answers import Answer, ServerObservation
from sagelink.pipeline.types import EdgeView
from sagelink.stages.frontier import SHIPPED, read_frontier
from sagelink.stages.rate_control import RateControl, UtilityCurve
from sagelink.stages.scene_fusion import MAX_OBSERVATIONS, SceneConfig, SceneFusion
from sagelink.stages.zoom import ZoomSchedule, thumbnail_of
from sagelink.transport.codecs import Canvas

LIMIT_MS = 2.0
_FRAMES, _CLASSES, _WIDTH = 1000, 1000, 192


def main() -> None:
    """Frames have 1280 x 720 pixels; the scene holds its maximum number of server answers."""
    rng = np.random.default_rng(0)
    answer = Answer.from_log_scores(rng.standard_normal(_CLASSES).astype(np.float32))
    class_token = rng.standard_normal(_WIDTH).astype(np.float32)
    pixels = rng.integers(0, 256, (720, 1280, 3), np.uint8)
    importance = rng.random(196, np.float32)
    (path,) = SHIPPED.glob("vit_tiny*.yaml")
    utility = UtilityCurve.from_curves(read_frontier(path, Canvas(14, 16)))
    for bit_price in (0.0, 1e-6):
        config = SceneConfig(hold_s=1e9)
        scene, smoothed = SceneFusion(config), SceneFusion(config)  # a run keeps both: for answers at once, and revised
        rate_control = RateControl(utility)
        zoom, times = ZoomSchedule(), []
        for seq in range(_FRAMES):
            began = time.process_time_ns()
            thumbnail = thumbnail_of(pixels)
            crop = zoom.next_crop(thumbnail)
            zoom.update(crop, importance)
            look = EdgeView(crop, class_token, thumbnail)
            estimate = scene.observe(seq, answer, look, seq / 10)
            doubt = 1 - Answer.from_log_scores(estimate.scores).prob
            rate_control.max_bytes(doubt, estimate.server_weight, 8000.0, bit_price)
            scene.register_sent(seq)
            scene.add_server_answers([ServerObservation(seq, answer.log_probs, 0.5)])
            smoothed.observe(seq, answer, look, seq / 10)
            smoothed.register_sent(seq)
            smoothed.add_server_answers([ServerObservation(seq, answer.log_probs, 0.5)])
            Answer.from_log_scores(smoothed.current()[0])
            if seq > MAX_OBSERVATIONS:
                times.append((time.process_time_ns() - began) / 1e6)
        name = "with a price" if bit_price else "default"
        median, p95 = np.percentile(times, (50, 95))
        print(f"{name}: median {median:.2f} ms, p95 {p95:.2f} ms of processor time; limit {LIMIT_MS} ms")


if __name__ == "__main__":
    main()
