"""Meter: asks the uplink budget what it would grant this frame, and claims it for a frame that is worth sending."""

from __future__ import annotations

from collections.abc import Mapping

from sagelink.pipeline.accounts import CameraAccount
from sagelink.pipeline.clock import BudgetClock
from sagelink.pipeline.types import Metered, Scored


class Meter:
    """Before the gate: what would be granted."""

    def __init__(self, accounts: Mapping[str, CameraAccount], clock: BudgetClock) -> None:
        """`accounts`: by camera."""
        self._accounts = accounts
        self._clock = clock

    async def process(self, scored: Scored) -> Metered:
        now_s = self._clock.now_s(scored.frame)
        account = self._accounts[scored.frame.camera]
        allowance = account.allowance(now_s)
        return Metered(scored, allowance, account.window_bits(now_s), account.limit_bits, account.now_s)


class Claim:
    """After the gate: the camera wants bits, so the others that share its budget leave it its part."""

    def __init__(self, accounts: Mapping[str, CameraAccount]) -> None:
        self._accounts = accounts

    async def process(self, metered: Metered) -> Metered:
        account = self._accounts[metered.frame.camera]
        account.claim(account.now_s)
        return metered
