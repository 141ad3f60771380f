"""What a fleet observes is stored, and comes back at the next start."""

from __future__ import annotations

import time

import pytest

from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.fleet import PastCameras
from sagelink.monitor.console.store_batch import StoreBatch, write_batch
from sagelink.monitor.console.store_search import FrameSearch, find_events, find_frames
from sagelink.monitor.console.store_writer import StoreWriter
from sagelink.monitor.console.stored_past import month_bits, recent_events
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.threads import Worker
from sagelink.transport.link import Message
from sagelink.transport.reply_message import encode_reply
from tests.fakes import make_evidence, make_reply
from tests.monitor.console.conftest import DOOR, INFO, LORRY
from tests.monitor.console.stored import frame


async def test_what_a_fleet_observes_is_stored_and_comes_back(fleet, tmp_path):
    worker = Worker("test-store")
    store = ConsoleStore(tmp_path / "store")
    writer = StoreWriter(store, worker, 10**9, 3600.0)
    fleet.listen(writer)
    now_s = time.monotonic()
    for seq in (11, 12):
        fleet.evidence(Message(DOOR, make_evidence(seq).message, now_s), 7000)
    fleet.reply(DOOR, encode_reply(make_reply(12)), now_s)
    fleet.event(DOOR, LORRY | {"action": "close", "end_s": 3.0}, 800, now_s)
    await writer.flush()
    rows = find_frames(store, FrameSearch())
    assert [(row["seq"], row["label"]) for row in rows] == [(12, "class 2"), (11, "")]
    assert find_events(store, FrameSearch(label="lorry"))[0]["state"] == "closed"
    past = PastCameras(month_bits(store), {DOOR: [event for _, event in recent_events(store, 0)]})
    fresh = type(fleet)(fleet._names)
    fresh.restore(past)
    fresh.online(DOOR, INFO, 1.0)
    assert fresh.records[DOOR].month_bits == fleet.records[DOOR].month_bits == 9000 + 900 + 14_000 + 800
    assert fresh.records[DOOR].events.all()[0].label == "lorry"
    store.close()
    with pytest.raises(SagelinkError):
        write_batch(store, StoreBatch([frame(99)]))
    fleet.evidence(Message(DOOR, make_evidence(13).message, now_s), 7000)
    await writer.flush()
    assert writer.trouble is not None
    assert writer.not_stored == 1
    worker.close()
