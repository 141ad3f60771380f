"""The bits of one scope that a ledger has reserved on disk for this process, and what was spent of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sagelink.pipeline.budget.pacing import AdaptivePace
from sagelink.pipeline.budget.quota import Moment, QuotaCount, RollingCount
from sagelink.pipeline.budget.uplink_budget import ChargeKind, UplinkBudget
from sagelink.pipeline.ledger.records import Grant, Request, Scope, Spending

_BLOCKS = 200  # a block is this part of the smallest limit, or one second of the rate if that is more
_UNLIMITED_BLOCK_BITS = 8_000_000
_NOT_UPLINK = (ChargeKind.REPLY, ChargeKind.OTHERS)


class Hold:
    """A Cover. `take_request` and `apply` are the two ends of a transaction, which runs in a thread between them."""

    def __init__(
        self,
        scope: Scope,
        budget: UplinkBudget,
        counts: Sequence[QuotaCount],
        wake: Callable[[], None],
        paces: Sequence[AdaptivePace] = (),
    ) -> None:
        """`counts`, `paces`: of the scope's quotas. `wake`: called when bits are missing."""
        self.scope = scope
        self.budget = budget
        self.missing_bits = 0
        self.paces = paces
        self._counts = counts
        self._wake = wake
        self._bits = 0
        self._valid_until_s = float("-inf")
        self._aside_bits = 0
        self._held_bits = 0  # charged and still to leave: they stay reserved on disk until they are settled
        self._newest: tuple[Moment, int, ChargeKind, str] | None = None  # may still be held
        self._spending = Spending(scope)
        self.pace_bps = 0.0  # average of the last days, at the last transaction
        self.others_today_bits = 0  # of other programs on the interface, at the last transaction
        self._today_bits, self._day = 0, ""

    @property
    def block_bits(self) -> int:
        """Bits that a crash may lose."""
        limits = [count.quota.limit_bits for count in self._counts]
        if self.budget.limit_bits is not None:
            limits.append(self.budget.limit_bits)
        rate_bits = self.budget.share * (self.budget.rate_bps or 0.0)
        return max(1, int(max(min(limits) / _BLOCKS, rate_bits))) if limits else _UNLIMITED_BLOCK_BITS

    def left(self, at: Moment) -> int:
        """A new period of the calendar needs a transaction first: the ledger must know that it has begun."""
        return 0 if at.wall_s >= self._valid_until_s else self._bits - self._aside_bits

    def want(self, bits: int) -> None:
        self.missing_bits = max(self.missing_bits, bits)
        self._wake()

    def record(self, at: Moment, bits: int, kind: ChargeKind, camera: str) -> None:
        self._bits -= bits
        self._spend_newest()
        self._newest = at, bits, kind, camera

    def hold(self, bits: int) -> None:
        self._held_bits += bits
        if self._newest is not None:
            at, charged, kind, camera = self._newest
            self._newest = at, max(0, charged - bits), kind, camera

    def settle(self, at: Moment, bits: int, camera: str) -> None:
        self._held_bits = max(0, self._held_bits - bits)
        self._spending.add(at, bits, ChargeKind.MESSAGE, camera)

    def spending(self) -> Spending:
        """What is to be settled."""
        self._spend_newest()
        return self._spending

    def today_bits(self, at: Moment) -> int:
        """All bits of the present day, of all processes; those of others at the last transaction."""
        settled = self._today_bits if self._day == self.scope.day(at.wall_s) else 0
        return settled + self._spending.bits + self._held_bits

    def last_spending(self, at: Moment) -> Spending:
        """What is to be settled at the end of the run: what is still to leave counts as sent."""
        self.settle(at, self._held_bits, "")
        return self.spending()

    def _spend_newest(self) -> None:
        if self._newest is not None and self._newest[1]:
            at, bits, kind, camera = self._newest
            self._spending.add(at, bits, kind, camera, uplink=kind not in _NOT_UPLINK)
        self._newest = None

    def set_aside(self, bits: int) -> None:
        self._aside_bits += bits

    def take_request(self, at: Moment, share: float, active_until_s: float) -> Request:
        """What the transaction is to settle and to reserve."""
        self._bits = max(0, self._bits)  # bits that could not be refused were not reserved, but are settled now
        kept_bits = self._bits + self._held_bits
        wanted_bits = kept_bits
        if self.missing_bits:
            wanted_bits = self._held_bits + self._aside_bits + self.missing_bits + self.block_bits - 1
        learned = {pace.count.quota.name: pace.state() for pace in self.paces if pace.in_use}
        request = Request(self.spending(), kept_bits, wanted_bits, share, active_until_s, learned)
        request.spending.forget(at.elapsed_s)
        self.missing_bits = 0
        self._spending = Spending(self.scope)
        return request

    def apply(self, grant: Grant, at: Moment, elapsed_offset_s: float) -> None:
        """Takes the result of a transaction. `elapsed_offset_s`: elapsed time of the ledger minus budget time."""
        self._bits += grant.bits
        self.others_today_bits = grant.others_today_bits
        self.pace_bps, self._today_bits, self._day = grant.pace_bps, grant.today_bits, self.scope.day(at.wall_s)
        self._valid_until_s = grant.valid_until_s
        if self.scope.rate is not None:
            self.budget.change_share(grant.share)
        if grant.adopted:
            self.budget.restore([(at_s - elapsed_offset_s, bits) for at_s, bits in grant.adopted])
        if at.wall_s >= grant.valid_until_s:
            return  # a period has begun since; the next transaction counts it
        unsettled_bits = self.spending().bits + self._held_bits
        for count in self._counts:
            state = grant.counts[count.quota.name]
            if isinstance(count, RollingCount):
                count.restore(at, [*state.charges, (at.elapsed_s, unsettled_bits)], state.others_bits)
            else:
                count.restore(at, state.used_bits + state.others_bits + unsettled_bits)

    def put_back(self, request: Request) -> None:
        """The transaction has failed: what was spent is still to be settled, and nothing was reserved."""
        self._spending.merge(request.spending)


class JointHold:
    """A Cover of a camera with its own budget: its bits count in its own scope and in that of the site."""

    def __init__(self, holds: Sequence[Hold]) -> None:
        self._holds = holds

    def left(self, at: Moment) -> int:
        return min(hold.left(at) for hold in self._holds)

    def want(self, bits: int) -> None:
        for hold in self._holds:
            hold.want(bits)

    def record(self, at: Moment, bits: int, kind: ChargeKind, camera: str) -> None:
        for hold in self._holds:
            hold.record(at, bits, kind, camera)

    def hold(self, bits: int) -> None:
        for hold in self._holds:
            hold.hold(bits)

    def settle(self, at: Moment, bits: int, camera: str) -> None:
        for hold in self._holds:
            hold.settle(at, bits, camera)

    def set_aside(self, bits: int) -> None:
        for hold in self._holds:
            hold.set_aside(bits)
