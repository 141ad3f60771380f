"""The contract of one connection to a camera, and the settings that both libraries share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sagelink.pipeline.types import Pixels

# RTSP over TCP: over UDP, lost packets grey out half of the pictures. FFmpeg would watch for a second to learn the
# frame rate, which nobody asks for: without that a stream opens in a third of the time.
FFMPEG_OPTIONS = {"rtsp_transport": "tcp", "fpsprobesize": "0"}
# With N threads FFmpeg holds each picture back for N - 1 frames: half a second on 16 cores at 30 frames/s. Threads by
# slice would not, but with them it takes a picture with missing slices for a whole one.
DECODING_THREADS = 1


@dataclass(frozen=True, slots=True)
class Grabbed:
    """A picture that has arrived, not converted yet."""

    pts_s: float | None  # the camera's own time, wherever it starts


class CameraConnection(Protocol):
    """Blocking, used from one thread; opened by its constructor. All of it raises CameraFault."""

    @property
    def finite(self) -> bool:
        """Whether the stream knows its length: a file behind a URL, not a camera."""
        ...

    @property
    def skipped(self) -> int:
        """Pictures that came broken."""
        ...

    def grab(self) -> Grabbed:
        """Waits for the next picture, at most `read_timeout`."""
        ...

    def picture(self) -> Pixels:
        """The picture that was grabbed last, RGB (H, W, 3), its longer side at most `MAX_SIDE`."""
        ...

    def close(self) -> None: ...


class Busy(Exception):
    """OpenCV is at another camera's stream."""
