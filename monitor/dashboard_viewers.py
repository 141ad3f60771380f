"""Viewers of the page: each reads the feed at its own pace, and none is ever waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, Protocol

from starlette.websockets import WebSocketDisconnect

from sagelink.monitor.previews import live_picture
from sagelink.monitor.run_view import RunView
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Verdict

_TICK_S = 0.1
_STATE_EVERY_S = 0.5
_PICTURES_A_TICK = 2  # of all cameras together: those that waited longest
_HISTORY = 600  # events that a new viewer gets
_EVENTS_A_TICK = 300
_MOST_VIEWERS = 16
_SEND_S = 5.0  # who takes longer over one message is gone, or as good as

_LEFT = (WebSocketDisconnect, RuntimeError, OSError)  # what a socket raises whose other end has gone


class Socket(Protocol):
    """What a viewer needs of a WebSocket."""

    async def accept(self) -> None: ...
    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def receive_json(self) -> Any: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class DashboardViewer:
    """One open page."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.visible = asyncio.Event()
        self.visible.set()
        self.place = -_HISTORY
        self.shown: dict[str, int] = {}  # by camera: the picture that it has
        self.state_due_s = 0.0

    async def send(self, data: str | bytes) -> None:
        """Raises TimeoutError when the viewer does not keep up."""
        async with asyncio.timeout(_SEND_S):
            await (self.socket.send_bytes(data) if isinstance(data, bytes) else self.socket.send_text(data))

    async def listen(self) -> None:
        """A page says when it is hidden, and when it is seen again."""
        while True:
            said = await self.socket.receive_json()
            if isinstance(said, dict) and said.get("visible") is False:
                self.visible.clear()
            else:
                self.visible.set()


class ViewerHub:
    """All viewers; a picture is coded once for all of them, in the coder's thread."""

    def __init__(self, run: RunView, coder: Worker) -> None:
        self._run = run
        self._coder = coder
        self._viewers = 0
        self._coded: dict[str, tuple[int, asyncio.Task[bytes]]] = {}

    async def serve(self, viewer: DashboardViewer) -> None:
        """Until the viewer leaves."""
        await viewer.socket.accept()
        if self._viewers >= _MOST_VIEWERS:
            await viewer.socket.close(1013, "too many viewers")
            return
        self._viewers += 1
        tasks = {asyncio.create_task(viewer.listen()), asyncio.create_task(self._show(viewer))}
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._viewers -= 1
            for task in tasks:
                task.add_done_callback(lambda task: task.cancelled() or task.exception())  # told below, if at all
                task.cancel()
        for error in [task.exception() for task in ended]:
            if isinstance(error, TimeoutError | ValueError | KeyError):
                with contextlib.suppress(*_LEFT):
                    await viewer.socket.close(1008, "too slow, or not understood")
            elif error is not None and not isinstance(error, _LEFT):
                raise error

    async def _show(self, viewer: DashboardViewer) -> None:
        run = self._run
        await viewer.send(_text("run", {"title": run.title, "models": run.models, "policies": run.policies}))
        while True:
            await viewer.visible.wait()
            batch = run.feed.since(viewer.place, _EVENTS_A_TICK if viewer.place >= 0 else _HISTORY)
            viewer.place = batch.next
            if batch.events or batch.missed:
                await viewer.send(f'{{"type":"frames","missed":{batch.missed},"frames":[{",".join(batch.events)}]}}')
            if time.monotonic() >= viewer.state_due_s:
                viewer.state_due_s = time.monotonic() + _STATE_EVERY_S
                await viewer.send(_text("state", run.now()))
            waiting = [(n, v) for camera, (n, v) in run.feed.latest().items() if viewer.shown.get(camera, -1) < n]
            waiting.sort(key=lambda pair: viewer.shown.get(pair[1].frame.camera, -1))
            for number, verdict in waiting[:_PICTURES_A_TICK]:
                viewer.shown[verdict.frame.camera] = number
                await viewer.send(await self._picture(number, verdict))
            await asyncio.sleep(_TICK_S)

    async def _picture(self, number: int, verdict: Verdict) -> bytes:
        """Of a camera's frame, or of an older one that is coded already or about to be."""
        camera = verdict.frame.camera
        known = self._coded.get(camera)
        if known is None or (known[0] < number and known[1].done()):
            call = self._coder.call(live_picture, number, verdict, self._run.grid, self._run.resize)
            known = self._coded[camera] = (number, asyncio.create_task(call))
        return await asyncio.shield(known[1])


def _text(kind: str, values: dict[str, Any]) -> str:
    return json.dumps({"type": kind} | values, separators=(",", ":"))
