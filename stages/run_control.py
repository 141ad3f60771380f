"""Changes the budget's rate and pace, and the gate of a running run. All methods are called from the run's event
loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sagelink.pipeline.budget.pace_control import PaceControl
from sagelink.pipeline.budget.pacing import PACES, PaceName
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.errors import explain
from sagelink.pipeline.config.stages import GateConfig
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.quantities import format_rate, parse_rate

if TYPE_CHECKING:
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.edge_trust import EdgeTrust

log = logging.getLogger(__name__)

_MAX_RATE_BYTES = 32
_MAX_SHOWN = 40  # characters of a refused value


class Control:
    """The one interface for changes to a run, used by the dashboard, MQTT and programs."""

    def __init__(
        self,
        budget: UplinkBudget,
        gate: Gate,
        pacing: PaceControl | None = None,
        check_pace: Callable[[PaceName], None] = lambda pace: None,
        trusts: Mapping[str, EdgeTrust] | None = None,
    ) -> None:
        """`check_pace`: raises UsageError when the run cannot have a pace. `trusts`: by camera."""
        self._trusts = trusts or {}
        self._budget = budget
        self._pacing = pacing or PaceControl()
        self._check_pace = check_pace
        self._gate = gate
        self._budget_by: str | None = None  # who changed the budget last; None: it is as configured
        self._budget_wall_s: float | None = None
        self._listeners: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        """Adds a callback that is called after each change."""
        self._listeners.append(changed)

    @property
    def rate_bps(self) -> float | None:
        return self._budget.rate_bps

    def change_budget(self, rate: object, by: str) -> None:
        """`rate`: such as `64kbit/s`, a number of bit/s, or `unlimited`. `by`: who changes it, for the log and the
        dashboard. Raises UsageError; then nothing changes."""
        try:
            rate_bps = parse_rate(rate)
        except ValueError as error:
            raise UsageError(f"budget: {error}") from None
        self._budget.change_rate(rate_bps)
        self._budget_by, self._budget_wall_s = by, time.time()
        self._notify("budget", format_rate(rate_bps), by)

    def take_budget(self, payload: bytes, retained: bool, by: str) -> None:
        """Takes a payload of an MQTT topic `budget/set`; an invalid one is logged and changes nothing. One that the
        broker had retained is refused too: it would override the settings of every later run."""
        if retained:
            log.warning(
                "event=budget_refused by=%r error='a retained message: it would set the budget of every later run; "
                "publish it without retain, and clear it with an empty retained message'",
                by,
            )
            return
        try:
            self.change_budget(payload.decode(errors="replace") if len(payload) <= _MAX_RATE_BYTES else "", by)
        except UsageError as error:
            log.warning("event=budget_refused by=%r error=%r", by, str(error))

    def change_gate(self, policy: object, threshold: object = None, by: str = "this program") -> None:
        """`policy`: its name; `threshold`: None for the policy's default; `by`: who changes it. Raises UsageError; then
        nothing changes."""
        try:
            config = GateConfig.model_validate({"policy": policy, "threshold": threshold})
        except ValidationError as errors:
            raise UsageError(f"gate.{explain(errors, GateConfig)[0]}") from None
        self._gate.change(config)
        self._notify("gate", config.policy, by)

    def change_pace(self, pace: object, by: str) -> None:
        """`pace`: `adaptive`, `even` or `as-needed`; `by`: who changes it. Raises UsageError; then nothing changes."""
        name = next((known for known in PACES if known == pace), None)
        if name is None:
            hint = suggest(pace, PACES) if isinstance(pace, str) else ""
            raise UsageError(f"pace: accepted: {', '.join(PACES)}{hint}; got {str(pace)[:_MAX_SHOWN]!r}")
        self._check_pace(name)
        self._pacing.change(name)
        self._notify("pace", name, by)

    def forget_trust(self, camera: object, by: str) -> None:
        """What was learned about the camera's edge answers is forgotten, or about those of all cameras (None). Raises
        UsageError for an unknown camera."""
        if camera is not None and not (isinstance(camera, str) and camera in self._trusts):
            known = ", ".join(self._trusts) or "none: no camera's scenes are tracked"
            raise UsageError(f"camera: accepted: {known}; got {str(camera)[:_MAX_SHOWN]!r}")
        for name, trust in self._trusts.items():
            if camera in (None, name):
                trust.reset()
        self._notify("trust", "forgotten" if camera is None else f"{camera} forgotten", by)

    def pause(self, camera: str, paused: bool, by: str = "this program") -> None:
        """From now on, frames of the camera keep their edge answer; or no longer. `by`: who changes it."""
        (self._gate.paused.add if paused else self._gate.paused.discard)(camera)
        self._notify("paused", f"{camera} {paused}", by)

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
            "pace": self._pacing.pace,
            "changed_by": self._budget_by,
            "changed_wall_s": self._budget_wall_s,
            "gate": self._gate.config.policy,
            "threshold": self._gate.threshold,
        }

    def _notify(self, setting: str, value: str, by: str) -> None:
        log.info("event=changed %s=%r by=%r", setting, value, by)
        for changed in self._listeners:
            changed()
