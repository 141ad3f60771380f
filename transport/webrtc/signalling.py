"""The edge's half of signalling: posts a WebRTC offer over HTTP and returns the server's answer."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl

from sagelink.net.offers import MAX_OFFER_BYTES
from sagelink.transport.gated_tcp import GatedTcp
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint
from sagelink.transport.wire_cost import WireCharger

_TIMEOUT_S = 3.0
_SPREAD = 8.0  # the offer may take this many times what it needs at the rate of the budget; TLS is a part of it
OFFER_PATH = "/offer"


class Unreachable(Exception):
    """The server gave no usable answer; the text gives the reason."""


async def exchange(
    endpoint: SignallingEndpoint, offer: str, path: str = OFFER_PATH, charger: WireCharger | None = None
) -> str:
    """The answer to an offer (SDP). `charger`: pays for the connection. Raises Unreachable."""
    charger = charger or WireCharger(None)
    gated = GatedTcp(charger, endpoint.host, endpoint.port)
    timeout_s = _TIMEOUT_S + _SPREAD * 8 * len(offer) / (charger.rate_bps or float("inf"))
    try:
        library_end = await gated.open(timeout_s)
    except OSError as error:
        raise Unreachable(error.strerror or str(error)) from None
    carrying = asyncio.create_task(gated.run())
    try:
        with library_end:
            return await asyncio.to_thread(_post, endpoint, offer, path, library_end, timeout_s)
    finally:
        await carrying  # it ends, because the library's end is closed


def _post(endpoint: SignallingEndpoint, offer: str, path: str, connected: socket.socket, timeout_s: float) -> str:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
    headers = {"Content-Type": "application/sdp"}
    if endpoint.token is not None:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    try:
        connected.settimeout(timeout_s)
        connection.sock = connected
        if endpoint.tls_context is not None:
            connection.sock = endpoint.tls_context.wrap_socket(connected, server_hostname=endpoint.host)
        connection.request("POST", path, offer.encode(), headers)
        response = connection.getresponse()
        text = response.read(MAX_OFFER_BYTES).decode(errors="replace")
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"TLS: {error.verify_message.rstrip('.')}; accepted: a certificate for {endpoint.host!r} that an authority "
            "in webrtc.ca has signed"
        ) from None
    except ssl.SSLError as error:
        raise Unreachable(f"TLS: {error.reason or error}; a server without a certificate is webrtc+http://") from None
    except http.client.HTTPException as error:
        reason = f"no HTTP server: {error or type(error).__name__}"
        raise Unreachable(
            reason if endpoint.tls else f"{reason}; a server with a certificate is webrtc+https://"
        ) from None
    except OSError as error:
        raise Unreachable(error.strerror or str(error)) from None
    finally:
        connection.close()
    if response.status == 401:
        problem = "the token is not the server's" if endpoint.token else "no token is set"
        raise Unreachable(f"the server refuses: {problem}; set {ENV_TOKEN} or webrtc.token_file")
    if response.status != 201:
        raise Unreachable(f"the server refuses ({response.status}): {text.strip()[:200] or response.reason}")
    return text
