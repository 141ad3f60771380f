"""Access control for our HTTP servers: an ASGI middleware that refuses requests or passes them on.

- On loopback without a token: only requests whose `Host` is a loopback host pass. A page of another site cannot reach
  the server under its own name (DNS rebinding).
- With a token: a request needs `Authorization: Bearer TOKEN`, or the cookie that the login page sets. The cookie is
  derived from the token but does not reveal it, and stays valid after a restart.
- A server may have two tokens: one to view, and one that may change things too. The request's scope then names the
  role, `view` or `control`.
- An address that sends wrong tokens has to wait, each time longer; its requests get 429 until then.
- Always: a request that changes something, or opens a WebSocket, must come from this page, from no page, or
  from an allowed origin (`Origin`).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagelink.net.connections import address_block
from sagelink.net.guesses import GuessLimit
from sagelink.net.http import is_loopback
from sagelink.pipeline.credentials import same_secret
from sagelink.pipeline.errors import UsageError

COOKIE = "sagelink"
Role: TypeAlias = Literal["view", "control"]
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


def require_secret(host: str, secret: str | None, kind: Literal["token", "password"], where: str, hint: str) -> None:
    """Raises UsageError if other machines can reach `host` and there is no secret.

    `where` names the address in the message; `hint` says how to set the secret.
    """
    if not secret and not is_loopback(host):
        raise UsageError(f"{where} can be reached by others; accepted without a {kind}: 127.0.0.1. {hint}")


def session_cookie(token: str) -> str:
    """The value of the session cookie for a token."""
    return hmac.new(token.encode(), b"sagelink dashboard session", hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a server. Without any, only loopback may reach it, and who reaches it may do everything."""

    control: str | None = None  # may read and change
    view: str | None = None  # may read
    cookie: str = COOKIE  # name of the session cookie: browsers share cookies between the ports of a host

    def __bool__(self) -> bool:
        return self.control is not None or self.view is not None

    def role(self, given: str) -> Role | None:
        """What the holder of a token may do; None for a wrong token."""
        if self.control is not None and same_secret(given, self.control):
            return "control"
        return "view" if self.view is not None and same_secret(given, self.view) else None

    def role_of_cookie(self, cookie: str) -> Role | None:
        """As `role`, for the cookie of a session."""
        control, view = (token and session_cookie(token) for token in (self.control, self.view))
        return Tokens(control, view).role(cookie)


class AccessGuard:
    """ASGI middleware: passes allowed requests on, refuses others, and adds security headers to every response."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        open_paths: frozenset[str],
        guesses: GuessLimit | None = None,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        """`open_paths`: paths that need no token. `guesses`: shared with whatever else checks a token. `origins`: other
        sites whose pages may change something."""
        self._app = app
        self._tokens = tokens
        self._open_paths = open_paths
        self._origins = origins
        self._guesses = guesses or GuessLimit()

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
        """The response to a request that is refused; None if the request is allowed."""
        try:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
            origin = request.headers.get("origin")
            site = None if origin is None else urlsplit(origin).netloc
        except ValueError:
            return PlainTextResponse("the header Host or Origin is no address\n", 400)
        if not self._tokens and not is_loopback(host):
            return PlainTextResponse("not served under this name\n", 421)
        is_change = request.scope["type"] == "websocket" or request.scope["method"] not in ("GET", "HEAD")
        if is_change and site not in (None, request.headers.get("host")) and origin not in self._origins:
            return PlainTextResponse("refused: the request comes from another site\n", 403)
        path = request.scope["path"]
        if path in self._open_paths:
            return None
        role = self._role(request)
        if isinstance(role, Response):
            return role
        request.scope["role"] = role
        if role == "view" and is_change and request.scope["type"] != "websocket":
            return PlainTextResponse("this token may only view\n", 403)
        return None

    def _role(self, request: HTTPConnection) -> Role | Response:
        """What the sender may do, or the response to one without a right token."""
        if not self._tokens:
            return "control"
        role = self._tokens.role_of_cookie(request.cookies.get(self._tokens.cookie, ""))  # nobody can guess a cookie
        if role is not None:
            return role
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._check(given, sender(request))
        if request.scope["path"] == "/":
            return RedirectResponse("/login", 303)
        return PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})

    def _check(self, given: str, address: str) -> Role | Response:
        """The role of a token, or the refusal of a wrong one."""
        wait_s = self._guesses.wait_s(address, time.monotonic())
        if wait_s:
            return too_many_guesses(wait_s)
        role = self._tokens.role(given)
        if role is not None:
            self._guesses.right(address)
            return role
        self._guesses.wrong(address, time.monotonic())
        return PlainTextResponse("this token is wrong\n", 401, {"WWW-Authenticate": "Bearer"})


def sender(request: HTTPConnection) -> str:
    """The address of the peer, as limits count it."""
    return address_block(request.client.host) if request.client else ""


def too_many_guesses(wait_s: float) -> Response:
    return PlainTextResponse("too many wrong tokens\n", 429, {"Retry-After": str(math.ceil(wait_s))})
