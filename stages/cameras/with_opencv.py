"""Reads a camera with OpenCV: the faster decoder, which does not report why it fails."""

from __future__ import annotations

import os
import threading
import time
from fractions import Fraction

import cv2

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.contract import DECODING_THREADS, Grabbed, OpencvDeclines, ffmpeg_options, may_end
from sagelink.stages.cameras.fault_kinds import CameraFault, diagnose
from sagelink.stages.cameras.probe import probe
from sagelink.stages.cameras.stream_header import convertible
from sagelink.stages.cameras.supervisor import FaultKind
from sagelink.stages.decoded_picture import resized, square_size

# OpenCV and FFmpeg would log to the terminal, FFmpeg with the whole URL. Our own errors hold no credentials.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # OpenCV takes FFmpeg's options from nowhere else
_USERS_OPTIONS = os.environ.get(_OPTIONS)

# OpenCV opens one stream at a time in the whole process. A server that answers and then sends nothing would block every
# other camera for its whole time-out.
_OPENING = threading.Lock()
_MAX_QUEUE_S = 0.5
_MAX_BROKEN = 250  # consecutive pictures


class OpencvConnection:
    """A CameraConnection."""

    def __init__(self, config: CameraConfig) -> None:
        """Opens the camera. Raises CameraFault, or OpencvDeclines where PyAV has to take the stream."""
        self.skipped = 0
        self._read_timeout = config.read_timeout
        address = config.source
        self._capture = self._open_url(config) if "://" in address else self._open_webcam(config)
        self.finite = may_end(address) and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0

    def _open_url(self, config: CameraConfig) -> cv2.VideoCapture:
        began_s = time.monotonic()
        finding = probe(config.source, config.open_timeout)
        if finding.fault is not None:
            raise CameraFault(finding.fault) if finding.certain else OpencvDeclines(f"no answer: {finding.fault}")
        parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(config.open_timeout * 1000)]
        parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(config.read_timeout * 1000)]
        parameters += [cv2.CAP_PROP_N_THREADS, DECODING_THREADS]
        # Hardware decoding where build and machine have it; OpenCV falls back to software by itself.
        parameters += [cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_ANY]
        if not _OPENING.acquire(timeout=_MAX_QUEUE_S):
            raise OpencvDeclines("it opens another camera")
        options = ffmpeg_options(config)
        os.environ[_OPTIONS] = _USERS_OPTIONS or "|".join(f"{key};{value}" for key, value in options.items())
        try:
            capture = cv2.VideoCapture(config.source, cv2.CAP_FFMPEG, parameters)
        finally:
            _OPENING.release()
        if not capture.isOpened():
            left_s = config.open_timeout - (time.monotonic() - began_s)
            raise diagnose(config.source, left_s, options) if left_s > 0 else CameraFault(FaultKind.TIMED_OUT)
        if not _colours_known(capture):
            capture.release()
            raise OpencvDeclines("a colour matrix that OpenCV does not know")
        return capture

    def _open_webcam(self, config: CameraConfig) -> cv2.VideoCapture:
        index = int(config.source) if config.source.isdecimal() else config.source
        capture = cv2.VideoCapture(index, cv2.CAP_V4L2)
        if not capture.isOpened():
            exists = os.path.exists(f"/dev/video{index}" if isinstance(index, int) else index)
            raise CameraFault(FaultKind.REFUSED if exists else FaultKind.NOT_FOUND)
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
        began_s = time.monotonic()
        broken = 0
        while not self._capture.grab():  # fails once per broken picture, and always after the end
            broken += 1
            if time.monotonic() - began_s >= self._read_timeout:
                raise CameraFault(FaultKind.TIMED_OUT)
            if broken > _MAX_BROKEN:
                raise CameraFault(FaultKind.END_OF_FILE)
        self.skipped += broken
        pts_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return Grabbed(pts_ms / 1e3 if pts_ms >= 0 else None)

    def picture(self) -> Pixels:
        decoded, pixels = self._capture.retrieve()
        if not decoded or pixels is None or 0 in pixels.shape:
            raise CameraFault(FaultKind.CODEC, "an empty picture")
        width, height = self._capture.get(cv2.CAP_PROP_SAR_NUM), self._capture.get(cv2.CAP_PROP_SAR_DEN)  # of a pixel
        aspect = Fraction(round(width), round(height)) if width > 0 and height > 0 else None
        size = square_size(pixels.shape[1], pixels.shape[0], aspect)
        return resized(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), size)

    def close(self) -> None:
        self._capture.release()


def _colours_known(capture: cv2.VideoCapture) -> bool:
    """Whether OpenCV can convert the colours of a stream, by the header of the stream. If not, it would return the
    uninitialised memory of the picture."""
    codec = round(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("ascii", "replace")
    has_header, header = capture.retrieve(flag=round(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
    return not has_header or header is None or convertible(codec, header.tobytes())
