"""Offer and answer of WebRTC over HTTP: a peer posts its offer (SDP), the response is the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.errors import UsageError
from pipeline.guard import Guard
from pipeline.web import is_loopback

LONGEST_OFFER = 65_536  # bytes
_SDP = "application/sdp"

Answerer = Callable[[str], Awaitable[str]]


class OfferRefused(Exception):
    """An offer that is not answered, with the HTTP status that says so."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def check_reach(host: str, token: str | None, where: str, how: str) -> None:
    """Raises UsageError for an address that others can reach without a token; `how` says how to give one."""
    if token is None and not is_loopback(host):
        raise UsageError(f"{where} {host!r} can be reached by others; accepted without a token: 127.0.0.1. {how}")


def offer_app(path: str, answer: Answerer, token: str | None) -> ASGIApp:
    """Takes an offer posted to `path`, behind a guard; `answer` answers it, or raises OfferRefused."""

    async def take(request: Request) -> Response:
        try:
            offer = await _body(request)
            return Response(await answer(offer), 201, media_type=_SDP)
        except OfferRefused as refusal:
            return PlainTextResponse(f"{refusal}\n", refusal.status)

    return Guard(Starlette(routes=[Route(path, take, methods=["POST"])]), token, frozenset())


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
