"""What a run looks like at this moment, in constant memory: for the terminal, the dashboard and /api/stats."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sagelink.pipeline.types import Drop, Verdict

STAGES = ("capture", "score", "select", "encode", "ship", "server", "total")
_RECENT = 512  # frames that percentiles are of
_PACE_FRAMES = 120  # frames that frames/s is of
_PACE_S = 10.0

# Who is slow, or decided, when a frame is not answered by the server. `link` and `late` are told apart by slow_side.
_SIDES = {
    Drop.BUDGET: "budget",
    Drop.SUPERSEDED: "edge",
    Drop.ERROR: "edge",
    Drop.REFUSED: "server",
}


class Recent:
    """The last values of something, and their percentiles."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_RECENT)

    def add(self, value: float) -> None:
        self._values.append(value)

    def percentiles(self) -> dict[str, float] | None:
        """`p50` and `p95`; None when there are no values."""
        if not self._values:
            return None
        middle, most = np.percentile(self._values, [50, 95])
        return {"p50": round(float(middle), 2), "p95": round(float(most), 2)}


@dataclass(slots=True)
class CameraStats:
    """One camera."""

    last_s: float  # monotonic, of the last verdict, or when the run began
    frames: int = 0
    last: Verdict | None = None
    newest: Verdict | None = None  # the same, or what is said at once of a later frame
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_PACE_FRAMES))

    def fps(self, now_s: float) -> float:
        """Verdicts a second over the last ten seconds."""
        recent = [at for at in self.arrivals if at > now_s - _PACE_S]
        return (len(recent) - 1) / max(now_s - recent[0], 1e-3) if len(recent) > 1 else 0.0

    def tell(self, verdict: Verdict) -> None:
        """Takes a verdict, or what is said until then, unless more is known of a newer frame."""
        if self.newest is None or verdict.frame.seq >= self.newest.frame.seq:
            self.newest = verdict


def slow_side(reason: str, ship_ms: float | None, server_ms: float | None) -> str | None:
    """The side that a drop reason blames: edge, budget, link or server; None when nobody is slow.

    A full link window and a late reply have two possible causes. The half of the answered messages with the longer
    time decides: on its way, or in the server. Nothing answered at all blames the link.
    """
    if reason in (Drop.LINK, Drop.LATE):
        return "server" if (server_ms or 0.0) > (ship_ms or 0.0) else "link"
    return _SIDES.get(Drop(reason))


class LiveStats:
    """Takes verdicts in one thread, and is read from any other."""

    def __init__(self, own_budget_cameras: Collection[str] = (), window_s: float = math.inf) -> None:
        """`own_budget_cameras`: cameras with a budget of their own, whose window is not the one told of; `window_s`: after so long
        without a frame that asked, the window is empty (never in a replay, which has a time of its own).
        """
        self._own_budget_cameras = own_budget_cameras
        self._window_s = window_s
        self._asked_s = -math.inf
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._origins: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._stages = {stage: Recent() for stage in STAGES}
        self._cameras: dict[str, CameraStats] = {}
        self._frames = self._offloaded = self._wire_bits = 0
        self._window_bits = self._peak_window_bits = 0
        self._budget_bits: int | None = None
        self._with_truth = self._correct = self._edge_correct = 0

    def write(self, verdict: Verdict) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._frames += 1
            self._offloaded += verdict.sent_s is not None
            self._wire_bits += verdict.wire_bits
            self._origins[verdict.origin] += 1
            if verdict.drop is not None:
                self._drops[verdict.drop.value] += 1
            if verdict.window_bits is not None and verdict.frame.camera not in self._own_budget_cameras:
                self._asked_s = now_s
                self._window_bits = verdict.window_bits
                self._budget_bits = verdict.budget_bits
                self._peak_window_bits = max(self._peak_window_bits, verdict.window_bits)
            for stage, ms in verdict.latency_ms.items():
                if ms is not None:
                    self._stages[stage].add(ms)
            truth = verdict.frame.truth
            if truth is not None:
                self._with_truth += 1
                self._correct += verdict.answer is not None and verdict.answer.class_id == truth
                self._edge_correct += verdict.edge is not None and verdict.edge.class_id == truth
            camera = self._cameras.setdefault(verdict.frame.camera, CameraStats(now_s))
            camera.frames += 1
            camera.last, camera.last_s = verdict, now_s
            camera.arrivals.append(now_s)
            camera.tell(verdict)

    def show_pending(self, verdict: Verdict) -> None:
        """What is said of a frame at once, whose verdict has to wait."""
        with self._lock:
            self._cameras.setdefault(verdict.frame.camera, CameraStats(time.monotonic())).tell(verdict)

    def close(self) -> None:
        pass

    def snapshot(self, labels: tuple[str, ...], health: Mapping[str, Mapping[str, object] | None]) -> dict[str, Any]:
        """Plain JSON values; `health`: of each camera, None for what cannot fail."""
        now_s = time.monotonic()
        unseen = CameraStats(self._began_s)
        with self._lock:
            stages = {stage: recent.percentiles() for stage, recent in self._stages.items()}
            ship, server = stages["ship"], stages["server"]
            halves = (ship["p50"] if ship else None, server["p50"] if server else None)
            truth = self._with_truth
            return {
                "uptime_s": round(now_s - self._began_s, 3),
                "frames": self._frames,
                "fps": round(sum(camera.fps(now_s) for camera in self._cameras.values()), 2),
                "offloaded": self._offloaded,
                "wire_bits": self._wire_bits,
                "window_bits": self._window_bits if now_s - self._asked_s <= self._window_s else 0,
                "peak_window_bits": self._peak_window_bits,
                "budget_bits": self._budget_bits,
                "origins": dict(self._origins),
                "drops": {
                    reason: {"frames": count, "slow": slow_side(reason, *halves)}
                    for reason, count in self._drops.most_common()
                },
                "latency_ms": stages,
                "accuracy": {"verdict": self._correct / truth, "edge": self._edge_correct / truth} if truth else None,
                "cameras": {
                    name: _camera(self._cameras.get(name, unseen), labels, now_s) | {"health": each}
                    for name, each in health.items()
                },
            }


def _camera(camera: CameraStats, labels: tuple[str, ...], now_s: float) -> dict[str, object]:
    last = camera.last
    pace: dict[str, object] = {
        "frames": camera.frames,
        "fps": round(camera.fps(now_s), 2),
        "silent_s": round(now_s - camera.last_s, 1),
    }
    if last is None:
        return pace
    return pace | {
        "label": labels[last.answer.class_id] if last.answer else None,
        "prob": round(last.answer.prob, 4) if last.answer else None,
        "origin": last.origin,
        "drop": last.drop,
        "units": len(last.units),
        "wire_bits": last.wire_bits,
        "revised_from": labels[last.revised_from.class_id] if last.revised_from else None,
        "now": _now(camera.newest, labels),
    }


def _now(newest: Verdict | None, labels: tuple[str, ...]) -> dict[str, object] | None:
    """What is said of the newest frame, be its verdict written or not."""
    if newest is None or newest.answer is None:
        return None
    answer = newest.answer
    return {"seq": newest.frame.seq, "label": labels[answer.class_id], "prob": round(answer.prob, 4)}
