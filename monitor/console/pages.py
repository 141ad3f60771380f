"""Sends the part of the fleet that a page shows, or one camera with its picture, over the page's WebSocket.

A page names what it shows: a filter, an order and a range of rows, or one camera. So neither traffic nor the page grows
with the number of cameras. Evidence is decoded only for the camera that a page shows, once for all pages.
"""

from __future__ import annotations

import asyncio
import struct
import time
from functools import partial
from typing import Any

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.camera_view import camera_view
from sagelink.monitor.console.console_view import ConsoleView
from sagelink.monitor.console.fleet_rows import FleetQuery, FleetView, fleet_view, row, rows_between
from sagelink.monitor.viewers import MAX_VIEWERS, SEND_S, Socket, Viewer, ViewerPlaces
from sagelink.net.access_guard import Role
from sagelink.pipeline.files.json_text import to_json

_TICK_S = 0.4
_CHANGES = 20  # of a camera that a page shows
_MAX_ROWS = 100  # that a page shows at a time
_MAX_PICTURES = 2 * MAX_VIEWERS  # that are kept for all pages
_LENGTH = struct.Struct("!I")


class ConsolePage(Viewer):
    """One open page, and what it shows."""

    def __init__(self, socket: Socket, role: Role, send_s: float = SEND_S) -> None:
        super().__init__(socket, send_s)
        self.role = role
        self.query = FleetQuery()
        self.first, self.count = 0, 30
        self.camera: str | None = None  # None: the fleet
        self.asked = asyncio.Event()  # for something else than before
        self.sent = ""  # the last message
        self.picture: tuple[str, float] | None = None  # camera and time of the picture that it shows

    def take(self, message: dict[str, Any]) -> None:
        if "visible" in message:
            super().take(message)
            return
        camera = message.get("camera")
        self.camera = camera if isinstance(camera, str) else None
        self.query = FleetQuery.from_values(message)
        first, count = message.get("first"), message.get("count")
        self.first = first if isinstance(first, int) else 0
        self.count = min(max(count, 1), _MAX_ROWS) if isinstance(count, int) else 30
        self.sent, self.picture = "", None
        self.asked.set()


class ConsolePages:
    """Serves all open pages of a console."""

    def __init__(self, view: ConsoleView, tick_s: float = _TICK_S, max_viewers: int = MAX_VIEWERS) -> None:
        """Each page gets an update at most each `tick_s` seconds, and at once when it asks for something else."""
        self._view = view
        self._tick_s = tick_s
        self._places = ViewerPlaces(max_viewers)
        self._sorted: dict[FleetQuery, tuple[float, FleetView]] = {}
        self._pictures: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def serve(self, page: ConsolePage) -> None:
        """Serves a page until it leaves, or is too slow."""
        await self._places.serve(page, partial(self._send_updates, page))

    async def _send_updates(self, page: ConsolePage) -> None:
        await page.send(_text("console", {"title": self._view.title, "role": page.role, **self._changing()}))
        while True:
            await page.visible.wait()
            page.asked.clear()
            values = self._content(page)
            text = to_json(values, compact=True)
            if text != page.sent:
                page.sent = text
                now_s = time.monotonic()
                about = {"now": round(self._view.fleet.wall_of(now_s), 2), "trouble": self._view.trouble()}
                await page.send(_text("camera" if page.camera else "fleet", values | about))
            await self._send_picture(page)
            try:
                async with asyncio.timeout(self._tick_s):
                    await page.asked.wait()
            except TimeoutError:
                continue

    def _content(self, page: ConsolePage) -> dict[str, Any]:
        fleet, now_s = self._view.fleet, time.monotonic()
        if page.camera is not None:
            record = fleet.records.get(page.camera)
            if record is None:
                return {"camera": None}
            desk = self._view.changes
            kept = [change.values() for change in desk.kept(record.address)[:_CHANGES]]
            return camera_view(fleet, record, now_s) | {"changes": kept, "refusal": desk.refusal_of(record.address)}
        shown = self._sort(page.query, now_s)
        first, records = rows_between(shown.rows, page.first, page.count)
        rows = [row(fleet, record, now_s) for record in records]
        return {"totals": shown.totals, "matching": len(shown.rows), "first": first, "rows": rows}

    def _changing(self) -> dict[str, Any]:
        desk = self._view.changes
        return {"policies": desk.policies, "store": self._view.store is not None}

    def _sort(self, query: FleetQuery, now_s: float) -> FleetView:
        """The rows of a query, sorted once for all pages that show it."""
        known = self._sorted.get(query)
        if known is not None and now_s - known[0] < self._tick_s:
            return known[1]
        self._sorted = {other: found for other, found in self._sorted.items() if now_s - found[0] < self._tick_s}
        view = fleet_view(self._view.fleet, query, now_s)
        self._sorted[query] = now_s, view
        return view

    async def _send_picture(self, page: ConsolePage) -> None:
        record = self._view.fleet.records.get(page.camera or "")
        if record is None or record.message is None:
            return
        newest = record.address, record.message.arrived_s
        if page.picture != newest:
            page.picture = newest
            await page.send(await self._picture(record, record.message.arrived_s))

    async def _picture(self, record: CameraRecord, at_s: float) -> bytes:
        """Length of the header (32 bits, big-endian), header (JSON), PNG. `at_s`: when the message arrived."""
        known = self._pictures.get(record.address)
        if known is None or known[0] != at_s:
            self._pictures.pop(record.address, None)
            known = self._pictures[record.address] = at_s, asyncio.create_task(self._decode(record))
            if len(self._pictures) > _MAX_PICTURES:
                del self._pictures[next(iter(self._pictures))]
        return await asyncio.shield(known[1])

    async def _decode(self, record: CameraRecord) -> bytes:
        header: dict[str, Any] = {"camera": record.address, "at": record.message_wall_s}
        png = b""
        try:
            picture = await self._view.decode(record)
        except ValueError as error:
            header["problem"] = str(error)
        else:
            header |= {"seq": picture.seq, "side": picture.side, "units": picture.units}
            png = picture.png
        text = to_json(header, compact=True).encode()
        return _LENGTH.pack(len(text)) + text + png


def _text(kind: str, values: dict[str, Any]) -> str:
    return to_json({"type": kind} | values, compact=True)
