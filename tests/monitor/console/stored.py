"""Values that tests put into the store of a console."""

from __future__ import annotations

from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.store_batch import AnswerToStore, FrameToStore

EVENT = SeenEvent("e", "ramp", "=lorry", "closed", 0.9, 3, "fused", 800, 1.0, 2.0, 1000.0, 1001.0)


def frame(number: int, wall_s: float = 0.0, node: str = "north", size: int = 100) -> FrameToStore:
    return FrameToStore(number, wall_s or 1000.0 + number, node, f"{node}/door", number, 800, 4, 4, bytes(size))


def answer(number: int, label: str = "lorry", prob: float = 0.9) -> AnswerToStore:
    return AnswerToStore(number, label, prob, "", None, 40.0)
