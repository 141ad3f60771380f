"""A camera as a source of the stage graph: a supervised thread reads it, and the graph always gets the newest picture.

The thread (`_Reader`) only opens and reads the connection, until that fails or the thread is asked to stop. The
supervisor makes all decisions, in the event loop. A thread that hangs in a native call is abandoned with its reader:
pictures that it still delivers are ignored, and it ends when the call returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.types import Frame, Pixels
from sagelink.stages.cameras.address import check_address
from sagelink.stages.cameras.contract import CameraConnection
from sagelink.stages.cameras.fault_kinds import CameraFault
from sagelink.stages.cameras.open import connect
from sagelink.stages.cameras.supervisor import CameraState, CameraTimeouts, FaultKind, Supervisor
from sagelink.stages.regions import Regions
from sagelink.stages.timestamps import Sampler

log = logging.getLogger(__name__)

_MAX_HANGING = 4  # threads of one camera that hang in a native call; then no further thread is started

Opener = Callable[[CameraConfig], CameraConnection]


@dataclass(frozen=True, slots=True)
class _Picture:
    pixels: Pixels
    capture_ns: int  # the camera's clock
    wall_ns: int  # wall clock
    pts_s: float | None  # its own timestamp
    capture_ms: float


class Camera:
    """An async iterable of frames. A failing camera never raises: it is opened again after a wait."""

    live = True
    length: int | None = None
    video = True

    def __init__(
        self,
        config: CameraConfig,
        duration_s: float | None = None,
        max_frames: int | None = None,
        opener: Opener = connect,
        on_end: Callable[[], None] = lambda: None,
        timeouts: CameraTimeouts | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Opens nothing yet. Raises UsageError for an address that can never work.

        `opener` connects; `on_end` is called when the camera ends; `timeouts`: by default those of `config`.
        """
        check_address(config.source)
        self.name = config.name
        self.source = redact(config.source)
        self.captured = 0
        self._config = config
        self._opener = opener
        self._on_end = on_end
        self._duration_s = duration_s
        self._max_frames = max_frames
        timeouts = timeouts or CameraTimeouts(config.open_timeout, config.read_timeout, config.stall_after)
        self._clock_ns = clock_ns
        self._supervisor = Supervisor(timeouts, self._now_s())
        self._reader: _Reader | None = None
        self._abandoned: list[_Reader] = []
        self._missed = self._skipped = 0  # of former readers
        self._arrival_s = -math.inf  # of the latest picture that the supervisor knows
        self._down_since_s: float | None = None
        self._logged_fault: FaultKind | None = None

    @property
    def state(self) -> CameraState:
        return self._supervisor.state

    @property
    def skipped(self) -> int:
        """Number of pictures that arrived broken."""
        return self._skipped + (self._reader.skipped if self._reader else 0)

    def health(self) -> dict[str, object]:
        """State and counts as plain values; docs/outputs.md lists the keys."""
        supervisor = self._supervisor
        return {
            "state": supervisor.state.value,
            "fault": supervisor.fault.value if supervisor.fault else None,
            "connections": supervisor.attempts,
            "recoveries": supervisor.recoveries,
            "missed": self._missed + (self._reader.missed if self._reader else 0),
        }

    def close(self) -> None:
        self._on_end()

    def _now_s(self) -> float:
        return self._clock_ns() / 1e9

    async def __aiter__(self) -> AsyncIterator[Frame]:
        wakeup = asyncio.Event()
        end_s = math.inf if self._duration_s is None else self._now_s() + self._duration_s
        first_ns: int | None = None
        try:
            while (wake_s := self._supervisor.wake_s) is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wake_s, end_s) - self._now_s()):
                        await wakeup.wait()
                wakeup.clear()
                now_s = self._now_s()
                if now_s >= end_s:
                    return
                if self._reader is not None:
                    fault = self._reader.fault  # read before the picture: none comes after a fault
                    picture = self._reader.take()
                    if self._reader.arrival_s > self._arrival_s:
                        self._note_arrival(self._reader.arrival_s)
                    if picture is not None:
                        first_ns = picture.capture_ns if first_ns is None else first_ns
                        yield self._frame(picture, first_ns)
                        if self.captured == self._max_frames:
                            return
                    if fault is not None:
                        self._handle_fault(fault, now_s)
                self._act(now_s, wakeup)
        finally:
            self._release_reader()
            self._supervisor.end(self._now_s())
            self._on_end()

    def _note_arrival(self, arrival_s: float) -> None:
        """Reports a picture to the supervisor, also one that the sampling leaves out."""
        self._arrival_s = arrival_s
        self._supervisor.frame(arrival_s)
        if self._down_since_s is not None:
            log.warning("camera=%s event=recovered down_s=%.1f", self.name, arrival_s - self._down_since_s)
            self._down_since_s = self._logged_fault = None

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

    def _act(self, now_s: float, wakeup: asyncio.Event) -> None:
        """Does what the supervisor asks for now."""
        state = self._supervisor.state
        action = self._supervisor.tick(now_s)
        if action == "open":
            self._abandoned = [reader for reader in self._abandoned if reader.alive]
            if len(self._abandoned) < _MAX_HANGING:
                loop = asyncio.get_running_loop()
                self._reader = _Reader(self._config, self._opener, self._clock_ns, loop, wakeup)
            else:
                self._supervisor.fail(now_s, FaultKind.TIMED_OUT)
        elif action == "abandon":
            self._log_down("the camera library does not return")
            if self._reader is not None:
                self._abandoned.append(self._reader)
            self._release_reader()
        elif self._supervisor.state is CameraState.STALLED is not state:
            log.info("camera=%s event=stalled silent_s=%.1f", self.name, self._config.stall_after)

    def _handle_fault(self, fault: CameraFault, now_s: float) -> None:
        finite = self._reader is not None and self._reader.finite
        if finite and fault.kind is FaultKind.END_OF_FILE:
            self._supervisor.end(now_s)
        else:
            self._supervisor.fail(now_s, fault.kind)
            self._log_down(str(fault))
        self._release_reader()

    def _release_reader(self) -> None:
        """Asks the reader to stop, without waiting for it."""
        if self._reader is not None:
            self._reader.stop()
            self._missed += self._reader.missed
            self._skipped += self._reader.skipped
            self._reader = None

    def _log_down(self, detail: str) -> None:
        """Logs a fault: as a warning when its kind is new, else as information."""
        fault, now_s = self._supervisor.fault, self._now_s()
        level = logging.INFO if fault is self._logged_fault else logging.WARNING
        self._logged_fault = fault
        self._down_since_s = self._down_since_s or now_s
        wait_s = (self._supervisor.wake_s or 0.0) - now_s
        message = "camera=%s event=down source=%s fault=%r retry_s=%.1f"
        log.log(level, message, self.name, self.source, detail, max(0.0, wait_s))


class _Reader:
    """Reads one connection in its own daemon thread; holds the newest picture, and the fault that ended it."""

    def __init__(
        self,
        config: CameraConfig,
        opener: Opener,
        clock_ns: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        wakeup: asyncio.Event,
    ) -> None:
        """Starts the thread. It sets `wakeup`, in `loop`, for each picture after an empty slot, and when it ends."""
        self.fault: CameraFault | None = None
        self.finite = False
        self.arrival_s = -math.inf  # when the latest picture arrived, on the camera's clock
        self.missed = 0
        self.skipped = 0
        self._config = config
        self._opener = opener
        self._clock_ns = clock_ns
        self._loop = loop
        self._wakeup = wakeup
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._picture: _Picture | None = None
        self._thread = threading.Thread(target=self._run, name=f"sagelink-camera-{config.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs or hangs."""
        return self._thread.is_alive()

    def take(self) -> _Picture | None:
        """The newest picture; None when there is no new one."""
        with self._lock:
            picture, self._picture = self._picture, None
        return picture

    def stop(self) -> None:
        """Asks the thread to end when its native call returns; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        connection = None
        try:
            connection = self._opener(self._config)
            self.finite = connection.finite
            self._read(connection)
        except CameraFault as fault:
            self.fault = fault
        except Exception as error:  # an unexpected error of a library must not end the camera
            log.debug("camera=%s event=unforeseen", self._config.name, exc_info=True)
            self.fault = CameraFault(FaultKind.FAILED, repr(error))
        finally:
            self._notify()
            if connection is not None:
                connection.close()

    def _read(self, connection: CameraConnection) -> None:
        regions, sampler = Regions(self._config.roi, self._config.mask), Sampler(self._config.fps)
        pace = _Pace(self._clock_ns) if connection.finite else None
        while not self._stop.is_set():
            began_ns = self._clock_ns()
            grabbed = connection.grab()
            self.skipped = connection.skipped
            self.arrival_s = self._clock_ns() / 1e9
            while pace and (early_s := pace.early_s(grabbed.pts_s)) > 0 and not self._stop.wait(min(early_s, 0.2)):
                self.arrival_s = self._clock_ns() / 1e9
            capture_ns, wall_ns = self._clock_ns(), time.time_ns()
            if not sampler.wants(capture_ns / 1e9):
                continue
            pixels = regions(connection.picture())
            picture = _Picture(pixels, capture_ns, wall_ns, grabbed.pts_s, (self._clock_ns() - began_ns) / 1e6)
            with self._lock:
                replaced, self._picture = self._picture, picture
            if replaced is None:
                self._notify()
            else:
                self.missed += 1

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._wakeup.set)


class _Pace:
    """Slows a finite stream, which arrives as fast as the network allows, to the pace of its timestamps."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._began_s: float | None = None  # clock time of timestamp 0

    def early_s(self, pts_s: float | None) -> float:
        """Seconds by which the picture of this timestamp is too early; 0 where the timestamp is unknown."""
        if pts_s is None:
            return 0.0
        now_s = self._clock_ns() / 1e9
        if self._began_s is None:
            self._began_s = now_s - pts_s
        return self._began_s + pts_s - now_s
