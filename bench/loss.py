"""Simulates lost datagrams on the demo world: answered frames and accuracy, for parts and for whole messages.

    python -m bench.loss [--frames 300] [--bytes 700 1000 1800 3000]

Both kinds get the same wire bytes per frame, as WebRTC charges them, with headers and acknowledgements. Datagrams are
lost at random. The server classifies the units that arrive, and the edge reduces the weight accordingly; without any it
keeps its own answer. `parts` is what an edge sends over WebRTC; a message of one datagram is repeated once. `whole` is
the best single message, cut into datagrams that must all arrive. There is no clock and no network, so results are
reproducible.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.lab.harness import Harness, Sample, server_answers
from sagelink.models.pair import Pair
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.file import load_config
from sagelink.server.receive import receive
from sagelink.stages.codec_planner import Plan
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier_filter import usable_curves
from sagelink.stages.fuse import fuse
from sagelink.stages.sources.open import open_source
from sagelink.transport.bundle import PART_BYTES, encode_bundle, parts_of
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel

LOSSES = (0.0, 0.05, 0.1, 0.2)
_DRAWS = 4  # random losses per frame


@dataclass(frozen=True)
class SendMode:
    """A way to send messages."""

    name: str
    encoder: Encoder
    uses_datagrams: bool


@dataclass(frozen=True)
class LossShare:
    """Shares over all frames and draws."""

    answered: float
    server: float  # accuracy of the server on answered frames
    verdict: float  # accuracy of all verdicts


def max_message_bytes(wire_bytes: int) -> int:
    """The longest message that fits into this many bytes on the wire."""
    cost = WebRtcCostModel()
    return max(size for size in range(wire_bytes) if cost.message_bits(size) <= 8 * wire_bytes)


def lose(seq: int, message: bytes, uses_datagrams: bool, loss: float, rng: np.random.Generator) -> bytes | None:
    """The part of a message that arrives; None if nothing usable arrives."""
    if uses_datagrams:
        if len(message) <= PART_BYTES:  # repeated once, so both must be lost
            loss *= loss
        arrived = [part for part in parts_of(message) if rng.random() >= loss]
        return encode_bundle(seq, arrived) if arrived else None
    datagrams = -(-len(message) // PART_BYTES)
    return message if (rng.random(datagrams) >= loss).all() else None


def measure(
    harness: Harness, samples: Sequence[Sample], plans: Sequence[Plan | int], mode: SendMode, loss: float
) -> LossShare:
    rng = np.random.default_rng(7)
    arrived: list[tuple[Sample, Plan | int, bytes | None]] = []
    for _ in range(_DRAWS):
        for seq, (sample, plan) in enumerate(zip(samples, plans, strict=True)):
            message = None if isinstance(plan, int) else lose(seq, plan.message, mode.uses_datagrams, loss, rng)
            arrived.append((sample, plan, message))
    received = {message: receive(message, harness.canvas) for _, _, message in arrived if message is not None}
    answers = dict(zip(received, server_answers(harness.classifier, [*received.values()]), strict=True))
    right = served = answered = 0
    for sample, plan, message in arrived:
        verdict = Answer.from_log_scores(sample.edge)
        if message is not None and isinstance(plan, Plan):
            answered += 1
            served += answers[message].class_id == sample.truth
            verdict = fuse(verdict, answers[message], plan.weight * len(received[message].units) / plan.point.units)
        right += verdict.class_id == sample.truth
    return LossShare(answered / len(arrived), served / max(1, answered), right / len(arrived))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--bytes", type=int, nargs="+", default=[700, 1000, 1800, 3000], help="wire bytes per frame")
    arguments = parser.parse_args()
    config = load_config(None, {"capture.source": f"synthetic:{arguments.frames},seed=12", "models": "demo"})
    pair = Pair.load(config)
    harness = Harness(pair, config.capture.resize)
    source = open_source(config.all_cameras[0])
    samples = list(harness.samples(((frame.pixels, frame.truth) for frame in source), config.select))
    lines = usable_curves(config, pair.server.name, harness.canvas)
    modes = [
        SendMode("whole", Encoder(lines, harness.canvas, config.encode.slack), uses_datagrams=False),
        SendMode("parts", Encoder(lines, harness.canvas, config.encode.slack, PART_BYTES), uses_datagrams=True),
    ]
    print(f"| bytes a frame | sent | {' | '.join(f'{loss:.0%} lost' for loss in LOSSES)} |")
    print("|---" * (2 + len(LOSSES)) + "|")
    for wire_bytes in arguments.bytes:
        for mode in modes:
            cap = max_message_bytes(wire_bytes)
            plans = [mode.encoder.fit(seq, sample.picture, sample.order, cap) for seq, sample in enumerate(samples)]
            shares = [measure(harness, samples, plans, mode, loss) for loss in LOSSES]
            cells = [f"{each.answered:.1%}, {each.server:.1%}, {each.verdict:.1%}" for each in shares]
            print(f"| {wire_bytes} | {mode.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
