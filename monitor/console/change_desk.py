"""Changes that people make at cameras over the console: sends them, and keeps who changed what and when."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sagelink.monitor.console.events_seen import shown
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.json_text import to_json

log = logging.getLogger(__name__)

_MAX_KEPT = 500
_MAX_BYTES = 400  # of a change
SETTINGS = ("uplink", "gate", "threshold", "pace", "paused", "request")


class ChangeOutcome(Protocol):
    """A camera's answer."""

    @property
    def done(self) -> bool: ...
    @property
    def text(self) -> str: ...


Send = Callable[[str, bytes], Awaitable[ChangeOutcome]]  # takes camera and JSON; raises SagelinkError without an answer


@dataclass(frozen=True, slots=True)
class KeptChange:
    """One change that somebody asked for."""

    wall_s: float
    who: str  # address of the sender
    camera: str
    change: str  # JSON object
    outcome: str  # `done`, or why not

    def values(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.__slots__}


class ChangeDesk:
    """`refusal_of`: why a camera cannot be changed; None if it can."""

    def __init__(self, send: Send, refusal_of: Callable[[str], str | None], policies: list[str]) -> None:
        """`policies`: names of the gate policies, for the page."""
        self._send = send
        self.refusal_of = refusal_of
        self.policies = policies
        self._kept: deque[KeptChange] = deque(maxlen=_MAX_KEPT)
        self._listeners: list[Callable[[KeptChange], None]] = []

    def listen(self, kept: Callable[[KeptChange], None]) -> None:
        """Adds a callback that gets each change with its outcome."""
        self._listeners.append(kept)

    def restore(self, kept: list[KeptChange]) -> None:
        """Changes of earlier consoles, oldest first."""
        self._kept.extendleft(reversed(kept))

    def kept(self, camera: str | None = None) -> list[KeptChange]:
        """Newest first."""
        return [change for change in reversed(self._kept) if camera in (None, change.camera)]

    async def change(self, camera: str, values: Mapping[str, Any], who: str) -> None:
        """Asks the camera for a change, and waits for its answer. Raises UsageError when the change is wrong or the
        camera refuses it; SagelinkError when nobody answers."""
        text = to_json({key: values[key] for key in SETTINGS if key in values}, compact=True)
        if (refusal := self.refusal_of(camera)) is not None:
            raise UsageError(refusal)
        if text == "{}" or len(text) > _MAX_BYTES:
            raise UsageError(f"accepted: a JSON object with one of {', '.join(SETTINGS)}")
        try:
            outcome = await self._send(camera, text.encode())
        except SagelinkError as error:
            self._keep(who, camera, text, str(error))
            raise
        self._keep(who, camera, text, "done" if outcome.done else outcome.text)
        if not outcome.done:
            raise UsageError(shown(outcome.text))

    def _keep(self, who: str, camera: str, change: str, outcome: str) -> None:
        kept = KeptChange(time.time(), who, camera, shown(change), shown(outcome))
        log.info("event=change camera=%r by=%s change=%r outcome=%r", camera, who, kept.change, kept.outcome)
        self._kept.append(kept)
        for listener in self._listeners:
            listener(kept)
