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
_MAX_PAUSE_S = 600.0


class Reconnector:
    """Calls `connect` for ever.

    `connect` opens one connection, calls `established` when it is ready for use, waits until it ends, and returns the
    reason.
    """

    def __init__(
        self,
        kind: Literal["broker", "server"],
        url: str,
        connect: Callable[[], Awaitable[str]],
        pause_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`pause_s`: the least pause after an attempt that did not connect."""
        self._kind = kind
        self._url = self._tried = url  # all addresses, and the one of them that is tried or in use
        self._connect = connect
        self._pause_s = pause_s
        self._backoff = Backoff()
        self._attempted = asyncio.Event()
        self._connected_s: float | None = None  # since when
        self.trouble: str | None = f"{url}: not connected yet"  # None while connected

    async def first_attempt(self) -> str | None:
        """Waits until the first attempt is over. Returns None, or the reason why it failed."""
        await self._attempted.wait()
        return self.trouble

    def established(self) -> None:
        log.info("event=connected %s=%s", self._kind, self._tried)
        self.trouble = None
        self._connected_s = time.monotonic()
        self._attempted.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self._connected_s = None
            reason = await self._connect()
            self._disconnected(reason)
            pause_s = 0.0 if self._connected_s is not None else self._pause_s()
            if self._connected_s is not None and time.monotonic() - self._connected_s > _STABLE_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s(min(pause_s, _MAX_PAUSE_S)))

    def _disconnected(self, reason: str) -> None:
        trouble = f"{self._url}: {reason}"
        if trouble != self.trouble:  # logged once per change, not once per attempt
            self.trouble = trouble
            log.warning("event=disconnected %s=%s reason=%r", self._kind, self._url, reason)
        self._attempted.set()
