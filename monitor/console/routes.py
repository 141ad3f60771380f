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

from sagelink.monitor.api_requests import api_route, choice, json_object, whole, words
from sagelink.monitor.console.camera_record import CameraRecord
from sagelink.monitor.console.camera_view import camera_view
from sagelink.monitor.console.change_desk import SETTINGS
from sagelink.monitor.console.console_view import ConsoleView
from sagelink.monitor.console.events_seen import EVENT_STATES
from sagelink.monitor.console.fleet_rows import (
    FILTERS,
    MAX_FILTER,
    SORTS,
    FleetQuery,
    fleet_view,
    row,
    rows_between,
)
from sagelink.monitor.console.pages import ConsolePage, ConsolePages
from sagelink.monitor.console.search_routes import search_routes
from sagelink.monitor.console.store_search import picture_of_event
from sagelink.monitor.guarded_page import STATIC, WRONG_TOKEN_S, JsonResponse, guarded_app
from sagelink.net.access_guard import Tokens, sender
from sagelink.net.http import static_files
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.text import one_line

_MAX_ROWS = 1000  # of an answer
_MAX_FIRST = 999_999_999


def console_app(view: ConsoleView, tokens: Tokens, wrong_token_s: float = WRONG_TOKEN_S) -> ASGIApp:
    """The console as an ASGI application. `wrong_token_s`: delay after a wrong token, in seconds, against guessing."""
    api, pages, files = ConsoleApi(view), ConsolePages(view), static_files(STATIC)

    async def stream(socket: Any) -> None:
        await pages.serve(ConsolePage(socket, socket.scope["role"]))

    routes: list[BaseRoute] = [
        api_route("/api/cameras", api.cameras, ("sort", "text", "state", "first", "count")),
        api_route("/api/cameras/{camera:path}/evidence", api.evidence),
        api_route("/api/cameras/{camera:path}/events/{event}/picture", api.event_picture),
        api_route("/api/cameras/{camera:path}/change", api.change, methods=["POST"]),
        api_route("/api/cameras/{camera:path}", api.camera),
        api_route("/api/changes", api.changes, ("camera",)),
        api_route("/api/events", api.events, ("state", "count")),
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
        fleet, now_s, asked = self._view.fleet, time.monotonic(), request.query_params
        query = FleetQuery(
            sort=choice(asked, "sort", [*SORTS], "trouble"),
            text=words(asked, "text", MAX_FILTER).casefold().strip(),
            state=choice(asked, "state", FILTERS, ""),
        )
        first = whole(asked, "first", 0, _MAX_FIRST, default=0)
        count = whole(asked, "count", 1, _MAX_ROWS, default=_MAX_ROWS)
        found = fleet_view(fleet, query, now_s)
        first, records = rows_between(found.rows, first, count)
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
            await self._view.changes.change(record.address, await json_object(request, SETTINGS), sender(request))
        except UsageError:
            raise
        except SagelinkError as error:
            return JsonResponse({"error": str(error)}, 502)
        return JsonResponse(record.settings)

    async def changes(self, request: Request) -> Response:
        """Who changed what, newest first; query: `camera`."""
        kept = self._view.changes.kept(request.query_params.get("camera"))
        return JsonResponse({"changes": [change.values() for change in kept]})

    async def events(self, request: Request) -> Response:
        """The last events of all cameras, newest first; query: `state` (open, closed, withdrawn), `count`."""
        state = choice(request.query_params, "state", EVENT_STATES, "")
        count = whole(request.query_params, "count", 1, _MAX_ROWS, default=200)
        found = [
            {"camera": record.address} | event.values()
            for record in self._view.fleet.records.values()
            for event in record.events.all()
            if not state or event.state == state
        ]
        found.sort(key=lambda event: -event["changed_wall_s"])
        return JsonResponse({"events": found[:count]})

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
