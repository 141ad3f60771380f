"""Live state of a run: takes its verdicts, returns counts, rates and percentiles.

The terminal panel, the dashboard and /api/stats show it. Memory is constant. One thread writes; any thread may read.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sagelink.pipeline.types import Drop, Verdict
from sagelink.stages.sinks.tally import Tally, VerdictCounts

STAGES = ("capture", "score", "select", "encode", "ship", "server", "total")
_PERCENTILE_VALUES = 512  # percentiles are over the last so many values
_RATE_FRAMES = 120  # frames/s is measured over the last so many frames
_RATE_S = 10.0  # and over at most so many seconds
_STALE_S = 3.0  # a camera that is silent for longer, and for longer than a few of its usual intervals, is stale
_STALE_INTERVALS = 3

# The side that holds frames back, by drop reason. For `link` and `late`, `slow_side` decides between two sides.
_SIDES = {
    Drop.BUDGET: "budget",
    Drop.SUPERSEDED: "edge",
    Drop.ERROR: "edge",
    Drop.REFUSED: "server",
}


class RecentValues:
    """The last values of a quantity, and their percentiles."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_PERCENTILE_VALUES)

    def add(self, value: float) -> None:
        self._values.append(value)

    def percentiles(self) -> dict[str, float] | None:
        """`p50` and `p95`; None when there are no values."""
        if not self._values:
            return None
        p50, p95 = np.percentile(self._values, [50, 95])
        return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


@dataclass(slots=True)
class CameraActivity:
    """The latest verdicts of one camera, and when they came."""

    last_s: float  # time of the last verdict; before the first one, of the start of the run
    last: Verdict | None = None  # the last final verdict
    newest: Verdict | None = None  # the verdict or provisional answer of the newest frame
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_FRAMES))  # times of the verdicts

    def fps(self, now_s: float) -> float:
        """Verdicts per second over the last ten seconds."""
        recent = [at_s for at_s in self.arrivals_s if at_s > now_s - _RATE_S]
        return (len(recent) - 1) / max(now_s - recent[0], 1e-3) if len(recent) > 1 else 0.0

    def stale_after_s(self) -> float:
        """A longer silence than this is unusual for the camera."""
        gaps = [later - earlier for earlier, later in itertools.pairwise(self.arrivals_s)]
        return max(_STALE_S, _STALE_INTERVALS * statistics.median(gaps)) if gaps else _STALE_S

    def take(self, verdict: Verdict, now_s: float) -> None:
        """Takes a final verdict."""
        self.last, self.last_s = verdict, now_s
        self.arrivals_s.append(now_s)
        self.show(verdict)

    def show(self, verdict: Verdict) -> None:
        """Takes a final or provisional verdict as the newest, unless there is one of a later frame."""
        if self.newest is None or verdict.frame.seq >= self.newest.frame.seq:
            self.newest = verdict


def slow_side(reason: str, ship_ms: float | None, server_ms: float | None) -> str | None:
    """The side that causes a drop reason: edge, budget, link or server; None when no side is slow.

    A full link window and a late reply have two possible causes: the link or the server. The half of the answered
    messages' time that took longer decides, `ship_ms` (on the link) or `server_ms`. Without an answer it is the link.
    """
    if reason in (Drop.LINK, Drop.LATE):
        return "server" if (server_ms or 0.0) > (ship_ms or 0.0) else "link"
    return _SIDES.get(Drop(reason))


class LiveStats:
    """A sink that counts verdicts (`tally`) and keeps the state of the last seconds. Thread-safe."""

    def __init__(
        self,
        own_budget_cameras: Collection[str] = (),
        window_s: float = math.inf,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Counts nothing yet.

        `own_budget_cameras`: cameras with their own budget; the shared window leaves out their bits.
        `window_s`: length of the budget window. When no frame asked the budget for this long, the window counts as
        empty. Infinite for a replay, whose time is not the machine's.
        """
        self.tally = Tally()
        self._own_budget_cameras = own_budget_cameras
        self._window_s = window_s
        self._clock_s = clock_s
        self._asked_s = -math.inf  # when a frame last asked the shared budget
        self._lock = threading.Lock()
        self._began_s = clock_s()
        self._stages = {stage: RecentValues() for stage in STAGES}
        self._cameras: dict[str, CameraActivity] = {}
        self._window_bits = self._peak_window_bits = 0
        self._budget_bits: int | None = None
        self._verdict_s: float | None = None  # when the last verdict came
        self._reply_s: float | None = None  # when the last verdict with a reply came
        self._unanswered = 0  # messages since then whose reply did not come in time
        self._unanswered_s: float | None = None  # when the first of them was given up

    def write(self, verdict: Verdict) -> None:
        now_s = self._clock_s()
        with self._lock:
            self.tally.add(verdict)
            if verdict.window_bits is not None and verdict.frame.camera not in self._own_budget_cameras:
                self._asked_s = now_s
                self._window_bits = verdict.window_bits
                self._budget_bits = verdict.budget_bits
                self._peak_window_bits = max(self._peak_window_bits, verdict.window_bits)
            for stage, ms in verdict.latency_ms.items():
                if ms is not None:
                    self._stages[stage].add(ms)
            self._note_reply(verdict, now_s)
            self._activity(verdict, now_s).take(verdict, now_s)

    def _note_reply(self, verdict: Verdict, now_s: float) -> None:
        self._verdict_s = now_s
        if verdict.reply is not None or verdict.drop is Drop.REFUSED:
            self._reply_s, self._unanswered, self._unanswered_s = now_s, 0, None
        elif verdict.drop is Drop.LATE:
            self._unanswered += 1
            self._unanswered_s = now_s if self._unanswered_s is None else self._unanswered_s

    def show_pending(self, verdict: Verdict) -> None:
        """Shows the provisional answer to a frame whose verdict is still open."""
        with self._lock:
            self._activity(verdict, self._clock_s()).show(verdict)

    def _activity(self, verdict: Verdict, now_s: float) -> CameraActivity:
        return self._cameras.setdefault(verdict.frame.camera, CameraActivity(now_s))

    def close(self) -> None:
        pass

    def counts(self, camera: str) -> VerdictCounts:
        """Counts of one camera so far."""
        with self._lock:
            return copy.deepcopy(self.tally.cameras[camera])

    def percentiles(self) -> dict[str, dict[str, float] | None]:
        """Of the time in each stage, in ms."""
        with self._lock:
            return {stage: values.percentiles() for stage, values in self._stages.items()}

    def snapshot(self, labels: tuple[str, ...], health: Mapping[str, Mapping[str, object] | None]) -> dict[str, Any]:
        """The state as plain JSON values; docs/dashboard.md lists the keys.

        `labels`: names of the model's own classes. `health`: of each camera by name; None for a source that cannot
        fail.
        """
        now_s = self._clock_s()
        idle = CameraActivity(self._began_s)

        def age(at_s: float | None) -> float | None:
            return None if at_s is None else round(now_s - at_s, 1)

        with self._lock:
            total = self.tally.total
            stages = {stage: values.percentiles() for stage, values in self._stages.items()}
            return {
                "uptime_s": round(now_s - self._began_s, 3),
                "frames": total.verdicts,
                "fps": round(sum(camera.fps(now_s) for camera in self._cameras.values()), 2),
                "offloaded": total.offloaded,
                "wire_bits": total.wire_bits,
                "window_bits": self._window_bits if now_s - self._asked_s <= self._window_s else 0,
                "peak_window_bits": self._peak_window_bits,
                "budget_bits": self._budget_bits,
                "origins": dict(total.origins),
                "drops": _drops(total.drops.most_common(), stages),
                "latency_ms": stages,
                "accuracy": total.accuracy(),
                "frame_age_s": age(self._verdict_s),
                "reply_age_s": age(self._reply_s),
                "unanswered": self._unanswered,
                "unanswered_s": age(self._unanswered_s),
                "cameras": {
                    name: {"frames": self.tally.cameras[name].verdicts}
                    | _camera_state(self._cameras.get(name, idle), labels, now_s)
                    | {"health": state}
                    for name, state in health.items()
                },
            }


def _drops(
    counts: list[tuple[str, int]], stages: Mapping[str, dict[str, float] | None]
) -> dict[str, dict[str, object]]:
    """Frames and slow side by drop reason, from the counts and the percentiles per stage."""
    ship_ms, server_ms = ((stages[stage] or {}).get("p50") for stage in ("ship", "server"))
    return {reason: {"frames": count, "slow": slow_side(reason, ship_ms, server_ms)} for reason, count in counts}


def _camera_state(camera: CameraActivity, labels: tuple[str, ...], now_s: float) -> dict[str, object]:
    last = camera.last
    rates: dict[str, object] = {
        "fps": round(camera.fps(now_s), 2),
        "silent_s": round(now_s - camera.last_s, 1),
        "stale_after_s": round(camera.stale_after_s(), 1),
    }
    if last is None:
        return rates
    return rates | {
        "label": last.label(labels),
        "prob": round(last.answer.prob, 4) if last.answer else None,
        "origin": last.origin,
        "drop": last.drop,
        "units": len(last.units),
        "wire_bits": last.wire_bits,
        "revised_from": last.labels(labels)[last.revised_from.class_id] if last.revised_from else None,
        "now": _newest_answer(camera.newest, labels),
    }


def _newest_answer(newest: Verdict | None, labels: tuple[str, ...]) -> dict[str, object] | None:
    """The final or provisional answer to the newest frame; None where there is none."""
    if newest is None or newest.answer is None:
        return None
    answer = newest.answer
    return {"seq": newest.frame.seq, "label": newest.label(labels), "prob": round(answer.prob, 4)}
