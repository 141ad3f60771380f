"""Wires the events of a run: the sink that finds them, events.jsonl, the queue on disk, and the receivers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sagelink.app.edge.disk import RunDisk
from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.command import EventCommand
from sagelink.monitor.events.delivery import Attempt, EventDelivery
from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.events.mqtt import EventLink, EventPublisher
from sagelink.monitor.events.picture_delivery import PictureDelivery, PictureLink
from sagelink.monitor.events.queue import EventQueue
from sagelink.monitor.events.recovery import end_open_events, last_records, unqueued
from sagelink.monitor.events.webhook import Webhook, open_webhook
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.disk_keeper import is_full
from sagelink.pipeline.files.outbox import Outbox, OutboxItem
from sagelink.pipeline.files.output_files import EVENT_PICTURES, EVENT_QUEUE, EVENTS, PICTURE_QUEUE, cannot_open
from sagelink.pipeline.files.picture_queue import PictureQueue
from sagelink.pipeline.tasks import background
from sagelink.pipeline.urls import is_webrtc
from sagelink.stages.sinks.contract import Sink
from sagelink.stages.sinks.event_pictures import EventPictures
from sagelink.stages.sinks.event_uploads import EventUploads
from sagelink.stages.sinks.events import EventLines, EventReceiver, EventSink

if TYPE_CHECKING:
    from sagelink.transport.link import EdgeLink

log = logging.getLogger(__name__)

_KEEP_S = 30 * 86_400.0  # in the queue
_DRAIN_S = 0.6  # for the last events of a run; the rest waits on disk for the next run
_MQTT, _WEBHOOK, _COMMAND = "mqtt", "webhook", "command"
T = TypeVar("T")
_Send = Callable[[OutboxItem], Awaitable[Attempt]]


class EventService:
    """The events of one run, and their delivery."""

    def __init__(self, config: Config, labels: tuple[str, ...], live: bool, disk: RunDisk) -> None:
        """Raises UsageError for a receiver that can never work."""
        self._config = config
        self._labels = labels
        self._live = live
        self._disk = disk
        self.charges = AlertCharges()
        self.feed = EventFeed()
        self._outbox: Outbox | None = None
        self._queue: EventQueue | None = None
        self._deliveries: list[EventDelivery] = []
        self._uploads: EventUploads | None = None
        self._picture_queue: PictureQueue | None = None
        self._picture_delivery: PictureDelivery | None = None
        events = config.events
        charges = self.charges if events.webhook.metered else AlertCharges()
        self._webhook: Webhook | None = open_webhook(events.webhook, charges) if events.webhook.url else None
        by_mqtt = events.mqtt and config.ship.server and not is_webrtc(config.ship.server)
        chosen = {_MQTT: by_mqtt, _WEBHOOK: events.webhook.url, _COMMAND: events.command}
        self._receivers = [name for name, value in chosen.items() if value] if events.rules else []
        if {_WEBHOOK, _COMMAND} & {*self._receivers} and self._queue_path is None:
            raise UsageError(
                "events.webhook and events.command: events wait on disk for their receiver; accepted: together with "
                "output.out or events.queue"
            )
        if events.upload is not None and not (by_mqtt and events.rules and events.pictures and config.output.out):
            raise UsageError(
                "events.upload: pictures of events are sent over MQTT, from the output folder; accepted: together with "
                "ship.server: mqtt://..., events.mqtt, events.pictures, a rule and output.out"
            )

    @property
    def _queue_path(self) -> Path | None:
        out = self._config.output.out
        return self._config.events.queue or (None if out is None else out / EVENT_QUEUE)

    def open(self) -> None:
        """Ends the events of an earlier run in the output folder that was killed, and opens the queue with all that is
        not delivered yet. Raises SagelinkError."""
        out = self._config.output.out
        if out is not None:
            try:
                end_open_events(out)
            except OSError as error:
                if self._disk.keeper is None or not is_full(error):
                    raise cannot_open(out / EVENTS, error) from None
        if not self._receivers:
            return
        path = self._queue_path
        is_new = path is None or not path.exists()
        self._outbox = outbox = Outbox(path, "events.queue", time.time(), _KEEP_S)
        if dropped := outbox.drop_receivers(self._receivers):
            log.warning("event=events_dropped count=%d reason='their receiver is no longer configured'", dropped)
        self._queue = EventQueue(outbox, self._receivers, self._notify, self._disk.keeper)
        if out is not None and not is_new:
            for record in unqueued(last_records(out), outbox.known_keys):
                self._queue.put(record)
        if self._config.events.upload is not None:
            assert out is not None, "checked at the start"
            self._open_uploads(out, self._config.events.upload)

    def _open_uploads(self, out: Path, max_bytes: int) -> None:
        is_new = not (path := out / PICTURE_QUEUE).exists()
        self._picture_queue = PictureQueue(path)
        self._uploads = EventUploads(
            out / EVENT_PICTURES, self._picture_queue, max_bytes, self._notify_picture, self._disk.keeper
        )
        if not is_new:
            self._uploads.recover(last_records(out), time.time())

    def sinks(self) -> Iterator[Sink]:
        """The sinks that find events and keep their pictures, as soon as each is open. Raises SagelinkError."""
        events, out = self._config.events, self._config.output.out
        if not events.rules:
            return
        receivers: list[EventReceiver] = []
        if out is not None:
            receivers.append(_opened(out / EVENTS, lambda path: EventLines(self._disk.lines(path), path)))
        if self._queue is not None:
            receivers.append(self._queue)
        if out is not None and events.pictures:
            pictures = _opened(
                out / EVENT_PICTURES, lambda folder: EventPictures(folder, self._labels, events.keep, self._disk.keeper)
            )
            yield pictures
            receivers.append(pictures)
            if self._uploads is not None:
                yield self._uploads
                receivers.append(self._uploads)
        classes = self._config.frigate.classes
        yield EventSink(events.rules, self._labels, self._live, classes, [*receivers, self.feed])

    @contextlib.asynccontextmanager
    async def delivering(self, link: EdgeLink) -> AsyncIterator[None]:
        """Delivers while the body runs."""
        async with contextlib.AsyncExitStack() as stack:
            if self._outbox is not None:
                for receiver in self._receivers:
                    delivery = EventDelivery(self._outbox, receiver, *self._target(receiver, link))
                    await stack.enter_async_context(background(delivery.run()))
                    self._deliveries.append(delivery)
            if self._picture_queue is not None:
                assert isinstance(link, PictureLink)
                self._picture_delivery = PictureDelivery(self._picture_queue, link, self.charges)
                await stack.enter_async_context(background(self._picture_delivery.run()))
            yield

    async def drain(self) -> None:
        """Waits a short time for the delivery of the last events."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                for delivery in self._deliveries:
                    await delivery.drain()

    def close(self) -> None:
        """Closes the queues. Says what the next run will deliver."""
        if self._outbox is not None:
            with contextlib.suppress(SagelinkError, OSError):
                self._tell_waiting(self._outbox.count_waiting())
        for queue in (self._outbox, self._picture_queue):
            if queue is not None:
                queue.close()

    def _tell_waiting(self, waiting: int) -> None:
        if waiting:
            what = "they waited in memory" if self._queue_path is None else "the next run with this queue delivers them"
            log.warning("event=events_left waiting=%d reason=%r", waiting, what)

    def _notify(self) -> None:
        for delivery in self._deliveries:
            delivery.notify()

    def _notify_picture(self) -> None:
        if self._picture_delivery is not None:
            self._picture_delivery.notify()

    def _target(self, receiver: str, link: EdgeLink) -> tuple[str, _Send]:
        """The receiver for log lines, and its function that makes an attempt."""
        if receiver == _MQTT:
            assert isinstance(link, EventLink)
            return self._config.ship.server, EventPublisher(link, self.charges).send
        if receiver == _WEBHOOK:
            assert self._webhook is not None
            return self._webhook.service.url, self._webhook.send
        return "command", EventCommand(self._config.events.command).send


def _opened(path: Path, make: Callable[[Path], T]) -> T:
    try:
        return make(path)
    except OSError as error:
        raise cannot_open(path, error) from None
