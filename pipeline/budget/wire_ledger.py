"""The budget as a connection sees it: what may leave now, what has left; and the same again in a replay.

A message is charged before it is handed to its connection, which holds the charge until the bits have left. All other
bits of a connection (set-up, keep-alives, acknowledgements, repeats) are charged as they leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from sagelink.pipeline.budget.idle_rest import idle_bits
from sagelink.pipeline.budget.uplink_budget import ChargeKind, UplinkBudget

EntryKind = Literal["message", "charge", "hold", "settle", "reserve", "earlier"]
# One entry of the ledger: time in s, bits, kind, and camera of a message.
LedgerEntry = tuple[float, int, EntryKind, str]


class MessageAccount(Protocol):
    """The account that paid for a camera's messages."""

    def allowance(self, now_s: float) -> int | None: ...

    def charge(self, now_s: float, bits: int) -> bool: ...

    def hold(self, now_s: float, bits: int) -> None: ...

    def settle(self, now_s: float, bits: int) -> None: ...

    def room(self, now_s: float, later_s: float = 0.0, needed_bits: int = 0) -> int | None: ...

    def restore(self, charges: Iterable[tuple[float, int]]) -> None: ...


class WireLedger:
    """The budget of one connection, with its clock. All methods are called from the run's event loop."""

    def __init__(
        self,
        budget: UplinkBudget,
        clock_s: Callable[[], float],
        accounts: Mapping[str, MessageAccount] | None = None,
        recorded: bool = False,
    ) -> None:
        """`budget`: pays for everything that is no message; `accounts`: by camera, those that pay for its messages, if
        another does than `budget`."""
        self._budget = budget
        self._clock_s = clock_s
        self._accounts = accounts or {}
        self._recorded = recorded
        self._new: deque[LedgerEntry] = deque()
        self._reserved_bits = 0

    @property
    def limit_bits(self) -> int | None:
        """Of a window, if no other process had a share of it."""
        return self._budget.whole_limit_bits

    @property
    def rate_bps(self) -> float | None:
        return self._budget.rate_bps

    @property
    def window_s(self) -> float:
        return self._budget.window_s

    @property
    def share_bits(self) -> int | None:
        """Of a window: this process's part of `limit_bits` now."""
        return self._budget.limit_bits

    def room_bits(self, camera: str = "", later_s: float = 0.0, needed_bits: int = 0) -> int | None:
        """Bits that may leave from now until `later_s` from now, of a camera's message or of the connection itself;
        None without a limit. `needed_bits`: see `UplinkBudget.room`."""
        return self._account(camera).room(self._clock_s(), later_s, needed_bits)

    def idle_bits(self) -> int | None:
        """Bits that may be charged now for what can wait; None without a limit."""
        return idle_bits(self._budget, self._clock_s())

    def try_charge(self, camera: str, bits: int) -> bool:
        """Charges a message that its camera has not charged; False if its budget has no room."""
        allowance = self._account(camera).allowance(self._clock_s())
        if allowance is not None and bits > allowance:
            return False
        return self._account(camera).charge(*self._enter(bits, "message", camera))

    def hold(self, camera: str, bits: int) -> None:
        """The camera's last charge is still to leave."""
        self._account(camera).hold(*self._enter(bits, "hold", camera))

    def settle(self, camera: str, bits: int) -> None:
        """Bits that were held have left."""
        self._account(camera).settle(*self._enter(bits, "settle", camera))

    def charge(self, bits: int) -> None:
        """Bits of the connection itself have left, or leave now."""
        self._budget.charge_sent(*self._enter(bits, "charge"))

    def receive(self, bits: int) -> None:
        """Bits have arrived."""
        if self._budget.counts_replies:
            self._budget.charge_quotas(self._clock_s(), bits, ChargeKind.REPLY)

    def reserve(self, bits: int) -> None:
        """Keeps these bits from messages: the connection may need them at any time. Replaces the earlier value."""
        if bits != self._reserved_bits:
            self._reserved_bits = bits
            self._enter(bits, "reserve")
            self._budget.reserve(bits)

    def note_earlier(self, charges: Mapping[str, Sequence[tuple[float, int]]]) -> None:
        """Records charges of an earlier process, by camera or of the shared budget, that are in the budget already."""
        if self._recorded:
            self._new.extend((at_s, bits, "earlier", camera) for camera, each in charges.items() for at_s, bits in each)

    def take(self) -> list[LedgerEntry]:
        """Returns the entries since the last call, for a recording. Safe from any thread."""
        return [self._new.popleft() for _ in range(len(self._new))]

    def _account(self, camera: str) -> MessageAccount:
        return self._accounts.get(camera, self._budget)

    def _enter(self, bits: int, kind: EntryKind, camera: str = "") -> tuple[float, int]:
        now_s = max(self._budget.now_s, self._clock_s())
        if self._recorded:
            self._new.append((now_s, bits, kind, camera))
        return now_s, bits


class LedgerReplay:
    """Makes the entries of a recorded run again, at the same times."""

    def __init__(self, entries: Iterable[LedgerEntry]) -> None:
        """`entries`: in any order of time; those of one time in the order of the recording."""
        self._left = deque(sorted(entries, key=lambda entry: entry[0]))

    def enter(self, budget: UplinkBudget, accounts: Mapping[str, MessageAccount], until_s: float) -> None:
        """Makes all entries before `until_s`, which must never decrease."""
        while self._left and self._left[0][0] < until_s:
            now_s, bits, kind, camera = self._left.popleft()
            account = accounts.get(camera, budget)
            match kind:
                case "message":
                    account.charge(now_s, bits)
                case "hold":
                    account.hold(now_s, bits)
                case "settle":
                    account.settle(now_s, bits)
                case "earlier":
                    account.restore([(now_s, bits)])
                case "reserve":
                    budget.reserve(bits)
                case _:
                    budget.charge_sent(now_s, bits)
