"""The ledger: wrong and damaged files, full disks, changed limits, other programs on the interface, shares, reports."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sagelink.app.cli import app
from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.interface_counter import InterfaceCounter
from sagelink.pipeline.budget.pacing import PaceState
from sagelink.pipeline.budget.quota import EARLIEST_WALL_S, ClosedWithoutClock, Moment, Quota
from sagelink.pipeline.budget.uplink_budget import ChargeKind
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.ledger.file import LedgerFile
from sagelink.pipeline.ledger.quota_watch import QuotaWatch
from sagelink.pipeline.ledger.report import read_ledger, reset_ledger
from tests.pipeline.ledger_edges import Edge, SimulatedClock, fullest_window

DAY = Quota("day", 8_000_000, Calendar("day"))
MONTH = Quota("month", 80_000_000, Calendar("month"))


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


def edge(
    path: Path, clock: SimulatedClock, *quotas: Quota, rate_bps: float | None = None, window_s: float = 1.0
) -> Edge:
    started = Edge(path, clock, quotas or [DAY], rate_bps, window_s)
    started.start()
    return started


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, so it was cut off"),
        (b"frames: 3\n" * 50, "is not a ledger of Sagelink, and is left as it is"),
        (b"SQLite format 3\0" + bytes(500), "is damaged|cannot be written"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_kept(tmp_path, clock, content, message):
    path = tmp_path / "ledger"
    path.write_bytes(content)
    with pytest.raises(SagelinkError, match=message):
        LedgerFile(path, clock)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["ledger"]


def test_a_database_of_another_program_or_a_newer_version_is_refused(tmp_path, clock):
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE birds (name TEXT)")
        other.commit()
    with pytest.raises(UsageError, match="a database of another program"):
        LedgerFile(tmp_path / "other", clock)
    edge(tmp_path / "newer", clock).stop()
    base = sqlite3.connect(tmp_path / "newer")
    base.execute("PRAGMA user_version = 2")
    base.close()
    with pytest.raises(UsageError, match="has version 2; accepted: version 1; update Sagelink"):
        LedgerFile(tmp_path / "newer", clock)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_ledger_is_refused(tmp_path, clock, share):
    path = tmp_path / "ledger"
    edge(path, clock).stop()
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    with pytest.raises(SagelinkError, match="is damaged .*move it away|is damaged; move it away|cannot be written"):
        LedgerFile(path, clock)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_ledger_that_cannot_be_written_is_refused(tmp_path, clock):
    path = tmp_path / "ledger"
    edge(path, clock).stop()
    path.chmod(0o400)
    with pytest.raises(UsageError, match="cannot be (written|opened).*accepted: a file"):
        LedgerFile(path, clock)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_ledger_in_a_folder_that_cannot_be_written_can_be_shown(tmp_path, clock):
    path = tmp_path / "folder" / "ledger"
    edge(path, clock).stop()
    path.parent.chmod(0o500)
    try:
        assert read_ledger(path, clock)["limits"]
    finally:
        path.parent.chmod(0o700)


def test_a_folder_that_does_not_exist_is_created_and_a_folder_is_no_ledger(tmp_path, clock):
    edge(tmp_path / "new" / "ledger", clock).stop()
    assert (tmp_path / "new" / "ledger").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="is not a file"):
        LedgerFile(tmp_path / "new", clock)


def test_on_a_full_disk_only_what_is_reserved_is_sent(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    assert sender.send(1000)
    block = sender.hold.left(sender.budget.moment(0.0))
    pages = sender._file._base.execute("PRAGMA page_count").fetchone()[0]
    sender._file._base.execute(f"PRAGMA max_page_count = {pages}")
    sender._file._base.execute("CREATE TEMP TABLE t (x)")  # a temporary table needs no page of the ledger
    sender.hold._spending.days |= {(str(day), "c", "k"): 1 for day in range(10_000)}  # more than the file has room for
    with pytest.raises(SagelinkError, match="cannot be written: database or disk is full"):
        sender.send(block + 1)
    assert sum(each.bits for each in sender.sent) == 1000
    assert sender.send(block)
    sender.kill()
    again = edge(tmp_path / "ledger", clock)
    assert again.budget.bounds[0].latest_bits >= 1000 + block


def test_a_ledger_that_was_deleted_grants_nothing_more(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    (tmp_path / "ledger").unlink()
    with pytest.raises(SagelinkError, match="was deleted or replaced"):
        sender.transact()


def test_a_dead_process_does_not_hold_the_ledger(tmp_path, clock):
    path = tmp_path / "ledger"
    script = (
        "import os, sys; from pathlib import Path; from tests.pipeline.ledger.test_ledger import *\n"
        "clock = SimulatedClock(); e = edge(Path(sys.argv[1]), clock); e.send(5000); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], env=os.environ, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "ledger.process-0").exists()
    sender = edge(path, clock)
    sender.transact()
    lost = DAY.limit_bits // 200  # one block, with what it sent
    assert sender.budget.bounds[0].latest_bits == lost
    assert read_ledger(path, clock)["by_kind"] == {"lost": lost}


def test_a_crash_loses_at_most_one_block(tmp_path, clock):
    for quota, rate_bps in ((DAY, None), (DAY, 64_000.0), (Quota("hour", 400_000, every_s=3600.0), None)):
        path = tmp_path / f"{quota.name}-{rate_bps}"
        sender = edge(path, clock, quota, rate_bps=rate_bps)
        clock.true_s += 11
        for _ in range(7):
            sender.send(3000)
        sender.kill()
        sender.start()
        block = max(min(quota.limit_bits, rate_bps or 1e9) / 200, rate_bps or 0)
        used = sender.budget.bounds[0].latest_bits
        assert 21_000 <= used <= 21_000 + block


def test_a_lower_quota_grants_nothing_until_the_next_period(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    for _ in range(8):
        assert sender.send(500_000)
    sender.stop()
    lower = edge(tmp_path / "ledger", clock, Quota("day", 1_000_000, Calendar("day")))
    assert lower.budget.allowance(0.0) == 0
    assert not lower.send(1)
    clock.true_s += 86_400
    assert lower.send(1000)


def test_a_new_billing_day_counts_what_was_spent_since_it(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock, MONTH)
    first = Calendar("month").period(clock.wall_s())[0]
    clock.wall_offset_s += first + 3 * 86_400 - clock.wall_s() + 32 * 86_400  # early in a month
    assert sender.send(300_000)
    clock.true_s += 10 * 86_400
    assert sender.send(200_000)
    sender.stop()
    day = Calendar("month").day(clock.wall_s()).day
    for starts, used in ((day - 3, 200_000), (day, 200_000), (1, 500_000)):
        changed = edge(tmp_path / "ledger", clock, Quota("month", 80_000_000, Calendar("month", starts)))
        assert changed.budget.bounds[0].latest_bits == used
        changed.stop()


def test_a_new_rolling_quota_counts_the_past(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    assert sender.send(300_000)
    sender.stop()
    clock.true_s += 600
    rolling = edge(tmp_path / "ledger", clock, Quota("hour", 400_000, every_s=3600.0))
    assert not rolling.send(100_001)
    assert rolling.send(100_000)


def test_an_unset_clock_waits(clock):
    bound = ClosedWithoutClock()
    assert bound.allowance(Moment(5.0, 3600.0)) == 0
    assert bound.allowance(Moment(5.0, EARLIEST_WALL_S)) is None


def test_a_clock_that_boots_in_1970_counts_into_the_last_known_period(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    assert sender.send(7_000_000)
    sender.stop()
    clock.reboot(100.0)
    clock.wall_offset_s = -clock.true_s
    assert clock.wall_s() == 0
    sender.start()
    assert sender.budget.allowance(0.0) == 1_000_000


def test_a_share_that_is_given_up_is_free_one_window_later(tmp_path, clock):
    path = tmp_path / "ledger"
    first = Edge(path, clock, [], 1000.0, 60.0)
    first.start()
    clock.true_s += 11
    assert first.send(60_000)
    second = Edge(path, clock, [], 1000.0, 60.0)
    second.start()
    assert second.budget.share == 0
    first.transact()
    assert first.budget.share == 0.5
    clock.true_s += 59
    second.transact()
    assert not second.send(1)
    clock.true_s += 1.2
    second.budget.claim(second.now_s)
    second.transact()
    assert second.budget.share == 0.5
    assert second.send(30_000)
    assert first.send(30_000)
    assert fullest_window(first.sent + second.sent, 60.0) <= 60_000
    second.kill()
    first.transact()  # takes the place of the dead
    first.transact()
    assert first.budget.share == 1


def test_processes_with_different_windows_are_refused(tmp_path, clock):
    edge(tmp_path / "ledger", clock, rate_bps=1000.0)
    with pytest.raises(UsageError, match=r"uses it with a window of 1 s; accepted: the same window; got 2 s"):
        edge(tmp_path / "ledger", clock, rate_bps=1000.0, window_s=2.0)


def test_a_charge_in_a_new_period_waits_for_the_ledger(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    assert sender.send(1000)
    clock.true_s += 86_400
    assert not sender.budget.charge(sender.now_s, 1000)  # reserved, but for the day before
    assert sender.send(1000)


def test_other_programs_on_the_interface_count_against_the_quotas(tmp_path, clock):
    counters = tmp_path / "net" / "wwan0" / "statistics"
    counters.mkdir(parents=True)

    def passed(sent_bytes: int) -> None:
        (counters / "tx_bytes").write_text(f"{sent_bytes}\n")

    passed(1000)
    interface = InterfaceCounter("wwan0", both=False, folder=tmp_path / "net")
    sender = Edge(tmp_path / "ledger", clock, [DAY], 64_000.0, 1.0)
    sender.interface = interface
    sender.start()
    clock.true_s += 11
    assert sender.send(8000)
    passed(1000 + 1000)  # our own
    sender.transact()
    assert sender.budget.bounds[0].latest_bits == 8000
    passed(1000 + 1000 + 500)  # and 500 bytes of another program
    sender.transact()
    assert sender.hold.others_today_bits == 0  # not more than what is reserved for us: it may be ours
    passed(1000 + 1000 + 100_000)
    sender.transact()
    others = sender.hold.others_today_bits
    assert 700_000 < others <= 800_000
    assert sender.budget.bounds[0].latest_bits == 8000 + others
    assert sender.budget.rate_allowance(sender.now_s) == 56_000
    sender.stop()
    assert read_ledger(tmp_path / "ledger", clock)["by_kind"] == {"message": 8000, "others": others}
    (counters / "tx_bytes").unlink()
    assert interface.bits() is None
    passed(300)  # it is back, and counts from zero
    sender.start()
    sender.transact()
    assert sender.hold.others_today_bits >= others + 300
    with pytest.raises(UsageError, match=r"no interface 'wwan1' with counters; accepted: wwan0"):
        InterfaceCounter("wwan1", both=False, folder=tmp_path / "net")


def test_a_message_provides_for_its_reply(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock)
    sender.budget.counts_replies = True
    granted = sender.budget.allowance(0.0)
    assert granted is not None
    assert granted + granted // 16 + 12_000 <= DAY.limit_bits < granted + granted // 16 + 12_020
    assert sender.send(granted)
    assert not sender.send(1)
    sender.budget.charge_quotas(0.0, 9000, ChargeKind.REPLY)
    sender.budget.end_reply(granted)
    assert sender.budget.bounds[0].latest_bits == granted + 9000 <= DAY.limit_bits


def test_levels_are_reported_once_a_period(tmp_path, clock, caplog):
    sender = edge(tmp_path / "ledger", clock)
    watch = QuotaWatch({"": [sender.budget.bounds[0]]})

    def levels() -> list[str]:
        caplog.clear()
        watch.check(sender.budget.moment(sender.now_s))
        return [word for word in caplog.text.split() if word.startswith("percent=")]

    assert levels() == []
    assert sender.send(6_500_000)
    assert levels() == ["percent=80"]
    assert levels() == []
    assert sender.send(1_500_000)
    assert levels() == ["percent=100"]
    clock.true_s += 86_400
    assert levels() == []
    assert sender.send(6_500_000)
    assert levels() == ["percent=80"]


def test_a_period_is_shown_in_the_time_zone_of_its_quota(tmp_path, clock):
    quota = Quota("plan", 80_000_000, Calendar("month", 31, "Asia/Tokyo"))
    edge(tmp_path / "ledger", clock, quota).stop()
    (plan,) = read_ledger(tmp_path / "ledger", clock)["limits"][:1]
    for key in ("period_start", "period_end"):
        at = datetime.fromisoformat(plan[key])
        assert (at.hour, at.utcoffset()) == (0, timedelta(hours=9))


def test_a_report_holds_limits_cameras_and_kinds(tmp_path, clock):
    sender = edge(tmp_path / "ledger", clock, MONTH, rate_bps=64_000.0)
    clock.true_s += 11
    assert sender.budget.charge(sender.now_s, 3000, camera="gate")
    sender.budget.charge_quotas(sender.now_s, 500, ChargeKind.REPLY)
    sender.stop()
    report = read_ledger(tmp_path / "ledger", clock)
    month, rate = report["limits"]
    keys = {"name", "limit_bits", "used_bits", "window_s", "period_start", "period_end", "forecast_bits"}
    assert keys <= set(month)
    assert (month["name"], month["used_bits"], month["limit_bits"]) == ("month", 3500, 80_000_000)
    assert month["forecast_bits"] > 3500
    assert (rate["name"], rate["window_s"], rate["used_bits"]) == ("rate", 1.0, 3000)
    assert report["by_camera"] == {"": 500, "gate": 3000}
    assert report["by_kind"] == {"message": 3000, "reply": 500}


def test_the_price_goes_on_after_a_restart(tmp_path, clock):
    learned = PaceState(5e-6, 7200.0, [80.0] * 24, [60.0] * 24)
    before = edge(tmp_path / "ledger", clock, MONTH)
    before.hold.paces[0].restore(learned)
    before.hold.paces[0].price(before.budget.moment(0.0))
    before.transact()
    before.stop()
    after = edge(tmp_path / "ledger", clock, MONTH)
    assert after.hold.paces[0].latest_price == pytest.approx(5e-6)
    assert after.hold.paces[0].state().hour_bits == (80.0,) * 24
    assert read_ledger(tmp_path / "ledger", clock)["limits"][0]["price"] == 40.0  # right answers for a megabyte


def test_bits_count_once_for_the_price_however_often_they_are_settled(tmp_path, clock):
    rolling = Quota("rolling", 80_000_000, every_s=86_400.0)
    senders = [edge(tmp_path / name, clock, quota) for name, quota in (("a", MONTH), ("b", rolling))]
    for sender in senders:
        for _ in range(5):
            assert sender.send(3000)
            clock.true_s += 1
            sender.transact()
    assert [sender.hold.paces[0].count.counted_bits for sender in senders] == [15_000, 15_000]


def test_a_ledger_of_a_version_without_prices_is_used(tmp_path, clock):
    path = tmp_path / "ledger"
    edge(path, clock, MONTH).stop()
    with closing(sqlite3.connect(path)) as base:
        base.execute("DROP TABLE paces")
    assert read_ledger(path, clock)["limits"][0]["price"] is None
    assert edge(path, clock, MONTH).send(3000)


def test_the_commands_show_and_reset(tmp_path, clock):
    path = tmp_path / "ledger"
    clock.wall_offset_s = time.time() - clock.true_s  # the command uses the machine's clock
    sender = edge(path, clock)
    assert sender.send(8000)
    run = CliRunner().invoke
    refused = run(app, ["budget", "reset", str(path), "--yes"])
    assert isinstance(refused.exception, UsageError)
    assert f"process {os.getpid()} uses it" in str(refused.exception)
    sender.stop()
    shown = json.loads(run(app, ["budget", "show", str(path), "--json"]).output)
    assert {"limits", "by_camera", "by_kind"} <= set(shown)
    assert "1 kB" in run(app, ["budget", "show", str(path)]).output
    assert run(app, ["budget", "reset", str(path)], input="n\n").exit_code == 1
    assert read_ledger(path, clock)["by_kind"] == {"message": 8000}
    done = run(app, ["budget", "reset", str(path), "--yes"])
    assert done.exit_code == 0, done.output
    assert read_ledger(path, clock)["by_kind"] == {}
    (copy,) = [file for file in tmp_path.iterdir() if "before-reset" in file.name]
    assert read_ledger(copy, clock)["by_kind"] == {"message": 8000}
    shutil.copy(copy, tmp_path / "again")
    assert reset_ledger(tmp_path / "again").exists()
