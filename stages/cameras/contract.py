"""The contract of one connection to a camera, and the FFmpeg settings that both camera libraries share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Pixels

# RTSP over TCP where the camera allows it: over UDP, lost packets grey out half of the pictures.
_RTSP = {
    "auto": {"rtsp_transport": "udp+tcp", "rtsp_flags": "prefer_tcp"},
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
}
# With N frame threads FFmpeg delays each picture by N - 1 frames: half a second on 16 cores at 30 frames/s. Slice
# threads add no delay, but with them FFmpeg does not report a picture with missing slices as corrupt.
DECODING_THREADS = 1


def ffmpeg_options(config: CameraConfig) -> dict[str, str]:
    """FFmpeg's options for opening a stream."""
    # fpsprobesize 0: FFmpeg would read for a second to measure the frame rate, which is not used; without it a stream
    # opens in a third of the time.
    return {**_RTSP[config.rtsp_transport], "fpsprobesize": "0"}


@dataclass(frozen=True, slots=True)
class Grabbed:
    """A picture that has arrived and is not converted yet."""

    pts_s: float | None  # the camera's own time in s; its origin is arbitrary; None where unknown


class CameraConnection(Protocol):
    """One open connection. Blocking; used from one thread; the constructor opens it. Methods raise CameraFault."""

    @property
    def finite(self) -> bool:
        """Whether the stream has a known length and `may_end`: a file behind a URL, not a camera."""
        ...

    @property
    def skipped(self) -> int:
        """Number of pictures that arrived broken."""
        ...

    def grab(self) -> Grabbed:
        """Waits for the next picture, at most `read_timeout`."""
        ...

    def picture(self) -> Pixels:
        """The last grabbed picture: RGB uint8 (H, W, 3), its longer side at most `MAX_SIDE` pixels."""
        ...

    def close(self) -> None: ...


class OpencvDeclines(Exception):
    """OpenCV cannot take this stream now: it would wait, make other cameras wait, or show the pictures wrongly without
    reporting it. The message is the reason."""


def one_viewer(address: str) -> bool:
    """Whether the sender may accept a single connection in its life, such as `ffmpeg -listen 1`: nothing may connect
    before the library that reads the stream."""
    return address.startswith(("http://", "https://", "tcp://", "rtmp://"))


def may_end(address: str) -> bool:
    """Whether a stream of this address may have an end: a video behind http or https. All others are cameras: an RTSP
    server that plays a file reports a length too, and its end is a fault like any other."""
    return address.startswith(("http://", "https://"))
