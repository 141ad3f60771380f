"""The record stage: the order of verdicts, and sinks that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.types import Drop, EdgeOnly, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.stages.small_pictures import with_small_picture
from sagelink.stages.verdict_recorder import Recorder
from tests.fakes import SIDE, make_scored

FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)


def verdict_of(seq: int) -> Verdict:
    return FUSE.decide(EdgeOnly(make_scored(seq, float(seq)), Drop.GATE))


class Sink:
    """Keeps the sequence numbers, and fails from one of them on."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.seqs: list[int] = []
        self.closed = 0
        self._fails_at = fails_at
        self._error = error or OSError("the disk is full")

    def write(self, verdict: Verdict) -> None:
        if verdict.frame.seq == self._fails_at:
            raise self._error
        self.seqs.append(verdict.frame.seq)

    def close(self) -> None:
        self.closed += 1


def test_each_verdict_is_written_once_in_order():
    sink = Sink()
    recorder = Recorder([sink])
    for seq in (2, 0, 0, 1, 4):
        recorder.write(verdict_of(seq))
    assert sink.seqs == [0, 1, 2]
    recorder.close()
    assert sink.seqs == [0, 1, 2, 4]
    assert sink.closed == 1


def test_a_sink_that_fails_ends_the_run_and_the_others_get_every_verdict():
    before, failing, after = Sink(), Sink(fails_at=1), Sink()
    recorder = Recorder([before, failing, after])
    recorder.write(verdict_of(0))
    with pytest.raises(SagelinkError, match="the disk is full"):
        recorder.write(verdict_of(1))
    for seq in (3, 2, 5):  # what was still inside the graph
        with pytest.raises(SagelinkError, match="the disk is full"):
            recorder.write(verdict_of(seq))
    with pytest.raises(SagelinkError, match="the disk is full"):
        recorder.close()
    assert before.seqs == after.seqs == [0, 1, 2, 3, 5]
    assert failing.seqs == [0]
    assert [sink.closed for sink in (before, failing, after)] == [1, 1, 1]


def test_the_first_failure_is_the_one_reported():
    recorder = Recorder([Sink(0, SagelinkError("first")), Sink(0, SagelinkError("second"))])
    with pytest.raises(SagelinkError, match="first"):
        recorder.write(verdict_of(0))
    with pytest.raises(SagelinkError, match="first"):
        recorder.close()


def test_a_verdict_that_waits_has_a_smaller_picture_than_one_that_does_not():
    shown: list[tuple[int, ...]] = []

    class Shapes(Sink):
        def write(self, verdict: Verdict) -> None:
            assert verdict.scored is not None
            assert verdict.scored.frame is verdict.frame
            shown.append(verdict.frame.pixels.shape)

    def large(seq: int) -> Verdict:
        verdict = verdict_of(seq)
        assert verdict.scored is not None
        frame = replace(verdict.frame, pixels=np.zeros((720, 1280, 3), np.uint8))
        return replace(verdict, frame=frame, scored=replace(verdict.scored, frame=frame))

    recorder = Recorder([Shapes()], lighten=with_small_picture)
    for seq in (1, 0):
        recorder.write(large(seq))
    assert shown == [(720, 1280, 3), (360, 640, 3)]
