"""A bounded, closable channel between two stages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Policy = Literal["wait", "drop_oldest", "latest"]


class ChannelClosed(Exception):
    """Nothing more will come out, or nothing more may go in."""


class Channel(Generic[T]):
    """Up to `capacity` items, first in first out.

    When full, `wait` makes the producer wait (nothing is lost), `drop_oldest` displaces the item that waited longest,
    and `latest` has room for one item of each `key`, which a newer one displaces and whose turn it takes: the consumer
    always gets the newest, and of several keys each in turn. A displaced item is handed back to the producer, never
    dropped in silence.
    """

    def __init__(
        self,
        name: str = "channel",
        policy: Policy = "wait",
        capacity: int = 4,
        key: Callable[[T], Hashable] = lambda item: None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity of channel {name!r} is {capacity}; accepted: 1 or more")
        self.name = name
        self.policy = policy
        self.capacity = 1 if policy == "latest" else capacity
        self._key = key
        self.accepted = 0  # items put, displaced ones included
        self.delivered = 0
        self.displaced = 0
        self.closed = False
        self._items: deque[T] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> T | None:
        """Adds an item; returns the one that it displaced, if any. Raises ChannelClosed after `close`."""
        while self.policy == "wait" and len(self._items) >= self.capacity and not self.closed:
            self._writable.clear()
            await self._writable.wait()
        return self._put(item)

    def put_now(self, item: T) -> T | None:
        """As `put`, for producers that cannot wait; not for a channel whose policy is to wait."""
        assert self.policy != "wait"
        return self._put(item)

    def _put(self, item: T) -> T | None:
        if self.closed:
            raise ChannelClosed(self.name)
        displaced = self._make_room(item)
        self.displaced += displaced is not None
        self.accepted += 1
        self._readable.set()
        return displaced

    def _make_room(self, item: T) -> T | None:
        """Puts the item in its place; returns the one that was there."""
        if self.policy == "latest":
            for place, other in enumerate(self._items):
                if self._key(other) == self._key(item):
                    self._items[place] = item
                    return other
        displaced = self._items.popleft() if self.policy == "drop_oldest" and len(self) >= self.capacity else None
        self._items.append(item)
        return displaced

    async def get(self) -> T:
        """Waits for the next item; raises ChannelClosed once the channel is closed and empty."""
        while not self._items:
            if self.closed:
                raise ChannelClosed(self.name)
            self._readable.clear()
            await self._readable.wait()
        self.delivered += 1
        self._writable.set()
        return self._items.popleft()

    async def get_several(self, most: int) -> list[T]:
        """As `get`, with whatever else waits, up to `most` items in all."""
        items = [await self.get()]
        while self._items and len(items) < most:
            items.append(await self.get())
        return items

    def close(self) -> None:
        """No more items go in; those inside can still be taken out."""
        self.closed = True
        self._readable.set()
        self._writable.set()

    def drain(self) -> list[T]:
        """Takes out whatever waits, without waiting."""
        items = list(self._items)
        self._items.clear()
        self._writable.set()
        return items

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                item = await self.get()
            except ChannelClosed:
                return
            yield item
