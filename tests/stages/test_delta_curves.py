"""Delta messages: their expected agreement, the units that they send, and the weight of their answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.types import OperatingPoint, Reference
from sagelink.stages.codec_planner import Plan
from sagelink.stages.delta_curves import DeltaCurves, expected_agreement
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.fuse import Fuse
from sagelink.stages.select import new_units_for
from sagelink.stages.selectors import coverage, topk
from sagelink.transport.delta_message import DELTA_CODEC, delta_overhead_bytes
from sagelink.transport.evidence_message import decode_evidence
from tests.fakes import CANVAS, PATCH, SIDE, make_evidence, make_picture, make_scored

UNITS = SIDE**2


def raw_curve() -> RateQualityCurve:
    counts = np.array([4.0, 8.0, 16.0])
    sizes, agreements, weights = counts * PATCH**2 * 3, counts / 16, np.array([0.0, 0.5, 1.0])
    return RateQualityCurve(OperatingPoint("raw-zstd", 0, SIDE * PATCH, 0), "units", counts, sizes, agreements, weights)


def frame_curve(agreement: float) -> RateQualityCurve:
    point = OperatingPoint("webp-frame", UNITS, SIDE * PATCH, 0)
    return RateQualityCurve(
        point, "quality", np.array([1.0]), np.array([100.0]), np.array([agreement]), np.array([1.0])
    )


def test_new_units_have_the_agreement_of_all_units_and_their_own_size() -> None:
    (curve,) = DeltaCurves.from_curves([raw_curve(), frame_curve(1.0)], UNITS, 2, UNITS).curves(
        known_units=6, new_units=10
    )
    assert curve.settings[0] == 2
    assert curve.settings[-1] == 10
    assert curve.agreement(2) == pytest.approx(0.5)
    assert curve.agreement(10) == pytest.approx(1.0)
    assert curve.size(8) == pytest.approx(8 * PATCH**2 * 3 + delta_overhead_bytes(UNITS, 6))
    assert curve.size(2) < curve.size(4)


def test_without_new_units_or_weight_there_is_no_curve() -> None:
    delta_curves = DeltaCurves.from_curves([raw_curve()], UNITS, 2, UNITS)
    assert delta_curves.curves(known_units=0, new_units=4) == []
    assert delta_curves.curves(known_units=15, new_units=1) == []
    assert delta_curves.standalone_weight(OperatingPoint("raw-zstd", 8, 16, 0)) == 0.5
    assert (
        delta_curves.standalone_weight(OperatingPoint("raw-zstd", 2, 16, 0))
        == delta_curves.standalone_weight(OperatingPoint("webp", 8, 16, 0))
        == 0.0
    )
    assert expected_agreement([raw_curve()], 10) == -1.0


@pytest.mark.parametrize(("standalone_agreement", "is_delta"), [(0.6, True), (0.99, False)])
def test_a_delta_message_is_sent_where_its_expected_agreement_is_higher(
    standalone_agreement: float, is_delta: bool
) -> None:
    curves = [raw_curve(), frame_curve(standalone_agreement)]
    encoder = Encoder(curves, CANVAS, delta_curves=DeltaCurves.from_curves(curves, UNITS, 2, UNITS))
    reference, new_units = Reference(b"basename", np.arange(8)), np.arange(8, 16)
    plan = encoder.fit_delta(3, make_picture(), reference, new_units, 8 * PATCH**2 * 3 - 60)
    assert isinstance(plan, Plan) == is_delta
    if plan is not None:
        message = decode_evidence(plan.message)
        assert message.codec == DELTA_CODEC
        assert plan.reference_units == 8
        assert len(plan.message) <= 8 * PATCH**2 * 3 - 60
        assert set(message.units) <= set(new_units)


@pytest.mark.parametrize("selector", [coverage, topk])
def test_remembered_units_are_not_sent_again(selector) -> None:
    scored = make_scored()
    order = selector(scored.importance, scored.embeddings, UNITS)
    remembered = np.array([1, 5, 9])
    new_units = new_units_for(Reference(b"basename", remembered), order, selector, scored)
    assert sorted(new_units) == sorted(set(range(UNITS)) - {1, 5, 9})
    assert new_units_for(Reference(bytes(8), remembered[:0]), order, selector, scored) is order


def test_coverage_skips_units_that_remembered_units_cover() -> None:
    """Units 0 and 1 are alike, and so are 2 and 3. The server has unit 0, so the first new unit is of the other two."""
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    importance = np.array([4, 4, 1, 1], np.float32)
    assert coverage(importance, embeddings, 1).tolist() == [0]
    assert coverage(importance, embeddings, 4, covered_by=np.array([0])).tolist() == [2, 1, 3]


@pytest.mark.parametrize(("units", "weight"), [(8, 0.5), (3, 0.1), (5, 0.1)])
def test_without_the_remembered_units_the_standalone_weight_counts(units: int, weight: float) -> None:
    evidence = replace(make_evidence(), reference_units=5, standalone_weight=0.1)  # three new units, weight 0.5
    assert Fuse(False, None, UNITS).weight(evidence, units) == weight
