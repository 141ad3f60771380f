"""Fusing two answers, and the verdict on a frame however far it came."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.answers import Answer, HeadAnswer, TaughtClasses
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Reply, Sent
from sagelink.stages.fuse import Fuse, fuse, spread
from tests.fakes import CLASSES, make_answer, make_evidence, make_frame, make_metered, make_reply, make_scored

EDGE = make_answer((0.4, 0.3, 0.1, 0.1, 0.1))
EVIDENCE = make_evidence()
UNITS = 16


def make_sent(evidence=None) -> Sent:
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    return Sent(make_evidence() if evidence is None else evidence, 1.5, 2000, sent_ns=0, reply=reply)


# The arithmetic


@st.composite
def replies(draw):
    """What a server says: a few classes of CLASSES, with probabilities that sum to at most 1."""
    weights = draw(st.lists(st.integers(1, 1000), min_size=CLASSES, max_size=CLASSES))
    probs = np.array(weights) / sum(weights)
    named = draw(st.integers(1, CLASSES))
    order = np.argsort(-probs, kind="stable")[:named]
    log_probs = np.log(probs[order]).astype(np.float32)
    return Reply(0, None, tuple(order.tolist()), tuple(log_probs.tolist()), 5, 1.0)


@given(replies())
def test_spread_sums_to_one_and_keeps_what_was_said(reply):
    full = spread(reply.top, CLASSES)
    assert full.shape == (CLASSES,)
    assert full.dtype == np.float32
    assert np.exp(full.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert full[list(reply.class_ids)].tolist() == list(reply.log_probs)
    others = np.delete(full, list(reply.class_ids))
    assert len(set(others.tolist())) <= 1


def test_spread_of_a_server_that_is_certain_is_finite():
    full = spread(((1,), (0.0,)), CLASSES)
    assert np.isfinite(full).all()
    assert full.argmax() == 1


def test_spread_shares_the_rest_evenly():
    full = spread(((2, 0), (float(np.log(0.5)), float(np.log(0.2)))), CLASSES)
    assert np.exp(full) == pytest.approx([0.2, 0.1, 0.5, 0.1, 0.1], abs=1e-6)


def test_weight_zero_is_the_edge_exactly():
    assert fuse(EDGE, make_answer((0.01, 0.01, 0.96, 0.01, 0.01)), 0.0) is EDGE


@given(st.floats(0.01, 20), st.lists(st.integers(1, 1000), min_size=CLASSES, max_size=CLASSES))
def test_fusing_is_the_weighted_product_of_probabilities(weight, weights):
    server_probs = np.array(weights) / sum(weights)
    product = np.exp(EDGE.log_probs.astype(np.float64)) * server_probs**weight
    expected = product / product.sum()
    fused = fuse(EDGE, make_answer(server_probs), weight)
    assert np.exp(fused.log_probs) == pytest.approx(expected, abs=1e-4)
    assert fused.class_id == fused.log_probs.argmax()
    assert fused.prob == pytest.approx(expected.max(), abs=1e-4)


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=9))
def test_answers_are_normalised(scores):
    answer = Answer.from_log_scores(np.array(scores, np.float32))
    assert np.exp(answer.log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)
    assert scores[answer.class_id] == pytest.approx(max(scores), abs=1e-3)
    assert answer.prob == pytest.approx(float(np.exp(answer.log_probs.max())))


# The weight


@given(
    points=st.dictionaries(st.floats(0, 1), st.floats(0, 5), min_size=1, max_size=6),
    units=st.tuples(st.integers(0, UNITS), st.integers(0, UNITS)),
)
def test_a_lower_share_never_weighs_more(points, units):
    weights = dict(zip(sorted(points), sorted(points.values()), strict=True))
    stage = Fuse(False, weights, UNITS)
    few, many = sorted(units)
    assert 0 <= stage.weight(EVIDENCE, few) <= stage.weight(EVIDENCE, many) <= max(weights.values())


def test_weights_lie_on_the_line_between_points():
    stage = Fuse(False, {0.75: 2.0, 0.25: 0.0}, UNITS)
    assert [stage.weight(EVIDENCE, units) for units in (0, 4, 8, 12, 16, 99)] == [0.0, 0.0, 1.0, 2.0, 2.0, 2.0]


def test_the_weight_is_that_of_the_operating_point_by_default():
    stage = Fuse(False, None, UNITS)
    assert stage.weight(EVIDENCE, 3) == EVIDENCE.weight > 0


# Further heads


async def test_each_further_head_is_fused_with_its_own_weight_and_answers_alone_where_the_server_lacks_it():
    day = TaughtClasses(b"day?" + bytes(12), ("day", "night"), 0.5, 0.0, ((10, 0.0), (100, 0.5)))
    wet = TaughtClasses(b"wet?" + bytes(12), ("dry", "wet"), 0.5, 0.0, ((10, 0.5), (100, 0.5)))
    edge = make_answer((0.6, 0.4))
    further = tuple(HeadAnswer(taught.labels[0], taught, edge, False, edge) for taught in (day, wet))
    evidence = make_evidence()
    metered = replace(evidence.selected.metered, scored=replace(evidence.selected.metered.scored, further=further))
    selected = replace(evidence.selected, metered=metered)
    sent = make_sent(replace(evidence, selected=selected, further=(b"wet?", b"day?")))
    server = ((1,), (float(np.log(0.9)),))
    verdicts = [
        (await Fuse(replaces, None, UNITS).process(Answered(sent, replace(make_reply(), further=found), 9.0))).further
        for replaces, found in (
            (False, (((), ()), server)),
            (True, (server, server)),
            (False, (((7,), (-0.1,)), server)),
        )
    ]
    for first, second in (verdicts[0], verdicts[2]):  # a class that the head does not have is no answer
        expected = 0.4 * 0.9**0.5 / (0.4 * 0.9**0.5 + 0.6 * 0.1**0.5)
        assert (first.origin, first.label) == ("fused", "night")
        assert first.answer.prob == pytest.approx(expected, abs=1e-4)
        assert (second.origin, second.label, second.server) == ("edge", "dry", None)
    assert [(each.origin, each.label) for each in verdicts[1]] == [("server", "night"), ("server", "wet")]
    alone = await Fuse(False, None, UNITS).process(EdgeOnly(sent, Drop.LATE))
    assert alone.further == further


# Verdicts


async def test_a_fused_verdict_tells_the_whole_story():
    stage = Fuse(False, {0.0: 0.5}, UNITS)
    sent = make_sent()
    answered = Answered(sent, make_reply(units=3), ship_ms=9.0)
    verdict = await stage.process(answered)
    evidence = sent.evidence
    assert verdict.frame is evidence.frame
    assert (verdict.origin, verdict.drop) == ("fused", None)
    assert verdict.edge is evidence.selected.metered.scored.answer
    server = np.array([0.25, 0.25 / 3, 0.5, 0.25 / 3, 0.25 / 3])
    assert np.exp(verdict.server.log_probs) == pytest.approx(server, abs=1e-6)
    expected = np.exp(verdict.edge.log_probs) * server**0.5
    assert np.exp(verdict.answer.log_probs) == pytest.approx(expected / expected.sum(), abs=1e-5)
    assert verdict.units.tolist() == [1, 5, 6]
    assert (verdict.wire_bits, verdict.sent_s, verdict.window_bits) == (evidence.wire_bits, 1.5, 2000)
    latency = verdict.latency_ms
    assert [latency[key] for key in ("capture", "score", "select", "encode", "ship", "server")] == [1, 2, 3, 4, 9, 0.5]
    assert latency["total"] > 0


async def test_a_server_answer_of_no_weight_leaves_the_edge_answer():
    stage = Fuse(False, {0.0: 0.0}, UNITS)
    verdict = stage.decide(Answered(make_sent(), make_reply(), 1.0))
    assert verdict.origin == "edge"
    assert verdict.answer is verdict.edge
    assert verdict.drop is None
    assert verdict.server.class_id == 2


@pytest.mark.parametrize("weights", [{0.0: 0.0}, {0.0: 1.0}])
async def test_the_server_rule_replaces_the_edge_answer(weights):
    stage = Fuse(True, weights, UNITS)
    verdict = stage.decide(Answered(make_sent(), make_reply(), 1.0))
    assert verdict.origin == "server"
    assert verdict.answer is verdict.server
    assert verdict.answer.class_id == 2
    assert verdict.edge.class_id == 0


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("reason", [Drop.LATE, Drop.LINK, Drop.REFUSED, Drop.STOPPED])
async def test_a_reply_that_never_came_leaves_the_edge_answer_and_the_bill(replace, reason):
    sent = make_sent()
    verdict = Fuse(replace, {0.0: 1.0}, UNITS).decide(EdgeOnly(sent, reason))
    assert (verdict.origin, verdict.drop) == ("edge", reason)
    assert verdict.answer is verdict.edge is sent.evidence.selected.metered.scored.answer
    assert verdict.server is None
    assert (verdict.wire_bits, verdict.sent_s, verdict.window_bits) == (sent.evidence.wire_bits, 1.5, 2000)
    assert verdict.units.tolist() == [1, 5, 6]
    assert verdict.latency_ms["ship"] is None
    assert verdict.latency_ms["encode"] == 4


@pytest.mark.parametrize("reason", [Drop.LINK, Drop.BUDGET])
async def test_evidence_that_was_not_sent_costs_nothing(reason):
    verdict = Fuse(False, {0.0: 1.0}, UNITS).decide(EdgeOnly(make_evidence(), reason))
    assert verdict.answer is verdict.edge is not None
    assert (verdict.wire_bits, verdict.sent_s, verdict.units.tolist()) == (0, None, [])
    assert verdict.latency_ms["encode"] == 4
    assert verdict.drop == reason


async def test_a_frame_that_the_gate_kept():
    metered = make_metered(allowance_bits=500, window_bits=1500)
    verdict = Fuse(False, {0.0: 1.0}, UNITS).decide(EdgeOnly(metered, Drop.GATE))
    assert verdict.answer is metered.scored.answer
    assert (verdict.allowance_bits, verdict.window_bits, verdict.wire_bits) == (500, 1500, 0)
    assert verdict.latency_ms["select"] is None


async def test_a_scored_frame_was_not_metered():
    scored = make_scored()
    verdict = Fuse(False, {0.0: 1.0}, UNITS).decide(EdgeOnly(scored, Drop.ERROR))
    assert verdict.answer is scored.answer
    assert (verdict.allowance_bits, verdict.window_bits) == (None, None)


async def test_a_frame_without_an_answer_still_gets_a_verdict():
    frame = make_frame(seq=4)
    verdict = Fuse(False, {0.0: 1.0}, UNITS).decide(EdgeOnly(frame, Drop.SUPERSEDED))
    assert verdict.frame is frame
    assert (verdict.answer, verdict.edge, verdict.server) == (None, None, None)
    assert (verdict.origin, verdict.drop) == ("edge", Drop.SUPERSEDED)
    assert verdict.latency_ms["score"] is None


async def test_a_reply_that_could_not_be_fused_keeps_what_was_sent():
    answered = Answered(make_sent(), make_reply(), 1.0)
    verdict = Fuse(False, {0.0: 1.0}, UNITS).decide(EdgeOnly(answered, Drop.ERROR))
    assert verdict.answer is verdict.edge
    assert (verdict.server, verdict.drop) == (None, Drop.ERROR)
    assert verdict.wire_bits == answered.sent.evidence.wire_bits


async def test_a_class_that_the_edge_does_not_know_is_an_error():
    reply = Reply(0, None, (CLASSES,), (-0.1,), 3, 1.0)
    with pytest.raises(IndexError):
        Fuse(False, {0.0: 1.0}, UNITS).decide(Answered(make_sent(), reply, 1.0))
