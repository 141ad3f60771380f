"""What a completion is worth, which units it sends, and how its answer weighs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.types import OperatingPoint, Reference
from sagelink.stages.delta import DeltaCurves, expected
from sagelink.stages.encode import Encoder
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.fuse import Fuse
from sagelink.stages.planner import Plan
from sagelink.stages.select import completing
from sagelink.stages.selectors import coverage, topk
from sagelink.transport.delta_message import delta_overhead_bytes
from sagelink.transport.wire import DELTA_CODEC, decode_evidence
from tests.fakes import CANVAS, PATCH, SIDE, make_evidence, make_picture, make_scored

UNITS = SIDE**2


def raw_line() -> RateQualityCurve:
    counts = np.array([4.0, 8.0, 16.0])
    sizes, agreements, weights = counts * PATCH**2 * 3, counts / 16, np.array([0.0, 0.5, 1.0])
    return RateQualityCurve(OperatingPoint("raw-zstd", 0, SIDE * PATCH, 0), "units", counts, sizes, agreements, weights)


def frame_line(agreement: float) -> RateQualityCurve:
    base = OperatingPoint("webp-frame", UNITS, SIDE * PATCH, 0)
    return RateQualityCurve(base, "quality", np.array([1.0]), np.array([100.0]), np.array([agreement]), np.array([1.0]))


def test_units_that_complete_others_are_worth_what_all_are_and_cost_what_they_do() -> None:
    (line,) = DeltaCurves.from_curves([raw_line(), frame_line(1.0)], UNITS, 2, UNITS).curves(kept=6, rest=10)
    assert line.settings[0] == 2
    assert line.settings[-1] == 10
    assert line.agreement(2) == pytest.approx(0.5)
    assert line.agreement(10) == pytest.approx(1.0)
    assert line.size(8) == pytest.approx(8 * PATCH**2 * 3 + delta_overhead_bytes(UNITS, 6))
    assert line.size(2) < line.size(4)


def test_nothing_is_left_to_send_or_has_weight() -> None:
    every = DeltaCurves.from_curves([raw_line()], UNITS, 2, UNITS)
    assert every.curves(kept=0, rest=4) == []
    assert every.curves(kept=15, rest=1) == []
    assert every.standalone_weight(OperatingPoint("raw-zstd", 8, 16, 0)) == 0.5
    assert (
        every.standalone_weight(OperatingPoint("raw-zstd", 2, 16, 0))
        == every.standalone_weight(OperatingPoint("webp", 8, 16, 0))
        == 0.0
    )
    assert expected([raw_line()], 10) == -1.0


@pytest.mark.parametrize(("whole", "completes"), [(0.6, True), (0.99, False)])
def test_a_completion_is_sent_where_it_is_expected_to_be_worth_more(whole: float, completes: bool) -> None:
    lines = [raw_line(), frame_line(whole)]
    encoder = Encoder(lines, CANVAS, completing=DeltaCurves.from_curves(lines, UNITS, 2, UNITS))
    base, rest = Reference(b"basename", np.arange(8)), np.arange(8, 16)
    plan = encoder.fit_delta(3, make_picture(), base, rest, 8 * PATCH**2 * 3 - 60)
    assert isinstance(plan, Plan) == completes
    if plan is not None:
        message = decode_evidence(plan.message)
        assert message.codec == DELTA_CODEC
        assert plan.reference_units == 8
        assert len(plan.message) <= 8 * PATCH**2 * 3 - 60
        assert set(message.units) <= set(rest)


@pytest.mark.parametrize("selector", [coverage, topk])
def test_what_is_there_is_not_sent_again(selector) -> None:
    scored = make_scored()
    order = selector(scored.importance, scored.embeddings, UNITS)
    kept = np.array([1, 5, 9])
    rest = completing(Reference(b"basename", kept), order, selector, scored)
    assert sorted(rest) == sorted(set(range(UNITS)) - {1, 5, 9})
    assert completing(Reference(bytes(8), kept[:0]), order, selector, scored) is order


def test_coverage_passes_over_what_the_units_there_stand_for() -> None:
    """Units 0 and 1 are alike, 2 and 3 are alike; with 0 there, the first to complete it is of the other kind."""
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    importance = np.array([4, 4, 1, 1], np.float32)
    assert coverage(importance, embeddings, 1).tolist() == [0]
    assert coverage(importance, embeddings, 4, have=np.array([0])).tolist() == [2, 1, 3]


@pytest.mark.parametrize(("units", "weight"), [(8, 0.5), (3, 0.1), (5, 0.1)])
def test_an_answer_without_what_was_remembered_weighs_what_its_own_units_do(units: int, weight: float) -> None:
    evidence = replace(make_evidence(), reference_units=5, standalone_weight=0.1)  # three units of its own, weight 0.5
    assert Fuse(False, None, UNITS).weight(evidence, units) == weight
