"""The requests of an event source to the other system: pictures of events, and the events that no message reported.

They are read after each connection to the broker: those that began in the hour before the start, or before the loss of
the connection, and since.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence

from sagelink.stages.nvr.contract import EventSource, PictureMissing, Sighting
from sagelink.stages.nvr.event_book import EventBook

log = logging.getLogger(__name__)

FETCHES = 4  # pictures that are fetched at the same time
CATCH_UP_S = 3600.0  # before the start or the loss: also events whose end was missed
_RETRY_TICK_S = 0.2  # between two looks for pictures that are to be fetched again
_WAITS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 120.0)  # before each attempt to read missed events
_LOG_EVERY_S = 5.0  # answers about different events may differ


class EventRequests:
    """Of one event source. Used in the event loop only."""

    def __init__(
        self,
        source: EventSource,
        book: EventBook,
        shown: str,
        take: Callable[[Sequence[Sighting]], None],
        on_picture: Callable[[], None],
    ) -> None:
        """`shown`: the source in log lines. `take` gets the sightings of missed events. `on_picture`: called after each
        fetch."""
        self._source = source
        self._book = book
        self._shown = shown
        self._take = take
        self._on_picture = on_picture
        self._since_s = time.time() - CATCH_UP_S  # time of day: events that began later are read
        self._connected = asyncio.Event()
        self._to_fetch = asyncio.Event()
        self._trouble: str | None = None
        self._logged_s = -math.inf

    def wake(self) -> None:
        """There may be a picture to fetch."""
        self._to_fetch.set()

    def connected(self) -> None:
        """Messages arrive from now on: the events before can be read."""
        self._connected.set()

    def disconnected(self) -> None:
        """Messages are missed from now on."""
        self._since_s = min(self._since_s, time.time() - CATCH_UP_S)

    async def fetch(self) -> None:
        """Fetches one picture after the other, until it is cancelled."""
        while True:
            wanted = self._book.next_fetch(time.monotonic())
            if wanted is None:
                self._to_fetch.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_TICK_S if self._book.waiting else None):
                        await self._to_fetch.wait()
                continue
            event, ended = wanted
            data, away = None, False
            try:
                data = await self._source.fetch(event, ended)
                self._note(None)
            except PictureMissing as error:
                away = error.outage
                if away:
                    self._note(str(error))
            self._book.fetched(event.id, data, time.monotonic(), away)
            self._on_picture()

    async def catch_up(self) -> None:
        """Reads the missed events after each connection, until it is cancelled."""
        while True:
            await self._connected.wait()
            self._connected.clear()
            for wait_s in _WAITS_S:
                await asyncio.sleep(wait_s)
                try:
                    self._take(await self._source.missed(self._since_s))
                except PictureMissing as error:
                    self._note(str(error))
                else:
                    self._note(None)
                    self._since_s = math.inf
                    break

    def _note(self, trouble: str | None) -> None:
        """Logs a change, unless it follows another one so closely that they may be about different events."""
        now_s = time.monotonic()
        if trouble == self._trouble or now_s < self._logged_s + _LOG_EVERY_S:
            return
        self._trouble, self._logged_s = trouble, now_s
        if trouble is None:
            log.info("source=%s event=pictures_arrive", self._shown)
        else:
            log.warning("source=%s event=picture_missing reason=%r", self._shown, trouble)
