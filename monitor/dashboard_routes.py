"""The dashboard's routes: the page, its stream, what it may change, and what other programs read."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from sagelink.monitor.dashboard_viewers import DashboardViewer, ViewerHub
from sagelink.monitor.previews import evidence_png, heat, jpeg
from sagelink.monitor.run_view import RunView
from sagelink.monitor.verdict_feed import Moment
from sagelink.net.guard import COOKIE, AccessGuard, session_cookie
from sagelink.net.http import static_files
from sagelink.pipeline.credentials import same_secret
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.threads import Worker
from sagelink.transport.codecs import Canvas
from sagelink.transport.wire import decode_evidence

_STATIC = Path(__file__).parent / "static"
_LONGEST_BODY = 4096
# Without a token.
_OPEN = frozenset(
    {"/healthz", "/readyz", "/login", *(f"/static/{name}" for name in ("icon.svg", "style.css", "theme.js"))}
)
_STALE_S = 30.0
_WRONG_TOKEN_S = 0.5  # what a guess costs


def dashboard_app(run: RunView, coder: Worker, token: str | None) -> ASGIApp:
    """`coder`: the thread that codes pictures; `token`: what a viewer must know, None for loopback."""
    crowd = ViewerHub(run, coder)
    files = static_files(_STATIC)
    problem = '<p class="error" role="alert">That is not the token.</p>'
    wrong = HTMLResponse((_STATIC / "login.html").read_text().replace("<!-- problem -->", problem))

    async def page(request: Request) -> Response:
        return files["index.html"]

    async def static(request: Request) -> Response:
        return files.get(request.path_params["path"]) or PlainTextResponse("not found\n", 404)

    async def login(request: Request) -> Response:
        if request.method == "GET":
            return wrong if "wrong" in request.query_params else files["login.html"]
        given = (await _body(request)).decode(errors="replace").removeprefix("token=").rstrip("\r\n")
        if token is None or not same_secret(given, token):
            await asyncio.sleep(_WRONG_TOKEN_S)
            return RedirectResponse("/login?wrong", 303)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, session_cookie(token), httponly=True, samesite="strict", secure=secure)
        return answer

    async def stats(request: Request) -> Response:
        return JSONResponse(run.now())

    async def change(request: Request) -> Response:
        try:
            values = json.loads(await _body(request))
            if not isinstance(values, dict):
                raise UsageError("accepted: a JSON object")
            if request.url.path.endswith("/budget"):
                run.control.change_budget(values.get("uplink"))
            else:
                run.control.change_gate(values.get("policy"), values.get("threshold"))
        except ValueError:
            return JSONResponse({"error": "accepted: a JSON object"}, 400)
        except UsageError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(run.control.state())

    async def frame(request: Request) -> Response:
        moment = run.feed.moment(request.path_params["number"])
        if moment is None:
            return JSONResponse({"error": "this frame is no longer kept"}, 404)
        return await _about(moment, request.path_params["what"], coder, run.canvas)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(run.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        reason = _unready(run.now())
        return PlainTextResponse("ok\n") if reason is None else PlainTextResponse(f"{reason}\n", 503)

    async def stream(socket: Any) -> None:
        await crowd.serve(DashboardViewer(socket))

    routes = [
        Route("/", page),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/api/stats", stats),
        Route("/api/budget", change, methods=["POST"]),
        Route("/api/gate", change, methods=["POST"]),
        Route("/api/frames/{number:int}/{what}", frame),
        Route("/metrics", metrics),
        Route("/healthz", healthy),
        Route("/readyz", ready),
        WebSocketRoute("/ws", stream),
        Route("/static/{path:path}", static),
    ]
    return AccessGuard(Starlette(routes=routes), token, _OPEN)


async def _body(request: Request) -> bytes:
    """The body, or what is within reason of it."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            break
    return body[:_LONGEST_BODY]


async def _about(moment: Moment, what: str, coder: Worker, canvas: Canvas) -> Response:
    """One frame: `info`, `picture` as the models saw it, `evidence` as the server did."""
    if what == "info":
        importance = None if moment.importance is None else heat(moment.importance)
        units = [] if moment.message is None else _units(moment.message)
        side = 0 if moment.importance is None else round(len(moment.importance) ** 0.5)
        text = json.dumps({"importance": importance, "units": units, "side": side, "box": moment.box})
        return Response(re.sub(r"}$", f',"event":{moment.event}}}', text), media_type="application/json")
    if what == "picture" and moment.picture is not None:
        return Response(await coder.call(jpeg, moment.picture), media_type="image/jpeg")
    if what == "evidence" and moment.message is not None:
        return Response(await coder.call(evidence_png, moment.message, canvas), media_type="image/png")
    return JSONResponse({"error": f"this frame has no {what}; accepted: info, picture, evidence"}, 404)


def _units(message: bytes) -> list[int]:
    return [int(unit) for unit in decode_evidence(message).units]


def _unready(now_is: dict[str, Any]) -> str | None:
    """Why the run is not ready; None when it is."""
    if not now_is["frames"]:
        return "no frame has a verdict yet"
    silent_s = min(camera["silent_s"] for camera in now_is["cameras"].values())
    return f"the last verdict is {silent_s:.0f} s old" if silent_s > _STALE_S else None
