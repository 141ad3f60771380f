"""Changes the budget's rate and the gate of a running run. All methods are called from the run's event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.config import GateConfig
from sagelink.pipeline.config_errors import explain
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.quantities import format_rate, parse_rate

if TYPE_CHECKING:
    from sagelink.stages.confidence_gate import Gate

log = logging.getLogger(__name__)

_MAX_RATE_BYTES = 32


class Control:
    """The one interface for changes to a run, used by the dashboard, MQTT and programs."""

    def __init__(self, budget: UplinkBudget, gate: Gate) -> None:
        self._budget = budget
        self._gate = gate
        self._listeners: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        """Adds a callback that is called after each change."""
        self._listeners.append(changed)

    @property
    def rate_bps(self) -> float | None:
        return self._budget.rate_bps

    def change_budget(self, rate: object) -> None:
        """`rate`: such as `64kbit/s`, a number of bit/s, or `unlimited`. Raises UsageError; then nothing changes."""
        try:
            rate_bps = parse_rate(rate)
        except ValueError as error:
            raise UsageError(f"budget: {error}") from None
        self._budget.change_rate(rate_bps)
        self._notify("budget", format_rate(rate_bps))

    def take_budget(self, payload: bytes) -> None:
        """Takes a payload of the MQTT topic `budget/set`; an invalid one is logged and changes nothing."""
        try:
            self.change_budget(payload.decode(errors="replace") if len(payload) <= _MAX_RATE_BYTES else "")
        except UsageError as error:
            log.warning("event=budget_refused error=%r", str(error))

    def change_gate(self, policy: object, threshold: object = None) -> None:
        """`policy`: its name; `threshold`: None for the policy's default. Raises UsageError; then nothing changes."""
        try:
            config = GateConfig.model_validate({"policy": policy, "threshold": threshold})
        except ValidationError as errors:
            raise UsageError(f"gate.{explain(errors, GateConfig)[0]}") from None
        self._gate.change(config)
        self._notify("gate", config.policy)

    def pause(self, camera: str, paused: bool) -> None:
        """From now on, frames of the camera keep their edge answer; or no longer."""
        (self._gate.paused.add if paused else self._gate.paused.discard)(camera)
        self._notify("paused", f"{camera} {paused}")

    def request(self, camera: str) -> None:
        """The next message that the budget pays for is sent whatever the gate says, also while the camera is paused."""
        self._gate.requested.add(camera)
        log.info("event=requested camera=%s", camera)

    def is_paused(self, camera: str) -> bool:
        return camera in self._gate.paused

    def state(self) -> dict[str, Any]:
        """The current settings, as JSON values."""
        return {
            "uplink": format_rate(self._budget.rate_bps),
            "rate_bps": self._budget.rate_bps,
            "window_s": self._budget.window_s,
            "gate": self._gate.config.policy,
            "threshold": self._gate.threshold,
        }

    def _notify(self, setting: str, value: str) -> None:
        log.info("event=changed %s=%r", setting, value)
        for changed in self._listeners:
            changed()
