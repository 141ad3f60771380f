"""The life of one camera as a pure state machine: no clock, no thread, no I/O; time comes in as an argument.

    connecting --first frame--> running --silent for `stall_after`--> stalled --frame--> running
        |                          |                                     |
        +--------- fault ----------+---------- fault, or silent for `read_timeout`
                                   v
                                backoff --wait is over--> connecting          a finite stream ends in `ended`

The waits double from `first_wait` up to `longest_wait`, each shortened at random by up to half, and start over after
`healthy_after` of running. A camera that refuses the password is asked rarely: many lock an account that fails often.
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


class Fault(StrEnum):
    """Why a camera gives no pictures."""

    UNAUTHORISED = "unauthorised"
    NOT_FOUND = "not found"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"  # no such host, or no way to it
    TIMED_OUT = "timed out"
    TLS = "tls"
    CODEC = "codec"  # connected, but there is no video that can be decoded
    END_OF_FILE = "end of file"  # the stream is over, or the other side closed it
    FAILED = "failed"  # anything else


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    open_timeout: float = 10.0
    read_timeout: float = 10.0
    stall_after: float = 2.0
    first_wait: float = 0.5
    longest_wait: float = 2.0
    unauthorised_wait: float = 30.0
    healthy_after: float = 10.0
    native_grace: float = 1.0  # a native call may overrun its own time-out by this before its thread is given up


Order: TypeAlias = Literal["open", "abandon"]


class Supervisor:
    """Tell it what happens (`frame`, `fail`, `end`); ask it with `tick` what to do."""

    def __init__(self, patience: Patience, now_s: float, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers in 0..1 for the jitter."""
        self.state = CameraState.BACKOFF
        self.since_s = now_s  # when it came into this state
        self.fault: Fault | None = None  # the latest; None while nothing is wrong
        self.attempts = 0  # connections tried
        self.recoveries = 0  # times that frames came again after a fault
        self._patience = patience
        self._backoff = Backoff(patience.first_wait, patience.longest_wait, chance)
        self._wake_s = now_s  # when tick has something to do if nothing happens

    @property
    def wake_s(self) -> float | None:
        """When `tick` is due next if nothing happens before; None when it has ended."""
        return None if self.state is CameraState.ENDED else self._wake_s

    def tick(self, now_s: float) -> Order | None:
        """What is due: `open` a new connection, `abandon` the one there is, or nothing."""
        if self.state is CameraState.ENDED or now_s < self._wake_s:
            return None
        match self.state:
            case CameraState.BACKOFF:
                self._enter(CameraState.CONNECTING, now_s, self._patience.open_timeout + self._patience.native_grace)
                self.attempts += 1
                return "open"
            case CameraState.RUNNING:
                silence = max(self._patience.read_timeout - self._patience.stall_after, 0.0)
                self._forgive(now_s)
                self._enter(CameraState.STALLED, now_s, silence)
                return self.tick(now_s)
            case _:
                self.fail(now_s, Fault.TIMED_OUT)
                return "abandon"

    def frame(self, now_s: float) -> None:
        """A picture came."""
        if self.state is CameraState.CONNECTING and self.fault is not None:
            self.recoveries += 1
        if self.state is not CameraState.RUNNING:
            self._enter(CameraState.RUNNING, now_s, 0.0)
        self.fault = None
        self._forgive(now_s)
        self._wake_s = now_s + min(self._patience.stall_after, self._patience.read_timeout)

    def fail(self, now_s: float, fault: Fault) -> None:
        """The connection is gone, or could not be made."""
        if self.state is CameraState.RUNNING:
            self._forgive(now_s)
        self.fault = fault
        at_least_s = self._patience.unauthorised_wait if fault is Fault.UNAUTHORISED else 0.0
        self._enter(CameraState.BACKOFF, now_s, self._backoff.next_s(at_least_s))

    def end(self, now_s: float) -> None:
        """There is no more to come."""
        self._enter(CameraState.ENDED, now_s, 0.0)

    def _forgive(self, now_s: float) -> None:
        if now_s - self.since_s >= self._patience.healthy_after:
            self._backoff.reset()

    def _enter(self, state: CameraState, now_s: float, lasting_s: float) -> None:
        self.state = state
        self.since_s = now_s
        self._wake_s = now_s + lasting_s
