"""Presentation times of the decoded frames of a stream, also where its container stores none or wrong ones."""

from __future__ import annotations

import av

_DEFAULT_RATE = 25.0  # frames per second, of a stream that states none
_WITHOUT_PTS = ("avi",)  # containers that store frames in decoding order only; FFmpeg makes their pts up


class FrameTimes:
    """Chooses between the two timestamps of a frame, as FFmpeg's own tools do (`guess_correct_pts` in libavcodec).

    The presentation timestamps (pts) of frames rise in output order. Where they fall more often than the decoding
    timestamps (dts), they are wrong, and dts in output order is the better time: with B-frames in AVI, for example.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        # `guessed_rate` includes the rate in the stream itself; `average_rate` of a raw stream is always 25.
        rate = stream.guessed_rate or stream.average_rate
        self.frame_s = 1 / (float(rate) if rate else _DEFAULT_RATE)
        self._pts_faults = 1 if container.format.name in _WITHOUT_PTS else 0
        self._dts_faults = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None

    def time_s(self, frame: av.VideoFrame) -> float | None:
        """Time of the next frame in output order; its origin is arbitrary; None where unknown."""
        pts, dts = frame.pts, frame.dts
        if pts is not None:
            self._pts_faults += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if dts is not None:
            self._dts_faults += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        chosen = pts if pts is not None and self._pts_faults <= self._dts_faults else dts
        return None if chosen is None or frame.time_base is None else float(chosen * frame.time_base)
