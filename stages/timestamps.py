"""Converts a source's timestamps to stream time that never runs back (`Timeline`), and samples frames (`Sampler`)."""

from __future__ import annotations

_LARGEST_GAP_S = 3600.0  # a larger step ahead is a broken or wrapped timestamp, not a pause


class Timeline:
    """Seconds since the first frame, from timestamps that may start anywhere, jump, wrap or be missing.

    A step back of up to two frame times is jitter: stream time stands still. A larger step back (a wrapped counter, a
    joined or restarted stream) or a step ahead of more than an hour begins a new section, one frame time later.
    """

    def __init__(self, frame_s: float) -> None:
        """`frame_s`: the nominal time between frames, used where timestamps are missing or broken."""
        self._frame_s = frame_s
        self._now_s: float | None = None
        self._offset_s = 0.0  # of this section: stream time minus timestamp

    def place(self, pts_s: float | None) -> float:
        """Stream time of the next frame, in seconds. `pts_s`: its timestamp, None where it is missing."""
        if self._now_s is None:
            self._offset_s = -(pts_s or 0.0)
            self._now_s = 0.0
            return 0.0
        if pts_s is None:
            self._now_s += self._frame_s
            return self._now_s
        step_s = pts_s + self._offset_s - self._now_s
        if not -2 * self._frame_s <= step_s <= _LARGEST_GAP_S:
            self._offset_s = self._now_s + self._frame_s - pts_s
            step_s = self._frame_s
        self._now_s += max(step_s, 0.0)
        return self._now_s


class Sampler:
    """Picks about `fps` evenly spaced frames per second by their stream times, at any rate of the source."""

    def __init__(self, fps: float | None) -> None:
        """`fps` None: every frame."""
        self._step_s = 1 / fps if fps else 0.0
        self._due_s: float | None = None

    def wants(self, time_s: float) -> bool:
        """Whether the frame at `time_s` is picked; times must not fall."""
        if self._due_s is None:
            self._due_s = time_s
        # Half a millisecond early is on time: timestamps are rounded (to 90 kHz, or to whole milliseconds).
        if time_s < self._due_s - 5e-4:
            return False
        if self._step_s:
            # The next time on an even grid; after a pause there is no burst of frames to catch up.
            self._due_s += self._step_s * max(1.0, (time_s + 5e-4 - self._due_s) // self._step_s + 1)
        return True
