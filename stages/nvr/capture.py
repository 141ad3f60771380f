"""An event source as a source of the stage graph: one frame for each picture of an event.

Unlike the pictures of a camera, a picture of an event waits for its turn. At most `in_flight` frames of the source are
in the graph at a time. Before each, the source waits until the budget grants a useful message, or the event has waited
for `max_wait`. A broker that is away never ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.tasks import background
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Frame, FrameEvent, Pixels, Verdict
from sagelink.stages.nvr.contract import EventSource, Sighting
from sagelink.stages.nvr.event_book import UNREADABLE, BookLimits, EventBook, ReadyPicture
from sagelink.stages.nvr.event_requests import FETCHES, EventRequests
from sagelink.stages.nvr.picture_of_event import cut_to_object, decode_picture
from sagelink.stages.regions import Regions
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.connection import BrokerConnection

log = logging.getLogger(__name__)

_TICK_S = 0.05  # between two looks at the budget
_EXPIRE_EVERY_S = 1.0


class EventObserver(Protocol):
    """Learns what the source learns; called in the event loop."""

    def observe(self, event: FrameEvent, sub_label: str | None) -> bool:
        """There is news of an event; returns whether it has an answer. `sub_label`: the other system's."""
        ...

    def closed(self, event: FrameEvent, reason: str | None) -> None:
        """The event gives no further frame. `reason`: why it gave none at all; None if it gave one."""
        ...


@dataclass(frozen=True, slots=True)
class EventTerms:
    """How an event source works through its events."""

    book: BookLimits
    in_flight: int = 2  # frames in the graph
    max_wait_s: float = 60.0  # for bits
    crop: bool = True


class EventCapture:
    """A Capture; also an async context manager, which the graph enters."""

    live = True
    video = False
    length: int | None = None

    def __init__(
        self,
        config: CameraConfig,
        source: EventSource,
        broker: Broker,
        terms: EventTerms,
        duration_s: float | None = None,
        max_frames: int | None = None,
    ) -> None:
        """Opens nothing yet."""
        self.name = config.name
        self.source = redact(config.source)
        self.captured = 0
        self.skipped = 0
        self._config = config
        self._events = source
        self._terms = terms
        self._observer: EventObserver | None = None
        self._duration_s = duration_s
        self._max_frames = max_frames
        self._regions = Regions(config.roi, config.mask)
        self._book = EventBook(terms.book, source.fetches, self._closed)
        self._connection = BrokerConnection(
            broker,
            self._session,
            identifier=f"sagelink-events-{secrets.token_hex(4)}",
            on_message=self._receive,
        )
        self._connections = 0
        self._in_graph = 0
        self._missed = 0
        self._has_bits: Callable[[], bool] = lambda: True
        self._news = asyncio.Event()
        self._requests = EventRequests(source, self._book, self.source, self._take, self._news.set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._running = contextlib.AsyncExitStack()
        self._ended = False

    def report_to(self, observer: EventObserver, over: Sequence[str] = ()) -> None:
        """From now on the observer gets the news of events. `over`: ids of events that an earlier run has answered;
        their news does not count."""
        self._observer = observer
        self._book.close_earlier(over)

    def _closed(self, event: FrameEvent, reason: str | None) -> None:
        if self._observer is not None:
            self._observer.closed(event, reason)

    def limit_by(self, has_bits: Callable[[], bool]) -> None:
        """From now on the next event waits until `has_bits` returns True."""
        self._has_bits = has_bits

    def health(self) -> dict[str, object]:
        """State and counts as plain values, with the keys of a camera; docs/outputs.md lists them."""
        trouble = self._connection.trouble
        state = "ended" if self._ended else "connecting" if trouble else "running"
        return {
            "state": state,
            "fault": "unreachable" if trouble and (self._connections or self._ended) else None,
            "connections": self._connections,
            "recoveries": max(0, self._connections - 1),
            "missed": self._missed,
        }

    def close(self) -> None:
        """Nothing is open outside of the graph."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(f"capture-{self.name}")
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._worker.close)
            requests = (self._requests.catch_up(), *(self._requests.fetch() for _ in range(FETCHES)))
            for coroutine in (self._connection.run(), self._expire(), *requests):
                await stack.enter_async_context(background(coroutine))
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await self._running.aclose()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        first_ns = time.monotonic_ns()
        end_s = math.inf if self._duration_s is None else time.monotonic() + self._duration_s
        while self.captured != self._max_frames and (ready := await self._next_picture(end_s)) is not None:
            frame = await self._frame(ready, first_ns)
            if frame is not None:
                self.captured += 1
                yield frame

    async def _next_picture(self, end_s: float) -> ReadyPicture | None:
        """The next picture whose turn it is; None when the time is over."""
        while (now_s := time.monotonic()) < end_s:
            oldest = self._book.oldest()
            free = oldest is not None and self._in_graph < self._terms.in_flight
            if oldest is not None and free:
                event, ready_s = oldest
                if event.private or now_s - ready_s > self._terms.max_wait_s or self._has_bits():
                    return self._book.take()
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_TICK_S if free else math.inf, end_s - now_s)):
                    await self._news.wait()
        return None

    async def _frame(self, ready: ReadyPicture, first_ns: int) -> Frame | None:
        """Decodes a picture; None if that fails."""
        assert self._worker is not None
        began_ns = time.monotonic_ns()
        self._in_graph += 1
        try:
            pixels = await self._worker.call(self._pixels, ready)
        except (OSError, ValueError) as error:
            self._in_graph -= 1
            self.skipped += 1
            log.warning("source=%s event=unreadable id=%s error=%r", self.source, ready.event.id, str(error))
            self._book.settled(ready.event.id, UNREADABLE, time.monotonic())
            return None
        capture_ns = time.monotonic_ns()
        return Frame(
            seq=self.captured,
            camera=self.name,
            capture_ns=capture_ns,
            stream_s=(capture_ns - first_ns) / 1e9,
            pixels=pixels,
            capture_ms=(capture_ns - began_ns) / 1e6,
            wall_ns=time.time_ns(),
            event=ready.event,
        )

    def _pixels(self, ready: ReadyPicture) -> Pixels:
        pixels = decode_picture(ready.data)
        if self._terms.crop and self._events.fetches:
            pixels = cut_to_object(pixels, ready.event.box)
        return self._regions(pixels)

    def settle(self, verdict: Verdict) -> None:
        """A frame has its verdict. Called in any thread; verdicts of other cameras are ignored."""
        event = verdict.frame.event
        if event is None or verdict.frame.camera != self.name or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._settled, event.id)

    def _settled(self, event_id: str) -> None:
        self._in_graph -= 1
        self._book.settled(event_id, None, time.monotonic())
        self._news.set()

    async def _session(self, client: BrokerClient) -> None:
        for topic in self._events.topics:
            await client.must_subscribe(topic, qos=1)
        self._connections += 1
        self._connection.established()
        self._requests.connected()
        try:
            await client.until_disconnected()
        finally:
            self._requests.disconnected()

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if not retained:  # else of an event before this connection
            self._take(self._events.receive(topic, payload))

    def _take(self, sightings: Sequence[Sighting]) -> None:
        now_s = time.monotonic()
        for sighting in sightings:
            if not self._book.knows(sighting.event.id):
                self._missed += sighting.picture is not None
                continue
            answered = self._observer is not None and self._observer.observe(sighting.event, sighting.sub_label)
            self._book.observe(sighting, now_s, answered)
        self._requests.wake()
        self._news.set()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_EVERY_S)
            self._book.expire(time.monotonic())
