"""Names the step at which a WebRTC connection failed: ICE, the DTLS handshake, or what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiortc import RTCDtlsTransport

_CONNECTED = ("connected", "completed")


def failed_handshake(dtls: RTCDtlsTransport | None) -> str | None:
    """Why a connection failed although packets pass between the peers; None if they do not pass."""
    if dtls is None:
        return None
    if dtls.state == "connected":
        return "the DTLS handshake succeeded, but the channels did not open (SCTP)"
    if dtls.state in ("connecting", "failed") and (dtls.transport.state in _CONNECTED or dtls.state == "failed"):
        from sagelink.net.peer_compatibility import refused_certificate

        reason = refused_certificate(dtls) or "certificate, fingerprint or cipher suite"
        return f"packets pass (ICE), but the DTLS handshake failed: {reason}"
    return None
