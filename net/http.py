"""Runs an HTTP server in the current event loop: for health checks, metrics, the dashboard and WebRTC offers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import mimetypes
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp

from sagelink.pipeline.errors import UsageError


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
    app: ASGIApp, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Serves `app` while the body runs; yields its host and port. With `certificate` and `key` (PEM files) it uses
    TLS. Raises UsageError if it cannot listen on the address."""
    with listen(host, port) as listener:
        # No compression of WebSocket messages: most of their bytes are JPEG.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws_per_message_deflate=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = _Server(config)
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
    """A server that installs no signal handlers; the run has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
