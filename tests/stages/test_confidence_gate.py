"""The gate's policies and thresholds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.answers import ProvisionalAnswer, SceneEstimate, TaughtClasses
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Drop, EdgeOnly
from sagelink.stages import confidence_gate
from sagelink.stages.confidence_gate import Gate, margin, min_entropy, register_policy
from tests.fakes import make_answer, make_metered, make_scored

SURE, UNSURE, UNIFORM = (0.97, 0.01, 0.01, 0.01), (0.48, 0.47, 0.03, 0.02), (0.25, 0.25, 0.25, 0.25)


async def offloads(config: GateConfig, probs) -> bool:
    metered = make_metered(make_scored(probs=probs))
    outcome = await Gate(config).process(metered)
    if outcome is metered:
        return True
    assert outcome == EdgeOnly(metered, Drop.GATE)
    return False


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GateConfig(), (False, True, True)),
        (GateConfig(policy="min_entropy"), (False, True, True)),
        (GateConfig(policy="min_entropy", threshold=1.5), (False, False, True)),
        (GateConfig(policy="min_entropy", threshold=2.1), (False, False, False)),
        (GateConfig(policy="min_entropy", threshold=0.0), (True, True, True)),
        (GateConfig(policy="margin"), (False, True, True)),
        (GateConfig(policy="margin", threshold=0.005), (False, False, True)),
        (GateConfig(policy="margin", threshold=0.0), (False, False, False)),
        (GateConfig(policy="margin", threshold=0.99), (True, True, True)),
        (GateConfig(policy="always"), (True, True, True)),
        (GateConfig(policy="never"), (False, False, False)),
    ],
)
async def test_policies(config, expected):
    assert tuple([await offloads(config, probs) for probs in (SURE, UNSURE, UNIFORM)]) == expected


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20), st.floats(0.01, 5))
def test_min_entropy_depends_on_the_top_probability_only(weights, threshold):
    probs = [weight / sum(weights) for weight in weights]
    top = max(probs)
    if abs(2**-threshold - top) > 1e-5:
        assert min_entropy(make_answer(probs), threshold) is (top < 2**-threshold)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20), st.floats(0.01, 1))
def test_margin_is_the_difference_of_the_two_largest_probabilities(weights, threshold):
    probs = [weight / sum(weights) for weight in weights]
    second, first = sorted(probs)[-2:]
    if abs(first - second - threshold) > 1e-5:
        assert margin(make_answer(probs), threshold) is (first - second < threshold)


def test_an_unknown_policy_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"gate\.policy: unknown policy 'alwys' \(did you mean 'always'\?\)") as caught:
        Gate(GateConfig(policy="alwys"))
    assert "accepted: min_entropy, margin, always, never" in str(caught.value)


async def test_a_policy_can_be_registered(monkeypatch):
    monkeypatch.setattr(confidence_gate, "_POLICIES", dict(confidence_gate._POLICIES))
    thresholds = []
    register_policy("mine", lambda answer, threshold: thresholds.append(threshold) or False, default_threshold=0.7)
    assert not await offloads(GateConfig(policy="mine"), SURE)
    assert not await offloads(GateConfig(policy="mine", threshold=0.2), SURE)
    assert thresholds == [0.7, 0.2]


async def test_a_change_applies_from_the_next_frame_on_and_an_invalid_one_changes_nothing():
    stage = Gate(GateConfig(policy="never"))
    metered = make_metered(make_scored(probs=SURE))
    assert isinstance(await stage.process(metered), EdgeOnly)
    stage.change(GateConfig(policy="always"))
    assert await stage.process(metered) is metered
    with pytest.raises(UsageError, match="unknown policy"):
        stage.change(GateConfig(policy="alwys"))
    assert stage.config.policy == "always"
    assert await stage.process(metered) is metered


def test_of_taught_classes_the_scene_and_the_frame_itself_must_be_sure() -> None:
    gate = Gate(GateConfig())
    taught = TaughtClasses(b"0" * 16, ("a", "b", "c", "d"), 0.5, 0.0, ((1, 1.0),))
    sure, unsure = make_answer(SURE), make_answer(UNSURE)
    assert gate.sends(sure, unsure, taught)
    assert gate.sends(unsure, sure, taught)
    assert not gate.sends(sure, sure, taught)
    assert not gate.sends(sure, unsure, None)


async def test_of_a_tracked_camera_with_taught_classes_the_first_frames_of_a_doubt_wait() -> None:
    taught = TaughtClasses(b"0" * 16, ("a", "b", "c", "d"), 0.5, 0.0, ((1, 1.0),))
    estimate = SceneEstimate(make_answer(SURE).log_probs, 0.0, 1.0, 1.0, None, math.nan, 0, 0.0)
    for classes, expected in ((taught, [False, False, False, True]), (None, [False, True, True, True])):
        gate, sent = Gate(GateConfig()), []
        for seq, probs in enumerate((SURE, UNSURE, UNSURE, UNSURE)):
            scored = replace(make_scored(seq, seq / 10, probs), taught=classes)
            provisional = ProvisionalAnswer(scored.answer, scored.answer, estimate, ())
            outcome = await gate.process(replace(make_metered(scored), provisional=provisional))
            sent.append(not isinstance(outcome, EdgeOnly))
        assert sent == expected
