"""A webcam or a network stream as a source, through OpenCV."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

# Both write to the terminal on their own, FFmpeg with the whole URL: our errors say it once, without credentials.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from pipeline.errors import UsageError
from stages.sources import Shot, SourceError

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")


class LiveSource:
    """Frames as they come; `stream_s` is the machine's time since the first. Ends when the camera stops sending."""

    live = True
    labels = None
    length = None

    def __init__(self, address: str, open_timeout_s: float, read_timeout_s: float) -> None:
        """`address`: webcam index, device path or URL. Raises UsageError or SourceError, within the time-out."""
        self.skipped = 0
        self.name = redact(address)
        if "://" in address:
            scheme = address.partition("://")[0]
            if scheme not in SCHEMES:
                raise UsageError(f"source {self.name!r}: unknown scheme; accepted: {', '.join(SCHEMES)}")
            # RTSP over TCP: over UDP, lost packets grey out half of the pictures.
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_s * 1000)]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_s * 1000)]
            self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
            if not self._capture.isOpened():
                raise SourceError(
                    f"source {self.name!r} cannot be opened: refused, unreachable, or no video within "
                    f"{open_timeout_s:g} s"
                )
        else:
            self._capture = cv2.VideoCapture(int(address) if address.isdecimal() else address, cv2.CAP_V4L2)
            if not self._capture.isOpened():
                found = ", ".join(list_webcams()) or "none"
                raise UsageError(f"webcam {address!r} cannot be opened; webcams on this machine: {found}")
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def __iter__(self) -> Iterator[Shot]:
        began_ns = 0
        while True:
            arrived, pixels = self._capture.read()
            if not arrived:
                raise SourceError(f"source {self.name!r} has stopped sending")
            now_ns = time.monotonic_ns()
            began_ns = began_ns or now_ns
            yield Shot(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), (now_ns - began_ns) / 1e9)

    def close(self) -> None:
        self._capture.release()


def redact(address: str) -> str:
    """The address without user, password and query, which often hold secrets."""
    return re.sub(r"//[^/]*@", "//***@", address).partition("?")[0]


def list_webcams() -> list[str]:
    """Device paths of this machine's cameras (Linux)."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sorted(f"/dev/{name}" for name in names if re.fullmatch(r"video\d+", name))
