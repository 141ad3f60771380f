"""Malformed requests, as bytes on the wire: an answer of 4xx, no traceback, and no hint whether a token is right."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sagelink.monitor.dashboard.routes import dashboard_app
from sagelink.net.http import serve_http
from sagelink.net.offers import OfferRefused
from sagelink.net.whip import offer_app, whip_app
from sagelink.server.health import health_app

TOKEN = "a-token-of-some-length"  # noqa: S105
HOST = b"Host: 127.0.0.1\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


async def refuse(offer: str, _: str) -> str:
    raise OfferRefused("no")


async def nothing() -> None:
    pass


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


REQUESTS = {
    "host": b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
    "host with nonsense": b"GET /healthz HTTP/1.1\r\nHost: [::1\xff]:x\r\n\r\n",
    "origin": b"POST /whip HTTP/1.1\r\n" + HOST + b"Origin: http://[\r\nContent-Length: 0\r\n\r\n",
    "origin of a socket": b"GET /ws HTTP/1.1\r\n" + HOST + b"Origin: http://[\r\n" + WEBSOCKET + KEY + b"\r\n",
    "socket without key": b"GET /ws HTTP/1.1\r\n" + HOST + WEBSOCKET + b"\r\n",
    "socket with a host": b"GET /ws HTTP/1.1\r\nHost: [\r\n" + WEBSOCKET + KEY + b"\r\n",
    "target": b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n",
    "encoded target": b"GET /%ff%00%ed%a0%80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "long number": b"GET /api/frames/" + b"9" * 5000 + b"/info HTTP/1.1\r\n" + HOST + b"\r\n",
    "length": b"POST /whip HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "negative length": b"POST /whip HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "chunk": b"POST /whip HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "deep json": post(b"/api/budget", b"[" * 4000),
    "long number in json": post(b"/api/budget", b'{"uplink": ' + b"9" * 4050 + b"}"),
    "json that is not utf-8": post(b"/api/gate", b'{"policy": "\xff"}'),
    "half a character in json": post(b"/api/gate", b'{"policy": "\\ud800"}'),
    "infinite json": post(b"/api/budget", b'{"uplink": 1e999}'),
    "odd types in json": post(b"/api/gate", b'{"policy": [], "threshold": {}}'),
    "offer that is not utf-8": post(b"/whip", b"\xff\xfe", b"Content-Type: application/sdp\r\n"),
    "offer of nonsense": post(b"/offer", b"m=\r\n" * 3000),
    "offer that is too large": post(b"/offer", b"x" * 70_000),
    "huge header": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 9000 + b"\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "cookie": b"GET /x HTTP/1.1\r\n" + HOST + b'Cookie: sagelink=\xff\xfe; "=;=;;\r\n\r\n',
    "bearer": b"GET /x HTTP/1.1\r\n" + HOST + b"Authorization: Bearer \xff\xff\r\n\r\n",
}


def applications(watched: object, coder: object, token: str | None) -> dict[str, ASGIApp]:
    return {
        "dashboard": dashboard_app(watched, coder, token, wrong_token_s=0),  # type: ignore[arg-type]
        "health": health_app(CollectorRegistry(), lambda: None),
        "whip": whip_app("/whip", refuse, nothing, token),
        "camera page": offer_app({"/offer": refuse}, {"/": PlainTextResponse("page")}, token),
    }


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    async with serve_http(app, "127.0.0.1", 0) as (_, port):
        yield port


async def answer(port: int, request: bytes) -> bytes:
    """What the server sends until it closes the connection or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(5):
            writer.write(request)
            while b"\r\n\r\n" not in data and (piece := await reader.read(65_536)):
                data += piece
    writer.close()
    return data


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("which", ["dashboard", "health", "whip", "camera page"])
async def test_malformed_requests_are_refused_without_a_traceback(
    watched, coder, which: str, token: str | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[str, bytes] = {}
    with caplog.at_level(logging.INFO):
        async with serving(applications(watched, coder, token)[which]) as port:
            for name, request in REQUESTS.items():
                data = await answer(port, request)
                if not data.startswith(b"HTTP/1.1 ") or not b"200" <= data.split(b" ")[1] < b"500":
                    wrong[name] = data[:100]
            assert b" 200 " in (await answer(port, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")) or which in (
                "whip",
                "camera page",
            )
    assert wrong == {}
    assert caplog.records == []
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("which", ["dashboard", "whip", "camera page"])
@pytest.mark.parametrize("name", ["host", "origin", "origin of a socket", "socket with a host"])
async def test_a_malformed_address_is_answered_before_the_token_is_checked(
    watched, coder, which: str, name: str
) -> None:
    async with serving(applications(watched, coder, TOKEN)[which]) as port:
        with_token = REQUESTS[name].replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert (await answer(port, with_token)).partition(b"\r\n")[0] == (await answer(port, REQUESTS[name])).partition(
            b"\r\n"
        )[0]


async def test_an_error_of_ours_is_one_line_and_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("ours\nforged line")

    async with serving(broken) as port:
        for _ in range(20):
            assert b" 500 " in await answer(port, b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n")
    (record,) = caplog.records
    assert "event=request_failed" in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_a_peer_that_leaves_in_the_middle_of_a_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(whip_app("/whip", refuse, nothing, None)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /whip HTTP/1.1\r\n" + HOST + b"Content-Type: application/sdp\r\nContent-Length: 100\r\n\r\nv=0"
        )
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()
        await asyncio.sleep(0.3)
    assert caplog.records == []
