"""Runs a ledger beside the event loop: reserves bits on disk before they are spent, and keeps the processes' shares.

The event loop never waits for a disk: every transaction runs in a thread, at most one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from sagelink.pipeline.budget.quota import GUARD, ClosedUntil, Moment
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.ledger.file import LedgerFile
from sagelink.pipeline.ledger.hold import Hold
from sagelink.pipeline.ledger.process_shares import granted_share, target_share
from sagelink.pipeline.ledger.quota_watch import QuotaWatch
from sagelink.pipeline.ledger.records import Grant, Request, Stake
from sagelink.pipeline.tasks import background
from sagelink.pipeline.threads import Worker

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 10.0  # after a start for which there is no record of the bits before it
_LOOK_EVERY_S = 1.0  # at the other processes
_SETTLE_EVERY_S = 60.0
_RETRY_S = 1.0  # after a failure of the disk
_ACTIVE_S = 3.0  # a process that claims nothing for longer, and for longer than a window, leaves its share to others
_LEAST_CHANGE = 0.001  # of a share
_PARTS = 4  # what has passed the interface is counted after such a part of a block
_ROUNDS = 3  # transactions that a message waits for


class Ledger:
    """The ledger of one run."""

    def __init__(self, file: LedgerFile) -> None:
        self.path = file.path
        self._file = file
        self._holds: dict[str, Hold] = {}
        self._stakes: dict[str, Sequence[Stake]] = {}  # of other processes, by scope
        self._announced_s: dict[str, float] = {}  # until when others regard this process as active, by scope
        self._offset_s = 0.0  # elapsed time of the ledger minus budget time
        self._wake = asyncio.Event()
        self._round = asyncio.Event()  # set after a transaction, and then replaced
        self._failure: str | None = None
        self._settled_s = float("-inf")
        self._requests: Mapping[str, Request] | None = None  # of the transaction that runs
        self.watch: QuotaWatch | None = None

    def moment(self, now_s: float) -> Moment:
        """The clocks of the ledger at a budget time."""
        return Moment(now_s + self._offset_s, self._file.wall_s())

    @property
    def holds(self) -> Mapping[str, Hold]:
        """What is reserved, by scope."""
        return self._holds

    def add(self, hold: Hold) -> None:
        """Adds a scope, before `start`."""
        self._holds[hold.scope.name] = hold

    def wake(self) -> None:
        self._wake.set()

    def start(self, now_s: float) -> dict[str, list[tuple[float, int]]]:
        """Joins the ledger at the budget time `now_s`; blocks. Returns what processes before have charged in the window
        of each scope: (budget time, bits). Raises SagelinkError."""
        began_s = self._file.moment().elapsed_s
        self._offset_s = began_s - now_s
        for name, hold in self._holds.items():
            hold.budget.claim(now_s)
            if self._file.created and hold.scope.rate is not None:
                wait_s = min(hold.scope.rate.window_s, LONGEST_WAIT_S)
                hold.budget.bounds.append(ClosedUntil(began_s + wait_s * (1 + GUARD)))
            self._file.join(hold.scope, hold.budget.limit_bits)
            for pace in hold.paces:
                if (learned := self._file.pace(hold.scope, pace.count.quota.name)) is not None:
                    pace.restore(learned)
            self._stakes[name], _ = self._file.look(hold.scope)
            hold.want(1)
        grants = self._file.commit(self._prepare())
        self._apply(grants)
        return {name: [(at_s - self._offset_s, bits) for at_s, bits in grant.adopted] for name, grant in grants.items()}

    async def reserve(self, is_covered: Callable[[], bool]) -> None:
        """Waits until `is_covered`, which asks for the bits, is true; or returns when they cannot be reserved now."""
        for _ in range(_ROUNDS):
            if is_covered() or self._failure is not None:
                return
            await self._round.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves while the body runs; then settles and leaves."""
        worker = Worker("ledger")
        try:
            async with background(self._serve(worker)):
                yield
        finally:
            await self._leave(worker)

    async def _serve(self, worker: Worker) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            if self.watch is not None:
                self.watch.check(self._file.moment())
            try:
                if any(hold.missing_bits for hold in self._holds.values()) or await self._is_due(worker):
                    await self._transact(worker)
            except SagelinkError as error:
                self._fail(str(error))
                await asyncio.sleep(_RETRY_S)

    async def _is_due(self, worker: Worker) -> bool:
        """Whether there is something to write although no bits are missing."""
        due = self._failure is not None
        block_bits = min(hold.block_bits for hold in self._holds.values())
        due |= await worker.call(self._file.interface_bits) * _PARTS >= block_bits
        now_s = self._file.moment().elapsed_s
        for name, hold in self._holds.items():
            self._stakes[name], dead = await worker.call(self._file.look, hold.scope)
            due |= dead or self._share_is_due(name, hold, now_s)
            due |= bool(hold.spending().bits) and now_s - self._settled_s >= _SETTLE_EVERY_S
        return due

    def _share_is_due(self, name: str, hold: Hold, now_s: float) -> bool:
        others = self._stakes[name]
        if hold.scope.rate is None or (not others and hold.budget.share == 1.0):
            return False
        share = granted_share(self._target(name, hold, now_s), hold.budget.share, others, now_s)
        active_until_s = self._active_until_s(hold)
        late = active_until_s > now_s > self._announced_s[name] - _LOOK_EVERY_S
        return abs(share - hold.budget.share) > _LEAST_CHANGE or late

    async def _transact(self, worker: Worker) -> None:
        self._requests = self._prepare()
        job = asyncio.ensure_future(worker.call(self._file.commit, self._requests))
        await asyncio.wait({job})
        requests, self._requests = self._requests, None
        try:
            self._apply(job.result())
        except SagelinkError:
            for name, request in requests.items():
                self._holds[name].put_back(request)
            raise
        finally:
            self._round.set()
            self._round = asyncio.Event()

    def _prepare(self) -> dict[str, Request]:
        requests = {}
        at = self._file.moment()
        self._settled_s = at.elapsed_s
        for name, hold in self._holds.items():
            share = self._target(name, hold, at.elapsed_s)
            if share < hold.budget.share and self._stakes[name]:
                hold.budget.change_share(share)  # before the ledger gives it to others
            self._announced_s[name] = self._active_until_s(hold)
            requests[name] = hold.take_request(at, share, self._announced_s[name])
        return requests

    def _apply(self, grants: Mapping[str, Grant]) -> None:
        for name, grant in grants.items():
            hold, before = self._holds[name], self._holds[name].budget.share
            self._stakes[name] = grant.stakes
            hold.apply(grant, self._file.moment(), self._offset_s)
            if abs(hold.budget.share - before) > _LEAST_CHANGE:
                others = len(grant.stakes)
                log.info("event=share scope=%r share=%.3f other_processes=%d", name, hold.budget.share, others)
        if self._failure is not None:
            self._failure = None
            log.warning("event=ledger_recovered path=%r", str(self.path))

    def _target(self, name: str, hold: Hold, now_s: float) -> float:
        if hold.scope.rate is None:
            return 1.0
        return target_share(hold.scope.rate, self._active_until_s(hold) >= now_s, self._stakes[name], now_s)

    def _active_until_s(self, hold: Hold) -> float:
        window_s = hold.scope.rate.window_s if hold.scope.rate is not None else 0.0
        return hold.budget.claimed_s + self._offset_s + max(window_s, _ACTIVE_S)

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            log.error("event=ledger_failed error=%r: what it has reserved may be sent, and nothing else", reason)
        self._failure = reason

    async def _leave(self, worker: Worker) -> None:
        if self._requests is not None:  # a transaction hangs: what is reserved counts as spent
            worker.close(last=self._file.abandon)
            return
        at = self._file.moment()
        spent = {name: hold.last_spending(at) for name, hold in self._holds.items()}
        try:
            await worker.call(self._file.close, spent)
        except SagelinkError as error:
            log.error("event=ledger_failed error=%r", str(error))
        worker.close()
