"""A receiver of events that puts each action into the queue on disk, for every receiver outside of this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.outbox import Outbox
from sagelink.stages.event_rules import EventAction
from sagelink.stages.sinks.events import event_record, record_key

log = logging.getLogger(__name__)


class EventQueue:
    """An EventReceiver. The queue is closed by its owner: deliveries go on after the last action."""

    def __init__(self, outbox: Outbox, receivers: Sequence[str], notify: Callable[[], None]) -> None:
        """`notify`: called after each action, in the thread of `take`."""
        self._outbox = outbox
        self._receivers = receivers
        self._notify = notify
        self._discarding = False

    def take(self, action: EventAction) -> None:
        self.put(event_record(action))

    def put(self, record: dict[str, Any]) -> None:
        """Puts an action as in events.jsonl; one that the queue has or had already changes nothing."""
        stored = self._outbox.put(self._receivers, record_key(record), to_json(record), time.time())
        if bool(stored.discarded) != self._discarding:
            self._discarding = bool(stored.discarded)
            if self._discarding:
                log.warning("event=event_queue_full reason='the oldest events that wait are discarded'")
        self._notify()

    def close(self) -> None:
        """The queue stays open."""
