"""Charges events to the uplink budget before they are sent. While one waits for room, no evidence is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_RETRY_S = 0.02


class AlertCharges:
    """The events that wait for room in the budget's window. Used in the event loop only."""

    def __init__(self) -> None:
        self._try_charge: Callable[[int], bool] | None = None
        self._charge_sent: Callable[[int], None] | None = None
        self._waiting = 0

    def charge_to(self, try_charge: Callable[[int], bool], charge_sent: Callable[[int], None]) -> None:
        """`try_charge`: charges bits; False if the window has no room for them now. `charge_sent`: charges bits that
        have been sent. Without them nothing is charged: the budget of a run of files knows only stream time."""
        self._try_charge, self._charge_sent = try_charge, charge_sent

    def pending(self) -> bool:
        """Whether an event waits; then no evidence may be sent."""
        return self._waiting > 0

    async def charge(self, bits: int) -> None:
        """Waits until the bits are charged."""
        try_charge = self._try_charge
        if try_charge is not None:
            await self.wait_for(lambda: try_charge(bits))

    async def wait_for(self, try_charge: Callable[[], bool]) -> None:
        """Waits until `try_charge` has charged an event; it returns False while the window has no room."""
        self._waiting += 1
        try:
            while not try_charge():  # noqa: ASYNC110 (the window moves with time, not with an event)
                await asyncio.sleep(_RETRY_S)
        finally:
            self._waiting -= 1

    def charge_excess(self, bits: int) -> None:
        """Charges bits that were sent beyond an estimate."""
        if self._charge_sent is not None and bits > 0:
            self._charge_sent(bits)
