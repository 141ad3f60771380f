"""Tracking a camera's scene in a run: server answers that count, and provisional verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagelink.pipeline.channel import Channel
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.stages import VideoConfig
from sagelink.pipeline.types import Drop, EdgeOnly, PendingVerdict
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.rate_control import LEAST_GAIN, least_gain
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.scene_tracker import RegisterPending, TrackScene, scene_config
from tests.fakes import CLASSES, make_metered, make_reply
from tests.stages.scene_fakes import FUSE, make_tracker, scored, sent


async def test_an_answer_counts_from_the_next_tracked_frame_on() -> None:
    tracker = make_tracker()
    in_flight = sent(0, tracker)
    assert (tracker.track(scored(1)).answer.class_id, tracker.track(scored(2)).observed_seqs) == (0, ())
    in_flight.reply.set_result(make_reply(0))
    provisional = tracker.track(scored(3))
    seqs = provisional.observed_seqs
    assert (provisional.answer.class_id, seqs, provisional.estimate.server_seq) == (2, (0,), 0)
    assert tracker.track(scored(4)).observed_seqs == ()


async def test_a_replay_counts_the_answers_of_the_recorded_run() -> None:
    tracker = make_tracker()
    both = [sent(seq, tracker) for seq in (0, 1)]
    for seq, message in enumerate(both):
        message.reply.set_result(make_reply(seq))
    assert tracker.track(scored(2), observed_seqs=[]).observed_seqs == ()
    assert tracker.track(scored(3), observed_seqs=[1]).observed_seqs == (1,)
    assert tracker.track(scored(4), observed_seqs=[0]).observed_seqs == (0,)


@pytest.mark.parametrize("fate", ["cancelled", "closed", "refused", "another model's"])
async def test_a_message_without_an_answer_is_given_up(fate: str) -> None:
    tracker = make_tracker()
    reply = sent(0, tracker).reply
    if fate == "cancelled":
        reply.cancel()
    elif fate == "closed":
        reply.set_exception(ConnectionError("the link has closed"))
    elif fate == "refused":
        reply.set_result(make_reply(0, refusal="no"))
    else:
        reply.set_result(replace(make_reply(0), class_ids=(CLASSES, 0)))
    assert tracker.track(scored(1)).observed_seqs == ()
    assert not tracker.pending


async def test_frames_of_other_cameras_pass_unchanged() -> None:
    stage = TrackScene({"door": make_tracker()})
    metered = make_metered(scored(0))
    assert await stage.process(metered) is metered
    door = make_metered(scored(0, "door"))
    assert (await stage.process(door)).provisional is not None


async def test_the_gate_uses_the_answer_of_the_scene() -> None:
    tracker, gate = make_tracker(), Gate(load_config(None, {"gate.threshold": 1.0}).gate)
    metered = make_metered(scored(0))
    assert gate.offloads(metered.scored.answer)
    sure = tracker.track(scored(0, probs=(0.96, 0.01, 0.01, 0.01, 0.01)))
    assert await gate.process(replace(metered, provisional=sure)) == EdgeOnly(
        replace(metered, provisional=sure), Drop.GATE
    )


async def test_a_sent_frame_gets_a_provisional_verdict_at_once() -> None:
    tracker, pending = make_tracker(), Channel[PendingVerdict]("pending")
    in_flight = sent(0, tracker)
    assert await RegisterPending({"camera": tracker}, pending).process(in_flight) is in_flight
    verdict = await FUSE.process(await pending.get())
    assert (verdict.pending, verdict.answer.class_id, verdict.origin, verdict.drop) == (True, 0, "edge", None)


def test_each_mechanism_has_a_switch() -> None:
    off = VideoConfig(cuts=False, average_edge=False, hold_answers=False, value_gate=False)
    scene = scene_config(off)
    assert (scene.cut, scene.accumulate, scene.hold_s) == (2.0, False, 0.0)
    assert (least_gain(off), least_gain(VideoConfig())) == (0.0, LEAST_GAIN)
    assert scene_config(VideoConfig()) == SceneConfig()
