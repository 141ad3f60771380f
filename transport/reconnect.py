"""Keeps a link connected: runs one connection after another, with growing pauses, and logs each change once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from sagelink.pipeline.backoff import Backoff

log = logging.getLogger(__name__)

_STABLE_S = 5.0  # a connection that lasted so long resets the pauses


class Reconnector:
    """Calls `connect` for ever.

    `connect` opens one connection, calls `established` when it is ready for use, waits until it ends, and returns the
    reason; None asks for the next attempt at once.
    """

    def __init__(
        self, kind: Literal["broker", "server"], url: str, connect: Callable[[], Awaitable[str | None]]
    ) -> None:
        self._kind = kind
        self._url = url
        self._connect = connect
        self._backoff = Backoff()
        self._attempted = asyncio.Event()
        self.trouble: str | None = f"{url}: not connected yet"  # None while connected

    async def first_attempt(self) -> str | None:
        """Waits until the first attempt is over. Returns None, or the reason why it failed."""
        await self._attempted.wait()
        return self.trouble

    def established(self) -> None:
        log.info("event=connected %s=%s", self._kind, self._url)
        self.trouble = None
        self._attempted.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            began_s = time.monotonic()
            reason = await self._connect()
            if reason is None:
                continue
            self._disconnected(reason)
            if time.monotonic() - began_s > _STABLE_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    def _disconnected(self, reason: str) -> None:
        trouble = f"{self._url}: {reason}"
        if trouble != self.trouble:  # logged once per change, not once per attempt
            self.trouble = trouble
            log.warning("event=disconnected %s=%s reason=%r", self._kind, self._url, reason)
        self._attempted.set()
