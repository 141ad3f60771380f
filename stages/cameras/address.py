"""What names a camera: which addresses there are, and which can never work."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from sagelink.net.http import parse_address
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError, suggest

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
_PORT_NEEDED = ("udp", "tcp")
PUSHED = "webrtc:"
_PUSHED_PORT = 8630


def is_camera(source: str) -> bool:
    """Whether a source is a webcam, a URL or a peer that pushes, rather than something on disk."""
    return "://" in source or source.startswith(PUSHED) or source.isdecimal() or source.startswith("/dev/")


def check_address(address: str) -> None:
    """Raises UsageError for an address that can never work. Opens nothing, asks no network."""
    if address.startswith(PUSHED):
        push_address(address)
        return
    if "://" not in address:
        path = Path(f"/dev/video{address}" if address.isdecimal() else address)
        if not path.exists():
            found = ", ".join(list_webcams()) or "none"
            raise UsageError(f"webcam {address!r} does not exist; webcams on this machine: {found}")
        return
    shown = redact(address)
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise UsageError(
            f"source {shown!r}: unknown scheme{suggest(scheme, [*SCHEMES])}; accepted: {', '.join(SCHEMES)}"
        )
    try:
        parts = urlsplit(address)
        port = parts.port  # raises for what is no port
        whole = bool(parts.hostname) and port != 0 and (port or scheme not in _PORT_NEEDED)
    except ValueError:
        whole = False
    if not whole or any(character.isspace() for character in address):
        raise UsageError(
            f"source {shown!r} is no URL; accepted: {scheme}://[USER:PASSWORD@]HOST[:PORT]/PATH, where a password has "
            f"%2F for /, %23 for #, %3F for ? and %20 for a space"
        )


def push_address(source: str) -> tuple[str, int]:
    """Where `webrtc:` or `webrtc:HOST:PORT` waits for a peer. Raises UsageError."""
    text = source.removeprefix(PUSHED)
    if not text:
        return "127.0.0.1", _PUSHED_PORT
    if "/" in text or "@" in text:
        raise UsageError(
            f"source {redact(source)!r}; accepted: webrtc: or webrtc:HOST:PORT, where we listen for a peer"
        )
    host, port = parse_address(text, f"source {source!r}: address")
    return host, port


def list_webcams() -> list[str]:
    """Device paths of this machine's cameras (Linux)."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sorted(f"/dev/{name}" for name in names if re.fullmatch(r"video\d+", name))
