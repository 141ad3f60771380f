"""What an edge does with an operator's changes: the settings change, or a reason comes back."""

from __future__ import annotations

import json

import pytest

from sagelink.app.edge.operator_commands import CommandTarget
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.types import Drop, EdgeOnly, Metered
from sagelink.stages.confidence_gate import EndRequest, Gate
from sagelink.stages.run_control import Control
from sagelink.transport.operator_commands import Action
from tests.fakes import make_metered, make_scored


@pytest.fixture
def gate() -> Gate:
    return Gate(GateConfig(policy="never"))


@pytest.fixture
def target(gate: Gate) -> CommandTarget:
    control = Control(UplinkBudget(64_000, 1.0), gate)
    return CommandTarget(control, lambda camera, action, content, head: f"{camera} {action.name} {len(content)} {head}")


def change(target: CommandTarget, **values: object) -> dict[str, object]:
    return json.loads(target.carry_out("camera", Action.CHANGE, json.dumps(values).encode(), ""))


def test_each_setting_changes_and_the_answer_says_what_holds(target):
    assert change(target, uplink="8kbit/s")["rate_bps"] == 8000
    held = change(target, gate="margin", threshold=0.3)
    assert (held["gate"], held["threshold"], held["rate_bps"], held["paused"]) == ("margin", 0.3, 8000, False)
    assert change(target, pace="adaptive")["pace"] == "adaptive"
    assert change(target, paused=True)["paused"] is True
    assert change(target)["paused"] is True
    assert target.carry_out("door", Action.PUSH, b"head", "light") == "door PUSH 4 light"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"uplink": "fast"}', "a rate is written like"),
        (b'{"gate": "alwys"}', "did you mean 'always'"),
        (b'{"uplink": "1kbit/s", "gate": "fast"}', "one setting at a time"),
        (b'{"pace": "evn"}', "did you mean 'even'"),
        (b'{"threshold": 1}', "threshold goes with gate"),
        (b'{"colour": 1}', "accepted keys: uplink"),
        (b'{"paused": "yes"}', "paused: accepted: true or false"),
        (b'{"request": false}', "request: accepted: true"),
        (b"[]", "a JSON object"),
        (b"\xff", "a JSON object"),
    ],
)
def test_a_wrong_change_changes_nothing(target, content, reason):
    before = change(target)
    with pytest.raises(ValueError, match=reason):
        target.carry_out("camera", Action.CHANGE, content, "")
    assert change(target) == before


async def test_a_paused_camera_sends_only_what_is_asked_for(target, gate):
    change(target, gate="always")
    change(target, paused=True)

    async def passed() -> Metered | EdgeOnly:
        return await gate.process(make_metered(make_scored()))

    dropped = await passed()
    assert isinstance(dropped, EdgeOnly)
    assert dropped.reason is Drop.PAUSED
    change(target, request=True)
    for _ in range(2):  # until a message has been sent
        asked = await passed()
        assert isinstance(asked, Metered)
        assert asked.requested
    await EndRequest(gate).process(asked)
    assert isinstance(await passed(), EdgeOnly)
    change(target, paused=False)
    assert isinstance(await passed(), Metered)
