"""Measures the ledger: cost of charging a frame, synchronisations of the disk, waits of the event loop, size in a year.

`python -m bench.ledger [--year]` prints a table. Three cameras at 30 frames per second in all, of which each sends a
message as large as the rate allows on average.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from sagelink.app.edge.budgets import Budgets, open_budgets
from sagelink.pipeline.budget.camera_accounts import CameraAccount
from sagelink.pipeline.budget.uplink_budget import ChargeKind
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.ledger.file import LedgerFile
from sagelink.pipeline.ledger.machine_clock import MachineClock
from sagelink.pipeline.ledger.records import Request, Scope, Spending

_FPS = 30
_CAMERAS = ("gate", "yard", "dock")
_RATE_BPS = 64_000
_SECONDS = 30
_SLOW_S = 0.3  # of each transaction, on a disk that is slow
_DAYS = 365
_IN_A_ROW = 3000


def _budgets(folder: Path, *quotas: str) -> Budgets:
    settings = {
        "cameras": [{"name": name, "source": "synthetic:1"} for name in _CAMERAS],
        "budget.uplink": f"{_RATE_BPS}bit/s",
        "budget.quotas": list(quotas),
        "budget.ledger": str(folder / "ledger"),
    }
    return open_budgets(load_config(None, settings), live=True)


async def _charge_frames(budgets: Budgets, slow_s: float) -> tuple[list[float], list[float], float, int]:
    """Seconds of each charge in a row, and of a frame 33 ms after the one before; the longest time for which the event
    loop did not run; the number of transactions."""
    ledger, costs, gaps = budgets.ledger, list[float](), [0.0]
    assert ledger is not None
    commit, transactions = ledger._file.commit, [0]

    def slow_commit(requests: dict[str, Request]) -> object:
        transactions[0] += 1
        time.sleep(slow_s)
        return commit(requests)

    ledger._file.commit = slow_commit  # type: ignore[method-assign, assignment]
    began_s = time.monotonic()
    ledger.start(0.0)

    async def watch_loop() -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before_s - 0.005)

    async with ledger.running():
        watcher = asyncio.create_task(watch_loop())
        await asyncio.sleep(1.1)  # a new ledger opens after a window
        transactions[0] = 0
        for number in range(_SECONDS * _FPS):
            account = budgets.accounts[_CAMERAS[number % len(_CAMERAS)]]
            bits = _RATE_BPS // _FPS
            await asyncio.sleep(max(0.0, began_s + 1.1 + number / _FPS - time.monotonic()))
            now_s = time.monotonic() - began_s
            if not account.is_covered(now_s, bits):
                await ledger.reserve(partial(_is_covered, account, began_s, bits))
                now_s = time.monotonic() - began_s
            before_s = time.perf_counter()
            account.charge(now_s, bits)
            costs.append(time.perf_counter() - before_s)
        watcher.cancel()
        in_a_row = _charge_in_a_row(budgets, time.monotonic() - began_s)
    return in_a_row, costs, max(gaps), transactions[0]


def _is_covered(account: CameraAccount, began_s: float, bits: int) -> bool:
    return account.is_covered(time.monotonic() - began_s, bits)


def _charge_in_a_row(budgets: Budgets, now_s: float) -> list[float]:
    """Seconds of each charge when nothing else runs in between; all of them are granted."""
    costs = []
    for number in range(_IN_A_ROW):
        account = budgets.accounts[_CAMERAS[number % len(_CAMERAS)]]
        before_s = time.perf_counter()
        assert account.charge(now_s + 10 + number / _FPS, 1)
        costs.append(time.perf_counter() - before_s)
    return costs


class _Year(MachineClock):
    def __init__(self) -> None:
        self.boot_id = "year"
        self.passed_s = 0.0

    def uptime_s(self) -> float:
        return self.passed_s

    def wall_s(self) -> float:
        return 1_798_761_600.0 + self.passed_s  # 2027


def _size_of_a_year(folder: Path, budgets: Budgets) -> int:
    """Bytes of a ledger after a year in which each camera and the connection spend bits in each quarter of an hour."""
    clock = _Year()
    file = LedgerFile(folder / "year", clock)
    file._base.execute("PRAGMA synchronous = OFF")
    quotas = tuple(count.quota for count in budgets.counts[""])
    scope = Scope("", quotas, None)
    file.join(scope, None)
    for _ in range(_DAYS * 96):
        clock.passed_s += 900
        spending = Spending(scope)
        for camera in _CAMERAS:
            spending.add(file.moment(), 500_000, ChargeKind.MESSAGE, camera)
        spending.add(file.moment(), 20_000, ChargeKind.CONNECTION, "")
        file.commit({"": Request(spending, 0, 1_000_000, 1.0, 0.0)})
    sizes = [path.stat().st_size for path in folder.glob("year*")]
    file.abandon()
    return sum(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--year", action="store_true", help="measure the size after a year as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print("| ledger | charge, p50 | 33 ms apart, p50 | p99 | transactions/s | longest wait of the loop |")
        print("|---|---|---|---|---|---|")
        cases = (
            ("no quota, rate full", 0.0, ()),
            ("500MB/month and 5MB/24h, rate full", 0.0, ("500MB/month", "5MB/24h")),
            (f"the same, each transaction takes {_SLOW_S:g} s", _SLOW_S, ("500MB/month", "5MB/24h")),
        )
        for number, (title, slow_s, quotas) in enumerate(cases):
            folder = Path(name) / str(number)
            budgets = _budgets(folder, *quotas)
            in_a_row, costs, gap_s, transactions = asyncio.run(_charge_frames(budgets, slow_s))
            p99 = statistics.quantiles(costs, n=100)[98]
            print(
                f"| {title} | {statistics.median(in_a_row) * 1e6:.0f} us | {statistics.median(costs) * 1e6:.0f} us | "
                f"{p99 * 1e6:.0f} us | {transactions / _SECONDS:.2f} | {gap_s * 1e3:.0f} ms |",
                flush=True,
            )
        if arguments.year:
            budgets = _budgets(Path(name) / "rules", "500MB/month", "20MB/day", "5MB/24h")
            print(f"\nledger after a year: {_size_of_a_year(Path(name), budgets) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
