"""Gate stage: keeps the edge answer where it is confident enough, else offloads the frame. `Metered` in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sagelink.pipeline.answers import Answer, TaughtClasses
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.types import Drop, EdgeOnly, Metered, Sent
from sagelink.stages.lasting_doubt import LastingDoubt

# From the edge answer and the threshold to whether the frame is offloaded.
Policy = Callable[[Answer, float], bool]


def min_entropy(answer: Answer, threshold: float) -> bool:
    """Offloads when the min-entropy of the answer, -log2 of its top probability, exceeds the threshold in bits."""
    return bool(-answer.log_probs.max() / np.log(2) > threshold)


def margin(answer: Answer, threshold: float) -> bool:
    """Offloads when the difference of the two largest probabilities is below the threshold."""
    second, first = np.exp(np.partition(answer.log_probs, -2)[-2:])
    return bool(first - second < threshold)


_POLICIES: dict[str, tuple[Policy, float]] = {
    "min_entropy": (min_entropy, 0.5),
    "margin": (margin, 0.5),
    "always": (lambda answer, threshold: True, 0.0),
    "never": (lambda answer, threshold: False, 0.0),
}


def policy_names() -> list[str]:
    """Names of all policies."""
    return [*_POLICIES]


def register_policy(name: str, policy: Policy, default_threshold: float = 0.0) -> None:
    """Makes a policy available to configurations under `name`."""
    _POLICIES[name] = (policy, default_threshold)


def check_threshold(config: GateConfig, classes: int) -> None:
    """Raises UsageError for a threshold in bits that the answers to this number of classes never exceed."""
    most = math.log2(classes)
    if config.policy == "min_entropy" and config.threshold is not None and config.threshold >= most:
        raise UsageError(
            f"gate.threshold {config.threshold:g} bits: with {classes} classes an answer has at most {most:.2f} bits: "
            f"nothing would be sent; accepted: less than {most:.2f}, or gate.policy never"
        )


class Gate:
    def __init__(self, config: GateConfig, own_bits: float | None = None) -> None:
        """`own_bits`: default threshold of `min_entropy` for taught classes. Raises UsageError (unknown policy)."""
        self._own_bits = own_bits
        self.paused: set[str] = set()  # cameras whose frames all keep their edge answer
        self._doubts: dict[str, LastingDoubt] = {}  # by camera
        self.requested: set[str] = set()  # cameras whose next message is sent whatever the policy says
        self.change(config)

    def change(self, config: GateConfig) -> None:
        """Applies `config` from the next frame on. Raises UsageError for an unknown policy; then nothing changes."""
        if config.policy not in _POLICIES:
            raise UsageError(
                f"gate.policy: unknown policy {config.policy!r}{suggest(config.policy, [*_POLICIES])}; "
                f"accepted: {', '.join(_POLICIES)}"
            )
        self._policy, default = _POLICIES[config.policy]
        if config.policy == "min_entropy" and self._own_bits is not None:
            default = self._own_bits
        self.threshold = default if config.threshold is None else config.threshold
        self.config = config

    def offloads(self, answer: Answer, own_bits: float | None = None) -> bool:
        """Whether a frame with this answer is to be offloaded. `own_bits`: of the head that the frame was scored with,
        in place of that of the gate."""
        by_head = self.config.policy == "min_entropy" and self.config.threshold is None and own_bits is not None
        return self._policy(answer, own_bits if by_head and own_bits is not None else self.threshold)

    def sends(self, answer: Answer, own: Answer, taught: TaughtClasses | None) -> bool:
        """Whether a frame is to be offloaded. `answer`: of its scene; `own`: of the frame alone. Taught classes may be
        states that change without a cut, so there both must be sure."""
        own_bits = taught.gate_bits if taught else None
        return self.offloads(answer, own_bits) or (taught is not None and self.offloads(own, own_bits))

    async def process(self, metered: Metered) -> Metered | EdgeOnly:
        camera = metered.frame.camera
        if camera in self.requested:
            return replace(metered, requested=True)
        if camera in self.paused:
            return EdgeOnly(metered, Drop.PAUSED)
        scored = metered.scored
        sends = self.sends(metered.answer, scored.answer, scored.taught)
        if metered.provisional is not None and scored.taught is not None:
            sends = self._doubts.setdefault(camera, LastingDoubt()).lasts(sends, metered.frame.stream_s)
        return metered if sends else EdgeOnly(metered, Drop.GATE)


class EndRequest:
    """Stage after sending: a request for a message of this camera is fulfilled."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def process(self, sent: Sent) -> Sent:
        self._gate.requested.discard(sent.frame.camera)
        return sent
