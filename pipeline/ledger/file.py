"""The ledger on disk: what was spent, what each process has reserved, and the latest times ever seen.

One transaction settles what a process has spent and reserves what it may spend next, so that one synchronisation of the
disk serves many messages. Bits that are reserved count as spent until they are settled; those of a process that died
are spent. All methods block.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from sagelink.pipeline.budget.interface_counter import InterfaceCounter
from sagelink.pipeline.budget.pacing import PaceState
from sagelink.pipeline.budget.quota import GUARD, Moment
from sagelink.pipeline.budget.uplink_budget import ChargeKind
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.private_files import make_private_folder
from sagelink.pipeline.ledger.machine_clock import MachineClock
from sagelink.pipeline.ledger.process_shares import granted_share
from sagelink.pipeline.ledger.process_slot import ProcessSlot
from sagelink.pipeline.ledger.records import Grant, Rate, Request, Scope, Spending, Stake
from sagelink.pipeline.ledger.schema import PACES_TABLE, check_is_ledger, connect, create_ledger, explained
from sagelink.pipeline.ledger.tables import (
    count,
    count_others,
    fill_new_windows,
    forget,
    others_today_bits,
    pace_bps,
    rate_charges,
    read_pace,
    read_stakes,
    settle,
    take_over,
    today_bits,
    write_limits,
    write_pace,
    write_stake,
)

_CHECKPOINT_EVERY = 100  # transactions


class LedgerFile:
    """An open ledger, and this process's place in it."""

    def __init__(
        self, path: Path, clock: MachineClock | None = None, interface: InterfaceCounter | None = None
    ) -> None:
        """Creates the file if there is none. Raises UsageError for a file that is no ledger of this version;
        SagelinkError for one that is damaged or cannot be written."""
        self.path = path
        self._interface = interface
        self._counted_bits = 0  # of the interface, at the last transaction
        self.created = False
        self._clock = clock or MachineClock()
        self._transactions = 0
        self._epoch_s = self._latest_wall_s = 0.0
        with explained(path), contextlib.ExitStack() as stack:
            if not path.exists():
                make_private_folder(path.parent)
                self.created = create_ledger(path)
            check_is_ledger(path)
            self._slot = ProcessSlot(path)
            stack.callback(self._slot.close)
            self._base = connect(path)
            stack.callback(self._base.close)
            self._identity = path.stat()
            self._base.execute("PRAGMA wal_autocheckpoint = 0")
            self._base.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                self._begin()
            stack.pop_all()

    def moment(self) -> Moment:
        """The time on the ledger's clocks; neither runs backwards."""
        return Moment(self._epoch_s + self._clock.uptime_s(), self.wall_s())

    def wall_s(self) -> float:
        """The latest wall time ever seen."""
        self._latest_wall_s = max(self._latest_wall_s, self._clock.wall_s())
        return self._latest_wall_s

    def join(self, scope: Scope, rate_bits: int | None) -> None:
        """Prepares a scope for `commit`. `rate_bits`: of a window, for `sagelink budget show`."""
        with explained(self.path), self._transaction():
            fill_new_windows(self._base, scope, self._note_time())
            write_limits(self._base, scope, rate_bits)

    def pace(self, scope: Scope, quota: str) -> PaceState | None:
        """What an earlier process has learned about the pace of a quota."""
        with explained(self.path):
            return read_pace(self._base, scope.name, quota)

    def commit(self, requests: Mapping[str, Request]) -> dict[str, Grant]:
        """Settles what was spent and reserves what is wanted, for each scope by name. Raises SagelinkError; then
        nothing has changed, or the file counts more than was spent."""
        with explained(self.path):
            if not (self.path.exists() and os.path.samestat(self.path.stat(), self._identity)):
                raise SagelinkError(f"ledger {str(self.path)!r} was deleted or replaced while it was used")
            with self._transaction():
                at = self._note_time()
                forget(self._base, at)
                grants = {name: self._serve(request, at) for name, request in requests.items()}
            self._transactions += 1
            if self._transactions % _CHECKPOINT_EVERY == 0:
                self._base.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return grants

    def look(self, scope: Scope) -> tuple[list[Stake], bool]:
        """The stakes of other living processes, and whether there is one of a dead process. Writes nothing."""
        with explained(self.path):
            _, living, dead = self._stakes(scope)
            return living, bool(dead)

    def close(self, spent: Mapping[str, Spending]) -> None:
        """Settles what was spent, gives the reservations back, and leaves. Raises SagelinkError."""
        try:
            with explained(self.path), self._transaction():
                self._note_time()
                for spending in spent.values():
                    settle(self._base, self._slot.number, spending)
                leave = "UPDATE stakes SET hold_bits = 0, active_until_s = 0 WHERE owner = ?"
                self._base.execute(leave, (self._slot.number,))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leaves without writing."""
        self._base.close()
        self._slot.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._base.execute("ROLLBACK")
            raise

    def _begin(self) -> None:
        """The elapsed clock goes on where the ledger has seen it last. The time for which the machine was off does not
        count, because only the wall clock knows it. What an earlier process with our number left is dead."""
        self._base.execute(PACES_TABLE)
        boot_id, self._epoch_s, latest_s, self._latest_wall_s = self._base.execute("SELECT * FROM machine").fetchone()
        if boot_id != self._clock.boot_id or self._epoch_s + self._clock.uptime_s() < latest_s:
            self._epoch_s = latest_s
            update = "UPDATE machine SET boot_id = ?, epoch_s = ?"
            self._base.execute(update, (self._clock.boot_id, self._epoch_s))
        lowest = self._base.execute("SELECT min(coalesce(min(owner), -1), -1) FROM stakes").fetchone()[0]
        dead = lowest - 1, self._slot.number
        self._base.execute("UPDATE stakes SET owner = ? WHERE owner = ?", dead)
        self._base.execute("UPDATE slots SET owner = ? WHERE owner = ?", dead)

    def _note_time(self) -> Moment:
        latest_s, latest_wall_s = self._base.execute("SELECT latest_s, latest_wall_s FROM machine").fetchone()
        self._latest_wall_s = max(self._latest_wall_s, latest_wall_s)
        at = self.moment()
        at = at._replace(elapsed_s=max(at.elapsed_s, latest_s))
        self._base.execute("UPDATE machine SET latest_s = ?, latest_wall_s = ?", at)
        return at

    def _serve(self, request: Request, at: Moment) -> Grant:
        scope = request.spending.scope
        settle(self._base, self._slot.number, request.spending)
        for name, state in request.paces.items():
            write_pace(self._base, scope.name, name, state)
        unsettled = request.hold_bits, scope.name, self._slot.number
        self._base.execute("UPDATE stakes SET hold_bits = ? WHERE scope = ? AND owner = ?", unsettled)
        self._count_interface(scope, at)
        own, others, dead = self._stakes(scope)
        adopted = [charge for stake in dead for charge in self._adopt(scope, stake, at)]
        mine = [*dead] if own is None else [own, *dead]
        share, fading, fading_until_s = self._share(scope, request.share, mine, others, at)
        reserved = sum(stake.hold_bits for stake in others)
        counts = {quota.name: count(self._base, scope.name, quota, reserved, at) for quota in scope.quotas}
        rooms = [quota.limit_bits - counts[quota.name].used_bits - reserved for quota in scope.quotas]
        hold_bits = max(request.hold_bits, min([request.wanted_bits, *rooms]))  # a reservation never shrinks
        write_stake(
            self._base,
            scope.name,
            Stake(
                *(self._slot.number, os.getpid(), hold_bits, share, fading, fading_until_s, request.active_until_s),
                scope.rate or Rate(0.0),
            ),
        )
        ends_s = [quota.calendar.period(at.wall_s)[1] for quota in scope.quotas if quota.calendar is not None]
        valid_until_s = min(ends_s, default=float("inf"))
        return Grant(
            bits=hold_bits - request.hold_bits,
            valid_until_s=valid_until_s,
            counts=counts,
            share=share,
            stakes=others,
            adopted=adopted,
            today_bits=today_bits(self._base, scope, at),
            others_today_bits=others_today_bits(self._base, scope, at),
            pace_bps=pace_bps(self._base, scope.name, at),
        )

    def interface_bits(self) -> int:
        """Bits that have passed the interface since the last transaction."""
        bits = None if self._interface is None else self._interface.bits()
        return 0 if bits is None else max(0, bits - self._counted_bits)

    def _count_interface(self, scope: Scope, at: Moment) -> None:
        """Charges what other programs have sent over the interface to the quotas of the site."""
        if self._interface is None or scope.name or (bits := self._interface.bits()) is None:
            return
        self._counted_bits = bits
        others = Spending(scope)
        new = count_others(self._base, self._interface.name, self._clock.boot_id, bits, self._interface.both)
        others.add(at, new, ChargeKind.OTHERS, "", uplink=False)
        settle(self._base, self._slot.number, others)

    def _stakes(self, scope: Scope) -> tuple[Stake | None, list[Stake], list[Stake]]:
        """Our own stake, those of other living processes, and those of the dead. Raises UsageError for a living process
        with another window."""
        own, living, dead = None, list[Stake](), list[Stake]()
        for stake in read_stakes(self._base, scope.name):
            if stake.owner == self._slot.number:
                own = stake
            elif stake.owner < 0 or not self._slot.lives(stake.owner):
                dead.append(stake)
            else:
                living.append(stake)
                if scope.rate is not None and stake.rate.window_s not in (0.0, scope.rate.window_s):
                    raise UsageError(
                        f"ledger {str(self.path)!r}: process {stake.pid} uses it with a window of "
                        f"{stake.rate.window_s:g} s; accepted: the same window; got {scope.rate.window_s:g} s"
                    )
        return own, living, dead

    def _adopt(self, scope: Scope, stake: Stake, at: Moment) -> list[tuple[float, int]]:
        """Takes the place of a dead process: its charges become ours, and all that it had reserved is spent. Returns
        its charges in the window of the rate."""
        charges = rate_charges(self._base, scope, stake, at) if scope.rate is not None else []
        take_over(self._base, scope, stake, self._slot.number)
        if not stake.hold_bits:
            return charges
        lost = Spending(scope)
        lost.add(at, stake.hold_bits, ChargeKind.LOST, "")
        settle(self._base, self._slot.number, lost)
        return [*charges, (at.elapsed_s, stake.hold_bits)]

    def _share(
        self, scope: Scope, wanted: float, mine: list[Stake], others: list[Stake], at: Moment
    ) -> tuple[float, float, float]:
        """Our share, the largest one within the last window, and until when that one counts."""
        if scope.rate is None:
            return 1.0, 1.0, 0.0
        held = sum(stake.share for stake in mine)
        bound = sum(stake.bound(at.elapsed_s) for stake in mine)
        share = granted_share(wanted, held, others, at.elapsed_s)
        if share < held:
            return share, bound, at.elapsed_s + scope.rate.window_s * (1 + 2 * GUARD)
        return share, bound, max((stake.fading_until_s for stake in mine), default=0.0)
