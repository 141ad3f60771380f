"""Charging, sending and waiting for replies: the link window and every failure on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.budget.camera_accounts import CameraShare, open_accounts
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Sent
from sagelink.stages.ship import Collect, Pace, Ship, Uplink
from sagelink.transport.link import Undelivered
from sagelink.transport.reply_message import encode_reply
from tests.fakes import FakeLink, StubClock, make_evidence, make_reply, make_scored, settle


class Setup:
    """`Ship` and `Collect` around one fake link."""

    def __init__(
        self, fates=(), in_flight: int = 2, wait: bool = False, deadline_s: float | None = None, rate_bps=None
    ) -> None:
        self.link = FakeLink(fates)
        self.uplink = Uplink(self.link, in_flight, None if wait else deadline_s)
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
    setup = Setup()
    evidence = make_evidence(seq=9)
    setup.clock.time_s = 4.5
    async with setup.listening():
        sent = await setup.ship.process(evidence)
        assert isinstance(sent, Sent)
        assert (sent.evidence, sent.sent_s, sent.window_bits) == (evidence, 4.5, evidence.wire_bits)
        assert setup.link.sent == [evidence.message]
        assert setup.free_places == 1
        answered = await setup.collect.process(sent)
    assert isinstance(answered, Answered)
    assert answered.sent is sent
    assert (answered.reply.seq, answered.reply.class_ids) == (9, (2, 0))
    assert answered.ship_ms >= 0
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}
    assert setup.uplink.stray_replies == 0


async def test_replies_find_their_frames_in_any_order():
    setup = Setup(["late", "answer"])
    async with setup.listening():
        first, second = await setup.send(1), await setup.send(2)
        done = [asyncio.create_task(setup.collect.process(sent)) for sent in (first, second)]
        await settle()
        assert [task.done() for task in done] == [False, True]
        await setup.link.release()
        answers = await asyncio.gather(*done)
    assert [answer.reply.seq for answer in answers] == [1, 2]


# The budget


async def test_the_charge_comes_before_the_message():
    setup, charged = Setup(), []
    setup.link.on_send = lambda: charged.append(setup.budget.total_bits)
    bits = make_evidence().wire_bits
    await setup.send(0)
    await setup.send(1)
    assert charged == [bits, 2 * bits]
    assert all(8 * len(message) == bits for message in setup.link.sent)


async def test_a_message_that_the_budget_refuses_is_not_sent():
    evidence = make_evidence()
    setup = Setup(rate_bps=1.5 * evidence.wire_bits)
    await setup.send(0)
    refused = make_evidence(1)
    assert await setup.ship.process(refused) == EdgeOnly(refused, Drop.BUDGET)
    assert setup.link.offered == 1
    assert setup.free_places == 1
    assert list(setup.uplink.waiting) == [("camera", 0)]
    setup.clock.time_s = 1.1
    assert (await setup.send(2)).window_bits == evidence.wire_bits


# The window of messages in flight


async def test_live_the_third_message_is_dropped():
    setup = Setup()
    for seq in range(2):
        await setup.send(seq)
    third = make_evidence(2)
    spent = setup.budget.total_bits
    assert await setup.ship.process(third) == EdgeOnly(third, Drop.LINK)
    assert setup.link.offered == 2
    assert setup.budget.total_bits == spent


async def test_live_a_link_that_is_down_charges_nothing(caplog):
    setup = Setup()
    setup.link.down = "no broker"
    for seq in range(3):
        evidence = make_evidence(seq)
        assert await setup.ship.process(evidence) == EdgeOnly(evidence, Drop.LINK)
    assert setup.link.offered == 0
    assert setup.budget.total_bits == 0
    assert caplog.text.count("no broker") == 1
    setup.link.down = None
    assert await setup.send(3)


async def test_a_message_that_the_link_could_not_deliver_ends_as_link_at_once():
    setup = Setup(["lose"])
    async with setup.listening():
        sent = await setup.send(3)
        await setup.link._down.put(("camera", Undelivered(3)))
        assert await setup.collect.process(sent) == EdgeOnly(sent, Drop.LINK)
    assert setup.uplink.waiting == {}


async def test_a_broker_that_delivers_nothing_is_paid_only_for_probes(caplog):
    setup = Setup(["lose"] * 20, deadline_s=60)
    async with setup.listening():
        for seq in range(8):
            sent = await setup.send(seq)
            await setup.link._down.put(("camera", Undelivered(seq)))
            await setup.collect.process(sent)
        assert setup.uplink.refuses()
        setup.uplink.server_watch._next_probe_s = 0.0  # the pause has passed
        assert not setup.uplink.refuses()
        probe = await setup.send(8)
        assert setup.uplink.refuses()
        await setup.link._down.put(("camera", Undelivered(8)))
        await setup.collect.process(probe)
    assert setup.link.offered == 9
    assert caplog.text.count("8 messages or more were not delivered") == 1


async def test_repeated_malformed_replies_are_logged_once(caplog):
    setup = Setup(["garble"] * 5)
    async with setup.listening():
        for _ in range(5):
            await setup.link.send("camera", make_evidence(1).message)
    assert setup.uplink.stray_replies == 5
    assert caplog.text.count("event=malformed_reply") == 1


async def reply_after(setup: Setup, queue_ms: float) -> None:
    """A reply whose frame waited in the server's queue for `queue_ms`."""
    await setup.link._down.put(("camera", encode_reply(replace(make_reply(99), queue_ms=queue_ms))))
    await settle()


async def test_live_a_busy_server_gets_nothing_until_its_queue_can_be_empty(monkeypatch, caplog):
    setup, time_s = Setup(deadline_s=2.0), [100.0]
    monkeypatch.setattr("sagelink.stages.ship.time.monotonic", lambda: time_s[0])
    async with setup.listening():
        await reply_after(setup, queue_ms=999)  # less than half of the deadline
        assert not setup.uplink.refuses()
        await reply_after(setup, queue_ms=1500)
        refused = make_evidence()
        assert await setup.ship.process(refused) == EdgeOnly(refused, Drop.LINK)
        assert setup.budget.total_bits == setup.link.offered == 0
        assert caplog.text.count("the server is busy") == 1
        time_s[0] += 1.49
        assert setup.uplink.refuses()
        time_s[0] += 0.02
        assert not setup.uplink.refuses()
        await reply_after(setup, queue_ms=3_600_000)  # never longer than the deadline, whatever the server reports
        time_s[0] += 2.01
        assert not setup.uplink.refuses()


async def test_evidence_for_a_head_that_the_server_lacks_is_not_charged():
    setup = Setup()
    setup.link.head_down = "the server receives the head of the camera first"
    taught = TaughtClasses(b"t" * 16, ("day", "night"), 0.3, 0.3, ((125, 0.2),))
    plain = make_evidence()
    metered = plain.selected.metered
    metered = replace(metered, scored=replace(metered.scored, taught=taught))
    refused = replace(plain, selected=replace(plain.selected, metered=metered))
    async with setup.listening():
        assert await setup.ship.process(refused) == EdgeOnly(refused, Drop.LINK)
        assert setup.budget.total_bits == 0
        assert isinstance(await setup.ship.process(plain), Sent)  # of the model's own classes


async def test_a_replay_ignores_a_busy_server():
    setup = Setup(wait=True)
    async with setup.listening():
        await reply_after(setup, queue_ms=60_000)
        assert not setup.uplink.refuses()


async def test_a_replay_waits_for_its_replies():
    setup = Setup(["late", "late"], wait=True)
    pace = Pace(setup.uplink)
    async with setup.listening():
        collecting = [asyncio.create_task(setup.collect.process(await setup.send(seq))) for seq in (0, 1)]
        assert await pace.process(make_scored(63))
        waiting = asyncio.create_task(pace.process(make_scored(64)))
        await settle()
        assert not waiting.done()
        await setup.link.release()
        assert (await waiting).frame.seq == 64
        await asyncio.gather(*collecting)


async def test_a_replay_goes_on_after_a_lost_reply():
    setup = Setup(["lose"], wait=True, deadline_s=0.01)
    async with setup.listening():
        collecting = asyncio.create_task(setup.collect.process(await setup.send(0)))
        await settle()
        assert (await Pace(setup.uplink).process(make_scored(900))).frame.seq == 900
        assert (await collecting).reason is Drop.LATE


async def test_a_replay_says_once_that_it_waits_for_a_silent_server(caplog):
    setup = Setup(["lose", "lose", "answer", "lose"], wait=True, deadline_s=0.01)
    async with setup.listening():
        for seq in range(4):
            await setup.collect.process(await setup.send(seq))
    lines = [record.message for record in caplog.records if "no_reply" in record.message]
    assert [line.split()[2] for line in lines] == ["seq=0", "seq=3"]


async def test_in_a_replay_a_frame_waits_for_the_link():
    setup = Setup(wait=True)
    assert await setup.send(0)
    assert setup.link.asked_ready == 1


async def test_cameras_that_share_a_link_have_separate_seqs():
    setup = Setup(["late", "late"])
    async with setup.listening():
        sent = []
        for camera in ("door", "yard"):
            evidence = make_evidence(7)
            frame = replace(evidence.frame, camera=camera)
            scored = replace(evidence.selected.metered.scored, frame=frame)
            selected = replace(evidence.selected, metered=replace(evidence.selected.metered, scored=scored))
            sent.append(await setup.ship.process(replace(evidence, selected=selected)))
        assert list(setup.uplink.waiting) == [("door", 7), ("yard", 7)]
        await setup.link.release()
        answers = [await setup.collect.process(message) for message in sent]
    assert [answer.frame.camera for answer in answers] == ["door", "yard"]
    assert setup.uplink.stray_replies == 0


async def test_live_a_reply_frees_a_place():
    setup = Setup()
    async with setup.listening():
        first, _ = await setup.send(0), await setup.send(1)
        await setup.collect.process(first)
        assert await setup.send(2)


async def test_in_a_replay_the_third_message_waits():
    setup = Setup(wait=True)
    async with setup.listening():
        first, _ = await setup.send(0), await setup.send(1)
        third = asyncio.create_task(setup.ship.process(make_evidence(2)))
        await settle()
        assert not third.done()
        assert setup.link.offered == 2
        assert setup.budget.total_bits == 2 * make_evidence().wire_bits
        await setup.collect.process(first)
        assert isinstance(await third, Sent)
        assert setup.link.offered == 3


async def test_waiting_can_be_cancelled():
    setup = Setup(wait=True)
    async with setup.listening():
        first, second = await setup.send(0), await setup.send(1)
        third = asyncio.create_task(setup.ship.process(make_evidence(2)))
        await settle()
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        await setup.collect.process(first)
        await setup.collect.process(second)
    assert setup.free_places == 2
    assert setup.link.offered == 2


# What can go wrong


def refused_by_link(outcome: Sent | EdgeOnly, evidence: Evidence) -> None:
    """The frame holds what was charged, so that the verdict reports it."""
    assert isinstance(outcome, EdgeOnly)
    assert outcome.reason == Drop.LINK
    assert isinstance(outcome.work, Sent)
    assert outcome.work.evidence is evidence


async def test_a_message_that_the_link_refuses():
    setup = Setup(["refuse"])
    evidence = make_evidence()
    refused_by_link(await setup.ship.process(evidence), evidence)
    assert setup.link.sent == []
    assert setup.budget.total_bits == evidence.wire_bits  # charged before sending, and never refunded
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}


async def test_a_link_that_raises_leaves_nothing_behind():
    setup = Setup()

    def fail() -> None:
        raise OSError("no route")

    setup.link.on_send = fail
    with pytest.raises(OSError, match="no route"):
        await setup.ship.process(make_evidence())
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}


async def test_a_lost_message_is_late():
    setup = Setup(["lose"], deadline_s=0.002)
    async with setup.listening():
        sent = await setup.send()
        assert await setup.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}
    assert setup.uplink.stray_replies == 0


async def test_a_late_reply_is_a_stray():
    setup = Setup(["late", "answer"], deadline_s=0.002)
    async with setup.listening():
        sent = await setup.send(0)
        assert await setup.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
        assert setup.free_places == 2
        await setup.link.release()
        await settle()
        assert setup.uplink.stray_replies == 1
        assert isinstance(await setup.collect.process(await setup.send(1)), Answered)
    assert setup.free_places == 2


@pytest.mark.parametrize("fate", ["garble", "unknown"])
async def test_malformed_and_unknown_replies_are_strays(fate):
    setup = Setup([fate, "answer"], deadline_s=0.002)
    async with setup.listening():
        sent = await setup.send(0)
        assert await setup.collect.process(sent) == EdgeOnly(sent, Drop.LATE)
        assert setup.uplink.stray_replies == 1
        assert isinstance(await setup.collect.process(await setup.send(1)), Answered)
    assert setup.uplink.stray_replies == 1


async def test_a_second_reply_is_a_stray():
    setup = Setup(["duplicate", "answer"])
    async with setup.listening():
        sent = await setup.send(0)
        assert isinstance(await setup.collect.process(sent), Answered)
        await settle()
        assert setup.uplink.stray_replies == 1
        assert isinstance(await setup.collect.process(await setup.send(1)), Answered)
    assert setup.free_places == 2


async def test_two_replies_before_the_first_is_collected():
    setup = Setup(["duplicate"])
    async with setup.listening():
        sent = await setup.send()
        await settle()
        assert isinstance(await setup.collect.process(sent), Answered)
    assert setup.uplink.stray_replies == 1


async def test_a_reply_to_a_cancelled_wait_is_a_stray():
    setup = Setup(["late", "answer"])
    async with setup.listening():
        sent = await setup.send(0)
        sent.reply.cancel()  # as a deadline does, shortly before the stage removes it
        await setup.link.release()
        await settle()
        assert setup.uplink.stray_replies == 1
        assert isinstance(await setup.collect.process(await setup.send(1)), Answered)


async def test_a_refusal_leaves_the_edge_answer(caplog):
    setup = Setup(["reject"])
    async with setup.listening():
        sent = await setup.send(3)
        assert await setup.collect.process(sent) == EdgeOnly(sent, Drop.REFUSED)
    assert setup.free_places == 2
    assert "seq=3" in caplog.text
    assert "'no'" in caplog.text


async def test_a_link_that_closes_ends_the_waiting():
    setup = Setup(["lose", "lose"])
    async with setup.listening():
        both = [await setup.send(seq) for seq in range(2)]
        waiting = [asyncio.create_task(setup.collect.process(sent)) for sent in both]
        await settle()
        setup.link.close()
        assert await asyncio.gather(*waiting) == [EdgeOnly(sent, Drop.LINK) for sent in both]
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}


async def test_a_closed_link_refuses_messages():
    setup = Setup()
    async with setup.listening():
        setup.link.close()
        await settle()
        evidence = make_evidence()
        refused_by_link(await setup.ship.process(evidence), evidence)
    assert setup.free_places == 2


async def test_collecting_can_be_cancelled():
    setup = Setup(["lose"])
    async with setup.listening():
        waiting = asyncio.create_task(setup.collect.process(await setup.send()))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}


async def test_every_evidence_ends_in_one_outcome():
    fates = ["answer", "lose", "refuse", "duplicate", "late", "garble", "unknown", "reject"] * 4
    setup = Setup(fates, wait=True, deadline_s=0.002)
    evidence = [make_evidence(seq) for seq in range(len(fates))]
    outcomes: dict[int, str] = {}

    async def carry(item: Evidence) -> None:
        outcome = await setup.ship.process(item)
        if isinstance(outcome, Sent):
            outcome = await setup.collect.process(outcome)
        outcomes[item.frame.seq] = "answered" if isinstance(outcome, Answered) else outcome.reason.value

    async with setup.listening(), asyncio.TaskGroup() as group:
        for item in evidence:
            group.create_task(carry(item))
    ends = {"answer": "answered", "duplicate": "answered", "refuse": "link", "reject": "refused"}
    assert [outcomes[seq] for seq in range(len(fates))] == [ends.get(fate, "late") for fate in fates]
    assert setup.free_places == 2
    assert setup.uplink.waiting == {}
    assert setup.uplink.stray_replies == 12  # the second replies, the garbled and the unknown
