"""A real HTTP server on loopback that receives webhooks. A test sets its status, and can stop and start it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.brokers import free_port


class WebhookReceiver:
    """Leaving the context stops the server."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 204
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers in lower case, body
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?site=1"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The bodies of all requests."""
        return [json.loads(body) for _, _, body in self.requests]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802 (the name is http.server's)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_for(self, count: int, timeout_s: float = 100) -> None:
        """Waits until so many requests have arrived."""
        end_s = time.monotonic() + timeout_s
        while len(self.requests) < count:
            assert time.monotonic() < end_s, f"{len(self.requests)} of {count} requests"
            time.sleep(0.02)
