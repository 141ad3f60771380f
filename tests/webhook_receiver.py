"""A real HTTP server on loopback that receives webhooks. A test sets its status, and can stop and start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from bench.ports import free_port


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
            def do_POST(self) -> None:
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


class ReceiverProcess:
    """A receiver as a process, which a test can kill. It writes a line when it has a request, and one when it has
    answered."""

    def __init__(self, log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self.url = f"http://127.0.0.1:{port}/"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.webhook_receiver", str(self._port), str(self._log)]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """`id`, `at_s` (time of day) and `answered` (false, then true) of each request."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


def _serve(port: int, log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(message: str, answered: bool) -> None:
        os.write(handle, json.dumps({"id": message, "at_s": time.time(), "answered": answered}).encode() + b"\n")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            note(self.headers["webhook-id"], False)
            self.send_response(204)
            self.end_headers()
            self.wfile.flush()
            note(self.headers["webhook-id"], True)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
