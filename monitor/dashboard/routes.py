"""HTTP routes of the dashboard: the page, its WebSocket stream, login, and the API that programs read and write."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from sagelink.monitor.api_requests import api_route, json_object
from sagelink.monitor.dashboard.run_view import RunView
from sagelink.monitor.dashboard.verdict_feed import FrameDetails
from sagelink.monitor.dashboard.viewers import DashboardViewer, ViewerHub
from sagelink.monitor.evidence_png import evidence_png
from sagelink.monitor.freshness import silences
from sagelink.monitor.guarded_page import STATIC, WRONG_TOKEN_S, JsonResponse, guarded_app
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.routes import label_routes
from sagelink.monitor.previews import heat, jpeg
from sagelink.monitor.viewers import MAX_VIEWERS
from sagelink.net.access_guard import Tokens, sender
from sagelink.net.http import static_files
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.text import one_line
from sagelink.pipeline.threads import Worker
from sagelink.stages.sinks.event_pictures import picture_path
from sagelink.transport.evidence_message import decode_evidence

_MAX_DIGITS = 18  # of a frame number
_SETTINGS = {"budget": ("uplink",), "gate": ("policy", "threshold"), "pace": ("pace",), "trust": ("forget",)}
_STALE_S = 30.0  # a run whose last verdict is older is not ready


def dashboard_app(
    run: RunView,
    encoder: Worker,
    token: str | None,
    wrong_token_s: float = WRONG_TOKEN_S,
    max_viewers: int = MAX_VIEWERS,
    pictures: bool = True,
) -> ASGIApp:
    """The dashboard of a run as an ASGI application.

    `encoder`: the thread that encodes pictures. `token`: required of viewers; None for a loopback address.
    `pictures`: whether pages get live pictures. `wrong_token_s`: delay after a wrong token, in seconds, against
    guessing.
    """
    api = RunApi(run, encoder)
    hub = ViewerHub(run, encoder, max_viewers=max_viewers, pictures=pictures)
    files = static_files(STATIC)

    async def stream(socket: Any) -> None:
        await hub.serve(DashboardViewer(socket))

    routes: list[BaseRoute] = [
        api_route("/api/stats", api.stats),
        *(api_route(f"/api/{setting}", api.change, methods=["POST"]) for setting in _SETTINGS),
        api_route("/api/frames/{number}/{part}", api.frame),
        api_route("/api/events", api.events),
        api_route("/api/events/{id}/picture", api.event_picture),
        Route("/metrics", api.metrics),
        Route("/healthz", api.healthy),
        Route("/readyz", api.ready),
        WebSocketRoute("/ws", stream),
    ]
    if run.labels is not None:
        routes += label_routes(run.labels, encoder, files["label.html"])
    return guarded_app(routes, files, files["index.html"], Tokens(token), wrong_token_s)


def label_app(desks: LabelDesks, encoder: Worker, token: str | None, wrong_token_s: float = WRONG_TOKEN_S) -> ASGIApp:
    """The labelling page alone, for frames that were recorded."""
    files = static_files(STATIC)
    return guarded_app(
        label_routes(desks, encoder, files["label.html"]), files, files["label.html"], Tokens(token), wrong_token_s
    )


class RunApi:
    """What programs read of a run and change in it: state, metrics, health, frames, budget, gate."""

    def __init__(self, run: RunView, encoder: Worker) -> None:
        self._run = run
        self._encoder = encoder

    async def stats(self, _: Request) -> Response:
        return JsonResponse(self._run.now())

    async def change(self, request: Request) -> Response:
        """Changes the budget, the gate, the pace or the trust, by the path; responds with the new state."""
        control, setting = self._run.control, request.scope["path"].rsplit("/", 1)[-1]
        values, by = await json_object(request, _SETTINGS[setting]), f"the dashboard, {sender(request)}"
        if setting == "budget":
            control.change_budget(values.get("uplink"), by)
        elif setting == "pace":
            control.change_pace(values.get("pace"), by)
        elif setting == "gate":
            control.change_gate(values.get("policy"), values.get("threshold"), by)
        elif "forget" in values:
            control.forget_trust(values["forget"], by)
        else:
            raise UsageError("forget: accepted: the name of a camera, or null for all cameras")
        return JsonResponse(control.state())

    async def frame(self, request: Request) -> Response:
        """A part of a frame: `info`, `picture` (the models' input), `evidence` (as the server decodes it)."""
        number, part = request.path_params["number"], request.path_params["part"]
        if not (number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS):
            return JsonResponse({"error": f"accepted: a frame number of up to {_MAX_DIGITS} digits"}, 400)
        details = self._run.feed.details(int(number))
        if details is None:
            return JsonResponse({"error": "this frame is no longer stored"}, 404)
        if part == "info":
            return Response(_info(details), media_type="application/json")
        if part == "picture" and details.picture is not None:
            return Response(await self._encoder.call(jpeg, details.picture), media_type="image/jpeg")
        if part == "evidence" and details.message is not None:
            png = await self._encoder.call(evidence_png, details.message, self._run.canvas)
            return Response(png, media_type="image/png")
        return JsonResponse({"error": f"this frame has no {part}; accepted: info, picture, evidence"}, 404)

    async def events(self, _: Request) -> Response:
        """The last action of each event, the newest event first; `has_picture`: its best frame is stored."""
        feed = self._run.events
        if feed is None:
            return JsonResponse({"events": []})
        events = await self._encoder.call(_with_pictures, feed.events(), self._run.event_pictures)
        return JsonResponse({"events": events})

    async def event_picture(self, request: Request) -> Response:
        """The best frame of an event."""
        folder = self._run.event_pictures
        path = None if folder is None else picture_path(folder, request.path_params["id"])
        if path is not None:
            with contextlib.suppress(OSError):
                return Response(await self._encoder.call(path.read_bytes), media_type="image/jpeg")
        return JsonResponse({"error": "there is no picture of this event"}, 404)

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._run.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        state = self._run.now()
        reason = _unready(state)
        lines = [f"{one_line(line)}\n" for line in (reason or "ok", *silences(state))]
        return PlainTextResponse("".join(lines), 503 if reason else 200)


def _with_pictures(events: list[dict[str, Any]], folder: Path | None) -> list[dict[str, Any]]:
    paths = [None if folder is None else picture_path(folder, event["id"]) for event in events]
    return [
        event | {"has_picture": path is not None and path.exists()} for event, path in zip(events, paths, strict=True)
    ]


def _info(details: FrameDetails) -> str:
    """JSON text: importance, sent units, units per side, box of the sent crop, and the event of the frame."""
    importance = None if details.importance is None else heat(details.importance)
    units = [] if details.message is None else [int(unit) for unit in decode_evidence(details.message).units]
    side = 0 if details.importance is None else round(len(details.importance) ** 0.5)
    text = to_json({"importance": importance, "units": units, "side": side, "box": details.box})
    return re.sub(r"}$", f',"event":{details.event}}}', text)


def _unready(state: dict[str, Any]) -> str | None:
    """Why the run is not ready; None when it is."""
    if not state["frames"]:
        return "no frame has a verdict yet"
    age_s = state["frame_age_s"]
    return f"the last verdict is {age_s:.0f} s old" if age_s > _STALE_S else None
