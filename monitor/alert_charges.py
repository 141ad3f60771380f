"""Charges events to the uplink budget before they are sent. While one waits for room, no evidence is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_RETRY_S = 0.02


class AlertCharges:
    """The events that wait for room in the budget's window. Used in the event loop only."""

    def __init__(self) -> None:
        self._charge: Callable[[int], bool] | None = None
        self._waiting = 0

    def charge_to(self, charge: Callable[[int], bool]) -> None:
        """`charge`: charges bits; False if the window has no room for them now. Without it nothing is charged: the
        budget of a run of files knows only stream time."""
        self._charge = charge

    def pending(self) -> bool:
        """Whether an event waits; then no evidence may be sent."""
        return self._waiting > 0

    async def charge(self, bits: int) -> None:
        """Waits until the bits are charged."""
        if self._charge is None:
            return
        self._waiting += 1
        try:
            while not self._charge(bits):  # noqa: ASYNC110 (the window moves with time, not with an event)
                await asyncio.sleep(_RETRY_S)
        finally:
            self._waiting -= 1

    def charge_excess(self, bits: int) -> None:
        """Charges bits that were sent beyond an estimate, as far as the window has room."""
        if self._charge is not None and bits > 0:
            self._charge(bits)
