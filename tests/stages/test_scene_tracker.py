"""A camera's scene in a run: what is said at once, what a message is worth, and the last word."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.accounts import CameraShare, open_accounts
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.config import VideoConfig
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Metered, PendingVerdict, Reply, Scored, Sent, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.stages.gate import Gate
from sagelink.stages.rate_control import UtilityCurve
from sagelink.stages.record import Recorder
from sagelink.stages.scene_state import SceneConfig
from sagelink.stages.scene_tracker import (
    RegisterPending,
    SceneTracker,
    TrackScene,
    ValueGate,
    rate_control_config,
    scene_config,
)
from sagelink.stages.smoothing import Smoother
from tests.fakes import CLASSES, SIDE, make_evidence, make_metered, make_reply, make_scored

FUSE = Fuse(False, {0.0: 4.0}, SIDE**2)
TORN = (0.4, 0.3, 0.1, 0.1, 0.1)  # class 0; the server of make_reply says 2


def scored(seq: int, camera: str = "camera", probs=TORN) -> Scored:
    """Frames of one scene: they all look alike."""
    made, one = make_scored(seq, seq / 10, probs), make_scored(0)
    frame = replace(made.frame, camera=camera, pixels=one.picture)
    return replace(made, frame=frame, picture=one.picture, edge_view=one.edge_view)


def watch() -> SceneTracker:
    return SceneTracker(SceneConfig(), FUSE.weight)


def sent(seq: int, seen_by: SceneTracker | None = None) -> Sent:
    """Evidence on its way, of a frame that is seen before where there is a watch."""
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    made = make_evidence(seq)
    metered = make_metered(scored(seq))
    if seen_by:
        metered = replace(metered, provisional=seen_by.track(metered.scored))
    evidence = replace(made, selected=replace(made.selected, metered=metered))
    on_its_way = Sent(evidence, 0.0, evidence.wire_bits, 0, reply)
    if seen_by:
        seen_by.register_pending(on_its_way)
    return on_its_way


def answered(on_its_way: Sent, units: int = 3) -> Answered:
    return Answered(on_its_way, make_reply(on_its_way.frame.seq, units), 1.0)


def kept(seq: int, seen_by: SceneTracker, reason: Drop = Drop.GATE) -> EdgeOnly:
    metered = make_metered(scored(seq))
    return EdgeOnly(replace(metered, provisional=seen_by.track(metered.scored)), reason)


async def test_an_answer_counts_from_the_next_frame_that_is_seen_after_it() -> None:
    eye = watch()
    on_its_way = sent(0, eye)
    assert (eye.track(scored(1)).answer.class_id, eye.track(scored(2)).observed_seqs) == (0, ())
    on_its_way.reply.set_result(make_reply(0))
    seen = eye.track(scored(3))
    assert (seen.answer.class_id, seen.observed_seqs, seen.estimate.server_seq) == (2, (0,), 0)
    assert eye.track(scored(4)).observed_seqs == ()


async def test_a_recording_says_which_answers_were_in() -> None:
    eye = watch()
    both = [sent(seq, eye) for seq in (0, 1)]
    for seq, each in enumerate(both):
        each.reply.set_result(make_reply(seq))
    assert eye.track(scored(2), heard=[]).observed_seqs == ()
    assert eye.track(scored(3), heard=[1]).observed_seqs == (1,)
    assert eye.track(scored(4), heard=[0]).observed_seqs == (0,)


@pytest.mark.parametrize("fate", ["cancelled", "closed", "refused", "another model's"])
async def test_an_answer_that_does_not_come_is_forgotten(fate: str) -> None:
    eye = watch()
    reply = sent(0, eye).reply
    if fate == "cancelled":
        reply.cancel()
    elif fate == "closed":
        reply.set_exception(ConnectionError("the link has closed"))
    elif fate == "refused":
        reply.set_result(make_reply(0, refusal="no"))
    else:
        reply.set_result(replace(make_reply(0), class_ids=(CLASSES, 0)))
    assert eye.track(scored(1)).observed_seqs == ()
    assert not eye._awaited


async def test_cameras_that_are_not_watched_go_through_unseen() -> None:
    see = TrackScene({"door": watch()})
    metered = make_metered(scored(0))
    assert await see.process(metered) is metered
    door = make_metered(scored(0, "door"))
    assert (await see.process(door)).provisional is not None


async def test_the_gate_looks_at_what_the_scene_leaves_in_doubt() -> None:
    eye, gate = watch(), Gate(load_config(None, {"gate.threshold": 1.0}).gate)
    metered = make_metered(scored(0))
    assert gate.offloads(metered.scored.answer)
    sure = eye.track(scored(0, probs=(0.96, 0.01, 0.01, 0.01, 0.01)))
    assert await gate.process(replace(metered, provisional=sure)) == EdgeOnly(
        replace(metered, provisional=sure), Drop.GATE
    )


# What a message is worth


def afford(settings: dict[str, object] | None = None) -> ValueGate:
    worth = UtilityCurve(np.array([100.0, 1000.0]), np.array([0.2, 1.0]))
    accounts = open_accounts(UplinkBudget(16_000, 1.0), {"camera": CameraShare()})
    return ValueGate(load_config(None, settings), worth, accounts, lambda camera, size: 8 * size + 80)


def allowed(bits: int | None, probs=TORN, limit: int | None = 16_000) -> Metered:
    metered = replace(make_metered(scored(0, probs=probs)), allowance_bits=bits, budget_bits=limit)
    return replace(metered, provisional=watch().track(metered.scored))


async def test_a_message_may_be_as_long_as_the_allowance_pays_for_with_its_framing() -> None:
    metered = await afford().process(allowed(8080))
    assert isinstance(metered, Metered)
    assert metered.max_bytes == 1000


async def test_without_a_limit_it_may_be_as_long_as_is_ever_useful() -> None:
    metered = await afford().process(allowed(None, limit=None))
    assert isinstance(metered, Metered)
    assert metered.max_bytes == 1000


@pytest.mark.parametrize(
    ("bits", "probs", "reason"),
    [(8080, (0.996, 0.001, 0.001, 0.001, 0.001), Drop.WORTH), (400, TORN, Drop.BUDGET)],
)
async def test_bits_are_kept_where_they_gain_nothing(bits: int, probs, reason: Drop) -> None:
    metered = allowed(bits, probs)
    assert await afford().process(metered) == EdgeOnly(metered, reason)


async def test_any_gain_will_do_without_value() -> None:
    metered = allowed(8080, (0.996, 0.001, 0.001, 0.001, 0.001))
    assert isinstance(await afford({"video.value_gate": False}).process(metered), Metered)


async def test_saving_waits_for_room() -> None:
    metered = allowed(2000)
    assert isinstance(await afford().process(metered), Metered)
    assert await afford({"video.saving": True}).process(metered) == EdgeOnly(metered, Drop.WORTH)


async def test_a_window_that_never_has_room_is_left_to_the_encoder_to_explain() -> None:
    metered = allowed(400, limit=400)
    assert await afford().process(metered) is metered


def test_each_part_has_a_switch() -> None:
    off = VideoConfig(cuts=False, average_edge=False, hold_answers=False, value_gate=False, saving=True)
    scene, spend = scene_config(off), rate_control_config(off)
    assert (scene.cut, scene.accumulate, scene.hold_s) == (2.0, False, 0.0)
    assert (spend.save, spend.least_gain) == (True, 0.0)
    assert scene_config(VideoConfig()) == SceneConfig()


# At once, and the last word


class Sink:
    def __init__(self) -> None:
        self.written: list[Verdict] = []
        self.announced: list[Verdict] = []

    def write(self, verdict: Verdict) -> None:
        self.written.append(verdict)

    def close(self) -> None:
        pass

    def recorder(self) -> Recorder:
        return Recorder([self], Smoother(SceneConfig()).smooth, self.announced.append)


async def test_what_is_sent_is_told_of_at_once() -> None:
    eye, early = watch(), Channel[PendingVerdict]("early")
    on_its_way = sent(0, eye)
    assert await RegisterPending({"camera": eye}, early).process(on_its_way) is on_its_way
    verdict = await FUSE.process(await early.get())
    assert (verdict.pending, verdict.answer.class_id, verdict.origin, verdict.drop) == (True, 0, "edge", None)


async def test_an_answer_revises_its_frame_and_those_that_were_decided_before_it_came() -> None:
    eye, sink = watch(), Sink()
    recorder = sink.recorder()
    on_its_way = sent(0, eye)
    recorder.write(FUSE.decide(PendingVerdict(on_its_way)))
    for seq in (1, 2):
        recorder.write(FUSE.decide(kept(seq, eye)))
    assert [each.frame.seq for each in sink.announced] == [0, 1, 2]
    assert not sink.written
    recorder.write(FUSE.decide(answered(on_its_way)))
    assert [each.frame.seq for each in sink.written] == [0, 1, 2]
    assert [each.answer.class_id for each in sink.written] == [2, 2, 2]
    assert [each.revised_from.class_id for each in sink.written] == [0, 0, 0]
    assert [(each.origin, each.server_seq) for each in sink.written] == [("fused", 0)] * 3
    assert [each.drop for each in sink.written] == [None, Drop.GATE, Drop.GATE]


async def test_what_is_said_with_the_answer_known_revises_nothing() -> None:
    eye, sink = watch(), Sink()
    recorder = sink.recorder()
    on_its_way = sent(0, eye)
    recorder.write(FUSE.decide(answered(on_its_way)))
    on_its_way.reply.set_result(make_reply(0))
    recorder.write(FUSE.decide(kept(1, eye)))
    first, then = sink.written
    assert first.revised_from is not None
    assert (then.answer.class_id, then.revised_from, then.origin) == (2, None, "fused")
    assert not sink.announced


async def test_the_last_word_does_not_depend_on_when_answers_came() -> None:
    words = []
    for late in (False, True):
        eye, sink = watch(), Sink()
        recorder = sink.recorder()
        first = sent(0, eye)
        if not late:
            first.reply.set_result(make_reply(0))
        rest = [FUSE.decide(kept(seq, eye)) for seq in (1, 2, 3)]
        for verdict in (FUSE.decide(answered(first)), *rest):
            recorder.write(verdict)
        words.append([each.answer.log_probs.tolist() for each in sink.written])
    assert words[0] == words[1]


async def test_a_lost_answer_leaves_what_was_said() -> None:
    eye, sink = watch(), Sink()
    recorder = sink.recorder()
    recorder.write(FUSE.decide(EdgeOnly(sent(0, eye), Drop.LATE)))
    (verdict,) = sink.written
    assert (verdict.answer.class_id, verdict.origin, verdict.revised_from) == (0, "edge", None)


async def test_the_server_rule_takes_the_servers_word() -> None:
    eye, sink = watch(), Sink()
    recorder = sink.recorder()
    recorder.write(Fuse(True, None, SIDE**2).decide(answered(sent(0, eye))))
    (verdict,) = sink.written
    assert verdict.answer is verdict.server
    assert (verdict.origin, verdict.revised_from.class_id, verdict.server_seq) == ("server", 0, 0)


async def test_two_cameras_do_not_mix() -> None:
    sink = Sink()
    recorder = sink.recorder()
    eyes = {name: watch() for name in ("camera", "door")}
    recorder.write(FUSE.decide(answered(sent(0, eyes["camera"]))))
    door = make_metered(scored(0, "door"))
    recorder.write(FUSE.decide(EdgeOnly(replace(door, provisional=eyes["door"].track(door.scored)), Drop.GATE)))
    assert [(each.frame.camera, each.answer.class_id) for each in sink.written] == [("camera", 2), ("door", 0)]


async def test_a_frame_for_itself_stays_as_it_was_decided() -> None:
    verdict = FUSE.decide(answered(sent(0)))
    assert Smoother(SceneConfig()).smooth(verdict) is verdict
