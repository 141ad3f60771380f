"""Carries out an operator's commands at the edge: about settings, and about heads. Answers say what holds then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.files.json_text import to_json
from sagelink.stages.run_control import Control
from sagelink.transport.operator_commands import Action

_BY = "an operator over MQTT"
_ACCEPTED = ("uplink", "gate", "threshold", "pace", "paused", "request")


class CommandTarget:
    """What commands change: the settings of a run, and its heads."""

    def __init__(self, control: Control, change_head: Callable[[str, Action, bytes, str], str]) -> None:
        self._control = control
        self._change_head = change_head

    def carry_out(self, camera: str, action: Action, content: bytes, head: str) -> str:
        """`content`: of a head file, or a JSON object of settings to change (docs/console.md). `head`: name of a
        further head; empty: the first. Returns what holds now. Raises ValueError with the reason why nothing
        changed."""
        if action is not Action.CHANGE:
            return self._change_head(camera, action, content, head)
        try:
            self._change(camera, _parse(content))
        except UsageError as error:
            raise ValueError(str(error)) from None
        return to_json(camera_settings(self._control, camera), compact=True)

    def _change(self, camera: str, values: dict[str, Any]) -> None:
        if "uplink" in values:
            self._control.change_budget(values["uplink"], _BY)
        if "gate" in values:
            self._control.change_gate(values["gate"], values.get("threshold"), _BY)
        if "pace" in values:
            self._control.change_pace(values["pace"], _BY)
        if "paused" in values:
            if not isinstance(values["paused"], bool):
                raise UsageError("paused: accepted: true or false")
            self._control.pause(camera, values["paused"], _BY)
        if "request" in values:
            if values["request"] is not True:
                raise UsageError("request: accepted: true")
            self._control.request(camera)


def camera_settings(control: Control, camera: str) -> dict[str, Any]:
    """The settings that hold for a camera, as plain JSON values."""
    return control.state() | {"paused": control.is_paused(camera)}


def _parse(content: bytes) -> dict[str, Any]:
    try:
        values = parse_json(content)
    except DocumentError as error:
        raise UsageError(f"a change must be a JSON object; {error}") from None
    if not isinstance(values, dict) or not set(values) <= set(_ACCEPTED):
        raise UsageError(f"a change must be a JSON object; accepted keys: {', '.join(_ACCEPTED)}")
    if "threshold" in values and "gate" not in values:
        raise UsageError("threshold goes with gate, the name of a policy")
    if len(values.keys() - {"threshold"}) > 1:
        raise UsageError("one setting at a time, so that a refusal changes nothing")
    return values
