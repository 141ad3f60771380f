"""Checks camera addresses: which forms are accepted, and which addresses can never work."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from sagelink.net.http import parse_address
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError, suggest

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
_SCHEMES_WITHOUT_DEFAULT_PORT = ("udp", "tcp")
PUSHED = "webrtc:"
_DEFAULT_PUSH_PORT = 8630


def is_camera(source: str) -> bool:
    """Whether a source is a webcam, a URL or a WHIP peer, rather than a file or folder."""
    return "://" in source or source.startswith(PUSHED) or source.isdecimal() or source.startswith("/dev/")


def check_address(address: str) -> None:
    """Raises UsageError for an address that can never work. Opens no device and no connection."""
    if address.startswith(PUSHED):
        push_address(address)
        return
    if "://" not in address:
        path = Path(f"/dev/video{address}" if address.isdecimal() else address)
        if not path.exists():
            webcams = ", ".join(list_webcams()) or "none"
            raise UsageError(f"webcam {address!r} does not exist; webcams on this machine: {webcams}")
        return
    shown = redact(address)
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise UsageError(
            f"source {shown!r}: unknown scheme{suggest(scheme, [*SCHEMES])}; accepted: {', '.join(SCHEMES)}"
        )
    try:
        parts = urlsplit(address)
        port = parts.port  # raises ValueError for an invalid port
        valid = bool(parts.hostname) and port != 0 and (port or scheme not in _SCHEMES_WITHOUT_DEFAULT_PORT)
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in address):
        raise UsageError(
            f"source {shown!r} is not a valid URL; accepted: {scheme}://[USER:PASSWORD@]HOST[:PORT]/PATH, "
            f"in a password %2F for /, %23 for #, %3F for ? and %20 for a space"
        )


def push_address(source: str) -> tuple[str, int]:
    """Host and port on which `webrtc:` or `webrtc:HOST:PORT` listens for a peer. Raises UsageError."""
    text = source.removeprefix(PUSHED)
    if not text:
        return "127.0.0.1", _DEFAULT_PUSH_PORT
    if "/" in text or "@" in text:
        raise UsageError(
            f"source {redact(source)!r}; accepted: webrtc: or webrtc:HOST:PORT, to listen there for a peer"
        )
    host, port = parse_address(text, f"source {source!r}: address")
    return host, port


def list_webcams() -> list[str]:
    """Device paths of this machine's webcams (Linux)."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sorted(f"/dev/{name}" for name in names if re.fullmatch(r"video\d+", name))
