"""A camera as a source of the graph: one supervised thread reads it, and the loop always gets its newest picture.

The thread is as dumb as can be (`_Reader`): open, read, hand over, until it fails or is told to go. All decisions are
the supervisor's, made in the event loop. A thread that is stuck in a native call is left behind: nobody looks at its
reader any more, so that whatever it still delivers is never seen, and it ends by itself when the call comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.types import Frame, Pixels
from sagelink.stages.cameras.address import check_address
from sagelink.stages.cameras.contract import CameraConnection
from sagelink.stages.cameras.faults import CameraFault
from sagelink.stages.cameras.open import connect
from sagelink.stages.cameras.supervisor import CameraState, Fault, Patience, Supervisor
from sagelink.stages.regions import Regions
from sagelink.stages.timeline import Sampler

log = logging.getLogger(__name__)

_MOST_STUCK = 4  # threads of a camera that hang in a native call: until one returns, no other is sent after them

Opener = Callable[[CameraConfig], CameraConnection]


@dataclass(frozen=True, slots=True)
class _Picture:
    pixels: Pixels
    capture_ns: int
    wall_ns: int
    pts_s: float | None
    capture_ms: float


class Camera:
    """An async iterable of frames. Never raises for what happens to the camera: it waits, and tries again."""

    live = True
    length: int | None = None
    video = True

    def __init__(
        self,
        config: CameraConfig,
        duration_s: float | None = None,
        max_frames: int | None = None,
        opener: Opener = connect,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises UsageError for an address that can never work. Opens nothing yet. `at_end`: when it is over."""
        check_address(config.source)
        self.name = config.name
        self.source = redact(config.source)
        self.captured = 0
        self._config = config
        self._opener = opener
        self._at_end = at_end
        self._duration_s = duration_s
        self._max_frames = max_frames
        patience = Patience(config.open_timeout, config.read_timeout, config.stall_after)
        self._supervisor = Supervisor(patience, time.monotonic())
        self._reader: _Reader | None = None
        self._stuck: list[_Reader] = []  # left behind
        self._missed = self._skipped = 0  # of the readers before this one
        self._heard_s = 0.0  # monotonic clock, of the latest picture known to the supervisor
        self._down_since_s: float | None = None
        self._told: Fault | None = None

    @property
    def state(self) -> CameraState:
        return self._supervisor.state

    @property
    def skipped(self) -> int:
        """Pictures that came broken."""
        return self._skipped + (self._reader.skipped if self._reader else 0)

    def health(self) -> dict[str, object]:
        """How it is doing, in plain values. Its keys are documented in docs/outputs.md."""
        supervisor = self._supervisor
        return {
            "state": supervisor.state.value,
            "fault": supervisor.fault.value if supervisor.fault else None,
            "connections": supervisor.attempts,
            "recoveries": supervisor.recoveries,
            "missed": self._missed + (self._reader.missed if self._reader else 0),
        }

    def close(self) -> None:
        self._at_end()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        news = asyncio.Event()
        began_s = time.monotonic()
        end_s = float("inf") if self._duration_s is None else began_s + self._duration_s
        first_ns: int | None = None
        try:
            while (wake_s := self._supervisor.wake_s) is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wake_s, end_s) - time.monotonic()):
                        await news.wait()
                news.clear()
                now_s = time.monotonic()
                if now_s >= end_s:
                    return
                if self._reader is not None:
                    fault = self._reader.fault  # before the picture: after a fault no other comes
                    picture = self._reader.take()
                    if self._reader.heard_s > self._heard_s:
                        self._hear(self._reader.heard_s)
                    if picture is not None:
                        first_ns = picture.capture_ns if first_ns is None else first_ns
                        yield self._frame(picture, first_ns)
                        if self.captured == self._max_frames:
                            return
                    if fault is not None:
                        self._lost(fault, now_s)
                self._obey(now_s, news)
        finally:
            self._leave()
            self._supervisor.end(time.monotonic())
            self._at_end()

    def _hear(self, heard_s: float) -> None:
        """Pictures arrive, whether they are taken or left out by the sampling."""
        self._heard_s = heard_s
        self._supervisor.frame(heard_s)
        if self._down_since_s is not None:
            log.warning("camera=%s event=recovered down_s=%.1f", self.name, heard_s - self._down_since_s)
            self._down_since_s = self._told = None

    def _frame(self, picture: _Picture, first_ns: int) -> Frame:
        seq = self.captured
        self.captured += 1
        return Frame(
            seq=seq,
            camera=self.name,
            capture_ns=picture.capture_ns,
            stream_s=(picture.capture_ns - first_ns) / 1e9,
            pixels=picture.pixels,
            capture_ms=picture.capture_ms,
            wall_ns=picture.wall_ns,
            pts_s=picture.pts_s,
        )

    def _obey(self, now_s: float, news: asyncio.Event) -> None:
        state = self._supervisor.state
        order = self._supervisor.tick(now_s)
        if order == "open":
            self._stuck = [reader for reader in self._stuck if reader.alive]
            if len(self._stuck) < _MOST_STUCK:
                self._reader = _Reader(self._config, self._opener, asyncio.get_running_loop(), news)
            else:
                self._supervisor.fail(now_s, Fault.TIMED_OUT)
        elif order == "abandon":
            self._tell_down("the thread did not come back")
            if self._reader is not None:
                self._stuck.append(self._reader)
            self._leave()
        elif self._supervisor.state is CameraState.STALLED is not state:
            log.info("camera=%s event=stalled silent_s=%.1f", self.name, self._config.stall_after)

    def _lost(self, fault: CameraFault, now_s: float) -> None:
        finite = self._reader is not None and self._reader.finite
        if finite and fault.kind is Fault.END_OF_FILE:
            self._supervisor.end(now_s)
        else:
            self._supervisor.fail(now_s, fault.kind)
            self._tell_down(str(fault))
        self._leave()

    def _leave(self) -> None:
        if self._reader is not None:
            self._reader.leave()
            self._missed += self._reader.missed
            self._skipped += self._reader.skipped
            self._reader = None

    def _tell_down(self, detail: str) -> None:
        """Once for each new kind of fault; the same one again is of no news."""
        fault = self._supervisor.fault
        level = logging.INFO if fault is self._told else logging.WARNING
        self._told = fault
        self._down_since_s = self._down_since_s or time.monotonic()
        wait_s = (self._supervisor.wake_s or 0.0) - time.monotonic()
        message = "camera=%s event=down source=%s fault=%r retry_s=%.1f"
        log.log(level, message, self.name, self.source, detail, max(0.0, wait_s))


class _Reader:
    """One connection in a daemon thread of its own; holds its newest picture, or the fault that ended it."""

    def __init__(
        self, config: CameraConfig, opener: Opener, loop: asyncio.AbstractEventLoop, news: asyncio.Event
    ) -> None:
        self.fault: CameraFault | None = None
        self.finite = False
        self.heard_s = 0.0  # monotonic clock, when the latest picture arrived
        self.missed = 0
        self.skipped = 0
        self._config = config
        self._opener = opener
        self._loop = loop
        self._news = news
        self._left = threading.Event()
        self._lock = threading.Lock()
        self._picture: _Picture | None = None
        self._thread = threading.Thread(target=self._run, name=f"sagelink-camera-{config.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is still at work, or stuck."""
        return self._thread.is_alive()

    def take(self) -> _Picture | None:
        """The newest picture, once."""
        with self._lock:
            picture, self._picture = self._picture, None
        return picture

    def leave(self) -> None:
        """Ends the thread as soon as its native call comes back; does not wait for it."""
        self._left.set()

    def _run(self) -> None:
        connection = None
        try:
            connection = self._opener(self._config)
            self.finite = connection.finite
            self._read(connection)
        except CameraFault as fault:
            self.fault = fault
        except Exception as error:  # a library that raises what nobody foresaw must not end the camera
            log.debug("camera=%s event=unforeseen", self._config.name, exc_info=True)
            self.fault = CameraFault(Fault.FAILED, repr(error))
        finally:
            self._tell()
            if connection is not None:
                connection.close()

    def _read(self, connection: CameraConnection) -> None:
        view, sampler = Regions(self._config.roi, self._config.mask), Sampler(self._config.fps)
        pace = _Pace() if connection.finite else None
        while not self._left.is_set():
            began_ns = time.monotonic_ns()
            grabbed = connection.grab()
            self.skipped = connection.skipped
            self.heard_s = time.monotonic()
            while pace and (early_s := pace.early_s(grabbed.pts_s)) > 0 and not self._left.wait(min(early_s, 0.2)):
                self.heard_s = time.monotonic()
            capture_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            if not sampler.wants(capture_ns / 1e9):
                continue
            pixels = view(connection.picture())
            picture = _Picture(pixels, capture_ns, wall_ns, grabbed.pts_s, (time.monotonic_ns() - began_ns) / 1e6)
            with self._lock:
                waiting, self._picture = self._picture, picture
            if waiting is None:
                self._tell()
            else:
                self.missed += 1

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits
            self._loop.call_soon_threadsafe(self._news.set)


class _Pace:
    """Holds back a finite stream, which comes as fast as the network allows, to the pace of its own timestamps."""

    def __init__(self) -> None:
        self._began_s: float | None = None  # monotonic clock at timestamp 0

    def early_s(self, pts_s: float | None) -> float:
        """How many seconds too early the picture of this timestamp is."""
        if pts_s is None:
            return 0.0
        if self._began_s is None:
            self._began_s = time.monotonic() - pts_s
        return self._began_s + pts_s - time.monotonic()
