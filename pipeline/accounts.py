"""One hard uplink budget shared by several cameras, by weights and minimum shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sagelink.pipeline.budget import UplinkBudget


@dataclass(frozen=True, slots=True)
class CameraShare:
    """What a camera may claim."""

    weight: float = 1.0
    min_share: float = 0.0  # of the limit, 0..1


class CameraAccount:
    """One camera's part of a budget, which it may share with others. A pure ledger, as `UplinkBudget` is.

    - Every charge goes through the shared ledger, so the sum of all cameras never exceeds the hard window.
    - `min_share` of the limit is kept free for the camera whatever the others want.
    - The rest is split by weight among the cameras that `claim`ed bits within the last window; what a camera does not
      claim, others may use at once. A camera that spent more while it was alone gives way as its charges leave the
      window.
    """

    def __init__(self, shared: UplinkBudget, share: CameraShare) -> None:
        self.share = share
        self.own = UplinkBudget(None, shared.window_s)  # this camera's charges
        self._shared = shared
        self._others: list[CameraAccount] = []
        self._claimed_s = float("-inf")

    @property
    def now_s(self) -> float:
        return self._shared.now_s

    @property
    def limit_bits(self) -> int | None:
        return self._shared.limit_bits

    def window_bits(self, now_s: float) -> int:
        """Bits of all cameras in the shared window that ends now."""
        return self._shared.window_bits(now_s)

    def claim(self, now_s: float) -> None:
        """The camera has a frame worth sending: from now on others leave room for it, for one window."""
        self._claimed_s = max(self._claimed_s, now_s)

    def allowance(self, now_s: float) -> int | None:
        """Bits that this camera may charge now; None without a limit."""
        left, limit = self._shared.allowance(now_s), self._shared.limit_bits
        if left is None or limit is None:
            return None
        now_s = self._shared.now_s
        rivals = [other for other in self._others if now_s - other._claimed_s <= self._shared.window_s]
        weights = self.share.weight + sum(rival.share.weight for rival in rivals)
        pool = 1.0 - self.share.min_share - sum(other.share.min_share for other in self._others)
        kept = {other: other.share.min_share for other in self._others}
        fair = dict(kept) | {rival: kept[rival] + pool * rival.share.weight / weights for rival in rivals}
        by_weight = left - sum(other._unspent(share, limit, now_s) for other, share in fair.items())
        # Others may have spent of their weights before this camera claimed; its minimum they cannot have touched.
        by_minimum = min(
            left - sum(other._unspent(share, limit, now_s) for other, share in kept.items()),
            int(self.share.min_share * limit) - self.own.window_bits(now_s),
        )
        return max(0, by_weight, by_minimum)

    def charge(self, now_s: float, bits: int) -> bool:
        """Enters bits that are about to be sent. Returns False, and enters nothing, when they are not granted."""
        allowance = self.allowance(now_s)
        if allowance is not None and bits > allowance:
            return False
        return self._shared.charge(now_s, bits) and self.own.charge(now_s, bits)

    def _unspent(self, share: float, limit: int, now_s: float) -> int:
        return max(0, int(share * limit) - self.own.window_bits(now_s))


def open_accounts(shared: UplinkBudget, shares: Mapping[str, CameraShare]) -> dict[str, CameraAccount]:
    """An account for each camera, by name."""
    accounts = {name: CameraAccount(shared, share) for name, share in shares.items()}
    for account in accounts.values():
        account._others = [other for other in accounts.values() if other is not account]
    return accounts
