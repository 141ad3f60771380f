"""The state machine of one camera connection: connect, run, stall, back off, end. Pure: time is an argument, no I/O.

Goes in: events of the connection (`frame`, `fail`, `end`). Comes out: the state, and what to do now (`tick`).

    connecting --first frame--> running --silent for `stall_after`--> stalled --frame--> running
        |                          |                                     |
        +--------- fault ----------+---------- fault, or silent for `read_timeout`
                                   v
                                backoff --wait is over--> connecting          a finite stream ends in `ended`

The wait doubles with each failure, from `first_wait` to `max_wait` seconds, and is shortened at random by up to half.
After `healthy_after` seconds of running it starts over. After a refused password the wait is long, because many cameras
lock an account that fails often.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from sagelink.pipeline.backoff import Backoff


class CameraState(StrEnum):
    CONNECTING = "connecting"
    RUNNING = "running"
    STALLED = "stalled"
    BACKOFF = "backoff"
    ENDED = "ended"


class FaultKind(StrEnum):
    """Why a camera delivers no pictures."""

    UNAUTHORISED = "unauthorised"
    NOT_FOUND = "not found"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"  # no such host, or no route to it
    TIMED_OUT = "timed out"
    TLS = "tls"
    CODEC = "codec"  # connected, but no video that can be decoded
    END_OF_FILE = "end of file"  # the stream ended, or the other side closed it
    FAILED = "failed"  # anything else


@dataclass(frozen=True, slots=True)
class CameraTimeouts:
    """Time limits and retry waits, in seconds."""

    open_timeout: float = 10.0
    read_timeout: float = 10.0
    stall_after: float = 2.0
    first_wait: float = 0.5
    max_wait: float = 2.0
    unauthorised_wait: float = 30.0
    healthy_after: float = 10.0
    native_grace: float = 1.0  # how far a native call may exceed its own time-out before its thread is abandoned


Action: TypeAlias = Literal["open", "abandon"]


class Supervisor:
    """Receives events (`frame`, `fail`, `end`) and decides what to do (`tick`)."""

    def __init__(self, timeouts: CameraTimeouts, now_s: float, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` returns a random number in 0..1."""
        self.state = CameraState.BACKOFF
        self.since_s = now_s  # when it entered this state
        self.fault: FaultKind | None = None  # the latest; None while there is none
        self.attempts = 0  # connections attempted
        self.recoveries = 0  # times that frames resumed after a fault
        self._timeouts = timeouts
        self._backoff = Backoff(timeouts.first_wait, timeouts.max_wait, jitter)
        self._wake_s = now_s  # when `tick` is due next, without an event before

    @property
    def wake_s(self) -> float | None:
        """When `tick` is due next, without an event before; None once it has ended."""
        return None if self.state is CameraState.ENDED else self._wake_s

    def tick(self, now_s: float) -> Action | None:
        """What to do now: `open` a new connection, `abandon` the current one, or nothing (None)."""
        if self.state is CameraState.ENDED or now_s < self._wake_s:
            return None
        match self.state:
            case CameraState.BACKOFF:
                self._enter(CameraState.CONNECTING, now_s, self._timeouts.open_timeout + self._timeouts.native_grace)
                self.attempts += 1
                return "open"
            case CameraState.RUNNING:
                silence = max(self._timeouts.read_timeout - self._timeouts.stall_after, 0.0)
                self._reset_if_healthy(now_s)
                self._enter(CameraState.STALLED, now_s, silence)
                return self.tick(now_s)
            case _:
                self.fail(now_s, FaultKind.TIMED_OUT)
                return "abandon"

    def frame(self, now_s: float) -> None:
        """A picture arrived."""
        if self.state is CameraState.CONNECTING and self.fault is not None:
            self.recoveries += 1
        if self.state is not CameraState.RUNNING:
            self._enter(CameraState.RUNNING, now_s, 0.0)
        self.fault = None
        self._reset_if_healthy(now_s)
        self._wake_s = now_s + min(self._timeouts.stall_after, self._timeouts.read_timeout)

    def fail(self, now_s: float, fault: FaultKind) -> None:
        """The connection failed, or could not be opened."""
        if self.state is CameraState.RUNNING:
            self._reset_if_healthy(now_s)
        self.fault = fault
        at_least_s = self._timeouts.unauthorised_wait if fault is FaultKind.UNAUTHORISED else 0.0
        self._enter(CameraState.BACKOFF, now_s, self._backoff.next_s(at_least_s))

    def end(self, now_s: float) -> None:
        """No more pictures will come."""
        self._enter(CameraState.ENDED, now_s, 0.0)

    def _reset_if_healthy(self, now_s: float) -> None:
        if now_s - self.since_s >= self._timeouts.healthy_after:
            self._backoff.reset()

    def _enter(self, state: CameraState, now_s: float, duration_s: float) -> None:
        self.state = state
        self.since_s = now_s
        self._wake_s = now_s + duration_s
