"""Ports for the servers of benchmarks and tests."""

from __future__ import annotations

import contextlib
import random
import socket

_PORTS = range(20_000, 32_000)  # the system gives higher ones to outgoing connections, maybe before a server listens


def free_port() -> int:
    """A port of loopback that no process uses now."""
    chance = random.SystemRandom()  # processes that fork would draw the same ports
    while True:
        port = chance.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
