"""WebRTC signalling over HTTP: a peer posts its SDP offer, and the response is the SDP answer.

`offer_app` serves several offer paths and static pages; `whip_app` is a WHIP endpoint (RFC 9725), whose sessions end by
DELETE.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sagelink.net.access_guard import AccessGuard, Tokens
from sagelink.net.connections import address_block
from sagelink.net.offers import MAX_OFFER_BYTES, OfferRefused, check_encryption, limit_offer

_SDP = "application/sdp"

Answerer = Callable[[str, str], Awaitable[str]]  # from an offer, and the address that posted it, to the answer
Ender = Callable[[], Awaitable[None]]

for _name in ("aiortc", "aioice"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # we log the state of a connection ourselves


def offer_app(answerers: Mapping[str, Answerer], pages: Mapping[str, Response], token: str | None) -> ASGIApp:
    """An ASGI app behind an `AccessGuard`. `answerers`: by path, the function that answers an offer or raises
    OfferRefused. `pages`: responses by path, served without a token; they must hold no secret."""

    async def post(request: Request) -> Response:
        return await _answer_offer(request, answerers[request.scope["path"]])

    async def show(request: Request) -> Response:
        return pages[request.scope["path"]]

    offers = [Route(path, post, methods=["POST"]) for path in answerers]
    return AccessGuard(
        Starlette(routes=[*offers, *(Route(path, show) for path in pages)]), Tokens(token), frozenset(pages)
    )


def whip_app(path: str, answer: Answerer, end: Ender, token: str | None, origins: Sequence[str] = ()) -> ASGIApp:
    """A WHIP endpoint without trickle ICE. DELETE of the `Location` of the answer ends the session, through `end`.

    `origins`: of the web pages on other sites that may push, such as `https://site.example`."""
    session = ""  # name of the latest session; there is one at a time

    async def post(request: Request) -> Response:
        nonlocal session
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _SDP:
            return PlainTextResponse(f"accepted: {_SDP}\n", 415)
        response = await _answer_offer(request, answer)
        if response.status_code == 201:
            session = secrets.token_urlsafe(16)
            response.headers["Location"] = f"{path}/{session}"
        return response

    async def delete(request: Request) -> Response:
        nonlocal session
        if request.path_params["name"] != session:
            return PlainTextResponse("no such session\n", 404)
        session = ""
        await end()
        return Response(status_code=200)

    routes = [Route(path, post, methods=["POST"]), Route(f"{path}/{{name}}", delete, methods=["DELETE"])]
    guard = AccessGuard(Starlette(routes=routes), Tokens(token), frozenset(), origins=frozenset(origins))
    headers = ("Authorization", "Content-Type")
    methods = ("POST", "DELETE")
    return CORSMiddleware(guard, origins, methods, headers, expose_headers=("Location",)) if origins else guard


async def _answer_offer(request: Request, answer: Answerer) -> Response:
    """The response to a posted offer: the answer, or the reason for the refusal."""
    try:
        sender = request.client.host if request.client else ""
        offer = limit_offer(await _body(request), sender)
        check_encryption(offer)
        return Response(await answer(offer, address_block(sender)), 201, media_type=_SDP)
    except OfferRefused as refusal:
        return PlainTextResponse(f"{refusal}\n", refusal.status)


async def _body(request: Request) -> str:
    """The text of a request. Raises OfferRefused if it is too long or not UTF-8."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_OFFER_BYTES:
            raise OfferRefused(f"an offer has at most {MAX_OFFER_BYTES} bytes", 413)
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise OfferRefused("an offer must be UTF-8 text") from None
