"""Delivers events from the queue on disk to one receiver, in order, again and again until the receiver has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.files.outbox import Outbox, OutboxItem
from sagelink.pipeline.threads import Worker

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0
_LAST_WRITE_S = 0.5
_AT_ONCE = 64  # items that are read from the queue at a time


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt to deliver an event, and its reason."""

    outcome: Literal["delivered", "refused", "later"]  # refused: the receiver will never take it
    reason: str = ""


class EventDelivery:
    """Runs in the event loop; `notify` may be called in any thread."""

    def __init__(
        self, outbox: Outbox, receiver: str, shown: str, send: Callable[[OutboxItem], Awaitable[Attempt]]
    ) -> None:
        """`shown`: the receiver for log lines, without credentials. `send`: makes one attempt."""
        self._outbox = outbox
        self._receiver = receiver
        self._shown = shown
        self._send = send
        self._news = asyncio.Event()
        self._idle = asyncio.Event()  # the queue is empty, or the receiver is away
        self._backoff = Backoff(_FIRST_WAIT_S, _MAX_WAIT_S)
        self._trouble: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk: Worker | None = None

    def notify(self) -> None:
        """There is a new event in the queue."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()
        if self._trouble is None:
            self._idle.clear()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        self._disk = Worker(f"events-{self._receiver}")
        try:
            while True:
                self._news.clear()
                items = await self._disk.call(self._outbox.waiting, self._receiver, _AT_ONCE)
                if not items:
                    self._idle.set()
                    await self._news.wait()
                for item in items:
                    if not await self._try(item):
                        await asyncio.sleep(self._backoff.next_s())
                        break
        finally:
            written = threading.Event()
            self._disk.close(written.set)
            written.wait(_LAST_WRITE_S)  # else the next run would deliver again what was confirmed just now

    async def drain(self) -> None:
        """Waits until the queue is empty, or the receiver is away."""
        await asyncio.sleep(0)  # lets the calls of `notify` before take effect
        await self._idle.wait()

    async def _try(self, item: OutboxItem) -> bool:
        """As `_deliver`; waits while the disk is full, on which each attempt is noted."""
        try:
            return await self._deliver(item)
        except OSError as error:
            self._note_trouble(str(error.strerror))
            return False

    async def _deliver(self, item: OutboxItem) -> bool:
        """One attempt; returns whether the next event may follow."""
        assert self._disk is not None
        await self._disk.call(self._outbox.attempt, item)
        attempt = await self._send(item)
        if attempt.outcome == "later":
            self._note_trouble(attempt.reason)
            return False
        if attempt.outcome == "delivered":
            await self._disk.call(self._outbox.confirm, item)
        else:
            log.warning("event=event_refused receiver=%s id=%s reason=%r", self._shown, item.key, attempt.reason)
            await self._disk.call(self._outbox.give_up, item)
        self._note_trouble(None)
        self._backoff.reset()
        return True

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble is not None:
            self._idle.set()
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("event=events_delivered receiver=%s", self._shown)
        else:
            log.warning("event=events_wait receiver=%s reason=%r", self._shown, trouble)
