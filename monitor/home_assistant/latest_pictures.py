"""`LatestPictures`: a sink that keeps the newest frame of each camera as a small JPEG, for Home Assistant. Frames that
must not leave the site are left out."""

from __future__ import annotations

import time
from collections.abc import Callable

from sagelink.monitor.previews import jpeg
from sagelink.pipeline.types import Verdict
from sagelink.stages.small_pictures import reduced

_MAX_SIDE = 640  # pixels
_QUALITY = 80


class LatestPictures:
    """Written by one thread and read by others. Codes one frame of a camera every `every_s` seconds at most."""

    def __init__(self, every_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock_s = clock_s
        self._pictures: dict[str, tuple[float, bytes]] = {}  # by camera: when it was coded, and the JPEG

    def write(self, verdict: Verdict) -> None:
        camera, now_s = verdict.frame.camera, self._clock_s()
        coded_s, _ = self._pictures.get(camera, (-self._every_s, b""))
        if now_s - coded_s >= self._every_s and not verdict.frame.private:
            self._pictures[camera] = now_s, jpeg(reduced(verdict.frame.pixels, _MAX_SIDE), _QUALITY)

    def close(self) -> None:
        pass

    def all(self) -> dict[str, bytes]:
        """The JPEG of each camera that has given a frame, by camera."""
        return {camera: picture for camera, (_, picture) in dict(self._pictures).items()}
