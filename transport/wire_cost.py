"""Charged bits against bits that were counted on their way out, whatever counts them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

ChargeOverhead = Callable[[int], bool]  # bits to charge that are no message; False: not now

_MEMORY_S = 10.0  # a charge may meet the wire so much later
_RETRY_S = 0.02


class WireCostAudit:
    """Charged bits of one connection against those that were counted. Pure: time comes in as an argument.

    Estimates err on the high side; what is over is remembered for as long as the bits may still be on their way, and
    not longer, so that it never pays for a retransmission of an hour later.
    """

    def __init__(self) -> None:
        self._ahead_bits = 0  # charged, not yet counted
        self._counted_bits = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._recent_bits = 0

    def charge(self, now_s: float, bits: int) -> None:
        self._ahead_bits += bits
        self._recent.append((now_s, bits))
        self._recent_bits += bits

    def observe(self, now_s: float, counted_bits: int) -> int:
        """Takes the count since the connection began; returns bits that are still to be charged."""
        while self._recent and self._recent[0][0] <= now_s - _MEMORY_S:
            self._recent_bits -= self._recent.popleft()[1]
        self._ahead_bits = min(self._ahead_bits, self._recent_bits) - (counted_bits - self._counted_bits)
        self._counted_bits = counted_bits
        owed = max(0, -self._ahead_bits)
        self._ahead_bits += owed
        return owed


class OverheadCharger:
    """Pays for what is no message: connecting, keep-alives, whatever was counted beyond the estimates.

    `charge_overhead` charges the budget; None (a replay, whose budget runs on the stream's time) leaves all that uncharged.
    """

    def __init__(self, charge_overhead: ChargeOverhead | None, on_paid: Callable[[], None]) -> None:
        self._charge_overhead = charge_overhead
        self._on_paid = on_paid
        self._bill = WireCostAudit()
        self.owed_bits = 0  # while there are some, a link lets no message past them

    async def open_connection(self, connect_bits: int) -> None:
        """Pays for a new connection before it is made."""
        self._bill = WireCostAudit()
        await self._pay(connect_bits)
        self._bill.charge(time.monotonic(), connect_bits)

    def record_message(self, message_bits: int) -> None:
        """A message was charged by whoever sent it."""
        self._bill.charge(time.monotonic(), message_bits)

    def try_charge(self, bits: int) -> bool:
        """Pays for a message that goes again, where the window has room for it now."""
        if self._charge_overhead is None or not self._charge_overhead(bits):
            return False
        self._bill.charge(time.monotonic(), bits)
        return True

    async def settle(self, counted_bits: int) -> None:
        """Pays for what was counted since the connection began, and not charged yet."""
        await self._pay(self._bill.observe(time.monotonic(), counted_bits))

    async def _pay(self, bits: int) -> None:
        """Charges bits as soon as the window has room."""
        self.owed_bits = bits if self._charge_overhead is not None else 0
        while self.owed_bits and self._charge_overhead is not None and not self._charge_overhead(self.owed_bits):  # noqa: ASYNC110
            await asyncio.sleep(_RETRY_S)
        self.owed_bits = 0
        self._on_paid()
