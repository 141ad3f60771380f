"""Compares accuracy with and without evidence memory, on static and slow clips of the demo world.

    python -m bench.evidence_memory [--clips 36] [--rates 32 64 128]

Every frame takes all bits that the budget's window has left, as in a run with `gate: always`.
"""

from __future__ import annotations

import argparse

import numpy as np

from sagelink.lab.bootstrap_intervals import Bootstrap, interval
from sagelink.lab.clips import SLOW_KINDS, Clip, SyntheticPhotos, drawn_clips
from sagelink.lab.harness import Harness, server_answers
from sagelink.models.pair import Pair
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.config import Config
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.types import Frame, Reply
from sagelink.server.memory import ReferenceStore
from sagelink.server.receive import receive
from sagelink.stages.codec_planner import Plan
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.fuse import fuse
from sagelink.stages.reference_tracker import ReferenceTracker
from sagelink.stages.score import Score
from sagelink.stages.select import new_units_for
from sagelink.stages.selectors import coverage

FPS = 5.0


def play(clip: Clip, config: Config, harness: Harness, score: Score, kbps: float) -> list[tuple[bool, int, int]]:
    """For each frame: whether the verdict is right, units that the server classified with, message bits."""
    budget, encoder = UplinkBudget(kbps * 1000, 1.0), Encoder.from_config(config, harness.pair.server)
    age_s = config.select.memory
    memory = None if age_s is None else ReferenceTracker(harness.canvas.patch_size, age_s, config.select.min_units)
    server, results = ReferenceStore(config.serve.memory or 0), []
    for seq, frame in enumerate(clip.frames):
        (scored,) = score([Frame(seq, "bench", 0, frame.stream_s, frame.pixels, 0.0)])
        order = coverage(scored.importance, scored.embeddings, harness.canvas.units)
        cap = (budget.allowance(frame.stream_s) or 0) // 8
        plan: Plan | int | None = None
        base = None if memory is None else memory.reference_for(scored.picture, frame.stream_s)
        if memory is not None and base is not None:
            rest = new_units_for(base, order, coverage, scored)
            plan = encoder.fit_delta(seq, scored.picture, base, rest, cap)
            if plan is not None:
                units = np.sort(rest[: plan.point.units])
                memory.register_sent(seq, plan.message, base, units, scored.picture, frame.stream_s)
        if plan is None:
            plan = encoder.fit(seq, scored.picture, order, cap)
        answer, units_used, bits = scored.answer, 0, 0
        if isinstance(plan, Plan):
            bits = 8 * len(plan.message)
            assert budget.charge(frame.stream_s, bits)
            now_s = frame.stream_s
            received = receive(
                plan.message, harness.canvas, lambda name, now_s=now_s: server.recall("bench", name, now_s)
            )
            if received.name is not None:
                server.keep("bench", received.name, received.units, received.content, now_s)
            units_used = len(received.units)
            if memory is not None:
                memory.acknowledge(Reply(seq, None, (0,), (-0.1,), units_used, 0.0))
            (server_answer,) = server_answers(harness.classifier, [received])
            answer = fuse(answer, server_answer, plan.weight)
        results.append((answer.class_id == frame.truth, units_used, bits))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=36)
    parser.add_argument("--rates", type=float, nargs="+", default=[32, 64, 128], help="kbit/s")
    arguments = parser.parse_args()
    count = arguments.clips
    base = load_config(None, {"models": "demo"})
    harness = Harness(Pair.load(base), base.capture.resize)
    score = Score(harness.pair.edge, harness.pair.server.grid, base.select.importance, base.capture.resize)
    clips = [clip for clip in drawn_clips(SyntheticPhotos(400, 7), 4 * count, 4.0, FPS, 0) if clip.kind in SLOW_KINDS][
        :count
    ]
    print(f"{len(clips)} clips of {len(clips[0].frames)} frames; right % (units used, kbit/s spent); gain, paired")
    for kbps in arguments.rates:
        for codec in ("token-zstd", "raw-zstd", "auto"):
            cells, shares = [], []
            for memory in (None, "10s"):
                config = load_config(None, {"models": "demo", "encode.codec": codec, "select.memory": memory})
                rows = np.array(
                    [play(clip, config, harness, score, kbps) for clip in clips], float
                )  # (clips, frames, 3)
                right, units, bits = np.moveaxis(rows, 2, 0)
                used = units[bits > 0].mean() if bits.any() else 0.0
                shares.append(right.mean(1))
                cells.append(f"{100 * right.mean():5.1f} ({used:5.1f}, {bits.mean() * FPS / 1000:5.1f})")
            gains = shares[1] - shares[0]
            low, high = interval(Bootstrap.over(len(clips), 0).counts @ gains / len(clips))
            gain = f"{100 * gains.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            print(f"{kbps:5g} kbit/s {codec:11} without {cells[0]}  with {cells[1]}  gain {gain}", flush=True)


if __name__ == "__main__":
    main()
