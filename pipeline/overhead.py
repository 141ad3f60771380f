"""What a connection itself takes of the uplink: charged to a run's budget as it comes, and recorded, so that a replay
charges the same at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from sagelink.pipeline.budget import UplinkBudget


class OverheadLog:
    """Charges tolls, and remembers those that a recording has not taken yet."""

    def __init__(self, budget: UplinkBudget, recorded: bool) -> None:
        self._budget = budget
        self._recorded = recorded
        self._new: deque[tuple[float, int]] = deque()

    def charge(self, now_s: float, bits: int) -> bool:
        """False where the window has no room for them now. More than a window may ever hold count as that much."""
        most = bits if self._budget.limit_bits is None else min(bits, self._budget.limit_bits)
        paid = self._budget.charge(now_s, most)
        if paid and self._recorded:
            self._new.append((self._budget.now_s, most))
        return paid

    def take(self) -> list[tuple[float, int]]:
        """Time and bits of those since the last call. From any thread."""
        return [self._new.popleft() for _ in range(len(self._new))]


class OverheadReplay:
    """Charges again what was charged then."""

    def __init__(self, overhead: Iterable[Sequence[float]]) -> None:
        """`overhead`: time and bits of each, in any order."""
        self._left = deque(sorted((float(at_s), int(bits)) for at_s, bits in overhead))

    def charge(self, budget: UplinkBudget, until_s: float) -> None:
        """Those up to a time, which never runs backwards."""
        while self._left and self._left[0][0] <= until_s:
            budget.charge(*self._left.popleft())
