"""A source's own timestamps made into time that never runs backwards, and the choice of frames by time."""

from __future__ import annotations

_LARGEST_GAP_S = 3600.0  # a leap further ahead than this is a broken or wrapped timestamp, not a pause


class Timeline:
    """Seconds since the first frame, from timestamps that may start anywhere, jump, wrap or be missing.

    A step back of up to two frames is jitter: time stands still. A larger step back (a wrapped counter, a joined or
    restarted stream) or a leap ahead of more than an hour begins a new section, one frame after the last frame.
    """

    def __init__(self, frame_s: float) -> None:
        """`frame_s`: the nominal time between frames, used where timestamps say nothing."""
        self._frame_s = frame_s
        self._now_s: float | None = None
        self._offset_s = 0.0  # of the section: stream time less timestamp

    def place(self, pts_s: float | None) -> float:
        """The stream time of the next frame."""
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
    """Picks about `fps` frames a second by their times, evenly, whatever the rate that they come at."""

    def __init__(self, fps: float | None) -> None:
        """None: every frame."""
        self._step_s = 1 / fps if fps else 0.0
        self._due_s: float | None = None

    def wants(self, time_s: float) -> bool:
        """Whether the frame of this time is one of them; times never fall."""
        if self._due_s is None:
            self._due_s = time_s
        # Half a millisecond early is on time: timestamps are rounded (90 kHz, or whole milliseconds).
        if time_s < self._due_s - 5e-4:
            return False
        if self._step_s:
            # The next place of an even grid; after a pause the grid goes on, without a burst to catch up.
            self._due_s += self._step_s * max(1.0, (time_s + 5e-4 - self._due_s) // self._step_s + 1)
        return True
