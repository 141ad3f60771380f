"""Charges the overhead of a connection (set-up, keep-alives, repeats) to the budget, also again in a replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from sagelink.pipeline.budget import UplinkBudget


class OverheadLog:
    """Charges overhead to a budget, and stores the charges until a recording takes them."""

    def __init__(self, budget: UplinkBudget, recorded: bool) -> None:
        self._budget = budget
        self._recorded = recorded
        self._new: deque[tuple[float, int]] = deque()

    @property
    def limit_bits(self) -> int | None:
        """Limit of a window; None without one."""
        return self._budget.limit_bits

    def charge(self, now_s: float, bits: int) -> bool:
        """Charges overhead; False if it exceeds the allowance. Bits above the limit of a window are not charged."""
        charged = bits if self._budget.limit_bits is None else min(bits, self._budget.limit_bits)
        paid = self._budget.charge(now_s, charged)
        if paid and self._recorded:
            self._new.append((self._budget.now_s, charged))
        return paid

    def take(self) -> list[tuple[float, int]]:
        """Returns (time, bits) of the charges since the last call. Safe from any thread."""
        return [self._new.popleft() for _ in range(len(self._new))]


class OverheadReplay:
    """Charges the overhead of a recorded run again, at the same times."""

    def __init__(self, overhead: Iterable[Sequence[float]]) -> None:
        """`overhead`: (time in seconds, bits) of each charge, in any order."""
        self._left = deque(sorted((float(at_s), int(bits)) for at_s, bits in overhead))

    def charge(self, budget: UplinkBudget, until_s: float) -> None:
        """Charges all that is due up to `until_s`, which must never decrease."""
        while self._left and self._left[0][0] <= until_s:
            budget.charge(*self._left.popleft())
