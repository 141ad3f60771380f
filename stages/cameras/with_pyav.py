"""Reads a camera with PyAV: reports FFmpeg's errors and timestamps, and follows changes of the picture size."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.contract import DECODING_THREADS, Grabbed, ffmpeg_options, may_end
from sagelink.stages.cameras.fault_kinds import CameraFault, classify
from sagelink.stages.cameras.supervisor import FaultKind
from sagelink.stages.decoded_picture import FrameConverter
from sagelink.stages.frame_times import FrameTimes

log = logging.getLogger(__name__)
av.logging.set_level(None)  # FFmpeg would log whole URLs


def _is_usable(device: str) -> bool:
    try:
        HWAccel(device).create(av.Codec("h264", "r"))
    except (av.FFmpegError, OSError, NotImplementedError):
        return False
    return True


# Tried before a stream is opened: an attempt with a device that does not work would use up the only connection that
# some senders accept.
_DEVICES = [name for name in ("vaapi", "videotoolbox", "cuda") if name in hwdevices_available() and _is_usable(name)]
_MAX_BROKEN = 250  # consecutive pictures; then the stream counts as undecodable


class PyavConnection:
    """A CameraConnection."""

    def __init__(self, config: CameraConfig) -> None:
        self._address = config.source
        self.skipped = 0
        self._container = self._open(config)
        if not self._container.streams.video:
            self._container.close()
            raise CameraFault(FaultKind.CODEC, "no video stream")
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = DECODING_THREADS
        self.finite = may_end(config.source) and bool(self._container.duration)
        self._frames = self._decode(stream)
        self._times = FrameTimes(self._container, stream)
        self._convert = FrameConverter(config.name, stream)
        self._frame: av.VideoFrame | None = None

    def _open(self, config: CameraConfig) -> av.container.InputContainer:
        address, options, container_format = config.source, ffmpeg_options(config), None
        if "://" not in address:
            address = f"/dev/video{address}" if address.isdecimal() else address
            container_format, options = "video4linux2", {}
            if config.size is not None:
                options["video_size"] = f"{config.size[0]}x{config.size[1]}"
            if config.camera_fps is not None:
                options["framerate"] = f"{config.camera_fps:g}"
            if config.mjpg:
                options["input_format"] = "mjpeg"
        timeout = (config.open_timeout, config.read_timeout)
        began_s = time.monotonic()
        for device in [*_DEVICES, None]:
            accelerated = HWAccel(device, allow_software_fallback=True) if device else None
            try:
                return av.open(address, format=container_format, options=options, timeout=timeout, hwaccel=accelerated)
            except (PermissionError, NotImplementedError) as error:
                if device is None:
                    raise classify(error, address, late=False) from None
                with contextlib.suppress(ValueError):  # another camera's thread has removed it
                    _DEVICES.remove(device)  # not on this machine: other cameras need not try it
            except (av.FFmpegError, OSError, ValueError, IndexError) as error:
                late = time.monotonic() - began_s >= config.open_timeout
                raise classify(error, address, late) from None
        raise AssertionError("the last attempt uses no device, and returns or raises")

    def _decode(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        broken = 0
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                frames = []
                broken += 1
                self.skipped += 1
            for frame in frames:
                broken = broken + 1 if frame.is_corrupt else 0
                self.skipped += frame.is_corrupt
                if not frame.is_corrupt:
                    yield frame
            if broken > _MAX_BROKEN:
                raise CameraFault(FaultKind.CODEC, f"{broken} broken pictures in a row")

    def grab(self) -> Grabbed:
        try:
            self._frame = next(self._frames, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise classify(error, self._address, late=False) from None
        if self._frame is None:
            raise CameraFault(FaultKind.END_OF_FILE)
        return Grabbed(self._times.time_s(self._frame))

    def picture(self) -> Pixels:
        assert self._frame is not None
        if not self._frame.width or not self._frame.height:
            raise CameraFault(FaultKind.CODEC, "an empty picture")
        try:
            return self._convert(self._frame)
        except (OSError, ValueError) as error:
            raise CameraFault(FaultKind.CODEC, f"a picture that cannot be converted: {error}") from None

    def close(self) -> None:
        self._container.close()
