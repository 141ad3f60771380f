"""Checks that a host answers before the camera library is tried: name, port, TLS and one line of its protocol.

OpenCV opens one stream at a time in the whole process. Without the probe, a dead address would block every other
camera for its whole time-out.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sagelink.stages.cameras.supervisor import FaultKind

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
# Any response counts, even an error. Not `OPTIONS *`: some cameras ignore it, or close the connection.
_REQUESTS = {
    "rtsp": "OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: sagelink\r\n\r\n",
    "http": "HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
}
_ANSWER_S = 2.0  # longest wait for a response


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found at an address."""

    fault: FaultKind | None = None  # None: the host answers, or its protocol cannot be probed (udp)
    certain: bool = True  # False: the host accepted the connection but did not answer the request, so it may still work


def probe(address: str, timeout_s: float) -> Finding:
    """Connects to a URL's host and sends one request, without credentials, within `timeout_s` seconds."""
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.scheme == "udp" or port is None or parts.hostname is None:
        return Finding()
    deadline_s = time.monotonic() + timeout_s
    try:
        peer = socket.create_connection((parts.hostname, port), timeout=timeout_s)
        with peer if parts.scheme not in ("rtsps", "https") else _tls(peer, parts.hostname) as connection:
            return _ask(connection, parts, min(_ANSWER_S, deadline_s - time.monotonic()))
    except ssl.SSLError:
        return Finding(FaultKind.TLS)
    except ConnectionRefusedError:
        return Finding(FaultKind.REFUSED)
    except TimeoutError:
        return Finding(FaultKind.TIMED_OUT)
    except ConnectionError:
        return Finding(FaultKind.END_OF_FILE, certain=False)
    except (OSError, UnicodeError):  # no such host, no route, or an invalid name
        return Finding(FaultKind.UNREACHABLE)


def _ask(connection: socket.socket, parts: SplitResult, timeout_s: float) -> Finding:
    """Sends the request of the protocol and waits for the first byte of a response."""
    request = _REQUESTS.get(parts.scheme.removesuffix("s"))
    if request is None:
        return Finding()
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=host, fragment="").geturl()
    try:
        connection.settimeout(max(0.05, timeout_s))
        connection.sendall(request.format(host=host, url=url).encode())
        return Finding() if connection.recv(1) else Finding(FaultKind.END_OF_FILE, certain=False)
    except TimeoutError:
        return Finding(FaultKind.TIMED_OUT, certain=False)


def _tls(peer: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # as FFmpeg does: cameras have self-signed certificates
    return context.wrap_socket(peer, server_hostname=host)
