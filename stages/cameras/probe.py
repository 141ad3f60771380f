"""Does anybody answer at an address? Name, port, TLS and one line of its protocol, within a time limit.

OpenCV opens one stream at a time in the whole process, so a dead address would keep every other camera from connecting
for as long as its time-out. It is knocked at first, and only opened when somebody answers.
"""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

from sagelink.stages.cameras.supervisor import Fault

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
_QUESTIONS = {
    "rtsp": "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "http": "HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",  # any answer will do, even an error
}


def probe(address: str, timeout_s: float) -> Fault | None:
    """What keeps a URL from answering; None when it does, or when its protocol cannot be asked (udp)."""
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.scheme == "udp" or port is None or parts.hostname is None:
        return None
    secure = parts.scheme in ("rtsps", "https")
    question = _QUESTIONS.get(parts.scheme.removesuffix("s"))
    until_s = time.monotonic() + timeout_s
    try:
        peer = socket.create_connection((parts.hostname, port), timeout=timeout_s)
        with peer if not secure else _tls(peer, parts.hostname) as line:
            if question is None:
                return None
            line.settimeout(max(0.05, until_s - time.monotonic()))
            line.sendall(question.format(host=parts.netloc.rpartition("@")[2]).encode())
            return None if line.recv(1) else Fault.END_OF_FILE
    except ssl.SSLError:
        return Fault.TLS
    except ConnectionRefusedError:
        return Fault.REFUSED
    except TimeoutError:
        return Fault.TIMED_OUT
    except ConnectionError:
        return Fault.END_OF_FILE
    except (OSError, UnicodeError):  # no such host, no route, a name that cannot be one
        return Fault.UNREACHABLE


def _tls(peer: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as FFmpeg does: cameras sign for themselves
    return context.wrap_socket(peer, server_hostname=host)
