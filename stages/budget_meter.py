"""Meter stage: asks the uplink budget for the allowance of each frame. `Scored` in, `Metered` out.

`Claim`, a later stage, claims the shared budget for a frame that is to be sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping

from sagelink.pipeline.budget.camera_accounts import CameraAccount
from sagelink.pipeline.clock import BudgetClock
from sagelink.pipeline.types import Metered, Scored


def affordable_bytes(wire_bits: Callable[[int], int], bits: int, max_bytes: int) -> int:
    """The longest message, of at most `max_bytes`, that costs at most `bits` on the wire; 0 where none does.

    `wire_bits`: bits on the wire by message bytes, never falling.
    """
    return max(0, bisect_right(range(max_bytes + 1), bits, key=wire_bits) - 1)


class Meter:
    """Runs before the gate: the allowance if this frame were sent."""

    def __init__(self, accounts: Mapping[str, CameraAccount], clock: BudgetClock) -> None:
        """`accounts`: by camera."""
        self._accounts = accounts
        self._clock = clock

    async def process(self, scored: Scored) -> Metered:
        now_s = self._clock.now_s(scored.frame)
        account = self._accounts[scored.frame.camera]
        allowance = account.allowance(now_s)
        window_bits, bound_bits = account.window_bits(now_s), account.bound_allowance(now_s)
        return Metered(
            *(scored, allowance, window_bits, account.limit_bits, account.now_s),
            bound_bits=bound_bits,
            bit_price=account.bit_price(now_s),
            rate_bps=account.rate_bps,
        )


class Claim:
    """Runs after the gate: the camera wants bits, so the cameras that share its budget leave its share to it."""

    def __init__(self, accounts: Mapping[str, CameraAccount]) -> None:
        """`accounts`: by camera."""
        self._accounts = accounts

    async def process(self, metered: Metered) -> Metered:
        account = self._accounts[metered.frame.camera]
        account.claim(account.now_s)
        return metered
