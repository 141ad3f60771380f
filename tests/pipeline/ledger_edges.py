"""Processes that share a ledger, on simulated clocks: they send, are killed at any line of the program, and restart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sagelink.pipeline.budget.interface_counter import InterfaceCounter
from sagelink.pipeline.budget.pacing import adaptive_paces
from sagelink.pipeline.budget.quota import Quota, count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.ledger.file import LedgerFile
from sagelink.pipeline.ledger.hold import Hold
from sagelink.pipeline.ledger.ledger import Ledger
from sagelink.pipeline.ledger.machine_clock import MachineClock
from sagelink.pipeline.ledger.records import Rate, Scope

_TRACED = ("ledger", "budget", "quota")  # modules in which a process may be killed


class Killed(BaseException):
    """The process is gone."""


class SimulatedClock(MachineClock):
    """The clock of a simulated machine."""

    def __init__(self) -> None:
        self.true_s = 1000.0  # of the observer
        self.booted_s = 900.0
        self.wall_offset_s = 1_790_000_000.0
        self.boot_id = "boot-0"

    def uptime_s(self) -> float:
        return self.true_s - self.booted_s

    def wall_s(self) -> float:
        return self.true_s + self.wall_offset_s

    def reboot(self, off_s: float) -> None:
        self.true_s += off_s
        self.booted_s = self.true_s
        self.boot_id = f"boot-{self.true_s}"


@dataclass(frozen=True)
class Sent:
    """Bits on the simulated wire, as the observer and as the sender see the time."""

    true_s: float
    wall_s: float
    bits: int


class Edge:
    """One process: the budget, its ledger, and a wire. `sent` outlives the process."""

    def __init__(
        self,
        path: Path,
        clock: SimulatedClock,
        quotas: Sequence[Quota],
        rate_bps: float | None,
        window_s: float,
        rate: Rate | None = None,
    ) -> None:
        self.clock, self.sent = clock, list[Sent]()
        self._path, self._quotas, self._rate_bps, self._window_s = path, tuple(quotas), rate_bps, window_s
        self._rate = (rate or Rate(window_s)) if rate_bps is not None else None
        self.transactions = 0
        self.interface: InterfaceCounter | None = None
        self.ledger: Ledger | None = None

    def start(self) -> None:
        if self.ledger is not None:
            return
        self._file = LedgerFile(self._path, self.clock, self.interface)
        self._file._base.execute("PRAGMA synchronous = OFF")  # the test's machine keeps its power
        self.ledger = Ledger(self._file)
        counts = [count_of(quota) for quota in self._quotas]
        self.budget = UplinkBudget(self._rate_bps, self._window_s, counts, self.ledger.moment)
        paces = adaptive_paces(counts, "adaptive")
        self.hold = Hold(Scope("", self._quotas, self._rate), self.budget, counts, lambda: None, paces)
        self.budget.cover = self.hold
        self.ledger.add(self.hold)
        self._began_s = self.clock.true_s
        self.transactions += 1
        self.ledger.start(0.0)

    @property
    def now_s(self) -> float:
        return self.clock.true_s - self._began_s

    def transact(self) -> None:
        """One transaction, as the thread makes it."""
        assert self.ledger is not None
        self.transactions += 1
        self.ledger._stakes[""], _ = self._file.look(self.hold.scope)
        self.ledger._apply(self._file.commit(self.ledger._prepare()))

    def send(self, bits: int, held_s: float | None = None) -> bool:
        """Charges and sends. `held_s`: the bits leave so much later, if the process still lives then."""
        if self.ledger is None:
            return False
        self.budget.claim(self.now_s)
        if not self.budget.charge(self.now_s, bits):
            if not self.hold.missing_bits:
                return False
            self.transact()
            if not self.budget.charge(self.now_s, bits):
                return False
        if held_s is not None:
            self.budget.hold(self.now_s, bits)
            self.clock.true_s += held_s
            self._leave(bits)
            self.budget.settle(self.now_s, bits)
        else:
            self._leave(bits)
        return True

    def _leave(self, bits: int) -> None:
        self.sent.append(Sent(self.clock.true_s, self._file.moment().wall_s, bits))

    def greedy(self) -> None:
        """Sends as much as it may at once."""
        if self.ledger is None:
            return
        allowance = self.budget.allowance(self.now_s)
        assert allowance is not None
        if allowance and not self.send(allowance):
            allowance = self.budget.allowance(self.now_s)
            if allowance:
                self.send(allowance)

    def stop(self) -> None:
        """Ends in order."""
        if self.ledger is not None:
            self._file.close({"": self.hold.last_spending(self._file.moment())})
            self.ledger = None

    def kill(self) -> None:
        """Ends like SIGKILL: the system frees its files."""
        if self.ledger is not None:
            self._file._base.close()
            self._file._slot.close()
            self.ledger = None

    def killed_within(self, lines: int, action: Callable[[], object]) -> None:
        """Runs the action, and kills the process at the given line of its program."""
        left = [lines]

        def trace(frame: FrameType, event: str, _: object) -> object:
            name = Path(frame.f_code.co_filename).name
            if not name.startswith(_TRACED) and "ledger_edges" not in name:
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            action()
        except Killed:
            pass
        finally:
            sys.settrace(before)
        self.kill()


def fullest_window(sent: Sequence[Sent], window_s: float) -> int:
    """Maximum bits in any half-open window of the observer's time."""
    ordered = sorted(sent, key=lambda each: each.true_s)
    return max(
        (sum(s.bits for s in ordered if start.true_s <= s.true_s < start.true_s + window_s) for start in ordered),
        default=0,
    )
