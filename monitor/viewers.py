"""Open pages and their WebSockets: how many there may be, what they say, and how a slow one is disconnected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

MAX_VIEWERS = 16
SEND_S = 5.0

_DISCONNECTED = (WebSocketDisconnect, RuntimeError, OSError)  # raised by a socket whose other end has gone


class Socket(Protocol):
    """The part of a WebSocket that a viewer uses."""

    async def accept(self) -> None: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def receive_json(self) -> Any: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class Viewer:
    """One open page: its socket, and whether it is visible."""

    def __init__(self, socket: Socket, send_s: float = SEND_S) -> None:
        """`send_s`: a viewer that takes longer for one message is disconnected."""
        self.socket = socket
        self._send_s = send_s
        self.visible = asyncio.Event()
        self.visible.set()

    async def send(self, data: str | bytes) -> None:
        """Raises TimeoutError when the viewer is too slow."""
        async with asyncio.timeout(self._send_s):
            await (self.socket.send_bytes(data) if isinstance(data, bytes) else self.socket.send_text(data))

    async def listen(self) -> None:
        """Receives what the page says."""
        while True:
            message = await self.socket.receive_json()
            if isinstance(message, dict):
                self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        """Takes a message of the page: whether it is visible."""
        if message.get("visible") is False:
            self.visible.clear()
        else:
            self.visible.set()


class ViewerPlaces:
    """The places for viewers of one server."""

    def __init__(self, max_viewers: int = MAX_VIEWERS) -> None:
        self._max_viewers = max_viewers
        self._viewers = 0

    async def serve(self, viewer: Viewer, updates: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `updates`, which sends to the viewer, until the viewer leaves or is too slow."""
        await viewer.socket.accept()
        if self._viewers >= self._max_viewers:
            await viewer.socket.close(1013, "too many viewers")
            return
        self._viewers += 1
        tasks = {asyncio.create_task(viewer.listen()), asyncio.create_task(updates())}
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewers -= 1
            for task in tasks:
                task.add_done_callback(
                    lambda task: task.cancelled() or task.exception()
                )  # so that asyncio does not report it
                task.cancel()
        for error in [task.exception() for task in ended]:
            if isinstance(error, TimeoutError | ValueError | KeyError | RecursionError):
                with contextlib.suppress(*_DISCONNECTED):
                    await viewer.socket.close(1008, "too slow, or an invalid message")
            elif error is not None and not isinstance(error, _DISCONNECTED):
                raise error
