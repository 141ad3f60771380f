"""A camera through OpenCV: the quicker decoder, which keeps the reasons of its failures to itself."""

from __future__ import annotations

import os
import threading
import time

import cv2

from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.contract import DECODING_THREADS, FFMPEG_OPTIONS, Busy, Grabbed
from sagelink.stages.cameras.faults import CameraFault, diagnose
from sagelink.stages.cameras.probe import probe
from sagelink.stages.cameras.supervisor import Fault
from sagelink.stages.decoded import fitted

# Both write to the terminal on their own, FFmpeg with the whole URL: our errors say it once, without credentials.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault(
    "OPENCV_FFMPEG_CAPTURE_OPTIONS", "|".join(f"{key};{value}" for key, value in FFMPEG_OPTIONS.items())
)

# OpenCV opens one stream at a time in the whole process; a server that answers and then falls silent would keep every
# other camera waiting for as long as its time-out.
_OPENING = threading.Lock()
_LONGEST_QUEUE_S = 0.5
_MOST_BROKEN = 250  # pictures in a row


class OpencvConnection:
    """A Connection."""

    def __init__(self, config: CameraConfig) -> None:
        """Raises also Busy."""
        self.skipped = 0
        self._read_timeout = config.read_timeout
        address = config.source
        self._capture = self._open_url(config) if "://" in address else self._open_webcam(config)
        self.finite = "://" in address and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0

    def _open_url(self, config: CameraConfig) -> cv2.VideoCapture:
        began = time.monotonic()
        fault = probe(config.source, config.open_timeout)
        if fault is not None:
            raise CameraFault(fault)
        parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(config.open_timeout * 1000)]
        parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(config.read_timeout * 1000)]
        parameters += [cv2.CAP_PROP_N_THREADS, DECODING_THREADS]
        # In hardware where build and machine can; OpenCV falls back by itself.
        parameters += [cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_ANY]
        if not _OPENING.acquire(timeout=_LONGEST_QUEUE_S):
            raise Busy
        try:
            capture = cv2.VideoCapture(config.source, cv2.CAP_FFMPEG, parameters)
        finally:
            _OPENING.release()
        if not capture.isOpened():
            left = config.open_timeout - (time.monotonic() - began)
            raise diagnose(config.source, left, FFMPEG_OPTIONS) if left > 0 else CameraFault(Fault.TIMED_OUT)
        return capture

    def _open_webcam(self, config: CameraConfig) -> cv2.VideoCapture:
        index = int(config.source) if config.source.isdecimal() else config.source
        capture = cv2.VideoCapture(index, cv2.CAP_V4L2)
        if not capture.isOpened():
            there = os.path.exists(f"/dev/video{index}" if isinstance(index, int) else index)
            raise CameraFault(Fault.REFUSED if there else Fault.NOT_FOUND)
        if config.mjpg:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        if config.size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.size[1])
        if config.camera_fps is not None:
            capture.set(cv2.CAP_PROP_FPS, config.camera_fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def grab(self) -> Grabbed:
        began = time.monotonic()
        broken = 0
        while not self._capture.grab():  # once for each broken picture, and for ever when there is no more
            broken += 1
            if time.monotonic() - began >= self._read_timeout:
                raise CameraFault(Fault.TIMED_OUT)
            if broken > _MOST_BROKEN:
                raise CameraFault(Fault.END_OF_FILE)
        self.skipped += broken
        pts_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return Grabbed(pts_ms / 1e3 if pts_ms >= 0 else None)

    def picture(self) -> Pixels:
        arrived, pixels = self._capture.retrieve()
        if not arrived or pixels is None or 0 in pixels.shape:
            raise CameraFault(Fault.CODEC, "an empty picture")
        return fitted(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        self._capture.release()
