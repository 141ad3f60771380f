"""What lost datagrams cost on the demo world: frames answered and accuracy, in parts and with all or nothing.

    python -m bench.loss [--frames 300] [--bytes 700 1000 1800 3000]

Both get the same bytes a frame, as WebRTC charges them: headers and acknowledgements of the verdict included. Each
datagram is lost by lot; the server classifies with what is left, the edge fuses with the weight that is left, and keeps
its own answer where nothing is. `parts` is what an edge sends over WebRTC; its messages of one datagram go again, once.
`whole` is the best message of one process, cut into datagrams of which each must arrive. No clock and no network: the
same numbers each time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.lab.harness import Harness, Sample, answers_of
from sagelink.models.pair import Pair
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.types import Answer
from sagelink.server.receive import receive
from sagelink.stages.encoder import Encoder
from sagelink.stages.fuse import fuse
from sagelink.stages.planner import Plan
from sagelink.stages.sources.open import open_source
from sagelink.stages.usable_curves import usable_curves
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel
from sagelink.transport.wire import PART_BYTES, encode_bundle, parts_of

LOSSES = (0.0, 0.05, 0.1, 0.2)
_DRAWS = 4  # of what is lost, a frame


@dataclass(frozen=True)
class LossMode:
    """A way to send."""

    name: str
    encoder: Encoder
    in_parts: bool


@dataclass(frozen=True)
class LossShare:
    """Of frames times draws."""

    answered: float
    server: float  # accuracy where it answered
    verdict: float  # accuracy of all


def largest(wire_bytes: int) -> int:
    """The longest message that so many bytes on the wire carry."""
    tariff = WebRtcCostModel()
    return max(size for size in range(wire_bytes) if tariff.message_bits(size) <= 8 * wire_bytes)


def lose(seq: int, message: bytes, in_parts: bool, loss: float, rng: np.random.Generator) -> bytes | None:
    """What the server gets of a message."""
    if in_parts:
        if len(message) <= PART_BYTES:  # goes again, once
            loss *= loss
        arrived = [part for part in parts_of(message) if rng.random() >= loss]
        return encode_bundle(seq, arrived) if arrived else None
    datagrams = -(-len(message) // PART_BYTES)
    return message if (rng.random(datagrams) >= loss).all() else None


def measure(
    harness: Harness, samples: Sequence[Sample], plans: Sequence[Plan | int], way: LossMode, loss: float
) -> LossShare:
    rng = np.random.default_rng(7)
    arrived: list[tuple[Sample, Plan | int, bytes | None]] = []
    for _ in range(_DRAWS):
        for seq, (sample, plan) in enumerate(zip(samples, plans, strict=True)):
            message = None if isinstance(plan, int) else lose(seq, plan.message, way.in_parts, loss, rng)
            arrived.append((sample, plan, message))
    received = {message: receive(message, harness.canvas) for _, _, message in arrived if message is not None}
    answers = dict(zip(received, answers_of(harness.classifier, [*received.values()]), strict=True))
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
    parser.add_argument("--bytes", type=int, nargs="+", default=[700, 1000, 1800, 3000], help="a frame, on the wire")
    arguments = parser.parse_args()
    config = load_config(None, {"capture.source": f"synthetic:{arguments.frames},seed=12", "models": "demo"})
    pair = Pair.load(config)
    harness = Harness(pair, config.capture.resize)
    source = open_source(config.all_cameras[0])
    samples = list(harness.samples(((shot.pixels, shot.truth) for shot in source), config.select))
    lines = usable_curves(config, pair.server.name, harness.canvas)
    ways = [
        LossMode("whole", Encoder(lines, harness.canvas, config.encode.slack), in_parts=False),
        LossMode("parts", Encoder(lines, harness.canvas, config.encode.slack, PART_BYTES), in_parts=True),
    ]
    print(f"| bytes a frame | sent | {' | '.join(f'{loss:.0%} lost' for loss in LOSSES)} |")
    print("|---" * (2 + len(LOSSES)) + "|")
    for wire_bytes in arguments.bytes:
        for way in ways:
            cap = largest(wire_bytes)
            plans = [way.encoder.fit(seq, each.picture, each.order, cap) for seq, each in enumerate(samples)]
            shares = [measure(harness, samples, plans, way, loss) for loss in LOSSES]
            cells = [f"{each.answered:.1%}, {each.server:.1%}, {each.verdict:.1%}" for each in shares]
            print(f"| {wire_bytes} | {way.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
