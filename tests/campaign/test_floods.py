"""Floods of connections and offers against real processes: the run goes on, its results are whole, the log is short."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.ports import free_port
from tests.app.runs import answered, finish, live_run, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.campaign

SILENT = 1100
FEW_FILES = 512
FEW = {"ULIMIT_N": str(FEW_FILES)}
LOG_BYTES = 20_000


@contextlib.contextmanager
def silent_connections(port: int, count: int = SILENT) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with contextlib.ExitStack() as stack:
        for number in range(count):
            peer = stack.enter_context(socket.socket())
            peer.bind((f"127.0.0.{2 + number % 5}", 0))
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.connect(("127.0.0.1", port))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def get(url: str) -> int:
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        return client.get(url).status_code


def test_silent_viewers_do_not_end_a_run(tmp_path: Path) -> None:
    port = free_port()
    with Mosquitto() as broker, serve(broker.url) as server:
        server.said("serving")
        with live_run(broker.url, tmp_path, "--dashboard-address", f"127.0.0.1:{port}", **FEW) as run:
            run.said("dashboard: ")
            wait_for_lines(tmp_path, answered)
            with silent_connections(port):
                for _ in range(5):
                    assert get(f"http://127.0.0.1:{port}/healthz") == 200
                    time.sleep(1)
                wait_for_lines(tmp_path, answered, 20)
                assert run.threads_and_files()[1] < FEW_FILES // 2
            run.interrupt()
            finish(run, tmp_path)
            assert len(run.output) < LOG_BYTES


def test_silent_connections_and_noise_do_not_fill_the_log_of_a_server(tmp_path: Path) -> None:
    port = free_port()
    with Mosquitto() as broker, serve(broker.url, "--http", f"127.0.0.1:{port}", **FEW) as server:
        server.said("health and metrics")
        with silent_connections(port), live_run(broker.url, tmp_path) as run:
            for _ in range(3):
                assert get(f"http://127.0.0.1:{port}/readyz") == 200
            wait_for_lines(tmp_path, answered, 10)
            run.interrupt()
            finish(run, tmp_path)
        for number in range(2000):
            with socket.create_connection(("127.0.0.1", port), 60) as peer, contextlib.suppress(OSError):
                peer.sendall(bytes([number % 256]) * 200 + b"\r\n\r\n")
        assert get(f"http://127.0.0.1:{port}/readyz") == 200
        server.interrupt()
        assert server.ended() == 0
        assert len(server.output) < LOG_BYTES


def test_a_flood_of_offers_keeps_no_edge_out(tmp_path: Path) -> None:
    port = free_port()
    noise = [b"", b"v=0\r\n", b"m=" * 10_000, b"\xff" * 100, b"v=0\r\nm=application 9 UDP/DTLS/SCTP x\r\n" * 3]
    with serve(f"webrtc+http://127.0.0.1:{port}") as server:
        server.said("serving")
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            codes = {
                client.post(f"http://127.0.0.1:{port}/offer", content=noise[n % 5]).status_code for n in range(300)
            }
        assert codes <= {400, 413, 503}
        with live_run(f"webrtc+http://127.0.0.1:{port}", tmp_path) as run:
            wait_for_lines(tmp_path, answered)
            run.interrupt()
            finish(run, tmp_path)
        assert "Traceback" not in server.output
