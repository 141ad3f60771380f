"""Changes of a running run: accepted and refused values, and notified listeners."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.pipeline.budget.pacing import PaceName
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.errors import UsageError
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.run_control import Control


@pytest.fixture
def control() -> Control:
    return Control(UplinkBudget(64_000, 2.0), Gate(GateConfig()))


def test_a_change_reaches_budget_and_gate_and_notifies_listeners():
    budget, gate, states = UplinkBudget(64_000, 2.0), Gate(GateConfig()), []
    control = Control(budget, gate)
    control.listen(lambda: states.append(control.state()))
    control.change_budget("0.1Mbit/s", "a test")
    control.change_gate("margin", "0.25")
    assert budget.limit_bits == 200_000
    assert (gate.config.policy, gate.threshold) == ("margin", 0.25)
    assert [state["uplink"] for state in states] == ["100 kbit/s"] * 2
    control.change_budget("unlimited", "a test")
    control.change_gate("min_entropy", by="a test")
    state = control.state()
    assert (state.pop("changed_by"), state.pop("changed_wall_s") > 0) == ("a test", True)
    assert state == {
        "uplink": "unlimited", "rate_bps": None, "window_s": 2.0, "gate": "min_entropy", "threshold": 0.5,
        "pace": "as-needed",
    }  # fmt: skip


@pytest.mark.parametrize("rate", [None, "", "0", "-1kbit/s", "fast", "1e999", True, [], {}, float("nan")])
def test_an_invalid_rate_changes_nothing(control, rate):
    before = control.state()
    with pytest.raises(UsageError, match="budget"):
        control.change_budget(rate, "a test")
    assert control.state() == before


@pytest.mark.parametrize(
    ("policy", "threshold", "message"),
    [
        ("alwys", None, "did you mean 'always'"),
        (None, None, "gate.policy"),
        ("margin", "much", "gate.threshold"),
        ("margin", -1, "gate.threshold"),
    ],
)
def test_an_invalid_gate_changes_nothing(control, policy, threshold, message):
    before = control.state()
    with pytest.raises(UsageError, match=message):
        control.change_gate(policy, threshold)
    assert control.state() == before


@pytest.mark.parametrize(
    ("pace", "message"),
    [("evn", "did you mean 'even'"), (None, "accepted: even"), ([], "accepted"), ("even", "no quota")],
)
def test_an_invalid_pace_changes_nothing(pace, message):
    def check(pace: PaceName) -> None:
        raise UsageError("no quota")

    control = Control(UplinkBudget(64_000, 2.0), Gate(GateConfig()), check_pace=check)
    with pytest.raises(UsageError, match=message):
        control.change_pace(pace, "a test")
    assert control.state()["pace"] == "as-needed"


def test_trust_is_forgotten_for_one_camera_or_all():
    trusts = {name: EdgeTrust() for name in ("gate", "yard")}

    def learn() -> None:
        for number in range(10):
            for trust in trusts.values():
                trust.learn(0, np.log(np.array([0.01, 0.99], np.float32)), 0.5, float(number))

    control = Control(UplinkBudget(64_000, 2.0), Gate(GateConfig()), trusts=trusts)
    learn()
    control.forget_trust("gate", "a test")
    assert [trust.weight(0) for trust in trusts.values()] == [1, 0]
    control.forget_trust(None, "a test")
    assert [trust.weight(0) for trust in trusts.values()] == [1, 1]
    learn()
    for unknown in ("door", {}, 7):
        with pytest.raises(UsageError, match="accepted: gate, yard"):
            control.forget_trust(unknown, "a test")
    assert trusts["yard"].weight(0) == 0


def test_an_invalid_payload_over_mqtt_is_logged(control, caplog):
    control.take_budget(b"32kbit/s", False, "a broker")
    for payload in (b"lots", b"", b"\xff\xfe", b"9" * 100_000):
        control.take_budget(payload, False, "a broker")
    assert control.rate_bps == 32_000
    assert len([record for record in caplog.records if "budget_refused" in record.getMessage()]) == 4


def test_a_retained_message_over_mqtt_does_not_change_the_budget(control, caplog):
    """It would set the budget of every later run, whatever its own settings say."""
    control.take_budget(b"unlimited", True, "a broker")
    assert (control.rate_bps, control.state()["changed_by"]) == (64_000, None)
    assert "retained" in caplog.text
