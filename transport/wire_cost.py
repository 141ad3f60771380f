"""Charges a connection's overhead to the uplink budget, and compares the charged bits with the counted bits.

Overhead is every uplink bit that belongs to no message: connecting, keep-alives, retransmissions, acknowledgements.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Charges overhead bits to the budget; False if the window has no room for them now.
ChargeOverhead = Callable[[int], bool]

_SURPLUS_LIFETIME_S = 10.0  # charged bits may reach the wire this much later
_RETRY_S = 0.02


class WireCostAudit:
    """Compares the charged bits of one connection with the bits counted on their way out. Pure: time is an argument.

    Estimates are rather too high than too low. The surplus of a charge expires when its bits must have been sent, so it
    never pays for a retransmission an hour later.
    """

    def __init__(self) -> None:
        self._surplus_bits = 0  # charged, not yet counted
        self._counted_bits = 0
        self._recent: deque[tuple[float, int]] = deque()  # time and bits of the charges within the lifetime
        self._recent_bits = 0

    def record_charge(self, now_s: float, bits: int) -> None:
        self._surplus_bits += bits
        self._recent.append((now_s, bits))
        self._recent_bits += bits

    def record_count(self, now_s: float, counted_bits: int) -> int:
        """Takes the bits counted since the connection began. Returns the bits that must still be charged, and regards
        them as charged."""
        while self._recent and self._recent[0][0] <= now_s - _SURPLUS_LIFETIME_S:
            self._recent_bits -= self._recent.popleft()[1]
        self._surplus_bits = min(self._surplus_bits, self._recent_bits) - (counted_bits - self._counted_bits)
        self._counted_bits = counted_bits
        uncharged_bits = max(0, -self._surplus_bits)
        self._surplus_bits += uncharged_bits
        return uncharged_bits


class OverheadCharger:
    """Charges the overhead of a link, one connection after another; waits while the window has no room.

    `charge_overhead` charges the budget. With None, in a replay, nothing is charged: its budget runs on the time of the
    stream.
    """

    def __init__(self, charge_overhead: ChargeOverhead | None, on_charged: Callable[[], None]) -> None:
        self._charge_overhead = charge_overhead
        self._on_charged = on_charged
        self._audit = WireCostAudit()
        self.owed_bits = 0  # overhead that waits for room; the link sends no message before it is charged

    async def charge_connection(self, connect_bits: int) -> None:
        """Charges a new connection before it is opened."""
        self._audit = WireCostAudit()
        await self._charge(connect_bits)
        self._audit.record_charge(time.monotonic(), connect_bits)

    def record_message(self, message_bits: int) -> None:
        """Records a message that its sender has charged already."""
        self._audit.record_charge(time.monotonic(), message_bits)

    def try_charge(self, bits: int) -> bool:
        """Charges overhead that is sent next: a message again, or a part of a head. False if the window has no room for
        it now."""
        if self._charge_overhead is not None and not self._charge_overhead(bits):
            return False
        self._audit.record_charge(time.monotonic(), bits)
        return True

    async def charge_extra(self, bits: int) -> None:
        """Charges a packet of the connection's own before it is sent."""
        await self._charge(bits)
        self._audit.record_charge(time.monotonic(), bits)

    async def charge_excess(self, counted_bits: int) -> None:
        """Charges the bits counted since the connection began that exceed the charges."""
        await self._charge(self._audit.record_count(time.monotonic(), counted_bits))

    async def _charge(self, bits: int) -> None:
        """Charges bits as soon as the window has room."""
        self.owed_bits = bits if self._charge_overhead is not None else 0
        while self.owed_bits and self._charge_overhead is not None and not self._charge_overhead(self.owed_bits):  # noqa: ASYNC110
            await asyncio.sleep(_RETRY_S)
        self.owed_bits = 0
        self._on_charged()
