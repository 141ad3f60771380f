"""HTTP routes of the console: its page, the WebSocket of open pages, and the API that programs read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.camera_view import camera_view
from sagelink.monitor.console.console_view import ConsoleView
from sagelink.monitor.console.fleet_rows import FleetQuery, fleet_view, row, rows_between
from sagelink.monitor.console.pages import ConsolePage, ConsolePages
from sagelink.monitor.console.search_routes import search_routes
from sagelink.monitor.console.store_search import picture_of_event
from sagelink.monitor.guarded_page import STATIC, WRONG_TOKEN_S, JsonResponse, guarded_app, request_body
from sagelink.net.access_guard import Tokens, sender
from sagelink.net.http import static_files
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.text import one_line

_MAX_ROWS = 1000  # of an answer
_MAX_DIGITS = 9


def console_app(view: ConsoleView, tokens: Tokens, wrong_token_s: float = WRONG_TOKEN_S) -> ASGIApp:
    """The console as an ASGI application. `wrong_token_s`: delay after a wrong token, in seconds, against guessing."""
    api, pages, files = ConsoleApi(view), ConsolePages(view), static_files(STATIC)

    async def stream(socket: Any) -> None:
        await pages.serve(ConsolePage(socket, socket.scope["role"]))

    routes: list[BaseRoute] = [
        Route("/api/cameras", api.cameras),
        Route("/api/cameras/{camera:path}/evidence", api.evidence),
        Route("/api/cameras/{camera:path}/events/{event}/picture", api.event_picture),
        Route("/api/cameras/{camera:path}/change", api.change, methods=["POST"]),
        Route("/api/cameras/{camera:path}", api.camera),
        Route("/api/changes", api.changes),
        Route("/api/events", api.events),
        Route("/metrics", api.metrics),
        Route("/healthz", api.healthy),
        Route("/readyz", api.ready),
        WebSocketRoute("/ws", stream),
    ]
    if view.store is not None:
        routes += search_routes(view.store)
    return guarded_app(routes, files, files["console.html"], tokens, wrong_token_s)


class ConsoleApi:
    """What programs read of all cameras."""

    def __init__(self, view: ConsoleView) -> None:
        self._view = view

    async def cameras(self, request: Request) -> Response:
        """Rows; query: `sort`, `text`, `state`, `first`, `count`."""
        fleet, now_s = self._view.fleet, time.monotonic()
        asked = request.query_params
        found = fleet_view(fleet, FleetQuery.from_values(dict(asked)), now_s)
        first, count = _whole(asked.get("first"), 0), _whole(asked.get("count"), _MAX_ROWS)
        first, records = rows_between(found.rows, first, min(count, _MAX_ROWS))
        rows = []
        for place, record in enumerate(records):
            if place % 100 == 99:
                await asyncio.sleep(0)  # others wait for the event loop
            rows.append(row(fleet, record, now_s))
        return JsonResponse({"totals": found.totals, "matching": len(found.rows), "first": first, "cameras": rows})

    async def camera(self, request: Request) -> Response:
        record = self._record(request)
        if record is None:
            return _no_camera()
        return JsonResponse(camera_view(self._view.fleet, record, time.monotonic()))

    async def evidence(self, request: Request) -> Response:
        """The newest evidence of a camera as PNG."""
        record = self._record(request)
        if record is None:
            return _no_camera()
        try:
            picture = await self._view.decode(record)
        except ValueError as error:
            return JsonResponse({"error": str(error)}, 404)
        return Response(picture.png, media_type="image/png", headers={"X-Sagelink-Seq": str(picture.seq)})

    async def event_picture(self, request: Request) -> Response:
        """The picture of an event as AVIF."""
        camera, event = request.path_params["camera"], request.path_params["event"]
        picture = self._view.fleet.pictures.get(camera, event)
        if picture is None and self._view.store is not None:
            picture = await self._view.store.worker.call(picture_of_event, self._view.store.store, camera, event)
        if picture is None:
            return JsonResponse({"error": "no picture of this event is here"}, 404)
        return Response(picture, media_type="image/avif", headers={"Cache-Control": "private, max-age=86400"})

    async def change(self, request: Request) -> Response:
        """Changes one setting of a camera; responds with the settings that hold then."""
        record = self._record(request)
        if record is None:
            return _no_camera()
        try:
            values = parse_json(await request_body(request))
            if not isinstance(values, dict):
                raise UsageError("accepted: a JSON object")
            await self._view.changes.change(record.address, values, sender(request))
        except DocumentError as error:
            return JsonResponse({"error": f"accepted: a JSON object; {error}"}, 400)
        except SagelinkError as error:
            return JsonResponse({"error": str(error)}, 400 if isinstance(error, UsageError) else 502)
        return JsonResponse(record.settings)

    async def changes(self, request: Request) -> Response:
        """Who changed what, newest first; query: `camera`."""
        kept = self._view.changes.kept(request.query_params.get("camera"))
        return JsonResponse({"changes": [change.values() for change in kept]})

    async def events(self, request: Request) -> Response:
        """The last events of all cameras, newest first; query: `state` (open, closed, withdrawn), `count`."""
        state, count = request.query_params.get("state"), _whole(request.query_params.get("count"), 200)
        found = [
            {"camera": record.address} | event.values()
            for record in self._view.fleet.records.values()
            for event in record.events.all()
            if not state or event.state == state
        ]
        found.sort(key=lambda event: -event["changed_wall_s"])
        return JsonResponse({"events": found[: min(count, _MAX_ROWS)]})

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._view.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        trouble = self._view.trouble()
        return PlainTextResponse(f"{one_line(trouble or 'ready')}\n", 503 if trouble else 200)

    def _record(self, request: Request) -> CameraRecord | None:
        return self._view.fleet.records.get(request.path_params["camera"])


def _no_camera() -> Response:
    return JsonResponse({"error": "no such camera; accepted: a camera of /api/cameras"}, 404)


def _whole(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else default
