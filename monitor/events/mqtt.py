"""Publishes events to the topic of their camera, over the connection of the link to the server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.delivery import Attempt
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.outbox import OutboxItem


@runtime_checkable
class EventLink(Protocol):
    """A link that carries events besides evidence."""

    def pay_event(self, camera: str, payload_bytes: int) -> bool:
        """Charges an event that is about to be published; False if the budget has no room for it now."""
        ...

    async def connected(self) -> None:
        """Waits until the link is connected."""
        ...

    async def publish_event(self, camera: str, payload: bytes) -> str | None:
        """Publishes an event that is charged. Returns None when the broker has it, or why the broker refuses it.
        Raises ConnectionError when the connection ends first."""
        ...


@dataclass(frozen=True, slots=True)
class EventPublisher:
    """Makes the attempts to publish."""

    link: EventLink
    charges: AlertCharges

    async def send(self, item: OutboxItem) -> Attempt:
        """Waits for the connection and for room in the budget, then publishes once."""
        camera, payload = alert(item.content)
        await self.link.connected()
        await self.charges.wait_for(lambda: self.link.pay_event(camera, len(payload)))
        try:
            refusal = await self.link.publish_event(camera, payload)
        except ConnectionError as error:
            return Attempt("later", str(error))
        return Attempt("delivered") if refusal is None else Attempt("later", refusal)


def alert(content: str) -> tuple[str, bytes]:
    """Camera, and a short payload: the keys of events.jsonl without the camera, which the topic names, and without
    nulls; times in milliseconds and probabilities in thousandths."""
    values = json.loads(content)
    camera = values.pop("camera")
    short = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
    return camera, to_json({key: value for key, value in short.items() if value is not None}, compact=True).encode()
