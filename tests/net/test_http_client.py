"""The small HTTP client: answers, limits, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bench.ports import free_port
from sagelink.net.http_client import HttpService, HttpUnreachable, http_service
from sagelink.pipeline.errors import UsageError


@contextlib.asynccontextmanager
async def server(
    answer: bytes, delay_s: float = 0.0, requests: list[bytes] | None = None
) -> AsyncIterator[HttpService]:
    """Sends the bytes of `answer` to each request and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if requests is not None:
                requests.append(head)
            await asyncio.sleep(delay_s)
            writer.write(answer)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            served.set()

    served = asyncio.Event()
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield HttpService("127.0.0.1", port, None, "a-token", "/base")
    finally:
        listening.close()
        await served.wait()
        await asyncio.sleep(0.01)  # the transports close


async def test_a_request_and_its_answer():
    requests: list[bytes] = []
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", requests=requests) as service:
        answer = await service.request("GET", "/api/x?y=1")
    assert (answer.status, answer.body) == (200, b"ok")
    assert requests[0].startswith(b"GET /base/api/x?y=1 HTTP/1.1\r\n")
    assert b"Authorization: Bearer a-token\r\n" in requests[0]
    assert "a-token" not in repr(service)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc"),
    ],
)
async def test_forms_of_answers(answer, status, body):
    async with server(answer) as service:
        found = await service.request("GET", "/")
    assert (found.status, found.body) == (status, body)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no complete"),
        (b"SSH-2.0-OpenSSH\r\n", "no complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ncut", "no complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000 + b"\r\n", "no complete"),
    ],
)
async def test_answers_that_are_none(answer, reason):
    async with server(answer) as service:
        with pytest.raises(HttpUnreachable, match=reason):
            await service.request("GET", "/", max_bytes=1000)


async def test_a_slow_server_and_no_server():
    async with server(b"HTTP/1.1 200 OK\r\n\r\n", delay_s=0.3) as service:
        with pytest.raises(HttpUnreachable, match=r"within 0\.05 s"):
            await service.request("GET", "/", timeout_s=0.05)
    with pytest.raises(HttpUnreachable, match="Connect call failed|refused"):
        await HttpService("127.0.0.1", free_port(), None).request("GET", "/")


def test_urls():
    assert http_service("http://host:5000/frigate/", "key", None, None).url == "http://host:5000/frigate"
    assert http_service("https://host", "key", None, None).url == "https://host:443"
    for bad in ("host:5000", "http://", "http://h?x=1", "http://h:99999", "http://h/ä", "http://a b"):
        with pytest.raises(UsageError, match="key: "):
            http_service(bad, "key", None, None)
