"""Slows down guessing of a token: after some wrong ones, an address has to wait, each time twice as long."""

from __future__ import annotations

import math
from collections import OrderedDict

_FREE = 5  # wrong tokens without a wait
_FIRST_WAIT_S = 1.0
_MAX_WAIT_S = 300.0
_FORGET_S = 900.0  # after this time without a wrong token, an address starts anew
_MAX_ADDRESSES = 4096


class GuessLimit:
    """Pure: the time is an argument, in seconds of a monotonic clock. The table has a bounded size: the address whose
    last wrong token is oldest makes room."""

    def __init__(self, free: int = _FREE, first_wait_s: float = _FIRST_WAIT_S) -> None:
        """`free`: wrong tokens of an address before it has to wait."""
        self._free = free
        self._first_wait_s = first_wait_s
        self._addresses: OrderedDict[str, tuple[int, float]] = OrderedDict()  # wrong tokens, and the last one's time

    def wait_s(self, address: str, now_s: float) -> float:
        """How long the address has to wait before its next token is checked; 0: not at all."""
        wrong, last_s = self._addresses.get(address, (0, now_s))
        if wrong < self._free or now_s - last_s > _FORGET_S:
            return 0.0
        wait_s = min(self._first_wait_s * 2.0 ** min(wrong - self._free, 32), _MAX_WAIT_S)
        return max(0.0, last_s + wait_s - now_s)

    def wrong(self, address: str, now_s: float) -> None:
        """Counts a wrong token."""
        count, last_s = self._addresses.pop(address, (0, -math.inf))
        self._addresses[address] = (count + 1 if now_s - last_s <= _FORGET_S else 1), now_s
        if len(self._addresses) > _MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def right(self, address: str) -> None:
        """The address knows the token: its wrong ones are forgotten."""
        self._addresses.pop(address, None)
