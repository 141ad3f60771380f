"""Who may use an HTTP server of ours, and from where: an ASGI layer around it.

- On loopback without a token: only requests that name a loopback host, so that no page of another site can reach it
  under a name of its own (DNS rebinding).
- With a token: `Authorization: Bearer TOKEN`, or the cookie that the login page sets. The cookie is derived from the
  token and does not tell it; it outlives a restart.
- Always: what changes something, and the WebSocket, must come from this page or from no page at all (`Origin`).
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagelink.net.http import is_loopback

COOKIE = "sagelink"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser posts the login form with the origin `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def session_of(token: str) -> str:
    """The cookie's value."""
    return hmac.new(token.encode(), b"sagelink dashboard session", hashlib.sha256).hexdigest()


class Guard:
    """Lets through what may pass, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, token: str | None, open_paths: frozenset[str]) -> None:
        """`token`: None where only loopback reaches it; `open_paths`: what is served without it."""
        self._app = app
        self._token = token
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(HTTPConnection(scope))
        if scope["type"] == "websocket":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
                return
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        """The answer to a request that may not pass; None when it may."""
        host = _host(request.headers)
        if self._token is None and not is_loopback(host):
            return PlainTextResponse("not served under this name\n", 421)
        origin = request.headers.get("origin")
        asks = request.scope["type"] == "websocket" or request.scope["method"] not in ("GET", "HEAD")
        if asks and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("refused: the request comes from another site\n", 403)
        path = request.scope["path"]
        if self._token is None or path in self._open_paths or self._knows(request, self._token):
            return None
        if path == "/":
            return RedirectResponse("/login", 303)
        return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})

    @staticmethod
    def _knows(request: HTTPConnection, token: str) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode()):
            return True
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), session_of(token).encode())


def _host(headers: Headers) -> str:
    """The host that a request names, without the port."""
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""
