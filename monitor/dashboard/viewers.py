"""Sends live state, verdicts and pictures to the open dashboard pages over WebSockets; a slow page delays no other."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.previews import live_picture
from sagelink.monitor.viewers import MAX_VIEWERS, SEND_S, Socket, Viewer, ViewerPlaces
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Verdict

_TICK_S = 0.1
_STATE_EVERY_S = 0.5
_THRIFTY_TICK_S, _THRIFTY_STATE_S = 1.0, 2.0  # without pictures
_PICTURES_PER_TICK = 2  # over all cameras: those that waited longest
_HISTORY = 600  # events that a new viewer gets
_EVENTS_PER_TICK = 300


class DashboardViewer(Viewer):
    """One open page of a dashboard, with its position in the feed."""

    def __init__(self, socket: Socket, send_s: float = SEND_S) -> None:
        super().__init__(socket, send_s)
        self.position = -_HISTORY  # number of its next verdict
        self.shown: dict[str, int] = {}  # number of the picture that the page shows, by camera
        self.state_due_s = 0.0


class ViewerHub:
    """Serves all viewers of a run. A picture is encoded once for all of them, in the encoder's thread."""

    def __init__(
        self,
        run: RunView,
        encoder: Worker,
        tick_s: float = _TICK_S,
        events_per_tick: int = _EVENTS_PER_TICK,
        max_viewers: int = MAX_VIEWERS,
        pictures: bool = True,
    ) -> None:
        """`pictures`: False sends none, and everything else less often. Each viewer gets an update of at most
        `events_per_tick` verdicts each `tick_s` seconds."""
        self._places = ViewerPlaces(max_viewers)
        self._pictures = pictures
        self._tick_s = tick_s if pictures else _THRIFTY_TICK_S
        self._state_every_s = _STATE_EVERY_S if pictures else _THRIFTY_STATE_S
        self._events_per_tick = events_per_tick
        self._run = run
        self._encoder = encoder
        self._encoded: dict[str, tuple[int, asyncio.Task[bytes]]] = {}

    async def serve(self, viewer: DashboardViewer) -> None:
        """Serves a viewer until it leaves, or is too slow."""
        await self._places.serve(viewer, partial(self._send_updates, viewer))

    async def _send_updates(self, viewer: DashboardViewer) -> None:
        run = self._run
        await viewer.send(_text("run", {"title": run.title, "models": run.models, "policies": run.policies}))
        while True:
            await viewer.visible.wait()
            update = run.feed.since(viewer.position, self._events_per_tick if viewer.position >= 0 else _HISTORY)
            viewer.position = update.next
            if update.events or update.missed:
                await viewer.send(f'{{"type":"frames","missed":{update.missed},"frames":[{",".join(update.events)}]}}')
            if time.monotonic() >= viewer.state_due_s:
                viewer.state_due_s = time.monotonic() + self._state_every_s
                await viewer.send(_text("state", run.now()))
            latest = run.feed.latest() if self._pictures else {}
            waiting = [(n, v) for camera, (n, v) in latest.items() if viewer.shown.get(camera, -1) < n]
            waiting.sort(key=lambda pair: viewer.shown.get(pair[1].frame.camera, -1))
            for number, verdict in waiting[:_PICTURES_PER_TICK]:
                viewer.shown[verdict.frame.camera] = number
                await viewer.send(await self._picture(number, verdict))
            await asyncio.sleep(self._tick_s)

    async def _picture(self, number: int, verdict: Verdict) -> bytes:
        """The encoded picture of a frame, or of an older one of that camera whose encoding has begun."""
        camera = verdict.frame.camera
        latest = self._encoded.get(camera)
        if latest is None or (latest[0] < number and latest[1].done()):
            call = self._encoder.call(self._encode, number, verdict)
            latest = self._encoded[camera] = (number, asyncio.create_task(call))
        return await asyncio.shield(latest[1])

    def _encode(self, number: int, verdict: Verdict) -> bytes:
        """Codes a live picture; who sees it may label it, so the full frame is stored too."""
        if self._run.recent is not None:
            self._run.recent.keep(verdict)
        return live_picture(number, verdict, self._run.grid, self._run.resize)


def _text(kind: str, values: dict[str, Any]) -> str:
    return to_json({"type": kind} | values, compact=True)
