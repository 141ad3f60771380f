"""Capture: frames from a source, one dedicated thread, at the source's pace or the graph's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

from pipeline.threads import Worker
from pipeline.types import Frame
from stages.sources import PictureSource, Shot


class Capture:
    """An async iterable of frames; numbers them, so that every captured frame can be accounted for."""

    def __init__(
        self, source: PictureSource, camera: str = "camera", realtime: bool = False, truth: bool = True
    ) -> None:
        """`realtime`: a file is played at the pace of its own timestamps; `truth`: pass on what the source knows."""
        self._source = source
        self._camera = camera
        self._realtime = realtime and not source.live
        self._truth = truth
        self._worker = Worker("capture")
        self.captured = 0

    async def __aenter__(self) -> Capture:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Closed by its own thread: another one may not touch a decoder that is still at work.
        self._worker.close(last=self._source.close)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        shots = iter(self._source)
        began_ns = time.monotonic_ns()
        while True:
            taken = await self._worker.call(self._take, shots, began_ns)
            if taken is None:
                return
            shot, capture_ms = taken
            seq = self.captured
            self.captured += 1
            yield Frame(
                seq=seq,
                camera=self._camera,
                capture_ns=time.monotonic_ns(),
                stream_s=shot.stream_s,
                pixels=shot.pixels,
                capture_ms=capture_ms,
                name=shot.name,
                truth=shot.truth if self._truth else None,
            )

    def _take(self, shots: Iterator[Shot], began_ns: int) -> tuple[Shot, float] | None:
        began = time.perf_counter()
        shot = next(shots, None)
        if shot is None:
            return None
        capture_ms = (time.perf_counter() - began) * 1e3
        if self._realtime:
            time.sleep(max(0.0, shot.stream_s - (time.monotonic_ns() - began_ns) / 1e9))
        return shot, capture_ms
