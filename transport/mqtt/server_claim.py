"""Which server of a group serves where the broker has no shared subscriptions: one holds a retained claim. Pure.

The holder repeats its claim. A claim ends when its holder withdraws its presence, which the broker does for a server
that died. A claim that the broker had stored counts only if its holder is present, and one that is not repeated ends:
so the claim of a server that was killed while its broker was down does not stay for ever. Two servers that claim at the
same time see both claims; the smaller identifier keeps the claim.
"""

from __future__ import annotations

import json

_LISTEN_S = 1.0  # after connecting, a retained claim arrives within this time, and the presence of its holder
_REPEAT_S = 8.0
_LEASE_S = 25.0  # a claim that is not repeated for so long has no holder


class ServerClaim:
    """One server's view of its group's claim on one broker. Times are of a monotonic clock."""

    def __init__(self, server: str) -> None:
        """`server`: identifies this server among those of the group."""
        self._server = server
        self._other = ""
        self._ends_s = 0.0  # the claim of the other, unless it is repeated
        self._free_s = 0.0  # before this time, another server may still report its claim
        self._published_s: float | None = None
        self.held = False

    def connected(self, now_s: float) -> None:
        self.held, self._other, self._published_s = False, "", None
        self._free_s = now_s + _LISTEN_S

    def settled(self, now_s: float) -> bool:
        """Whether it is known which server holds the claim."""
        return self.held or bool(self._other) or now_s > self._free_s + 1

    def encode(self) -> bytes:
        """The payload that this server publishes while it holds the claim."""
        return json.dumps({"server": self._server}).encode()

    def observe(self, payload: bytes, now_s: float, stored: bool = False) -> None:
        """Takes a claim that was published, also by this server itself. `stored`: the broker had retained it."""
        server = _decode(payload)
        if server in ("", self._server):
            return
        if self.held and self._server < server:
            self._published_s = None  # publish again: the other gives way
        else:
            self.held, self._other = False, server
            self._ends_s = now_s + (_LISTEN_S if stored else _LEASE_S)

    def observe_presence(self, server: str, online: bool, now_s: float) -> None:
        """Takes the presence of a server."""
        if server == self._other:
            self._other = server if online else ""
            self._ends_s = now_s + _LEASE_S

    def is_due(self, now_s: float) -> bool:
        """Takes the claim if it is free. True if the server must publish its claim now."""
        if self._other and now_s > self._ends_s:
            self._other = ""
        self.held = self.held or (not self._other and now_s >= self._free_s)
        if not self.held or (self._published_s is not None and now_s - self._published_s < _REPEAT_S):
            return False
        self._published_s = now_s
        return True


def _decode(payload: bytes) -> str:
    """The server; empty if the claim is malformed."""
    try:
        server = json.loads(payload)["server"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return server if isinstance(server, str) else ""
