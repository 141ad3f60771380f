"""Capture: frames from what a user names as a source, be it a live camera or pictures on disk."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from sagelink.pipeline.config import CameraConfig, CaptureConfig
from sagelink.pipeline.credentials import expand_variables
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.address import PUSHED, is_camera
from sagelink.stages.regions import Regions
from sagelink.stages.sources.contract import PictureSource, SourceFrame
from sagelink.stages.sources.open import open_source
from sagelink.stages.timeline import Sampler


class Capture(Protocol):
    """A source of the graph: an async iterable of frames, numbered so that each can be accounted for."""

    name: str  # of the camera
    source: str  # what it reads, without credentials
    captured: int

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace, taken or not."""
        ...

    @property
    def video(self) -> bool:
        """Whether a frame is likely to show what the one before it showed."""
        ...

    @property
    def skipped(self) -> int:
        """Pictures that could not be read."""
        ...

    @property
    def length(self) -> int | None:
        """How many frames there will be, where that is known."""
        ...

    def health(self) -> dict[str, object] | None:
        """How a live camera is doing, as in summary.json; None for what cannot fail and come back."""
        ...

    def close(self) -> None:
        """Lets go of what it holds, run or not."""
        ...

    def __aiter__(self) -> AsyncIterator[Frame]: ...


_ONE_CAMERA = CameraConfig(name="camera", source="a picture source")
_ALL_OF_IT = CaptureConfig()


class Playback:
    """Frames from pictures on disk, read in a thread: as fast as the graph takes them, or at their own pace."""

    def __init__(
        self,
        source: PictureSource,
        config: CameraConfig = _ONE_CAMERA,
        capture: CaptureConfig = _ALL_OF_IT,
        live: bool = False,
    ) -> None:
        """`live`: play at the pace of its own timestamps."""
        self.name = config.name
        self.source = source.name
        self.live = live
        self.labels = source.labels
        self.captured = 0
        whole = config.fps is None and capture.duration is None
        self.length = min(filter(None, (source.length, capture.max_frames)), default=None) if whole else None
        self._pictures = source
        self._view = Regions(config.roi, config.mask)
        self._sampler = Sampler(config.fps)
        self._duration_s = capture.duration
        self._max_frames = capture.max_frames
        self._keep_truth = True
        self._worker = Worker(f"capture-{config.name}")

    @property
    def skipped(self) -> int:
        return self._pictures.skipped

    @property
    def video(self) -> bool:
        return self._pictures.video

    def health(self) -> None:
        return None

    def forget_truth(self) -> None:
        """The truth names other classes than the models: it says nothing about them."""
        self._keep_truth = False

    async def __aenter__(self) -> Playback:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # Closed by its own thread: another one may not touch a decoder that is still at work.
        self._worker.close(last=self._pictures.close)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        shots = iter(self._pictures)
        began_ns = time.monotonic_ns()
        while self.captured != self._max_frames:
            frame = await self._worker.call(self._take, shots, began_ns)
            if frame is None:
                return
            self.captured += 1
            yield frame

    def _take(self, shots: Iterator[SourceFrame], began_ns: int) -> Frame | None:
        began = time.perf_counter()
        shot = next((shot for shot in shots if self._sampler.wants(shot.stream_s)), None)
        if shot is None or (self._duration_s is not None and shot.stream_s >= self._duration_s):
            return None
        pixels = self._view(shot.pixels)
        capture_ms = (time.perf_counter() - began) * 1e3
        if self.live:
            time.sleep(max(0.0, shot.stream_s - (time.monotonic_ns() - began_ns) / 1e9))
        return Frame(
            seq=self.captured,
            camera=self.name,
            capture_ns=time.monotonic_ns(),
            stream_s=shot.stream_s,
            pixels=pixels,
            capture_ms=capture_ms,
            name=shot.name,
            truth=shot.truth if self._keep_truth else None,
            wall_ns=time.time_ns(),
            pts_s=shot.pts_s,
        )


class InStep:
    """Several replays as one source, merged by their own times: the same order every time, at any speed."""

    def __init__(self, captures: Sequence[Capture]) -> None:
        self._captures = captures

    async def __aenter__(self) -> InStep:
        return self

    async def __aexit__(self, *_: object) -> None:
        close_captures(self._captures)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        streams = [aiter(capture) for capture in self._captures]
        heads: list[tuple[float, int, Frame]] = []  # the next frame of each; ties go to the camera listed first
        for place, stream in enumerate(streams):
            await _advance(heads, place, stream)
        try:
            while heads:
                _, place, frame = heapq.heappop(heads)
                yield frame
                await _advance(heads, place, streams[place])
        finally:
            for _, place, _ in heads:  # read ahead and never given on: not captured
                self._captures[place].captured -= 1


async def _advance(heads: list[tuple[float, int, Frame]], place: int, stream: AsyncIterator[Frame]) -> None:
    frame = await anext(stream, None)
    if frame is not None:
        heapq.heappush(heads, (frame.stream_s, place, frame))


def open_captures(cameras: Sequence[CameraConfig], capture: CaptureConfig) -> list[Capture]:
    """Opens each camera's source; live ones only begin to connect when they run. Raises UsageError.

    Beside a live camera, files are played at their own pace.
    """
    cameras = [config.model_copy(update={"source": expand_variables(config.source)}) for config in cameras]
    live = capture.realtime or any(is_camera(config.source) for config in cameras)
    opened: list[Capture] = []
    try:
        for config in cameras:
            if is_camera(config.source):
                from sagelink.stages.cameras.camera import Camera

                if config.source.startswith(PUSHED):
                    from sagelink.stages.cameras.whip_camera import WhipEndpoint

                    endpoint = WhipEndpoint(config)
                    camera = Camera(config, capture.duration, capture.max_frames, endpoint.connect, endpoint.close)
                else:
                    camera = Camera(config, capture.duration, capture.max_frames)
                opened.append(camera)
            else:
                opened.append(Playback(open_source(config), config, capture, live))
    except BaseException:
        close_captures(opened)
        raise
    return opened


def close_captures(captures: Sequence[Capture]) -> None:
    """Lets go of sources that will not run."""
    for capture in captures:
        capture.close()
