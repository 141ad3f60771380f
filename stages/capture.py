"""Captures frames from a source that the user names: pictures on disk (`Playback`) or a live camera. `Frame`s out."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

from sagelink.pipeline.config.camera import CameraConfig, CaptureConfig
from sagelink.pipeline.credentials import expand_variables, redact
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.address import PUSHED, is_camera
from sagelink.stages.nvr.address import is_event_source
from sagelink.stages.regions import Regions
from sagelink.stages.sources.contract import PictureSource, SourceFrame
from sagelink.stages.sources.open import open_source
from sagelink.stages.timestamps import Sampler


class Capture(Protocol):
    """A source of the graph: an async iterable of the frames of one camera, numbered from 0 without gaps."""

    name: str  # of the camera
    source: str  # as the user named it, without credentials
    captured: int  # frames so far

    @property
    def live(self) -> bool:
        """Whether frames arrive at their own pace, even when nobody takes them."""
        ...

    @property
    def video(self) -> bool:
        """Whether a frame probably shows the same scene as the previous one."""
        ...

    @property
    def skipped(self) -> int:
        """Number of pictures that could not be read."""
        ...

    @property
    def length(self) -> int | None:
        """Total number of frames, where it is known."""
        ...

    def health(self) -> dict[str, object] | None:
        """State of a live camera, as in summary.json; None for pictures on disk."""
        ...

    def close(self) -> None:
        """Releases the source, whether or not it has run."""
        ...

    def __aiter__(self) -> AsyncIterator[Frame]: ...


_ONE_CAMERA = CameraConfig(name="camera", source="a picture source")
_ALL_OF_IT = CaptureConfig()


class Playback:
    """Frames from pictures on disk, read in a thread, as fast as the graph takes them or at their own pace."""

    def __init__(
        self,
        source: PictureSource,
        config: CameraConfig = _ONE_CAMERA,
        capture: CaptureConfig = _ALL_OF_IT,
        live: bool = False,
    ) -> None:
        """`live`: play at the pace of the source's timestamps."""
        self.name = config.name
        self.source = source.name
        self.live = live
        self.labels = source.labels
        self.captured = 0
        whole = config.fps is None and capture.duration is None
        self.length = min(filter(None, (source.length, capture.max_frames)), default=None) if whole else None
        self._pictures = source
        self._regions = Regions(config.roi, config.mask)
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
        """Frames get no truth from now on, because the source names other classes than the models."""
        self._keep_truth = False

    async def __aenter__(self) -> Playback:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # Closed by its own thread: another thread must not touch a decoder that is still working.
        self._worker.close(last=self._pictures.close)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        pictures = iter(self._pictures)
        began_ns = time.monotonic_ns()
        while self.captured != self._max_frames:
            frame = await self._worker.call(self._next_frame, pictures, began_ns)
            if frame is None:
                return
            self.captured += 1
            yield frame

    def _next_frame(self, pictures: Iterator[SourceFrame], began_ns: int) -> Frame | None:
        began = time.perf_counter()
        picture = next((picture for picture in pictures if self._sampler.wants(picture.stream_s)), None)
        if picture is None or (self._duration_s is not None and picture.stream_s >= self._duration_s):
            return None
        pixels = self._regions(picture.pixels)
        capture_ms = (time.perf_counter() - began) * 1e3
        if self.live:
            time.sleep(max(0.0, picture.stream_s - (time.monotonic_ns() - began_ns) / 1e9))
        return Frame(
            seq=self.captured,
            camera=self.name,
            capture_ns=time.monotonic_ns(),
            stream_s=picture.stream_s,
            pixels=pixels,
            capture_ms=capture_ms,
            name=picture.name,
            truth=picture.truth if self._keep_truth else None,
            wall_ns=time.time_ns(),
            pts_s=picture.pts_s,
        )


class MergedCaptures:
    """Several captures merged into one source by a time of their frames: in the same order every time, at any speed."""

    def __init__(
        self, captures: Sequence[Capture], time_of: Callable[[Frame], float] = lambda frame: frame.stream_s
    ) -> None:
        """`time_of`: of the next frames of all captures, the one with the smallest time comes first; of equal times,
        that of the capture listed first."""
        self._captures = captures
        self._time_of = time_of

    async def __aenter__(self) -> MergedCaptures:
        return self

    async def __aexit__(self, *_: object) -> None:
        close_captures(self._captures)

    async def __aiter__(self) -> AsyncGenerator[Frame, None]:
        streams = [aiter(capture) for capture in self._captures]
        heads: list[tuple[float, int, Frame]] = []  # the next frame of each capture
        for index, stream in enumerate(streams):
            await self._read_ahead(heads, index, stream)
        try:
            while heads:
                _, index, frame = heapq.heappop(heads)
                yield frame
                await self._read_ahead(heads, index, streams[index])
        finally:
            for _, index, _ in heads:  # read ahead, but not handed over: does not count as captured
                self._captures[index].captured -= 1

    async def _read_ahead(
        self, heads: list[tuple[float, int, Frame]], index: int, stream: AsyncIterator[Frame]
    ) -> None:
        frame = await anext(stream, None)
        if frame is not None:
            heapq.heappush(heads, (self._time_of(frame), index, frame))


def open_captures(
    cameras: Sequence[CameraConfig],
    capture: CaptureConfig,
    open_events: Callable[[CameraConfig], Capture] | None = None,
) -> list[Capture]:
    """Opens the source of each camera; a live camera connects only when it runs. Raises UsageError.

    `open_events`: opens a source of events; None: they are refused. When any camera is live, files are played at their
    own pace too.
    """
    cameras = [config.model_copy(update={"source": expand_variables(config.source)}) for config in cameras]
    live = capture.realtime or any(is_camera(config.source) or is_event_source(config.source) for config in cameras)
    opened: list[Capture] = []
    try:
        for config in cameras:
            if is_event_source(config.source):
                if open_events is None:
                    raise UsageError(f"source {redact(config.source)!r}: only `sagelink run` takes events")
                opened.append(open_events(config))
            elif is_camera(config.source):
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
    """Releases the sources of all captures."""
    for capture in captures:
        capture.close()
