"""Runs an HTTP server in the current event loop: for health checks, metrics, the dashboard and WebRTC offers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import mimetypes
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from sagelink.net.connections import Acceptor, ConnectionLimits
from sagelink.pipeline.errors import UsageError

log = logging.getLogger(__name__)
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a peer must not write into our log

_MAX_HEADER_BYTES = 16_384
_MAX_WEBSOCKET_BYTES = 65_536  # of a message


def parse_address(text: str, what: str = "address") -> tuple[str, int]:
    """Returns host and port of `host:port` or `[v6]:port`; port 0 selects a free one. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{what} {text!r}; accepted: host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host name or address (without port) is a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def static_files(folder: Path) -> dict[str, Response]:
    """One response per file of `folder`, by relative path. The files are held in memory, because reading them in a
    thread would wait for the busy event loop of a run."""
    return {
        path.relative_to(folder).as_posix(): Response(path.read_bytes(), media_type=mimetypes.guess_type(path)[0])
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextlib.asynccontextmanager
async def serve_http(
    app: ASGIApp,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    limits: ConnectionLimits | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serves `app` while the body runs; yields its host and port. With `certificate` and `key` (PEM files) it uses
    TLS. Raises UsageError if it cannot listen on the address."""
    with listen(host, port) as listener:
        # No compression of WebSocket messages: most of their bytes are JPEG.
        config = uvicorn.Config(
            FaultLog(app),
            log_config=None,
            access_log=False,
            lifespan="off",
            http=_Http,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ws_max_size=_MAX_WEBSOCKET_BYTES,
            ws_per_message_deflate=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = _Server(config, limits or ConnectionLimits())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[:2]
        finally:
            # A graceful shutdown would wait until browsers close their open streams.
            server.should_exit = server.force_exit = True
            await serving


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket. Raises UsageError if the address cannot be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


class _Server(uvicorn.Server):
    """A server that accepts its connections within limits, and installs no signal handlers: the run has its own."""

    def __init__(self, config: uvicorn.Config, limits: ConnectionLimits) -> None:
        super().__init__(config)
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        (listener,) = sockets
        self.servers: list[asyncio.Server] = []  # none of asyncio's own
        self._acceptor = Acceptor(listener, self._protocol, self.config.ssl, self._limits)
        self._acceptor.start()
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._acceptor.stop()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return _Http(self.config, self.server_state, {})

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Http(H11Protocol):
    """One connection. It answers what is no HTTP with 400, and closes the connection if not even that is possible."""

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # h11 cannot answer, because the peer broke the protocol in the middle of a response
            log.debug("event=protocol_error reason=%r", error)
            self.transport.abort()

    def progress(self) -> tuple[object, bool]:
        """The states of both sides in the current request, and whether the server waits for the peer."""
        theirs = self.conn.their_state
        return (theirs, self.conn.our_state, id(self.cycle)), theirs in (h11.IDLE, h11.SEND_BODY)


class FaultLog:
    """ASGI middleware: logs an error of the application once, in one line, and lets the server answer with 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._logged: set[tuple[str, str, int]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except (ClientDisconnect, WebSocketDisconnect, h11.LocalProtocolError):  # the peer left, or got its 400 already
            return
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__, place.filename, place.lineno or 0
            if kind not in self._logged:
                self._logged.add(kind)
                log.error(
                    "event=request_failed path=%r error=%s reason=%r at=%s:%d",
                    scope["path"][:100],
                    kind[0],
                    str(error)[:200],
                    *kind[1:],
                )


def page_url(host: str, port: int) -> str:
    """Address of the page of a server that listens there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
