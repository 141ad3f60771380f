"""Addresses that both sides read: which transport a URL names, and this machine's own name."""

from __future__ import annotations

import socket

WEBRTC_SCHEMES = {"webrtc+http": False, "webrtc+https": True}  # whether the signalling endpoint uses TLS


def is_webrtc(url: str) -> bool:
    """Whether a server's address names the WebRTC transport."""
    return url.partition("://")[0] in WEBRTC_SCHEMES


def host_name() -> str:
    """This machine's name as one level of an MQTT topic, or of a camera's address."""
    return socket.gethostname().partition(".")[0].translate(str.maketrans("+#/$ ", "-----")) or "edge"
