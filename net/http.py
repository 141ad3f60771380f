"""An HTTP server inside the running event loop, for health, metrics and the dashboard."""

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
    """`host:port` or `[v6]:port`; port 0 takes a free one. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{what} {text!r}; accepted: host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def static_files(folder: Path) -> dict[str, Response]:
    """The files of a page by their paths in `folder`. Kept in memory: the loop of a run is busy, and each hop to a
    thread waits for it."""
    return {
        path.relative_to(folder).as_posix(): Response(path.read_bytes(), media_type=mimetypes.guess_type(path)[0])
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextlib.asynccontextmanager
async def serve_http(
    app: ASGIApp, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Serves `app` while the body runs, over TLS with a certificate and its key (PEM files); yields the address that
    it listens on. Raises UsageError when it cannot."""
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
            # Open streams (a dashboard's) would hold a graceful end for as long as a browser likes.
            server.should_exit = server.force_exit = True
            await serving


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError when the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


class _Server(uvicorn.Server):
    """Leaves signals to the run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
