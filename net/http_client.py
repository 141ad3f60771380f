"""A small HTTP client in the event loop: one request per connection, with limits on time and size."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

import h11

from sagelink.pipeline.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_READ_BYTES = 65_536
_Request: TypeAlias = tuple[h11.Connection, bytes]


class HttpUnreachable(Exception):
    """The server gave no complete answer; the text gives the reason."""


class HttpTooLarge(HttpUnreachable):
    """The answer has more bytes than the limit."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status and body of an answer."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpService:
    """A base URL with its credentials."""

    host: str
    port: int
    tls: ssl.SSLContext | None = field(repr=False)
    token: str | None = field(default=None, repr=False)
    path: str = ""  # before the path of each request

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path}"

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        max_bytes: int = 1_000_000,
        on_end: Callable[[socket.socket], None] = lambda _: None,
    ) -> HttpAnswer:
        """Sends one request; `body` is JSON. Raises HttpUnreachable, also for an answer of more than `max_bytes`.

        `headers`: further ones. `on_end` gets the connected socket before it is closed, to read its counters.
        """
        request = _request_bytes(method, self.path + path, self._headers(body) | dict(headers or {}), body)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request, max_bytes, on_end)
        except TimeoutError:
            raise HttpUnreachable(f"no answer within {timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise HttpUnreachable(f"TLS: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise HttpUnreachable(f"TLS: {error.reason or 'failed'}") from None
        except h11.ProtocolError:
            raise HttpUnreachable("no complete HTTP answer") from None
        except OSError as error:
            raise HttpUnreachable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None

    async def _exchange(self, request: _Request, max_bytes: int, on_end: Callable[[socket.socket], None]) -> HttpAnswer:
        connection, data = request
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        try:
            writer.write(data)
            await writer.drain()
            return await _answer(connection, reader, max_bytes)
        finally:
            if (opened := writer.get_extra_info("socket")) is not None:
                on_end(opened)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.wait_closed()

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Host": f"{self.host}:{self.port}", "Connection": "close", "User-Agent": "sagelink"}
        if body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


def _request_bytes(method: str, target: str, headers: Mapping[str, str], body: bytes) -> _Request:
    """A request's connection and its bytes on the wire, before TLS."""
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target=target, headers=[*headers.items()])
    parts = [request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
    return connection, b"".join(connection.send(part) or b"" for part in parts)


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader, max_bytes: int) -> HttpAnswer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise HttpTooLarge(f"an answer of more than {max_bytes} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return HttpAnswer(status, bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise HttpUnreachable("the connection broke off")


def http_service(url: str, where: str, tls: ssl.SSLContext | None, token: str | None) -> HttpService:
    """The service at a URL; `tls`: for https, None for the authorities of the system. Raises UsageError.

    `where`: the configuration key of the URL, for the error message.
    """
    accepted = "accepted: http://host[:port][/path] or https://host[:port][/path], without credentials"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{where}: the address is not a URL ({error}); {accepted}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{where}: the URL must not contain credentials; {accepted}")
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{where}: {url!r} is not the address of an HTTP service; {accepted}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"{where}: {url!r} has characters that a URL cannot have; {accepted}")
    context = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
    return HttpService(parts.hostname, port or _PORTS[parts.scheme], context, token, parts.path.rstrip("/"))
