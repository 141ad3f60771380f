"""Checks that a host answers before the camera library is tried: name, port, TLS and one line of its protocol.

OpenCV opens one stream at a time in the whole process. Without the probe, a dead address would block every other
camera for its whole time-out.
"""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

from sagelink.stages.cameras.supervisor import FaultKind

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
_REQUESTS = {
    "rtsp": "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "http": "HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",  # any response counts, even an error
}


def probe(address: str, timeout_s: float) -> FaultKind | None:
    """Connects to a URL's host, within `timeout_s` seconds.

    Returns why it does not answer; None when it answers, or when its protocol cannot be probed (udp).
    """
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.scheme == "udp" or port is None or parts.hostname is None:
        return None
    secure = parts.scheme in ("rtsps", "https")
    request = _REQUESTS.get(parts.scheme.removesuffix("s"))
    deadline_s = time.monotonic() + timeout_s
    try:
        peer = socket.create_connection((parts.hostname, port), timeout=timeout_s)
        with peer if not secure else _tls(peer, parts.hostname) as connection:
            if request is None:
                return None
            connection.settimeout(max(0.05, deadline_s - time.monotonic()))
            connection.sendall(request.format(host=parts.netloc.rpartition("@")[2]).encode())
            return None if connection.recv(1) else FaultKind.END_OF_FILE
    except ssl.SSLError:
        return FaultKind.TLS
    except ConnectionRefusedError:
        return FaultKind.REFUSED
    except TimeoutError:
        return FaultKind.TIMED_OUT
    except ConnectionError:
        return FaultKind.END_OF_FILE
    except (OSError, UnicodeError):  # no such host, no route, or an invalid name
        return FaultKind.UNREACHABLE


def _tls(peer: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # as FFmpeg does: cameras have self-signed certificates
    return context.wrap_socket(peer, server_hostname=host)
