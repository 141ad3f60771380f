"""Decides which pictures of which events become frames. Pure: sightings and pictures in, frames to make out; no I/O.

An event gets its first picture as soon as there is one, and further ones when the other system reports a clearly higher
score, up to a maximum number. A picture that waits is replaced by a newer one of its event. Events come in order of
their first wait. Everything is bounded; an event that leaves without a frame leaves with a reason.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sagelink.pipeline.types import FrameEvent
from sagelink.stages.nvr.contract import Sighting

NO_PICTURE, OVERFLOW, UNREADABLE = "no picture", "too many events", "unreadable picture"

_MIN_GAIN = 0.05  # of the score, for a further picture
_FETCH_S, _FETCH_AWAY_S = 20.0, 3600.0  # a picture is fetched for so long, while there is none; while nobody answers
_RETRY_S = 0.4  # the first wait after a failed fetch; it doubles
_MAX_RETRY_S, _MAX_RETRY_AWAY_S = 4.0, 30.0
_LATE_S = 10.0  # a picture in a message may come so long after the end of its event
_MAX_CLOSED = 4096  # events that are over, remembered so that late messages do not start them again

OnClose = Callable[[FrameEvent, str | None], None]  # event, and the reason why it gave no frame; None if it gave one


@dataclass(frozen=True, slots=True)
class BookLimits:
    """Bounds of the memory for events."""

    frames: int = 2  # pictures of an event
    events: int = 1024  # that are in progress
    waiting: int = 256  # pictures that wait, or are being fetched
    waiting_bytes: int = 64_000_000


@dataclass(frozen=True, slots=True)
class ReadyPicture:
    """A picture that is to become a frame."""

    event: FrameEvent
    data: bytes


@dataclass(slots=True)
class _OpenEvent:
    event: FrameEvent
    asked: int = 0  # pictures so far, the waiting one included
    asked_score: float = 0.0
    ended_s: float | None = None
    since_s: float | None = None  # a picture waits since then; None if none does
    data: bytes | None = None  # the picture that waits; None: it is to be fetched
    ready_s: float = 0.0  # `data` is there since then, or an earlier picture was
    stale: bool = False  # a better picture than `data` can be fetched
    fetching: bool = False
    tries: int = 0  # failed fetches of the picture that waits
    retry_s: float = 0.0  # the next fetch is due then
    last: int = 0  # hash of the last picture taken
    in_graph: int = 0
    fault: str | None = None  # why the last picture gave no frame
    frames: int = 0


class EventBook:
    """The events of one source that are in progress."""

    def __init__(self, limits: BookLimits, fetches: bool, on_close: OnClose) -> None:
        """`fetches`: pictures are fetched; else they come with sightings."""
        self._limits = limits
        self._fetches = fetches
        self._on_close = on_close
        self._entries: OrderedDict[str, _OpenEvent] = OrderedDict()  # by event; the one with the latest news last
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._waiting: OrderedDict[str, None] = OrderedDict()  # events whose picture waits, in order
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def knows(self, event_id: str) -> bool:
        """Whether news of the event counts: it is in progress or new, not over."""
        return event_id not in self._closed

    def close_earlier(self, event_ids: Sequence[str]) -> None:
        """Events that are over since before this book began."""
        self._closed |= dict.fromkeys(event_ids)
        self._trim_closed()

    def observe(self, sighting: Sighting, now_s: float, answered: bool = False) -> None:
        """Takes a sighting of an event that is not over. `answered`: it has an answer; if the event is new here, the
        answer is from before this book began, and no picture is needed when it has ended."""
        event = sighting.event
        entry = self._entries.get(event.id)
        if entry is None:
            entry = self._entries[event.id] = _OpenEvent(event)
            if answered and sighting.ended:
                self._close(entry)
                return
            self._evict(now_s)
        self._entries.move_to_end(event.id)
        news = entry.ended_s is None
        if news:
            entry.event = replace(event, private=event.private or entry.event.private)
        elif event.private:
            entry.event = replace(entry.event, private=True)
        if sighting.ended and news:
            entry.ended_s = now_s
        if sighting.picture is not None:
            self._offer(entry, sighting.picture, now_s)
        elif self._fetches and news:
            self._ask(entry, now_s)
        self._close_if_done(entry, now_s)

    def _offer(self, entry: _OpenEvent, data: bytes, now_s: float) -> None:
        if entry.since_s is not None:
            self._bytes += len(data) - len(entry.data or b"")
            entry.data = data
        elif entry.asked < self._limits.frames and hash(data) != entry.last:
            self._wait(entry, now_s)
            entry.data, entry.ready_s = data, now_s
            self._bytes += len(data)
        self._shed(now_s)

    def _ask(self, entry: _OpenEvent, now_s: float) -> None:
        """Asks for a picture if there is none yet, or if the score rose."""
        score = entry.event.score or 0.0
        better = score >= entry.asked_score + _MIN_GAIN
        if entry.since_s is not None:
            if better:
                entry.stale, entry.asked_score = entry.data is not None or entry.fetching, score
        elif entry.asked == 0 or (better and entry.asked < self._limits.frames):
            self._wait(entry, now_s)
            self._shed(now_s)

    def _wait(self, entry: _OpenEvent, now_s: float) -> None:
        entry.asked += 1
        entry.asked_score = entry.event.score or 0.0
        entry.since_s, entry.tries, entry.retry_s = now_s, 0, now_s
        self._waiting[entry.event.id] = None

    def _shed(self, now_s: float) -> None:
        """Gives up the longest waiting pictures while there are too many."""
        limits = self._limits
        while self._waiting and (len(self._waiting) > limits.waiting or self._bytes > limits.waiting_bytes):
            entry = self._entries[next(iter(self._waiting))]
            self._stop_waiting(entry)
            entry.fault = OVERFLOW
            self._close_if_done(entry, now_s)

    def _stop_waiting(self, entry: _OpenEvent) -> None:
        self._bytes -= len(entry.data or b"")
        entry.data, entry.since_s, entry.stale = None, None, False
        self._waiting.pop(entry.event.id, None)

    def next_fetch(self, now_s: float) -> tuple[FrameEvent, bool] | None:
        """The next event whose picture is to be fetched, and whether it has ended; None if none is due."""
        if not self._fetches:
            return None
        for event_id in self._waiting:
            entry = self._entries[event_id]
            due = entry.data is None or entry.stale
            if due and not entry.fetching and entry.retry_s <= now_s:
                entry.fetching, entry.stale = True, False
                return entry.event, entry.ended_s is not None
        return None

    def fetched(self, event_id: str, data: bytes | None, now_s: float, away: bool = False) -> None:
        """The end of a fetch: a picture, or None, which leads to another attempt for some time. `away`: the other
        system does not answer."""
        entry = self._entries.get(event_id)
        if entry is None:
            return
        entry.fetching = False
        if entry.since_s is None:  # it was given up meanwhile
            self._close_if_done(entry, now_s)
        elif data is not None:
            self._bytes += len(data) - len(entry.data or b"")
            entry.ready_s = now_s if entry.data is None else entry.ready_s
            entry.data = data
            self._shed(now_s)
        elif entry.data is None:
            fetch_s, max_retry_s = (_FETCH_AWAY_S, _MAX_RETRY_AWAY_S) if away else (_FETCH_S, _MAX_RETRY_S)
            wait_s = min(max_retry_s, _RETRY_S * 2.0 ** min(entry.tries, 10))
            entry.tries += 1
            entry.retry_s = now_s + wait_s
            if entry.retry_s > entry.since_s + fetch_s:
                self._stop_waiting(entry)
                entry.asked -= 1  # so that the next news of the event asks again
                entry.fault = NO_PICTURE
                self._close_if_done(entry, now_s)

    def oldest(self) -> tuple[FrameEvent, float] | None:
        """The first event whose picture is ready, and since when it is."""
        for event_id in self._waiting:
            entry = self._entries[event_id]
            if entry.data is not None:
                return entry.event, entry.ready_s
        return None

    def take(self) -> ReadyPicture | None:
        """The picture of `oldest`, which becomes a frame now."""
        found = self.oldest()
        if found is None:
            return None
        event = found[0]
        entry = self._entries[event.id]
        data = entry.data or b""
        self._stop_waiting(entry)
        entry.last = hash(data)
        entry.in_graph += 1
        return ReadyPicture(event, data)

    def settled(self, event_id: str, fault: str | None, now_s: float) -> None:
        """A picture that was taken has its verdict, or could not be used: `fault`."""
        entry = self._entries.get(event_id)
        if entry is None:
            return
        entry.in_graph -= 1
        if fault is None:
            entry.frames += 1
        else:
            entry.asked -= 1
        entry.fault = fault
        self._close_if_done(entry, now_s)

    def expire(self, now_s: float) -> None:
        """Closes ended events for which no picture came in time."""
        for entry in [entry for entry in self._entries.values() if entry.ended_s is not None]:
            self._close_if_done(entry, now_s)

    def _close_if_done(self, entry: _OpenEvent, now_s: float) -> None:
        if entry.ended_s is None or entry.since_s is not None or entry.in_graph or entry.fetching:
            return
        if entry.asked or entry.fault or now_s - entry.ended_s > _LATE_S:
            self._close(entry)

    def _evict(self, now_s: float) -> None:
        """Forgets the event without news for the longest time that no frame in the graph belongs to."""
        while len(self._entries) > self._limits.events:
            idle = next((entry for entry in self._entries.values() if not entry.in_graph), None)
            if idle is None:
                return
            self._stop_waiting(idle)
            if not idle.frames:
                idle.fault = OVERFLOW
            self._close(idle)

    def _close(self, entry: _OpenEvent) -> None:
        if self._entries.pop(entry.event.id, None) is None:
            return
        self._closed[entry.event.id] = None
        self._trim_closed()
        self._on_close(entry.event, None if entry.frames else entry.fault or NO_PICTURE)

    def _trim_closed(self) -> None:
        while len(self._closed) > _MAX_CLOSED:
            self._closed.popitem(last=False)
