"""Writes the sub-labels of the queue to Frigate, again and again until Frigate has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.files.outbox import Outbox, OutboxItem
from sagelink.pipeline.threads import Worker
from sagelink.stages.nvr.frigate_api import Delivery, DeliveryResult, FrigateApi
from sagelink.stages.nvr.sub_label import RECEIVER, SubLabel

log = logging.getLogger(__name__)

_AT_ONCE = 4  # requests
_UNKNOWN_EVENT_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # Frigate stores a new event a little later than it reports it
_MAX_WAIT_S = 30.0
_FIRST_WAIT_S = 0.5

OnDone = Callable[[SubLabel, str | None], None]  # the reason why it was not written; None if it was


class SubLabelDelivery:
    """Runs in the event loop; `notify` may be called in any thread."""

    def __init__(self, outbox: Outbox, api: FrigateApi, on_done: OnDone) -> None:
        self._outbox = outbox
        self._api = api
        self._on_done = on_done
        self._news = asyncio.Event()
        self._delivered = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}  # by event
        self._unknown: dict[str, tuple[int, float]] = {}  # events that Frigate does not know: attempts, next one
        self._backoff = Backoff(_FIRST_WAIT_S, _MAX_WAIT_S)
        self._resume_s = 0.0  # no attempt before
        self._trouble: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk: Worker | None = None

    def notify(self) -> None:
        """There is a new sub-label in the queue."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        self._disk = Worker("sub-labels")
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    wait_s = await self._start(group)
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await self._news.wait()
        finally:
            self._disk.close()

    async def drain(self, timeout_s: float) -> None:
        """Waits until the queue is empty, or Frigate does not answer, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._trouble is None and self._outbox.waiting(RECEIVER, 1):
                    await self._delivered.wait()
                    self._delivered.clear()

    async def _start(self, group: asyncio.TaskGroup) -> float | None:
        """Starts requests; returns the time until the next look, None for the next news."""
        assert self._disk is not None
        now_s = time.monotonic()
        if now_s < self._resume_s:
            return self._resume_s - now_s
        room = (1 if self._trouble else _AT_ONCE) - len(self._busy)
        items = await self._disk.call(self._outbox.waiting, RECEIVER, 256)
        for item in items:
            if room <= 0:
                return None
            if item.key in self._busy or self._unknown.get(item.key, (0, 0.0))[1] > now_s:
                continue
            room -= 1
            self._busy[item.key] = group.create_task(self._deliver(item))
        return 0.25 if self._unknown else None

    async def _deliver(self, item: OutboxItem) -> None:
        try:
            result = await self._try(item)
            if result.delivery is Delivery.LATER:
                self._resume_s = time.monotonic() + self._backoff.next_s()
            self._note_trouble(result.reason if result.delivery is Delivery.LATER else None)
        finally:
            self._busy.pop(item.key, None)
            self._news.set()
            self._delivered.set()

    async def _try(self, item: OutboxItem) -> DeliveryResult:
        """One attempt. It ends with LATER while the disk is full, on which attempt and outcome are noted."""
        assert self._disk is not None
        try:
            result = await self._write(item, SubLabel.of(item))
            match result.delivery:
                case Delivery.WRITTEN:
                    await self._disk.call(self._outbox.confirm, item)
                    self._finish(item, None)
                case Delivery.REFUSED:
                    await self._disk.call(self._outbox.give_up, item)
                    log.warning("event=sub_label_refused id=%s reason=%r", item.key, result.reason)
                    self._finish(item, "Frigate refuses the sub-label")
                case Delivery.NO_EVENT:
                    await self._retry_unknown(item)
        except OSError as error:
            return DeliveryResult(Delivery.LATER, str(error.strerror))
        return result

    async def _write(self, item: OutboxItem, sub_label: SubLabel) -> DeliveryResult:
        assert self._disk is not None
        if item.attempted:
            if await self._api.sub_label(sub_label.event) == sub_label.label:
                return DeliveryResult(Delivery.WRITTEN)
        else:
            await self._disk.call(self._outbox.attempt, item)
        return await self._api.set_sub_label(sub_label.event, sub_label.label, sub_label.score, sub_label.camera)

    async def _retry_unknown(self, item: OutboxItem) -> None:
        assert self._disk is not None
        attempts = self._unknown.get(item.key, (0, 0.0))[0]
        if attempts < len(_UNKNOWN_EVENT_WAITS_S):
            self._unknown[item.key] = (attempts + 1, time.monotonic() + _UNKNOWN_EVENT_WAITS_S[attempts])
        else:
            await self._disk.call(self._outbox.give_up, item)
            self._finish(item, "Frigate does not know the event")

    def _finish(self, item: OutboxItem, reason: str | None) -> None:
        self._unknown.pop(item.key, None)
        self._on_done(SubLabel.of(item), reason)

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble is None:
            self._backoff.reset()
            self._resume_s = 0.0
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("event=sub_labels_written url=%s", self._api.url)
        else:
            log.warning("event=sub_labels_wait url=%s reason=%r", self._api.url, trouble)
