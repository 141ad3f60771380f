"""A receiver of events that puts each action into the queue on disk, for every receiver outside of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.outbox import Outbox
from sagelink.stages.event_rules import EventAction
from sagelink.stages.sinks.events import event_record, record_key


class EventQueue:
    """An EventReceiver. The queue is closed by its owner: deliveries go on after the last action."""

    def __init__(
        self,
        outbox: Outbox,
        receivers: Sequence[str],
        notify: Callable[[], None],
        keeper: DiskKeeper | None = None,
    ) -> None:
        """`notify`: called after each action, in the thread of `take`. `keeper`: makes room on a full disk."""
        self._keeper = keeper
        self._outbox = outbox
        self._receivers = receivers
        self._notify = notify

    def take(self, action: EventAction) -> None:
        self.put(event_record(action))

    def put(self, record: dict[str, Any]) -> None:
        """Puts an action as in events.jsonl; one that the queue has or had already changes nothing."""
        put = partial(self._put, record)
        if self._keeper is not None:
            self._keeper.attempt(put)
        else:
            try:
                put()
            except OSError as error:
                raise SagelinkError(f"events cannot be stored: {error.strerror}") from error
        self._notify()

    def _put(self, record: dict[str, Any]) -> None:
        self._outbox.put(self._receivers, record_key(record), to_json(record), time.time())

    def close(self) -> None:
        """The queue stays open."""
