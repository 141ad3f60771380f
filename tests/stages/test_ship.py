"""Charging, sending, and waiting for replies: the link window and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sagelink.pipeline.accounts import CameraShare, open_accounts
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Sent
from sagelink.stages.ship import Collect, Pace, Ship, Uplink
from sagelink.transport.wire import encode_reply
from tests.fakes import FakeLink, StubClock, make_evidence, make_reply, make_scored, settle


class Line:
    """Both stages around one link."""

    def __init__(
        self, fates=(), in_flight: int = 2, wait: bool = False, deadline_s: float | None = None, rate_bps=None
    ) -> None:
        self.link = FakeLink(fates)
        self.uplink = Uplink(self.link, in_flight, deadline_s)
        self.budget = UplinkBudget(rate_bps, 1.0)
        self.clock = StubClock()
        accounts = open_accounts(self.budget, {name: CameraShare() for name in ("camera", "door", "yard")})
        self.ship = Ship(self.uplink, accounts, self.clock, wait_for_place=wait)
        self.collect = Collect(self.uplink, deadline_s)

    async def send(self, seq: int = 0) -> Sent:
        sent = await self.ship.process(make_evidence(seq))
        assert isinstance(sent, Sent)
        return sent

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with self.collect:
            yield
            await settle()

    @property
    def free_places(self) -> int:
        return self.uplink.places._value


async def test_evidence_goes_out_and_the_reply_comes_back():
    line = Line()
    evidence = make_evidence(seq=9)
    line.clock.time_s = 4.5
    async with line.listening():
        sent = await line.ship.process(evidence)
        assert isinstance(sent, Sent)
        assert (sent.evidence, sent.sent_s, sent.window_bits) == (evidence, 4.5, evidence.wire_bits)
        assert line.link.sent == [evidence.message]
        assert line.free_places == 1
        answered = await line.collect.process(sent)
    assert isinstance(answered, Answered)
    assert answered.sent is sent
    assert (answered.reply.seq, answered.reply.class_ids) == (9, (2, 0))
    assert answered.ship_ms >= 0
    assert line.free_places == 2
    assert line.uplink.waiting == {}
    assert line.uplink.stray_replies == 0


async def test_replies_find_their_frames_in_any_order():
    line = Line(["late", "answer"])
    async with line.listening():
        first, second = await line.send(1), await line.send(2)
        done = [asyncio.create_task(line.collect.process(sent)) for sent in (first, second)]
        await settle()
        assert [task.done() for task in done] == [False, True]
        await line.link.release()
        answers = await asyncio.gather(*done)
    assert [answer.reply.seq for answer in answers] == [1, 2]


# The budget


async def test_the_charge_comes_before_the_message():
    line, charged = Line(), []
    line.link.on_send = lambda: charged.append(line.budget.total_bits)
    bits = make_evidence().wire_bits
    await line.send(0)
    await line.send(1)
    assert charged == [bits, 2 * bits]
    assert all(8 * len(message) == bits for message in line.link.sent)


async def test_what_the_budget_refuses_is_not_sent():
    evidence = make_evidence()
    line = Line(rate_bps=1.5 * evidence.wire_bits)
    await line.send(0)
    refused = make_evidence(1)
    assert await line.ship.process(refused) == EdgeOnly(refused, Drop.BUDGET)
    assert line.link.offered == 1
    assert line.free_places == 1
    assert list(line.uplink.waiting) == [("camera", 0)]
    line.clock.time_s = 1.1
    assert (await line.send(2)).window_bits == evidence.wire_bits


# The window of messages in flight


async def test_live_the_third_message_is_dropped():
    line = Line()
    for seq in range(2):
        await line.send(seq)
    third = make_evidence(2)
    spent = line.budget.total_bits
    assert await line.ship.process(third) == EdgeOnly(third, Drop.LINK)
    assert line.link.offered == 2
    assert line.budget.total_bits == spent


async def test_live_a_link_that_is_down_costs_nothing(caplog):
    line = Line()
    line.link.down = "no broker"
    for seq in range(3):
        evidence = make_evidence(seq)
        assert await line.ship.process(evidence) == EdgeOnly(evidence, Drop.LINK)
    assert line.link.offered == 0
    assert line.budget.total_bits == 0
    assert caplog.text.count("no broker") == 1
    line.link.down = None
    assert await line.send(3)


async def reply_after(line: Line, queue_ms: float) -> None:
    """A reply whose frame waited at the server for so long."""
    await line.link._down.put(("camera", encode_reply(replace(make_reply(99), queue_ms=queue_ms))))
    await settle()


async def test_live_a_busy_server_is_left_alone_until_its_queue_can_have_emptied(monkeypatch, caplog):
    line, time_s = Line(deadline_s=2.0), [100.0]
    monkeypatch.setattr("sagelink.stages.ship.time.monotonic", lambda: time_s[0])
    async with line.listening():
        await reply_after(line, queue_ms=999)  # in time, with something to spare
        assert not line.uplink.refuses()
        await reply_after(line, queue_ms=1500)
        refused = make_evidence()
        assert await line.ship.process(refused) == EdgeOnly(refused, Drop.LINK)
        assert line.budget.total_bits == line.link.offered == 0
        assert caplog.text.count("the server is busy") == 1
        time_s[0] += 1.49
        assert line.uplink.refuses()
        time_s[0] += 0.02
        assert not line.uplink.refuses()
        await reply_after(line, queue_ms=3_600_000)  # never longer than the deadline, whatever a server says
        time_s[0] += 2.01
        assert not line.uplink.refuses()


async def test_a_replay_does_not_mind_a_busy_server():
    line = Line(wait=True)
    async with line.listening():
        await reply_after(line, queue_ms=60_000)
        assert not line.uplink.refuses()


async def test_a_replay_keeps_pace_with_its_replies():
    line = Line(["late", "late"], wait=True)
    pace = Pace(line.uplink)
    async with line.listening():
        collecting = [asyncio.create_task(line.collect.process(await line.send(seq))) for seq in (0, 1)]
        assert await pace.process(make_scored(63))
        waiting = asyncio.create_task(pace.process(make_scored(64)))
        await settle()
        assert not waiting.done()
        await line.link.release()
        assert (await waiting).frame.seq == 64
        await asyncio.gather(*collecting)


async def test_a_replay_goes_on_when_the_reply_does_not_come():
    line = Line(["lose"], wait=True, deadline_s=0.01)
    async with line.listening():
        collecting = asyncio.create_task(line.collect.process(await line.send(0)))
        await settle()
        assert (await Pace(line.uplink).process(make_scored(900))).frame.seq == 900
        assert (await collecting).reason is Drop.LATE


async def test_in_a_replay_a_frame_waits_for_the_link():
    line = Line(wait=True)
    assert await line.send(0)
    assert line.link.asked_ready == 1


async def test_cameras_that_share_a_link_have_seqs_of_their_own():
    line = Line(["late", "late"])
    async with line.listening():
        sent = []
        for camera in ("door", "yard"):
            evidence = make_evidence(7)
            frame = replace(evidence.frame, camera=camera)
            scored = replace(evidence.selected.metered.scored, frame=frame)
            selected = replace(evidence.selected, metered=replace(evidence.selected.metered, scored=scored))
            sent.append(await line.ship.process(replace(evidence, selected=selected)))
        assert list(line.uplink.waiting) == [("door", 7), ("yard", 7)]
        await line.link.release()
        answers = [await line.collect.process(each) for each in sent]
    assert [answer.frame.camera for answer in answers] == ["door", "yard"]
    assert line.uplink.stray_replies == 0


async def test_live_a_reply_makes_room():
    line = Line()
    async with line.listening():
        first, _ = await line.send(0), await line.send(1)
        await line.collect.process(first)
        assert await line.send(2)


async def test_in_a_replay_the_third_message_waits():
    line = Line(wait=True)
    async with line.listening():
        first, _ = await line.send(0), await line.send(1)
        third = asyncio.create_task(line.ship.process(make_evidence(2)))
        await settle()
        assert not third.done()
        assert line.link.offered == 2
        assert line.budget.total_bits == 2 * make_evidence().wire_bits
        await line.collect.process(first)
        assert isinstance(await third, Sent)
        assert line.link.offered == 3


async def test_waiting_can_be_cancelled():
    line = Line(wait=True)
    async with line.listening():
        first, second = await line.send(0), await line.send(1)
        third = asyncio.create_task(line.ship.process(make_evidence(2)))
        await settle()
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        await line.collect.process(first)
        await line.collect.process(second)
    assert line.free_places == 2
    assert line.link.offered == 2


# What can go wrong


def refused_by_link(outcome: Sent | EdgeOnly, evidence: Evidence) -> None:
    """Kept as what was charged, so that the verdict tells the bill."""
    assert isinstance(outcome, EdgeOnly)
    assert outcome.reason == Drop.LINK
    assert isinstance(outcome.work, Sent)
    assert outcome.work.evidence is evidence


async def test_a_message_that_the_link_refuses():
    line = Line(["refuse"])
    evidence = make_evidence()
    refused_by_link(await line.ship.process(evidence), evidence)
    assert line.link.sent == []
    assert line.budget.total_bits == evidence.wire_bits  # charged before, and the ledger never forgets
    assert line.free_places == 2
    assert line.uplink.waiting == {}


async def test_a_link_that_raises_leaves_nothing_behind():
    line = Line()

    def fail() -> None:
        raise OSError("no route")

    line.link.on_send = fail
    with pytest.raises(OSError, match="no route"):
        await line.ship.process(make_evidence())
    assert line.free_places == 2
    assert line.uplink.waiting == {}


async def test_a_lost_message_is_late():
    line = Line(["lose"], deadline_s=0.002)
    async with line.listening():
        sent = await line.send()
        assert await line.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
    assert line.free_places == 2
    assert line.uplink.waiting == {}
    assert line.uplink.stray_replies == 0


async def test_a_late_reply_is_a_stray():
    line = Line(["late", "answer"], deadline_s=0.002)
    async with line.listening():
        sent = await line.send(0)
        assert await line.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
        assert line.free_places == 2
        await line.link.release()
        await settle()
        assert line.uplink.stray_replies == 1
        assert isinstance(await line.collect.process(await line.send(1)), Answered)
    assert line.free_places == 2


@pytest.mark.parametrize("fate", ["garble", "unknown"])
async def test_replies_that_make_no_sense_are_strays(fate):
    line = Line([fate, "answer"], deadline_s=0.002)
    async with line.listening():
        sent = await line.send(0)
        assert await line.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
        assert line.uplink.stray_replies == 1
        assert isinstance(await line.collect.process(await line.send(1)), Answered)
    assert line.uplink.stray_replies == 1


async def test_a_second_reply_is_a_stray():
    line = Line(["duplicate", "answer"])
    async with line.listening():
        sent = await line.send(0)
        assert isinstance(await line.collect.process(sent), Answered)
        await settle()
        assert line.uplink.stray_replies == 1
        assert isinstance(await line.collect.process(await line.send(1)), Answered)
    assert line.free_places == 2


async def test_two_replies_before_anybody_looks():
    line = Line(["duplicate"])
    async with line.listening():
        sent = await line.send()
        await settle()
        assert isinstance(await line.collect.process(sent), Answered)
    assert line.uplink.stray_replies == 1


async def test_a_reply_that_meets_a_cancelled_wait_is_a_stray():
    line = Line(["late", "answer"])
    async with line.listening():
        sent = await line.send(0)
        sent.reply.cancel()  # as a deadline does, a moment before the stage has tidied up
        await line.link.release()
        await settle()
        assert line.uplink.stray_replies == 1
        assert isinstance(await line.collect.process(await line.send(1)), Answered)


async def test_a_server_that_refuses_leaves_the_edge_answer(caplog):
    line = Line(["reject"])
    async with line.listening():
        sent = await line.send(3)
        assert await line.collect.process(sent) == EdgeOnly(sent, Drop.REFUSED)
    assert line.free_places == 2
    assert "seq=3" in caplog.text
    assert "'no'" in caplog.text


async def test_a_link_that_closes_ends_the_waiting():
    line = Line(["lose", "lose"])
    async with line.listening():
        both = [await line.send(seq) for seq in range(2)]
        waiting = [asyncio.create_task(line.collect.process(sent)) for sent in both]
        await settle()
        line.link.close()
        assert await asyncio.gather(*waiting) == [EdgeOnly(sent, Drop.LINK) for sent in both]
    assert line.free_places == 2
    assert line.uplink.waiting == {}


async def test_a_closed_link_takes_nothing():
    line = Line()
    async with line.listening():
        line.link.close()
        await settle()
        evidence = make_evidence()
        refused_by_link(await line.ship.process(evidence), evidence)
    assert line.free_places == 2


async def test_collecting_can_be_cancelled():
    line = Line(["lose"])
    async with line.listening():
        waiting = asyncio.create_task(line.collect.process(await line.send()))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert line.free_places == 2
    assert line.uplink.waiting == {}


async def test_every_evidence_ends_in_one_outcome():
    fates = ["answer", "lose", "refuse", "duplicate", "late", "garble", "unknown", "reject"] * 4
    line = Line(fates, wait=True, deadline_s=0.002)
    evidence = [make_evidence(seq) for seq in range(len(fates))]
    outcomes: dict[int, str] = {}

    async def carry(item: Evidence) -> None:
        outcome = await line.ship.process(item)
        if isinstance(outcome, Sent):
            outcome = await line.collect.process(outcome)
        outcomes[item.frame.seq] = "answered" if isinstance(outcome, Answered) else outcome.reason.value

    async with line.listening(), asyncio.TaskGroup() as group:
        for item in evidence:
            group.create_task(carry(item))
    ends = {"answer": "answered", "duplicate": "answered", "refuse": "link", "reject": "refused"}
    assert [outcomes[seq] for seq in range(len(fates))] == [ends.get(fate, "late") for fate in fates]
    assert line.free_places == 2
    assert line.uplink.waiting == {}
    assert line.uplink.stray_replies == 12  # the second replies, the garbled and the unknown
