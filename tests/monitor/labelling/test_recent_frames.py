"""The stored full frames of a run: their limit, their order of leaving, and their size."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.recent_frames import FrameRing, RecentFrames, candidates_of, full_jpeg, group_of
from sagelink.monitor.labelling.view import FIRST_HEAD, StoredFrame
from sagelink.pipeline.answers import Answer, HeadAnswer, TaughtClasses
from sagelink.pipeline.types import Verdict
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of

SIDES = ((0, (0.6, 0.4)), (1, (0.4, 0.6)))


def frames(max_bytes: int = 10_000_000) -> tuple[RecentFrames, list[float]]:
    now = [0.0]
    return RecentFrames(lambda _: LABELS, max_bytes, lambda: now[0]), now


def seqs(recent: RecentFrames) -> list[int]:
    stored = recent.keys()
    return sorted(key.seq for key in stored)


def test_a_shown_frame_is_stored_and_a_sample_is_taken_twice_per_second():
    recent, now = frames()
    for seq in range(20):
        now[0] = seq / 10
        recent.sample([verdict_of(seq)])
    assert seqs(recent) == [0, 5, 10, 15]
    recent.keep(verdict_of(7))
    assert recent.get(FrameKey("camera", 7)) is not None
    assert recent.get(FrameKey("camera", 8)) is None


def test_memory_is_bounded_and_uncertain_frames_stay_longer():
    recent, now = frames(max_bytes=60_000)  # small frames count 1000 bytes: 21 shown, 39 sampled
    recent.view()
    for seq in range(100):
        now[0] = float(seq)
        recent.keep(verdict_of(1000 + seq))
        verdict = verdict_of(seq)
        recent.sample([surprising(verdict) if seq < 5 else verdict])
    kept = seqs(recent)
    assert len(kept) <= 60
    assert {0, 1, 2, 3, 4, 99, 1099} <= {*kept}
    assert not {1000, 1050} & {*kept}


def surprising(verdict: Verdict) -> Verdict:
    assert verdict.edge is not None
    flat = np.log(np.full(len(LABELS), 1 / len(LABELS), np.float32))
    return replace(verdict, answer=replace(verdict.edge, log_probs=flat))


def test_labelled_frames_leave_the_list_and_return_after_undo():
    recent, now = frames()
    for seq in range(3):
        now[0] = float(seq)
        recent.sample([verdict_of(seq)])
    key = FrameKey("camera", 1)
    view = recent.view()
    view.mark_done([key])
    assert [each.candidate.frame.seq for each in view.uncertain(5) if each.candidate.frame == key] == []
    view.mark_done([])
    assert key in [each.candidate.frame for each in view.uncertain(5)]


def test_each_head_has_a_list_of_its_own():
    recent, now = frames()
    for seq in range(3):
        now[0] = float(seq)
        recent.sample([with_further(verdict_of(seq))] if seq else [verdict_of(seq)])
    first, light = recent.view(), recent.view("light")
    first.mark_done([FrameKey("camera", 1)])
    assert {each.candidate.frame.seq for each in first.uncertain()} == {0, 2}
    assert {each.candidate.frame.seq for each in light.uncertain()} == {1, 2}  # frame 0 has no answer by this head
    assert {each.candidate.label for each in light.uncertain()} <= {"day", "night"}
    assert all("edge and server disagree" in each.reasons for each in light.uncertain())


def with_further(verdict: Verdict) -> Verdict:
    """Edge and server name different classes of the head."""
    edge, server = (Answer(number, 0.6, np.log(np.array(probs, np.float32))) for number, probs in SIDES)
    taught = TaughtClasses(b"\x01" * 16, ("day", "night"), 0.5, 0.0, ((100, 1.0),))
    return replace(verdict, further=(HeadAnswer("light", taught, edge, False, server, server, "fused"),))


def test_a_held_frame_outlives_the_shown_ones():
    recent, _ = frames(max_bytes=20_000)
    recent.keep(verdict_of(0))
    recent.hold(FrameKey("camera", 0))
    for seq in range(1, 50):
        recent.keep(verdict_of(seq))
    assert recent.get(FrameKey("camera", 0)) is not None


def test_a_picture_keeps_its_size_up_to_the_limit():
    for size, expected in (((90, 120), (120, 90)), ((2400, 3200), (1920, 1440))):
        coded = full_jpeg(np.zeros((*size, 3), np.uint8))
        assert Image.open(io.BytesIO(coded)).size == expected


def test_an_answer_in_imagenets_names_says_nothing():
    plain = candidates_of(verdict_of(0), None)[FIRST_HEAD]
    assert (plain.label, plain.margin, plain.disagreement) == (None, None, False)
    named = candidates_of(verdict_of(0), LABELS)[FIRST_HEAD]
    assert named.label in LABELS
    assert named.margin is not None
    assert named.margin >= 0


def test_frames_of_one_minute_or_of_one_group_of_files_are_a_group():
    frame = verdict_of(0).frame
    assert group_of(replace(frame, stream_s=59.0, name=None)) != group_of(replace(frame, stream_s=61.0, name=None))
    assert group_of(replace(frame, name="a/monday_3.jpg")) == "monday"


def test_a_ring_replaces_a_frame_of_the_same_number():
    ring = FrameRing(5000)
    for _ in range(9):
        ring.add(StoredFrame(candidates_of(verdict_of(0), LABELS), b"x", ""))
    ring.shrink()
    assert len(ring.frames()) == 1
