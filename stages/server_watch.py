"""Stops paying a server that does not answer: after some messages in a row for nothing, only a probe from time to time.

Pure: time is an argument. A message that is late, refused or not delivered was for nothing. After `_PATIENCE` of them
in a row, one message passes per pause; the pauses grow. The first answer ends this.
"""

from __future__ import annotations

from collections.abc import Callable

from sagelink.pipeline.backoff import Backoff

_PATIENCE = 8  # messages in a row
_FIRST_S, _MAX_S = 2.0, 300.0  # pauses


class ServerWatch:
    """The outcome of each message is reported to it."""

    def __init__(self, jitter: Callable[[], float] | None = None) -> None:
        """`jitter`: see Backoff."""
        self._backoff = Backoff(_FIRST_S, _MAX_S) if jitter is None else Backoff(_FIRST_S, _MAX_S, jitter)
        self.in_vain = 0  # messages in a row
        self._reason = ""
        self._next_probe_s = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether only probes are sent."""
        return self.in_vain >= _PATIENCE

    def refusal(self, now_s: float) -> str | None:
        """The reason why no message should be sent now; None if one may be."""
        if not self.is_silent or now_s >= self._next_probe_s:
            return None
        return f"the server is gone or wrong: the last {_PATIENCE} messages or more were {self._reason}"

    def sent(self, now_s: float) -> None:
        """A message is sent; while the server is silent it is a probe, and the next one waits."""
        if self.is_silent:
            self._next_probe_s = now_s + self._backoff.next_s()

    def failed(self, now_s: float, reason: str) -> None:
        """A message was for nothing: late, refused or not delivered."""
        self.in_vain += 1
        self._reason = reason
        if self.in_vain == _PATIENCE:
            self._next_probe_s = now_s + self._backoff.next_s()

    def reset(self) -> None:
        """An answer arrived, or the connection is a new one."""
        self.in_vain = 0
        self._backoff.reset()
