"""What may be changed while a run goes on: the budget's rate and the gate. Called from the run's event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.config import GateConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.quantities import format_rate, parse_rate

if TYPE_CHECKING:
    from sagelink.stages.gate import Gate

log = logging.getLogger(__name__)

_LONGEST_RATE = 32  # bytes


class Control:
    """One handle for every place that changes a run: the dashboard, MQTT, a program."""

    def __init__(self, budget: UplinkBudget, gate: Gate) -> None:
        self._budget = budget
        self._gate = gate
        self._listeners: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        """`changed` is called after each change."""
        self._listeners.append(changed)

    @property
    def rate_bps(self) -> float | None:
        return self._budget.rate_bps

    def change_budget(self, rate: object) -> None:
        """`64kbit/s`, a number of bit/s, `unlimited`. Raises UsageError, and then nothing changes."""
        try:
            rate_bps = parse_rate(rate)
        except ValueError as error:
            raise UsageError(f"budget: {error}") from None
        self._budget.change_rate(rate_bps)
        self._tell("budget", format_rate(rate_bps))

    def take_budget(self, payload: bytes) -> None:
        """What `budget/set` brings over MQTT. What makes no sense is logged, and nothing changes."""
        try:
            self.change_budget(payload.decode(errors="replace") if len(payload) <= _LONGEST_RATE else "")
        except UsageError as error:
            log.warning("event=budget_refused error=%r", str(error))

    def change_gate(self, policy: object, threshold: object = None) -> None:
        """A policy's name and a threshold; None is the policy's own. Raises UsageError, and then nothing changes."""
        try:
            config = GateConfig.model_validate({"policy": policy, "threshold": threshold})
        except ValidationError as errors:
            first = errors.errors()[0]
            raise UsageError(f"gate.{first['loc'][0]}: {first['msg']}; got {first['input']!r}") from None
        self._gate.change(config)
        self._tell("gate", config.policy)

    def state(self) -> dict[str, Any]:
        """What holds now, as plain JSON values."""
        return {
            "uplink": format_rate(self._budget.rate_bps),
            "rate_bps": self._budget.rate_bps,
            "window_s": self._budget.window_s,
            "gate": self._gate.config.policy,
            "threshold": self._gate.threshold,
        }

    def _tell(self, what: str, value: str) -> None:
        log.info("event=changed %s=%r", what, value)
        for changed in self._listeners:
            changed()
