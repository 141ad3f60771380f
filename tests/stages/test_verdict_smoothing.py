"""Final verdicts: revised by later server answers, in order of capture, whatever the timing."""

from __future__ import annotations

import pytest

from sagelink.pipeline.types import Drop, EdgeOnly, PendingVerdict, Verdict
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.fuse import Fuse
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.verdict_recorder import Recorder
from sagelink.stages.verdict_smoothing import Smoother
from tests.fakes import SIDE, make_reply
from tests.stages.scene_fakes import FUSE, answered, edge_only, make_tracker, scored, sent


class ListSink:
    def __init__(self) -> None:
        self.written: list[Verdict] = []
        self.provisional: list[Verdict] = []

    def write(self, verdict: Verdict) -> None:
        self.written.append(verdict)

    def close(self) -> None:
        pass

    def show_pending(self, verdict: Verdict) -> None:
        self.provisional.append(verdict)

    def recorder(self, trust: EdgeTrust | None = None) -> Recorder:
        trusts = {"camera": trust} if trust else {}
        return Recorder([self], Smoother(SceneConfig(), trusts).smooth)


async def test_an_answer_revises_its_frame_and_later_frames_that_were_decided_before() -> None:
    tracker, sink = make_tracker(), ListSink()
    recorder = sink.recorder()
    in_flight = sent(0, tracker)
    recorder.write(FUSE.decide(PendingVerdict(in_flight)))
    for seq in (1, 2):
        recorder.write(FUSE.decide(edge_only(seq, tracker)))
    assert [verdict.frame.seq for verdict in sink.provisional] == [0, 1, 2]
    assert not sink.written
    recorder.write(FUSE.decide(answered(in_flight)))
    assert [verdict.frame.seq for verdict in sink.written] == [0, 1, 2]
    assert [verdict.answer.class_id for verdict in sink.written] == [2, 2, 2]
    assert [verdict.revised_from.class_id for verdict in sink.written] == [0, 0, 0]
    assert [(verdict.origin, verdict.server_seq) for verdict in sink.written] == [("fused", 0)] * 3
    assert [verdict.drop for verdict in sink.written] == [None, Drop.GATE, Drop.GATE]


async def test_a_frame_decided_after_the_answer_is_not_revised() -> None:
    tracker, sink = make_tracker(), ListSink()
    recorder = sink.recorder()
    in_flight = sent(0, tracker)
    recorder.write(FUSE.decide(answered(in_flight)))
    in_flight.reply.set_result(make_reply(0))
    recorder.write(FUSE.decide(edge_only(1, tracker)))
    first, second = sink.written
    assert first.revised_from is not None
    assert (second.answer.class_id, second.revised_from, second.origin) == (2, None, "fused")
    assert not sink.provisional


async def test_final_verdicts_do_not_depend_on_when_answers_arrive() -> None:
    log_probs = []
    for late in (False, True):
        tracker, sink = make_tracker(), ListSink()
        recorder = sink.recorder()
        first = sent(0, tracker)
        if not late:
            first.reply.set_result(make_reply(0))
        rest = [FUSE.decide(edge_only(seq, tracker)) for seq in (1, 2, 3)]
        for verdict in (FUSE.decide(answered(first)), *rest):
            recorder.write(verdict)
        log_probs.append([verdict.answer.log_probs.tolist() for verdict in sink.written])
    assert log_probs[0] == log_probs[1]


async def test_without_an_answer_the_verdict_is_not_revised() -> None:
    tracker, sink = make_tracker(), ListSink()
    recorder = sink.recorder()
    recorder.write(FUSE.decide(EdgeOnly(sent(0, tracker), Drop.LATE)))
    (verdict,) = sink.written
    assert (verdict.answer.class_id, verdict.origin, verdict.revised_from) == (0, "edge", None)


async def test_the_server_rule_takes_the_server_answer() -> None:
    tracker, sink = make_tracker(), ListSink()
    recorder = sink.recorder()
    recorder.write(Fuse(True, None, SIDE**2).decide(answered(sent(0, tracker))))
    (verdict,) = sink.written
    assert verdict.answer is verdict.server
    assert (verdict.origin, verdict.revised_from.class_id, verdict.server_seq) == ("server", 0, 0)


async def test_two_cameras_have_separate_scenes() -> None:
    sink = ListSink()
    recorder = sink.recorder()
    trackers = {name: make_tracker() for name in ("camera", "door")}
    recorder.write(FUSE.decide(answered(sent(0, trackers["camera"]))))
    recorder.write(FUSE.decide(edge_only(0, trackers["door"], "door")))
    assert [(verdict.frame.camera, verdict.answer.class_id) for verdict in sink.written] == [("camera", 2), ("door", 0)]


async def test_the_verdict_believes_the_edge_as_far_as_the_tracker_does_until_that_is_forgotten() -> None:
    trust, sink = EdgeTrust(), ListSink()
    trust.restore({"camera": [60.0, 0.0], "classes": {}})
    recorder, tracker = sink.recorder(trust), make_tracker(trust)
    believed_by_tracker = []
    for seq in range(3):
        if seq == 2:
            trust.reset()
        in_flight = sent(seq, tracker)
        recorder.write(FUSE.decide(answered(in_flight)))
        in_flight.reply.set_result(make_reply(seq))
        believed_by_tracker.append(tracker.track(scored(seq)).verdict.prob)
    assert [verdict.answer.prob for verdict in sink.written] == pytest.approx(believed_by_tracker, abs=0.02)
    assert believed_by_tracker[2] < believed_by_tracker[0] - 0.05


async def test_a_frame_that_is_not_tracked_is_not_revised() -> None:
    verdict = FUSE.decide(answered(sent(0)))
    assert Smoother(SceneConfig()).smooth(verdict) is verdict
