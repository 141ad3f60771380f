"""Divides one hard uplink budget between several cameras, by weights and minimum shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sagelink.pipeline.budget.uplink_budget import ChargeKind, UplinkBudget, least


@dataclass(frozen=True, slots=True)
class CameraShare:
    """The claim of one camera on a shared budget."""

    weight: float = 1.0
    min_share: float = 0.0  # fraction of the limit, 0..1


class CameraAccount:
    """The account of one camera in a budget that it may share with others. A pure ledger, like `UplinkBudget`.

    - Every charge goes through the shared ledger, so the sum over all cameras never exceeds the hard limit.
    - `min_share` of the limit stays reserved for the camera, whatever the others claim.
    - The rest is divided by weight between the cameras that called `claim` within the last window. Bits that a camera
      does not claim are free for the others at once. A camera that charged more than its share while the others were
      idle falls back to its share as its charges leave the window.
    """

    def __init__(self, name: str, shared: UplinkBudget, share: CameraShare) -> None:
        self.name = name
        self.share = share
        self.own = UplinkBudget(None, shared.window_s)  # this camera's charges
        self._shared = shared
        self._others: list[CameraAccount] = []
        self._claimed_s = float("-inf")

    @property
    def now_s(self) -> float:
        return self._shared.now_s

    @property
    def rate_bps(self) -> float | None:
        """Rate of the shared budget; None: unlimited."""
        return self._shared.rate_bps

    @property
    def limit_bits(self) -> int | None:
        """Bits of the largest message that the limits ever grant; None without a limit."""
        return self._shared.largest_bits

    def window_bits(self, now_s: float) -> int:
        """Bits of all cameras in the shared window that ends now."""
        return self._shared.window_bits(now_s)

    def claim(self, now_s: float) -> None:
        """Reserves this camera's share against the others for one window: it has a frame to send."""
        self._claimed_s = max(self._claimed_s, now_s)
        self._shared.claim(now_s)

    def allowance(self, now_s: float) -> int | None:
        """Bits that this camera may charge now; None without a limit."""
        return least(self._rate_allowance(now_s), self._shared.bound_allowance(now_s))

    def bound_allowance(self, now_s: float) -> int | None:
        """The part of the allowance that no rate decides: of the quotas and the ledger."""
        return self._shared.bound_allowance(now_s)

    def bit_price(self, now_s: float) -> float:
        """See `UplinkBudget.bit_price`."""
        return self._shared.bit_price(now_s)

    def _rate_allowance(self, now_s: float) -> int | None:
        """This camera's part of what the rate grants. Quotas are not divided: the first camera takes what is left."""
        left, limit = self._shared.rate_allowance(now_s), self._shared.limit_bits
        if left is None or limit is None:
            return None
        now_s = self._shared.now_s
        weights, pool = self.share.weight, 1.0 - self.share.min_share
        for other in self._others:
            pool -= other.share.min_share
            if other._claims(now_s):
                weights += other.share.weight
        by_weight = by_minimum = left
        for other in self._others:
            spent, share = other.own.window_bits(now_s), other.share.min_share
            reserved = max(0, int(share * limit) - spent)
            by_minimum -= reserved
            if other._claims(now_s):
                reserved = max(0, int((share + pool * other.share.weight / weights) * limit) - spent)
            by_weight -= reserved
        # Before this camera claimed, others may have used its weighted share, but never its minimum share.
        by_minimum = min(by_minimum, int(self.share.min_share * limit) - self.own.window_bits(now_s))
        return max(0, by_weight, by_minimum)

    def _claims(self, now_s: float) -> bool:
        return now_s - self._claimed_s <= self._shared.window_s

    def is_covered(self, now_s: float, bits: int) -> bool:
        """See `UplinkBudget.is_covered`."""
        return self._shared.is_covered(now_s, bits)

    def charge(self, now_s: float, bits: int) -> bool:
        """Charges a message that is about to be sent. Returns False, and charges nothing, if it exceeds the allowance,
        or what the ledger has reserved on disk."""
        allowance = self._rate_allowance(now_s)
        if allowance is not None and bits > allowance:
            return False  # the shared budget checks the rest
        if not self._shared.charge(now_s, bits, ChargeKind.MESSAGE, self.name):
            return False
        self.own.charge_sent(now_s, bits)
        return True

    def hold(self, now_s: float, bits: int) -> None:
        """The bits that this camera charged last are still to leave; see `UplinkBudget.hold`."""
        self._shared.hold(now_s, bits)

    def settle(self, now_s: float, bits: int) -> None:
        """Held bits have left now."""
        self._shared.settle(now_s, bits, self.name)

    def room(self, now_s: float, later_s: float = 0.0, needed_bits: int = 0) -> int | None:
        """Bits of all cameras that may leave; see `UplinkBudget.room`."""
        return self._shared.room(now_s, later_s, needed_bits)

    def end_reply(self, bits: int) -> None:
        """See `UplinkBudget.end_reply`."""
        self._shared.end_reply(bits)

    def restore(self, charges: Iterable[tuple[float, int]]) -> None:
        """Adds charges of an earlier process; see `UplinkBudget.restore`."""
        self._shared.restore(charges)


def open_accounts(shared: UplinkBudget, shares: Mapping[str, CameraShare]) -> dict[str, CameraAccount]:
    """One account per camera, by name, all on the same budget."""
    accounts = {name: CameraAccount(name, shared, share) for name, share in shares.items()}
    for account in accounts.values():
        account._others = [other for other in accounts.values() if other is not account]
    return accounts
