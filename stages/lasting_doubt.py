"""Decides whether doubt about a camera's state has lasted long enough for a message. Pure: time is an argument.

The first frames after a change show the change: a hand, half a lorry. A message about them costs as much as one about
the new state, the answer to it is unsure, and the window of a thin uplink has no room for a second one.
"""

from __future__ import annotations

import math

_TIME_ERROR_S = 1e-3
SETTLE_S = 0.2  # 0.1, 0.15 and 0.2 s were compared on `bottle`: docs/video.md


class LastingDoubt:
    """Of one camera. Call `lasts` for each frame in order."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._newest_s = -math.inf

    def lasts(self, doubts: bool, now_s: float) -> bool:
        """Whether the frame is to be sent now. `doubts`: the gate would send it.

        It is the frame that is nearest to `SETTLE_S` after the first doubt, and those after it: with less than
        2.5 frames/s none waits.
        """
        interval_s, self._newest_s = now_s - self._newest_s, now_s
        if not doubts:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s + interval_s / 2 - self._since_s >= SETTLE_S - _TIME_ERROR_S
