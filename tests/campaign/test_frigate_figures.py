"""Figures of docs/frigate.md: delay from event to sub-label over 64 kbit/s, and memory over a day of events."""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from bench.namespaces import BROKER, PORT, SERVER, Cable, unavailable
from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.files.outbox import Outbox
from sagelink.pipeline.files.rotating_lines import RotatingLines
from sagelink.pipeline.types import Drop, EdgeOnly
from sagelink.stages.fuse import Fuse
from sagelink.stages.nvr import event_book
from sagelink.stages.nvr.event_book import BookLimits, EventBook
from sagelink.stages.nvr.frigate import FrigateEvents
from sagelink.stages.nvr.second_opinions import SecondOpinions
from sagelink.stages.nvr.sub_label import RECEIVER, SubLabel
from tests.app.runs import check_accounts, read
from tests.conftest import skip_or_fail
from tests.fakes import make_scored
from tests.frigate import event_message
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.campaign
EVENTS = 60
HOURS = int(os.environ.get("SAGELINK_FRIGATE_HOURS", "1"))
PART = 4 if HOURS == 1 else 1  # an hour has smaller bounds, so that it reaches them


def test_an_event_a_second_over_64_kbit(tmp_path: Path) -> None:
    if (reason := unavailable("tc", "mosquitto")) is not None:
        skip_or_fail("namespaces", reason)
    (tmp_path / "broker.conf").write_text(BROKER + "user root\n")
    url = f"mqtt://{SERVER}:{PORT}"
    with Cable(1, rate_kbit=64) as cable:
        cable.run("server", "mosquitto", "-c", str(tmp_path / "broker.conf"))
        cable.run("server", sys.executable, "-m", "sagelink", "serve", "--listen", url, "--models", "demo")
        site = cable.run(
            *("edge", "sh", "-c", 'exec "$@" 2> "$0"', str(tmp_path / "site.log")),
            *(sys.executable, "-m", "tests.campaign.frigate_site", url, str(EVENTS), str(tmp_path / "out")),
        )
        printed, _ = site.communicate(timeout=PATIENCE_S)
    assert site.returncode == 0, (tmp_path / "site.log").read_text()
    found = json.loads(printed.splitlines()[-1])
    delays_s = found["delays_s"]
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    assert found["code"] == 0
    assert len(delays_s) == EVENTS == found["posts"]
    answered = sum(line["drop"] is None for line in lines)
    bytes_sent = [line["wire_bits"] / 8 for line in lines if line["wire_bits"]]
    p50, p95 = delays_s[EVENTS // 2], delays_s[int(0.95 * EVENTS)]
    print(  # noqa: T201
        f"event to sub-label: p50 {p50:.2f} s, p95 {p95:.2f} s, max {delays_s[-1]:.2f} s; {answered} of {EVENTS} "
        f"answered by the server; {sum(bytes_sent) / len(bytes_sent):.0f} bytes on the wire each; {summary['drops']}"
    )


def test_hours_of_events_keep_the_memory_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event a second through messages, book, answers, and the queue on disk. All bounds are reached in the first
    half."""
    monkeypatch.setattr(event_book, "_MAX_CLOSED", event_book._MAX_CLOSED // PART)
    limits = BookLimits(events=BookLimits().events // PART)
    outbox = Outbox(tmp_path / "queue.sqlite", "frigate.queue", 0.0, 86_400.0)
    outbox._database.execute("PRAGMA synchronous = OFF")  # thousands of events in a minute
    now_s = 0.0
    opinions = SecondOpinions(FrigateConfig(), tuple("abcde"), outbox, lambda: now_s)
    path = tmp_path / "frigate.jsonl"
    opinions.write_lines(RotatingLines(path), path)
    source = FrigateEvents(FrigateConfig(), None, None, lambda: now_s)
    book = EventBook(limits, True, opinions.closed)
    fuse = Fuse(False, None, 16)
    scored = make_scored(probs=(0.9, 0.04, 0.02, 0.02, 0.02))

    def take(payload: bytes) -> None:
        for sighting in source.receive("frigate/events", payload):
            if book.knows(sighting.event.id):
                opinions.observe(sighting.event, sighting.sub_label)
                book.observe(sighting, now_s)

    sizes = []
    tracemalloc.start()
    for second in range(3600 * HOURS):
        now_s = float(second)
        event_id = f"{second}.1-abcdef"
        take(event_message("new", event_id))
        if second % 3:  # every third event never ends: Frigate restarted
            take(event_message("end", event_id))
        wanted = book.next_fetch(now_s)
        if wanted is not None:
            book.fetched(wanted[0].id, bytes(100) if second % 5 else None, now_s)
        if (ready := book.take()) is not None:
            frame = replace(scored.frame, event=ready.event)
            opinions.write(fuse.decide(EdgeOnly(replace(scored, frame=frame), Drop.GATE)))
            book.settled(ready.event.id, None, now_s)
        if not 300 < second < 700:  # Frigate is away
            for item in outbox.waiting(RECEIVER, 50):
                outbox.confirm(item)
                opinions.delivered(SubLabel.of(item), None)
        if second % 10 == 0:
            opinions.flush()
        if second % (150 * HOURS) == 0:
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0] / 1e6)
    tracemalloc.stop()
    size_mb = (tmp_path / "queue.sqlite").stat().st_size / 1e6
    opinions.close()
    outbox.close()
    lines = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert len(lines) == len({*lines}) == 3600 * HOURS  # each event has exactly one outcome
    print(f"MB after each sixth of {HOURS} h: {[round(size, 2) for size in sizes[4::4]]}; queue {size_mb:.1f} MB")  # noqa: T201
    assert max(sizes[16:]) < 1.05 * max(sizes[2:16])
