"""A video file as a picture source, with the timestamps of the file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.file_names import ffmpeg_url, shown_name
from sagelink.stages.decoded_picture import FrameConverter
from sagelink.stages.frame_times import FrameTimes
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.timestamps import Timeline

log = logging.getLogger(__name__)


class VideoFile:
    """Every frame of the first video stream. A corrupt frame is skipped and counted."""

    labels = None
    video = True

    def __init__(self, path: Path) -> None:
        """Raises UsageError when the file holds no video that can be decoded."""
        self._path = path
        self.name = shown_name(path)
        self.skipped = 0
        try:
            self._container = av.open(ffmpeg_url(path))
        except (av.FFmpegError, OSError) as error:
            raise UsageError(f"source {str(path)!r} is not a video: {_reason(error)}") from None
        if not self._container.streams.video:
            self._container.close()
            raise UsageError(f"source {str(path)!r} holds no video stream")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self._stream = stream
        self.length = stream.frames or None
        self._pictures = self._decode()
        try:
            self._first = next(self._pictures)
        except StopIteration:
            self._container.close()
            raise UsageError(f"source {str(path)!r} holds no frame that can be decoded") from None

    @property
    def length_s(self) -> float | None:
        """Length as the file states it; None where it does not."""
        duration = self._container.duration
        return None if duration is None or duration <= 0 else duration / av.time_base

    def __iter__(self) -> Iterator[SourceFrame]:
        yield self._first
        yield from self._pictures

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> Iterator[SourceFrame]:
        times, convert = FrameTimes(self._container, self._stream), FrameConverter(self.name, self._stream)
        timeline = Timeline(times.frame_s)
        for frame in self._frames():
            pts_s = times.time_s(frame)
            if frame.is_corrupt:
                self._skip("corrupt frame")
                continue
            try:
                pixels = convert(frame)
            except (OSError, ValueError) as error:
                self._skip(_reason(error))
                continue
            yield SourceFrame(pixels, timeline.place(pts_s), pts_s=pts_s)

    def _frames(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._skip(_reason(error))
                return
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                self._skip(_reason(error))

    def _skip(self, reason: str) -> None:
        self.skipped += 1
        if self.skipped == 1:
            log.warning("source=%s event=corrupt error=%r", self._path, reason)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
