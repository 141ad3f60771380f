"""The contract of an event source: it turns the MQTT messages of another system into sightings of events.

A new system needs one module with a class of this form, and one row in `stages.nvr.open`. `EventCapture` does the
rest: the connection, the queue, the choice of pictures, decoding, and the frames of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sagelink.pipeline.types import FrameEvent

MAX_PICTURE_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one message reports about an event."""

    event: FrameEvent
    picture: bytes | None = None  # a coded picture, if the message holds one
    ended: bool = False  # the event is over
    sub_label: str | None = None  # the other system's own finer name for the object


class PictureMissing(Exception):
    """There is no picture of the event now; the text gives the reason. `outage`: the other system does not answer
    requests, whatever the event; the reason is then logged once, and the event waits longer."""

    def __init__(self, reason: str, outage: bool) -> None:
        super().__init__(reason)
        self.outage = outage


class EventSource(Protocol):
    """Stateless, or with a bounded state. Called in the event loop only."""

    @property
    def topics(self) -> Sequence[str]:
        """Topic filters to subscribe to."""
        ...

    @property
    def fetches(self) -> bool:
        """Whether `fetch` gets pictures; if not, they come in messages."""
        ...

    def receive(self, topic: str, payload: bytes) -> Sequence[Sighting]:
        """The sightings in one message; none for a message that is malformed or not wanted. Never raises."""
        ...

    async def fetch(self, event: FrameEvent, ended: bool) -> bytes:
        """The coded picture of an event, at most `MAX_PICTURE_BYTES`. Raises PictureMissing; it is then
        called again a little later, for some time."""
        ...

    async def missed(self, since_s: float) -> Sequence[Sighting]:
        """Sightings of the events since a time of day, which messages may not have reported; none where the other
        system does not store events. Raises PictureMissing when it does not answer."""
        ...
