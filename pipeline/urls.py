"""Reads the transport from a server URL, and the name of this machine."""

from __future__ import annotations

import socket

WEBRTC_SCHEMES = {"webrtc+http": False, "webrtc+https": True}  # whether the signalling endpoint uses TLS


def is_webrtc(url: str) -> bool:
    """Whether the URL of a server uses the WebRTC transport."""
    return url.partition("://")[0] in WEBRTC_SCHEMES


def host_name() -> str:
    """The host name of this machine, valid as one level of an MQTT topic."""
    return socket.gethostname().partition(".")[0].translate(str.maketrans("+#/$ ", "-----")) or "edge"
