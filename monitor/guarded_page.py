"""A page that a token guards: login, static files and the access guard, shared by the dashboard and the console."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from sagelink.monitor.api_requests import request_body
from sagelink.net.access_guard import AccessGuard, Tokens, sender, session_cookie, too_many_guesses
from sagelink.net.guesses import GuessLimit
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.json_text import to_json

STATIC = Path(__file__).parent / "static"
WRONG_TOKEN_S = 0.5
# Paths that need no token.
_PUBLIC = frozenset(
    {"/healthz", "/readyz", "/login", *(f"/static/{name}" for name in ("icon.svg", "style.css", "theme.js"))}
)


def guarded_app(
    routes: Sequence[BaseRoute], files: Mapping[str, Response], page: Response, tokens: Tokens, wrong_token_s: float
) -> ASGIApp:
    """An application with a page, its files, a login and an access guard. `files`: by path below `/static/`. A route
    that raises UsageError answers with status 400, another SagelinkError with 500, and the message as `error`."""
    guesses = GuessLimit()
    login = LoginPage(tokens, wrong_token_s, guesses)

    async def show(_: Request) -> Response:
        return page

    async def static(request: Request) -> Response:
        return files.get(request.path_params["path"]) or PlainTextResponse("not found\n", 404)

    shared = [
        Route("/", show),
        Route("/login", login.respond, methods=["GET", "POST"]),
        Route("/static/{path:path}", static),
    ]

    async def refuse(_: Request, error: Exception) -> Response:
        return JsonResponse({"error": str(error)}, 400 if isinstance(error, UsageError) else 500)

    app = Starlette(routes=[*shared, *routes], exception_handlers={SagelinkError: refuse})
    return AccessGuard(app, tokens, _PUBLIC, guesses)


class LoginPage:
    """Checks a token from the login form, and sets the session cookie."""

    def __init__(self, tokens: Tokens, wrong_token_s: float, guesses: GuessLimit) -> None:
        self._tokens = tokens
        self._guesses = guesses
        self._wrong_token_s = wrong_token_s
        page = (STATIC / "login.html").read_text()
        problem = '<p class="error" role="alert">This token is wrong.</p>'
        self._page = HTMLResponse(page)
        self._page_after_wrong_token = HTMLResponse(page.replace("<!-- problem -->", problem))

    async def respond(self, request: Request) -> Response:
        if request.method == "GET":
            return self._page_after_wrong_token if "wrong" in request.query_params else self._page
        given = (await request_body(request)).decode(errors="replace").removeprefix("token=").rstrip("\r\n")
        wait_s = self._guesses.wait_s(sender(request), time.monotonic())
        if wait_s:
            return too_many_guesses(wait_s)
        if self._tokens.role(given) is None:
            self._guesses.wrong(sender(request), time.monotonic())
            await asyncio.sleep(self._wrong_token_s)
            return RedirectResponse("/login?wrong", 303)
        self._guesses.right(sender(request))
        response = RedirectResponse("/", 303)
        secure = request.scope["scheme"] == "https"
        response.set_cookie(self._tokens.cookie, session_cookie(given), httponly=True, samesite="strict", secure=secure)
        return response


class JsonResponse(JSONResponse):
    """A response of plain values, in which numbers that are not finite are null."""

    def render(self, content: object) -> bytes:
        return to_json(content, compact=True).encode()
