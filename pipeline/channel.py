"""A bounded, closable queue between two stages, with a policy for the case that it is full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Policy = Literal["wait", "drop_oldest", "latest"]


class ChannelClosed(Exception):
    """The channel is closed: for `get` also empty, for `put` no longer open."""


class Channel(Generic[T]):
    """Holds up to `capacity` items, first in first out. The policy says what happens when it is full:

    - `wait`: the producer waits; no item is lost.
    - `drop_oldest`: the new item displaces the oldest one.
    - `latest`: there is room for one item per `key`. A new item replaces the item of its key at the same position,
      so the consumer always gets the newest item, and the keys in turn.

    `put` returns a displaced item to the producer; no item is dropped silently.
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
        self.accepted = 0  # items put, including items that were displaced later
        self.delivered = 0
        self.displaced = 0
        self.closed = False
        self._items: deque[T] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> T | None:
        """Adds an item; returns the item that it displaced, or None. Raises ChannelClosed after `close`."""
        while self.policy == "wait" and len(self._items) >= self.capacity and not self.closed:
            self._writable.clear()
            await self._writable.wait()
        return self._put(item)

    def put_now(self, item: T) -> T | None:
        """Like `put`, for producers that cannot wait; not for a channel with the policy `wait`."""
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
        """Stores the item; returns the item that it displaced, or None."""
        if self.policy == "latest":
            for position, other in enumerate(self._items):
                if self._key(other) == self._key(item):
                    self._items[position] = item
                    return other
        displaced = self._items.popleft() if self.policy == "drop_oldest" and len(self) >= self.capacity else None
        self._items.append(item)
        return displaced

    async def get(self) -> T:
        """Waits for the next item. Raises ChannelClosed if the channel is closed and empty."""
        while not self._items:
            if self.closed:
                raise ChannelClosed(self.name)
            self._readable.clear()
            await self._readable.wait()
        self.delivered += 1
        self._writable.set()
        return self._items.popleft()

    async def get_several(self, max_items: int) -> list[T]:
        """Waits for the next item; returns it with the other waiting items, at most `max_items` in total."""
        items = [await self.get()]
        while self._items and len(items) < max_items:
            items.append(await self.get())
        return items

    def close(self) -> None:
        """Accepts no more items; the waiting items can still be taken out."""
        self.closed = True
        self._readable.set()
        self._writable.set()

    def drain(self) -> list[T]:
        """Takes out all waiting items, without waiting."""
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
