"""Offer and answer of WebRTC over HTTP: a peer posts its offer (SDP), the response is the answer. With a way to end
what came about, it is WHIP (RFC 9725): a resource to delete."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sagelink.net.guard import Guard

LONGEST_OFFER = 65_536  # bytes
_SDP = "application/sdp"

Answerer = Callable[[str], Awaitable[str]]
Ender = Callable[[], Awaitable[None]]

for _name in ("aiortc", "aioice"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # one line of ours says what happens to a connection


class OfferRefused(Exception):
    """An offer that is not answered, with the HTTP status that says so."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def offer_app(answerers: Mapping[str, Answerer], pages: Mapping[str, Response], token: str | None) -> ASGIApp:
    """Takes offers, behind a guard: by the path that one is posted to, who answers it or raises OfferRefused. Whoever
    asks gets `pages`, by path: they hold nothing secret."""

    async def take(request: Request) -> Response:
        return await respond(request, answerers[request.url.path])

    async def show(request: Request) -> Response:
        return pages[request.url.path]

    offers = [Route(path, take, methods=["POST"]) for path in answerers]
    return Guard(Starlette(routes=[*offers, *(Route(path, show) for path in pages)]), token, frozenset(pages))


def whip_app(path: str, answer: Answerer, end: Ender, token: str | None) -> ASGIApp:
    """A WHIP endpoint without trickle ICE: DELETE of the Location that came with the answer ends the session."""
    session = ""  # its name, of the latest; there is one at a time

    async def take(request: Request) -> Response:
        nonlocal session
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _SDP:
            return PlainTextResponse(f"accepted: {_SDP}\n", 415)
        response = await respond(request, answer)
        if response.status_code == 201:
            session = secrets.token_urlsafe(16)
            response.headers["Location"] = f"{path}/{session}"
        return response

    async def leave(request: Request) -> Response:
        nonlocal session
        if request.path_params["name"] != session:
            return PlainTextResponse("no such session\n", 404)
        session = ""
        await end()
        return Response(status_code=200)

    routes = [Route(path, take, methods=["POST"]), Route(f"{path}/{{name}}", leave, methods=["DELETE"])]
    return Guard(Starlette(routes=routes), token, frozenset())


async def respond(request: Request, answer: Answerer) -> Response:
    """The answer to a posted offer, or why there is none."""
    try:
        return Response(await answer(await _body(request)), 201, media_type=_SDP)
    except OfferRefused as refusal:
        return PlainTextResponse(f"{refusal}\n", refusal.status)


async def _body(request: Request) -> str:
    """Raises OfferRefused for one that is too long, or no text."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_OFFER:
            raise OfferRefused(f"an offer has at most {LONGEST_OFFER} bytes", 413)
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise OfferRefused("an offer is text") from None
