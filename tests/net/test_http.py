"""The HTTP server in the event loop: it answers, ends with its body, and reports a port in use."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from sagelink.net.http import parse_address, serve_http
from sagelink.pipeline.errors import UsageError
from tests.patience import PATIENCE_S


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def endless(_: Request) -> StreamingResponse:
    async def parts():
        while True:
            yield b"more"
            await asyncio.sleep(0.01)

    return StreamingResponse(parts())


APP = Starlette(routes=[Route("/", hello), Route("/endless", endless)])


async def get(port: int, path: str = "/") -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://127.0.0.1:{port}{path}")).text


async def test_it_answers_while_its_body_runs_and_installs_no_signal_handlers():
    before = signal.getsignal(signal.SIGINT)
    async with serve_http(APP, "127.0.0.1", 0) as (host, port):
        assert host == "127.0.0.1"
        assert await get(port) == "hello"
        assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(httpx.ConnectError):
        await get(port)


async def test_an_open_stream_does_not_delay_the_shutdown():
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(trust_env=False) as client:
        async with serve_http(APP, "127.0.0.1", 0) as (_, port):
            request = client.build_request("GET", f"http://127.0.0.1:{port}/endless")
            response = await client.send(request, stream=True)
            assert response.status_code == 200
        await response.aclose()


async def test_a_port_in_use_is_reported():
    async with serve_http(APP, "127.0.0.1", 0) as (_, port):
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            async with serve_http(APP, "127.0.0.1", port):
                pass


@pytest.mark.parametrize("text", ["8080", "localhost", ":80", "host:port", "host:65536", "host:-1"])
def test_an_invalid_address_is_refused(text):
    with pytest.raises(UsageError, match="accepted: host:port"):
        parse_address(text)


def test_addresses_are_parsed():
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:8080") == ("::1", 8080)
